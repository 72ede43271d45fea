"""Waiting for work: its lines, its end, and that it stops when nobody waits."""

import threading
import time

import pytest

from styleclip_jax.app import waiting
from styleclip_jax.app.waiting import Work
from styleclip_jax.errors import UserError
from tests.programs import Watch


def lines_of(
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    count: int,
    total: int,
    compiled: set[str],
) -> list[str]:
    """Lines of work that counts units, each after some seconds, until all are told.

    Those from before the work counts are left out.
    """
    clock, told = Watch(), threading.Event()
    monkeypatch.setattr(waiting, "time", clock)

    def do(work: Work[int]) -> int:
        with work.stage("Counting", total):
            for _ in range(count):
                clock.now += seconds
                work.count(1)
            assert told.wait(60)
        return 7

    work = Work(do, threading.Lock(), compiled)
    lines = list[str]()
    for progress in work:
        if progress.line.startswith("Counting"):
            lines.append(progress.line)
        if f": {count} of {total}" in progress.line:
            told.set()
    assert work.result == 7
    return lines


def test_lines_say_what_how_much_and_that_it_compiles_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: set[str] = set()
    for once in (", compiling once", ""):
        lines = lines_of(monkeypatch, 3, 1, 4, compiled)
        assert all(("compiling once" in line) == bool(once) for line in lines)
        assert lines[-1] == f"Counting{once}: 1 of 4 … 3 s"


def test_lines_say_how_long_a_stage_still_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The first unit may have compiled, and says nothing.
    *_, last = lines_of(monkeypatch, 2, 5, 1000, {"Counting "})
    assert last == "Counting: 5 of 1000 … 10 s, about 33 min left"
    *_, last = lines_of(monkeypatch, 2, 5, 7, {"Counting "})
    assert last == "Counting: 5 of 7 … 10 s"


def test_errors_of_the_work_are_those_of_its_waiting() -> None:
    def do(work: Work[None]) -> None:
        raise UserError("Seed: wrong")

    with pytest.raises(UserError, match="Seed: wrong"):
        list(Work(do, threading.Lock(), set()))


def test_work_stops_when_nobody_waits() -> None:
    lock = threading.Lock()

    def do(work: Work[None]) -> None:
        with work.stage("Counting", 10**6):
            while True:
                time.sleep(0.01)
                work.count(1)

    lines = iter(Work(do, lock, set()))
    # It is under way.
    assert any(" of 1000000 " in progress.line for progress in lines)
    lines.close()
    # Who stops lets others work.
    assert lock.acquire(timeout=60)


def test_work_of_others_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "time", Watch())
    lock = threading.Lock()
    with lock:
        lines = iter(Work(lambda work: None, lock, set(), before="Preparing"))
        assert next(lines).line == "Preparing … 0 s"
    list(lines)
