"""Resizing of images as two small matrix products, one per axis."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.ops import products

# PIL's weights for 8-bit images have this many fractional bits.
_PIL_BITS = 22


def area_matrix(size: int, out: int) -> np.ndarray:
    """Matrix [out, size] that averages the area under each output pixel.

    Output pixel j covers [j, j + 1)·size/out of the source, whose pixel i covers
    [i, i + 1), so A_ji = |overlap| · out/size.

    Returns:
      [out, size] float32, rows of sum 1.
    """
    # In units of 1/out of a source pixel all ends are whole numbers.
    i, j = np.arange(size), np.arange(out)[:, None]
    overlap = np.minimum((i + 1) * out, (j + 1) * size) - np.maximum(i * out, j * size)
    return (np.maximum(overlap, 0) / size).astype(np.float32)


def bicubic_matrix(size: int, out: int) -> np.ndarray:
    """Matrix [out, size] of PIL's antialiased bicubic resampling.

    With r = size/out and s = max(r, 1), output pixel j takes source pixel i with weight
    k((i + ½ − (j + ½)·r) / s), rows scaled to sum 1. k is Keys' cubic with a = −½:

      k(x) = (a + 2)|x|³ − (a + 3)x² + 1          for |x| < 1
             a(|x|³ − 5x² + 8|x| − 4)             for |x| < 2

    Returns:
      [out, size] float64, rows of sum 1.
    """
    x = _distances(size, out)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * (x**3 - 5 * x**2 + 8 * x - 4)
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


def bilinear_matrix(size: int, out: int) -> np.ndarray:
    """Matrix [out, size] of PIL's antialiased bilinear resampling.

    As `bicubic_matrix`, with k(x) = 1 − |x| for |x| < 1.

    Returns:
      [out, size] float64, rows of sum 1.
    """
    weights = np.maximum(1 - _distances(size, out), 0)
    return weights / weights.sum(1, keepdims=True)


def _distances(size: int, out: int) -> np.ndarray:
    """Distances [out, size] between output and source pixels, in units of s."""
    ratio = size / out
    centre = (np.arange(out)[:, None] + 0.5) * ratio
    return np.abs(np.arange(size) + 0.5 - centre) / max(ratio, 1.0)


def resize_rows(image: jax.Array, matrix: np.ndarray, precision: Any) -> jax.Array:
    """Image [B, Y, W, C] of one [B, H, W, C] and a matrix [Y, H] of its type."""
    return jnp.einsum("yh,bhwc->bywc", matrix, image, precision=precision)


def resize_columns(image: jax.Array, matrix: np.ndarray, precision: Any) -> jax.Array:
    """Image [B, H, X, C] of one [B, H, W, C] and a matrix [X, W] of its type."""
    return jnp.einsum("xw,bhwc->bhxc", matrix, image, precision=precision)


def resize(
    image: jax.Array, rows: np.ndarray, columns: np.ndarray, precision: Any
) -> jax.Array:
    """Image [B, Y, X, C] by a matrix for each axis, rows first."""
    return resize_columns(resize_rows(image, rows, precision), columns, precision)


def resize_uint8(image: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """8-bit image resized bit for bit as PIL does: columns first, 8 bits between.

    PIL 13 takes rows first where the height shrinks much more than the width, as a
    squashed tall image may; single values there differ by one level.

    Args:
      image: [B, H, W, C] uint8.
      rows: [Y, H] float64, of `bicubic_matrix` or `bilinear_matrix`.
      columns: [X, W] float64, likewise.

    Returns:
      [B, Y, X, C] uint8.
    """
    exact = products.EXACT
    total = resize_columns(image.astype(jnp.int32), _fixed_point(columns), exact)
    total = resize_rows(_round(total).astype(jnp.int32), _fixed_point(rows), exact)
    return _round(total)


def _fixed_point(matrix: np.ndarray) -> np.ndarray:
    # The absolute values of a bicubic row sum to less than 2, so that sums of 8-bit
    # pixels stay below 2³¹.
    scaled = matrix * 2**_PIL_BITS
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)


def _round(total: jax.Array) -> jax.Array:
    half = 2 ** (_PIL_BITS - 1)
    return jnp.clip((total + half) >> _PIL_BITS, 0, 255).astype(jnp.uint8)
