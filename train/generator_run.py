"""Run that trains a generator: ticks, snapshots, a metric, the loop of its steps."""

import dataclasses
import math
import pathlib
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, loading, parallel, spaces
from styleclip_jax.cli import signals
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import generator_tables
from styleclip_jax.io import checkpoints, files, images
from styleclip_jax.loading import Models
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.progress import SILENT, Listener, Pace
from styleclip_jax.settings.augmentation import PIPELINES, AdaptationConfig
from styleclip_jax.settings.generator_metrics import METRICS, MetricsSettings
from styleclip_jax.settings.generator_training import (
    GanRunConfig,
    ImageDataSettings,
    RecipeSettings,
)

from . import generator_recipes, image_data, training
from .gan_trainer import Augmentation, GanTrainer, State
from .generator_recipes import Recipe
from .image_data import RealImages
from .training_files import Checkpoints, Metrics

PROGRAM = "styleclip-train-generator"

# Columns of a sheet.
_COLUMNS = 8
_DEFAULT_METRIC = "fd_judge"


@dataclasses.dataclass(frozen=True)
class GeneratorRequest:
    """Training of a generator that is asked for.

    Attributes:
      data: images.
      recipe: networks and numbers.
      run: length and rhythm.
      workdir: folder of the run.
      settings: what decides the results, by the names of the flags.
    """

    data: ImageDataSettings
    recipe: RecipeSettings
    run: GanRunConfig
    workdir: pathlib.Path
    settings: Mapping[str, Any]


def train(request: GeneratorRequest, listener: Listener) -> list[str]:
    """Trains a generator from the last checkpoint on, into the folder of the run.

    Args:
      request: what to train.
      listener: is told how far it is.

    Returns:
      A line if a loss was not finite, which ends the run; none when all images are
      done.

    Raises:
      UserError: something does not fit, or the folder is of another run.
      Interrupted: a signal came; the steps that are done are in a checkpoint.
    """
    run = request.run
    data = image_data.open_images(request.data, seed=run.seed, listener=listener)
    asked = run.batch_size or generator_recipes.default_batch_size(
        data.resolution, jax.device_count()
    )
    size, devices, notes = training.share_batch(asked, request.workdir, PROGRAM)
    request = dataclasses.replace(
        request, run=dataclasses.replace(run, batch_size=size)
    )
    count = jax.device_count() if devices is None else len(devices)
    recipe = generator_recipes.make(
        request.recipe,
        resolution=data.resolution,
        c_dim=data.c_dim,
        batch_size=size,
        per_device=size // count,
        seed=run.seed,
    )
    metric = _metric(request, data)
    about = [
        data.describe(),
        *_describe(recipe, request, size),
        f"metric: {metric or 'none'}",
        _rhythm(request.run, size),
        f"devices: {jax.device_count()} in {jax.process_count()} processes",
        *notes,
    ]
    _begin(request, data, about, listener)
    trainer = GanTrainer(
        recipe.problem, _augmenting(request.recipe), data, size, run.seed, devices
    )
    folder = _Folder(request, recipe, metric, listener)
    with signals.postponed() as came, Checkpoints(request.workdir) as saved:
        return _run(trainer, folder, recipe, request.run, saved, listener, came)


def _metric(request: GeneratorRequest, data: RealImages) -> str | None:
    """Metric by which the best snapshot is kept, None for none."""
    run = request.run
    if not run.metric_ticks:
        return None
    name = run.metric
    if name is None:
        if request.data.data is not None or run.features or data.resolution != 64:
            return None
        return _DEFAULT_METRIC
    if name not in METRICS or METRICS[name].measure != "frechet":
        names = [n for n, x in METRICS.items() if x.measure == "frechet"]
        raise UserError(
            f"metric: expected one of {', '.join(names)}, found {name!r}",
            field="metric",
        )
    return name


def _augmenting(recipe: RecipeSettings) -> Augmentation:
    if recipe.augment == "none":
        return Augmentation(None, None, 0.0)
    rule = None
    if recipe.augment == "ada":
        rule = AdaptationConfig(recipe.augment_target, rule=recipe.recipe)
    return Augmentation(PIPELINES[recipe.augment_pipe], rule, recipe.augment_p)


def _describe(recipe: Recipe, request: GeneratorRequest, size: int) -> list[str]:
    """Lines on what is trained."""
    problem, settings = recipe.problem, request.recipe
    numbers = problem.settings
    channels = ", ".join(map(str, problem.generator.channels))
    count = sum(x.size for x in jax.tree.leaves(recipe.generator))
    augment = settings.augment
    if augment != "none":
        augment += f", {settings.augment_pipe}"
    return [
        *recipe.about,
        f"generator: {problem.generator.resolution}², {channels} channels, "
        f"{count / 1e6:.1f} million parameters",
        f"batch: {size}; learning rate {numbers.learning_rate:g}; γ "
        f"{numbers.r1_gamma:g}; path weight {numbers.path_weight:g}",
        f"augmentation: {augment}",
    ]


