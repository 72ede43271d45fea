"""Latents that tools of inversion wrote: `train_faces.pt`, `latents.pt` and the like.

A tensor is W or W+, as the optimization, the mapper and e4e keep them. Lists, dicts by
the names of photos and S by layers are those that `latent_containers` knows.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, latent_containers, latent_files
from styleclip_jax.io.latent_containers import Contents
from styleclip_jax.io.torch_files import TorchFile

from .rules import Conversion

KIND = "latents"
_FORMATS = ("zip", "legacy", "pickle", "npy", "npz")


@dataclasses.dataclass(frozen=True)
class LatentsInfo:
    """Shape of latents, their names, and the shape of the generator if they are S.

    Attributes:
      shape: of all latents.
      channels: feature channels of the generator at 4², 8², …, of S; else none.
      names: of the latents, such as of their photos; none if there are none.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of the result in its folder."""
        return "latents.npz" if self.channels or self.names else "latents.npy"


def recognize(file: TorchFile) -> bool:
    """Whether the file holds arrays alone, or latents in a container.

    An array in NumPy's format needs no conversion.
    """
    if file.format not in _FORMATS:
        return False
    content = file.content
    parts = content if isinstance(content, list | tuple) else [content]
    if parts and all(map(latent_containers.is_floating, parts)):
        return file.format != "npy"
    try:
        return _unpack(file).array.ndim in (2, 3)
    except UserError:
        return False


def convert(file: TorchFile) -> Conversion:
    """The latents as float32.

    Raises:
      UserError: the file holds something else, or numbers that are not finite.
    """
    found = _unpack(file)
    array = np.array(found.array, np.float32)
    if array.ndim not in (1, 2, 3):
        raise UserError(
            f"{file.path}: expected latents as [N, rows, features] or [N, features], "
            f"found an array of shape {list(array.shape)}"
        )
    if not array.size or not np.isfinite(array).all():
        raise UserError(f"{file.path}: expected latents that are finite, and some")
    channels = spaces.channels_of(found.lengths) or ()
    names = found.names
    if not names and not channels and found.counted and array.ndim == 2:
        # An array alone, with as many W codes as W+ has rows, would be one W+ latent.
        names = tuple(map(str, range(len(array))))
    info = LatentsInfo(array.shape, channels, names)
    return Conversion(KIND, info, {KIND: array}, notes=list(found.notes))


def write(conversion: Conversion, _: TorchFile, directory: pathlib.Path) -> None:
    """Writes the folder, whole or not at all."""
    info = conversion.config
    space = "s" if info.channels else "w_plus"
    layout = spaces.style_layout(info.channels) if info.channels else ()
    with files.new_directory(directory) as temporary:
        found = latent_files.Latents(conversion.tensors[KIND], space, info.names)
        latent_files.write(temporary / info.file, found, layout)


def read(
    conversion: Conversion, directory: pathlib.Path
) -> tuple[dict[str, Any], LatentsInfo]:
    """Latents that `write` wrote, and their shape and names."""
    found = latent_files.unpack(directory / conversion.config.file)
    info = LatentsInfo(found.array.shape, conversion.config.channels, found.names)
    return {KIND: found.array}, info


def _unpack(file: TorchFile) -> Contents:
    return latent_containers.unpack(file.content, name=file.path)
