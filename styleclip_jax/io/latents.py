"""Latents in files: which space an array is in, reading and writing.

`.npy` (memory-mapped) and `.safetensors` hold one array, `.npz` one array or a style
space: the flat vectors [N, ΣC] as "styles", with the names of their layers beside it.
"""

import pathlib
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import files

SPACES = ("z", "w", "w_plus", "s")

# What the readers of the formats raise for files that are not theirs.
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
)


class Latents(NamedTuple):
    """Latents and the space they are in.

    Attributes:
      array: [N, D] for z and w, [N, L, D] for w_plus, [N, ΣC] (flat) for s. May be
        memory-mapped.
      space: one of `SPACES`.
    """

    array: np.ndarray
    space: str


class Dimensions(NamedTuple):
    """What the latents of a generator look like."""

    resolution: int
    z_dim: int
    w_dim: int
    layout: tuple[spaces.StyleLayer, ...]


def read(path: files.Path, dimensions: Dimensions, space: str | None) -> Latents:
    """Reads latents for a generator.

    Accepts [D], [L, D], [N, D] and [N, L, D]; [L, D] with L = the number of W+ rows is
    one W+ latent, any other count is N of W. Flat style vectors are told by their
    length.

    Args:
      path: .npy, .npz or .safetensors.
      dimensions: of the generator.
      space: overrides what the shape says; needed for z.

    Raises:
      UserError: the file cannot be read, or does not fit the generator.
    """
    array = _read_array(pathlib.Path(path))
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path}: expected floating-point latents, found {array.dtype}")
    return interpret(array, dimensions, space, name=str(path))


def interpret(
    array: np.ndarray, dimensions: Dimensions, space: str | None, *, name: str
) -> Latents:
    """Tells the space of an array by its shape; see `read`."""
    rows = spaces.num_rows(dimensions.resolution)
    channels = sum(layer.channels for layer in dimensions.layout)
    shapes = {
        "z": (dimensions.z_dim,),
        "w": (dimensions.w_dim,),
        "w_plus": (rows, dimensions.w_dim),
        "s": (channels,),
    }
    # Order matters: [L, D] is one W+ latent before it is L of W.
    candidates = [space] if space else ["w_plus", "w", "s"]
    for candidate in candidates:
        shape = shapes[candidate]
        if array.shape == shape:
            return Latents(array[None], candidate)
        if array.shape[1:] == shape and len(array):
            return Latents(array, candidate)
    expected = " or ".join(
        f"[{', '.join(map(str, ('N', *shapes[c])))}]" for c in candidates
    )
    raise UserError(
        f"{name}: expected {expected}, found {list(array.shape)}: this generator is "
        f"{dimensions.resolution}²{_guess(array.shape, dimensions)}"
    )


def write(
    path: files.Path, latents: Latents, layout: Sequence[spaces.StyleLayer]
) -> None:
    """Writes latents, S as .npz with the names of its layers, others as .npy."""
    with files.new_file(path) as temporary:
        if latents.space == "s":
            np.savez(
                temporary,
                styles=latents.array,
                layers=[layer.name for layer in layout],
                channels=[layer.channels for layer in layout],
            )
        else:
            np.save(temporary, latents.array)


def _guess(shape: tuple[int, ...], dimensions: Dimensions) -> str:
    """Says for which resolution the rows of a W+ array were made, if for any."""
    resolutions = {spaces.num_rows(8 << i): 8 << i for i in range(8)}
    found = resolutions.get(shape[1]) if len(shape) == 3 else None
    if found in (None, dimensions.resolution):
        return ""
    return f", was it made for a {found}² one?"


def _read_array(path: pathlib.Path) -> np.ndarray:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: expected a file of latents, found {found}")
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        hint = " (convert it by python -m convert)" if path.suffix == ".pt" else ""
        raise UserError(
            f"{path}: expected latents as {', '.join(readers)}, "
            f"found {path.suffix or 'no suffix'}{hint}"
        )
    try:
        return readers[path.suffix](path)
    except _BROKEN as error:
        raise UserError(f"{path}: not a readable {path.suffix} ({error})") from None


def _read_npy(path: pathlib.Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_npz(path: pathlib.Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        if "styles" in archive:
            return archive["styles"]
        return archive[_only(path, archive.files)]


def _read_safetensors(path: pathlib.Path) -> np.ndarray:
    tensors = safetensors.numpy.load_file(path)
    return tensors[_only(path, list(tensors))]


def _only(path: pathlib.Path, names: Sequence[str]) -> str:
    if len(names) != 1:
        raise UserError(
            f"{path}: expected one array of latents, found {len(names)}: "
            f"{', '.join(names[:5])}"
        )
    return names[0]
