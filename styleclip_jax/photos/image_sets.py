"""Sets of images of one size: folders and archives that generators are trained on."""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Protocol

import numpy as np

from styleclip_jax import documents, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import array_files, files
from styleclip_jax.photos import photo_files
from styleclip_jax.progress import Listener

# Suffixes of what counts as an image of a set.
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff")
# File of the classes of a set, as NVIDIA's dataset_tool.py writes it.
LABELS = "dataset.json"
# Largest list of members of an archive: that of some millions of images.
_MAX_DIRECTORY = 1 << 28
# Heads of images that are looked at in a row.
_CHUNK = 1024
# Largest file of an image.
_MAX_IMAGE = 1 << 28
# What a file, zip and deflate fail with. RuntimeError is of passwords.
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
_THREADS = (os.cpu_count() or 1) + 2


class ImageSet(Protocol):
    """Set of images of one size, read some at a time."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def identity(self) -> str:
        """SHA-256 of what tells the set from others."""

    @property
    def labels(self) -> np.ndarray | None:
        """Classes, [N] int64, or vectors [N, C] float32; None where there are none.

        Raises:
          UserError: the file of them is damaged, or lacks an image.
        """

    def __len__(self) -> int: ...

    def check(self, resolution: spaces.Size, listener: Listener) -> None:
        """Checks that each image is as large as a generator draws them.

        Raises:
          UserError: one is not, or is none.
        """

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Reads some, [B, H, W, 3] uint8.

        Raises:
          UserError: one is damaged.
        """


