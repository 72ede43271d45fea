"""Description of what a file holds: levels, names, types and shapes, in short."""

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from styleclip_jax.io import torch_files
from styleclip_jax.io.pickled.inert import Global, Object
from styleclip_jax.io.torch_files import TorchFile

_MAX_DEPTH = 2
_MAX_CHILDREN = 12
_MAX_TEXT = 80


def describe(file: TorchFile, path: pathlib.Path) -> Iterator[str]:
    """Lines on a file: its format and size, then its content, a few levels deep.

    Args:
      file: content.
      path: as it was given; a folder of weights is one of its files.
    """
    source = pathlib.Path(file.path)
    arrays = torch_files.tensors(file.content)
    count = sum(array.size for array in arrays.values())
    read = "" if source == path else f" (reads {source.name})"
    yield (
        f"{path}{read}: {file.format} file of {source.stat().st_size:,} bytes, "
        f"{len(arrays)} tensors, {count:,} numbers"
    )
    if isinstance(file.content, np.ndarray):
        yield f"  {_value(file.content)}"
    yield from _lines(file.content, 1)
    if not _has_deeper(file.content, _MAX_DEPTH):
        return
    yield "  tensors by their names:"
    for name, array in itertools.islice(arrays.items(), _MAX_CHILDREN):
        yield f"    {_short(name)}: {_value(array)}"
    if len(arrays) > _MAX_CHILDREN:
        yield f"    … and {len(arrays) - _MAX_CHILDREN} more"


def _has_deeper(content: Any, depth: int) -> bool:
    """Whether tensors lie deeper than some levels."""
    if not depth:
        return not isinstance(content, np.ndarray) and bool(
            torch_files.tensors(content)
        )
    children = torch_files.children(content)
    return any(_has_deeper(child, depth - 1) for _, child in children)


def _lines(content: Any, depth: int) -> Iterator[str]:
    """Lines on what is below a value, one for each child."""
    children = list(torch_files.children(content))
    for name, child in children[:_MAX_CHILDREN]:
        yield f"{'  ' * depth}{_short(name)}: {_value(child)}"
        if depth < _MAX_DEPTH:
            yield from _lines(child, depth + 1)
    if len(children) > _MAX_CHILDREN:
        yield f"{'  ' * depth}… and {len(children) - _MAX_CHILDREN} more"


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, dict | Object | list | tuple):
        what = value.type if isinstance(value, Object) else type(value).__name__
        count = len(list(torch_files.children(value)))
        if isinstance(value, Object) and not count:
            return _short(f"{what}{value.args}")
        return _short(f"{what} of {count}")
    if isinstance(value, Global):
        return _short(value.name)
    return _short(repr(value) if isinstance(value, str) else str(value))


def _short(text: Any) -> str:
    line = str(text)
    return f"{line[:_MAX_TEXT]}…" if len(line) > _MAX_TEXT else line
