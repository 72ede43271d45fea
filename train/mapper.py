"""styleclip-train-mapper: train latent mappers, for one prompt or several.

  styleclip-train-mapper --prompt="a face with blonde hair" --workdir=outputs/blonde
  styleclip-train-mapper --prompts_file=prompts.txt --latents=train.npy --space=s \\
    --generator=models/ffhq --identity=models/arcface

Writes under --workdir: best/PROMPT and last/PROMPT, a mapper each for
styleclip-edit --method=mapper; metrics.jsonl, a line per prompt; sheets/, edits of
latents held out; checkpoints/, from which the same command goes on after an
interruption; and run.json. Several processes: the same command in each, with
--coordinator_address, --num_processes and --process_id. Exit code 1 says that a loss
was not finite.
"""

import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from styleclip_jax import latents, loading, losses, parallel, spaces
from styleclip_jax.batch import run_folder
from styleclip_jax.cli import processes, profiling, program
from styleclip_jax.editing import prompts
from styleclip_jax.editing.prompts import PromptRequest, Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, latent_files
from styleclip_jax.loading import CLIP_FIELDS, GENERATOR_FIELDS, Models
from styleclip_jax.methods import mapper, mapper_training
from styleclip_jax.methods.mapper_training import TrainingConfig
from styleclip_jax.models import clip, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Listener, Pace

from . import mapper_files, mapper_run

# Name of the program in run.json, which is older than the console script.
_PROGRAM = "train.mapper"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Length and rhythm of a training; the defaults are the official script's.

    Attributes:
      train_steps: number of steps; a larger one goes on with a run.
      batch_size: latents per step over all devices, rounded up to a multiple of their
        number.
      num_validation: latents held out when --validation_latents names none.
      log_interval: steps between lines of metrics.
      val_interval: steps between validations; the best mapper is chosen by them.
      image_interval: steps between sheets.
      save_interval: steps between checkpoints.
      sheet_size: latents on a sheet.
      seed: of the initial weights, of shuffling and of sampled latents.
    """

    train_steps: int = 50_000
    batch_size: int = 2
    num_validation: int = 64
    log_interval: int = 50
    val_interval: int = 2000
    image_interval: int = 2000
    save_interval: int = 2000
    sheet_size: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), int(field.name != "seed")
            if value < least:
                raise UserError(
                    f"{field.name} must be at least {least}, found {value}",
                    field=field.name,
                )


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Architecture of the mappers; the generator gives the rest of it.

    Attributes:
      space: Space to edit in.
      levels: In W+: levels to move, of coarse,medium,fine, or single for one network
        that moves all rows; every level that the generator has if absent.
      normalize_over: In W+: what the mapper's input is normalised over. Over rows, as
        the official one is, latents of equal rows lose all but their signs.
      torgb: In S, whether toRGB vectors move as well.
      strength: Factor of the mapper's step.
    """

    space: str = dataclasses.field(
        default="w_plus", metadata={"choices": latents.SPACES}
    )
    levels: tuple[str, ...] | None = None
    normalize_over: str = dataclasses.field(
        default=mapper.MapperConfig.normalize_over, metadata={"choices": mapper.NORMS}
    )
    torgb: bool = False
    strength: float = mapper.MapperConfig.strength

    def configure(self, generator: stylegan2.GeneratorConfig) -> mapper.MapperConfig:
        """The configuration for a generator.

        Raises:
          UserError: a setting does not fit it.
        """
        settings = dataclasses.asdict(self)
        if self.levels is None:
            del settings["levels"]
        return mapper.of_generator(generator, **settings)


@dataclasses.dataclass(frozen=True)
class DataRequest:
    """Latents to train on.

    Attributes:
      latents: File of latents (.npy, .npz, .safetensors); sampled if absent.
      validation_latents: File of latents held out.
      truncation_psi: Truncation of z and w.
    """

    latents: str | None = None
    validation_latents: str | None = None
    truncation_psi: float = 0.7


@dataclasses.dataclass(frozen=True)
class Request:
    """Training that is asked for.

    Attributes:
      prompts: texts, of which each gets a mapper.
      models: networks.
      architecture: of the mappers.
      training: objective and optimizer; without an identity network its weight is 0.
      data: latents.
      run: length and rhythm.
      workdir: folder of the run.
      settings: what decides the results, by the names of the flags.
    """

    prompts: Prompts
    models: Models
    architecture: Architecture
    training: TrainingConfig
    data: DataRequest
    run: RunConfig
    workdir: pathlib.Path
    settings: Mapping[str, Any]