def _rhythm(run: GanRunConfig, size: int) -> str:
    """Line on when there is something to look at."""
    every = run.snapshot_ticks * _steps_per_tick(run, size) * size
    return f"sheets and snapshots: every {every:,} images, by snapshot_ticks"


def _steps_per_tick(run: GanRunConfig, size: int) -> int:
    return max(1, round(run.kimg_per_tick * 1000 / size))


def _begin(
    request: GeneratorRequest, data: RealImages, about: list[str], listener: Listener
) -> None:
    """Tells what is trained, and begins or goes on with the folder of the run."""

    def inputs() -> dict[str, str]:
        found = {"data": data.images.identity}
        if request.recipe.resume_from is not None:
            found["resume_from"] = checkpoints.fingerprint(request.recipe.resume_from)
        return found

    training.begin_folder(
        request.workdir,
        PROGRAM,
        request.settings,
        inputs,
        request.run.batch_size,
        about,
        listener,
    )


def _run(
    trainer: GanTrainer,
    folder: "_Folder",
    recipe: Recipe,
    run: GanRunConfig,
    saved: Checkpoints,
    listener: Listener,
    came: Callable[[], int],
) -> list[str]:
    """Loop over the steps; arguments and results as of `train`."""
    size = run.batch_size
    assert size is not None
    total = math.ceil(run.kimg * 1000 / size)
    per_tick = _steps_per_tick(run, size)
    state = trainer.start(recipe.generator, recipe.discriminator)
    start, state = saved.restore(state)
    if start > total:
        raise UserError(
            f"kimg: expected at least the {start * size / 1000:g} that are done, found "
            f"{run.kimg:g}",
            field="kimg",
        )
    state = parallel.replicate(state, trainer.mesh)
    folder.begin(state, start, size, trainer.data)
    reported, pace = start, Pace()
    ticked, began = start, time.monotonic()
    with listener.long_bar((total - start) * size, "image", "fewer kimg") as report:
        batches = trainer.batches(start, total)
        for done, batch in zip(range(start + 1, total + 1), batches, strict=True):
            state = trainer.step(state, done - 1, batch)
            at_tick = done % per_tick == 0 or done == total
            ends = training.agree_to_end(came(), done)
            if pace.wait(state) or at_tick:
                report((done - reported) * size)
                reported = done
            if not (at_tick or ends):
                continue
            means = state.means
            if not all(map(math.isfinite, means.values())):
                return [
                    f"failed: a loss was not finite before image {done * size:,}; "
                    f"last good checkpoint: {saved.last()}"
                ]
            if at_tick:
                rate = (done - ticked) * size / (time.monotonic() - began)
                folder.write_tick(done * size, means, state, rate)
                state = trainer.without_figures(state)
                ticked, began = done, time.monotonic()
            tick = done // per_tick
            is_last = done == total
            measures = at_tick and _is_due(tick, run.metric_ticks, is_last)
            if at_tick and (measures or _is_due(tick, run.snapshot_ticks, is_last)):
                folder.snapshot(state, done * size, measures=measures)
                saved.save(done, state)
            elif ends:
                saved.save(done, state)
            if ends and not is_last:
                listener.tell(f"ended: {done * size:,} images, kept in {saved.last()}")
                # The signal may have come to another process.
                raise signals.Interrupted(came() or signal.SIGTERM)
    folder.finish()
    return []


def _is_due(tick: int, every: int, is_last: bool) -> bool:
    """Whether a tick is one of every so many, or the last; none is of every 0."""
    return bool(every) and (tick % every == 0 or is_last)


def snapshot_name(images_done: int, run: GanRunConfig, size: int) -> str:
    """Name of a snapshot's files: thousands of images, and what tells it from others.

    It is the whole thousands for the first snapshot in them by the rhythm of the run,
    "000140k", and has the rest for others, "000140k512"; names sort as images do.

    Args:
      images_done: images so far.
      run: rhythm.
      size: images per step.
    """
    start = images_done // 1000 * 1000
    per_tick = _steps_per_tick(run, size) * size
    every = [per_tick * n for n in (run.snapshot_ticks, run.metric_ticks) if n]
    first = min(math.ceil(max(start, 1) / n) * n for n in every)
    if first >= start + 1000:
        first = start
    rest = "" if images_done == first else f"{images_done - start:03d}"
    return f"{start // 1000:06d}k{rest}"


