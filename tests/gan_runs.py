"""Runs of adversarial trainings: compiled phases, and a small problem for them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from styleclip_jax.methods import gan_draws, gan_training
from styleclip_jax.methods.gan_draws import Fakes, Reals
from styleclip_jax.methods.gan_training import Problem, State
from styleclip_jax.models import discriminator, stylegan2
from styleclip_jax.models.discriminator import DiscriminatorConfig
from styleclip_jax.settings.gan_training import GanTrainingConfig
from tests import tiny


@functools.cache
def jitted(phase: Callable[..., Any], problem: Problem) -> Callable[..., Any]:
    return jax.jit(functools.partial(phase, problem=problem))


class Recorded(NamedTuple):
    """State of an optimizer, and the gradient that it had last."""

    gradient: Any
    state: Any


@functools.cache
def _recorder(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    def start(params: Any) -> Recorded:
        return Recorded(optax.tree.zeros_like(params), optimizer.init(params))

    def update(gradient: Any, old: Recorded, params: Any) -> tuple[Any, Recorded]:
        updates, state = optimizer.update(gradient, old.state, params)
        return updates, Recorded(gradient, state)

    return optax.GradientTransformation(start, update)


def recording(problem: Problem, state: State, **changes: Any) -> tuple[Problem, State]:
    """Problem with other settings and its start, whose optimizers keep gradients."""
    problem = problem._replace(
        settings=problem.settings.replace(**changes),
        generator_optimizer=_recorder(problem.generator_optimizer),
        discriminator_optimizer=_recorder(problem.discriminator_optimizer),
    )
    start = jitted(gan_training.start, problem)
    fresh = start(state.generator, state.discriminator)
    kept = {"path_mean": state.path_mean, "averaged": state.averaged}
    return problem, fresh._replace(**kept)


class Small(NamedTuple):
    """Training of 8², with batches for all of its phases."""

    problem: Problem
    state: State
    reals: Reals
    fakes: Fakes
    direction: jax.Array


@functools.cache
def small() -> Small:
    config = tiny.GENERATOR
    judge = DiscriminatorConfig(8, config.channels, group_size=2)
    problem = gan_training.official(config, judge, GanTrainingConfig())

    @jax.jit
    def make() -> tuple[Any, ...]:
        keys = jax.random.split(jax.random.key(0), 5)
        networks = stylegan2.init(keys[0], config), discriminator.init(keys[1], judge)
        fakes = gan_draws.draw_fakes(keys[2], config, 8, style_mixing=1.0)
        image = jax.random.uniform(keys[3], (8, 8, 8, 3), minval=-1)
        direction = jax.random.normal(keys[4], image.shape)
        state = gan_training.start(*networks, problem=problem)
        return state, fakes._replace(augment=None), image, direction

    state, fakes, image, direction = make()
    return Small(problem, state, Reals(image), fakes, direction)
