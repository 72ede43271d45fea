"""Run of a training: its length and rhythm, its devices, and the loop of its steps."""

import dataclasses
import functools
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from absl import flags

from styleclip_jax import parallel, places
from styleclip_jax.batch import run_folder
from styleclip_jax.cli import processes, profiling, signals
from styleclip_jax.cli.program import EXIT_FAILED_ITEMS
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, latent_files
from styleclip_jax.loading import Models
from styleclip_jax.models import generators
from styleclip_jax.progress import Listener, Pace
from styleclip_jax.settings.training import RunConfig

from . import latent_data
from .latent_data import Data, DataRequest
from .trainer import Trainer, keep_best, no_best
from .training_files import Checkpoints, Folder

# Steps after which processes ask each other whether to end.
_AGREE_EVERY = 10


@dataclasses.dataclass(frozen=True)
class Request:
    """Training that is asked for, whatever is trained.

    Attributes:
      models: networks.
      data: latents.
      run: length and rhythm.
      workdir: folder of the run.
      settings: what decides the results, by the names of the flags.
    """

    models: Models
    data: DataRequest
    run: RunConfig
    workdir: pathlib.Path
    settings: Mapping[str, Any]


Asked = TypeVar("Asked", bound=Request)


class InFolder(Protocol):
    """Work that is asked for in a folder."""

    @property
    def workdir(self) -> pathlib.Path:
        """Folder of the run."""


Work = TypeVar("Work", bound=InFolder)


def carry_out(
    values: flags.FlagValues,
    request: Work,
    train: Callable[[Work, Listener], list[str]],
) -> int:
    """Carries a training out as the only run in its folder.

    Args:
      values: flags of processes and profiles.
      request: what is asked for.
      train: (request, listener) → a line for each network whose loss was not finite.

    Returns:
      Exit code of the program.

    Raises:
      UserError: another run has the folder, or whatever the training refuses.
    """
    processes.connect(values)
    primary = jax.process_index() == 0
    listener = profiling.listener(values, shown=primary)
    with run_folder.only_run(request.workdir, listener.tell, field="workdir"):
        failures = train(request, listener)
    for line in failures if primary else ():
        print(line, file=sys.stderr)
    return EXIT_FAILED_ITEMS if failures else 0


def open_data(
    request: Request, generator: generators.GeneratorConfig, to: str
) -> tuple[Data, Callable[..., Any]]:
    """Latents of a training, and the way into the space that they are edited in.

    Args:
      request: what is asked for.
      generator: configuration of the generator.
      to: space that the latents are edited in.

    Returns:
      The latents, and (generator, batch, space=) → latents in that space.

    Raises:
      UserError: latents or the class do not fit.
    """
    data = latent_data.open_data(
        request.data,
        generator,
        to=to,
        num_validation=request.run.num_validation,
        batch_size=request.run.batch_size,
        seed=request.run.seed,
    )
    convert = functools.partial(
        latent_data.convert,
        truncation_psi=request.data.truncation_psi,
        to=to,
        label=request.models.one_hot_label(generator),
    )
    return data, convert


def begin(
    request: Request,
    program: str,
    inputs: Mapping[str, str],
    about: Sequence[str],
    listener: Listener,
) -> None:
    """Tells what is trained, and begins or goes on with the folder of the run.

    Args:
      request: what is asked for, with the batch that the devices share.
      program: name of the program in the record.
      inputs: hashes of what the run reads.
      about: lines on what is trained.
      listener: is told them.

    Raises:
      UserError: the folder is of another run.
    """
    begin_folder(
        request.workdir,
        program,
        {**request.settings, **request.models.record()},
        lambda: inputs,
        request.run.batch_size,
        about,
        listener,
    )


def begin_folder(
    workdir: pathlib.Path,
    program: str,
    settings: Mapping[str, Any],
    inputs: Callable[[], Mapping[str, str]],
    batch_size: int | None,
    about: Sequence[str],
    listener: Listener,
) -> None:
    """Begins or goes on with the folder of any training, as `begin` does.

    The first process alone does so, and the others go on if it has.

    Args:
      workdir: the folder.
      program: name of the program in the record.
      settings: what decides the results, by the names of the flags.
      inputs: gives hashes of what the run reads.
      batch_size: batch that the devices share.
      about: lines on what is trained.
      listener: is told them.

    Raises:
      UserError: the folder is of another run.
    """
    with parallel.first_alone():
        if jax.process_index():
            return
        for line in about:
            listener.tell(line)
        run_folder.begin(
            workdir,
            program=program,
            settings=settings,
            inputs=inputs(),
            field="workdir",
            chosen={"batch_size": batch_size},
            tell=listener.tell,
        )
        files.remove_unfinished(workdir)


def describe(
    request: Request, data: Data, generator: generators.GeneratorConfig, to: str
) -> list[str]:
    """Lines on networks, latents and devices of a training that edits in a space."""
    count = "sampled" if data.training is None else len(data.training.array)
    return [
        request.models.describe_generator(generator),
        f"clip: {', '.join(places.clip_names(request.models.clip))}",
        f"latents: {count} in {data.space}, "
        f"{len(data.validation.array)} held out, edited in {to}",
        f"devices: {jax.device_count()} in {jax.process_count()} processes",
        *data.notes,
    ]


