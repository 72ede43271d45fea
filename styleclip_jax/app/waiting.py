"""Waiting for long work of the page, with a line on what is done and for how long."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from styleclip_jax.progress import describe_time

T = TypeVar("T")

# Seconds between two looks at the work.
_TICK = 0.25
# Seconds from which a stage tells how long it still takes, and those it then has ahead.
_PROBE, _LONG = 1.0, 5.0


class Progress(NamedTuple):
    """Progress of work.

    Attributes:
      line: what is being done, how much of it, and for how many seconds.
      shown: what the work has last made to be shown; None for nothing new.
    """

    line: str
    shown: Any


class _StopError(Exception):
    """Raised in the thread of work that nobody waits for any more."""


class Work(Generic[T]):
    """Work in a thread of its own, one at a time by a lock; iterate it to wait.

    An iteration gives a `Progress` whenever there is something new, raises what the
    work has raised, and stops the work where it is ended sooner.

    Attributes:
      result: what the work has returned.
    """

    result: T

    def __init__(
        self,
        do: Callable[["Work[T]"], T],
        lock: threading.Lock,
        compiled: set[str],
        *,
        before: str = "Waiting for the work of others",
    ) -> None:
        """Prepares work.

        Args:
          do: the work, which tells its stages to this object.
          lock: lock that others hold at such work.
          compiled: stages whose programs are compiled, by their names; grows.
          before: what goes on while others hold the lock.
        """
        self._do, self._lock, self._compiled = do, lock, compiled
        self._ended, self._stopped = threading.Event(), threading.Event()
        self._what, self._done, self._total = before, 0, 0
        self._pace: tuple[float, int] | None = None
        self._shown: Any = None
        self._error: BaseException | None = None

    @contextlib.contextmanager
    def stage(self, what: str, total: int = 0, *, of: str = "") -> Iterator[None]:
        """Stage of the work.

        Args:
          what: what is done in it, for people.
          total: number of units of it, 0 where it has none.
          of: what else makes other programs of it.
        """
        program = f"{what} {of}"
        once = "" if program in self._compiled else ", compiling once"
        self._what, self._done, self._total = what + once, 0, total
        self._pace = None
        self._check()
        yield
        self._compiled.add(program)

    def count(self, number: int) -> None:
        """Takes a number of units that were done."""
        self._done += number
        if self._pace is None:
            # What came with the first unit, such as compilation, says nothing.
            self._pace = time.monotonic(), self._done
        self._check()

    def show(self, value: Any) -> None:
        """Takes what is to be shown on the way."""
        self._shown = value
        self._check()

    def _left(self) -> str:
        """Words on how long the stage still takes; none where that is not known."""
        if self._pace is None:
            return ""
        since, first = self._pace
        passed, made = time.monotonic() - since, self._done - first
        if passed < _PROBE or made <= 0:
            return ""
        left = max(0, self._total - self._done) * passed / made
        return f", about {describe_time(left)} left" if left >= _LONG else ""

    def _check(self) -> None:
        if self._stopped.is_set():
            raise _StopError

    def __iter__(self) -> Iterator[Progress]:
        began, last = time.monotonic(), ""
        threading.Thread(target=self._run, daemon=True).start()
        try:
            while not self._ended.wait(_TICK):
                count = f": {self._done} of {self._total}" if self._done else ""
                line = f"{self._what}{count} … {time.monotonic() - began:.0f} s"
                line += self._left()
                shown, self._shown = self._shown, None
                if shown is not None or line != last:
                    yield Progress(line, shown)
                last = line
        finally:
            self._stopped.set()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._lock:
                self._what = "Working"
                self.result = self._do(self)
        except _StopError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()
