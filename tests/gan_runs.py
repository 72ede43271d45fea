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


def jitted(phase: Callable[..., Any], problem: Problem) -> Callable[..., Any]:
    return jax.jit(functools.partial(phase, problem=problem))


def recording(problem: Problem, state: State, **changes: Any) -> tuple[Problem, State]:
    """Problem and state with gradients as states of optimizers, and no steps.

    Each phase counts once, unless told otherwise.
    """

    def update(gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
        del state, params
        return optax.tree.zeros_like(gradient), gradient

    keep = optax.GradientTransformation(optax.tree.zeros_like, update)
    once = {"r1_interval": 1, "path_interval": 1}
    problem = problem._replace(
        settings=problem.settings.replace(**(once | changes)),
        generator_optimizer=keep,
        discriminator_optimizer=keep,
    )
    fresh = gan_training.start(state.generator, state.discriminator, problem=problem)
    return problem, fresh._replace(path_mean=state.path_mean)


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
        return *networks, fakes._replace(augment=None), image, direction

    first, second, fakes, image, direction = make()
    state = gan_training.start(first, second, problem=problem)
    return Small(problem, state, Reals(image), fakes, direction)
