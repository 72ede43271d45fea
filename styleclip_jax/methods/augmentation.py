"""Adaptive discriminator augmentation (ADA): random transforms, and their probability.

A discriminator that sees only augmented images does not learn few images by heart. As
long as the probability of each transform is below 1, the generator cannot tell
augmented images from its own, and does not imitate them.

Source: https://arxiv.org/abs/2006.06676.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax.ops import products, warping
from styleclip_jax.settings.augmentation import AdaptationConfig, AugmentationConfig


class Draw(NamedTuple):
    """Random numbers of a transform, one per image.

    Attributes:
      value: [B], or [B, 2] for x and y; what the transform is made of.
      chance: [B] uniform; the transform applies where it is below the probability.
    """

    value: jax.Array
    chance: jax.Array


# What a transform makes of a drawn value.
_Change = Callable[[jax.Array], jax.Array]

# Numbers per image that the transforms take, by name and in the official order.
_UNIFORM = {
    "xflip": 1,
    "rotate90": 1,
    "xint": 2,
    "rotate_before": 1,
    "rotate_after": 1,
    "lumaflip": 1,
    "hue": 1,
}
_NORMAL = {
    "scale": 1,
    "aniso": 1,
    "xfrac": 2,
    "brightness": 1,
    "contrast": 1,
    "saturation": 1,
}


def draw(key: jax.Array, batch: int) -> dict[str, Draw]:
    """Random numbers of all transforms for a batch, whichever of them are used.

    Args:
      key: PRNG key.
      batch: number of images.

    Returns:
      A `Draw` for each of xflip, rotate90, xint, scale, rotate_before, aniso,
      rotate_after, xfrac, brightness, contrast, lumaflip, hue and saturation.
    """
    chance_key, uniform_key, normal_key = jax.random.split(key, 3)
    chances = jax.random.uniform(chance_key, (len(_UNIFORM) + len(_NORMAL), batch))
    uniform = jax.random.uniform(uniform_key, (batch, sum(_UNIFORM.values())))
    normal = jax.random.normal(normal_key, (batch, sum(_NORMAL.values())))
    draws: dict[str, Draw] = {}
    for numbers, counts in ((uniform, _UNIFORM), (normal, _NORMAL)):
        start = 0
        for name, count in counts.items():
            value = numbers[:, start : start + count]
            value = value[:, 0] if count == 1 else value
            draws[name] = Draw(value, chances[len(draws)])
            start += count
    return draws


def augment(
    image: jax.Array,
    probability: jax.Array | float,
    draws: dict[str, Draw],
    *,
    config: AugmentationConfig,
) -> jax.Array:
    """Image with each transform at a probability; differentiable any number of times.

    Images of a batch in which nothing moves are not resampled, so that they come back
    to the last bit at p = 0.

    Args:
      image: [B, H, W, C] float in [-1, 1], of 3 channels or a gray one.
      probability: p, from 0 on; from 1 on all transforms of strength 1 apply.
      draws: random numbers, as `draw` makes them for the batch.
      config: strengths of the transforms, such as `PIPELINES["bgc"]`.

    Returns:
      [B, H, W, C], which changed colours take beyond [-1, 1].

    Raises:
      ValueError: another number of channels, or a side below 7 pixels.

    Source: https://arxiv.org/abs/2006.06676, appendix B.
    """
    change = _changes(image.shape[1:3], probability, draws, config)
    if config.moves_pixels:
        pullback = _pullback(change)
        moves = jnp.any(pullback != jnp.eye(2, 3))
        image = lax.cond(moves, warping.warp, lambda image, _: image, image, pullback)
    return _recolor(image, change) if config.changes_colors else image


def _changes(
    size: tuple[int, ...],
    probability: jax.Array | float,
    draws: dict[str, Draw],
    config: AugmentationConfig,
) -> dict[str, jax.Array]:
    """What each transform does to each image, by name; neutral where it applies not."""

    def power(deviation: float) -> _Change:
        return lambda normal: jnp.exp2(normal * deviation)

    def angle(share: float) -> _Change:
        return lambda uniform: (2 * uniform - 1) * (math.pi * share)

    def choice(count: int) -> _Change:
        return lambda uniform: jnp.floor(count * uniform)

    c, p, (height, width) = config, probability, size
    sides = np.array([width, height], np.float32)
    # Both rotations together apply with the probability of one.
    rotate = 1 - jnp.sqrt(jnp.clip(1 - c.rotate * p, 0, 1))
    # Probability, the drawn value's meaning, and the neutral one.
    table: dict[str, tuple[Any, _Change, int]] = {
        "xflip": (c.xflip * p, choice(2), 0),
        "rotate90": (c.rotate90 * p, choice(4), 0),
        "xint": (
            c.xint * p,
            lambda uniform: jnp.round((2 * uniform - 1) * c.xint_max * sides),
            0,
        ),
        "scale": (c.scale * p, power(c.scale_std), 1),
        "rotate_before": (rotate, angle(c.rotate_max), 0),
        "aniso": (c.aniso * p, power(c.aniso_std), 1),
        "rotate_after": (rotate, angle(c.rotate_max), 0),
        "xfrac": (c.xfrac * p, lambda normal: normal * c.xfrac_std * sides, 0),
        "brightness": (c.brightness * p, lambda normal: normal * c.brightness_std, 0),
        "contrast": (c.contrast * p, power(c.contrast_std), 1),
        "lumaflip": (c.lumaflip * p, choice(2), 0),
        "hue": (c.hue * p, angle(c.hue_max), 0),
        "saturation": (c.saturation * p, power(c.saturation_std), 1),
    }
    found = {}
    for name, (limit, change, neutral) in table.items():
        value, chance = draws[name]
        applies = (chance < limit).reshape(-1, *(1,) * (value.ndim - 1))
        found[name] = jnp.where(applies, change(value), neutral)
    return found


def _pullback(change: dict[str, jax.Array]) -> jax.Array:
    """Map [B, 2, 3] from each pixel to where it comes from.

    It is the inverses of the transforms, in their order from the left: a shift d that
    follows a linear map A adds −A d.
    """
    scale, aniso = change["scale"], change["aniso"]
    quarters = _rotation(change["rotate90"] * (math.pi / 2))
    turned = _product(_diagonal(1 - 2 * change["xflip"], 1), quarters)
    stretch = _diagonal(1 / (scale * aniso), aniso / scale)
    stretched = _product(_rotation(change["rotate_before"]), stretch)
    linear = _product(_product(turned, stretched), _rotation(change["rotate_after"]))
    pixels, fractions = change["xint"][..., None], change["xfrac"][..., None]
    shift = _product(turned, pixels) + _product(linear, fractions)
    return jnp.concatenate([linear, -shift], axis=-1)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=products.EXACT)


def _rotation(angle: jax.Array) -> jax.Array:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos, -sin, sin, cos], axis=-1).reshape(-1, 2, 2)


def _diagonal(x: jax.Array, y: jax.Array | float) -> jax.Array:
    return jnp.stack([x, jnp.broadcast_to(y, x.shape)], axis=-1)[..., None] * np.eye(2)


def _recolor(image: jax.Array, change: dict[str, jax.Array]) -> jax.Array:
    """Image with another luma and chroma, by one circulant matrix per image.

    With v = (1, 1, 1)/√3 and m the mean of a pixel's channels, all five together are

      luma · (m + brightness) + chroma · (cos hue · (x − m) + sin hue · v × x),
      luma = contrast · (1 − 2 · lumaflip),  chroma = contrast · saturation.

    In a gray image x = m.
    """
    change = {name: x[:, None, None, None] for name, x in change.items()}
    luma = change["contrast"] * (1 - 2 * change["lumaflip"])
    chroma, hue = change["contrast"] * change["saturation"], change["hue"]
    along, across = chroma * jnp.cos(hue), math.sqrt(3) * chroma * jnp.sin(hue)
    channels = image.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"image: expected 3 channels or 1, found {channels}")
    # Weights of a channel itself, of the next and of the one after it.
    weights = [luma + 2 * along, luma - along - across, luma - along + across]
    weights = weights if channels == 3 else [3 * luma]
    total = luma * change["brightness"]
    for i, weight in enumerate(weights):
        total += weight / 3 * jnp.roll(image, -i, axis=-1)
    return total.astype(image.dtype)


def signs(logit: jax.Array) -> jax.Array:
    """Sum of the logits' signs and their number, [2] float32; that of 0 is 0.

    They add up over steps, and over devices by `lax.psum`. Parity: the official code
    counts every logit of a real image, those of R1 too.

    Args:
      logit: float, any shape.
    """
    return jnp.array([jnp.sign(logit).sum(), logit.size], jnp.float32)


def adjust(
    probability: jax.Array | float,
    signs: jax.Array,
    images: jax.Array | int,
    *,
    config: AdaptationConfig,
) -> jax.Array:
    """Probability after one adjustment: up where the discriminator is too sure.

    p + sign(mean sign − target) · images / length. Without a logit, p stays.

    Args:
      probability: p before.
      signs: [2], `signs` of all logits of real images since the last adjustment.
      images: real images since then, steps times their batch; rosinality's rule counts
        logits instead.
      config: rule, target and length.

    Returns:
      p, from 0 on; up to 1 by rosinality's rule.

    Source: `training_loop.py` of stylegan2-ada-pytorch; `AdaptiveAugment.tune` of
    rosinality's port.
    """
    total, count = signs
    mean = total / jnp.maximum(count, 1)
    if config.rule == "rosinality":
        step = jnp.where(mean > config.target, 1, -1) * count
        return jnp.clip(probability + step / config.length, 0, 1)
    step = jnp.where(count > 0, jnp.sign(mean - config.target), 0) * images
    return jnp.maximum(probability + step / config.length, 0)
