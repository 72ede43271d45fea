"""Pivotal tuning: the generator's weights are tuned until a latent makes a photo.

Roich et al. 2021, "Pivotal Tuning for Latent-based Editing of Real Images". The latent,
the pivot, stays; what moves is the synthesis. Written for a single photo:

  run = functools.partial(tune, config=config)
  result = jax.vmap(run, in_axes=(None, 0, 0, None))(networks, photos, pivots, key)

The locality regularization draws codes, and holds the images near the pivot, in their
directions, to what the generator made before. Maps of noise can move beside the
weights, which the official code leaves as they are.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from styleclip_jax import optimizers, spaces
from styleclip_jax.methods import perception
from styleclip_jax.methods.projection import Networks
from styleclip_jax.models import generators, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.settings.latents import Noise
from styleclip_jax.settings.tuning import TuningConfig

# Parity: truncation of the codes of the locality regularization.
_LOCALITY_PSI = 0.5
# The official learning rate.
_RATE = 3e-4
# Strength of the noise of layers that have none, where their maps are to be tuned.
_STRENGTH = 0.01
# Ends of the flat names of maps of noise, and of their strengths.
_MAP, _STRENGTHS = "noise_const", "noise_strength"


class State(NamedTuple):
    """State of a tuning; every leaf has a leading batch axis under vmap.

    Attributes:
      step: number of steps done.
      weights: those of the synthesis, with its maps of noise; the mapping stays.
      optimizer: state of Adam.
      photo: [H, W, 3] in [-1, 1].
      vector: [N] its perception, None without a network.
      pivot: [L, D] in W+.
      key: PRNG key of the locality regularization.
      history: {term: [steps]}, the value before each step, NaN for those not taken.
      is_done: whether the photo is near enough; then the weights stay.
      failed_at: first step whose loss or gradient was not finite, -1 for none. From
        then on the weights stay.
    """

    step: jax.Array
    weights: Any
    optimizer: Any
    photo: jax.Array
    vector: jax.Array | None
    pivot: jax.Array
    key: jax.Array
    history: dict[str, jax.Array]
    is_done: jax.Array
    failed_at: jax.Array


class Result(NamedTuple):
    """Result of a tuning.

    Attributes:
      weights: those of the synthesis.
      image: [H, W, 3] of the pivot by them.
      num_steps: number of steps that were taken.
      history: {term: [steps]}, the value before each step.
      failed_at: first step whose loss or gradient was not finite, -1 for none.
    """

    weights: Any
    image: jax.Array
    num_steps: jax.Array
    history: dict[str, jax.Array]
    failed_at: jax.Array


def tune(
    networks: Networks,
    photo: jax.Array,
    pivot: jax.Array,
    key: jax.Array,
    *,
    config: TuningConfig,
) -> Result:
    """Weights of the synthesis for one photo.

    Args:
      networks: generator and perception.
      photo: [H, W, 3] in [-1, 1], of the generator's size.
      pivot: [L, D] in W+, whose image is near the photo.
      key: PRNG key of the locality regularization.
      config: steps and weights.

    Raises:
      ValueError: the photo does not fit the generator.

    Source: `single_id_coach.py` of the official code.
    """
    one = functools.partial(step, networks, config=config)
    state = start(networks, photo, pivot, key, config=config)
    state = jax.lax.fori_loop(0, config.tune_steps, lambda _, s: one(s), state)
    return finish(networks, state)


def start(
    networks: Networks,
    photo: jax.Array,
    pivot: jax.Array,
    key: jax.Array,
    *,
    config: TuningConfig,
) -> State:
    """State before the first step; arguments as of `tune`."""
    generator = networks.generator
    generator.config.expect_image("photo", photo)
    weights = generator.params["synthesis"]
    if config.tune_noise_rate:
        weights = _with_maps(weights)
    look = networks.perception
    empty = jnp.full((config.tune_steps,), jnp.nan, jnp.float32)
    terms = ["total", "l2"] + ["lpips"] * (look is not None)
    terms += ["l1"] * bool(config.tune_l1_lambda)
    terms += ["locality"] * bool(config.locality_lambda)
    return State(
        step=jnp.zeros((), jnp.int32),
        weights=weights,
        optimizer=_adam(config).init(weights),
        photo=photo,
        vector=None if look is None else look(photo[None])[0],
        pivot=pivot,
        key=key,
        history=dict.fromkeys(terms, empty),
        is_done=jnp.zeros((), bool),
        failed_at=jnp.full((), -1, jnp.int32),
    )


def step(
    networks: Networks,
    state: State,
    z: jax.Array | None = None,
    *,
    config: TuningConfig,
) -> State:
    """State after one more step, the same once the photo is near enough.

    Args:
      networks: generator and perception.
      state: state so far.
      z: [n, D] codes of the locality regularization; drawn if absent.
      config: steps and weights.
    """

    over = state.is_done | (state.failed_at >= 0)
    after = _advance(networks, state, z, config)
    # A condition is no quicker over a batch, and XLA's convolutions in one are slow.
    return jax.tree.map(lambda old, new: jnp.where(over, old, new), state, after)


def finish(networks: Networks, state: State) -> Result:
    """Result of a state that has taken all its steps."""
    image = _synthesize(networks.generator, state.weights, state.pivot)
    about: Any = (state.step, state.history, state.failed_at)
    return Result(state.weights, image, *about)


def with_synthesis(generator: generators.Generator, weights: Any) -> Network:
    """A generator with other weights of its synthesis."""
    params = {**generator.params, "synthesis": weights}
    return Network(params, generator.config)


def locality(
    networks: Networks,
    weights: Any,
    pivot: jax.Array,
    z: jax.Array,
    *,
    config: TuningConfig,
) -> jax.Array:
    """Mean distance [] to the images that the generator made near the pivot.

    With w of the codes z, truncated, and the pivot p,

      c = p + α (w − p) / |w − p|,    d = |G(c) − G'(c)|² / pixels + LPIPS(G(c), G'(c)),

    the length over all rows of W+, and without noise.

    Source: `localitly_regulizer.py` of the official code.
    """
    generator = networks.generator
    config_ = generator.config
    w_avg = generator.params["mapping"]["w_avg"]
    label = jnp.zeros((len(z), config_.c_dim)) if config_.c_dim else None
    w = generators.map_latents(generator, z, label)
    w_plus = spaces.broadcast_w(w_avg + _LOCALITY_PSI * (w - w_avg), config_.num_rows)
    away = w_plus - pivot
    length = jnp.sqrt(jnp.sum(jnp.square(away), axis=(1, 2), keepdims=True))
    codes = pivot + config.locality_alpha * away / length
    old = jax.lax.stop_gradient(generators.synthesize(generator, codes, noise="none"))
    tuned = with_synthesis(generator, weights)
    new = generators.synthesize(tuned, codes, noise="none")
    found = jnp.mean(jnp.square(old - new), axis=(1, 2, 3))
    if networks.perception is not None:
        seen = (networks.perception(old), networks.perception(new))
        found += perception.distance(*seen)
    return jnp.mean(found)


def _advance(
    networks: Networks, state: State, z: jax.Array | None, config: TuningConfig
) -> State:
    """State after a step, unless the photo is near enough before it."""
    loss = functools.partial(_loss, networks, state, z=z, config=config)
    (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.weights)
    failed_at = optimizers.first_failure(state.failed_at, state.step, gradient, total)
    is_done = jnp.zeros((), bool)
    if "lpips" in terms and config.tune_threshold is not None:
        # Parity: the image that passes is the final one.
        is_done = terms["lpips"] <= config.tune_threshold
    updates, optimizer = _adam(config).update(gradient, state.optimizer)
    moved = optax.apply_updates(state.weights, updates)
    stays = is_done | (failed_at >= 0)
    history = optimizers.record(state.history, state.step, terms)
    return state._replace(
        step=state.step + ~stays,
        weights=jax.tree.map(
            lambda new, old: jnp.where(stays, old, new), moved, state.weights
        ),
        optimizer=optimizer,
        history=history,
        is_done=is_done,
        failed_at=failed_at,
    )


def _loss(
    networks: Networks,
    state: State,
    weights: Any,
    *,
    z: jax.Array | None,
    config: TuningConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Total loss of weights, and each term with "total"."""
    noise: Noise = "moving" if config.tune_noise_rate else "const"
    image = _synthesize(networks.generator, weights, state.pivot, noise)
    away = image - state.photo
    terms = {"l2": jnp.mean(jnp.square(away))}
    total = config.tune_l2_lambda * terms["l2"]
    if config.tune_l1_lambda:
        terms["l1"] = jnp.mean(jnp.abs(away))
        total += config.tune_l1_lambda * terms["l1"]
    if networks.perception is not None and state.vector is not None:
        seen = networks.perception(image[None])[0]
        terms["lpips"] = perception.distance(seen, state.vector)
        total += config.tune_lpips_lambda * terms["lpips"]
    if config.locality_lambda:
        term = _locality_at(networks, state, weights, z, config)
        terms["locality"] = config.locality_lambda * term
        total += terms["locality"]
    return total, {"total": total, **terms}


