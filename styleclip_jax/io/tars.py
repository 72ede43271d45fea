"""Tar archives: bytes of their members, and where members stand in a file.

Bytes depend on names and contents alone: members are of no owner and no time, and an
archive is what Python's `tarfile` writes of them. So archives can be appended to, cut
off and put together by copying bytes.
"""

import pathlib
import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple


class Member(NamedTuple):
    """Member of an archive: its bytes from the header to the padding.

    Attributes:
      name: its name.
      size: number of bytes of its content, which follows the header.
      start, stop: its bytes in the file.
    """

    name: str
    size: int
    start: int
    stop: int

    def content(self, file: IO[bytes]) -> bytes:
        """Its content, out of the file that it is in."""
        file.seek(self.start + tarfile.BLOCKSIZE)
        return file.read(self.size)


def member(name: str, content: bytes) -> bytes:
    """Bytes of a member: its header, its content, and zeros up to a whole block."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = info.tobuf(tarfile.USTAR_FORMAT)
    return header + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def end(length: int) -> bytes:
    """End of an archive whose members take `length` bytes: zeros up to a record."""
    least = 2 * tarfile.BLOCKSIZE
    return bytes(least + -(length + least) % tarfile.RECORDSIZE)


def scan(path: pathlib.Path) -> Iterator[Member]:
    """Whole members in their order, up to the end or to what a kill has left."""
    size, start = path.stat().st_size, 0
    with path.open("rb", buffering=0) as file:
        while True:
            file.seek(start)
            header = file.read(tarfile.BLOCKSIZE)
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                return
            if info.size < 0:
                return
            blocks = 1 - -info.size // tarfile.BLOCKSIZE
            stop = start + blocks * tarfile.BLOCKSIZE
            if stop > size:
                return
            yield Member(info.name, info.size, start, stop)
            start = stop
