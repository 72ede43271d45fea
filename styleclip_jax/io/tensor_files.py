"""Tensors by name in `.safetensors` files, with what the file says of them."""

import pathlib
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

# Largest length of a header, which is that of some 100,000 tensors.
_MAX_HEADER = 8 << 20


class TensorFile(NamedTuple):
    """Content of a file.

    Attributes:
      tensors: by name.
      metadata: texts by name; empty if there are none.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]


def read(path: files.Path) -> TensorFile:
    """Reads a file of tensors.

    Raises:
      UserError: no such file, or not a safetensors file.
    """
    if not pathlib.Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        check_header(path)
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        return TensorFile(safetensors.numpy.load_file(path), metadata)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
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
