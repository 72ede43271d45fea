"""Convolution of stride 1 without padding, for gradients by kernels.

It is linear in images and kernel. Its value and its two gradients have each other as
derivatives, so that those of any order are one of the three. JAX's own second
derivatives are convolutions whose windows have the images' size, with padding; XLA
computes them on CPUs up to a hundred times as slowly.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax.ops import bilinear, products


def _convolve(
    x: jax.Array, kernel: jax.Array, padding: Any, precision: str
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=products.precision_of(x.dtype, precision),
    )


def _plain(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    return _convolve(x, kernel, "VALID", precision)


def _gradient(g: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """Gradient [B, H, W, I] by the images; the kernel is put to XLA in order."""
    around = [(size - 1, size - 1) for size in kernel.shape[:2]]
    turned = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    return _convolve(g, turned, around, precision)


def _kernel_gradient(x: jax.Array, g: jax.Array, precision: str) -> jax.Array:
    """Gradient [h, w, I, O] by the kernel."""
    taps = [
        size - out + 1 for size, out in zip(x.shape[1:3], g.shape[1:3], strict=True)
    ]
    kernel = jax.ShapeDtypeStruct((*taps, x.shape[3], g.shape[3]), g.dtype)
    return jax.linear_transpose(lambda k: _plain(x, k, precision), kernel)(g)[0]


def _kernel_gradient_by_taps(x: jax.Array, g: jax.Array, precision: str) -> jax.Array:
    """The same by a product for each tap, which are few, of all pixels."""
    height, width = g.shape[1:3]
    pixels = g.reshape(-1, g.shape[3])
    asked = products.precision_of(x.dtype, precision)

    def tap(row: int, column: int) -> jax.Array:
        seen = x[:, row : row + height, column : column + width]
        seen = seen.reshape(-1, x.shape[3])
        return jnp.dot(seen.T, pixels, precision=asked)

    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    return jnp.stack(
        [jnp.stack([tap(i, j) for j in range(columns)]) for i in range(rows)]
    )


_FORMS = bilinear.Forms(_plain, _gradient, _kernel_gradient)
# XLA's convolutions of bfloat16 are no quicker on CPUs.
_ON_CPU = bilinear.Forms(
    *map(products.in_float32, (_plain, _gradient, _kernel_gradient_by_taps))
)
_DEFINED = bilinear.define_convolution("unpadded", default=_FORMS, cpu=_ON_CPU)


def convolve(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """Convolution of [B, H, W, I] with [h, w, I, O].

    Args:
      x: images.
      kernel: the kernel.
      precision: precision of the products in float32: highest, high or default.

    Returns:
      [B, H - h + 1, W - w + 1, O].
    """
    return _DEFINED.value(x, kernel, precision)