_MODELS = (*GENERATOR_FIELDS, "remat", *CLIP_FIELDS, "identity", "class_")
# Flags that say where, how long and how often, not what.
_NEUTRAL_FLAGS = (
    *("workdir", "train_steps", "log_interval", "image_interval", "save_interval"),
    *("sheet_size", *processes.FLAGS),
)

VALUES = flags.FlagValues()
program.define(Models, VALUES, _MODELS)
program.define(PromptRequest, VALUES)
program.define(DataRequest, VALUES)
program.define(Architecture, VALUES)
program.define(TrainingConfig, VALUES)
program.define(RunConfig, VALUES)
flags.DEFINE_string(
    "workdir", "outputs/mapper", "Folder for the run.", flag_values=VALUES
)
processes.define(VALUES)
profiling.define(VALUES)


def main(values: flags.FlagValues) -> int:
    """Trains from the last checkpoint on."""
    request = _parse(values)
    processes.connect(values)
    primary = jax.process_index() == 0
    failures = train(request, profiling.listener(values, shown=primary))
    for line in failures if primary else ():
        print(line, file=sys.stderr)
    return program.EXIT_FAILED_ITEMS if failures else 0


def _parse(values: flags.FlagValues) -> Request:
    """The request of the flags.

    Raises:
      UserError: a flag is wrong, or goes with no other one.
    """
    run = program.build(RunConfig, values)
    training = program.build(TrainingConfig, values)
    models = program.build(Models, values, _MODELS)
    if training.id_lambda and not models.has_identity:
        if values["id_lambda"].present:
            raise UserError(
                f"id_lambda: {training.id_lambda} with another generator needs a face "
                "recognition network, expected identity with it",
                field="id_lambda",
                also=["identity"],
            )
        training = dataclasses.replace(training, id_lambda=0.0)
    return Request(
        prompts=prompts.read(program.build(PromptRequest, values), tell=print),
        models=models,
        architecture=program.build(Architecture, values),
        training=training,
        data=program.build(DataRequest, values),
        run=run,
        workdir=pathlib.Path(values.workdir),
        settings=program.settings(values, _NEUTRAL_FLAGS),
    )


def train(request: Request, listener: Listener) -> list[str]:
    """Trains mappers from the last checkpoint on, into the folder of the run.

    Args:
      request: what to train.
      listener: is told how far it is.

    Returns:
      A line for each mapper whose loss was not finite, which ends the run; none when
      all steps are done.

    Raises:
      UserError: something does not fit, or the folder is of another run.
    """
    config, devices, notes = _fill_devices(request)
    request = dataclasses.replace(request, run=config)
    models = request.models
    generator = models.load_generator()
    clip_network, tokenizer = models.load_clip()
    identity = None
    if request.training.id_lambda:
        identity = models.load_identity()
    architecture = request.architecture.configure(generator.config)
    problem = mapper_training.official(architecture, request.training)
    data = _open_data(request, generator.config)
    texts = request.prompts.texts
    text = clip.encode_prompts(clip_network, tokenizer, texts)
    label = models.one_hot_label(generator.config)
    inputs = _inputs(request)
    folder = mapper_files.Folder(
        request.workdir, texts, architecture, inputs, config.batch_size, listener
    )
    if folder.primary:
        about = _describe(request, problem, data, generator.config)
        for line in about + data.notes + notes:
            listener.tell(line)
        run_folder.begin(
            request.workdir,
            program=_PROGRAM,
            settings={**request.settings, **models.record()},
            inputs=inputs,
            field="workdir",
            chosen={"batch_size": config.batch_size},
        )
    convert = functools.partial(
        _convert,
        truncation_psi=request.data.truncation_psi,
        to=architecture.space,
        label=label,
    )
    networks = losses.Networks(generator, clip_network, identity)
    trainer = mapper_run.Trainer(networks, text, problem, data, convert, devices)
    with mapper_files.Checkpoints(request.workdir) as saved:
        return _train(trainer, folder, config, saved, listener)


def _train(
    trainer: mapper_run.Trainer,
    folder: mapper_files.Folder,
    config: RunConfig,
    saved: mapper_files.Checkpoints,
    listener: Listener,
) -> list[str]:
    """Trains to the end; lines on losses that were not finite."""
    state = trainer.start(config.seed)
    start, (state, best) = saved.restore((state, mapper_run.no_best(state)))
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
    with listener.bar(total - start, "step") as report:
        batches = trainer.batches(start)
        for done, batch in zip(range(start + 1, total + 1), batches, strict=False):
            state, terms = trainer.step(state, batch)
            due = {n for n, k in intervals.items() if done % k == 0 or done == total}
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
                best, improved = mapper_run.keep_best(best, done, state.params, found)
                folder.write_mappers("best", best, improved)
            if "image" in due:
                folder.write_sheet(done, trainer, state.params, config.sheet_size)
            if "save" in due:
                saved.save(done, (state, best))
    if (np.asarray(state.failed_at) >= 0).any():
        return folder.describe_failures(state, saved.last())
    folder.finish(state, best, total - start - 1, time.monotonic() - began)
    return []


