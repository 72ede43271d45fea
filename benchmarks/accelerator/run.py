"""Run of measurements on an accelerator: parts, clock, table and file."""

import json
import pathlib
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from styleclip_jax import parallel

_COLUMNS = (
    *("part", "what", "ms per item", "compile s", "program GB", "peak GB"),
    *("of rate", "of roofline", "error", "note"),
)
_WIDEST_NOTE = 200

# Values of a row by name: seconds per item, and whatever else was found.
Values = dict[str, Any]


class Item(NamedTuple):
    """One measurement of a part.

    Attributes:
      what: its name in the table.
      measure: () → values of its row, or of several rows by name.
    """

    what: str
    measure: Callable[[], Values | dict[str, Values]]


class Part(NamedTuple):
    """Part of the run.

    Attributes:
      share: share of the time that it may take, relative to the others.
      items: () → its measurements, the most important ones first.
    """

    share: float
    items: Callable[[], Iterable[Item]]


class Report:
    """Rows, each written to the file and to the table at once.

    Attributes:
      failed: whether a row is of a failure.
    """

    def __init__(self, path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self.failed = False
        print(f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|", flush=True)

    def add(self, part: str, what: str, values: Values) -> None:
        """Adds a row; `error_text` in its values marks a failure."""
        with self._lock:
            self.failed |= "error_text" in values
            row = {"part": part, "what": what, **values}
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()
            print(f"| {' | '.join(_cells(row))} |", flush=True)


def _cells(row: Values) -> list[str]:
    def number(name: str, form: str, factor: float = 1) -> str:
        value = row.get(name)
        return format(value * factor, form) if value else ""

    note = row.get("error_text") or row.get("note", "")
    return [
        row["part"],
        row["what"],
        number("seconds", ".4g", 1e3),
        number("compile_seconds", ".1f"),
        number("program_gb", ".2f"),
        number("peak_gb", ".2f"),
        number("of_rate", ".0%"),
        number("of_roofline", ".0%"),
        format(row["error"], ".1e") if "error" in row else "",
        " ".join(note.split())[:_WIDEST_NOTE].replace("|", "/"),
    ]


class Clock:
    """Clock of a run: what is left of it, and of its current part."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._part_end = self._end
        self._longest = 0.0

    def begin(self, share: float, later: float) -> None:
        """Begins a part, by its share and those of the parts after it."""
        self._part_end = time.monotonic() + self._left() * share / (share + later)
        self._longest = 0.0

    def allows(self) -> bool:
        """Whether the part may go on, and as long an item as it had fits."""
        return time.monotonic() < self._part_end and self._left() > self._longest

    def passed(self, seconds: float) -> None:
        """Notes how long an item has taken."""
        self._longest = max(self._longest, seconds)

    def _left(self) -> float:
        return self._end - time.monotonic()


def carry_out(parts: Mapping[str, Part], report: Report, clock: Clock) -> None:
    """Measures all items of all parts that the clock allows, whatever fails."""
    later = sum(part.share for part in parts.values())
    for name, part in parts.items():
        later -= part.share
        clock.begin(part.share, later)
        for item in _items(name, part, report):
            if not clock.allows():
                report.add(name, item.what, {"note": "skipped: no time left"})
                continue
            started = time.monotonic()
            found = _survive(item.measure)
            clock.passed(time.monotonic() - started)
            several = bool(found) and all(isinstance(x, dict) for x in found.values())
            for what, values in found.items() if several else [("", found)]:
                report.add(name, f"{item.what} {what}".strip(), values)


def _items(name: str, part: Part, report: Report) -> Iterator[Item]:
    """Items of a part; a failure between them ends it with a row."""
    items = iter(part.items())
    while True:
        found = _survive(lambda: {"item": next(items, None)})
        if "item" not in found:
            report.add(name, "preparation", found)
            return
        if found["item"] is None:
            return
        yield found["item"]


def _survive(measure: Callable[[], Values]) -> Values:
    """What a function finds; the text of its exception if it raises one.

    All exceptions are caught, here alone: whoever has a card for some minutes wants the
    other measurements even if a driver, a library or this script fails in one. That
    something does not fit into a small card is a finding.
    """
    try:
        return measure()
    except Exception as error:
        if parallel.is_out_of_memory(error):
            return {"note": f"does not fit into the memory: {error}"}
        return {
            "error_text": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
