"""Metrics of an edit: text, identity, pixels, latent, and changes elsewhere.

Metrics take images, features or latents and give one value per example, as losses do.
Statistics over many examples are at the end of the file.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax import losses
from styleclip_jax.models import clip
from styleclip_jax.ops import norms

# Wang et al. 2003: weights of the scales, the window, and the constants for [0, 1].
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW_SIZE, _WINDOW_SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def clip_score(image_feature: jax.Array, text_feature: jax.Array) -> jax.Array:
    """CLIP score: cosine of image and text, [B] in [-1, 1].

    Args:
      image_feature: [B, E] CLIP features, of any length.
      text_feature: [E] or [B, E], likewise.

    Source: Hessel et al. 2021 report 2.5 · max(cosine, 0).
    """
    return _cosine(image_feature, text_feature)


def directional_similarity(
    source_image: jax.Array,
    edited_image: jax.Array,
    neutral_text: jax.Array,
    target_text: jax.Array,
    *,
    min_length: float = 1e-3,
) -> jax.Array:
    """Directional similarity: cosine of image step and text step, [B] in [-1, 1].

    Short steps count in proportion to their length, ⟨Δi, Δt⟩ / max(|Δi|, min_length)
    for a unit Δt: the direction of a step of rounding errors would be noise, and its
    gradient enormous.

    Args:
      source_image, edited_image: [B, E] CLIP features, of any length.
      neutral_text, target_text: [E] or [B, E], likewise.
      min_length: least length of the step between normalised image features. As a
        loss, which starts without any step, 0.1 keeps the gradient moderate.

    Source: Gal et al. 2021 (StyleGAN-NADA), eq. 2, there as a loss.
    """
    image_step = norms.unit(edited_image) - norms.unit(source_image)
    text_step = norms.unit(target_text) - norms.unit(neutral_text)
    return losses.step_similarity(image_step, text_step, min_length=min_length)


def identity_similarity(source: jax.Array, edited: jax.Array) -> jax.Array:
    """Identity similarity: cosine of face features, [B] in [-1, 1].

    Args:
      source, edited: [B, E] face features before and after, of any length.
    """
    return _cosine(source, edited)


def pixel_l1(a: jax.Array, b: jax.Array) -> jax.Array:
    """Pixel L1: mean absolute difference of images [B, H, W, 3], [B] in their units."""
    return jnp.mean(jnp.abs(a - b), axis=(1, 2, 3))


def pixel_l2(a: jax.Array, b: jax.Array) -> jax.Array:
    """Pixel L2: mean squared difference of images [B, H, W, 3], [B] in their units²."""
    return jnp.mean(jnp.square(a - b), axis=(1, 2, 3))


def num_scales(height: int, width: int) -> int:
    """Number of scales of `ms_ssim`: 5, or as many as the window fits into.

    There are five from 176 pixels on, 3 at 64, and none below 11.
    """
    sides = (min(height, width) >> scale for scale in range(len(_SCALE_WEIGHTS)))
    return sum(side >= _WINDOW_SIZE for side in sides)


def ms_ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multi-scale structural similarity, [B] in [0, 1]; 1 for equal images.

    Structure and contrast are compared on every scale, luminance on the coarsest:

      MS-SSIM = l_M^w_M · Π_j cs_j^w_j

    for each colour, then averaged over the three. Images too small for five scales
    have the first `num_scales`, with weights that add up to 1 again. Such values do
    not compare with those of five scales.

    Args:
      a, b: [B, H, W, 3] in [-1, 1].

    Raises:
      ValueError: the shapes are others, or images are smaller than the window of 11.

    Source: Wang, Simoncelli and Bovik 2003, eq. 7 (gray there), with a Gaussian window
    of deviation 1.5 without padding, and halving by the mean of 2 × 2. Negative
    similarities, which have no power, count as zero.
    """
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            f"expected two of [B, H, W, 3], found {list(a.shape)} and {list(b.shape)}"
        )
    count = num_scales(*a.shape[1:3])
    if not count:
        raise ValueError(
            f"expected images of {_WINDOW_SIZE} pixels or more, found {list(a.shape)}"
        )
    weights = np.array(_SCALE_WEIGHTS[:count])
    if count < len(_SCALE_WEIGHTS):
        weights /= weights.sum()
    a, b = (a + 1) / 2, (b + 1) / 2
    result = jnp.ones((a.shape[0], a.shape[-1]))
    for scale, weight in enumerate(weights):
        if scale:
            a, b = _halve(a), _halve(b)
        luminance, structure = _similarity(a, b)
        term = luminance * structure if scale == count - 1 else structure
        result *= _power(jnp.mean(term, axis=(1, 2)), float(weight))
    return jnp.mean(result, axis=-1)


