"""Files and folders that appear whole or not at all, and what they hold."""

import contextlib
import errno
import hashlib
import os
import pathlib
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import safetensors

from styleclip_jax import documents
from styleclip_jax.errors import UserError

if sys.platform != "win32":
    import fcntl

Path = str | os.PathLike[str]

# Flags and inputs of a run, in its folder.
RECORD = "run.json"

# Errors with which a file system says that it does not know an operation.
_UNKNOWN = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
# What follows the name of a file or folder in that of a temporary one.
_RANDOM = "-[0-9a-f]{8}"


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
        _set_mode(temporary, mode)
        with temporary.open("rb") as file:
            _sync(file.fileno())


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
        _sync(handle)


def append(path: Path, offset: int, content: bytes) -> None:
    """Writes durably at the offset of a file that is there; what follows is cut off.

    Raises:
      UserError: the file is gone, or cannot be written.
    """
    with writable(pathlib.Path(path)), open(path, "r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(content)
        file.flush()
        _sync(file.fileno())


def move(source: Path, path: Path) -> None:
    """Gives a file another name in its folder; one of that name is replaced.

    Raises:
      UserError: the folder is gone, or cannot be written.
    """
    with writable(pathlib.Path(path)):
        os.replace(source, path)


@contextlib.contextmanager
def scratch() -> Iterator[IO[bytes]]:
    """Yields a file without a name, in memory where the system has such files.

    Raises:
      UserError: there is no space for it.
    """
    with writable(pathlib.Path(tempfile.gettempdir())):
        if sys.platform == "linux":
            with open(os.memfd_create("scratch"), "r+b", buffering=0) as file:
                yield file
        else:
            with tempfile.TemporaryFile(buffering=0) as file:
                yield file


def sync_folder(path: Path) -> bool:
    """Makes the names in a folder durable; False where the file system cannot.

    Raises:
      UserError: the folder is gone, or cannot be written.
    """
    with writable(pathlib.Path(path)):
        handle = os.open(path, os.O_RDONLY)
        try:
            return _sync(handle)
        finally:
            os.close(handle)


def try_lock(handle: int) -> bool | None:
    """Locks an open file or folder until it is closed, if no other has locked it.

    Returns:
      Whether it is locked now; None where the file system has no locks.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Folders are not open for writing, which some network file systems ask for.
        if error.errno in {*_UNKNOWN, errno.ENOLCK, errno.EBADF}:
            return None
        raise
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file or folder still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def remove_unfinished(folder: Path) -> None:
    """Removes the temporary files of killed writers in a folder and those inside it.

    Nothing else is removed, and no link is followed. Nobody may write there meanwhile.
    """
    top, name = pathlib.Path(folder), re.compile(rf"\..+{_RANDOM}(\.\w+)?")
    inside = [x for x in top.iterdir() if x.is_dir() and not x.is_symlink()]
    for place in (top, *inside):
        for path in place.iterdir():
            if name.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                path.unlink()


@contextlib.contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`; renames it there on success.

    Those that killed processes have left for the same path are removed.

    Raises:
      UserError: `path` is a file, or a folder with something in it and not to be
        overwritten, or it cannot be written.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: expected a folder to write, found a file")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise UserError(f"{path}: the folder already exists and is not empty")
    with writable(path):
        made = make_folder(path.parent)
        # A folder that may not be listed may be written to all the same.
        with contextlib.suppress(PermissionError):
            _remove_abandoned(path)
        temporary, handle = _make_locked(path)
    try:
        with writable(path):
            yield temporary
            # Some writers make what only the owner can read.
            for file in temporary.iterdir():
                if file.is_file():
                    _set_mode(file, 0o666 & ~_umask())
            if overwrite and path.is_dir():
                shutil.rmtree(path)
            elif path.is_dir():
                # One that got contents meanwhile stays.
                path.rmdir()
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        remove_empty(made)
        raise
    finally:
        _close(handle)


def make_folder(path: Path) -> list[pathlib.Path]:
    """Makes a folder and those above it; returns the ones that were not there."""
    path = pathlib.Path(path)
    made = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Removes folders that `make_folder` made, as far as they are empty."""
    with contextlib.suppress(OSError):
        for path in folders:
            pathlib.Path(path).rmdir()


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
    with writable(path):
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
def writable(path: pathlib.Path) -> Iterator[None]:
    """Context of writing to a path, in which errors of the system are one line.

    Raises:
      UserError: the system refused to write.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror or error})") from error
    except safetensors.SafetensorError as error:
        code = re.search(r"(?:os error|code:) (\d+)", str(error))
        reason = os.strerror(int(code[1])) if code else error
        raise UserError(f"{path}: cannot write ({reason})") from error


def _sync(handle: int) -> bool:
    """Makes a file or folder durable; False where the file system cannot."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return False
        raise
    return True


def _set_mode(path: Path, mode: int) -> None:
    """Sets the permissions, where the file system has them."""
    try:
        os.chmod(path, mode)
    except OSError as error:
        if error.errno not in {*_UNKNOWN, errno.EPERM}:
            raise


def _make_locked(path: pathlib.Path) -> tuple[pathlib.Path, int | None]:
    """Makes a temporary folder beside `path`; its lock says that its maker lives."""
    while True:
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        temporary.mkdir()
        handle = _open_folder(temporary)
        # Another process may have taken it for abandoned before it was locked.
        if handle is None or (
            try_lock(handle) is not False and is_at(handle, temporary)
        ):
            return temporary, handle
        _close(handle)


def _remove_abandoned(path: pathlib.Path) -> None:
    """Removes the temporary folders beside `path` whose makers are dead."""
    name = re.compile(rf"\.{re.escape(path.name)}{_RANDOM}")
    with os.scandir(path.parent) as entries:
        found = [x for x in entries if name.fullmatch(x.name)]
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            handle = _open_folder(entry.path)
            if handle is not None and try_lock(handle):
                shutil.rmtree(entry.path, ignore_errors=True)
            _close(handle)


def _open_folder(path: Path) -> int | None:
    """Handle of a folder; None where the system has none, or it is gone."""
    try:
        return os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return None


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