class StoredImages:
    """Images of a folder and of those in it, or of an archive, by their names.

    Grey images, palettes, 16 bits and transparency are read as `photo_files.read` does.

    Attributes:
      name: path of the set.
      identity: SHA-256 of the names and checksums in an archive; for a folder, of the
        names, sizes and times of change of its files.
    """

    def __init__(self, path: files.Path) -> None:
        """Opens a set.

        Args:
          path: folder, or zip archive such as dataset_tool.py of NVIDIA makes.

        Raises:
          UserError: there is no such thing, or no image in it.
        """
        self._path, self.name = pathlib.Path(path), str(path)
        if self._path.is_dir():
            found = _list_folder(self._path)
            self._archive = None
        elif self._path.is_file():
            self._archive = _open_archive(self._path)
            found = {
                member.filename: f"{member.file_size} {member.CRC}"
                for member in self._archive.infolist()
            }
        else:
            raise UserError(f"{path}: expected a folder or zip of images, found none")
        named = (n for n in found if pathlib.PurePath(n).suffix.lower() in _SUFFIXES)
        self._names = sorted(n for n in named if not _is_hidden(n))
        if not self._names:
            raise UserError(
                f"{path}: expected images ({', '.join(_SUFFIXES)}), found none"
            )
        digest = hashlib.sha256()
        for one in (*self._names, *[LABELS] * (LABELS in found)):
            digest.update(f"{one} {found[one]}\n".encode())
        self.identity = digest.hexdigest()
        self._has_labels = LABELS in found

    def __len__(self) -> int:
        return len(self._names)

    @property
    def labels(self) -> np.ndarray | None:
        """Classes of the images; see `ImageSet.labels`."""
        if not self._has_labels:
            return None
        where = f"{self.name}: {LABELS}"
        content = documents.parse(self._content(LABELS, documents.MAX_BYTES), where)
        pairs = content.get("labels") if isinstance(content, dict) else content
        if pairs is None:
            return None
        try:
            found = {str(name).replace("\\", "/"): label for name, label in pairs}
            values = np.array([found[name] for name in self._names])
        except KeyError as error:
            raise UserError(f"{where} has no label of {error.args[0]}") from None
        except (TypeError, ValueError):
            values = np.array(None)
        if values.dtype.kind not in "iuf" or values.ndim not in (1, 2):
            raise UserError(
                f"{where}: expected a list of [name, class], or of [name, vector]"
            )
        return values.astype(np.int64 if values.ndim == 1 else np.float32)

    def first_size(self) -> tuple[int, int]:
        """Width and height of the first image.

        Raises:
          UserError: it is none.
        """
        return self._size(self._names[0])

    def check(self, resolution: spaces.Size, listener: Listener) -> None:
        """Checks the heads of all images; see `ImageSet.check`."""
        height, width = spaces.shape_of(resolution)
        with listener.bar(len(self), "image") as report:
            for start in range(0, len(self), _CHUNK):
                names = self._names[start : start + _CHUNK]
                sizes = _in_threads(self._size, names)
                for name, size in zip(names, sizes, strict=True):
                    if size != (width, height):
                        raise UserError(
                            f"{self.name}: expected images of {width}×{height}"
                            f" as the generator draws them, found {size[0]}×{size[1]} "
                            f"in {name}; resize them first"
                        )
                report(len(names))

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Reads some images; see `ImageSet.load`."""
        return np.stack(_in_threads(self._read, [self._names[row] for row in rows]))

    def _size(self, name: str) -> tuple[int, int]:
        with self._opened(name) as file:
            return photo_files.size(file, f"{self.name}: {name}")

    def _read(self, name: str) -> np.ndarray:
        return photo_files.decode(
            self._content(name, _MAX_IMAGE), f"{self.name}: {name}"
        )

    def _content(self, name: str, most: int) -> bytes:
        """Content of a file of at most so many bytes."""
        with self._opened(name) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise UserError(
                f"{self.name}: expected at most {most >> 20} MB of {name}, found more"
            )
        return content

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """Yields a file of the set; what goes wrong with it is a line."""
        archive = self._archive
        try:
            with archive.open(name) if archive else (self._path / name).open("rb") as f:
                yield f
        except _UNREADABLE as error:
            raise UserError(f"{self.name}: cannot read {name} ({error})") from None


class Mirrored:
    """Set with each image a second time, mirrored, after all others.

    As the option mirror (xflip) of NVIDIA's data sets has it.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        self.name = f"{images.name}, mirrored too"
        self.identity = f"mirrored {images.identity}"

    def __len__(self) -> int:
        return 2 * len(self._images)

    @property
    def labels(self) -> np.ndarray | None:
        """Classes of the images; see `ImageSet.labels`."""
        found = self._images.labels
        return None if found is None else np.concatenate([found, found])

    def check(self, resolution: spaces.Size, listener: Listener) -> None:
        """Checks the images; see `ImageSet.check`."""
        self._images.check(resolution, listener)

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Reads some images; see `ImageSet.load`."""
        count = len(self._images)
        found = self._images.load(np.asarray(rows) % count)
        is_mirrored = np.asarray(rows) >= count
        return np.where(is_mirrored[:, None, None, None], found[:, :, ::-1], found)


def open_several(path: files.Path) -> StoredImages:
    """Opens a set for a work on the field `data`, which one image does not suffice.

    Raises:
      UserError: there is no set, or one with a single image.
    """
    found = StoredImages(path)
    if len(found) < 2:
        raise UserError(
            f"data: expected two images or more, found {len(found)} in {path}",
            field="data",
        )
    return found


def _in_threads(work: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
    """What becomes of some files."""
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(work, names))


def _list_folder(folder: pathlib.Path) -> dict[str, str]:
    """Names of all files in a folder, with / between, and what tells each apart."""
    found = {}
    for inner, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(inner, name)
            about = path.stat()
            relative = path.relative_to(folder).as_posix()
            found[relative] = f"{about.st_size} {about.st_mtime_ns}"
    return found


def _open_archive(path: pathlib.Path) -> zipfile.ZipFile:
    try:
        return array_files.open_archive(path, _MAX_DIRECTORY)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: expected a folder or zip of images, found another file ({error})"
        ) from None


def _is_hidden(name: str) -> bool:
    """Whether a name is of the system, in any part."""
    return any(p[0] == "." or p == "__MACOSX" for p in pathlib.PurePath(name).parts)