def latent_distance(source: Any, edited: Any) -> jax.Array:
    """Latent distance: Euclidean length of the step, [B].

    Args:
      source, edited: latents of one space, [B, …] or a tuple of [B, C] styles.
    """
    squares = jax.tree.map(
        lambda a, b: jnp.sum(jnp.square(b - a), axis=range(1, a.ndim)), source, edited
    )
    return jnp.sqrt(jax.tree.reduce(jnp.add, squares))


def zero_shot(network: clip.Clip, image: jax.Array, text: jax.Array) -> jax.Array:
    """Zero-shot probability of each text for each image, [B, N].

    Args:
      network: CLIP that the features are of.
      image: [B, E] image features, of any length.
      text: [N, E] text features, likewise.

    Source: Radford et al. 2021, section 3.1.
    """
    return jax.nn.softmax(clip.logits(network, image, text), axis=-1)


def zero_shot_gain(
    network: clip.Clip, source: jax.Array, edited: jax.Array, pair: jax.Array
) -> jax.Array:
    """Zero-shot gain: probability that a pair's second text gained, [B] in [-1, 1].

    Args:
      network: CLIP that the features are of.
      source, edited: [B, E] image features, of any length.
      pair: [2, E] features of a neutral and a target text, likewise.
    """
    before, after = (zero_shot(network, x, pair)[:, 1] for x in (source, edited))
    return after - before


def disentanglement(gain: jax.Array, change: jax.Array) -> jax.Array:
    """Disentanglement: mean gain in the target over mean change elsewhere, [].

    Args:
      gain: [B] gain, such as `zero_shot_gain` of the target.
      change: [B] change, not negative, such as the mean |`zero_shot_gain`| of other
        pairs. Without any change the result is infinite, or not a number without gain.
    """
    return jnp.mean(gain) / jnp.mean(change)


class Consistency(NamedTuple):
    """Consistency of steps wherever they start: cosines over pairs of latents.

    Attributes:
      mean: [] mean of the cosines.
      std: [] deviation of the cosines.
    """

    mean: jax.Array
    std: jax.Array


def direction_consistency(delta: jax.Array) -> Consistency:
    """Direction consistency: cosines between the steps at different latents.

    Args:
      delta: [N, F] steps, N ≥ 2.

    Source: the paper's Table 2.
    """
    cosine = norms.pair_cosines(norms.unit_by_rsqrt(delta))
    return Consistency(cosine.mean(), cosine.std())


@functools.partial(jax.jit, static_argnames=("statistic", "num_resamples", "level"))
def bootstrap_interval(
    key: jax.Array,
    values: Any,
    *,
    statistic: Callable[[Any], jax.Array] | None = None,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> jax.Array:
    """Percentile bootstrap interval of a statistic over examples, [2, …].

    Args:
      key: PRNG key.
      values: tree of [N, …]; examples are drawn with replacement, the same for all
        leaves.
      statistic: statistic of such a tree; None for the mean of an array.
      num_resamples: number of draws.
      level: probability that the interval shall hold.

    Source: Efron 1979.
    """
    count = len(jax.tree.leaves(values)[0])
    compute = statistic or functools.partial(jnp.mean, axis=0)

    def resample(key: jax.Array) -> jax.Array:
        rows = jax.random.randint(key, (count,), 0, count)
        return compute(jax.tree.map(lambda x: x[rows], values))

    found = lax.map(resample, jax.random.split(key, num_resamples))
    tails = jnp.array([(1 - level) / 2, (1 + level) / 2])
    return jnp.quantile(found, tails, axis=0)


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(norms.unit_by_rsqrt(a) * norms.unit_by_rsqrt(b), axis=-1)


def _power(x: jax.Array, exponent: float) -> jax.Array:
    """Power x^exponent, 0 for x ≤ 0, where the gradient is 0 as well."""
    return jnp.where(x > 0, jnp.where(x > 0, x, 1) ** exponent, 0)


def _similarity(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Luminance and structure (with contrast) of windows, each [B, h, w, 3]."""
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return luminance, (2 * covariance + _C2) / (var_a + var_b + _C2)


def _blur(image: jax.Array) -> jax.Array:
    """Weighted means over the window, where it lies in the image."""
    offset = np.arange(_WINDOW_SIZE) - _WINDOW_SIZE // 2
    window = np.exp(-(offset**2) / (2 * _WINDOW_SIGMA**2))
    window = (window / window.sum()).astype(np.float32)
    height, width = (side - _WINDOW_SIZE + 1 for side in image.shape[1:3])
    rows = sum(w * image[:, i : i + height] for i, w in enumerate(window))
    return sum(w * rows[:, :, i : i + width] for i, w in enumerate(window))


def _halve(image: jax.Array) -> jax.Array:
    """Means of 2 × 2 pixels; a last odd row or column is left out."""
    height, width = (side // 2 * 2 for side in image.shape[1:3])
    image = image[:, :height, :width]
    image = image[:, ::2] + image[:, 1::2]
    return (image[:, :, ::2] + image[:, :, 1::2]) / 4
