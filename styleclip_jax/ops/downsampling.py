"""Halving of images and 3×3 convolution of stride 2, both behind a FIR.

Both are written as phases, so that neither they nor derivatives of any order have zeros
inserted between pixels, which GPUs convolve many times as slowly.
"""

import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax.ops import unpadded


def downsample(x: jax.Array) -> jax.Array:
    """Images [B, H/2, W/2, C] of [B, H, W, C], by the FIR [1, 3, 3, 1] per axis.

    Along one axis, with zeros around, y[i] = (x[2i-1] + 3 x[2i] + 3 x[2i+1] + x[2i+2])
    / 8.
    """
    for axis in (1, 2):
        x = _phases(x, axis)[1]
    return x


def downsample_conv3x3(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """FIR [1, 3, 3, 1] per axis, then convolution of stride 2.

    Along one axis, with taps w0, w1, w2 and the phases z of what the FIR makes,

      y[i] = w0 z[2i] + w1 z[2i+1] + w2 z[2i+2].

    In two dimensions these are four convolutions with 2×2, 2×1, 1×2 and 1×1 taps.

    Args:
      x: [B, H, W, I], H and W even.
      kernel: [3, 3, I, O].
      precision: precision of the products in float32: highest, high or default.

    Returns:
      [B, H/2, W/2, O].
    """
    even, odd = slice(None, None, 2), slice(1, 2)
    total = None
    for row, rows in zip((even, odd), _phases(x, 1), strict=True):
        for column, phase in zip((even, odd), _phases(rows, 2), strict=True):
            part = unpadded.convolve(phase, kernel[row, column], precision)
            total = part if total is None else total + part
    assert total is not None
    return total


def _phases(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Even and odd pixels of x behind the FIR, with n + 1 and n of them for 2 n of x.

    With two zeros on both sides of x, and e[i] = x[2i] and o[i] = x[2i+1],

      z[2i]   = (e[i-1] + 3 o[i-1] + 3 e[i] + o[i]) / 8,     i = 0…n,
      z[2i+1] = (o[i-1] + 3 e[i] + 3 o[i] + e[i+1]) / 8,     i = 0…n-1.
    """
    n = x.shape[axis] // 2
    x = x.reshape(*x.shape[:axis], n, 2, *x.shape[axis + 1 :])
    padding = [(0, 0)] * (x.ndim - 1)
    padding[axis] = (1, 1)
    e, o = (
        jnp.pad(lax.index_in_dim(x, i, axis + 1, keepdims=False), padding)
        for i in range(2)
    )

    def from_(x: jax.Array, first: int, count: int) -> jax.Array:
        return lax.slice_in_dim(x, first, first + count, axis=axis)

    even = from_(e, 0, n + 1) + from_(o, 1, n + 1)
    even = even / 8 + (from_(o, 0, n + 1) + from_(e, 1, n + 1)) * 0.375
    odd = from_(o, 0, n) + from_(e, 2, n)
    odd = odd / 8 + (from_(e, 1, n) + from_(o, 1, n)) * 0.375
    return even, odd
