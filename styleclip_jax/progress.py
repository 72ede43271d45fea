"""Progress of long work: reports, bars with the time left, the loop over steps."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tqdm

from styleclip_jax import errors

# Is told how many steps were taken since it was last called.
Report = Callable[[int], None]

# Seconds of the devices' work between two reports of progress.
_REPORT_EVERY = 1.0
# Seconds between two looks of a terminal at how long compilation takes.
_TICK = 1.0
# Seconds without a unit from which compilation is worth a word, on a terminal and in a
# file, which cannot take the word back.
_WORTH_SHOWING, _WORTH_A_LINE = 2.0, 5.0
# Seconds between two bars in a file.
_FILE_INTERVAL = 10.0
# Seconds of work from which a forecast is made, and those ahead from which it is told.
_PROBE, _LONG = 1.0, 10.0
# Reports of a forecast, one of which may have compiled another program, and the seconds
# after which it is made of fewer.
_FEW, _PATIENCE = 3, 30.0


class Listener(NamedTuple):
    """Receiver of what long work says of itself.

    Attributes:
      tell: takes a line for people.
      bar: (number of steps, name of a step) → context whose value takes reports.
    """

    tell: Callable[[str], None]
    bar: Callable[[int, str], contextlib.AbstractContextManager[Report]]

    @contextlib.contextmanager
    def long_bar(self, total: int, unit: str, quicker: str) -> Iterator[Report]:
        """Bar of work that may be long, with a line on how long it takes here.

        The line is told once a second of the work has shown it, compilation aside, and
        if there are ten or more ahead.

        Args:
          total: number of steps.
          unit: name of a step.
          quicker: what would be quicker, by names of fields.
        """
        forecast = _Forecast(total, unit, quicker, self.tell)
        with self.bar(total, unit) as report:

            def report_both(count: int) -> None:
                report(count)
                forecast.report(count)

            yield report_both


class _Forecast:
    """Line on how long work takes, from its first units.

    The first report is left out: it has compilation in it. The next ones count by
    their median, since a second phase of the work is compiled, too.
    """

    def __init__(
        self, total: int, unit: str, quicker: str, tell: Callable[[str], None]
    ) -> None:
        self._left, self._unit, self._quicker, self._tell = total, unit, quicker, tell
        self._since: float | None = None
        self._last, self._is_over = 0.0, False
        self._rates = list[float]()

    def report(self, count: int) -> None:
        """Takes a report, and tells the line when it can."""
        self._left -= count
        if self._is_over or not count:
            return
        now = time.monotonic()
        if self._since is None:
            self._since = self._last = now
            return
        self._rates.append((now - self._last) / count)
        self._last, passed = now, now - self._since
        if passed < _PROBE or (len(self._rates) < _FEW and passed < _PATIENCE):
            return
        self._is_over = True
        # Imported when it is wanted, as programs start without it.
        import statistics

        seconds = self._left * statistics.median(self._rates)
        if seconds >= _LONG:
            plural = "" if self._left == 1 else "s"
            self._tell(
                f"time: about {describe_time(seconds)} here for {self._left:,} "
                f"{self._unit}{plural}; quicker: {self._quicker}"
            )


def describe_time(seconds: float) -> str:
    """Time for people, in its largest unit, such as 40 s, 5 min or 3 h."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@contextlib.contextmanager
def _no_bar(total: int, unit: str) -> Iterator[Report]:
    yield ignore


@contextlib.contextmanager
def _bar(total: int, unit: str) -> Iterator[Report]:
    """A progress bar on stderr with rate and time left, after what compiling takes."""
    interval = 0.1 if sys.stderr.isatty() else _FILE_INTERVAL
    with tqdm.tqdm(
        total=total, unit=unit, dynamic_ncols=True, mininterval=interval
    ) as bar:
        shown = _Compiling(bar)
        try:
            yield shown.report
        finally:
            shown.end()


