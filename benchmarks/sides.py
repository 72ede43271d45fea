"""The processes that are compared: ours, and a peer's."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks import rows, worker

_ROOT = pathlib.Path(__file__).parent.parent
# As trials found best for both sides; our programs set most of it for themselves.
_TUNED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# Variables of our side and of the peers'.
_ENVIRONMENTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "same": (_TUNED, _TUNED),
    "untuned": ({"STYLECLIP_KEEP_MEMORY": "0"}, {}),
    "as_started": ({}, {}),
}
ALLOCATORS = tuple(_ENVIRONMENTS)
_MODULES = {"ours": "ours", "official": "peers", "lean": "lean", "compiled": "lean"}


class Setting(NamedTuple):
    """How sides are started.

    Attributes:
      allocator: memory allocator, one of ALLOCATORS.
      peer_python: Python of the peers.
      peer_dirs: checkouts that they import.
    """

    allocator: str
    peer_python: str | None
    peer_dirs: tuple[str, ...]


class Side:
    """A process that answers in turn.

    Attributes:
      ready: what it said when it was: items (examples per turn), versions.
      import_seconds: from the start until everything is imported.
      load_seconds: from then until it is ready.
      turns: what it said after each turn: seconds, cpu, peak (in GB), sample.
    """

    def __init__(
        self, command: list[str], environment: Mapping[str, str], warm_ups: int
    ) -> None:
        self._warm_ups = warm_ups
        began = time.time()
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._answer()
        self.import_seconds = self.ready["imported"] - began
        self.load_seconds = time.time() - self.ready["imported"]
        self.turns: list[dict[str, Any]] = []

    def take_turn(self) -> None:
        """Waits until the side has done its work once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.turns.append(self._answer())

    def leave(self) -> None:
        """Ends the process."""
        self._process.communicate()

    @property
    def counted(self) -> list[dict[str, Any]]:
        """Turns after those that warm up."""
        return self.turns[self._warm_ups :]

    def per_item(self, key: str) -> list[float]:
        """Numbers of the turns that count, per item."""
        return [turn[key] / self.ready["items"] for turn in self.counted]

    def sample(self) -> np.ndarray:
        """Numbers of the last result."""
        return np.asarray(self.turns[-1]["sample"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a side ended early; its message is above")
        return json.loads(line)


def start(
    name: str, row: rows.Row, folder: str, setting: Setting, **environment: str
) -> Side:
    """Starts a side; it is ready when returned.

    Args:
      name: "ours", or the name of a peer.
      row: what it will do.
      folder: where the official code leaves its weights for the others. Without them
        ours are random.
      setting: how it is started.
      **environment: further variables.
    """
    ours = name == "ours"
    python = sys.executable if ours else setting.peer_python
    assert python is not None
    dirs = tuple(str(pathlib.Path(x).resolve()) for x in setting.peer_dirs)
    spec = worker.Spec(row.question, row.resolution, row.batch, folder, name, dirs)
    variables = _ENVIRONMENTS[setting.allocator][0 if ours else 1]
    return Side(
        [python, "-m", f"benchmarks.{_MODULES[name]}", json.dumps(spec._asdict())],
        {**variables, **environment},
        row.warm_ups,
    )


class Difference(NamedTuple):
    """How far two results are apart.

    Attributes:
      largest: largest difference, relative to the largest number.
      l2: root of the sum of squares of differences, relative to that of the numbers.
    """

    largest: float
    l2: float


def apart(ours: Side, peer: Side) -> Difference:
    """Difference of the last results."""
    mine, theirs = ours.sample(), peer.sample()
    if mine.shape != theirs.shape:
        raise RuntimeError(f"results have {mine.size} and {theirs.size} numbers")
    wrong = mine - theirs
    return Difference(
        float(np.max(np.abs(wrong)) / np.max(np.abs(theirs))),
        float(np.linalg.norm(wrong) / np.linalg.norm(theirs)),
    )
