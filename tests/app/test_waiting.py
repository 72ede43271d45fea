"""Waiting for work: its lines, its end, and that it stops when nobody waits."""

import re
import threading
import time

import pytest

from styleclip_jax.app import waiting
from styleclip_jax.app.waiting import Work
from styleclip_jax.errors import UserError


def test_lines_say_what_how_much_and_that_it_compiles_once() -> None:
    compiled: set[str] = set()

    def do(work: Work[int]) -> int:
        with work.stage("Counting", 4):
            work.count(1)
            time.sleep(0.6)
        return 7

    for once in (True, False):
        work = Work(do, threading.Lock(), compiled)
        lines = [progress.line for progress in work]
        assert work.result == 7
        assert lines[0].startswith("Counting")
        assert all(("compiling once" in line) == once for line in lines)
        assert re.search(r": 1 of 4 … \d s$", lines[-1])


def test_lines_say_how_long_a_stage_still_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_PROBE", 0.1)

    def do(work: Work[None]) -> None:
        with work.stage("Counting", 1000):
            for _ in range(5):
                time.sleep(0.1)
                work.count(1)

    *_, last = (progress.line for progress in Work(do, threading.Lock(), set()))
    assert re.search(r": \d of 1000 … 0 s, about 1\d\d s left$|about 2 min left$", last)


def test_errors_of_the_work_are_those_of_its_waiting() -> None:
    def do(work: Work[None]) -> None:
        raise UserError("Seed: wrong")

    with pytest.raises(UserError, match="Seed: wrong"):
        list(Work(do, threading.Lock(), set()))


def test_work_stops_when_nobody_waits() -> None:
    lock, counted = threading.Lock(), []

    def do(work: Work[None]) -> None:
        with work.stage("Counting"):
            while True:
                time.sleep(0.01)
                work.count(1)
                counted.append(1)

    waiting = iter(Work(do, lock, set()))
    next(waiting)
    waiting.close()
    # Who stops lets others work.
    assert lock.acquire(timeout=5)
    assert counted


def test_work_of_others_goes_before() -> None:
    lock = threading.Lock()
    with lock:
        waiting = iter(Work(lambda work: None, lock, set(), before="Preparing"))
        assert next(waiting).line == "Preparing … 0 s"
    list(waiting)
