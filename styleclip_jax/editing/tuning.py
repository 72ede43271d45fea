"""Tuner: batches of photos with their latents through pivotal tuning, with progress."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, parallel, places
from styleclip_jax.batch.editor import Outcome
from styleclip_jax.batch.tuned import as_stored
from styleclip_jax.editing import perceptions
from styleclip_jax.errors import UserError
from styleclip_jax.io import tuned_files
from styleclip_jax.io.direction_files import Origin
from styleclip_jax.loading import Models
from styleclip_jax.methods import pivotal_tuning
from styleclip_jax.methods.projection import Networks
from styleclip_jax.models import generators, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.progress import Pace, Report, take_steps
from styleclip_jax.settings.tuning import TuningConfig

# What is quicker than a tuning, by names of fields.
QUICKER = "fewer tune_steps"
# LPIPS at which the official tuning ends; another perception is on another scale.
_THRESHOLD = 0.06
# Weight of absolute distances beside the stand-in for LPIPS.
_L1_LAMBDA = 0.5
# Learning rates of the embedded generator, which is small: an output changes by the
# rate times the root of the number of its inputs, where all weights move alike. Higher
# rates come nearer to the photo, and edits fail more often. Maps of noise, which have
# the pixels of all layers, come nearer and leave edits as they are.
_EMBEDDED_RATE, _EMBEDDED_NOISE_RATE = 5e-4, 5e-3


class Tuned(NamedTuple):
    """Tuned generators of a batch of photos.

    Attributes:
      changes: {name: [B, …] bfloat16}, what the tunings have changed of the generator's
        parameters by flat name.
      image: [B, H, W, 3] of the latents by the changed generators.
      num_steps: [B] steps that were taken.
      failed_at: [B] first step whose loss or gradient was not finite, -1 for none.
    """

    changes: dict[str, jax.Array]
    image: jax.Array
    num_steps: jax.Array
    failed_at: jax.Array


class Tuner(NamedTuple):
    """Tuner of batches of photos.

    A CPU takes one photo after the other, since convolutions with a kernel for each of
    several take it twice as long as these alone, and more memory.

    Attributes:
      tune: (photos [B, H, W, 3], latents [B, L, D], report, largest number of steps or
        None) → tuned generators, of which the steps are reported.
      memory: (photos, latents) → bytes on each device that a tuning takes, by the
        compiler.
    """

    tune: Callable[[Any, Any, Report, int | None], Tuned]
    memory: Callable[[Any, Any], int]

    def __call__(
        self, photo: Any, pivot: Any, report: Report, most: int | None = None
    ) -> Tuned:
        """Tunes generators, perhaps by some steps alone."""
        return self.tune(photo, pivot, report, most)


def tuner(
    models: Models, generator: Network, config: TuningConfig, mesh: jax.sharding.Mesh
) -> Tuner:
    """Tuner of batches of photos, which compiles nothing yet.

    Args:
      models: names of the networks.
      generator: generator on the devices.
      config: settings of the tuning.
      mesh: devices that batches are spread over.

    Raises:
      UserError: there is no network for the perceptual distance, or no noise to tune.
    """
    if config.tune_noise_rate and not generator.config.noise_shapes:
        raise UserError(
            f"tune_noise_rate: expected 0 for a generator without noise, found "
            f"{config.tune_noise_rate:g}",
            field="tune_noise_rate",
        )
    perception = None
    if config.tune_lpips_lambda:
        perception = perceptions.load(
            models, generator.config, "tune_lpips_lambda", None
        )
    config = _completed(config, models)
    networks = parallel.replicate(Networks(generator, perception), mesh)
    sharding, pace = parallel.over_batch(mesh), Pace()
    stride = parallel.steps_per_call(config.tune_steps, sharding)
    step_all = jax.vmap(
        functools.partial(pivotal_tuning.step, config=config), in_axes=(None, 0)
    )

    @functools.partial(jax.jit, out_shardings=sharding)
    def start(networks: Networks, photo: Any, pivot: Any) -> pivotal_tuning.State:
        one = functools.partial(pivotal_tuning.start, config=config)
        key = jax.random.key(config.tune_seed)
        return jax.vmap(one, in_axes=(None, 0, 0, None))(networks, photo, pivot, key)

    @functools.partial(jax.jit, donate_argnums=1, out_shardings=sharding)
    def steps(networks: Networks, state: pivotal_tuning.State) -> pivotal_tuning.State:
        if stride == 1:
            return step_all(networks, state)
        return jax.lax.fori_loop(0, stride, lambda _, s: step_all(networks, s), state)

    @jax.jit
    def finish(networks: Networks, state: pivotal_tuning.State) -> Tuned:
        return jax.vmap(functools.partial(_finish, networks.generator))(state)

    is_cpu = mesh.devices.flat[0].platform == "cpu"

    def tune(photo: Any, pivot: Any, report: Report, most: int | None) -> Tuned:
        count = config.tune_steps
        if most is not None:
            count = min(count, most * stride)
        rows = np.arange(len(photo))
        parts = np.split(rows, len(rows) // mesh.size) if is_cpu else [rows]
        shared, found = _shared(report, len(parts)), []
        for part in parts:
            some = (photo, pivot)
            if len(parts) > 1:
                some = parallel.shard(latents.take(some, part), mesh)
            state = start(networks, *some)
            about: Any = {"stride": stride, "pace": pace}
            state = take_steps(steps, networks, state, count, shared, **about)
            found.append(finish(networks, state))
        return jax.tree.map(lambda *x: jnp.concatenate(x), *found)

    def memory(photo: Any, pivot: Any) -> int:
        count = mesh.size if is_cpu else len(photo)
        photo, pivot = (
            jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype, sharding=sharding)
            for x in (photo, pivot)
        )
        state = parallel.shapes_of(sharding, start, networks, photo, pivot)
        needed = functools.partial(parallel.bytes_needed, steps, networks)
        return max(needed(state), parallel.bytes_needed(finish, networks, state))

    return Tuner(tune, memory)


def _completed(config: TuningConfig, models: Models) -> TuningConfig:
    """Settings with what the networks decide where it is absent."""
    found: dict[str, float] = {}
    if config.tune_threshold is None and models.lpips is not None:
        found["tune_threshold"] = _THRESHOLD
    if config.tune_l1_lambda is None and models.lpips is None:
        found["tune_l1_lambda"] = _L1_LAMBDA
    is_embedded = places.name_of(models.generator_directory) == places.EMBEDDED
    if config.tune_rate is None and is_embedded:
        found["tune_rate"] = _EMBEDDED_RATE
    if config.tune_noise_rate is None and is_embedded:
        found["tune_noise_rate"] = _EMBEDDED_NOISE_RATE
    return config.replace(**found)


def _shared(report: Report, parts: int) -> Report:
    """Report of the steps of a batch, for each of its parts to report its own."""
    done = 0

    def advance(steps: int) -> None:
        nonlocal done
        before, done = done, done + steps
        report(done // parts - before // parts)

    return advance


def _finish(generator: Network, state: pivotal_tuning.State) -> Tuned:
    """Tuned generator of a photo as its file will have it, and what it draws."""
    after = param_trees.flatten({"synthesis": state.weights})
    changes, stored = as_stored(generator, after)
    image = generators.synthesize(stored, state.pivot[None])[0]
    return Tuned(changes, image, state.step, state.failed_at)


@jax.jit
def follow(outcome: Outcome, photo: jax.Array, tuned: Tuned, steps: int) -> Outcome:
    """Outcome of inversions with the generators that were tuned after them.

    Args:
      outcome: outcome of the inversions, with "levels".
      photo: [B, H, W, 3] photos.
      tuned: tuned generators.
      steps: number of steps of the inversions.
    """
    before = outcome.terms["levels"]
    levels = pixels.mean_levels(tuned.image, photo)
    terms = {"levels": levels, "levels_untuned": before, "tune_steps": tuned.num_steps}
    drawn = pixels.is_drawn(tuned.image)
    tuned_at = jnp.where(drawn | (tuned.failed_at >= 0), tuned.failed_at, 0)
    after = jnp.where(tuned_at < 0, tuned_at, steps + tuned_at)
    return outcome._replace(
        image=tuned.image,
        terms=outcome.terms | terms,
        failed_at=jnp.where(outcome.failed_at < 0, after, outcome.failed_at),
        changes=tuned.changes,
    )


def write(folder: pathlib.Path, origin: Origin, index: int, one: Outcome) -> None:
    """Writes what belongs to a face of its generator into a folder.

    Raises:
      UserError: the file cannot be written, or a number is not finite.
    """
    if one.failed_at >= 0:
        # Its latent or its weights are worth nothing, but each face has a file.
        changes: dict[str, Any] = {}
    else:
        changes = {name: x.astype(np.float32) for name, x in one.changes.items()}
    about = {"steps": int(one.terms.get("tune_steps", 0))}
    path = folder / tuned_files.name(index)
    tuned_files.write(path, changes, generator=origin, about=about)
