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
from collections.abc import Callable, Iterator, Mapping, Sequence
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

    Whoever writes there writes to the file that is there, or loses its lock.

    Args:
      path: file to make; one that is there is replaced.
      make_folder: whether its folder may be made, what killed writers of the same file
        have left is removed, and the name is made durable. Otherwise the folder must
        be there, and the rest is the caller's, for all files of a run at once.

    Raises:
      UserError: the folder cannot be written.
    """
    with _replacing(pathlib.Path(path), make_folder) as (temporary, handle):
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        yield temporary
        # Some writers replace it by what only the owner can read.
        _set_mode(temporary, mode)
        with temporary.open("rb") as file:
            _sync(file.fileno())


def write_bytes(path: Path, content: bytes, *, make_folder: bool = True) -> None:
    """Writes a file, whole or not at all; cheaper than `new_file` for a small one.

    Args:
      path: file to make; one that is there is replaced.
      content: its content.
      make_folder: as in `new_file`.

    Raises:
      UserError: it cannot be written.
    """
    with _replacing(pathlib.Path(path), make_folder) as (_, handle):
        _write(handle, content)
        _sync(handle)


def write_several(
    contents: Mapping[pathlib.Path, bytes],
) -> dict[pathlib.Path, UserError]:
    """Writes files into folders that are there, each whole or not at all.

    All are on their way to the disk before the first is synced, and all are synced
    before the first gets its name, so that one commit of a file system serves several.
    Their names are made durable by the caller, as with `make_folder` of `new_file`.

    Args:
      contents: content of each file; one that is there is replaced.

    Returns:
      Error of each file that cannot be written.
    """
    failed: dict[pathlib.Path, UserError] = {}
    begun: dict[pathlib.Path, tuple[pathlib.Path, int]] = {}

    def begin(path: pathlib.Path) -> None:
        _, handle = begun[path] = _make_locked(path, _make_file)
        _write(handle, contents[path])
        if hasattr(os, "posix_fadvise"):
            # The way to have Linux start writing.
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(path: pathlib.Path) -> None:
        _sync(begun[path][1])

    def end(path: pathlib.Path) -> None:
        os.replace(begun[path][0], path)
        os.close(begun.pop(path)[1])

    try:
        for step in (begin, sync, end):
            for path in [x for x in contents if x not in failed]:
                try:
                    with writable(path):
                        step(path)
                except UserError as error:
                    failed[path] = error
    finally:
        for temporary, handle in begun.values():
            os.close(handle)
            temporary.unlink(missing_ok=True)
    return failed


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


def describe_lacks(path: Path) -> list[str]:
    """Notes on what the file system of one's own file or folder cannot do."""
    path, notes = pathlib.Path(path), []
    if not _set_mode(path, stat.S_IMODE(path.stat().st_mode)):
        notes.append(
            f"note: the file system of {path.parent} keeps no permissions; who may "
            "read what is written there is up to it"
        )
    if not sync_folder(path.parent):
        notes.append(
            f"note: the file system of {path.parent} cannot sync folders; a kill loses "
            "nothing there, a power cut may"
        )
    return notes


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


def remove_abandoned(path: Path, *, is_folder: bool = False) -> None:
    """Removes what killed writers of a file or folder have left beside it.

    Their temporary names alone are looked at, no link is followed, and a lock says that
    a writer lives. What may not be removed stays, and so does everything where the file
    system has no locks.
    """
    path = pathlib.Path(path)
    start, name = f".{path.stem}-", _temporary_names(path)
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if not (entry.name.startswith(start) and name.fullmatch(entry.name)):
                continue
            kind = entry.is_dir if is_folder else entry.is_file
            if not kind(follow_symlinks=False):
                continue
            handle = _open(entry.path)
            try:
                if handle is None or not try_lock(handle):
                    continue
                if is_folder:
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
            finally:
                _close(handle)


@contextlib.contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`; renames it there on success.

    Those that killed processes have left for the same path are removed. Its content is
    durable before it has its name.

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
        remove_abandoned(path, is_folder=True)
        temporary, handle = _make_locked(path, _make_folder)
    try:
        with writable(path):
            yield temporary
            # Some writers make what only the owner can read.
            for file in temporary.iterdir():
                if file.is_file():
                    _set_mode(file, 0o666 & ~_umask())
            _sync_tree(temporary)
            if overwrite and path.is_dir():
                shutil.rmtree(path)
            elif path.is_dir():
                # One that got contents meanwhile stays.
                path.rmdir()
            temporary.replace(path)
            for folder in (path, *made):
                _sync_at(folder.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        remove_empty(made)
        if isinstance(error, UserError):
            # People know the folder by the name that it is to have.
            told = str(error).replace(str(temporary), str(path))
            raise UserError(told, field=error.field, also=error.also) from error
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
    """Yields an empty file beside `path`, and a handle of it with a lock.

    On success it takes the place of `path`; otherwise it is removed.
    """
    with writable(path):
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(path)
        temporary, handle = _make_locked(path, _make_file)
        try:
            yield temporary, handle
            os.replace(temporary, path)
            if make_folder:
                _sync_at(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            _close(handle)


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


def _write(handle: int, content: bytes) -> None:
    """Writes a whole content, of which the system may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _sync(handle: int) -> bool:
    """Makes a file or folder durable; False where the file system cannot."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return False
        raise
    return True


def _sync_at(path: Path) -> bool:
    """Makes a file or folder durable by its name; False where that cannot be."""
    handle = _open(path)
    if handle is None:
        return False
    try:
        return _sync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    """Makes a folder durable with all that is in it."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync_at(os.path.join(place, name))
        _sync_at(place)


def _set_mode(path: Path, mode: int) -> bool:
    """Sets the permissions; False where the file system has none."""
    try:
        os.chmod(path, mode)
    except OSError as error:
        if error.errno not in {*_UNKNOWN, errno.EPERM}:
            raise
        return False
    return True


def _temporary_names(path: pathlib.Path) -> re.Pattern[str]:
    """Pattern of the names that a file or folder has while it is written."""
    return re.compile(rf"\.{re.escape(path.stem)}{_RANDOM}{re.escape(path.suffix)}")


def _make_locked(
    path: pathlib.Path, make: Callable[[pathlib.Path], int | None]
) -> tuple[pathlib.Path, Any]:
    """Makes something temporary beside `path`; its lock says that its maker lives.

    Args:
      path: path that it is to have.
      make: makes it, and returns a handle of it if there are such.

    Returns:
      Its path, and the handle.
    """
    while True:
        name = f".{path.stem}-{secrets.token_hex(4)}{path.suffix}"
        temporary = path.with_name(name)
        handle = make(temporary)
        # Another process may have taken it for abandoned before it was locked.
        if handle is None or (
            try_lock(handle) is not False and is_at(handle, temporary)
        ):
            return temporary, handle
        _close(handle)


def _make_file(path: pathlib.Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)


def _make_folder(path: pathlib.Path) -> int | None:
    path.mkdir()
    return _open(path)


def _open(path: Path) -> int | None:
    """Handle to read or sync; None where the system has none, or allows none."""
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except (FileNotFoundError, PermissionError):
        return None


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
