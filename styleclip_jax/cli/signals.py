"""Signals: Ctrl-C and SIGTERM end a program with one line, a second one at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

# Word that a program ends with, by the signal that ended it.
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
# Exit code of a shell's command that a signal ended, less the signal's number.
_EXIT_SIGNAL = 128
# Seconds until a signal is raised again whose exception was lost.
_RETRY_SECONDS = 0.1


class Interrupted(KeyboardInterrupt):
    """Signal that ends the program.

    Attributes:
      number: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def end_in_a_line() -> Iterator[None]:
    """Ends the program with a line and the signal's exit code when one comes.

    The first raises `Interrupted` in the main thread, so that contexts are left; files
    that are being written are then whole or not there. The second ends the process,
    wherever it is.
    """
    try:
        if not _is_main_thread():
            yield
            return
        with _Watch() as watch, _handled(watch.raise_first):
            yield
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        print(_WORDS[signal.Signals(number)], file=sys.stderr)
        sys.exit(_EXIT_SIGNAL + number)


@contextlib.contextmanager
def postponed() -> Iterator[Callable[[], int]]:
    """Yields a function whose value is the signal that came, or 0; its end raises it.

    The work in this context, of which no step may be left in its middle, looks at times
    and ends by itself. A second signal does not wait.
    """
    if not _is_main_thread():
        yield lambda: 0
        return
    noted: list[int] = []

    def note(number: int, _: Any) -> None:
        noted.append(number)
        if len(noted) > 1:
            raise Interrupted(number)

    with _handled(note):
        yield lambda: noted[0] if noted else 0
    if noted:
        raise Interrupted(noted[0])


def _is_main_thread() -> bool:
    """Whether this is the thread that may handle signals."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Context in which a handler takes the signals that the process does not ignore."""
    before = {x: signal.getsignal(x) for x in _WORDS}
    taken = {x: y for x, y in before.items() if y not in (signal.SIG_IGN, None)}
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in taken.items():
            signal.signal(number, earlier)


class _Watch:
    """Watch over signals, in a thread that counts them as they come.

    Handlers of Python wait for the main thread, which may be in a compilation for
    minutes. The thread hears of a signal at once, by the bytes that Python writes into
    a pipe.
    """

    def __init__(self) -> None:
        # Signals that came, and those that do not end the process at once.
        self._count, self._allowed = 0, 1
        self._raised = False
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def raise_first(self, number: int, _: Any) -> None:
        """Handler that raises the first signal; others are the thread's."""
        if not self._raised:
            self._raised = True
            raise Interrupted(number)

    def __enter__(self) -> "_Watch":
        self._source, self._sink = os.pipe()
        os.set_blocking(self._sink, False)
        self._earlier = signal.set_wakeup_fd(self._sink, warn_on_full_buffer=False)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._find_lost
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._hook
        signal.set_wakeup_fd(self._earlier)
        os.write(self._sink, b"\0")
        self._thread.join()
        os.close(self._sink)
        os.close(self._source)

    def _listen(self) -> None:
        while number := os.read(self._source, 1)[0]:
            self._count += number in list(_WORDS)
            if self._count > self._allowed:
                os._exit(_EXIT_SIGNAL + number)

    def _find_lost(self, lost: Any) -> None:
        """Raises a signal again whose exception a callback, as of `gc`, has lost."""
        if not isinstance(lost.exc_value, Interrupted):
            self._hook(lost)
            return
        main, number = threading.main_thread().ident, lost.exc_value.number
        self._allowed, self._raised = self._allowed + 1, False
        # Not in here, where it would be lost too.
        again = threading.Timer(_RETRY_SECONDS, signal.pthread_kill, (main, number))
        again.start()
