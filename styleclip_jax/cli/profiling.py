"""Profile of a program: a trace of a few steps, which --profile asks for."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax
from absl import flags

from styleclip_jax import progress
from styleclip_jax.cli import program
from styleclip_jax.errors import UserError
from styleclip_jax.progress import Listener, Report

# Reports of progress that a trace spans, after the first one, which compiles. They come
# about once per second, so a trace is a few megabytes.
_REPORTS = 3


def listener(values: flags.FlagValues, *, shown: bool = True) -> Listener:
    """Listener of a program: its terminal, and the profile that is asked for.

    Args:
      values: parsed flags.
      shown: whether this process is the one that speaks, and is traced.

    Raises:
      UserError: the folder cannot be made.
    """
    terminal, asked = progress.terminal(shown=shown), values[program.PROFILE].value
    if asked is None or not shown:
        return terminal
    folder = pathlib.Path(asked)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(
            f"{program.PROFILE}: expected a folder that can be written, found {folder}",
            field=program.PROFILE,
        )

    @contextlib.contextmanager
    def bar(total: int, unit: str) -> Iterator[Report]:
        trace = _Trace(folder, total, unit)
        with terminal.bar(total, unit) as report:

            def report_both(count: int) -> None:
                report(count)
                trace.report(count)

            try:
                yield report_both
            finally:
                trace.stop()
        terminal.tell(trace.describe())

    return Listener(terminal.tell, bar)


class _Trace:
    """Trace of a few reports of a bar, after the first."""

    def __init__(self, folder: pathlib.Path, total: int, unit: str) -> None:
        self._folder, self._total, self._unit = folder, total, unit
        self._done, self._reports = 0, 0
        self._first, self._last = 0, 0
        self._is_running = False

    def report(self, count: int) -> None:
        """Starts the trace after the first units, and stops it some reports later."""
        if not count:
            return
        self._done += count
        self._reports += 1
        if self._reports == 1 and self._done < self._total:
            _wait_for_devices()
            options = jax.profiler.ProfileOptions()
            # Each call of a function of Python would be many times the rest.
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._first, self._is_running = self._done + 1, True
        elif self._reports > _REPORTS or self._done >= self._total:
            self.stop()

    def stop(self) -> None:
        """Stops the trace, if it is under way, once the devices have caught up."""
        if self._is_running:
            _wait_for_devices()
            jax.profiler.stop_trace()
            self._last, self._is_running = self._done, False

    def describe(self) -> str:
        """Line on where the trace is, and how to look at it."""
        if not self._first:
            return f"profile: none, there was no further {self._unit} after the first"
        return (
            f"profile: {self._folder}, {self._unit} {self._first} to {self._last}; "
            f"look at it by xprof --logdir={self._folder} (pip install xprof)"
        )


def _wait_for_devices() -> None:
    jax.block_until_ready(jax.live_arrays())
