"""Run: a task over all latents of a source, into a folder, resumable."""

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from styleclip_jax import documents, parallel
from styleclip_jax.batch import run_folder, stream
from styleclip_jax.batch.journal import Journal, Kept
from styleclip_jax.batch.result_lines import describe_failures
from styleclip_jax.batch.source import Source
from styleclip_jax.io import files
from styleclip_jax.progress import Listener
from styleclip_jax.settings.output import AUTO, Output

# Share of a run, of this many seconds at least, from which writing is what waits.
_MUCH, _NOTABLE_SECONDS = 0.8, 30


class Work(NamedTuple):
    """Work of a run: a task, its output, and its record for run.json.

    Attributes:
      program: name of the program.
      settings: settings that decide the results, by the names of the flags.
      inputs: () → hash (or name) of each input.
      output: files to write.
      source: source of the latents, or of what else results are made of.
      task: task for each latent.
      kept: latents that are kept of each result, or other arrays.
      steps: units of work per result.
      unit: name of these units, such as "step".
      result: name of a result, such as "edit".
      quicker: what would be quicker, by names of fields.
      items: name of what the source has.
    """

    program: str
    settings: Mapping[str, Any]
    inputs: Callable[[], Mapping[str, str]]
    output: Output
    source: Source
    task: stream.Task
    kept: Kept
    steps: int
    unit: str
    result: str
    quicker: str
    items: str = "latents"


class Summary(NamedTuple):
    """Summary of a run that has ended.

    Attributes:
      journal: journal of the run.
      complete: whether every result is there.
      made: number of results that this call made, in all processes.
      seconds: time that they took, until the last process had made its own.
      size: number of latents per device at a time.
      failures: lines on results that were not finite, or could not be written.
      succeeded: whether the run is complete without such a failure.
    """

    journal: Journal
    complete: bool
    made: int
    seconds: float
    size: int
    failures: list[str]
    succeeded: bool

    def describe(self, verb: str) -> list[str]:
        """Line on how quick the call was, for people; none if it made nothing."""
        if not self.made:
            return []
        return [
            f"{verb}: {self.made} in {self.seconds:.1f} s, "
            f"{self.made / self.seconds:.1f} per second, {self.size} per device at a "
            "time"
        ]


def carry_out(
    work: Work,
    mesh: jax.sharding.Mesh,
    listener: Listener,
) -> Summary:
    """Makes every result of a run that is missing.

    Args:
      work: task and output of the run.
      mesh: devices of this process.
      listener: listener for the progress.

    Returns:
      Summary of the run.

    Raises:
      UserError: the folder is of another run or cannot be written, or a batch does not
        fit into the memory of a device.
    """
    source, task = work.source, work.task
    outdir, size = _open(work, mesh, listener)
    count = len(source) * task.variants
    with parallel.first_alone():
        journal = Journal(
            outdir,
            count,
            work.kept,
            jax.process_index(),
            task.image_format,
        )
    if jax.process_index() == 0:
        for note in journal.notes:
            listener.tell(note)
    done = journal.done.reshape(len(source), -1).all(axis=1).sum()
    if done:
        listener.tell(f"resumed: {done} of {len(source)} {work.items} are done")
    own = stream.count_open(len(source), size, journal.done)
    total = parallel.total(own)
    if own < total:
        listener.tell(
            f"processes: {jax.process_count()}, of which this one makes {own} of "
            f"{total} {work.result}s and shows a bar of its own"
        )
    started = time.monotonic()
    with listener.long_bar(own * work.steps, work.unit, work.quicker) as report:
        failures = stream.run(task, source, journal, size, mesh, report)
    complete = stream.finish(journal)
    seconds = time.monotonic() - started
    if failures.writing > _MUCH * max(seconds, _NOTABLE_SECONDS):
        listener.tell(
            f"note: files took {failures.writing:.0f} of {seconds:.0f} s to write; "
            "jpg is faster than png, tar than single files, and none is fastest"
        )
    if complete:
        lines = describe_failures(journal, work.result)
    else:
        lines = stream.describe_unwritten(failures, journal)
    succeeded = complete and not lines
    if complete and jax.process_index():
        # Process 0 reports the failures of all.
        lines = []
    return Summary(journal, complete, total, seconds, size, lines, succeeded)


def _open(
    work: Work, mesh: jax.sharding.Mesh, listener: Listener
) -> tuple[pathlib.Path, int]:
    """Folder of the run and batch size; process 0 decides, and the others follow."""

    def find() -> int:
        with listener.bar(1, "batch size") as report:
            found = stream.find_batch_size(work.source, work.task, mesh)
            report(1)
        return found

    size, primary = 0, jax.process_index() == 0
    path = pathlib.Path(work.output.outdir) / files.RECORD
    with parallel.first_alone():
        inputs = work.inputs() if primary else run_folder.read(path, "outdir")["inputs"]
        outdir = run_folder.begin(
            work.output.outdir,
            program=work.program,
            settings=work.settings,
            inputs=inputs,
            tell=listener.tell,
        )
        if primary:
            stream.forget_ended(outdir)
            text = work.output.batch_size
            if text is None:
                size = parallel.default_batch_size(len(work.source), jax.device_count())
            elif text == AUTO:
                size = _found_batch_size(path, find)
            else:
                size = int(text)
    return outdir, parallel.agree(size)


def _found_batch_size(record: pathlib.Path, find: Callable[[], int]) -> int:
    """Batch size that auto has found, which is kept for a run that is resumed."""
    document, kind = documents.read_object(record), jax.local_devices()[0].device_kind
    found = document.setdefault("batch_size", {})
    if kind not in found:
        found[kind] = find()
        files.write_json(record, document)
    return int(found[kind])
