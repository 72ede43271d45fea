"""Stream of work: any number of latents, through the devices, into files.

Batches are loaded by a thread and placed on the devices ahead of time, and work on them
is queued there without waiting. Threads fetch and write results while the next ones are
computed. So the memory holds a few batches, however many latents there are.

A batch has `batch_size` latents, and each device takes one batch at a time. Which
latents share a batch depends on their order and on that size alone: neither on the
number of devices and processes, nor on what an interrupted run has done. A result thus
comes from the same batch everywhere; docs/scale.md says to how many bits it is equal.
"""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import math
import operator
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from styleclip_jax import parallel, progress
from styleclip_jax.batch import batch_sizes, shards
from styleclip_jax.batch.editor import Outcome
from styleclip_jax.batch.journal import Journal
from styleclip_jax.batch.source import Source
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images
from styleclip_jax.ops import pixels
from styleclip_jax.settings.output import AUTO

# Number of batches that are queued on the devices behind the one that is written.
_AHEAD = 2
# Number of threads that write files: one for each core that encodes, and some that wait
# for the disk.
_WRITERS = (os.cpu_count() or 1) + 2
# Number of files that are open at a time, below what systems allow a process.
_OPEN_FILES = 256
_LARGEST_BATCH = 1024
_NUM_SHOWN = 10


class Task(NamedTuple):
    """Task of a run: the work on every latent, and its files.

    Attributes:
      variants: number of results per latent. The index of a result is that of its
        latent times this number, plus its variant.
      prepare: (batch as the source has it) → latents.
      compute: (latents, rows [B] in the source, variant, report) → `Outcome` on the
        devices, which may still be under way.
      describe: (row, variant) → entries of metrics.jsonl beside index and terms.
      image_format: format of the images, of `images.FORMATS` or `shards.FORMATS`.
      png_level: compression of PNGs.
      probe: (latents, rows) → value on the devices that takes the memory of
        `compute`, to try batch sizes.
      memory: (latents, rows) → bytes on each device that `compute` takes, by the
        compiler.
      folders: folders of additional files, beside images/.
      write: (index, row, `Outcome` of one result on the host) writes additional files.
    """

    variants: int
    prepare: Callable[[Any], Any]
    compute: Callable[[Any, np.ndarray, int, progress.Report], Outcome]
    describe: Callable[[int, int], dict[str, Any]]
    image_format: str
    png_level: int
    probe: Callable[[Any, np.ndarray], Any]
    memory: Callable[[Any, np.ndarray], int]
    folders: Sequence[str] = ()
    write: Callable[[int, int, Outcome], None] | None = None


class Step(NamedTuple):
    """Step of the stream: the latents that the devices work on at a time.

    Attributes:
      rows: [devices · B] rows of latents, a batch for each device in turn. The last
        batches are padded by repeating rows.
      wanted: [devices · B] bool, False for padding.
    """

    rows: np.ndarray
    wanted: np.ndarray


