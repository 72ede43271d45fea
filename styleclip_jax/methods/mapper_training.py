"""Training of latent mappers: objective, optimizer, one step.

Functions are written for one mapper and a batch of latents; `train_together` trains
several on the same latents at once.

  problem = official(config, TrainingConfig())
  state = start(mapper.init(key, config), problem=problem)
  source = describe(networks, latent, problem=problem)
  state, terms = train_step(networks, state, source, text, problem=problem)
  edited = mapper.edit(mapper.Mapper(state.params, config), latent)
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from styleclip_jax import latents, losses, optimizers
from styleclip_jax.methods import mapper, optimization, training
from styleclip_jax.methods.training import State
from styleclip_jax.settings.mappers import TrainingConfig

OPTIMIZERS = {"ranger": optimizers.ranger, "adam": optax.adam}


class Problem(NamedTuple):
    """Problem to train for. A variant is `official(…)._replace(...)`.

    Attributes:
      config: architecture of the mapper.
      space: the space of the latents.
      objective: {name: (weight, loss)}.
      optimizer: any optax transformation.
    """

    config: mapper.MapperConfig
    space: latents.Space
    objective: losses.Objective
    optimizer: optax.GradientTransformation


def official(config: mapper.MapperConfig, settings: TrainingConfig) -> Problem:
    """Official problem: objective and optimizer."""
    preprocess = optimization.PREPROCESSINGS[settings.clip_preprocess]
    clip_loss = functools.partial(losses.clip_distance, preprocess=preprocess)
    objective: dict[str, tuple[float, losses.Loss]] = {
        "clip": (settings.clip_lambda, clip_loss),
        "l2": (settings.latent_l2_lambda, losses.latent_mean_squares),
    }
    if settings.id_lambda:
        objective["identity"] = (settings.id_lambda, losses.identity_distance)
    return Problem(
        config=config,
        space=latents.SPACES[config.space],
        objective=objective,
        optimizer=OPTIMIZERS[settings.optimizer](settings.learning_rate),
    )


def start(params: Any, *, problem: Problem) -> State:
    """State before the first step."""
    return training.start(params, problem.optimizer)


def describe(
    networks: losses.Networks, latent: Any, *, problem: Problem
) -> losses.Source:
    """Source of a batch of latents: what its losses need, whatever the mapper."""
    image = problem.space.synthesize(networks.generator, latent)
    return losses.describe_source(networks, latent, image)


def evaluate(
    networks: losses.Networks,
    params: Any,
    source: losses.Source,
    text: jax.Array,
    *,
    problem: Problem,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Losses of a mapper, averaged over a batch.

    Args:
      networks: generator, CLIP, and whatever else the objective asks for.
      params: parameters of the mapper.
      source: the batch, as `describe` gives it.
      text: [E] normalised CLIP features of the prompt.
      problem: what is trained for.

    Returns:
      The weighted sum, [], and each term by name, [], with the sum as "total".
    """
    latent = mapper.edit(mapper.Mapper(params, problem.config), source.latent)
    image = problem.space.synthesize(networks.generator, latent)
    text = jnp.broadcast_to(text, (len(image), *text.shape))
    total, terms = losses.evaluate(
        problem.objective, networks, losses.Edit(image, latent, source, text)
    )
    means = jax.tree.map(jnp.mean, {"total": total, **terms})
    return means["total"], means


def train_step(
    networks: losses.Networks,
    state: State,
    source: losses.Source,
    text: jax.Array,
    *,
    problem: Problem,
    axis_name: str | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """State of one mapper after one more step.

    Args:
      networks: generator, CLIP, and whatever else the objective asks for.
      state: the mapper before the step.
      source: the batch, as `describe` gives it; under `axis_name` a device's share.
      text: [E] normalised CLIP features of the prompt.
      problem: what is trained for.
      axis_name: mapped axis of the devices to average over, None for one device.

    Returns:
      The state after the step, and the losses before it, averaged over the batch.

    Source: `Coach.train` of the official `mapper/training/coach.py`.
    """

    def loss(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return evaluate(networks, params, source, text, problem=problem)

    return training.descend(loss, state, problem.optimizer, axis_name=axis_name)


def train_together(
    networks: losses.Networks,
    state: State,
    latent: Any,
    text: jax.Array,
    *,
    problem: Problem,
    axis_name: str | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """States of M mappers after a step on the same latents, whose images are made once.

    Args:
      networks: the networks, as for `train_step`.
      state: every leaf with a leading axis of M; `jax.vmap` of `start` makes it.
      latent: [B, L, D] W+, or a tuple of [B, C] styles.
      text: [M, E] normalised CLIP features of the prompts.
      problem: the problem, as for `train_step`.
      axis_name: the mapped axis, as for `train_step`.

    Returns:
      State and losses, every leaf with a leading axis of M.
    """
    source = describe(networks, latent, problem=problem)
    step = functools.partial(train_step, problem=problem, axis_name=axis_name)
    return jax.vmap(step, in_axes=(None, 0, None, 0))(networks, state, source, text)


def evaluate_together(
    networks: losses.Networks,
    params: Any,
    latent: Any,
    text: jax.Array,
    *,
    problem: Problem,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """Losses of M mappers on the same latents; see `train_together`.

    Returns:
      Each term by name, [M], with the sum as "total".
    """
    source = describe(networks, latent, problem=problem)
    one = functools.partial(evaluate, problem=problem)
    _, terms = jax.vmap(one, in_axes=(None, 0, None, 0))(networks, params, source, text)
    return terms if axis_name is None else lax.pmean(terms, axis_name)
