"""Containers of latents: what tools of inversion write, as one array with names.

A container is a list, or a dict by the names of the photos, of latents with surplus
axes of one. The rules say what an ambiguous one is; what they decided is a note.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.io.pickled.inert import Object

# Names that tools give to latents, in the order in which they count.
_KEYS = (
    *("w_plus", "wplus", "w+", "ws", "w", "projected_w", "latents", "latent"),
    *("latent_in", "latent_code", "latent_codes", "codes", "code", "dlatents"),
    *("dlatent", "styles", "style", "s", "z"),
)
_MAX_SHOWN = 5
# Rows of W+ of generators of 8² to 1024², where no generator says its own.
_ROWS = range(4, 19, 2)


class Contents(NamedTuple):
    """Latents of a container.

    Attributes:
      array: [N, …] float; an array that stands alone is as the file has it.
      counted: whether the first axis surely counts latents.
      names: name of each latent, such as that of its photo; none if there are none.
      lengths: length of the style vector of each layer, of S by layers; else none.
      space: "s" or "z" if the container tells it, else None.
      notes: what was decided, as lines for people.
    """

    array: np.ndarray
    counted: bool = True
    names: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    space: str | None = None
    notes: tuple[str, ...] = ()


def unpack(
    content: Any, *, name: str, rows: int | None = None, space: str | None = None
) -> Contents:
    """Latents of whatever a file holds.

    Args:
      content: arrays, lists and dicts, as `torch_files.read` has them.
      name: name of the file, for messages.
      rows: number of rows of W+ of the generator, None if that is not known.
      space: space that the user named, None to tell it by the shapes.

    Raises:
      UserError: there are no latents, or those of several shapes.
    """
    return _Unpacking(name, rows, space).unpack(content)


def by_name(
    content: dict[str, Any], *, name: str, rows: int | None, space: str | None
) -> Contents:
    """Latents of a dict whose names are those of photos; see `unpack`."""
    return _Unpacking(name, rows, space).by_name(content)


def is_floating(array: Any) -> bool:
    """Whether a value is an array of floating-point numbers."""
    return isinstance(array, np.ndarray) and (
        array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16
    )


class _Unpacking(NamedTuple):
    """Unpacking of a file; see `unpack`."""

    name: str
    rows: int | None
    space: str | None

    def unpack(self, content: Any) -> Contents:
        if isinstance(content, Object):
            content = content.items or content.state
        if isinstance(content, np.ndarray):
            return _alone(content, self.name)
        if isinstance(content, dict):
            if key := _key_of(content):
                found = self.unpack(content[key])
                rest = [str(other) for other in content if other != key]
                if rest:
                    note = f"latents are its {key}; left out: {list_names(rest)}"
                    found = found._replace(notes=(note, *found.notes))
                is_z = key.lower() == "z"
                return found._replace(space="z") if is_z else found
            styles = self._styles(list(content.values()))
            return styles or self.by_name(content)
        if isinstance(content, list | tuple) and content:
            return self._styles(content) or self._listed(content)
        raise self._refuse(torch_files.summarize(content))

    def by_name(self, content: dict[Any, Any]) -> Contents:
        """Latents by name; of several, such as iterations, the last one counts."""
        parts, names, notes, left_out = [], [], [], []
        counts = set()
        for key, value in content.items():
            found = self._item(value)
            if str(key).endswith((".weight", ".bias")) or (
                found is None and torch_files.tensors(value)
            ):
                raise self._refuse(torch_files.summarize(content))
            if found is None:
                left_out.append(str(key))
                continue
            counts.add(len(found))
            parts.append(found[-1:])
            names.append(str(key))
        if not parts:
            raise self._refuse(torch_files.summarize(content))
        if counts != {1}:
            several = " or ".join(map(str, sorted(counts)))
            notes.append(f"each name has {several} latents; the last one counts")
        if left_out:
            notes.append(f"no latents are in, and left out: {list_names(left_out)}")
        return self._join(parts, names)._replace(notes=tuple(notes))

    def _listed(self, content: Iterable[Any]) -> Contents:
        """Latents of a list: one or a batch in each item."""
        items = list(content)
        parts = [self._item(value) for value in items]
        found = [part for part in parts if part is not None]
        if len(found) < len(items):
            raise self._refuse(torch_files.summarize(items))
        joined = self._join(found, ())
        if joined.array.ndim == 2 and spaces.channels_of(_lengths(items)):
            note = (
                f"a list of {len(items)} vectors of one length is taken for W codes; "
                "as one S code it needs the space s"
            )
            return joined._replace(notes=(note,))
        return joined

    def _item(self, value: Any) -> np.ndarray | None:
        """Latents [n, …] of an item of a container, None if it has none."""
        if isinstance(value, Object):
            value = value.items or value.state
        if isinstance(value, dict):
            key = _key_of(value)
            return self._item(value[key]) if key else None
        if isinstance(value, list | tuple):
            if styles := self._styles(value):
                return styles.array
            parts = [self._item(part) for part in value]
            found = [part for part in parts if part is not None]
            same = len({part.shape[1:] for part in found}) == 1
            return np.concatenate(found) if same and len(found) == len(parts) else None
        if not is_floating(value) or not value.size:
            return None
        shape = [length for length in value.shape if length > 1] or [1]
        array = np.asarray(value, np.float32).reshape(shape)
        if array.ndim == 1 or (array.ndim == 2 and self._is_w_plus(len(array))):
            return array[None]
        return array if array.ndim <= 3 else None

    def _is_w_plus(self, count: int) -> bool:
        """Whether so many vectors are the rows of one W+ latent."""
        if self.space not in (None, "w_plus"):
            return False
        return count in _ROWS if self.rows is None else count == self.rows

    def _styles(self, parts: Any) -> Contents | None:
        """S of a style vector, or a batch of them, for each layer in turn.

        Layers of one length are W codes, unless the user says that they are S.
        """
        lengths = _lengths(parts)
        one_length = len(set(lengths)) == 1 and self.space != "s"
        if one_length or not spaces.channels_of(lengths):
            return None
        flat = [
            part.reshape(-1, length)
            for part, length in zip(parts, lengths, strict=True)
        ]
        if len({len(part) for part in flat}) > 1:
            return None
        array = np.concatenate(flat, axis=1).astype(np.float32)
        return Contents(array, lengths=lengths, space="s")

    def _join(self, parts: list[np.ndarray], names: Iterable[str]) -> Contents:
        shapes = {part.shape[1:] for part in parts}
        if len(shapes) > 1:
            found = " and ".join(str(list(shape)) for shape in sorted(shapes))
            raise self._refuse(f"some of {found}")
        return Contents(np.concatenate(parts), names=tuple(names))

    def _refuse(self, found: str) -> UserError:
        return UserError(
            f"{self.name}: expected latents as [N, rows, features] or [N, features], "
            f"alone, in a list or by name, or S by layers, found {found}"
        )


def _alone(array: np.ndarray, name: str) -> Contents:
    """An array without surplus axes of one; other ones are as they were."""
    if not is_floating(array):
        raise UserError(f"{name}: expected floating-point latents, found {array.dtype}")
    if array.dtype == ml_dtypes.bfloat16:
        array = array.astype(np.float32)
    first, *inner = array.shape or (1,)
    kept = (first, *(length for length in inner if length > 1))
    if len(kept) > 3 and first == 1:
        kept = kept[1:]
    if kept == array.shape or not array.size or array.ndim < 2:
        return Contents(array, counted=False)
    note = f"{list(array.shape)} is read as {list(kept)}"
    return Contents(array.reshape(kept), notes=(note,))


def _key_of(content: dict[Any, Any]) -> str | None:
    """Key of the latents among settings and the like, None if names are photos'."""
    held = np.ndarray | list | tuple | dict | Object
    keys = {
        key.lower(): key
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, held)
    }
    return next((keys[known] for known in _KEYS if known in keys), None)


def _lengths(parts: Iterable[Any]) -> tuple[int, ...]:
    """Lengths of the vectors of arrays [N, C], perhaps with more axes of one; or ()."""
    lengths = []
    for part in parts:
        if not is_floating(part) or not part.size or not part.ndim:
            return ()
        length = max(part.shape[1:] or part.shape)
        count = len(part) if part.ndim > 1 else 1
        if part.size != count * length:
            return ()
        lengths.append(length)
    return tuple(lengths)


def list_names(names: Sequence[str], most: int = _MAX_SHOWN) -> str:
    """The first names with commas between, and how many more there are."""
    more = len(names) - most
    shown = ", ".join(names[:most])
    return f"{shown} and {more} more" if more > 0 else shown
