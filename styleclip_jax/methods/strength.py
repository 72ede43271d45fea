"""Strength of an edit, found for each latent along the step of any method.

How far a step has to go, and which of its parts help, differs from latent to latent.
Both are read off pictures of random samples, without any label. With f the unit CLIP
feature of an image, t that of the text, and Σ the covariance of the samples' features,

  fit(f)    = (⟨f, t⟩ − typical) / (best − typical)
  change(f) = |P Σ^(-1/2) (f − f₀)| / √(2E)

where `typical` is the median of the samples' similarities to the text, `best` that of
those which fit it best, and P leaves out what changes the fit. A change of 1 is as much
as between two random samples. `search` then

  1. makes the step shorter or longer until the fit is reached,
  2. drops the parts of the step that take away from fit − change² half-way along,
  3. makes what is left shorter or longer, in finer steps.

Of all that it has seen it gives that of the largest fit − 0.3 change², where more fit
than is asked for does not count. A latent that shows the text already stays as it is.
It takes as many passes of the generator as `passes` says.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from styleclip_jax import latents, losses
from styleclip_jax.models import clip_input
from styleclip_jax.ops import norms, products
from styleclip_jax.settings.edits import SearchConfig

# Factors that strengths are multiplied or divided by, one after the other: before the
# parts that do not help are dropped, and after.
_COARSE = (2.0, 1.5)
_FINE = (1.5, 1.25, 1.12)
# Number of samples that fit a text best, and fit of those that show it as well.
_NUM_BEST, _FITTING = 4, 0.9
# Weights of the squared change elsewhere beside the fit: where parts of the step are
# dropped, and where an edit is chosen.
_DROPPING, _CHOOSING = 1.0, 0.3
# Share of the mean variance that is added to each, so that small ones do not count
# without bounds.
_RIDGE = 0.1
# Settings where none are given.
_USUAL = SearchConfig()
# Passes that a pass and its derivative take together.
_DERIVATIVE = 3


@struct.dataclass
class Aim:
    """Aim of a search: a text, and what pictures of the generator say about it.

    Attributes:
      text: [E] unit CLIP feature of the text.
      typical: [] median similarity of random samples to the text.
      best: [] similarity of the samples that fit it best.
      elsewhere: [E, E] matrix from a difference of features to the change elsewhere.
    """

    text: jax.Array
    typical: jax.Array
    best: jax.Array
    elsewhere: jax.Array


class Found(NamedTuple):
    """Edits that a search has found.

    Attributes:
      latent: edited latents, of the shape of the source's.
      image: [B, H, W, 3] their images.
      strength: [B] factor of the step; 0 for latents that stay.
      fit: [B] fit with the text; 1 is that of the best samples.
      change: [B] change elsewhere; 1 is as much as between two random samples.
      kept: [B] share of the step's numbers that were kept.
    """

    latent: Any
    image: jax.Array
    strength: jax.Array
    fit: jax.Array
    change: jax.Array
    kept: jax.Array


def features(networks: losses.Networks, image: jax.Array) -> jax.Array:
    """Unit CLIP features [B, E] of images, preprocessed as CLIP was trained."""
    preprocess = clip_input.preprocess_clip
    return losses.image_features(networks.clip, image, preprocess=preprocess)


def aim_at(samples: jax.Array, text: jax.Array) -> Aim:
    """Aim at a text.

    Args:
      samples: [N, E] unit CLIP features of random samples' images.
      text: [E] unit CLIP feature of the text.
    """
    product = functools.partial(jnp.matmul, precision=products.EXACT)
    similarity, size = product(samples, text), len(text)
    # Scaled to a mean variance of 1.
    centred = samples - jnp.mean(samples, axis=0)
    scale = jnp.sqrt(jnp.mean(jnp.square(centred)))
    scaled = centred / (scale * jnp.sqrt(len(samples)))
    root = jnp.linalg.cholesky(product(scaled.T, scaled) + _RIDGE * jnp.eye(size))
    whiten = jnp.linalg.inv(root).T / (scale * jnp.sqrt(2.0 * size))
    # In whitened features the similarity grows along rootᵀ t.
    along = norms.unit(product(root.T, text))
    return Aim(
        text=text,
        typical=jnp.median(similarity),
        best=jnp.mean(jnp.sort(similarity)[-_NUM_BEST:]),
        elsewhere=whiten - jnp.outer(product(whiten, along), along),
    )


def passes() -> int:
    """Passes of the generator that `search` takes for each latent."""
    return 1 + (len(_COARSE) + 1) + _DERIVATIVE + (len(_FINE) + 1)


def search(
    networks: losses.Networks,
    space: latents.Space,
    latent: Any,
    step: Any,
    aim: Aim,
    config: SearchConfig = _USUAL,
) -> Found:
    """Searches the strength of a step for each latent, and the parts of it that help.

    Args:
      networks: `generator` and `clip` are used.
      space: space of the latents.
      latent: [B, L, D] W+, or a tuple of [B, C] styles.
      step: step Δ of the same shapes, at the strength to begin with.
      aim: aim of the search.
      config: fit to reach, and largest change elsewhere.
    """

    def see(step: Any, strength: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        moved = move(latent, step, strength)
        image = space.synthesize(networks.generator, moved)
        return moved, image, features(networks, image)

    zero = jnp.zeros(jax.tree.leaves(latent)[0].shape[:1])
    _, image, before = see(step, zero)

    def measure(feature: jax.Array) -> tuple[jax.Array, jax.Array]:
        similarity = jnp.matmul(feature, aim.text, precision=products.EXACT)
        fit = (similarity - aim.typical) / (aim.best - aim.typical)
        moved = jnp.matmul(feature - before, aim.elsewhere, precision=products.EXACT)
        return fit, jnp.sum(jnp.square(moved), axis=-1)

    def judge(step: Any, strength: jax.Array, kept: jax.Array) -> Found:
        moved, image, feature = see(step, strength)
        fit, squared = measure(feature)
        return Found(moved, image, strength, fit, jnp.sqrt(squared), kept)

    def bracket(
        best: Found, step: Any, strength: jax.Array, kept: jax.Array, factors: Any
    ) -> Found:
        def try_next(state: Any, factor: jax.Array) -> tuple[Any, None]:
            best, strength = state
            found = judge(step, strength, kept)
            enough = (found.fit >= config.reach) | (found.change > config.budget)
            following = strength * jnp.where(enough, 1 / factor, factor)
            return (_better(best, found, config), following), None

        steps = jnp.asarray((*factors, 1.0))
        return jax.lax.scan(try_next, (best, strength), steps)[0][0]

    def gain(half: Any) -> jax.Array:
        feature = features(networks, space.synthesize(networks.generator, half))
        fit, squared = measure(feature)
        return jnp.sum(fit - _DROPPING * squared)

    stay = Found(latent, image, zero, measure(before)[0], zero, zero)
    coarse = bracket(stay, step, zero + 1, zero + 1, _COARSE)
    slope = jax.grad(gain)(move(latent, step, coarse.strength / 2))
    helping = jax.tree.map(lambda d, g: jnp.where(d * g > 0, d, 0), step, slope)
    kept = _count(helping) / jnp.maximum(_count(step), 1)
    found = bracket(stay, helping, coarse.strength, kept, _FINE)
    return _choose(stay.fit >= _FITTING, stay, found)


def move(latent: Any, step: Any, strength: jax.Array) -> Any:
    """Latents [B, …] moved by a step times a strength [B]; 0 gives the same bits."""

    def moved(x: jax.Array, d: jax.Array) -> jax.Array:
        by = jnp.reshape(strength, (-1,) + (1,) * (x.ndim - 1))
        return jnp.where(by == 0, x, x + by * d)

    return jax.tree.map(moved, latent, step)


def _count(step: Any) -> jax.Array:
    """Number [B] of a step's numbers [B, …] that are not 0."""
    counts = [
        jnp.sum(x != 0, axis=range(1, x.ndim), dtype=jnp.float32)
        for x in jax.tree.leaves(step)
    ]
    return sum(counts[1:], start=counts[0])


def _better(one: Found, other: Found, config: SearchConfig) -> Found:
    """The better of two edits of each latent; the first where they are equal."""

    def worth(found: Found) -> jax.Array:
        gained = jnp.minimum(found.fit, config.reach)
        gained -= _CHOOSING * jnp.square(found.change)
        return jnp.where(found.change > config.budget, -jnp.inf, gained)

    return _choose(worth(other) > worth(one), other, one)


def _choose(condition: jax.Array, one: Found, other: Found) -> Found:
    """One edit of each latent where a condition [B] holds, else the other."""

    def pick(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(jnp.reshape(condition, (-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, one, other)
