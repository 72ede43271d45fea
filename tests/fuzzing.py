"""Fuzzer of the readers: damaged files of each kind are read, or refused in one line.

  python -m tests.fuzzing --count=10000 [--kinds=npy,photo_png]

Prints a table with the mutants of each kind that were read, refused, ended in another
error, ran something, or took more than the limits of time and memory, and with the most
memory and time that one took. A mutant is made of its kind and number alone; the table
names the first bad ones. --first and --kinds go on where a campaign was cut.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from styleclip_jax.errors import UserError
from tests import fuzz_kinds

# Limits of a file that is refused: seconds of the processor, and bytes beside what the
# process had.
MAX_SECONDS, MAX_BYTES = 5.0, 500 << 20
MAX_MESSAGE = 500
_STATUS, _PEAK_RESET = pathlib.Path("/proc/self/status"), "/proc/self/clear_refs"

# What a file of data has no business with; names of audit events of Python.
_EVENTS = {
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn"),
    *("subprocess.Popen", "socket.connect", "pickle.find_class", "pty.spawn"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree"),
}
# Pieces that numbers, headers and documents are spoiled by.
_TOKENS = (
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"9" * 400, b"9" * 5000, b"null"),
    *(b"True", b"()", b"(", b"'", b'"', b"[" * 3000, b'{"a":' * 3000, b"\\ud800"),
    *(b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\x80", b"\x1b[2J", b"\xff\xfe"),
    *(b"4294967296", b"1099511627776", b"|O8", b"<U999999999", b"\n", b"."),
)
_VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 1.5, -1e-9, 1e308),
    *("", "x", "a" * 100_000, "\x1b[2J", "\ud800", "nan", [], {}, [[]], [1] * 1000),
    *({"a": 1}, [None], float("nan"), float("inf"), "deep", "wide"),
)


class Result(NamedTuple):
    """What reading a mutant came to.

    Attributes:
      was_read: whether it was read, and not refused.
      faults: what is wrong with that, in a line each.
      seconds: of the processor.
      size: bytes beside what the process had.
    """

    was_read: bool
    faults: list[str]
    seconds: float
    size: int


class Campaign(NamedTuple):
    """What reading the mutants of a kind came to.

    Attributes:
      was_read: number of mutants that were read.
      faults: faults of others, by their number.
      seconds: most seconds of the processor that a mutant took.
      size: most bytes that a mutant took beside what the process had.
    """

    was_read: int
    faults: dict[int, list[str]]
    seconds: float
    size: int


class _Canary:
    """Watch over what Python does while a file is read."""

    def __init__(self) -> None:
        self._seen: list[str] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _: Any) -> None:
        if self._seen is not None and event in _EVENTS:
            self._seen.append(event)

    @contextlib.contextmanager
    def watch(self) -> Iterator[list[str]]:
        self._seen = []
        try:
            yield self._seen
        finally:
            self._seen = None


_canary = _Canary()


def check(read: Callable[[], Any]) -> Result:
    """Reads a file, which must succeed or end in a short line within the limits."""
    was_read, faults = False, []
    before, began = reset_peak(), time.process_time()
    with _canary.watch() as seen, _printed() as printed:
        try:
            read()
            was_read = True
        except UserError as error:
            text = str(error)
            if len(text) > MAX_MESSAGE or any(ord(x) < 32 for x in text):
                faults.append(f"message: {text[:200]!r}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            faults.append(f"traceback: {type(error).__name__}: {str(error)[:200]}")
    seconds, size = time.process_time() - began, max(peak() - before, 0)
    if printed.getvalue():
        faults.append(f"message: printed {printed.getvalue()[:200]!r}")
    if seen or fuzz_kinds.CANARY.exists():
        faults.append(f"executed: {', '.join(seen)}")
    if seconds > MAX_SECONDS:
        faults.append(f"limits: {seconds:.1f} s")
    if size > MAX_BYTES:
        faults.append(f"limits: {size >> 20} MB")
    return Result(was_read, faults, seconds, size)


@contextlib.contextmanager
def _printed() -> Iterator[io.StringIO]:
    """What is printed, logged or warned of by the way."""
    stream = io.StringIO()
    with (
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        # As Python itself does outside of tests.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield stream
    stream.writelines(str(one.message) for one in warned)


def run(kind: fuzz_kinds.Kind, numbers: range, folder: pathlib.Path) -> Campaign:
    """Reads mutants of a kind.

    Args:
      kind: kind of file.
      numbers: numbers of the mutants.
      folder: empty folder to work in.
    """
    path = kind.make(folder)
    files = sorted(x for x in folder.rglob("*") if x.is_file())
    files = [x for x in files if x.match(kind.pattern)]
    whole = {file: file.read_bytes() for file in files}
    # What is imported at the first use is no fault of a mutant.
    found = check(lambda: kind.read(path))
    assert found.was_read or kind.is_refused, (kind.name, found)
    was_read, faults, seconds, size = 0, {}, 0.0, 0
    for number in numbers:
        chance = random.Random(f"{kind.name}-{number}")
        file = chance.choice(files)
        file.write_bytes(mutate(file.name, whole[file], chance))
        result = check(lambda: kind.read(path))
        was_read += result.was_read
        seconds, size = max(seconds, result.seconds), max(size, result.size)
        if result.faults:
            faults[number] = result.faults
        file.write_bytes(whole[file])
    return Campaign(was_read, faults, seconds, size)


def mutate(name: str, content: bytes, chance: random.Random) -> bytes:
    """A damaged copy of a file, damaged as files of its name may be."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [_damage]
    if name.endswith((".json", ".jsonl")):
        ways = [_damage, _respell, _respell, _respell]
    elif content.startswith(b"PK"):
        ways = [_damage, _repack, _repack]
    elif content.startswith(b"\x93NUMPY"):
        ways = [_damage, _reclaim]
    elif name.endswith(".safetensors"):
        ways = [_damage, _rehead]
    return chance.choice(ways)(content, chance)