def _fill_devices(
    request: Request,
) -> tuple[RunConfig, Sequence[jax.Device] | None, list[str]]:
    """A batch that all devices share equally, and notes on it.

    A run that goes on keeps its batch, on fewer devices where it must.

    Returns:
      The configuration, the devices to use (None for all), and the notes.

    Raises:
      UserError: a run cannot go on on the devices of several processes.
    """
    count, asked = jax.device_count(), request.run.batch_size
    size, kept = parallel.round_up(asked, count), _batch_size_of(request.workdir)
    config = dataclasses.replace(request.run, batch_size=kept or size)
    if kept in (None, size):
        note = (
            f"note: a batch of {asked} is rounded up to {size}, which the {count} "
            "devices share equally"
        )
        return config, None, [] if size == asked else [note]
    used = max(n for n in range(1, count + 1) if kept % n == 0)
    note = (
        f"note: the run goes on with its batch of {kept}, on {used} of {count} devices"
    )
    if used == count:
        return config, None, [note]
    if jax.process_count() > 1:
        raise UserError(
            f"batch_size: {request.workdir} is of a run with {kept} latents per step, "
            f"expected devices that share them equally, found {count}",
            field="batch_size",
        )
    return config, jax.local_devices()[:used], [note]


def _batch_size_of(workdir: pathlib.Path) -> int | None:
    """Latents per step of the run in a folder, None if there is none."""
    path = workdir / files.RECORD
    if not path.exists():
        return None
    record = files.read_json(path)
    if record.get("program") != _PROGRAM:
        return None
    return record.get("batch_size", record["flags"].get("batch_size"))


def _open_data(
    request: Request, generator: stylegan2.GeneratorConfig
) -> mapper_run.Data:
    """Latents for training and those held out, checked."""
    config = request.run
    data = mapper_run.open_data(
        request.data.latents,
        request.data.validation_latents,
        generator,
        num_validation=config.num_validation,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    if "s" in (data.space, data.validation.space) and request.architecture.space != "s":
        raise UserError(
            "latents: the file is in s, expected space=s with it",
            field="latents",
            also=["space"],
        )
    return data


def _convert(
    generator: Network,
    batch: jax.Array,
    *,
    space: str,
    truncation_psi: float,
    to: str,
    label: jax.Array | None,
) -> Any:
    """A batch from files or sampling in the space of the mapper."""
    latent: Any = batch
    if space == "s":
        latent = spaces.unflatten_styles(batch, generator.config.style_layout)
    return latents.convert(
        generator,
        latent,
        space=space,
        truncation_psi=truncation_psi,
        cutoff=None,
        to=to,
        label=label,
    )


def _inputs(request: Request) -> dict[str, str]:
    """Hashes of what the run reads; a CLIP from the hub goes by its name."""
    names = ["generator", "clip"]
    if request.training.id_lambda:
        names.append("identity")
    inputs = request.models.fingerprints(*names) | request.prompts.inputs
    for name in ("latents", "validation_latents"):
        if path := getattr(request.data, name):
            inputs[name] = latent_files.hash_source(path)
    return inputs


def _describe(
    request: Request,
    problem: mapper_training.Problem,
    data: mapper_run.Data,
    generator: stylegan2.GeneratorConfig,
) -> list[str]:
    """Lines on what is trained."""
    config = problem.config
    parts = ", ".join(config.levels) if config.space == "w_plus" else "style vectors"
    terms = ", ".join(f"{weight:g} {n}" for n, (weight, _) in problem.objective.items())
    count = "sampled" if data.training is None else len(data.training.array)
    lines = [
        f"generator: {request.models.generator_directory}, "
        f"{generator.resolution}², {generator.num_rows} rows of W+",
        f"clip: {', '.join(loading.clip_names(request.models.clip))}",
        f"latents: {count} in {data.space}, "
        f"{len(data.validation.array)} held out, edited in {config.space}",
        f"mapper: {parts}",
        f"objective: {terms}",
        f"devices: {jax.device_count()} in {jax.process_count()} processes",
        f"prompts: {'; '.join(request.prompts.texts)}",
    ]
    equal_rows = data.space in ("z", "w")
    if config.space == "w_plus" and config.normalize_over == "rows" and equal_rows:
        lines.append(
            "note: all rows of these latents are equal, and normalised over rows they "
            "keep their signs alone; --normalize_over=features keeps the rest"
        )
    return lines


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
