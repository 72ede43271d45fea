"""Progress of long work: reports, bars with the time left, the loop over steps."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import tqdm

# Is told how many steps were taken since it was last called.
Report = Callable[[int], None]

# Seconds of work between two reports of progress.
_REPORT_EVERY = 1.0


class Listener(NamedTuple):
    """Receiver of what long work says of itself.

    Attributes:
      tell: takes a line for people.
      bar: (number of steps, name of a step) → context whose value takes reports.
    """

    tell: Callable[[str], None]
    bar: Callable[[int, str], contextlib.AbstractContextManager[Report]]


@contextlib.contextmanager
def _no_bar(total: int, unit: str) -> Iterator[Report]:
    yield ignore


@contextlib.contextmanager
def _bar(total: int, unit: str) -> Iterator[Report]:
    """A progress bar on stderr with rate and time left."""
    with tqdm.tqdm(total=total, unit=unit, dynamic_ncols=True) as shown:
        yield shown.update


def ignore(what: Any) -> None:
    """Takes a report or a line, and tells nobody."""


SILENT = Listener(tell=ignore, bar=_no_bar)
# Bars on stderr, without lines: for notebooks and scripts.
BARS = Listener(tell=ignore, bar=_bar)


def terminal(*, shown: bool = True) -> Listener:
    """The listener of a program: lines on stdout, bars on stderr.

    Args:
      shown: whether this process is the one that speaks.
    """
    return Listener(tell=print, bar=_bar) if shown else SILENT


def take_steps(
    step: Callable[[Any, Any], Any],
    networks: Any,
    state: Any,
    count: int,
    report: Report,
) -> Any:
    """The state after so many calls of a compiled step(networks, state).

    A loop here rather than in the program: XLA runs convolutions inside of loops
    several times slower on CPU, and on accelerators steps are queued ahead.
    """
    reported, since = 0, time.monotonic()
    for done in range(1, count + 1):
        state = step(networks, state)
        if time.monotonic() - since > _REPORT_EVERY or done == count:
            jax.block_until_ready(state)
            report(done - reported)
            reported, since = done, time.monotonic()
    return state
