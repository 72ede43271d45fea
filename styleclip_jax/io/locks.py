"""Locks of folders: one writer at a time, by a lock that ends with its process."""

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterator

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

# File in a folder that its writer locks, and which says who that is.
NAME = ".lock"
# The file is not followed if it is a link, which a stranger may have left.
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def only_writer(
    folder: files.Path, field: str, tell: Callable[[str], None]
) -> Iterator[None]:
    """Context in which no other process, here or on another host, is in it too.

    The system frees the lock of a process that was killed. The folder is made if it is
    not there, and removed again if nothing was written.

    Args:
      folder: folder to write to.
      field: name of the setting that names the folder.
      tell: takes a note if the file system has no locks.

    Raises:
      UserError: another one has it, or the folder cannot be written, or another one
        with its name is there in the end.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{field}: expected a folder to write, found the file {folder}", field=field
        )
    with files.writable(folder):
        made = files.make_folder(folder)
    try:
        path = folder / NAME
        handle = _acquire(path, field, tell)
        try:
            yield
            if folder.exists() and not files.is_at(handle, path):
                raise UserError(
                    f"{field}: {folder} was removed and made anew while this run wrote "
                    "to it; start again",
                    field=field,
                )
        finally:
            try:
                # The folder may be gone, or another run's by now; a file that stays is
                # locked by no one.
                with contextlib.suppress(OSError):
                    if files.is_at(handle, path):
                        path.unlink()
            finally:
                os.close(handle)
    finally:
        files.remove_empty(made)


def _acquire(path: pathlib.Path, field: str, tell: Callable[[str], None]) -> int:
    """Locks the file and writes into it by whom; returns its handle."""
    while True:
        with files.writable(path):
            handle = os.open(path, _FLAGS, 0o666)
        try:
            locked = files.try_lock(handle)
            if locked is False:
                raise UserError(
                    f"{field}: another run{_describe_other(handle)} writes to "
                    f"{path.parent}; wait for its end, or give another folder",
                    field=field,
                )
            # The one before may have removed the file that was opened.
            if files.is_at(handle, path):
                with files.writable(path):
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, _describe_self(), 0)
                if locked is None:
                    tell(
                        f"note: the file system of {path.parent} has no locks; no "
                        "other run may write there meanwhile"
                    )
                for note in files.describe_lacks(path):
                    tell(note)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _describe_self() -> bytes:
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    who = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    return json.dumps(who).encode()


def _describe_other(handle: int) -> str:
    """Words on who has the lock; none while that is being written."""
    try:
        who = json.loads(os.pread(handle, 1000, 0))
        return f", process {who['process']} on {who['host']} since {who['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
