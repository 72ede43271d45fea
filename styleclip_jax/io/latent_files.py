"""Latents in files: reading, writing, and the space that an array is in.

`.npy` and `.safetensors` hold one array, `.npz` one array, perhaps with "names" beside
it, or a style space: the flat vectors [N, ΣC] as "styles", with the names of their
layers. `.npy` and uncompressed `.npz` are memory-mapped. Files of PyTorch, pickled
dicts in `.npy` and folders of files are read as well; see `latent_containers`.
"""

import hashlib
import mmap
import pathlib
import zipfile
from collections.abc import Iterable, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import array_files, files, latent_containers, torch_files
from styleclip_jax.io.latent_containers import Contents
from styleclip_jax.models import generators

# Suffixes of the files that are taken from a folder.
_SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".pkl", ".safetensors")
# Arrays that stand beside the latents in an archive.
_BESIDE = {"names", "layers", "channels"}


class Latents(NamedTuple):
    """Latents and the space they are in.

    Attributes:
      array: [N, D] for z and w, [N, L, D] for w_plus, [N, ΣC] (flat) for s. May be
        memory-mapped.
      space: one of `SPACES`.
      names: name of each latent, such as that of its photo; none if there are none.
      notes: what an ambiguous file was taken for, as lines for people.
    """

    array: np.ndarray
    space: str
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_latents(path: files.Path) -> bool:
    """Whether a file or folder is one of latents, by its name."""
    path = pathlib.Path(path)
    return path.is_dir() or path.suffix in _SUFFIXES


def read(
    path: files.Path, config: generators.GeneratorConfig, space: str | None
) -> Latents:
    """Reads latents for a generator.

    Accepts [D], [L, D], [N, D] and [N, L, D]; [L, D] with L = the number of W+ rows is
    one W+ latent, any other count is N of W. Flat style vectors are told by their
    length. In lists and dicts, each item is a latent or a batch of them.

    Args:
      path: .npy, .npz or .safetensors, a file of PyTorch, or a folder of these.
      config: configuration of the generator.
      space: overrides what the shape says; needed for z.

    Raises:
      UserError: the file cannot be read, or does not fit the generator.
    """
    rows = config.num_rows
    found = unpack(path, rows, space)
    layout = tuple(layer.channels for layer in config.style_layout)
    if found.lengths and found.lengths != layout:
        raise UserError(
            f"{path}: expected style vectors of {len(layout)} layers of this generator "
            f"({', '.join(map(str, layout))}), found {len(found.lengths)} "
            f"({', '.join(map(str, found.lengths))})"
        )
    name, space = str(path), space or found.space
    latents = interpret(found.array, config, space, name=name, counted=found.counted)
    notes = tuple(f"{path}: {note}" for note in found.notes)
    return latents._replace(names=found.names, notes=notes)


def interpret(
    array: np.ndarray,
    config: generators.GeneratorConfig,
    space: str | None,
    *,
    name: str,
    counted: bool = False,
) -> Latents:
    """Latents of an array, whose shape tells the space; see `read`.

    Args:
      array: one latent or several.
      config: configuration of the generator.
      space: overrides what the shape says.
      name: what the array is from, for messages.
      counted: whether the first axis surely counts latents.
    """
    rows = config.num_rows
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
        if array.shape == shape and not counted:
            return Latents(array[None], candidate)
        if array.shape[1:] == shape and len(array):
            return Latents(array, candidate)
    expected = " or ".join(
        f"[{', '.join(map(str, ('N', *shapes[c])))}]" for c in candidates
    )
    raise UserError(
        f"{name}: expected {expected}, found {list(array.shape)}: this generator is "
        f"{config.size_text}{_guess(array.shape, config)}"
    )


