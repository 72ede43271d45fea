"""Processes of one run, as threads of this one that agree with each other."""

import threading
from collections.abc import Callable
from typing import Any

import jax
import pytest

from styleclip_jax import parallel

# Seconds after which a process waits for what never comes.
_PATIENCE = 20


def run(
    monkeypatch: pytest.MonkeyPatch, count: int, work: Callable[[int], Any]
) -> list[Any]:
    """Result, or error, of a function in each of so many threads.

    Each takes itself for a process with the number that the function is called with.
    """
    own, meeting = threading.local(), threading.Barrier(count, timeout=_PATIENCE)
    said, found = [0] * count, [None] * count

    def gather(number: int) -> list[int]:
        said[own.index] = int(number)
        meeting.wait()
        heard = list(said)
        meeting.wait()
        return heard

    def enter(index: int) -> None:
        own.index = index
        try:
            found[index] = work(index)
        except Exception as error:
            found[index] = error

    monkeypatch.setattr(jax, "process_index", lambda: getattr(own, "index", 0))
    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(parallel, "agree", lambda number: gather(number)[0])
    monkeypatch.setattr(parallel, "total", lambda number: sum(gather(number)))
    threads = [
        threading.Thread(target=enter, args=(index,), daemon=True)
        for index in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a process waits for ever"
    return found
