"""Training of delta networks: pairs of latents and their pictures, without any text.

  loss = mean over pairs (i, j) of |N(sᵢ, Δᵢⱼ + noise) − (sⱼ − sᵢ)|², in deviations

Δᵢⱼ is the unit difference of the pictures' CLIP features. The noise stands for what
differences of texts hold beside what a picture can show: what the network learns with
it is to follow only that part of a difference which pictures have.

  problem = official(config, TrainingConfig())
  state = start(delta.with_statistics(delta.init(key, config), latent), problem=problem)
  state, terms = train_step(networks, state, latent, problem=problem)
  edited = delta.edit(delta.Delta(state.params, config), latent, text_direction)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from styleclip_jax import latents, losses
from styleclip_jax.methods import delta, strength, training
from styleclip_jax.methods.training import State
from styleclip_jax.ops import norms
from styleclip_jax.settings.deltas import TrainingConfig


class Problem(NamedTuple):
    """Problem to train for. A variant is `official(…)._replace(...)`.

    Attributes:
      config: architecture of the network.
      space: the space of the latents.
      noise: length of the noise.
      num_pairs: latents that each latent is paired with.
      seed: seed of pairs and noise.
      optimizer: any optax transformation.
    """

    config: delta.DeltaConfig
    space: latents.Space
    noise: float
    num_pairs: int
    seed: int
    optimizer: optax.GradientTransformation


def official(
    config: delta.DeltaConfig, settings: TrainingConfig, seed: int = 0
) -> Problem:
    """Problem with the settings."""
    return Problem(
        config=config,
        space=latents.SPACES[config.space],
        noise=settings.noise,
        num_pairs=settings.num_pairs,
        seed=seed,
        optimizer=optax.adam(settings.learning_rate),
    )


def start(params: Any, *, problem: Problem) -> State:
    """State before the first step."""
    return training.start(params, problem.optimizer)


class Samples(NamedTuple):
    """Samples of a batch: of all devices, and those of this one.

    Attributes:
      latent: [N, F] latents of all, flat.
      features: [N, E] unit CLIP features of their images.
      own: [B] indices of this device's.
    """

    latent: jax.Array
    features: jax.Array
    own: jax.Array


def describe(
    networks: losses.Networks,
    latent: Any,
    *,
    problem: Problem,
    axis_name: str | None = None,
) -> Samples:
    """Samples of a batch of latents, of which each device has a share."""
    image = problem.space.synthesize(networks.generator, latent)
    features = strength.features(networks, jnp.clip(image, -1, 1))
    flat = latents.flatten(latent)
    own = jnp.arange(len(flat))
    if axis_name is not None:
        own += len(flat) * lax.axis_index(axis_name)
        flat, features = lax.all_gather((flat, features), axis_name, tiled=True)
    return Samples(flat, features, own)


def measure(
    params: Any, samples: Samples, key: jax.Array, *, problem: Problem
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Losses of a network, averaged over pairs.

    Args:
      params: parameters of the network.
      samples: batch, as `describe` gives it.
      key: key of pairs and noise.
      problem: what is trained for.

    Returns:
      The mean squared error of the steps, [], in deviations of the latents, where 2 is
      that of no step; and the same by name, as "total".
    """
    network = delta.Delta(params, problem.config)
    std = lax.stop_gradient(params["std"])
    count, size = samples.features.shape
    pairs, noises = jax.random.split(key)
    # Each is paired with those that are so many rows after it.
    shifts = jax.random.permutation(pairs, jnp.arange(1, count))[: problem.num_pairs]
    flat, own = samples.latent[samples.own], samples.features[samples.own]

    def draw(shift: jax.Array, row: jax.Array) -> jax.Array:
        # By shift and row, so that it is the same on any number of devices.
        key = jax.random.fold_in(jax.random.fold_in(noises, shift), row)
        return jax.random.normal(key, (size,)) / jnp.sqrt(size)

    def error(shift: jax.Array) -> jax.Array:
        others = (samples.own + shift) % count
        direction = norms.unit(samples.features[others] - own)
        direction += problem.noise * jax.vmap(draw, (None, 0))(shift, samples.own)
        step = delta.step(network, flat, direction)
        wanted = samples.latent[others] - flat
        return jnp.mean(jnp.square((step - wanted) / std))

    total = jnp.mean(jax.vmap(error)(shifts))
    return total, {"total": total}


def evaluate(
    networks: losses.Networks,
    params: Any,
    latent: Any,
    *,
    problem: Problem,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """Losses of a network on latents, of pairs that are always the same.

    Args:
      networks: generator and CLIP.
      params: parameters of the network.
      latent: latents, as for `train_step`.
      problem: what is trained for.
      axis_name: mapped axis of the devices, as for `train_step`.

    Returns:
      The losses of `measure` by name, [].
    """
    samples = describe(networks, latent, problem=problem, axis_name=axis_name)
    key = jax.random.key(problem.seed)
    _, terms = measure(params, samples, key, problem=problem)
    return terms if axis_name is None else lax.pmean(terms, axis_name)


def train_step(
    networks: losses.Networks,
    state: State,
    latent: Any,
    *,
    problem: Problem,
    axis_name: str | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """State of a network after one more step.

    Args:
      networks: generator and CLIP.
      state: the network before the step.
      latent: [B, L, D] W+, or a tuple of [B, C] styles; under `axis_name` a device's
        share.
      problem: what is trained for.
      axis_name: mapped axis of the devices, whose latents are paired as one batch;
        None for one device.

    Returns:
      The state after the step, and the losses before it, averaged over the batch.
    """
    samples = describe(networks, latent, problem=problem, axis_name=axis_name)
    key = jax.random.fold_in(jax.random.key(problem.seed), state.step)

    def loss(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return measure(params, samples, key, problem=problem)

    return training.descend(loss, state, problem.optimizer, axis_name=axis_name)
