"""Upsampling of a generator: doubling 3×3 convolutions, and doubling of an image.

The convolution has several ways to be computed, and so have its derivatives; shape and
device choose. Measured: docs/measurements.md.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax.ops import convolutions, products, unpadded
from styleclip_jax.ops.convolutions import Bilinear

# From this width of the result on, a strided convolution is the quicker gradient, and
# below, from so many channels on, nine products, which copy no kernel.
_STRIDED_GRADIENT = 256
_PRODUCTS_CHANNELS = 512
# Up to so many channels, accelerators spend more time on memory than on products.
_AT_ONCE_CHANNELS = 256
# Taps of x[i - 1], x[i] and x[i + 1] in y[2i] and y[2i + 1], [phase, pixel, tap of the
# kernel]; see `upsample_conv3x3_at_once`.
_FOLD = np.array(
    [
        [[0, 1, 3], [3, 3, 1], [1, 0, 0]],
        [[0, 0, 1], [1, 3, 3], [3, 1, 0]],
    ],
    np.float32,
)


def _by_platform(
    x: jax.Array, kernel: jax.Array, precision: str, **forms: Bilinear
) -> jax.Array:
    """One of the forms, by the platform that it is compiled for."""
    if len(set(forms.values())) == 1:
        return forms["default"](x, kernel, precision)

    def asked(form: Bilinear) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return lambda x, kernel: form(x, kernel, precision)

    chosen = {platform: asked(form) for platform, form in forms.items()}
    return lax.platform_dependent(x, kernel, **chosen)


def upsample_conv3x3_by_phases(
    x: jax.Array, kernel: jax.Array, precision: str, *, swap: bool = False
) -> jax.Array:
    """`upsample_conv3x3` without multiplications by inserted zeros.

    Along one axis, with taps w0, w1, w2, the transposed convolution has an even and
    an odd phase:

      e[i] = w0 x[i] + w2 x[i-1]   (i = 0…n),     o[i] = w1 x[i]   (i = 0…n-1).

    The FIR (with the gain of 2 that makes up for the zeros) then gives

      y[2i]   = (o[i-1] + 3 e[i] + 3 o[i] + e[i+1]) / 4
      y[2i+1] = (e[i] + 3 o[i] + 3 e[i+1] + o[i+1]) / 4.

    In two dimensions these are four convolutions with 2×2, 2×1, 1×2 and 1×1 taps. A
    padding of one gives o the zeros at -1 and n that the FIR reads.
    """
    around = ((1, 1), (1, 1))
    return _by_phases(
        kernel,
        lambda taps: convolutions.convolve(x, taps, around, precision, swap=swap),
    )


def _by_phases(kernel: jax.Array, phase: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Image of the convolutions with each part of the kernel."""
    even, odd = slice(None, None, -2), slice(1, 2)
    return _interleave_phases(
        [[phase(kernel[row, column]) for column in (even, odd)] for row in (even, odd)]
    )


