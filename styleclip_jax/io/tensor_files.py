"""Tensors by name in `.safetensors` files, with what the file says of them."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

# Largest length of a header, which is that of some 100,000 tensors.
_MAX_HEADER = 8 << 20

# Types of tensors by the names that headers have for them.
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class TensorFile(NamedTuple):
    """Content of a file.

    Attributes:
      tensors: by name.
      metadata: texts by name; empty if there are none.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]


class Spec(NamedTuple):
    """Shape and type of a tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Head(NamedTuple):
    """Head of a file: all but the numbers, whose length it fits.

    Attributes:
      specs: shape and type of each tensor, by name.
      metadata: texts by name; empty if there are none.
    """

    specs: dict[str, Spec]
    metadata: dict[str, str]


def read(path: files.Path) -> TensorFile:
    """Reads a file of tensors.

    Raises:
      UserError: no such file, or not a safetensors file.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
        return TensorFile(safetensors.numpy.load_file(path), metadata)


def read_head(path: files.Path) -> Head:
    """Reads the head of a file of tensors; errors as of `read`."""
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        specs = {
            name: Spec(tuple(x.get_shape()), np.dtype(DTYPES[x.get_dtype()]))
            for name, x in slices.items()
        }
        return Head(specs, file.metadata() or {})


@contextlib.contextmanager
def _open(path: files.Path) -> Iterator[Any]:
    """Context with an open file, which is as long as its head says.

    Raises:
      UserError: no such file, or not a safetensors file.
    """
    if not pathlib.Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        check_header(path)
        with safetensors.safe_open(path, "numpy") as file:
            yield file
    except (safetensors.SafetensorError, OSError, LookupError, ValueError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None


def check_header(path: files.Path) -> None:
    """Refuses a header that is large enough to take much more memory when parsed.

    Raises:
      ValueError: it claims to be longer than any network's.
    """
    with pathlib.Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER:
        raise ValueError(
            f"a header of {length:,} bytes, expected at most {_MAX_HEADER:,}"
        )
