"""Inversion of photos: refine a latent until its image is a given photo.

It is the latent optimization of `methods/optimization.py` with another source: the
source's image is the photo, in place of the text stand CLIP's features of the photo,
and the latent is held near where it starts. Written for a single photo:

  run = functools.partial(invert, config=config)
  result = jax.jit(jax.vmap(run, in_axes=(None, 0)))(networks, photos)

Without a latent to start from there are two phases, first in W from the average latent,
then in W+ from where the first ended.
"""

import functools
from typing import Any, NamedTuple

import jax
import optax

from styleclip_jax import latents, losses, optimizers, spaces
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip, clip_input, generators
from styleclip_jax.ops import norms
from styleclip_jax.settings.photos import InversionConfig


class Phases(NamedTuple):
    """Phases of an inversion: the optimization in W, and the one in W+."""

    w: optimization.Problem
    w_plus: optimization.Problem


def _synthesize_w(generator: generators.Generator, w: jax.Array) -> jax.Array:
    w_plus = spaces.broadcast_w(w, generator.config.num_rows)
    return generators.synthesize(generator, w_plus)


_W = latents.Space(synthesize=_synthesize_w, movable=lambda generator: True)


def phases(config: InversionConfig) -> Phases:
    """Problems of both phases: Adam with the official ramps of the learning rate."""
    terms: dict[str, tuple[float, losses.Loss]] = {
        "pixel": (config.pixel_lambda, losses.pixel_distance),
        "clip": (
            config.clip_lambda,
            functools.partial(
                losses.clip_distance, preprocess=clip_input.preprocess_clip
            ),
        ),
        "identity": (config.id_lambda, losses.identity_distance),
        "l2": (config.l2_lambda, losses.latent_mean_squares),
    }

    def problem(space: latents.Space, steps: int) -> optimization.Problem:
        return optimization.Problem(
            space=space,
            objective={name: term for name, term in terms.items() if term[0]},
            optimizer=optax.adam(optimizers.ramped(config.learning_rate, steps)),
            steps=steps,
        )

    return Phases(
        problem(_W, config.w_steps),
        problem(latents.SPACES["w_plus"], config.refine_steps),
    )


def invert(
    networks: losses.Networks,
    photo: jax.Array,
    w_plus: jax.Array | None = None,
    *,
    config: InversionConfig,
) -> optimization.Result:
    """Latent of one photo, with its image and losses.

    Args:
      networks: generator, CLIP, and the identity network where it has a weight.
      photo: [H, W, 3] in [-1, 1], of the generator's size and alignment.
      w_plus: [L, D] to start from, such as an encoder's; None for the average latent.
      config: steps and weights.

    Returns:
      The latent in W+ with its image and losses, whose source is the photo; of the
      last phase, except that `failed_at` tells of both.

    Raises:
      ValueError: the photo does not fit the generator, or a network is missing.
    """

    def run(state: optimization.State, problem: optimization.Problem) -> Any:
        if not problem.steps:
            return state
        step = functools.partial(optimization.step, problem=problem)
        return jax.lax.fori_loop(
            0, problem.steps, lambda _, s: step(networks, s), state
        )

    first, second = phases(config)
    if w_plus is None:
        state = start(networks, photo, average(networks.generator), problem=first)
        state = widen(networks, run(state, first), problem=second)
    else:
        state = start(networks, photo, w_plus, problem=second)
    return optimization.finish(networks, run(state, second), problem=second)


def average(generator: generators.Generator) -> jax.Array:
    """Average latent, [D] in W."""
    return generator.params["mapping"]["w_avg"]


def start(
    networks: losses.Networks,
    photo: jax.Array,
    latent: jax.Array,
    *,
    problem: optimization.Problem,
) -> optimization.State:
    """State before the first step of a phase, which `optimization.step` takes on.

    Args:
      networks: generator, CLIP, and the identity network where it has a weight.
      photo: [H, W, 3] in [-1, 1], of the generator's size and alignment.
      latent: start of the phase, [D] in W or [L, D] in W+.
      problem: the phase.

    Raises:
      ValueError: the photo does not fit the generator.
    """
    networks.generator.config.expect_image("photo", photo)
    target = losses.describe_source(networks, latent[None], photo[None])
    seen = clip_input.preprocess_clip(networks.clip, target.image)
    features = clip.encode_image(networks.clip, seen)
    state = optimization.start(
        networks, latent, norms.unit(features)[0], problem=problem
    )
    source = jax.tree.map(lambda x: x[0], target)
    return state._replace(source=source)


def widen(
    networks: losses.Networks,
    state: optimization.State,
    *,
    problem: optimization.Problem,
) -> optimization.State:
    """State before the first step in W+, from the last one in W."""
    w_plus = spaces.broadcast_w(state.latent, networks.generator.config.num_rows)
    wide = optimization.start(networks, w_plus, state.text, problem=problem)
    source = state.source._replace(latent=w_plus)
    return wide._replace(source=source, failed_at=state.failed_at)
