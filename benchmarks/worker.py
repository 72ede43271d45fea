"""One side of a comparison: a process that takes a turn whenever it is told to.

NumPy alone is needed, so that a side may run in any Python.
"""

import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

# What both sides do: the prompt, the weight of the identity loss, the strength of a
# direction, the index in S of the layer whose channels are measured, and the size of
# the square matrices whose product shows what the machine can do.
PROMPT = "a person with purple hair"
ID_LAMBDA = 0.005
ALPHA = 3.0
RELEVANCE_LAYER = 5
MATMUL_SIZE = 2048

# A training of a generator: the width of z, w and layers of a narrow one at most, its
# channels over a layer's resolution, where others have those of config F; the weight γ
# of R1 and steps between two of it, the same of path lengths, the learning rate, the
# half-life of the average in images, steps per turn, in which each regularization has
# its share, and the parameters of NVIDIA's discriminator that are compared.
GAN_WIDTH = 128
GAN_CHANNELS = 2048
GAN_GAMMA = 1.0
GAN_R1_EVERY = 16
GAN_PATH_WEIGHT = 2.0
GAN_PATHS_EVERY = 4
GAN_RATE = 1e-5
GAN_EMA_IMAGES = 10_000.0
GAN_STEPS = 16
GAN_COMPARED = ("b8.conv0.bias", "b8.conv1.bias", "b4.conv.bias", "b4.fc.bias")

# How many numbers of a result are compared, at random places.
_NUM_SAMPLES = 4096


class Spec(NamedTuple):
    """What is measured.

    Attributes:
      question: its name.
      resolution: width of the images.
      batch: examples per turn; a side that cannot batch takes one and says so.
      folder: where the official code leaves its weights for the other sides.
      side: who does it.
      peer_dirs: checkouts of the official code.
    """

    question: str
    resolution: int
    batch: int
    folder: str
    side: str
    peer_dirs: tuple[str, ...]


class Turns:
    """Whoever iterates works in turns: the body of the loop is what is timed.

    for _ in turns:
        turns.result = work()

    A line on stdin starts a turn; an answer in JSON on stdout ends it. What else is
    printed goes to stderr. The process ends with stdin.

    Attributes:
      items: examples per turn.
      result: array to compare with the other side's, or a function that gives it,
        which is called when the time is taken.
    """

    def __init__(self, **versions: str) -> None:
        self.items = 1
        self.result: Any = ()
        self._versions = versions
        self._imported = time.time()
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def __iter__(self) -> Iterator[int]:
        self._answer(items=self.items, imported=self._imported, versions=self._versions)
        for index, _ in enumerate(iter(sys.stdin.readline, "")):
            wall, cpu = time.perf_counter(), time.process_time()
            yield index
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            self._answer(
                seconds=wall, cpu=cpu, peak=_peak(), sample=_sample(self.result)
            )
            _forget_peak()
        sys.exit()

    def _answer(self, **content: Any) -> None:
        print(json.dumps(content), file=self._answers, flush=True)


def read_spec() -> Spec:
    """What the command line asks for."""
    return Spec(**json.loads(sys.argv[1]))


def normal(shape: tuple[int, ...]) -> np.ndarray:
    """The same normally distributed numbers for both sides."""
    return np.random.RandomState(1).randn(*shape).astype(np.float32)


def direction(shape: tuple[int, ...]) -> np.ndarray:
    """A step for style vectors [B, C], the same for all B."""
    return 0.1 * np.broadcast_to(normal(shape[1:]), shape)


def _sample(result: Any) -> list[float]:
    flat = np.asarray(result() if callable(result) else result, np.float64).ravel()
    if flat.size > _NUM_SAMPLES:
        flat = np.random.RandomState(0).choice(flat, _NUM_SAMPLES)
    return flat.tolist()


def _peak() -> float:
    """Largest resident memory, in GB, since the process began or `_forget_peak`."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _forget_peak() -> None:
    file = pathlib.Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")
