"""Storage of the page: a folder whose files are removed in time and have a limit."""

import contextlib
import os
import pathlib
import shutil
import threading
import time
from typing import NamedTuple

from styleclip_jax.errors import UserError

# What a visitor is told.
FULL = "The disk of this page is full: try again in some minutes"
# Seconds that files are kept, and those while room for others is short.
KEPT, KEPT_IF_FULL = 3600, 300
# Bytes of the disk that are left to other programs.
_RESERVE = 64 * 2**20


class _File(NamedTuple):
    """File, its number of bytes, and the time at which it was written."""

    path: pathlib.Path
    size: int
    written: float


class Storage:
    """Folder of uploads, pictures and files of the page.

    Attributes:
      folder: the folder.
      max_bytes: largest number of bytes of its files.
    """

    def __init__(self, folder: str | pathlib.Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = pathlib.Path(folder), max_bytes
        self._lock = threading.Lock()

    def tidy(self, seconds: float = KEPT) -> None:
        """Removes files that were written longer ago than so many seconds."""
        before = time.time() - seconds
        with self._lock:
            for file in self._files():
                if file.written < before:
                    file.path.unlink(missing_ok=True)
            for name, *_ in os.walk(self.folder, topdown=False):
                folder = pathlib.Path(name)
                # A new folder is about to get its file.
                if folder != self.folder and folder.stat().st_mtime < before:
                    # A folder with something in it stays.
                    with contextlib.suppress(OSError):
                        folder.rmdir()

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes fit, if need be after removing what is not new."""
        if self._fits(size):
            return True
        self.tidy(KEPT_IF_FULL)
        return self._fits(size)

    def check(self, size: int) -> None:
        """Checks that so many more bytes fit.

        Raises:
          UserError: they do not.
        """
        if not self.has_room(size):
            raise UserError(FULL)

    def _fits(self, size: int) -> bool:
        used = sum(file.size for file in self._files())
        free = shutil.disk_usage(self.folder).free
        return used + size <= self.max_bytes and size + _RESERVE <= free

    def _files(self) -> list[_File]:
        """Files, but for those that are moved away meanwhile."""
        found = []
        for name, _, names in os.walk(self.folder):
            for path in (pathlib.Path(name, x) for x in names):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    found.append(_File(path, status.st_size, status.st_mtime))
        return found
