"""Blends of latents: mixed rows of W+, and points of paths through keyframes."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from styleclip_jax import spaces
from styleclip_jax.ops import products

# Vectors, W+ or flat styles; a point is one of them.
Keyframes = Float[Array, "keyframes ..."]
Point = Float[Array, "..."]
Position = Float[Array, ""]
Chosen = Bool[Array, " rows"]


def mix(latent: spaces.WPlus, other: spaces.WPlus, chosen: Chosen) -> spaces.WPlus:
    """Latents with some rows of others: style mixing.

    Args:
      latent: [..., L, D].
      other: [..., L, D], which the chosen rows come from.
      chosen: [L] bool.

    Returns:
      [..., L, D].

    Source: Karras et al., "A Style-Based Generator Architecture for Generative
    Adversarial Networks" (2019), section 3.1 and Figure 3.
    """
    return jnp.where(chosen[:, None], other, latent)


def interpolate(
    keyframes: Keyframes,
    position: Position,
    *,
    curve: str = "spline",
    closed: bool = True,
) -> Point:
    """Point of a path through keyframes; at each keyframe it is that one exactly.

    Args:
      keyframes: [K, …], K at least 2.
      position: number of the keyframe before, plus the share of the way to the next: 0
        to K for a closed path, 0 to K − 1 for an open one.
      curve: of `CURVES`: spline has no corners, linear is straight between keyframes,
        spherical turns vectors [..., D] about the origin, which suits z.
      closed: whether the path returns from the last keyframe to the first.

    Returns:
      […], a keyframe's shape.

    Source: the spline is the cubic one with continuous second derivatives, periodic or
    with natural ends (de Boor, "A Practical Guide to Splines", chapter IV); spherical
    is Shoemake, "Animating Rotation with Quaternion Curves" (1985).
    """
    keyframes, count = jnp.asarray(keyframes), len(keyframes)
    last = count - 1 if closed else count - 2
    start = jnp.clip(jnp.floor(position), 0, last).astype(jnp.int32)
    return CURVES[curve](keyframes, start, position - start, closed)


def _spline(keyframes: Array, start: Array, share: Array, closed: bool) -> Array:
    # Hermite's cubic of both ends y and slopes m, in t from 0 to 1:
    #   (1 + 2t)(1 − t)² y₀ + t²(3 − 2t) y₁ + t(1 − t)² m₀ − t²(1 − t) m₁
    y0, y1 = _ends(keyframes, start)
    slopes = _slopes(len(keyframes), closed)
    flat = keyframes.reshape(len(keyframes), -1)
    m = jnp.matmul(slopes, flat, precision=products.EXACT).reshape(keyframes.shape)
    m0, m1 = _ends(m, start)
    t, rest = share, 1 - share
    ends = (1 + 2 * t) * rest**2 * y0 + t**2 * (3 - 2 * t) * y1
    return ends + t * rest**2 * m0 - t**2 * rest * m1


def _linear(keyframes: Array, start: Array, share: Array, closed: bool) -> Array:
    before, after = _ends(keyframes, start)
    return (1 - share) * before + share * after


def _spherical(keyframes: Array, start: Array, share: Array, closed: bool) -> Array:
    # (sin((1 − t) θ) a + sin(t θ) b) / sin θ, with θ the angle between a and b. Where
    # they are parallel, sin θ is 0, and the straight line stands in.
    a, b = _ends(keyframes, start)
    aa, ab, bb = (
        jnp.sum(x * y, axis=-1, keepdims=True) for x, y in ((a, a), (a, b), (b, b))
    )
    # What stands for a vector of zeros keeps gradients finite.
    cosine = ab / jnp.sqrt(jnp.where(aa * bb > 0, aa * bb, 1))
    apart = (aa * bb > 0) & (jnp.abs(cosine) < _PARALLEL)
    angle = jnp.arccos(jnp.where(apart, cosine, 0))
    weight_a, weight_b = (
        jnp.where(apart, jnp.sin(x * angle) / jnp.sin(angle), x)
        for x in (1 - share, share)
    )
    return weight_a * a + weight_b * b


# Cosine from which on two vectors count as parallel in float32.
_PARALLEL = 1 - 1e-6

# Paths from a keyframe to the next: (keyframes, number of the one before, share of the
# way, closed) → point.
CURVES: dict[str, Callable[[Array, Array, Array, bool], Array]] = {
    "spline": _spline,
    "linear": _linear,
    "spherical": _spherical,
}


def _ends(values: Array, start: Array) -> tuple[Array, Array]:
    """Values at a keyframe and at the next, which follows the last in a circle."""
    return values[start], values[(start + 1) % len(values)]


def _slopes(count: int, closed: bool) -> np.ndarray:
    """Matrix [K, K] that makes the spline's slopes m of its keyframes y.

    Equal second derivatives on both sides of a keyframe say
      m₋ + 4 m + m₊ = 3 (y₊ − y₋).
    At an end of an open path the second derivative is 0:
      2 m + m₊ = 3 (y₊ − y), and its mirror image.
    """
    one = np.eye(count)
    # Products with y: y₋ and y₊ of each keyframe.
    before, after = np.roll(one, -1, axis=1), np.roll(one, 1, axis=1)
    left, right = before + 4 * one + after, 3 * (after - before)
    if not closed:
        left[0], right[0] = 2 * one[0] + one[1], 3 * (one[1] - one[0])
        left[-1], right[-1] = one[-2] + 2 * one[-1], 3 * (one[-1] - one[-2])
    return np.linalg.solve(left, right).astype(np.float32)
