"""Convolution with a quick weight gradient on CPUs.

XLA's CPU backend computes the gradient of a small kernel ten times more slowly than
the convolution itself. As y[i] = Σ_a x[i + a - p] k[a] along each axis, that gradient
is

  dk[a] = Σ_i x[i] dy[i - a + p],

one matrix product of x with the shifted copies of dy side by side.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax.ops import convolutions

Padding = tuple[tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: jax.Array, kernel: jax.Array, padding: Padding, precision: str
) -> jax.Array:
    """Convolution of stride 1 of [B, H, W, I] with [h, w, I, O]."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _forward(
    x: jax.Array, kernel: jax.Array, padding: Padding, precision: str
) -> tuple[Any, Any]:
    return convolve(x, kernel, padding, precision), (x, kernel)


def _backward(
    padding: Padding, precision: str, saved: Any, dy: jax.Array
) -> tuple[Any, Any]:
    x, kernel = saved
    around = [
        (size - 1 - before, size - 1 - after)
        for size, (before, after) in zip(kernel.shape, padding, strict=False)
    ]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    dx = convolve(dy, flipped, tuple(around), precision)
    (_, height, width, channels), (rows, columns) = x.shape, kernel.shape[:2]
    over_pixels = (((0, 1), (0, 1)), ((), ()))

    def add(total: jax.Array, example: tuple[jax.Array, jax.Array]) -> Any:
        x, dy = example
        # Unlike jnp.pad, takes pixels away where a number is negative.
        ends = [(before, after, 0) for before, after in (*around, (0, 0))]
        dy = lax.pad(dy, jnp.zeros((), dy.dtype), ends)
        shifted = [
            dy[row : row + height, column : column + width]
            for row in reversed(range(rows))
            for column in reversed(range(columns))
        ]
        product = lax.dot_general(
            x, jnp.concatenate(shifted, axis=-1), over_pixels, precision=precision
        )
        return total + product, None

    # One example at a time stays in the cache, which is six times as quick.
    zero = jnp.zeros((channels, rows * columns * dy.shape[-1]), x.dtype)
    dk, _ = lax.scan(add, zero, (x, dy))
    dk = dk.reshape(channels, rows, columns, -1).transpose(1, 2, 0, 3)
    return dx, dk


convolve.defvjp(_forward, _backward)


def _convolve_for_generators(
    x: jax.Array,
    kernel: jax.Array,
    padding: Any,
    precision: str,
    *,
    swap: bool = False,
) -> jax.Array:
    """`convolve`, whose derivatives are its own and need nothing swapped."""
    del swap
    return convolve(x, kernel, padding, precision)


@contextlib.contextmanager
def quick_weight_gradients() -> Iterator[None]:
    """Makes generators use `convolve` in what is traced inside.

    The generator itself keeps XLA's convolution, which also has forward-mode
    derivatives.
    """
    replacements = {
        "convolve": _convolve_for_generators,
        "conv3x3": convolutions.direct_conv3x3,
        "upsample_conv3x3": convolutions.upsample_conv3x3_by_phases,
    }
    originals = {name: getattr(convolutions, name) for name in replacements}
    for name, function in replacements.items():
        setattr(convolutions, name, function)
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(convolutions, name, function)
