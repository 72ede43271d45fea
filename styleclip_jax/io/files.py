"""Files and folders that appear whole or not at all, and what they hold."""

import contextlib
import hashlib
import os
import pathlib
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

from styleclip_jax import documents
from styleclip_jax.errors import UserError

Path = str | os.PathLike[str]

# Flags and inputs of a run, in its folder.
RECORD = "run.json"


@contextlib.contextmanager
def new_file(path: Path, *, make_folder: bool = True) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; renames it there on success.

    Args:
      path: file to make; one that is there is replaced.
      make_folder: whether its folder may be made; otherwise it must be there.

    Raises:
      UserError: the folder cannot be written.
    """
    with _replacing(pathlib.Path(path), make_folder) as (temporary, handle):
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.close(handle)
        yield temporary
        # Some writers replace it by what only the owner can read.
        os.chmod(temporary, mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes, *, make_folder: bool = True) -> None:
    """Writes a file, whole or not at all; cheaper than `new_file` for many small ones.

    Args:
      path: file to make; one that is there is replaced.
      content: its content.
      make_folder: whether its folder may be made; otherwise it must be there.

    Raises:
      UserError: it cannot be written.
    """
    with (
        _replacing(pathlib.Path(path), make_folder) as (_, handle),
        open(handle, "wb", buffering=0) as file,
    ):
        file.write(content)
        os.fsync(handle)


def append(path: Path, offset: int, content: bytes) -> None:
    """Writes durably at the offset of a file that is there; what follows is cut off.

    Raises:
      UserError: the file is gone, or cannot be written.
    """
    with _writable(pathlib.Path(path)), open(path, "r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def move(source: Path, path: Path) -> None:
    """Gives a file another name in its folder; one of that name is replaced.

    Raises:
      UserError: the folder is gone, or cannot be written.
    """
    with _writable(pathlib.Path(path)):
        os.replace(source, path)


@contextlib.contextmanager
def scratch() -> Iterator[IO[bytes]]:
    """Yields a file without a name, in memory where the system has such files.

    Raises:
      UserError: there is no space for it.
    """
    with _writable(pathlib.Path(tempfile.gettempdir())):
        if sys.platform == "linux":
            with open(os.memfd_create("scratch"), "r+b", buffering=0) as file:
                yield file
        else:
            with tempfile.TemporaryFile(buffering=0) as file:
                yield file


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable.

    Raises:
      UserError: the folder is gone, or cannot be written.
    """
    with _writable(pathlib.Path(path)):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`; renames it there on success.

    Raises:
      UserError: `path` is a file, or a folder with something in it and not to be
        overwritten, or it cannot be written.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: expected a folder to write, found a file")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise UserError(f"{path}: the folder already exists and is not empty")
    with _writable(path):
        made = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        name = tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = pathlib.Path(name)
    try:
        with _writable(path):
            yield temporary
            # mkdtemp and some writers make what only the owner can read.
            os.chmod(temporary, 0o777 & ~_umask())
            for file in temporary.iterdir():
                os.chmod(file, 0o666 & ~_umask())
            if path.is_dir():
                shutil.rmtree(path)
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            parent.rmdir()
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON document; numbers that are not finite are null."""
    with new_file(path) as temporary:
        temporary.write_text(documents.dump(value, indent=2) + "\n")


def several(paths: Path | Sequence[Path]) -> list[Path]:
    """A list of paths, of a single one too."""
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with pathlib.Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror or error})") from None


def hash_bytes(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _replacing(
    path: pathlib.Path, make_folder: bool
) -> Iterator[tuple[pathlib.Path, int]]:
    """Yields an empty file beside `path`, and a handle that the caller closes.

    On success it takes the place of `path`; otherwise it is removed.
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    with _writable(path):
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            yield temporary, handle
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _writable(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror or error})") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
