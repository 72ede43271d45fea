"""Projection of photos: a latent and noise maps whose image looks like a photo.

It is the optimization of Karras et al. 2020, appendix D, written for a single photo:

  run = functools.partial(project, config=config)
  result = jax.jit(jax.vmap(run, in_axes=(None, 0, None)))(networks, photos, key)

The latent starts at the average of w, or at a given one. It is jittered by noise that
fades, so that early steps look around. The maps of noise are moved as well, held white
by a term and normalised after each step. Phases follow each other: W, then W+.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from styleclip_jax import optimizers, spaces
from styleclip_jax.methods import perception
from styleclip_jax.methods.perception import Perception
from styleclip_jax.models import generators
from styleclip_jax.settings.projection import ProjectionConfig

# Parity: as many samples of this seed tell the average of w and its spread.
_NUM_SAMPLES, _SEED = 10_000, 123
# Size of a map of noise at which its pyramid ends.
_SMALLEST = 8


@struct.dataclass
class Networks:
    """Networks of a projection.

    Attributes:
      generator: the generator.
      perception: perception that compares images, None where its weight is 0.
    """

    generator: generators.Generator
    perception: Perception | None


class Moving(NamedTuple):
    """What moves: the latent, [D] in W or [L, D] in W+, and noise [h, w] by layer."""

    latent: jax.Array
    noise: Mapping[str, jax.Array]


class Target(NamedTuple):
    """Photo of a projection, with what stays the same.

    Attributes:
      image: [H, W, 3] in [-1, 1].
      vector: [N] its perception; None without a network.
      spread: [] deviation of w.
      key: PRNG key of the jitter.
    """

    image: jax.Array
    vector: jax.Array | None
    spread: jax.Array
    key: jax.Array


class State(NamedTuple):
    """State of a phase; every leaf has a leading batch axis under vmap.

    Attributes:
      step: number of steps done.
      moving: what moves.
      optimizer: state of Adam.
      target: the photo.
      history: {term: [steps]}, the value before each step.
      failed_at: first step whose loss or gradient was not finite, -1 for none.
    """

    step: jax.Array
    moving: Moving
    optimizer: Any
    target: Target
    history: dict[str, jax.Array]
    failed_at: jax.Array


class Result(NamedTuple):
    """Result of a projection.

    Attributes:
      latent: [L, D] in W+.
      image: [H, W, 3], with the noise.
      terms: {term: []} of this image, "total" the weighted sum.
      noise: [h, w] by layer.
      history: {term: [steps]} of the last phase, before each step.
      failed_at: first step whose loss or gradient was not finite, -1 for none.
    """

    latent: jax.Array
    image: jax.Array
    terms: dict[str, jax.Array]
    noise: Mapping[str, jax.Array]
    history: dict[str, jax.Array]
    failed_at: jax.Array


class Statistics(NamedTuple):
    """Statistics of w: the mean [D], and the deviation [] over all features."""

    mean: jax.Array
    spread: jax.Array


def statistics(generator: generators.Generator) -> Statistics:
    """Statistics of w over the official samples; of no class where there are some."""
    config = generator.config
    random = np.random.RandomState(_SEED)
    z = random.randn(_NUM_SAMPLES, config.z_dim).astype(np.float32)
    label = jnp.zeros((len(z), config.c_dim)) if config.c_dim else None
    w = generators.map_latents(generator, jnp.asarray(z), label)
    mean = jnp.mean(w, axis=0)
    # Parity: squares are added over the features, not averaged.
    return Statistics(mean, jnp.sqrt(jnp.sum(jnp.square(w - mean)) / len(w)))


def project(
    networks: Networks,
    photo: jax.Array,
    key: jax.Array,
    w_plus: jax.Array | None = None,
    *,
    config: ProjectionConfig,
) -> Result:
    """Latent and noise of one photo.

    Args:
      networks: generator and perception.
      photo: [H, W, 3] in [-1, 1], of the generator's size.
      key: PRNG key of the jitter, and of the noise at the start.
      w_plus: [L, D] to start from in W+; None to go from the average of w through W.
      config: steps, weights, jitter and rate.

    Raises:
      ValueError: the photo does not fit the generator.

    Source: `projector.py` of stylegan2-ada-pytorch, which has 1,000 steps in W and none
    in W+.
    """

    def run(state: State, steps: int) -> State:
        one = functools.partial(step, config=config, steps=steps)
        return jax.lax.fori_loop(0, steps, lambda _, s: one(networks, s), state)

    found = statistics(networks.generator)
    begin = functools.partial(start, networks, photo, key, found, config=config)
    if w_plus is not None:
        state = begin(w_plus, steps=config.refine_steps)
    else:
        state = run(begin(found.mean, steps=config.w_steps), config.w_steps)
        if config.refine_steps:
            state = widen(networks, state, config=config)
    return finish(networks, run(state, config.refine_steps), config=config)


def start(
    networks: Networks,
    photo: jax.Array,
    key: jax.Array,
    known: Statistics,
    latent: jax.Array,
    *,
    config: ProjectionConfig,
    steps: int,
) -> State:
    """State before the first step of the first phase.

    Args:
      networks: generator and perception.
      photo: [H, W, 3] in [-1, 1].
      key: PRNG key of the jitter and the noise.
      known: statistics of w.
      latent: [D] in W or [L, D] in W+.
      config: weights, jitter and rate.
      steps: number of steps of the phase.

    Raises:
      ValueError: the photo does not fit the generator.
    """
    networks.generator.config.expect_image("photo", photo)
    shapes = networks.generator.config.noise_shapes
    jitter, *keys = jax.random.split(key, 1 + len(shapes))
    noise = {}
    if config.noise_lambda:
        pairs = zip(shapes.items(), keys, strict=True)
        noise = {layer: jax.random.normal(k, shape) for (layer, shape), k in pairs}
    seen = networks.perception
    vector = None if seen is None else seen(photo[None])[0]
    target = Target(photo, vector, known.spread, jitter)
    return _begin(Moving(latent, noise), target, config, steps)


def widen(networks: Networks, state: State, *, config: ProjectionConfig) -> State:
    """State before the first step in W+, from the last one in W."""
    moving, target = state.moving, state.target
    latent = spaces.broadcast_w(moving.latent, networks.generator.config.num_rows)
    target = target._replace(key=jax.random.fold_in(target.key, 1))
    wide = _begin(moving._replace(latent=latent), target, config, config.refine_steps)
    return wide._replace(failed_at=state.failed_at)


def step(
    networks: Networks, state: State, *, config: ProjectionConfig, steps: int
) -> State:
    """State after one more step of a phase of so many."""
    key = jax.random.fold_in(state.target.key, state.step)
    fading = jnp.maximum(0, 1 - state.step / steps / config.jitter_ramp)
    scale = state.target.spread * config.w_jitter * jnp.square(fading)
    jitter = scale * jax.random.normal(key, state.moving.latent.shape)

    def loss(moving: Moving) -> tuple[jax.Array, dict[str, jax.Array]]:
        jittered = moving._replace(latent=moving.latent + jitter)
        terms, _ = _terms(networks, jittered, state.target, config)
        return terms["total"], terms

    (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.moving)
    failed_at = optimizers.first_failure(state.failed_at, state.step, gradient, total)
    updates, optimizer = _adam(config, steps).update(gradient, state.optimizer)
    moved = optax.apply_updates(state.moving, updates)
    moved = moved._replace(noise=jax.tree.map(normalise, moved.noise))
    moving = jax.tree.map(
        lambda new, old: jnp.where(failed_at < 0, new, old), moved, state.moving
    )
    history = optimizers.record(state.history, state.step, terms)
    about: Any = (state.target, history, failed_at)
    return State(state.step + 1, moving, optimizer, *about)


def finish(networks: Networks, state: State, *, config: ProjectionConfig) -> Result:
    """Result of a state that has taken all its steps, without jitter."""
    terms, image = _terms(networks, state.moving, state.target, config)
    latent = _rows(networks.generator, state.moving.latent)
    noise = state.moving.noise
    return Result(latent, image, terms, noise, state.history, state.failed_at)


def correlation(noise: jax.Array) -> jax.Array:
    """Correlation [] of neighbours in a map of noise [h, w], at all its sizes.

    With the map n and its halvings, by means of 2×2 pixels, down to 8²,

      Σ ⟨n · shift_x n⟩² + ⟨n · shift_y n⟩².
    """
    total = jnp.zeros(())
    for level in _pyramid(noise):
        for axis in (0, 1):
            total += jnp.square(jnp.mean(level * jnp.roll(level, 1, axis)))
    return total


def normalise(noise: jax.Array) -> jax.Array:
    """Map of noise with mean 0 and deviation 1."""
    centred = noise - jnp.mean(noise)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred)))


def _pyramid(noise: jax.Array) -> Iterator[jax.Array]:
    """A map of noise, and its halvings down to 8²."""
    yield noise
    while min(noise.shape) > _SMALLEST:
        height, width = noise.shape
        blocks = noise.reshape(height // 2, 2, width // 2, 2)
        noise = jnp.mean(blocks, axis=(1, 3))
        yield noise


def _begin(
    moving: Moving, target: Target, config: ProjectionConfig, steps: int
) -> State:
    """State before the first step of a phase."""
    empty = jnp.full((steps,), jnp.nan, jnp.float32)
    return State(
        step=jnp.zeros((), jnp.int32),
        moving=moving,
        optimizer=_adam(config, steps).init(moving),
        target=target,
        history=dict.fromkeys(_weights(config), empty) | {"total": empty},
        failed_at=jnp.full((), -1, jnp.int32),
    )


def _adam(config: ProjectionConfig, steps: int) -> optax.GradientTransformation:
    return optax.adam(optimizers.ramped(config.learning_rate, max(steps, 1)))


def _weights(config: ProjectionConfig) -> dict[str, float]:
    """Weights of the terms that have one."""
    weights = {
        "perceptual": config.perceptual_lambda,
        "mse": config.mse_lambda,
        "noise": config.noise_lambda,
    }
    return {name: weight for name, weight in weights.items() if weight}


def _rows(generator: generators.Generator, latent: jax.Array) -> jax.Array:
    """Latent as W+ [L, D]."""
    if latent.ndim == 2:
        return latent
    return spaces.broadcast_w(latent, generator.config.num_rows)


def _terms(
    networks: Networks, moving: Moving, target: Target, config: ProjectionConfig
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Each term with "total", and the image."""
    generator = generators.with_noise(networks.generator, moving.noise)
    w_plus = _rows(generator, moving.latent)[None]
    image = generators.synthesize(generator, w_plus, noise="moving")
    weights, terms = _weights(config), {}
    if "perceptual" in weights:
        if networks.perception is None or target.vector is None:
            raise ValueError("perceptual_lambda needs a perceptual network, found none")
        seen = networks.perception(image)[0]
        terms["perceptual"] = perception.distance(seen, target.vector)
    if "mse" in weights:
        terms["mse"] = jnp.mean(jnp.square(image[0] - target.image))
    if "noise" in weights:
        parts = [correlation(x) for x in moving.noise.values()]
        terms["noise"] = jnp.sum(jnp.stack(parts))
    total = sum(weights[name] * term for name, term in terms.items())
    return {**terms, "total": jnp.asarray(total)}, image[0]
