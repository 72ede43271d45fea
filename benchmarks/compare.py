"""How long does it take, ours and a peer's, and how close is it to the limit?

  python -m benchmarks.compare --questions=matmul,synthesis,optimization \
    --resolution=1024 --batches=1,4 --peer_python=PYTHON --peer_dirs=STYLECLIP,CLIP

Both sides are processes on the same cores. They have the same random weights and the
same inputs, answer once to warm up, and then take turns, so that both see the same
machine. Printed are median seconds per item (image, latent, example) and the ratio of
the peer's to ours, the same in CPU time, peak memory, what our first turn took with
compilation, the share of the machine's rate of multiply-adds that we reach, and how
far apart the first results are.
"""

import json
import pathlib
import platform
import tempfile
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags

from benchmarks import limit, ours, sides, worker

_COLUMNS = (
    *("question", "ours", "peer", "ratio", "CPU time ours", "peer", "ratio"),
    *("GB ours", "peer", "ours first", "of limit", "results apart"),
)

QUESTIONS = flags.DEFINE_list(
    "questions", ["matmul", "synthesis"], f"Some of {', '.join(ours.QUESTIONS)}."
)
BATCHES = flags.DEFINE_list("batches", ["1"], "Examples at a time.")
RUNS = flags.DEFINE_integer("runs", 5, "Turns that count, for each side.")
JSON = flags.DEFINE_string("json", None, "File for all that was measured.")


class Row(NamedTuple):
    """One side's medians for one question, per item, and each turn's seconds."""

    question: str
    side: str
    batch: int
    seconds: float
    cpu: float
    peak_gb: float
    first_seconds: float
    turns: list[float]


def compare(question: str, batch: int) -> tuple[Row, Row | None, float | None]:
    """Our row, the peer's, and how far their first results are apart."""
    peer = None
    with tempfile.TemporaryDirectory() as folder:
        if sides.has_peer(question):
            peer = sides.start_peer(question, batch, folder)
        mine = sides.start_ours(question, batch, folder)
        both = [side for side in (peer, mine) if side]
        for _ in range(1 + RUNS.value):
            for side in both:
                side.take_turn()
        for side in both:
            side.leave()
    row = _row(question, batch, "ours", mine)
    if peer is None:
        return row, None, None
    samples = [np.asarray(side.turns[0]["sample"]) for side in both]
    same = samples[0].shape == samples[1].shape
    apart = float(np.max(np.abs(samples[0] - samples[1]))) if same else None
    return row, _row(question, batch, sides.PEER.value, peer), apart


def _row(question: str, batch: int, name: str, side: sides.Side) -> Row:
    return Row(
        question,
        name,
        batch,
        seconds=side.median("seconds") / side.items,
        cpu=side.median("cpu") / side.items,
        peak_gb=max(turn["peak"] for turn in side.turns[1:]),
        first_seconds=side.turns[0]["seconds"],
        turns=[turn["seconds"] for turn in side.turns[1:]],
    )


def _cells(mine: Row, peer: Row | None) -> list[str]:
    def both(ours: float, theirs: float | None) -> list[str]:
        if theirs is None:
            return [f"{ours:.4g}", "", ""]
        return [f"{ours:.4g}", f"{theirs:.4g}", f"{theirs / ours:.2f}"]

    return [
        f"{mine.question}, batch {mine.batch}",
        *both(mine.seconds, peer and peer.seconds),
        *both(mine.cpu, peer and peer.cpu),
        f"{mine.peak_gb:.2f}",
        f"{peer.peak_gb:.2f}" if peer else "",
        f"{mine.first_seconds:.1f}",
    ]


def _share(mine: Row, rate: float | None) -> str:
    macs = limit.macs(mine.question, sides.RESOLUTION.value)
    return f"{macs / mine.seconds / rate:.0%}" if rate and macs else ""


def main(_: list[str]) -> None:
    """Prints a row per question and batch."""
    cores = sides.stay_on_cores()
    print(
        f"{sides.RESOLUTION.value}², {cores} cores of {platform.machine()}, "
        f"jax {jax.__version__}, allocator {sides.ALLOCATOR.value}, "
        f"peer {sides.PEER.value}, medians of {RUNS.value} alternating runs"
    )
    print(f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|", flush=True)
    found, rate = [], None
    for question in QUESTIONS.value:
        for batch in map(int, BATCHES.value):
            if question == "matmul" and rate:
                continue
            mine, peer, apart = compare(question, batch)
            rows = [row for row in (mine, peer) if row]
            if question == "matmul":
                # The best that either side reached.
                rate = worker.MATMUL_SIZE**3 / min(min(row.turns) for row in rows)
            cells = [*_cells(mine, peer), _share(mine, rate)]
            cells.append("" if apart is None else f"{apart:.1e}")
            print(f"| {' | '.join(cells)} |", flush=True)
            found += [row._asdict() for row in rows]
            if JSON.value:
                pathlib.Path(JSON.value).write_text(json.dumps(found, indent=1))
    if rate:
        print(f"best rate of matrix products: {2 * rate / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    app.run(main)