def hash_source(path: files.Path) -> str:
    """SHA-256 of a file of latents, or of the names and hashes of those in a folder."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return files.hash_file(path)
    parts = [f"{_name_in(path, x)} {files.hash_file(x)}\n" for x in _files_of(path)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def write(
    path: files.Path, latents: Latents, layout: Sequence[spaces.StyleLayer]
) -> None:
    """Writes latents: S as .npz with the names of its layers, others as .npy.

    Latents with names are "latents" and "names" of an .npz, whatever their space.
    """
    array = latents.array
    if latents.names:
        with files.new_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, latents=np.float32(array), names=np.array(latents.names))
        return
    write_chunks(path, array.shape, [array], layout if latents.space == "s" else ())


def write_chunks(
    path: files.Path,
    shape: tuple[int, ...],
    chunks: Iterable[np.ndarray],
    layout: Sequence[spaces.StyleLayer],
) -> None:
    """Writes latents that are never in memory as a whole; see `write`.

    Args:
      path: file to make.
      shape: shape of all of them.
      chunks: the latents in order, some at a time.
      layout: layout of S if they are in S, else empty.
    """
    with files.new_file(path) as temporary:
        if not layout:
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
                    np.lib.format.write_array(member, array, allow_pickle=False)


def unpack(
    path: files.Path, rows: int | None = None, space: str | None = None
) -> Contents:
    """Latents of a file or folder, with their names and notes.

    Args:
      path: as in `read`.
      rows, space: as in `latent_containers.unpack`.

    Raises:
      UserError: the file cannot be read, or holds no latents.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _unpack_folder(path, rows, space)
    if not path.is_file():
        raise UserError(f"{path}: expected a file of latents, found no such file")
    if path.suffix == ".npz":
        content, names = _read_npz(path)
    else:
        file = torch_files.read(path)
        content, names = file.content, ()
        if file.format == "safetensors" and len(content) == 1:
            (content,) = content.values()
    found = latent_containers.unpack(content, name=str(path), rows=rows, space=space)
    count = len(found.array) if found.array.ndim else 1
    if np.shape(names) not in ((0,), (count,)):
        raise UserError(
            f"{path}: expected a name for each latent, found {np.size(names)} names "
            f"and {count} latents"
        )
    if not len(names):
        return found
    return found._replace(names=tuple(map(str, names)), counted=True)


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
    return unpack(path).array


def _write_npy(
    file: IO[bytes], shape: tuple[int, ...], chunks: Iterable[np.ndarray]
) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for chunk in chunks:
        file.write(np.ascontiguousarray(chunk, "<f4").tobytes())


def _guess(shape: tuple[int, ...], config: generators.GeneratorConfig) -> str:
    """Guess at the resolution that the rows of a W+ array were made for, if any."""
    resolutions = {spaces.num_rows(8 << i): 8 << i for i in range(8)}
    found = resolutions.get(shape[1]) if len(shape) == 3 else None
    if found in (None, config.resolution):
        return ""
    return f", was it made for a {found}² one?"


def _unpack_folder(path: pathlib.Path, rows: int | None, space: str | None) -> Contents:
    """Latents of the files in a folder, by their names in it."""
    content: dict[str, Any] = {}
    notes: list[str] = []
    for file in _files_of(path):
        one, name = unpack(file, rows, space), _name_in(path, file)
        notes += [f"{name}: {note}" for note in one.notes]
        if one.names:
            pairs = zip(one.names, one.array, strict=True)
            content |= {f"{name}/{inner}": array for inner, array in pairs}
        else:
            content[name] = one.array
    if not content:
        raise UserError(
            f"{path}: expected files of latents ({', '.join(_SUFFIXES)}) in this "
            "folder, found none"
        )
    found = latent_containers.by_name(content, name=str(path), rows=rows, space=space)
    return found._replace(notes=(*notes, *found.notes))


def _files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    found = (x for x in folder.rglob("*") if x.suffix in _SUFFIXES and x.is_file())
    return sorted(x for x in found if x.name[0] != ".")


def _name_in(folder: pathlib.Path, file: pathlib.Path) -> str:
    """Name of a file's latents: that of its folder for PTI's `NAME/0.pt`."""
    inner = file.relative_to(folder)
    numbered = inner.stem == "0" and inner.parent.name
    return str(inner.parent if numbered else inner.with_suffix(""))


def _read_npz(path: pathlib.Path) -> tuple[Any, Any]:
    """Array of an archive, or several by name; names of latents."""
    arrays = array_files.read_npz(path)
    names = arrays.get("names", ())
    main = {name: array for name, array in arrays.items() if name not in _BESIDE}
    return (next(iter(main.values())) if len(main) == 1 else main), names