def _upsample_by_kernel(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """`upsample_conv3x3` whose derivatives by the kernel are quick on CPUs."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return _by_phases(kernel, lambda taps: unpadded.convolve(x, taps, precision))


def _interleave_phases(phases: Sequence[Sequence[jax.Array]]) -> jax.Array:
    """Image of the phases [row][column], each even and odd, of both axes."""
    (ee, eo), (oe, oo) = phases
    even, odd = _interleave_fir(ee, oe, axis=1), _interleave_fir(eo, oo, axis=1)
    return _interleave_fir(even, odd, axis=2)


def _upsample_by_product(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """`upsample_conv3x3_by_phases` by one product with all nine taps."""
    del precision
    outputs = kernel.shape[3]
    taps = kernel.transpose(2, 0, 1, 3).reshape(-1, 9 * outputs)
    y = products.dot(x, taps).astype(jnp.float32)
    y = y.reshape(*x.shape[:3], 3, 3, outputs)
    return _by_taps(lambda row, column: y[:, :, :, row, column]).astype(x.dtype)


def _upsample_by_taps(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """`upsample_conv3x3_by_phases` by a product for each tap."""
    asked = products.precision_of(x.dtype, precision)

    def tap(row: int, column: int) -> jax.Array:
        return products.dot(x, kernel[row, column], precision=asked).astype(jnp.float32)

    return _by_taps(tap).astype(x.dtype)


def _by_taps(tap: Callable[[int, int], jax.Array]) -> jax.Array:
    """Image of the products [B, H, W, O] with each tap of a kernel, by its place."""
    # As the padding of a phase's convolution shifts it.
    even, odd = {0: (0, 1), 2: (1, 0)}, {1: (1, 1)}

    def phase(rows: Any, columns: Any) -> jax.Array:
        around = [
            jnp.pad(tap(row, column), ((0, 0), rows[row], columns[column], (0, 0)))
            for row in rows
            for column in columns
        ]
        return sum(around[1:], start=around[0])

    return _interleave_phases(
        [[phase(rows, columns) for columns in (even, odd)] for rows in (even, odd)]
    )


def upsample_conv3x3_at_once(
    x: jax.Array, kernel: jax.Array, precision: str
) -> jax.Array:
    """`upsample_conv3x3` as one convolution to 4·O channels, the FIR in its kernel.

    With e and o of `upsample_conv3x3_by_phases` put in, along one axis,

      4 y[2i]   = (w1 + 3 w2) x[i-1] + (3 w0 + 3 w1 + w2) x[i] + w0 x[i+1]
      4 y[2i+1] = w2 x[i-1] + (w0 + 3 w1 + 3 w2) x[i] + (3 w0 + w1) x[i+1].

    So each of the four phases of a pixel is a 3×3 convolution. There are 36 taps in
    place of 9, but large arrays are written and read half as often, and TPUs have
    their 128 lanes full from 32 channels on. Its derivatives are of the same kind.
    """
    inputs, outputs = kernel.shape[2:]
    rows = _fold(kernel.astype(jnp.float32))
    # [column phase, column, row phase, row, I, O].
    both = _fold(jnp.moveaxis(rows, 2, 0))
    folded = both.transpose(3, 1, 4, 2, 0, 5).reshape(3, 3, inputs, 4 * outputs)
    y = convolutions.direct_conv3x3(x, folded.astype(x.dtype), precision)
    return _depth_to_space(y)


def _fold(kernel: jax.Array) -> jax.Array:
    """Taps [phase, pixel, …] of a kernel [tap, …] and the FIR, along one axis."""
    fold = (_FOLD / 4).reshape(*_FOLD.shape, *[1] * (kernel.ndim - 1))
    return jnp.sum(fold * kernel, axis=2)


def _chosen_upsampling(x: jax.Array, kernel: jax.Array, precision: str) -> Bilinear:
    """Form of `upsample_conv3x3` for accelerators, derivatives included.

    Neither form has zeros between pixels in its derivatives, as the transposed
    convolution has them in forward mode and by the kernel.
    """
    exact = products.precision_of(x.dtype, precision) == products.EXACT
    if exact or kernel.shape[2] > _AT_ONCE_CHANNELS:
        return upsample_conv3x3_by_phases
    return upsample_conv3x3_at_once


def _upsample_tangent(
    x: jax.Array, kernel: jax.Array, precision: str, *, swap: bool = False
) -> jax.Array:
    """`upsample_conv3x3` in the form whose derivatives are quick."""
    on_cpu: Bilinear = _upsample_by_kernel
    if swap:
        on_cpu = functools.partial(upsample_conv3x3_by_phases, swap=True)
        if 2 * x.shape[2] >= _STRIDED_GRADIENT:
            on_cpu = functools.partial(_upsample_by_spreading, swap=True)
        elif min(kernel.shape[2:]) >= _PRODUCTS_CHANNELS:
            on_cpu = _upsample_by_taps
    default = _chosen_upsampling(x, kernel, precision)

    # Reverse mode would keep the number of the platform for later, and choose when the
    # program runs; what is computed anew, it chooses when the program is compiled.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chosen(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _by_platform(x, kernel, precision, cpu=on_cpu, default=default)

    return chosen(x, kernel)


def _upsample_by_spreading(
    x: jax.Array, kernel: jax.Array, precision: str, *, swap: bool = False
) -> jax.Array:
    """`upsample_conv3x3` whose transpose is the FIR, then a convolution of stride 2.

    So here it is a convolution of the spread pixels, then the FIR written as a sum of
    shifted images, which transposes into one of slices.
    """
    around, turned = ((2, 2), (2, 2)), kernel[::-1, ::-1]
    y = convolutions.convolve(x, turned, around, precision, spread=2, swap=swap)
    for axis in (1, 2):
        shifted = [_pad(y, axis, by, 3 - by) for by in range(4)]
        y = (shifted[0] + shifted[3]) / 4 + (shifted[1] + shifted[2]) * 0.75
        y = lax.slice_in_dim(y, 2, y.shape[axis] - 2, axis=axis)
    return y


@convolutions.with_tangent(_upsample_tangent)
def upsample_conv3x3(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """Transposed convolution of stride 2, then the FIR [1, 3, 3, 1] per axis.

    Args:
      x: [B, H, W, I].
      kernel: [3, 3, I, O], as the official PyTorch code stores it.
      precision: precision of the products in float32: highest, high or default.

    Returns:
      [B, 2H, 2W, O].
    """
    on_cpu = convolutions.on_cpu(x, upsample_conv3x3_by_phases, _upsample_by_product)
    default = _chosen_upsampling(x, kernel, precision)
    return _by_platform(x, kernel, precision, cpu=on_cpu, default=default)


def upsample_rgb(x: jax.Array) -> jax.Array:
    """Image [B, 2H, 2W, C] of [B, H, W, C], by the FIR [1, 3, 3, 1] per axis.

    Zero insertion and the FIR with a gain of 2 give, along one axis,
    y[2i] = (x[i-1] + 3 x[i]) / 4 and y[2i+1] = (3 x[i] + x[i+1]) / 4.
    """
    for axis in (1, 2):
        before, after = _pad(x, axis, 1, -1), _pad(x, axis, -1, 1)
        x = _interleave((before + 3 * x) / 4, (3 * x + after) / 4, axis)
    return x


def _pad(x: jax.Array, axis: int, low: int, high: int) -> jax.Array:
    """Zeros at the ends of an axis; negative numbers take pixels away."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (low, high, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def _depth_to_space(x: jax.Array) -> jax.Array:
    """Image [B, 2H, 2W, C] of one [B, H, W, 4·C], whose channels are four pixels."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).swapaxes(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    """Array whose slices along an axis are from both in turn."""
    shape = list(even.shape)
    shape[axis] *= 2
    return jnp.stack([even, odd], axis=axis + 1).reshape(shape)


def _interleave_fir(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    """FIR over the phases e[0…n] and o[-1…n] of a transposed convolution."""
    n = even.shape[axis] - 1
    first, last = (lax.slice_in_dim(even, i, i + n, axis=axis) for i in range(2))
    before, here, after = (lax.slice_in_dim(odd, i, i + n, axis=axis) for i in range(3))
    return _interleave(
        (before + last) / 4 + (first + here) * 0.75,
        (first + after) / 4 + (here + last) * 0.75,
        axis,
    )
