"""Freed memory stays with the process where the allocator was told so."""

import os
import platform
import subprocess
import sys

import jax
import pytest
from absl import flags
from jax import monitoring

from styleclip_jax.cli import allocator, program

# Pages that the system hands out, zeroed, while large blocks come and go.
_COUNT_FAULTS = """
import ctypes, resource
from styleclip_jax.cli import allocator
told = allocator.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
faults = []
for _ in range(3):
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(told, faults[2] - faults[0])
"""
# Memory before and after a compilation of some length, in MB, of 100 MB in freed pieces
# between blocks that stay.
_COMPILE = """
import ctypes
from jax import monitoring
from styleclip_jax.cli import allocator
from tests import fuzzing
assert allocator.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pieces = []
for _ in range(100):
    pieces.append(libc.malloc(2**20))
    ctypes.memset(pieces[-1], 1, 2**20)
    libc.malloc(2**11)
for piece in pieces:
    libc.free(piece)
for seconds in (0.001, 1.0):
    monitoring.record_event_duration_secs(allocator._COMPILED, seconds)
    print(fuzzing.reset_peak() >> 20)
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
def test_memory_of_long_compilations_is_given_back() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _COMPILE], capture_output=True, text=True, check=True
    )
    before, after = map(int, found.stdout.split())
    assert before - after > 80


def test_compilations_of_jax_are_heard() -> None:
    events = []

    def hear(event: str, duration_secs: float, **about: str | int) -> None:
        events.append(event)

    monitoring.register_event_duration_secs_listener(hear)
    jax.block_until_ready(jax.jit(lambda x: x * 3 + 1)(jax.numpy.ones(17)))
    assert allocator._COMPILED in events


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