class _Folder:
    """Files of a run; only the first process writes any but those of the metric."""

    def __init__(
        self,
        request: GeneratorRequest,
        recipe: Recipe,
        metric: str | None,
        listener: Listener,
    ) -> None:
        self._request, self._problem = request, recipe.problem
        self._metric, self._listener = metric, listener
        self._path = request.workdir
        self._is_primary = jax.process_index() == 0
        self._metrics: Metrics | None = None

    def begin(self, state: State, start: int, size: int, data: RealImages) -> None:
        """Opens the metrics of a run with so many steps done, or draws its start."""
        if not self._is_primary:
            return
        tell = self._listener.tell
        self._metrics = Metrics(self._path, [None], start * size, tell)
        if start:
            tell(f"resumed: {start * size:,} images are done")
        else:
            count = min(self._request.run.sheet_size, len(data.images))
            self._write_sheet("reals", data.load(np.arange(count)))
            self._write_sheet("start", self._draw(jax.device_get(state.gan.averaged)))

    def write_tick(
        self, images_done: int, means: dict[str, float], state: State, rate: float
    ) -> None:
        """Adds a line of metrics: means since the last one, p, rate, memory."""
        if self._metrics is None:
            return
        stats = jax.local_devices()[0].memory_stats() or {}
        found = means | {
            "augment_p": float(state.probability),
            "images_per_second": rate,
            "memory_gb": stats.get("peak_bytes_in_use", 0) / 1e9,
        }
        terms = {name: np.array([value]) for name, value in found.items()}
        self._metrics.write(images_done, "training", terms)

    def snapshot(self, state: State, images_done: int, *, measures: bool) -> None:
        """Writes last/ and a sheet, and with `measures` the metric and best/."""
        last = self._path / "last"
        with parallel.first_alone():
            if self._is_primary:
                host = jax.device_get((state.gan.averaged, state.gan.discriminator))
                self._save(last, host, images_done, {})
                self._write_sheet(self._name(images_done), self._draw(host[0]))
        if self._metric is None or not measures:
            return
        value = self._measure(last, images_done)
        if not self._is_primary or self._metrics is None:
            return
        name = self._metric
        self._metrics.write(images_done, "metric", {name: np.array([value])})
        self._listener.tell(f"{name}: {value:.4g} after {images_done:,} images")
        best = self._path / "best"
        known = checkpoints.source(best).get(name) if best.exists() else None
        if known is None or value < known:
            self._save(best, host, images_done, {name: value})

    def finish(self) -> None:
        """Tells where everything is."""
        best = self._path / "best"
        if best.exists():
            found = checkpoints.source(best)
            self._listener.tell(
                f"best: {best}, {self._metric} {found.get(str(self._metric)):.4g} "
                f"after {found.get('images'):,} images"
            )
        self._listener.tell(f"last: {self._path / 'last'}")

    def _name(self, images_done: int) -> str:
        run = self._request.run
        assert run.batch_size is not None
        return snapshot_name(images_done, run, run.batch_size)

    def _measure(self, generator: pathlib.Path, images_done: int) -> float:
        """Metric of a snapshot, by styleclip-metrics in a folder of its own.

        Raises:
          UserError: some of its images are not finite.
        """
        request = self._request
        settings = MetricsSettings(
            data=request.data.data,
            features=request.run.features,
            metrics=(str(self._metric),),
            num_samples=request.run.metric_samples,
            mirror=request.data.mirror,
            outdir=str(self._path / "metrics" / self._name(images_done)),
        )
        with parallel.first_alone():
            if self._is_primary and pathlib.Path(settings.outdir).exists():
                # Of a run that was interrupted, whose bits may be others.
                shutil.rmtree(settings.outdir)
        models = Models.of(generator=generator)
        done = generator_tables.carry_out(
            settings, models, settings={}, listener=SILENT
        )
        if not done.succeeded:
            raise UserError(f"{generator}: expected finite images, found others")
        (value,) = done.values.values()
        return value

    def _save(
        self,
        path: pathlib.Path,
        params: tuple[Any, Any],
        images_done: int,
        about: dict[str, float],
    ) -> None:
        """Writes a generator with its discriminator in it, in place of an older one."""
        problem, source = self._problem, {"images": images_done, **about}
        with files.new_directory(path, overwrite=True) as folder:
            inner = folder / loading.DISCRIMINATOR
            inner.mkdir()
            for where, kind, one, config in (
                (folder, "stylegan2", params[0], problem.generator),
                (inner, "discriminator", params[1], problem.discriminator),
            ):
                checkpoints.fill_directory(
                    where, kind=kind, params=one, config=config, source=source
                )

    def _draw(self, params: Any) -> np.ndarray:
        """Samples of fixed seeds, [N, H, W, 3] uint8, without truncation."""
        config = self._problem.generator
        count = self._request.run.sheet_size
        z = jnp.asarray(latents.seeded_batch(range(count), config.z_dim))
        label = None
        if config.c_dim:
            label = jnp.eye(config.c_dim)[jnp.arange(count) % config.c_dim]
        network = Network(params, config)
        w = stylegan2.map_latents(network, z, label)
        w_plus = spaces.broadcast_w(w, config.num_rows)
        return np.asarray(pixels.to_uint8(latents.render(network, w_plus)))

    def _write_sheet(self, name: str, pictures: np.ndarray) -> None:
        rows = [pictures[i : i + _COLUMNS] for i in range(0, len(pictures), _COLUMNS)]
        path = self._path / "sheets" / f"{name}.png"
        images.save_sheet(path, images.grid(rows))
