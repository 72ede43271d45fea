"""Adversarial training of a generator: its state, and the phases of a step.

Each phase is a function of the state and a batch, and ends with a step of an optimizer:

  problem = official(generator_config, discriminator_config, GanTrainingConfig())
  state = start(generator, discriminator, problem=problem)
  state, figures = train_generator(state, fakes, problem=problem)
  state, figures = regularize_generator(state, fakes, direction, problem=problem)
  state, figures = train_discriminator(state, reals, fakes, problem=problem)
  state, figures = regularize_discriminator(state, reals, problem=problem)
  state = average(state, batch_size, problem=problem)

The regularizations are lazy: `schedule` says which phases a step has, in which order.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from styleclip_jax import optimizers, spaces
from styleclip_jax.methods import gan_draws, gan_terms
from styleclip_jax.methods.gan_draws import Fakes, Reals
from styleclip_jax.models import discriminator, stylegan2
from styleclip_jax.models.discriminator import DiscriminatorConfig
from styleclip_jax.models.network import Network
from styleclip_jax.models.stylegan2 import GeneratorConfig
from styleclip_jax.settings.gan_training import GanTrainingConfig

# (images, key or draws) → images, before a discriminator sees them.
Augment = Callable[[spaces.Image, Any], spaces.Image]
Figures = dict[str, jax.Array]

# Phases by the order of a step.
GENERATOR, PATHS, DISCRIMINATOR, R1 = "generator", "paths", "discriminator", "r1"
_ORDERS = {
    "nvidia": (GENERATOR, PATHS, DISCRIMINATOR, R1),
    "rosinality": (DISCRIMINATOR, R1, GENERATOR, PATHS),
}
# Leaves of a generator that are data, not weights.
_BUFFERS = ("noise_const", "w_avg")
# What gradients that are not finite become.
_LARGEST = 1e5


class Problem(NamedTuple):
    """Problem to train for. A variant is `official(…)._replace(...)`.

    Attributes:
      generator: architecture of the generator.
      discriminator: architecture of the discriminator.
      settings: numbers of the training.
      order: phases of a step, in their order.
      loss_of_fooling: logits of generated images → [B], the generator's loss.
      loss_on_fakes: logits of generated images → [B], the discriminator's.
      loss_on_reals: logits of real images → [B], the discriminator's.
      image_penalty: (images → logits, real images) → [B] and logits, times γ/2.
      path_penalty: (lengths [B], their running mean, decay=, average=) → [B] and the
        new mean.
      generator_optimizer: any optax transformation.
      discriminator_optimizer: any optax transformation.
      ema_decay: (images so far, batch size) → share that averaged weights keep.
      tracks_w: whether the average of w moves with each batch of latents.
      copies_buffers: whether averaged weights come with the latest noise and average
        of w.
    """

    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    settings: GanTrainingConfig
    order: tuple[str, ...]
    loss_of_fooling: Callable[[jax.Array], jax.Array]
    loss_on_fakes: Callable[[jax.Array], jax.Array]
    loss_on_reals: Callable[[jax.Array], jax.Array]
    image_penalty: Callable[..., tuple[jax.Array, jax.Array]]
    path_penalty: Callable[..., tuple[jax.Array, jax.Array]]
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    ema_decay: Callable[[jax.Array, int], jax.Array]
    tracks_w: bool
    copies_buffers: bool


class State(NamedTuple):
    """State of an adversarial training.

    Attributes:
      images: number of real images so far.
      generator: parameters of the generator.
      discriminator: parameters of the discriminator.
      averaged: averaged parameters of the generator, the ones to keep.
      generator_optimizer: state of the generator's optimizer.
      discriminator_optimizer: state of the discriminator's optimizer.
      path_mean: running mean of path lengths.
    """

    images: jax.Array
    generator: Any
    discriminator: Any
    averaged: Any
    generator_optimizer: Any
    discriminator_optimizer: Any
    path_mean: jax.Array


def official(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig,
    settings: GanTrainingConfig,
) -> Problem:
    """Official problem of a recipe: StyleGAN2's losses and optimizers.

    Source: stylegan2-ada-pytorch's training/loss.py and training_loop.py; rosinality's
    train.py.
    """
    of_nvidia = settings.recipe == "nvidia"

    def optimizer(interval: int) -> optax.GradientTransformation:
        return optimizers.lazy_adam(settings.learning_rate, interval)

    return Problem(
        generator=generator,
        discriminator=discriminator,
        settings=settings,
        order=_ORDERS[settings.recipe],
        loss_of_fooling=gan_terms.loss_of_fooling,
        loss_on_fakes=gan_terms.loss_on_fakes,
        loss_on_reals=gan_terms.loss_on_reals,
        image_penalty=gan_terms.squared_gradients,
        path_penalty=gan_terms.path_penalty,
        generator_optimizer=optimizer(settings.path_interval),
        discriminator_optimizer=optimizer(settings.r1_interval),
        ema_decay=functools.partial(ema_decay, settings=settings),
        tracks_w=of_nvidia,
        copies_buffers=of_nvidia,
    )


def start(generator: Any, discriminator: Any, *, problem: Problem) -> State:
    """State before the first step, of the parameters of both networks."""
    return State(
        images=jnp.zeros((), jnp.int32),
        generator=generator,
        discriminator=discriminator,
        averaged=generator,
        generator_optimizer=problem.generator_optimizer.init(generator),
        discriminator_optimizer=problem.discriminator_optimizer.init(discriminator),
        path_mean=jnp.zeros(()),
    )


def schedule(step: int, *, problem: Problem) -> tuple[str, ...]:
    """Phases of a step, counted from 0, in their order."""
    settings = problem.settings
    every = {R1: settings.r1_interval, PATHS: settings.path_interval}
    weights = {R1: settings.r1_gamma, PATHS: settings.path_weight}
    return tuple(
        phase
        for phase in problem.order
        if step % every.get(phase, 1) == 0 and weights.get(phase, 1)
    )


def train_generator(
    state: State,
    fakes: Fakes,
    *,
    problem: Problem,
    augment: Augment | None = None,
    axis_name: str | None = None,
) -> tuple[State, Figures]:
    """State after the generator's step towards images that look real.

    Args:
      state: state before it; under `axis_name` the same on all devices.
      fakes: draws of the images; under `axis_name` a device's share. Groups whose
        deviation is taken are within a device.
      problem: what is trained for.
      augment: what is done to images before the discriminator sees them.
      axis_name: mapped axis of the devices to average over, None for one device.

    Returns:
      The state, and averages over the batch by name.
    """

    def loss(params: Any) -> tuple[jax.Array, Any]:
        image, mean_w = _generate(params, fakes, problem)
        logit = _judge(state.discriminator, image, fakes, problem, augment)
        value = jnp.mean(problem.loss_of_fooling(logit))
        return value, ({"loss": value, "fake_logit": jnp.mean(logit)}, mean_w)

    gradient, (figures, mean_w) = jax.grad(loss, has_aux=True)(state.generator)
    state = _descend_generator(state, gradient, mean_w, problem, axis_name)
    return state, _mean_over(axis_name)(figures)


def regularize_generator(
    state: State,
    fakes: Fakes,
    direction: spaces.Image,
    *,
    problem: Problem,
    axis_name: str | None = None,
) -> tuple[State, Figures]:
    """State after the generator's step towards paths of equal lengths.

    Args:
      state: the state, as for `train_generator`.
      fakes: draws of `path_batch` images.
      direction: [B, H, W, 3], standard normal.
      problem: the problem, as for `train_generator`.
      axis_name: the mapped axis, as for `train_generator`.

    Returns:
      The state, and averages over the batch by name.
    """
    settings = problem.settings

    def loss(params: Any) -> tuple[jax.Array, Any]:
        network = Network(params, problem.generator)
        w_plus, mean_w = gan_draws.map_fakes(network, fakes)
        network = stylegan2.with_noise(network, fakes.noise)
        synthesize = functools.partial(stylegan2.synthesize, network)
        length = gan_terms.path_lengths(synthesize, w_plus, direction)
        penalty, path_mean = problem.path_penalty(
            length,
            state.path_mean,
            decay=settings.path_decay,
            average=_mean_over(axis_name),
        )
        value = settings.path_weight * jnp.mean(penalty)
        figures = {"path_penalty": jnp.mean(penalty), "path_length": jnp.mean(length)}
        return value * settings.path_interval, (figures, mean_w, path_mean)

    found = jax.grad(loss, has_aux=True)(state.generator)
    gradient, (figures, mean_w, path_mean) = found
    state = _descend_generator(state, gradient, mean_w, problem, axis_name)
    return state._replace(path_mean=path_mean), _mean_over(axis_name)(figures)


def train_discriminator(
    state: State,
    reals: Reals,
    fakes: Fakes,
    *,
    problem: Problem,
    augment: Augment | None = None,
    axis_name: str | None = None,
) -> tuple[State, Figures]:
    """State after the discriminator's step towards telling real images from others.

    Args:
      state: the state, as for `train_generator`.
      reals: real images.
      fakes: draws of generated images.
      problem: the problem, as for `train_generator`.
      augment: as for `train_generator`, for both kinds of images.
      axis_name: the mapped axis, as for `train_generator`.

    Returns:
      The state, and averages over the batch by name; "real_sign" is that of the signs
      of logits of real images.
    """
    image, mean_w = _generate(state.generator, fakes, problem)

    def loss(params: Any) -> tuple[jax.Array, Figures]:
        fake = _judge(params, image, fakes, problem, augment)
        real = _judge(params, reals.image, reals, problem, augment)
        value = jnp.mean(problem.loss_on_fakes(fake))
        value += jnp.mean(problem.loss_on_reals(real))
        return value, {
            "loss": value,
            "fake_logit": jnp.mean(fake),
            "real_logit": jnp.mean(real),
            "real_sign": jnp.mean(jnp.sign(real)),
        }

    gradient, figures = jax.grad(loss, has_aux=True)(state.discriminator)
    state = _descend_discriminator(state, gradient, problem, axis_name)
    return _track_w(state, mean_w, problem, axis_name), _mean_over(axis_name)(figures)


def regularize_discriminator(
    state: State,
    reals: Reals,
    *,
    problem: Problem,
    augment: Augment | None = None,
    axis_name: str | None = None,
) -> tuple[State, Figures]:
    """State after the discriminator's step towards small gradients by real images.

    Args:
      state: the state, as for `train_generator`.
      reals: real images.
      problem: the problem, as for `train_generator`.
      augment: as for `train_generator`; gradients are by the images before it.
      axis_name: the mapped axis, as for `train_generator`.

    Returns:
      The state, and averages over the batch by name.
    """
    settings = problem.settings

    def loss(params: Any) -> tuple[jax.Array, Figures]:
        def logits(image: spaces.Image) -> jax.Array:
            return _judge(params, image, reals, problem, augment)

        penalty, logit = problem.image_penalty(logits, reals.image)
        value = settings.r1_gamma / 2 * jnp.mean(penalty)
        return value * settings.r1_interval, {
            "r1_penalty": jnp.mean(penalty),
            "real_logit": jnp.mean(logit),
            "real_sign": jnp.mean(jnp.sign(logit)),
        }

    gradient, figures = jax.grad(loss, has_aux=True)(state.discriminator)
    state = _descend_discriminator(state, gradient, problem, axis_name)
    return state, _mean_over(axis_name)(figures)


# What each phase does: (state, batch, …) → state and figures.
PHASES: Mapping[str, Callable[..., tuple[State, Figures]]] = {
    GENERATOR: train_generator,
    PATHS: regularize_generator,
    DISCRIMINATOR: train_discriminator,
    R1: regularize_discriminator,
}


def average(state: State, batch_size: int, *, problem: Problem) -> State:
    """State at the end of a step of so many real images, of all devices together."""
    decay = problem.ema_decay(state.images, batch_size)

    def blend(path: Any, latest: jax.Array, averaged: jax.Array) -> jax.Array:
        if path[-1].key in _BUFFERS:
            return latest if problem.copies_buffers else averaged
        return latest + decay * (averaged - latest)

    averaged = jax.tree.map_with_path(blend, state.generator, state.averaged)
    return state._replace(images=state.images + batch_size, averaged=averaged)


def ema_decay(
    images: jax.Array, batch_size: int, *, settings: GanTrainingConfig
) -> jax.Array:
    """Share that averaged weights keep: ½ after `ema_images`, or as many as ramped up.

    Parity: rosinality's decay is that of a batch of 32, whatever the batch.
    """
    if settings.recipe == "rosinality":
        batch_size = 32
    half_life = jnp.asarray(settings.ema_images)
    if settings.ema_ramp_up is not None:
        half_life = jnp.minimum(half_life, images * settings.ema_ramp_up)
    return 0.5 ** (batch_size / jnp.maximum(half_life, 1e-8))


def path_batch(batch_size: int, *, problem: Problem) -> int:
    """Number of images whose path lengths are taken."""
    return max(1, batch_size // problem.settings.path_batch_shrink)


def _generate(
    params: Any, fakes: Fakes, problem: Problem
) -> tuple[spaces.Image, jax.Array]:
    """Images of draws, and the mean of their w."""
    network = Network(params, problem.generator)
    w_plus, mean_w = gan_draws.map_fakes(network, fakes)
    network = stylegan2.with_noise(network, fakes.noise)
    return stylegan2.synthesize(network, w_plus), mean_w


def _judge(
    params: Any,
    image: spaces.Image,
    batch: Reals | Fakes,
    problem: Problem,
    augment: Augment | None,
) -> jax.Array:
    """Logits of the augmented images of a batch."""
    if augment is not None:
        image = augment(image, batch.augment)
    network = Network(params, problem.discriminator)
    return discriminator.logits(network, image, batch.label)


def _mean_over(axis_name: str | None) -> Callable[[Any], Any]:
    """Mean over devices of what each has."""
    if axis_name is None:
        return lambda x: x
    return functools.partial(lax.pmean, axis_name=axis_name)


def _descend(
    optimizer: optax.GradientTransformation,
    gradient: Any,
    moments: Any,
    params: Any,
    axis_name: str | None,
) -> tuple[Any, Any]:
    """Parameters after a step of an optimizer, and its state.

    Parity: gradients that are not finite become zero, or large.
    """
    gradient = jax.tree.map(
        lambda x: jnp.nan_to_num(x, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST),
        _mean_over(axis_name)(gradient),
    )
    updates, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, updates), moments


def _descend_generator(
    state: State,
    gradient: Any,
    mean_w: jax.Array,
    problem: Problem,
    axis_name: str | None,
) -> State:
    params, moments = _descend(
        problem.generator_optimizer,
        gradient,
        state.generator_optimizer,
        state.generator,
        axis_name,
    )
    state = state._replace(generator=params, generator_optimizer=moments)
    return _track_w(state, mean_w, problem, axis_name)


def _descend_discriminator(
    state: State, gradient: Any, problem: Problem, axis_name: str | None
) -> State:
    params, moments = _descend(
        problem.discriminator_optimizer,
        gradient,
        state.discriminator_optimizer,
        state.discriminator,
        axis_name,
    )
    return state._replace(discriminator=params, discriminator_optimizer=moments)


def _track_w(
    state: State, mean_w: jax.Array, problem: Problem, axis_name: str | None
) -> State:
    """State whose average of w has moved to that of a batch."""
    if not problem.tracks_w:
        return state
    mean_w = _mean_over(axis_name)(mean_w)
    mapping = state.generator["mapping"]
    w_avg = mean_w + problem.settings.w_avg_decay * (mapping["w_avg"] - mean_w)
    params = {**state.generator, "mapping": {**mapping, "w_avg": w_avg}}
    return state._replace(generator=params)
