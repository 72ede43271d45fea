"""Arrays of NumPy's files, `.npy` and `.npz`: what a file claims is checked first.

The header of an array is compared with the bytes that are there, and what an archive
inflates to with its size, before memory is taken. Arrays that are stored as they are
get memory-mapped; the checksums of an archive are compared in any case.
"""

import pathlib
import sys
import warnings
import zipfile
from typing import IO, Any, NamedTuple

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

# What compressed members may inflate to: a multiple of the file's size, which repeated
# rows of W+ reach, and what a file of any size may.
_MAX_RATIO, _MAX_INFLATED = 20, 64 << 20
# Largest length of a list of members, which takes some ten times as much in memory,
# and where it is said: in the last bytes.
_MAX_DIRECTORY, _MAX_TAIL = 16 << 20, (1 << 16) + 128
_CHUNK = 1 << 20
_READERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """Header of a `.npy` file or member.

    Attributes:
      shape: shape of the array.
      in_columns: whether its first axis runs fastest.
      dtype: type of its elements.
      start: bytes before its data.
    """

    shape: tuple[int, ...]
    in_columns: bool
    dtype: np.dtype
    start: int

    @property
    def size(self) -> int:
        """Number of bytes of the data."""
        count = self.dtype.itemsize
        for length in self.shape:
            count *= length
        return count


def read_npy(path: files.Path) -> np.ndarray:
    """Array of a `.npy` file, memory-mapped.

    Raises:
      UserError: no such file, a damaged one, or one of Python objects.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            header = read_header(file)
        if header.size > path.stat().st_size - header.start:
            raise ValueError(f"{_describe(header)} is more than the file holds")
        return _view(np.memmap(path, np.uint8, "r"), header, header.start)
    except Exception as error:
        raise _refuse(path, ".npy", error) from None


def read_npz(path: files.Path) -> dict[str, np.ndarray]:
    """Arrays of a `.npz` file by name, memory-mapped where they are not compressed.

    Raises:
      UserError: no such file, a damaged one, one that inflates to far more than it is,
        or one of Python objects.
    """
    path = pathlib.Path(path)
    try:
        with open_archive(path) as archive:
            members = [x for x in archive.infolist() if x.filename.endswith(".npy")]
            _check_sizes(members, path.stat().st_size)
            # One map of all, since each holds a file open.
            whole = np.memmap(path, np.uint8, "r")
            return {
                member.filename.removesuffix(".npy"): _read_member(
                    whole, archive, member
                )
                for member in members
            }
    except Exception as error:
        raise _refuse(path, ".npz", error) from None


def open_archive(path: pathlib.Path, most: int = _MAX_DIRECTORY) -> zipfile.ZipFile:
    """Zip archive whose list of members is of a sensible length.

    Args:
      path: its file.
      most: largest length of the list in bytes.

    Raises:
      OSError: it cannot be read.
      ValueError: the list is too long.
      zipfile.BadZipFile: it is none.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _MAX_TAIL))
        tail = file.read()
    # The last record ends with a comment; in large archives another one is before it.
    end = tail.rfind(b"PK\5\6")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    large = tail.rfind(b"PK\6\6", 0, max(end, 0))
    if large >= 0:
        length = int.from_bytes(tail[large + 40 : large + 48], "little")
    if length > most:
        raise ValueError(f"a list of members of {length:,} bytes")
    return zipfile.ZipFile(path)


def read_header(file: IO[bytes]) -> Header:
    """Header of an array at the start of a stream, which stands at the data then.

    Raises:
      ValueError: it is none, or not that of an array.
    """
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"version {version} of the format")
    with warnings.catch_warnings():
        # Of damaged headers, which are Python's syntax.
        warnings.simplefilter("ignore")
        try:
            shape, in_columns, dtype = _READERS[version](file)
        except Exception as error:
            # Its tokenizer, parser and dtypes raise errors of a dozen kinds.
            raise ValueError(_reason(error)) from None
    if any(type(length) is not int or length < 0 for length in shape) or (
        not dtype.itemsize and any(shape)
    ):
        raise ValueError(f"{dtype} of shape {list(shape)}")
    return Header(shape, in_columns, dtype, file.tell())


def _check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuses members that overlap, or that inflate to too much together."""
    packed = sum(member.compress_size for member in members)
    if packed > size:
        raise ValueError(f"{packed:,} bytes in a file of {size:,}")
    inflated = sum(x.file_size for x in members if x.compress_type)
    if inflated > _MAX_RATIO * size + _MAX_INFLATED:
        raise ValueError(
            f"it inflates from {size:,} to {inflated:,} bytes; if it is yours, write "
            "it by np.savez, without compression"
        )


def _read_member(
    whole: np.ndarray, archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> np.ndarray:
    """Array of a member, whose checksum is compared when its last byte is read.

    Args:
      whole: bytes of the file, memory-mapped.
      archive: the archive in it.
      member: what to read of it.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename}: a compression that NumPy does not write")
    with archive.open(member) as stream:
        header = read_header(stream)
        if header.start + header.size != member.file_size:
            raise ValueError(
                f"{member.filename}: {_describe(header)} is not what it holds"
            )
        mapped = member.compress_type == zipfile.ZIP_STORED
        content = np.empty(0 if mapped else header.size, np.uint8)
        done = 0
        while chunk := stream.read(_CHUNK):
            if not mapped:
                content[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
            done += len(chunk)
    if done != header.size:
        raise ValueError(f"{member.filename}: truncated")
    if mapped:
        return _view(whole, header, _data_of(whole, member) + header.start)
    return _view(content, header, 0)


def _view(content: np.ndarray, header: Header, start: int) -> np.ndarray:
    """Array of the bytes from `start` on."""
    if header.dtype.hasobject:
        raise ValueError("an array of Python objects")
    order: Any = "F" if header.in_columns else "C"
    if not header.size:
        return np.empty(header.shape, header.dtype, order)
    data = content[start : start + header.size]
    if header.dtype.kind == "U":
        _check_texts(data.view(np.dtype("u4").newbyteorder(header.dtype.byteorder)))
    found = data.view(header.dtype)
    return found.reshape(header.shape, order=order)


def _check_texts(codes: np.ndarray) -> None:
    """Refuses texts of codes that are no characters, which Python would fail on."""
    surrogate = (codes >= 0xD800) & (codes <= 0xDFFF)
    if surrogate.any() or codes.max() > sys.maxunicode:
        raise ValueError("a text of codes that are no characters")


def _data_of(whole: np.ndarray, member: zipfile.ZipInfo) -> int:
    """Byte of the file at which the content of a member begins."""
    # A member follows its local header, whose last two parts vary in length.
    start = member.header_offset + 30
    return start + int(whole[start - 4 : start].view("<u2").sum())


def _describe(header: Header) -> str:
    return f"an array of {header.dtype} and shape {list(header.shape)}"


def _refuse(path: pathlib.Path, kind: str, error: Exception) -> UserError:
    """Line on whatever the readers of zip, deflate and Python's syntax raise."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: no such file")
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"{path}: cannot read ({error.strerror})")
    return UserError(f"{path}: not a readable {kind} ({_reason(error)})")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