def _damage(content: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, moved, or replaced by spoilers."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        # The head decides most.
        size = len(found) if chance.random() < 0.5 else min(len(found), 300)
        at, length = chance.randrange(size + 1), chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(7):
            case 0:
                found[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                found[at : at + length] = chance.randbytes(length)
            case 2:
                del found[at:]
            case 3:
                del found[at : at + length]
            case 4:
                found[at:at] = found[at : at + length]
            case 5:
                found[at : at + length] = chance.choice(_TOKENS)
            case 6:
                start = chance.randrange(len(found) + 1)
                found[at:at] = found[start : start + length]
    return bytes(found)


def _respell(content: bytes, chance: random.Random) -> bytes:
    """A JSON document, or lines of them, with a value replaced."""
    try:
        if b"\n{" in content.strip() and not content.startswith(b"{\n"):
            lines = content.splitlines()
            number = chance.randrange(len(lines))
            lines[number] = _respell(lines[number], chance)
            return b"\n".join(lines)
        document = json.loads(content)
    except ValueError:
        return _damage(content, chance)
    places = list(_places(document))
    value: Any = chance.choice(_VALUES)
    if value in ("deep", "wide"):
        marked = json.dumps(_put(document, places, "\0", chance))
        filling = {"deep": "[" * 3000 + "]" * 3000, "wide": "[" + "{}," * 100_000}
        return marked.replace('"\\u0000"', filling[value]).encode()
    return json.dumps(_put(document, places, value, chance)).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, child in pairs:
        yield value, key
        yield from _places(child)


def _put(document: Any, places: list[Any], value: Any, chance: random.Random) -> Any:
    if not places or chance.random() < 0.05:
        return value
    holder, key = chance.choice(places)
    match chance.randrange(4):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(value)[:100]] = holder[key]
        case _:
            holder[key] = value
    return document


def _repack(content: bytes, chance: random.Random) -> bytes:
    """A zip archive with one member damaged, gone, twice or compressed otherwise."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        members = [(x.filename, old.read(x), x.compress_type) for x in old.infolist()]
        number = chance.randrange(len(members))
        name, data, kind = members[number]
        match chance.randrange(6):
            case 0:
                del members[number]
            case 1:
                members.append((name, _damage(data, chance), kind))
            case 2:
                spoiled = _damage(name.encode(), chance).decode("latin-1")
                members[number] = (spoiled, data, kind)
            case _:
                kind = chance.choice((kind, kind, 0, 8, 12, 14))
                members[number] = (name, mutate(name, data, chance), kind)
        with zipfile.ZipFile(stream, "w") as new:
            for name, data, kind in members:
                with contextlib.suppress(ValueError, UnicodeError):
                    new.writestr(zipfile.ZipInfo(name[:60_000]), data, kind)
    return stream.getvalue()


def _reclaim(content: bytes, chance: random.Random) -> bytes:
    """A .npy file whose header claims something else, of the right length."""
    length = int.from_bytes(content[8:10], "little")
    header, data = content[10 : 10 + length], content[10 + length :]
    shapes = ("()", "(-1,)", "(0,)", "(1 << 40,)", "(4611686018427387904, 4)", "(2.5,)")
    shape = chance.choice((*shapes, "(1099511627776,)", "((1,),)", "(True,)", "(1,)"))
    dtype = chance.choice(("<f4", "|O", "<f8", ">f2", "<U9999999", "|V0", "zz", "<c16"))
    header = chance.choice(
        (
            f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}",
            f"{{'descr': '<f4', 'fortran_order': True, 'shape': {shape}, }}",
            f"{{'descr': [('a', '{dtype}', {shape})], 'fortran_order': False, "
            f"'shape': (1,), }}",
            "(" * chance.randrange(3000),
            _damage(header, chance).decode("latin-1"),
        )
    ).encode("latin-1")
    version = bytes([chance.choice((1, 1, 1, 2, 3)), 0])
    size = len(header).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + size + header + data


def _rehead(content: bytes, chance: random.Random) -> bytes:
    """A .safetensors file with another header, of the right length."""
    length = int.from_bytes(content[:8], "little")
    header = _respell(content[8 : 8 + length], chance)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def reset_peak() -> int:
    """Memory of this process, from which its peak is counted again, in bytes."""
    if not _STATUS.exists():
        return peak()
    pathlib.Path(_PEAK_RESET).write_text("5")
    return resident()


def resident() -> int:
    """Memory of this process in bytes, 0 where only its peak is known."""
    return _status("VmRSS") if _STATUS.exists() else 0


def peak() -> int:
    """Largest memory of this process since `reset_peak`, in bytes."""
    if _STATUS.exists():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name: str) -> int:
    (line,) = [x for x in _STATUS.read_text().splitlines() if x.startswith(name)]
    return int(line.split()[1]) << 10


def main() -> int:
    """Prints the table; 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="mutants of a kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--kinds", default=",".join(fuzz_kinds.KINDS))
    parsed = parser.parse_args()
    columns = ("kind", "mutants", "read", "refused", "tracebacks", "messages")
    columns = (*columns, "executions", "above limits", "memory", "time")
    print(*columns, sep=" | ", flush=True)
    total = 0
    for name in parsed.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            numbers = range(parsed.first, parsed.first + parsed.count)
            found = run(fuzz_kinds.KINDS[name], numbers, pathlib.Path(folder))
        lines = [line for faults in found.faults.values() for line in faults]
        counts = [
            sum(line.startswith(f"{what}:") for line in lines)
            for what in ("traceback", "message", "executed", "limits")
        ]
        refused = parsed.count - found.was_read - counts[0]
        most = f"{found.size / 2**20:.0f} MB", f"{found.seconds:.1f} s"
        row = name, parsed.count, found.was_read, refused, *counts, *most
        print(*row, sep=" | ", flush=True)
        for number, faults in list(found.faults.items())[:5]:
            print(f"  {number}: {'; '.join(faults)}", flush=True)
        total += len(lines)
    return min(total, 1)


if __name__ == "__main__":
    sys.exit(main())
