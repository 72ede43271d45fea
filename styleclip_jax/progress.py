"""Progress of long work: reports, bars with the time left, the loop over steps."""

import time
from collections.abc import Callable
from typing import Any

import jax
import tqdm

# Is told how many steps were taken since it was last called.
Report = Callable[[int], None]


# Seconds of work between two reports of progress.
_REPORT_EVERY = 1.0


def bar(total: int, unit: str, *, shown: bool = True) -> tqdm.tqdm:
    """A progress bar on stderr with rate and time left."""
    return tqdm.tqdm(total=total, unit=unit, dynamic_ncols=True, disable=not shown)


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
