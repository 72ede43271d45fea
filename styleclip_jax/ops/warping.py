"""Warps of images by affine maps, between the filters of a wavelet."""

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.ops import products

# Low-pass filter of the wavelet sym6, Daubechies' least asymmetric one, of sum √2.
_SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_FILTER = np.array(_SYM6) / np.sqrt(2)
# Pixels that the filter takes on each side of a pixel.
_REACH = len(_SYM6) // 4
# Pixels that one product filters; longer ones multiply more zeros of a band.
_BLOCK = 16


def warp(image: jax.Array, pullback: jax.Array) -> jax.Array:
    """Image whose pixels come from where an affine map says, as ADA resamples it.

    The image is upsampled by 2, sampled bilinearly and downsampled by 2. Both filters
    are f, whose shifts by 2 are orthogonal, so that the identity and shifts by whole
    pixels give the pixels back. f is not symmetric, with its centre of mass at tap 5:
    turned pixels are not quite the turned image.

      up[j] = 2 Σ_k x[k] f[j − 2k + 5]        down[o] = Σ_t s[2o + t + 1] f[t]

    The image goes on mirrored, once on each side, and is zero beyond. Shapes depend on
    no value, and an image on no other of the batch.

    Parity: the official code mirrors as many pixels as the batch needs at most, and 6
    more. The number shows where an image shrinks to less than 5/8: at p = 1 it moves a
    pixel of one image in 300 by more than 1e-4.

    Args:
      image: [B, H, W, C] float.
      pullback: [B, 2, 3] float, from (x, y, 1) of a pixel to the (x, y) that it comes
        from, in pixels to the right and down from the image's centre.

    Returns:
      [B, H, W, C] of the type of `image`.

    Raises:
      ValueError: a side is below 7 pixels.

    Source: https://arxiv.org/abs/2006.06676, appendix B.
    """
    height, width = image.shape[1:3]
    if min(height, width) <= 2 * _REACH:
        raise ValueError(f"image: expected sides of 7 pixels or more, {image.shape=}")
    planes = jnp.moveaxis(image, -1, 1).astype(jnp.float32)
    # Products are along the last axis, so that columns come before rows until the end.
    canvas = _upsample(_upsample(planes).swapaxes(2, 3))
    x, y = np.broadcast_arrays(_places(width)[:, None], _places(height))
    # A product, which XLA computes once. What it computes twice, for offsets and for
    # weights, may round to the two sides of a whole number.
    u, v = jnp.einsum(
        "bij,jxy->ibxy",
        pullback.astype(jnp.float32),
        np.stack([x, y, np.full_like(x, 2)]),
        precision=products.EXACT,
    )
    samples = _sample(canvas, _neighbours(u, width), _neighbours(v, height))
    warped = _downsample(_downsample(samples, height).swapaxes(2, 3), width)
    return jnp.moveaxis(warped, 1, -1).astype(image.dtype)


def _places(size: int) -> np.ndarray:
    """Places [2 · size + 12] of samples, in half pixels from the centre."""
    margin = 2 * _REACH
    return np.arange(1 - size - margin, size + margin + 1, dtype=np.float32)


def _upsample(x: jax.Array) -> jax.Array:
    """Halves of pixels along the last axis, near ones and far ones: `_neighbours`.

    The filter runs over x with 6 mirrored pixels on each side, then over x reversed
    among zeros, which is what both mirrored parts hold beyond those 6. A product takes
    the windows of some pixels, most of whose matrix is the band of the filter.
    """
    size, sides = x.shape[-1], [(0, 0)] * (x.ndim - 1)
    near = jnp.pad(x, [*sides, (2 * _REACH, 2 * _REACH)], "reflect")
    end = _REACH + -(2 * size + 4 * _REACH) % _BLOCK
    far = jnp.pad(jnp.flip(x, -1), [*sides, (_REACH, end)])
    line = jnp.concatenate([near, far], axis=-1)
    overlap, rows = 2 * _REACH, (*x.shape[:-1], -1, _BLOCK)
    own, next_ones = line[..., :-overlap], line[..., overlap:].reshape(rows)
    windows = jnp.concatenate([own.reshape(rows), next_ones[..., -overlap:]], axis=-1)
    pixel, half = np.ogrid[: _BLOCK + overlap, : 2 * _BLOCK]
    matrix = 2 * _taps(half - 2 * pixel + 4 * _REACH - 1)
    halves = jnp.matmul(windows, matrix, precision=products.EXACT)
    return halves.reshape(*x.shape[:-1], -1)


def _downsample(samples: jax.Array, size: int) -> jax.Array:
    """Pixels [..., size] of samples at `_places` along the last axis."""
    sample, pixel = np.ogrid[: 2 * size + 4 * _REACH, :size]
    matrix = _taps(sample - 2 * pixel - 1)
    return jnp.matmul(samples, matrix, precision=products.EXACT)


def _taps(index: np.ndarray) -> np.ndarray:
    """The filter's taps at indices, 0 outside."""
    inside = (index >= 0) & (index < len(_FILTER))
    return np.where(inside, _FILTER[index % len(_FILTER)], 0).astype(np.float32)


# Index along one axis of the canvas, and weight.
_Tap = tuple[jax.Array, jax.Array]


def _neighbours(place: jax.Array, size: int) -> list[_Tap]:
    """The two halves of pixels around each place, as `_upsample` lays them out.

    Args:
      place: in half pixels from the centre.
      size: pixels of the axis.
    """
    first, last = -2 * (size - 1), 4 * size - 3
    place = jnp.clip(place + size - 1, first - 1, last + 1)
    low = jnp.floor(place)
    taps = []
    for half, weight in ((low, 1 - (place - low)), (low + 1, place - low)):
        j = half.astype(jnp.int32)
        inside = (j >= first) & (j <= last)
        near = j + 2 * _REACH
        far = j + jnp.where(j < 0, -first, first) + 2 * size + 8 * _REACH
        at = jnp.where((near >= 0) & (near < 2 * size + 4 * _REACH), near, far)
        taps.append((jnp.where(inside, at, 0), jnp.where(inside, weight, 0)))
    return taps


def _sample(canvas: jax.Array, columns: list[_Tap], rows: list[_Tap]) -> jax.Array:
    """Samples [B, C, X, Y] of a canvas [B, C, ·, ·], weighted in both axes."""
    flat = canvas.reshape(*canvas.shape[:2], -1)
    take = jax.vmap(lambda image, at: image.at[:, at].get(mode="promise_in_bounds"))
    total = jnp.zeros(())
    for column, x in columns:
        for row, y in rows:
            at = column * canvas.shape[-1] + row
            total += (x * y)[:, None] * take(flat, at)
    return total