class _Compiling:
    """Words of a bar on compilation, which goes before the first unit of work.

    A thread redraws them on a terminal; a file has a line when it begins to be long.
    """

    def __init__(self, bar: tqdm.tqdm) -> None:
        self._bar, self._began = bar, time.monotonic()
        self._ended = threading.Event()
        self._told = False
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()

    def report(self, count: int) -> None:
        """Takes a report; the first unit ends the words, and starts the bar's clock."""
        if not count or self._ended.is_set():
            self._bar.update(count)
            return
        self.end()
        seconds = time.monotonic() - self._began
        if self._told:
            self._say(f"compiled in {seconds:.0f} s")
            # What came with compilation says nothing of the rate.
            self._bar.unpause()
            self._bar.initial = self._bar.n = self._bar.last_print_n = count
            self._bar.refresh()
        else:
            self._bar.update(count)

    def end(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join()

    def _tick(self) -> None:
        on_terminal = sys.stderr.isatty()
        least = _WORTH_SHOWING if on_terminal else _WORTH_A_LINE
        while not self._ended.wait(_TICK):
            seconds = time.monotonic() - self._began
            if seconds < least or (self._told and not on_terminal):
                continue
            self._told = True
            self._say(f"compiling … {seconds:.0f} s" if on_terminal else "compiling …")

    def _say(self, words: str) -> None:
        if sys.stderr.isatty():
            self._bar.set_description(words)
        else:
            self._bar.write(words, file=sys.stderr)


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
    return Listener(tell=_tell, bar=_bar) if shown else SILENT


def _tell(lines: str) -> None:
    """Prints lines above the bars, at once where stdout is a pipe or a file.

    Names of a file in them cannot move a terminal's cursor.
    """
    plain = "\n".join(map(errors.printable, lines.split("\n")))
    tqdm.tqdm.write(plain, file=sys.stdout)
    sys.stdout.flush()


class Pace:
    """Pace of progress: how seldom the host waits for the devices.

    Between two waits it queues as much as the devices do in about a second. So they
    never run dry, and what is reported is never far ahead of what is done. One pace
    serves all batches of the same work.
    """

    def __init__(self) -> None:
        # Calls since the last wait, and their number until the next one.
        self._queued, self._limit = 0, 1
        self._since = time.monotonic()

    def wait(self, result: Any) -> bool:
        """Counts a call, and waits for its result if it is time to report.

        Returns:
          Whether the result, and so everything before it, is done.
        """
        self._queued += 1
        if self._queued < self._limit:
            return False
        _wait_for(result)
        now = time.monotonic()
        in_time = self._queued * _REPORT_EVERY / max(now - self._since, 1e-9)
        self._limit = max(1, min(2 * self._queued, int(in_time)))
        self._queued, self._since = 0, now
        return True


def measure(call: Callable[[], Any]) -> float:
    """Seconds until the result of a call is there, of a function compiled before."""
    began = time.monotonic()
    _wait_for(call())
    return time.monotonic() - began


def _wait_for(result: Any) -> None:
    """Waits for arrays. JAX is imported here, since texts and flags do without it."""
    import jax

    jax.block_until_ready(result)


def take_steps(
    step: Callable[[Any, Any], Any],
    networks: Any,
    state: Any,
    count: int,
    report: Report,
    *,
    stride: int = 1,
    pace: Pace | None = None,
) -> Any:
    """The state after so many steps, which may still be under way.

    A loop here rather than in the program, so that there is something to report. On
    accelerators calls are queued ahead, and each may take several steps.

    Args:
      step: compiled (networks, state) → state after `stride` steps.
      networks: what stays the same.
      state: state before the first step.
      count: number of steps, a multiple of `stride`.
      report: is called about once per second, and at the end.
      stride: number of steps of a call.
      pace: pace of the work that this is a batch of; a new one if absent.
    """
    pace, reported = pace or Pace(), 0
    for done in range(stride, count + 1, stride):
        state = step(networks, state)
        if pace.wait(state) or done == count:
            report(done - reported)
            reported = done
    return state