def _locality_at(
    networks: Networks,
    state: State,
    weights: Any,
    z: jax.Array | None,
    config: TuningConfig,
) -> jax.Array:
    """Locality term of a step, 0 in those between looks."""
    if z is None:
        shape = (config.locality_samples, networks.generator.config.z_dim)
        z = jax.random.normal(jax.random.fold_in(state.key, state.step), shape)
    look = functools.partial(locality, networks, pivot=state.pivot, config=config)
    if config.locality_interval == 1:
        return look(weights, z=z)
    # Parity: the first step has one, and then each that follows a multiple.
    looks = (state.step == 0) | ((state.step - 1) % config.locality_interval == 0)
    return jax.lax.cond(looks, lambda w: look(w, z=z), lambda _: jnp.zeros(()), weights)


def _synthesize(
    generator: generators.Generator,
    weights: Any,
    pivot: jax.Array,
    noise: Noise = "const",
) -> jax.Array:
    """Image [H, W, 3] of a pivot [L, D] by weights of the synthesis."""
    tuned = with_synthesis(generator, weights)
    return generators.synthesize(tuned, pivot[None], noise=noise)[0]


def _with_maps(weights: Any) -> Any:
    """Weights of the same images, in which maps of noise count in every layer.

    Where the strength is 0 they had no effect, nor has a map of zeros.
    """
    flat = param_trees.flatten(weights)
    for name in [name for name in flat if name.endswith(_MAP)]:
        strength = name.removesuffix(_MAP) + _STRENGTHS
        is_off = flat[strength] == 0
        flat[name] = jnp.where(is_off, 0, flat[name])
        flat[strength] = jnp.where(is_off, _STRENGTH, flat[strength])
    return param_trees.unflatten(flat)


def _adam(config: TuningConfig) -> optax.GradientTransformation:
    rate = _RATE if config.tune_rate is None else config.tune_rate
    if not config.tune_noise_rate:
        return _ramped_adam(rate, config)
    parts = {
        "weights": _ramped_adam(rate, config),
        "maps": _ramped_adam(config.tune_noise_rate, config),
        # Maps have any size, and need no second factor.
        "strengths": optax.set_to_zero(),
    }
    return optax.multi_transform(parts, _parts)


def _parts(weights: Any) -> Any:
    """Which part of `_adam` moves each of the weights."""
    kinds = {_MAP: "maps", _STRENGTHS: "strengths"}
    return param_trees.unflatten(
        {
            name: kinds.get(name.rpartition("/")[-1], "weights")
            for name in param_trees.flatten(weights)
        }
    )


def _ramped_adam(rate: float, config: TuningConfig) -> optax.GradientTransformation:
    ramps = (config.tune_ramp_up, config.tune_ramp_down)
    return optax.adam(optimizers.ramped(rate, max(config.tune_steps, 1), *ramps))
