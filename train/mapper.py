"""python -m train.mapper: train latent mappers, for one prompt or several.

  python -m train.mapper --prompt="a face with blonde hair" --workdir=outputs/blonde
  python -m train.mapper --prompts_file=prompts.txt --latents=train.npy --space=s \
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
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from styleclip_jax import latents, loading, losses, parallel, progress, spaces
from styleclip_jax.batch import journal
from styleclip_jax.cli import edit_flags, latent_flags, processes, program
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, images, latent_files
from styleclip_jax.methods import mapper, mapper_training
from styleclip_jax.models import clip, stylegan2
from styleclip_jax.models.network import Network

from . import mapper_run


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Length and rhythm of a training; the defaults are the official script's.

    Attributes:
      train_steps: number of steps; a larger one goes on with a run.
      batch_size: latents per step over all devices, a multiple of their number.
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
            value = getattr(self, field.name)
            if value < (field.name != "seed"):
                least = "0" if field.name == "seed" else "1"
                raise ValueError(
                    f"{field.name} must be at least {least}, found {value}"
                )


# Flags that say where, how long and how often, not what.
_NEUTRAL_FLAGS = (
    *("workdir", "train_steps", "log_interval", "image_interval", "save_interval"),
    *("sheet_size", *processes.FLAGS),
)
# Seconds of work between two reports of progress.
_REPORT_EVERY = 1.0

VALUES = flags.FlagValues()
program.define(mapper_training.TrainingConfig, VALUES)
program.define(RunConfig, VALUES)
for _name, _default, _help in (
    ("prompt", None, "Text to edit towards."),
    ("prompts_file", None, "File of prompts, one a line, trained side by side."),
    ("workdir", "outputs/mapper", "Folder for the run."),
    ("latents", None, "File of latents (.npy, .npz, .safetensors); sampled if absent."),
    ("validation_latents", None, "File of latents held out."),
    ("generator", None, "Model directory; the embedded one if absent."),
    ("clip", None, "CLIP by directory or hub name; the embedded one if absent."),
    (
        "identity",
        None,
        "Model directory of a face recognition network; the embedded one, with the "
        "embedded generator, if absent.",
    ),
):
    flags.DEFINE_string(_name, _default, _help, flag_values=VALUES)
processes.define(VALUES)
flags.DEFINE_integer(
    "class", None, "Class, for class-conditional generators.", flag_values=VALUES
)
flags.DEFINE_enum(
    "space", "w_plus", ["w_plus", "s"], "Space to edit in.", flag_values=VALUES
)
flags.DEFINE_list(
    "levels",
    None,
    "In W+: levels to move, of coarse,medium,fine, or single for one network that "
    "moves all rows; every level that the generator has if absent.",
    flag_values=VALUES,
)
flags.DEFINE_enum(
    "normalize_over",
    "rows",
    list(mapper.NORMS),
    "In W+: what the mapper's input is normalised over. Over rows, as the official one "
    "is, latents of equal rows lose all but their signs.",
    flag_values=VALUES,
)
flags.DEFINE_bool(
    "torgb", False, "In S, whether toRGB vectors move as well.", flag_values=VALUES
)
flags.DEFINE_float("strength", 0.1, "Factor of the mapper's step.", flag_values=VALUES)
flags.DEFINE_float("truncation_psi", 0.7, "Truncation of z and w.", flag_values=VALUES)


def main(values: flags.FlagValues) -> int:
    """Trains from the last checkpoint on."""
    config = program.build(RunConfig, values)
    training = program.build(mapper_training.TrainingConfig, values)
    prompts = edit_flags.prompts(values)
    processes.connect(values)
    generator = loading.load_generator(values.generator)
    clip_network, tokenizer = loading.load_clip(values.clip)
    identity_directory, training = _identity(values, training)
    identity = None
    if identity_directory is not None:
        identity = loading.load_identity(identity_directory)
    problem = mapper_training.official(
        _architecture(values, generator.config), training
    )
    data = _open_data(values, config, generator.config)
    text = clip.encode_prompts(clip_network, tokenizer, prompts)
    label = latent_flags.one_hot_label(values, generator.config)
    inputs = _inputs(values, identity_directory)
    workdir = pathlib.Path(values.workdir)
    folder = Folder(workdir, prompts, problem.config, inputs, config.batch_size)
    if folder.primary:
        _print_header(values, problem, data, generator.config, prompts)
        journal.begin(
            "train.mapper", values, inputs, folder="workdir", neutral=_NEUTRAL_FLAGS
        )
    convert = functools.partial(
        _convert, truncation_psi=values.truncation_psi, to=values.space, label=label
    )
    networks = losses.Networks(generator, clip_network, identity)
    trainer = mapper_run.Trainer(networks, text, problem, data, convert)
    with mapper_run.Checkpoints(workdir) as saved:
        return _train(trainer, folder, config, saved)


class Folder:
    """The files of a run; only the first process writes any."""

    def __init__(
        self,
        path: pathlib.Path,
        prompts: Sequence[str],
        architecture: mapper.MapperConfig,
        inputs: dict[str, str],
        batch_size: int,
    ) -> None:
        self.primary = jax.process_index() == 0
        self._path, self._prompts, self._inputs = path, prompts, inputs
        self._architecture, self._batch_size = architecture, batch_size
        self._names = _folder_names(prompts)
        self._metrics: mapper_run.Metrics | None = None

    def begin(self, start: int) -> None:
        """Opens the metrics of a run with so many steps done."""
        if self.primary:
            self._metrics = mapper_run.Metrics(self._path, self._prompts, start)
            if start:
                print(f"resumed: {start} steps are done")

    def write_terms(self, step: int, split: str, terms: dict[str, Any]) -> None:
        """Adds losses to the metrics."""
        if self._metrics is not None:
            self._metrics.write(step, split, terms)

    def write_mappers(
        self, name: str, best: mapper_run.Best, which: Sequence[int]
    ) -> None:
        """Writes some of the mappers into the folder best or last."""
        if not self.primary:
            return
        for i in which:
            training: dict[str, float] = {"step": int(best.step[i])}
            if np.isfinite(best.loss[i]):
                training["validation_loss"] = float(best.loss[i])
            loading.save_mapper(
                self._path / name / self._names[i],
                jax.tree.map(lambda x, i=i: x[i], best.params),
                self._architecture,
                prompt=self._prompts[i],
                generator=self._inputs["generator"],
                clip=self._inputs["clip"],
                training=training,
            )

    def write_sheet(
        self, step: int, trainer: mapper_run.Trainer, params: Any, count: int
    ) -> None:
        """Writes a sheet of latents held out and their edits."""
        if not self.primary:
            return
        sheet = images.grid(
            trainer.render(params, count),
            row_labels=["original", *self._prompts],
            title=f"step {step}",
        )
        images.save_sheet(self._path / "sheets" / f"step_{step:06d}.png", sheet)

    def report_failure(self, state: mapper_training.State, checkpoint: str) -> int:
        """Says which loss was not finite, and returns the exit code."""
        for prompt, step in zip(self._prompts, state.failed_at, strict=True):
            if self.primary and step >= 0:
                print(
                    f"failed: the loss for {prompt!r} was not finite at step "
                    f"{int(step) + 1}; last good checkpoint: {checkpoint}",
                    file=sys.stderr,
                )
        return program.EXIT_FAILED_ITEMS

    def finish(
        self,
        state: mapper_training.State,
        best: mapper_run.Best,
        steps: int,
        seconds: float,
    ) -> None:
        """Writes the last mappers and says where everything is."""
        last = mapper_run.no_best(jax.device_get(state))
        self.write_mappers("last", last, range(len(self._prompts)))
        if not self.primary:
            return
        if steps > 0:
            made = steps * self._batch_size * len(self._prompts)
            print(
                f"trained: {steps} steps in {seconds:.1f} s after the first, "
                f"{steps / seconds:.2f} steps/s, {made / seconds:.1f} images/s"
            )
        for i, name in enumerate(self._names):
            print(
                f"mapper: {self._path / 'best' / name}, validation loss "
                f"{best.loss[i]:.4f} at step {best.step[i]}"
            )


def _train(
    trainer: mapper_run.Trainer,
    folder: Folder,
    config: RunConfig,
    saved: mapper_run.Checkpoints,
) -> int:
    """Trains to the end and returns the exit code."""
    state = trainer.start(config.seed)
    start, (state, best) = saved.restore((state, mapper_run.no_best(state)))
    if start > config.train_steps:
        raise UserError(
            f"--train_steps: expected at least the {start} that are done, found "
            f"{config.train_steps}"
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
    began = since = time.monotonic()
    reported = start
    with progress.bar(total - start, "step", shown=folder.primary) as bar:
        batches = trainer.batches(start)
        for done, batch in zip(range(start + 1, total + 1), batches, strict=False):
            state, terms = trainer.step(state, batch)
            if done == start + 1:
                # The first step includes compilation.
                jax.block_until_ready(terms)
                began = time.monotonic()
            due = {n for n, k in intervals.items() if done % k == 0 or done == total}
            if due or time.monotonic() - since > _REPORT_EVERY:
                jax.block_until_ready(terms)
                bar.update(done - reported)
                since, reported = time.monotonic(), done
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
        return folder.report_failure(state, saved.last())
    folder.finish(state, best, total - start - 1, time.monotonic() - began)
    return 0


def _identity(
    values: flags.FlagValues, training: mapper_training.TrainingConfig
) -> tuple[pathlib.Path | None, mapper_training.TrainingConfig]:
    """Directory of the identity network; without one, its term is left out.

    The embedded one knows the faces of the embedded generator alone.
    """
    if not training.id_lambda:
        return None, training
    if values.identity is not None or values.generator is None:
        return loading.identity_directory(values.identity), training
    if values["id_lambda"].present:
        raise UserError(
            f"--id_lambda: {training.id_lambda} with another generator needs a face "
            "recognition network, expected --identity with it"
        )
    return None, dataclasses.replace(training, id_lambda=0.0)


def _architecture(
    values: flags.FlagValues, generator: stylegan2.GeneratorConfig
) -> mapper.MapperConfig:
    names = ("space", "torgb", "strength", "normalize_over")
    settings = {name: values[name].value for name in names}
    if values.levels is not None:
        settings["levels"] = tuple(level.strip() for level in values.levels)
    try:
        return mapper.of_generator(generator, **settings)
    except ValueError as error:
        raise UserError(f"--{error}") from None


def _open_data(
    values: flags.FlagValues, config: RunConfig, generator: stylegan2.GeneratorConfig
) -> mapper_run.Data:
    if config.batch_size % jax.device_count():
        raise UserError(
            f"--batch_size: expected a multiple of the {jax.device_count()} devices, "
            f"found {config.batch_size}"
        )
    data = mapper_run.open_data(
        values.latents,
        values.validation_latents,
        latent_files.dimensions(generator),
        num_validation=config.num_validation,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    if "s" in (data.space, data.validation.space) and values.space != "s":
        raise UserError("--latents: the file is in s, expected --space=s with it")
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


def _inputs(values: flags.FlagValues, identity: pathlib.Path | None) -> dict[str, str]:
    """Hashes of what the run reads; a CLIP from the hub goes by its name."""
    generator = loading.generator_directory(values.generator)
    inputs = {
        "generator": checkpoints.fingerprint(generator),
        "clip": loading.clip_fingerprint(values.clip) or values.clip,
    }
    if identity is not None:
        inputs["identity"] = checkpoints.fingerprint(identity)
    for name in ("prompts_file", "latents", "validation_latents"):
        if path := values[name].value:
            inputs[name] = files.hash_file(path)
    return inputs


def _folder_names(prompts: Sequence[str]) -> list[str]:
    """A name for the folder of each prompt, all different."""
    names: list[str] = []
    for prompt in prompts:
        name = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "prompt"
        taken = sum(other == name for other in names)
        names.append(f"{name}-{len(names)}" if taken else name)
    return names


def _print_header(
    values: flags.FlagValues,
    problem: mapper_training.Problem,
    data: mapper_run.Data,
    generator: stylegan2.GeneratorConfig,
    prompts: Sequence[str],
) -> None:
    config = problem.config
    parts = ", ".join(config.levels) if config.space == "w_plus" else "style vectors"
    terms = ", ".join(f"{weight:g} {n}" for n, (weight, _) in problem.objective.items())
    count = "sampled" if data.training is None else len(data.training.array)
    print(
        f"generator: {loading.generator_directory(values.generator)}, "
        f"{generator.resolution}², {generator.num_rows} rows of W+\n"
        f"clip: {values.clip or 'embedded'}\n"
        f"latents: {count} in {data.space}, "
        f"{len(data.validation.array)} held out, edited in {config.space}\n"
        f"mapper: {parts}\n"
        f"objective: {terms}\n"
        f"devices: {jax.device_count()} in {jax.process_count()} processes\n"
        f"prompts: {'; '.join(prompts)}"
    )
    equal_rows = data.space in ("z", "w")
    if config.space == "w_plus" and config.normalize_over == "rows" and equal_rows:
        print(
            "note: all rows of these latents are equal, and normalised over rows they "
            "keep their signs alone; --normalize_over=features keeps the rest"
        )


def entry() -> None:
    """The program."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
