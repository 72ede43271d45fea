"""Resizing of images as two small matrix products, one per axis."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax.ops import products

# Where output pixels lie in the source, see `interpolation_matrix`.
Grid = Literal["align_corners", "corners", "centres"]

# PIL's weights for 8-bit images have this many fractional bits.
_PIL_BITS = 22
# Sums of so many products of two numbers below 2⁸ are exact in float32.
_EXACT_TAPS = 2**24 // 255**2


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


def pool_matrix(size: int, out: int) -> np.ndarray:
    """Matrix [out, size] of adaptive average pooling as PyTorch defines it.

    Output pixel j is the mean of the source pixels s_j ≤ i < e_j, where

      s_j = floor(j · size / out),   e_j = ceil((j + 1) · size / out).

    Windows overlap where the ratio is not whole, and repeat pixels where size < out.

    Returns:
      [out, size] float64, rows of sum 1.
    """
    i, j = np.arange(size), np.arange(out)[:, None]
    start, end = j * size // out, -(-(j + 1) * size // out)
    return ((start <= i) & (i < end)) / (end - start)


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


def interpolation_matrix(size: int, out: int, grid: Grid) -> np.ndarray:
    """Matrix [out, size] of bilinear interpolation, without antialiasing.

    Output pixel j lies at x_j of the source, whose pixel i has the weight
    max(0, 1 − |x − i|) there. Outside of the outermost pixels x counts as theirs.

      align_corners: x_j = j · (size − 1) / (out − 1), so these stay in place.
      corners:       x_j = j · size / out, TensorFlow 1's.
      centres:       x_j = (j + ½) · size / out − ½, PyTorch's.

    Returns:
      [out, size] float32, rows of sum 1.
    """
    j = np.arange(out)[:, None]
    if grid == "align_corners":
        x = j * (size - 1) / (out - 1)
    elif grid == "corners":
        x = j * size / out
    else:
        x = np.clip((j + 0.5) * size / out - 0.5, 0, None)
    distance = np.abs(np.minimum(x, size - 1) - np.arange(size))
    return np.maximum(0, 1 - distance).astype(np.float32)


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
    narrow = _round(_exact_product("xw,bhwc->bhxc", _fixed_point(columns), image))
    return _round(_exact_product("yh,bhwc->bywc", _fixed_point(rows), narrow))


def integer_product(equation: str, matrix: np.ndarray, image: jax.Array) -> jax.Array:
    """`jnp.einsum` of an int32 matrix and an 8-bit image, in int32."""
    exact = products.EXACT
    return jnp.einsum(equation, matrix, image.astype(jnp.int32), precision=exact)


def product_in_pieces(equation: str, matrix: np.ndarray, image: jax.Array) -> jax.Array:
    """`integer_product` as products of bfloat16, for devices without integer ones.

    With w = 2¹⁶ a + 2⁸ b + c, where b and c are from 0 to 255 and |a| is below 2⁸, all
    factors are whole numbers that bfloat16 holds. Their products and sums are exact in
    float32, as long as a row has no more than 258 taps.
    """
    pieces = np.stack([matrix >> 16, (matrix >> 8) & 255, matrix & 255])

    def product(piece: jax.Array) -> jax.Array:
        total = jnp.einsum(
            equation,
            piece,
            image.astype(jnp.bfloat16),
            preferred_element_type=jnp.float32,
        )
        return total.astype(jnp.int32)

    a, b, c = jax.vmap(product)(jnp.asarray(pieces, jnp.bfloat16))
    return (a << 16) + (b << 8) + c


def _exact_product(equation: str, matrix: np.ndarray, image: jax.Array) -> jax.Array:
    """`integer_product` in the form that suits the device."""
    if np.count_nonzero(matrix, axis=1).max() > _EXACT_TAPS:
        return integer_product(equation, matrix, image)
    whole = functools.partial(integer_product, equation, matrix)
    pieces = functools.partial(product_in_pieces, equation, matrix)
    # XLA has integer products for TPUs, and none but loops for GPUs.
    return lax.platform_dependent(image, cpu=whole, tpu=whole, default=pieces)


def _fixed_point(matrix: np.ndarray) -> np.ndarray:
    # The absolute values of a bicubic row sum to less than 2, so that sums of 8-bit
    # pixels stay below 2³¹.
    scaled = matrix * 2**_PIL_BITS
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)


def _round(total: jax.Array) -> jax.Array:
    half = 2 ** (_PIL_BITS - 1)
    return jnp.clip((total + half) >> _PIL_BITS, 0, 255).astype(jnp.uint8)
