"""Latents that torch.save wrote: `train_faces.pt`, `latents.pt` and the like.

A tensor is W or W+, as the optimization, the mapper and e4e keep them; a list with a
tensor for each layer is S, as the mapper in S has it.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, latent_files, torch_files
from styleclip_jax.io.torch_files import TorchFile

from . import global_directions
from .rules import Conversion

KIND = "latents"
_FORMATS = ("zip", "legacy")


@dataclasses.dataclass(frozen=True)
class LatentsInfo:
    """Shape of latents, and of the generator if they are S.

    Attributes:
      shape: of all latents.
      channels: feature channels of the generator at 4², 8², …, of S; else none.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...] = ()

    @property
    def file(self) -> str:
        """Name of the result in its folder."""
        return "latents.npz" if self.channels else "latents.npy"


def recognize(file: TorchFile) -> bool:
    """Whether the file is a tensor, or a list of tensors, and nothing else."""
    parts = file.content if isinstance(file.content, list | tuple) else [file.content]
    return (
        file.format in _FORMATS
        and len(parts) > 0
        and all(isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in parts)
    )


def convert(file: TorchFile) -> Conversion:
    """The latents as float32.

    Raises:
      UserError: the file holds something else, or numbers that are not finite.
    """
    content = file.content
    if isinstance(content, list | tuple):
        array, channels = _styles(file)
    elif isinstance(content, np.ndarray) and content.ndim in (1, 2, 3):
        array, channels = content, ()
    else:
        raise UserError(
            f"{file.path}: expected latents as [N, rows, features] or [N, features], "
            f"found {torch_files.summarize(content)}"
        )
    array = np.array(array, np.float32)
    if not array.size or not np.isfinite(array).all():
        raise UserError(f"{file.path}: expected latents that are finite, and some")
    return Conversion(KIND, LatentsInfo(array.shape, channels), {KIND: array})


def write(conversion: Conversion, _: TorchFile, directory: pathlib.Path) -> None:
    """Writes the folder, whole or not at all."""
    info = conversion.config
    space = "s" if info.channels else "w_plus"
    layout = spaces.style_layout(info.channels) if info.channels else ()
    with files.new_directory(directory) as temporary:
        found = latent_files.Latents(conversion.tensors[KIND], space)
        latent_files.write(temporary / info.file, found, layout)


def read(
    conversion: Conversion, directory: pathlib.Path
) -> tuple[dict[str, Any], LatentsInfo]:
    """Latents that `write` wrote, and their shape."""
    array = latent_files.read_array(directory / conversion.config.file)
    info = dataclasses.replace(conversion.config, shape=array.shape)
    return {KIND: array}, info


def _styles(file: TorchFile) -> tuple[np.ndarray, tuple[int, ...]]:
    """Flat S [N, ΣC] of a list of [N, …, C, …], and the generator's channels."""
    parts = file.content
    counts = {len(x) for x in parts if isinstance(x, np.ndarray) and x.ndim > 1}
    if len(counts) != 1 or not all(
        isinstance(x, np.ndarray) and x.ndim > 1 and x.size == len(x) * max(x.shape[1:])
        for x in parts
    ):
        raise UserError(
            f"{file.path}: expected the same number of style vectors in each layer, "
            f"found {torch_files.summarize(parts)}"
        )
    flat = [x.reshape(len(x), -1) for x in parts]
    lengths = [x.shape[1] for x in flat]
    channels = global_directions.channels_of(lengths, pathlib.Path(file.path))
    return np.concatenate(flat, axis=1), channels
