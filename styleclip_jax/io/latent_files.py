"""Latents in files: reading, writing, and the space that an array is in.

`.npy` and `.safetensors` hold one array, `.npz` one array or a style space: the flat
vectors [N, ΣC] as "styles", with the names of their layers beside it. `.npy` and
uncompressed `.npz` are memory-mapped.
"""

import mmap
import pathlib
import zipfile
from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.lib import format as npy

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.models import stylegan2

SPACES = ("z", "w", "w_plus", "s")

# Errors that the readers of the formats raise for files that are not theirs.
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


def read(
    path: files.Path, config: stylegan2.GeneratorConfig, space: str | None
) -> Latents:
    """Reads latents for a generator.

    Accepts [D], [L, D], [N, D] and [N, L, D]; [L, D] with L = the number of W+ rows is
    one W+ latent, any other count is N of W. Flat style vectors are told by their
    length.

    Args:
      path: .npy, .npz or .safetensors.
      config: configuration of the generator.
      space: overrides what the shape says; needed for z.

    Raises:
      UserError: the file cannot be read, or does not fit the generator.
    """
    array = _read_array(pathlib.Path(path))
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path}: expected floating-point latents, found {array.dtype}")
    return interpret(array, config, space, name=str(path))


def interpret(
    array: np.ndarray,
    config: stylegan2.GeneratorConfig,
    space: str | None,
    *,
    name: str,
) -> Latents:
    """Latents of an array, whose shape tells the space; see `read`."""
    rows = spaces.num_rows(config.resolution)
    channels = sum(layer.channels for layer in config.style_layout)
    shapes = {
        "z": (config.z_dim,),
        "w": (config.w_dim,),
        "w_plus": (rows, config.w_dim),
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
        f"{config.resolution}²{_guess(array.shape, config)}"
    )


def write(
    path: files.Path, latents: Latents, layout: Sequence[spaces.StyleLayer]
) -> None:
    """Writes latents, S as .npz with the names of its layers, others as .npy."""
    array = latents.array
    write_chunks(path, latents.space, array.shape, [array], layout)


def write_chunks(
    path: files.Path,
    space: str,
    shape: tuple[int, ...],
    chunks: Iterable[np.ndarray],
    layout: Sequence[spaces.StyleLayer],
) -> None:
    """Writes latents that are never in memory as a whole; see `write`.

    Args:
      path: file to make.
      space: one of `SPACES`.
      shape: shape of all of them.
      chunks: the latents in order, some at a time.
      layout: layout of S.
    """
    with files.new_file(path) as temporary:
        if space != "s":
            with temporary.open("wb") as file:
                _write_npy(file, shape, chunks)
            return
        names = {"layers": np.array([layer.name for layer in layout])}
        counts = {"channels": np.array([layer.channels for layer in layout])}
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open("styles.npy", "w", force_zip64=True) as member:
                _write_npy(member, shape, chunks)
            for name, array in (names | counts).items():
                with archive.open(f"{name}.npy", "w") as member:
                    npy.write_array(member, array, allow_pickle=False)


def take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some latents as float32 in memory.

    The pages of a memory-mapped file are let go afterwards: they would count as memory
    of this process until it has all of the file.
    """
    found = np.array(array[rows], np.float32)
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.obj if isinstance(base, memoryview) else base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
    return found


def read_array(path: files.Path) -> np.ndarray:
    """Array of a file of latents, memory-mapped where that is possible.

    Raises:
      UserError: the file cannot be read.
    """
    return _read_array(pathlib.Path(path))


def _write_npy(
    file: IO[bytes], shape: tuple[int, ...], chunks: Iterable[np.ndarray]
) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)
    for chunk in chunks:
        file.write(np.ascontiguousarray(chunk, "<f4").tobytes())


def _guess(shape: tuple[int, ...], config: stylegan2.GeneratorConfig) -> str:
    """Guess at the resolution that the rows of a W+ array were made for, if any."""
    resolutions = {spaces.num_rows(8 << i): 8 << i for i in range(8)}
    found = resolutions.get(shape[1]) if len(shape) == 3 else None
    if found in (None, config.resolution):
        return ""
    return f", was it made for a {found}² one?"


def _read_array(path: pathlib.Path) -> np.ndarray:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: expected a file of latents, found {found}")
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        hint = ""
        if path.suffix in (".pt", ".pth"):
            hint = f"; convert it: styleclip-convert {path} --output {path.stem}"
        raise UserError(
            f"{path}: expected latents as {', '.join(readers)}, "
            f"found {path.suffix or 'no suffix'}{hint}"
        )
    try:
        return readers[path.suffix](path)
    except UserError:
        raise
    except _BROKEN as error:
        raise UserError(f"{path}: not a readable {path.suffix} ({error})") from None


def _read_npy(path: pathlib.Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_npz(path: pathlib.Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
        name = "styles" if "styles" in names else _only(path, names)
        mapped = _map_member(path, archive.zip.getinfo(f"{name}.npy"))
        return archive[name] if mapped is None else mapped


def _map_member(path: pathlib.Path, member: zipfile.ZipInfo) -> np.ndarray | None:
    """Array of an archive's member, None for one that cannot be mapped."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        # A member follows its local header, whose last two parts vary in length.
        file.seek(member.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(int(lengths.sum()), 1)
        if npy.read_magic(file) != (1, 0):
            return None
        shape, in_columns, dtype = npy.read_array_header_1_0(file)
        if dtype.hasobject:
            return None
        return np.memmap(
            path, dtype, "r", file.tell(), shape, "F" if in_columns else "C"
        )


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
