"""Signals end programs in a line: contexts are left, files are whole, work is kept."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from styleclip_jax.cli import generate, signals
from tests import programs
from tests.programs import Program

# What a program does, in `work`, is put before this.
PROGRAM = """
import gc, os, sys, threading, time
from styleclip_jax.cli import signals

@signals.end_in_a_line()
def main():
    try:
        work()
    finally:
        print("left", flush=True)

main()
"""
SLEEP = """
def work():
    print("ready", flush=True)
    time.sleep(60)
"""
# The main thread is in a call that no handler of Python interrupts.
BLOCKED = """
def work():
    lock = threading.Lock()
    lock.acquire()
    while True:
        try:
            print("ready", flush=True)
            lock.acquire()
        except KeyboardInterrupt:
            pass
"""
CALLBACK = """
def collect(phase, info):
    gc.callbacks.clear()
    print("ready", flush=True)
    time.sleep(60)

def work():
    gc.callbacks.append(collect)
    gc.collect()
    time.sleep(60)
"""
POSTPONED = """
def work():
    with signals.postponed() as came:
        print("ready", flush=True)
        while not came():
            time.sleep(0.01)
        print("kept", flush=True)
"""


def start(work: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", work + PROGRAM],
        cwd=programs.REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize(
    ("work", "printed"),
    [(SLEEP, "left\n"), (CALLBACK, "left\n"), (POSTPONED, "kept\nleft\n")],
    ids=["sleep", "callback", "postponed"],
)
def test_signal_ends_a_program_in_a_line(
    number: int, code: int, word: str, work: str, printed: str
) -> None:
    process = start(work)
    process.send_signal(number)
    assert process.communicate(timeout=60) == (printed, f"{word}\n")
    assert process.returncode == code


def test_second_signal_ends_what_the_first_cannot() -> None:
    process = start(BLOCKED)
    process.send_signal(signal.SIGTERM)
    # It has taken the first and goes on; two that come at once would count as one.
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 143


def test_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals.end_in_a_line():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM)]
    with signals.end_in_a_line(), signals.postponed():
        pass
    assert [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def launch(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=programs.REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_terminated_run_of_pictures_goes_on_to_the_same_bytes(
    run: Program, models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    outdir, options = tmp_path / "ended", {"seeds": "0-199", "batch_size": 1}
    command = [
        "styleclip_jax.cli.generate",
        f"--generator={models['generator']}",
        f"--outdir={outdir}",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    part = outdir / "metrics.part0.jsonl"
    process = launch(*programs.ended(command, part, 1, signal.SIGTERM))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "terminated"
    assert not [x for x in outdir.rglob(".*-*") if x.is_file()]
    for folder in (outdir, tmp_path / "whole"):
        code, _, err = run(generate, **options, outdir=folder)
        assert code == 0, err
    assert programs.hashes(outdir) == programs.hashes(tmp_path / "whole")
    assert len(np.load(outdir / "w_plus.npy")) == 200
