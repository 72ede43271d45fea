"""The processes that are compared: ours, and a peer's where there is one."""

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np
from absl import flags

from benchmarks import worker

_ROOT = pathlib.Path(__file__).parent.parent
# As trials found best for both sides; our programs set most of it for themselves.
_TUNED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# Variables of our side and of the peer's.
_ENVIRONMENTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "same": (_TUNED, _TUNED),
    "untuned": ({"STYLECLIP_KEEP_MEMORY": "0"}, {}),
    "as_started": ({}, {}),
}
# What each peer can be asked; "styleclip" all but what is ours alone.
_QUESTIONS = {
    "styleclip": None,
    "nvidia": ("synthesis",),
    "transformers": ("clip", "clip_gradient"),
}
_OURS_ALONE = ("jacobian",)

RESOLUTION = flags.DEFINE_integer("resolution", 1024, "Width of the images.")
ALLOCATOR = flags.DEFINE_enum(
    "allocator",
    "same",
    list(_ENVIRONMENTS),
    "Memory allocator: the same tuned settings on both sides, as it comes on both, or "
    "each side as a user starts it (ours tunes itself).",
)
PEER = flags.DEFINE_enum("peer", "styleclip", list(_QUESTIONS), "Whose code.")
PEER_DIRS = flags.DEFINE_list(
    "peer_dirs",
    [],
    "Checkouts: of StyleCLIP first and, unless installed, of OpenAI's CLIP; or of "
    "stylegan2-ada-pytorch. Transformers is imported from where it is installed.",
)
PEER_PYTHON = flags.DEFINE_string(
    "peer_python",
    None,
    "Python with torch, torchvision, ftfy, regex, and click and imageio for "
    "directions; without it there is no peer.",
)
CORES = flags.DEFINE_list("cores", [], "CPU cores to stay on; all if empty.")


class Side:
    """A process that answers in turn.

    Attributes:
      items: examples per turn.
      import_seconds: from the start until everything is imported.
      load_seconds: from then until it is ready.
      turns: what it said after each turn: seconds, cpu, peak (in GB), sample.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        began = time.time()
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._answer()
        self.items = ready["items"]
        self.import_seconds = ready["imported"] - began
        self.load_seconds = time.time() - ready["imported"]
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

    def median(self, key: str) -> float:
        """Over the turns after the first, which warms up."""
        return float(np.median([turn[key] for turn in self.turns[1:]]))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a side ended early; its message is above")
        return json.loads(line)


def stay_on_cores() -> int:
    """Keeps this process and its children on the cores of the flag; their number."""
    if CORES.value:
        os.sched_setaffinity(0, {int(core) for core in CORES.value})
    return len(os.sched_getaffinity(0))


def has_peer(question: str) -> bool:
    """Whether the peer answers this question."""
    asked = _QUESTIONS[PEER.value]
    can = question not in _OURS_ALONE if asked is None else question in asked
    return PEER_PYTHON.value is not None and can


def start_peer(question: str, batch: int, folder: str) -> Side:
    """Starts the peer, which leaves its weights in the folder; ready when returned."""
    assert PEER_PYTHON.value is not None
    command = [PEER_PYTHON.value, "-m", "benchmarks.peers"]
    return Side(
        [*command, _argument(question, batch, folder)],
        _ENVIRONMENTS[ALLOCATOR.value][1],
    )


def start_ours(question: str, batch: int, folder: str, **environment: str) -> Side:
    """Starts our side, with the weights in the folder or else random ones."""
    command = [sys.executable, "-m", "benchmarks.ours"]
    return Side(
        [*command, _argument(question, batch, folder)],
        {**_ENVIRONMENTS[ALLOCATOR.value][0], **environment},
    )


def _argument(question: str, batch: int, folder: str) -> str:
    paths = tuple(str(pathlib.Path(x).resolve()) for x in PEER_DIRS.value)
    spec = worker.Spec(
        question, RESOLUTION.value, batch, folder, PEER.value, peer_dirs=paths
    )
    return json.dumps(spec._asdict())