def hash_inputs(request: Request, *networks: str) -> dict[str, str]:
    """Hashes of networks and latents; a CLIP from the hub goes by its name."""
    inputs = request.models.fingerprints(*networks)
    for name in ("latents", "validation_latents"):
        if path := getattr(request.data, name):
            inputs[name] = latent_files.hash_source(path)
    return inputs


def run(
    trainer: Trainer, folder: Folder, config: RunConfig, listener: Listener
) -> list[str]:
    """Trains from the last checkpoint to the end.

    Args:
      trainer: compiled work.
      folder: folder of the run.
      config: length and rhythm.
      listener: is told how far it is.

    Returns:
      A line for each network whose loss was not finite, which ends the run; none when
      all steps are done.

    Raises:
      UserError: more steps are done than are asked for.
      Interrupted: a signal came; the steps that are done are in a checkpoint.
    """
    with signals.postponed() as came, Checkpoints(folder.path) as saved:
        return _run(trainer, folder, config, saved, listener, came)


def _run(
    trainer: Trainer,
    folder: Folder,
    config: RunConfig,
    saved: Checkpoints,
    listener: Listener,
    came: Callable[[], int],
) -> list[str]:
    state = trainer.start(config.seed)
    start, (state, best) = saved.restore((state, no_best(state)))
    if start > config.train_steps:
        raise UserError(
            f"train_steps: expected at least the {start} that are done, found "
            f"{config.train_steps}",
            field="train_steps",
        )
    state = parallel.replicate(state, trainer.mesh)
    folder.begin(start)
    intervals = {
        "log": config.log_interval,
        "validate": config.val_interval,
        "image": config.image_interval,
        "save": config.save_interval,
    }
    total = config.train_steps
    began, reported, pace = time.monotonic(), start, Pace()
    with listener.long_bar(total - start, "step", "fewer train_steps") as report:
        batches = trainer.batches(start)
        for done, batch in zip(range(start + 1, total + 1), batches, strict=False):
            state, terms = trainer.step(state, batch)
            due = {n for n, k in intervals.items() if done % k == 0 or done == total}
            ends = agree_to_end(came(), done)
            if ends:
                due.add("save")
            if pace.wait(terms) or due:
                report(done - reported)
                reported = done
            if done == start + 1:
                # The first step, for which the pace waits, includes compilation.
                began = time.monotonic()
            if due and (np.asarray(state.failed_at) >= 0).any():
                break
            if "log" in due:
                folder.write_terms(done, "training", jax.device_get(terms))
            if "validate" in due:
                found = trainer.validate(state.params)
                folder.write_terms(done, "validation", found)
                best, improved = keep_best(best, done, state.params, found)
                folder.write_networks("best", best, improved)
            if "image" in due:
                folder.write_sheet(done, trainer, state.params, config.sheet_size)
            if "save" in due:
                saved.save(done, (state, best))
            if ends and done < total:
                listener.tell(f"ended: {done} steps are done, kept in {saved.last()}")
                # The signal may have come to another process.
                raise signals.Interrupted(came() or signal.SIGTERM)
    if (np.asarray(state.failed_at) >= 0).any():
        return folder.describe_failures(state, saved.last())
    folder.finish(state, best, total - start - 1, time.monotonic() - began)
    return []


def agree_to_end(came: int, done: int) -> bool:
    """Whether a signal that came to any process ends the run after this step.

    Several processes ask each other every few steps, as that takes time.
    """
    if jax.process_count() == 1:
        return came > 0
    return done % _AGREE_EVERY == 0 and parallel.total(came) > 0


def fill_devices(
    request: Asked, program: str
) -> tuple[Asked, Sequence[jax.Device] | None, list[str]]:
    """A request with a batch that all devices share equally; see `share_batch`."""
    size, devices, notes = share_batch(request.run.batch_size, request.workdir, program)
    run = dataclasses.replace(request.run, batch_size=size)
    return dataclasses.replace(request, run=run), devices, notes


def share_batch(
    asked: int, workdir: pathlib.Path, program: str
) -> tuple[int, Sequence[jax.Device] | None, list[str]]:
    """A batch that all devices share equally, and notes on it.

    A run that goes on keeps its batch, on fewer devices where it must.

    Args:
      asked: size of the batch that is asked for.
      workdir: folder of the run.
      program: name of the program in its record.

    Returns:
      The size, the devices to use (None for all), and the notes.

    Raises:
      UserError: a run cannot go on on the devices of several processes.
    """
    count = jax.device_count()
    size, kept = parallel.round_up(asked, count), _batch_size_of(workdir, program)
    if kept in (None, size):
        note = (
            f"note: a batch of {asked} is rounded up to {size}, which the {count} "
            "devices share equally"
        )
        return size, None, [] if size == asked else [note]
    used = max(n for n in range(1, count + 1) if kept % n == 0)
    note = (
        f"note: the run goes on with its batch of {kept}, on {used} of {count} devices"
    )
    if used == count:
        return kept, None, [note]
    if jax.process_count() > 1:
        raise UserError(
            f"batch_size: {workdir} is of a run with {kept} latents per step, "
            f"expected devices that share them equally, found {count}",
            field="batch_size",
        )
    return kept, jax.local_devices()[:used], [note]


def _batch_size_of(workdir: pathlib.Path, program: str) -> int | None:
    """Latents per step of the run in a folder, None if there is none."""
    path = workdir / files.RECORD
    if not path.exists():
        return None
    record = run_folder.read(path, "workdir")
    if record.get("program") != program:
        return None
    return record.get("batch_size", record["flags"].get("batch_size"))
