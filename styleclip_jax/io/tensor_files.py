"""Tensors by name in `.safetensors` files, with what the file says of them."""

import pathlib
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.io import files


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
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        return TensorFile(safetensors.numpy.load_file(path), metadata)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
