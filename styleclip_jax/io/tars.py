"""Tar archives: bytes of their members, and where members stand in a file.

Bytes depend on names and contents alone: members are of no owner and no time, and an
archive is what Python's `tarfile` writes of them. So archives can be appended to, cut
off and put together by copying bytes.
"""

import gzip
import pathlib
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

# Members that are looked at in an archive of others; a package of Python has some ten.
_MAX_PACKED = 1000


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


class _Bounded:
    """File that refuses to be read beyond a number of bytes."""

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it unpacks to far more than it holds")
        return data


def find_packed(path: pathlib.Path, suffix: str) -> bytes | None:
    """Content of the first file in a .tar.gz whose name ends so, None without one.

    At most four times the bytes of the archive are unpacked.

    Raises:
      ValueError: that did not suffice.
      tarfile.TarError, zlib.error, EOFError, OSError: the archive is damaged.
    """
    limit = 4 * path.stat().st_size + (1 << 16)
    with gzip.open(path) as unpacked:
        try:
            head = unpacked.read(tarfile.BLOCKSIZE)
        except (zlib.error, EOFError, gzip.BadGzipFile):
            return None
        if head[257:262] != b"ustar":
            return None
        unpacked.seek(0)
        bounded = cast(IO[bytes], _Bounded(unpacked, limit))
        with tarfile.open(fileobj=bounded, mode="r|") as archive:
            for number, info in enumerate(archive):
                if number == _MAX_PACKED:
                    raise ValueError(f"more than {_MAX_PACKED:,} members")
                if info.name.endswith(suffix) and info.isreg() and not info.issparse():
                    content = archive.extractfile(info)
                    return None if content is None else content.read()
    return None
