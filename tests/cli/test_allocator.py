"""Freed memory stays with the process where the allocator was told so."""

import os
import platform
import subprocess
import sys

import pytest
from absl import flags

from styleclip_jax.cli import allocator, program

# Pages that the system hands out, zeroed, while large blocks come and go.
_COUNT_FAULTS = """
import ctypes, resource
from styleclip_jax.cli import allocator
told = allocator.keep_freed_memory()
libc = ctypes.CDLL(None)
# Where huge pages are the default, a page is 2 MB: not in this process.
libc.prctl(41, 1, 0, 0, 0)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
faults = []
for _ in range(3):
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(told, faults[2] - faults[0])
"""
glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc",
    reason="another allocator",
)


def run(**variables: str) -> tuple[bool, int]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(allocator._SET_ALREADY) and name != allocator.SWITCH
    }
    found = subprocess.run(
        [sys.executable, "-c", _COUNT_FAULTS],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    told, faults = found.stdout.split()
    return told == "True", int(faults)


@glibc
def test_freed_blocks_are_used_again() -> None:
    told, faults = run()
    assert told
    assert faults < 100


@glibc
@pytest.mark.parametrize(
    "variables", [{allocator.SWITCH: "0"}, {"MALLOC_ARENA_MAX": "4"}], ids=str
)
def test_choices_in_the_environment_are_respected(variables: dict[str, str]) -> None:
    told, faults = run(**variables)
    assert not told
    # 4 kB each, or larger where pages are; twice the block at any rate.
    assert faults >= 2 * 2**26 // os.sysconf("SC_PAGE_SIZE")


def test_programs_tell_it_before_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: order.append("told"))
    with pytest.raises(SystemExit) as stop:
        program.run(lambda _: order.append("main"), flags.FlagValues(), ["program"])
    assert not stop.value.code
    assert order == ["told", "main"]


@pytest.mark.skipif(sys.platform.startswith("linux"), reason="for other systems")
def test_other_systems_are_left_alone() -> None:
    assert not allocator.keep_freed_memory()
