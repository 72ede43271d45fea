"""How many images per second do files keep up with, in each format?

  python -m benchmarks.writers --resolutions=256,1024 --cores=1,2

Images lie ready and come as fast as they are asked for, through the stream of a run
into its files: what remains is encoding, writing, syncing and the journal. Images are a
smooth pattern with noise, about as hard to compress as photos. Other programs can only
slow a turn down, so the fastest turn counts.
"""

import concurrent.futures
import functools
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from benchmarks import limit
from styleclip_jax import parallel
from styleclip_jax.batch import stream
from styleclip_jax.batch.journal import Journal, Kept
from styleclip_jax.batch.source import LatentSource
from styleclip_jax.io import images, tables
from styleclip_jax.ops import pixels

RESOLUTIONS = flags.DEFINE_list("resolutions", ["256", "1024"], "Widths of the images.")
CORES = flags.DEFINE_list("cores", ["1", "2"], "Numbers of CPU cores to stay on.")
TURNS = flags.DEFINE_integer(
    "turns", 5, "Turns of each format, the fastest of which counts."
)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Length of a turn, about.")
FOLDER = flags.DEFINE_string("folder", None, "Folder to write in; a temporary one.")

# Formats, and levels of PNGs.
_FORMATS = (
    ("png", images.PNG_LEVEL),
    ("png", 6),
    ("tar", images.PNG_LEVEL),
    ("jpg", 0),
    ("tar-jpg", 0),
    ("npy", 0),
    ("none", 0),
)
_BATCH = 8


class Turn(NamedTuple):
    """Turn of a format: images per second, CPU seconds and bytes of an image."""

    rate: float
    cpu: float
    size: float


@functools.cache
def _pictures(resolution: int) -> np.ndarray:
    """A batch of images [B, H, W, 3] in [-1, 1]."""
    random = np.random.RandomState(0)
    y, x = np.mgrid[:resolution, :resolution] / resolution
    smooth = [np.sin(9 * x + 3 * y), np.cos(7 * x * y), np.sin(5 * (x + y))]
    noise = random.randn(_BATCH, resolution, resolution, 3)
    found = 0.7 * np.stack(smooth, axis=-1) + 0.02 * noise
    return np.clip(found, -1, 1).astype(np.float32)


def _write(format_: str, level: int, resolution: int, count: int, folder: str) -> Turn:
    """Writes so many images as a run does."""
    config = limit.config_f(resolution)
    picture = _pictures(resolution)
    image = jax.device_put(picture if format_ == "npy" else pixels.to_uint8(picture))

    def compute(latent: Any, *_: Any) -> stream.Outcome:
        both = {"original": latent, "edited": latent}
        return stream.Outcome(image, both, {}, np.full(_BATCH, -1))

    task = stream.Task(
        variants=1,
        prepare=lambda batch: batch,
        compute=compute,
        describe=lambda row, variant: {"row": row},
        image_format=format_,
        png_level=level,
        probe=lambda latent, rows: latent,
        memory=lambda latent, rows: 0,
    )
    latents = np.zeros((count, config.num_rows, config.w_dim), np.float32)
    kept = Kept.latents("w_plus", config, ("original", "edited"))
    layout = config.style_layout
    source = LatentSource("w_plus", range(count), latents, layout, config.z_dim)
    mesh = parallel.make_mesh(jax.devices()[:1])
    with tempfile.TemporaryDirectory(dir=folder) as name:
        outdir = pathlib.Path(name)
        began, cpu = time.perf_counter(), time.process_time()
        journal = Journal(outdir, count, kept, images=format_)
        stream.run(task, source, journal, _BATCH, mesh, lambda count: None)
        assert stream.finish(journal)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        written = [path.stat().st_size for path in outdir.glob("images/*")]
    return Turn(count / seconds, cpu / count, sum(written) / count)


def _measure(
    resolution: int, turns: int, seconds: float, folder: str
) -> list[list[Turn]]:
    """Turns of each format, in turn, on the cores that the process has."""
    write = [functools.partial(_write, *x, resolution) for x in _FORMATS]
    rates = [one(_BATCH, folder).rate for one in write]
    counts = [_BATCH * (1 + int(seconds * rate) // _BATCH) for rate in rates]

    def turn() -> Iterator[Turn]:
        for one, count in zip(write, counts, strict=True):
            yield one(count, folder)

    return list(zip(*[turn() for _ in range(turns)], strict=True))


def main(_: list[str]) -> None:
    """Prints a row per format and resolution."""
    spawn, columns = multiprocessing.get_context("spawn"), list(map(int, CORES.value))
    every, folder = sorted(os.sched_getaffinity(0)), FOLDER.value
    settings = (TURNS.value, SECONDS.value, folder)
    rows = []
    for resolution in map(int, RESOLUTIONS.value):
        found = []
        for cores in columns:
            # A process starts on the cores of its parent.
            os.sched_setaffinity(0, every[:cores])
            with concurrent.futures.ProcessPoolExecutor(1, spawn) as alone:
                job = alone.submit(_measure, resolution, *settings)
                found.append(job.result())
        os.sched_setaffinity(0, every)
        for i, (format_, level) in enumerate(_FORMATS):
            turns = [one[i] for one in found]
            rates = [max(turn.rate for turn in some) for some in turns]
            cpu = statistics.median(turn.cpu for some in turns for turn in some)
            name = f"{format_}, level {level}" if level else format_
            size = turns[0][0].size / 1e6
            rows.append(
                [
                    f"{resolution}²",
                    name,
                    f"{size:.2f}",
                    f"{1e3 * cpu:.1f}",
                    *(f"{rate:.0f}" for rate in rates),
                ]
            )
    cores_ = [f"images/s, {n} core{'s' * (n > 1)}" for n in columns]
    head = ["images", "format", "MB each", "ms of a core each", *cores_]
    print(tables.markdown(head, rows), end="")


if __name__ == "__main__":
    app.run(main)