class Failures:
    """Failures of a stream: results that could not be written.

    Attributes:
      count: number of them.
      first: lines on the first ones.
      writing: seconds in which results were there, and their files were not.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []
        self.writing = 0.0

    def add(self, index: int, error: UserError) -> None:
        self.count += 1
        if len(self.first) < _NUM_SHOWN:
            self.first.append(f"{index}: {error}")


def find_batch_size(source: Source, task: Task, mesh: jax.sharding.Mesh) -> int:
    """Batch size, the number of latents per device at a time, found by trying.

    An accelerator takes what fits by prediction; a CPU, and a device that does not say
    how much memory it has, as many as are fastest.
    """
    limit = min(_LARGEST_BATCH, math.ceil(len(source) / mesh.size))

    def load(size: int) -> tuple[Any, np.ndarray]:
        rows = np.arange(size * mesh.size) % len(source)
        return parallel.shard(source.load(rows), mesh), rows

    def seconds(size: int) -> float:
        batch, rows = load(size)

        def run() -> list[Any]:
            latent = task.prepare(batch)
            # A run queues as many batches at a time.
            return [task.probe(latent, rows) for _ in range(_AHEAD)]

        jax.block_until_ready(run())
        started = time.monotonic()
        jax.block_until_ready(run())
        return time.monotonic() - started

    def memory(size: int) -> float:
        batch, rows = load(size)
        return task.memory(task.prepare(batch), rows)

    free = parallel.free_memory(mesh)
    if free is None:
        return batch_sizes.largest(seconds, limit)
    return batch_sizes.largest_predicted(seconds, memory, free, limit)


def steps(count: int, size: int, devices: int, done: np.ndarray) -> Iterator[Step]:
    """Steps of this process over the batches that are not done.

    Args:
      count: number of latents, N.
      size: number of latents per device at a time.
      devices: number of devices of this process.
      done: [N · variants] bool, results that are done.
    """
    size = min(size, count)
    numbers = parallel.share(math.ceil(count / size))
    variants = len(done) // count

    def is_open(number: int) -> bool:
        rows = slice(number * size * variants, (number + 1) * size * variants)
        return not done[rows].all()

    todo = filter(is_open, numbers)
    while group := list(itertools.islice(todo, devices)):
        batches = np.array(group + group[-1:] * (devices - len(group)))
        rows = (batches[:, None] * size + np.arange(size)).reshape(-1)
        wanted = (rows < count) & (np.arange(len(rows)) < len(group) * size)
        yield Step(np.minimum(rows, count - 1), wanted)


def count_open(count: int, size: int, done: np.ndarray) -> int:
    """Number of results that this process has to make; arguments as in `steps`."""
    numbers, variants = parallel.share(math.ceil(count / size)), len(done) // count
    rows = slice(numbers.start * size * variants, numbers.stop * size * variants)
    return int((~done[rows]).sum())


def run(
    task: Task,
    source: Source,
    journal: Journal,
    size: int,
    mesh: jax.sharding.Mesh,
    report: progress.Report,
) -> Failures:
    """Runs the stream: makes this process's results that the journal does not have.

    Args:
      task: task for each latent.
      source: source of the latents.
      journal: journal that the results go to.
      size: number of latents per device at a time.
      mesh: devices of this process.
      report: is called with the units of work that are done, over all latents.

    Returns:
      Results that could not be written.

    Raises:
      UserError: a batch does not fit into the memory of a device, or the folder is
        gone.
    """
    failures = Failures()
    if journal.finished:
        return failures
    with files.writable(journal.outdir):
        for folder in _folders(task):
            (journal.outdir / folder).mkdir(exist_ok=True)
    todo, coming = itertools.tee(steps(len(source), size, mesh.size, journal.done))
    with (
        concurrent.futures.ThreadPoolExecutor(_WRITERS) as writers,
        concurrent.futures.ThreadPoolExecutor(1) as keeper,
        concurrent.futures.ThreadPoolExecutor(1) as loader,
        contextlib.closing(
            parallel.ahead(lambda step: source.load(step.rows), coming, loader, 1)
        ) as loads,
    ):
        batches = parallel.prefetch(loads, mesh, size=1)
        pending: collections.deque[concurrent.futures.Future] = collections.deque()

        def keep_up(queued: int) -> None:
            while len(pending) > queued:
                pending.popleft().result()

        try:
            for step, batch in zip(todo, batches, strict=True):
                latent = task.prepare(batch)
                for variant in range(task.variants):
                    index = step.rows * task.variants + variant
                    wanted = step.wanted & ~journal.done[index]
                    places = np.flatnonzero(wanted).tolist()
                    if not places:
                        continue
                    report_all = functools.partial(_advance, report, len(places))
                    outcome = task.compute(latent, step.rows, variant, report_all)
                    work = (task, journal, index, step.rows, places)
                    pending.append(
                        keeper.submit(
                            _keep, *work, _shrink(task, outcome), writers, failures
                        )
                    )
                    keep_up(_AHEAD)
            keep_up(0)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not parallel.is_out_of_memory(error):
                raise
            raise UserError(
                f"batch_size: {size} latents do not fit into the memory of a device; "
                f"give fewer, or {AUTO}",
                field="batch_size",
            ) from None
    return failures


def finish(journal: Journal) -> bool:
    """Finishes the journal of all processes: process 0 orders it, others wait.

    Returns:
      Whether every result is there.

    Raises:
      UserError: the folder is full or gone.
    """
    outdir = journal.outdir
    if index := jax.process_index():
        marker = outdir / _marker(index)
        # Without the folder there is nothing to wait for.
        if outdir.is_dir():
            marker.touch()
        parallel.wait_while(marker.exists)
        return bool(journal.finished or journal.metrics.exists())
    markers = [outdir / _marker(i) for i in range(1, jax.process_count())]
    parallel.wait_while(
        lambda: outdir.is_dir() and not all(m.exists() for m in markers)
    )
    try:
        return journal.finish()
    finally:
        for marker in markers:
            marker.unlink(missing_ok=True)


def forget_ended(outdir: pathlib.Path) -> None:
    """Removes the markers of ended processes that an interrupted run has left."""
    for marker in outdir.glob(_marker("*")):
        marker.unlink()


def describe_unwritten(failures: Failures, journal: Journal) -> list[str]:
    """Lines on the results that could not be written."""
    lines = [f"failed: {message}" for message in failures.first]
    if jax.process_index():
        return lines or ["failed: results are missing; process 0 says why"]
    missing = int((~journal.done).sum())
    return [
        *lines,
        f"failed: {missing} of {len(journal.done)} results could not be written; start "
        "again with the same flags to make them",
    ]


def _keep(
    task: Task,
    journal: Journal,
    index: np.ndarray,
    rows: np.ndarray,
    places: list[int],
    outcome: Outcome,
    writers: concurrent.futures.Executor,
    failures: Failures,
) -> None:
    """Fetches and writes a batch; the journal is last, as it says that all is there."""
    host = jax.device_get(outcome)
    started = time.monotonic()
    size = max(1, min(math.ceil(len(places) / _WRITERS), _OPEN_FILES // _WRITERS))
    jobs = [
        writers.submit(
            _write_files,
            *(task, journal.outdir, index, rows, places[start : start + size], host),
        )
        for start in range(0, len(places), size)
    ]
    pictures: dict[int, bytes] = {}
    for job in jobs:
        made, errors = job.result()
        pictures |= {i: x for i, x in made.items() if i not in errors}
        for i, error in errors.items():
            failures.add(int(index[i]), error)
    written = list(pictures)
    try:
        for folder in _folders(task):
            files.sync_folder(journal.outdir / folder)
        if written:
            indices = index[written].tolist()
            lines = [
                _line(task, number, int(rows[i]), host, i)
                for number, i in zip(indices, written, strict=True)
            ]
            latent = {name: x[written] for name, x in host.latent.items()}
            journal.append(indices, lines, list(pictures.values()), **latent)
            journal.seal()
    except UserError as error:
        for i in written:
            failures.add(int(index[i]), error)
    failures.writing += time.monotonic() - started


def _advance(report: progress.Report, latents: int, steps: int) -> None:
    """Reports the steps of a batch of latents as units of work."""
    report(latents * steps)


def _line(task: Task, index: int, row: int, host: Outcome, i: int) -> dict[str, Any]:
    failed_at = int(host.failed_at[i])
    terms = {name: float(value[i]) for name, value in host.terms.items()}
    return {
        "index": index,
        **task.describe(row, index % task.variants),
        **({"failed_at": failed_at} if failed_at >= 0 else terms),
    }


def _write_files(
    task: Task,
    outdir: pathlib.Path,
    index: np.ndarray,
    rows: np.ndarray,
    places: list[int],
    host: Outcome,
) -> tuple[dict[int, bytes], dict[int, UserError]]:
    """Writes the files of some results.

    Returns:
      Pictures by their places, and errors of those that could not be written.
    """
    pictures: dict[int, bytes] = {}
    errors: dict[int, UserError] = {}
    for i in places:
        try:
            pictures[i] = _encode(task, host, i)
            if task.write is not None:
                one = jax.tree.map(operator.itemgetter(i), host)
                task.write(int(index[i]), int(rows[i]), one)
        except UserError as error:
            errors[i] = error
    if task.image_format in shards.FORMATS or task.image_format == "none":
        return pictures, errors
    folder, suffix = outdir / "images", task.image_format
    paths = {folder / f"{index[i]:06d}.{suffix}": i for i in pictures}
    failed = files.write_several({path: pictures[i] for path, i in paths.items()})
    return pictures, errors | {paths[path]: error for path, error in failed.items()}


def _encode(task: Task, host: Outcome, i: int) -> bytes:
    """Picture of a result; nothing where none is asked for."""
    kind = task.image_format
    if kind == "none":
        return b""
    suffix = shards.FORMATS.get(kind, f".{kind}")
    return images.encode(host.image[i], suffix, png_level=task.png_level)


def _folders(task: Task) -> list[str]:
    return [*(["images"] if task.image_format != "none" else []), *task.folders]


def _shrink(task: Task, outcome: Outcome) -> Outcome:
    """Outcome with 8-bit images, a fourth to fetch, unless float32 is asked for."""
    if task.image_format == "npy":
        return outcome
    if task.image_format == "none" and task.write is None:
        return outcome._replace(image=None)
    return outcome._replace(image=to_uint8(outcome.image))


# Images in 8 bits, on the devices.
to_uint8 = jax.jit(pixels.to_uint8)


def _marker(process: Any) -> str:
    """Name of the marker, a file that says that a process has done its share."""
    return f".ended{process}"
