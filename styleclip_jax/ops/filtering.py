"""Low-pass filters of images, and leaky ReLU between two of them.

Signals between the filters are kept by phases: of an axis of 2 n pixels, the even and
the odd ones as two arrays. A filter is then a weighted sum of shifted arrays, without
zeros between pixels, and so is its gradient. Measured: docs/measurements.md.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax.ops import bilinear

# Kaiser's β by the attenuation in decibels: below 21 none, up to 50, and above.
_LOW, _HIGH = 21, 50
# Pixels so many bytes apart share lines of a CPU's cache; so many more channels part
# them.
_SHARED_BYTES, _APART = 2048, 16


def lowpass(
    num_taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False
) -> np.ndarray:
    """Taps of a low-pass filter, a windowed sinc, or in two dimensions a jinc.

    With t the place of a tap in units of the signal and w Kaiser's window,

      f(t) = 2 c sinc(2 c t) · w       or, of r = |(x, y)|,   J₁(2π c r) / r · w_x w_y.

    Args:
      num_taps: number of taps along an axis.
      cutoff: frequency c where the filter halves, in cycles per unit.
      width: width of the transition from pass to stop.
      rate: samples per unit.
      radial: whether the filter is round, and not the product of one for each axis.

    Returns:
      [num_taps] float32 of sum 1, or [num_taps, num_taps].

    Source: Karras et al. 2021, appendix B and C; Kaiser 1974 for the window.
    """
    attenuation = 2.285 * (num_taps - 1) * np.pi * width / (rate / 2) + 7.95
    if attenuation > _HIGH:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        above = max(attenuation - _LOW, 0.0)
        beta = 0.5842 * above**0.4 + 0.07886 * above
    window: np.ndarray = np.kaiser(num_taps, beta)
    t = (np.arange(num_taps) - (num_taps - 1) / 2) / rate
    if radial:
        r = np.hypot(*np.meshgrid(t, t))
        from scipy import special

        taps = special.j1(2 * cutoff * np.pi * r) / (np.pi * r)
        window = np.outer(window, window)
    else:
        taps = np.sinc(2 * cutoff * t)
    taps = taps * window
    return (taps / taps.sum()).astype(np.float32)


class _Sum(NamedTuple):
    """Weighted sum of shifted images, which are zero outside of their pixels:

    y[i, j] = Σ taps[a, b] x[i + a + top, j + b + left].

    Attributes:
      taps: rows of weights.
      start: top and left.
      size: height and width of the result.
    """

    taps: tuple[tuple[float, ...], ...]
    start: tuple[int, int]
    size: tuple[int, int]


def _add_shifted(
    x: jax.Array, *, plan: _Sum, more: tuple[int, int] = (0, 0)
) -> jax.Array:
    """The sum as one loop, in float32, with more rows and channels than it needs."""
    count = len(plan.taps), len(plan.taps[0])
    ends = [
        (-first, size + first + taps - 1 - old)
        for first, size, taps, old in zip(
            plan.start, plan.size, count, x.shape[1:3], strict=True
        )
    ]
    rows, apart = more
    (top, bottom), across = ends
    bottom = max(bottom, 0) + rows if rows else bottom
    padding = ((0, 0, 0), (top, bottom, 0), (*across, 0), (0, apart, 0))
    # The barrier keeps XLA from computing again, for each tap, what x comes of.
    x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), padding))
    total: Any = None
    batch, (height, width), channels = x.shape[0], plan.size, x.shape[-1] - apart
    for row, weights in enumerate(plan.taps):
        for column, weight in enumerate(weights):
            # `lax` alone: tracing takes as long as compiling otherwise.
            start = (0, row, column, 0)
            shifted = lax.slice(
                x, start, (batch, row + height, column + width, channels)
            )
            part = lax.mul(shifted.astype(jnp.float32), weight)
            total = part if total is None else lax.add(total, part)
    return total.astype(x.dtype)


def _add_shifted_on_cpu(x: jax.Array, *, plan: _Sum) -> jax.Array:
    """The sum of an image with one row more, and perhaps channels.

    XLA does not see through what is padded; a barrier alone it takes away too early.
    Where rows and columns of taps would share lines of the cache, channels part them.
    """
    is_round = len(plan.taps) > 1 and len(plan.taps[0]) > 1
    shares = x.shape[-1] * x.dtype.itemsize % _SHARED_BYTES == 0
    more = (1, _APART if is_round and shares else 0)
    return _add_shifted(x, plan=plan, more=more)


def _gradient(g: jax.Array, x: Any, *, plan: _Sum) -> jax.Array:
    """Gradient of the sum by x: the same with its taps turned, shifted back."""
    turned = tuple(row[::-1] for row in plan.taps[::-1])
    count = len(turned), len(turned[0])
    top, left = (1 - n - first for n, first in zip(count, plan.start, strict=True))
    return _SUM(g, plan=_Sum(turned, (top, left), x.shape[1:3]))


_SUM = bilinear.define_linear(
    "add_shifted",
    static="plan",
    default=_add_shifted,
    cpu=_add_shifted_on_cpu,
    adjoint=_gradient,
)


class Filters(NamedTuple):
    """Filters around an activation, by `lowpass`, and how they resample.

    Attributes:
      up: factor of the upsampling before the activation.
      down: factor of the downsampling after it, which divides `up`.
      up_taps: [T] taps of the filter of upsampled images, for both axes.
      down_taps: [T] for both axes, or [T, T].
      padding: zeros before and after the upsampled pixels of each axis; negative ones
        take pixels away.
      size: height and width of the result.
    """

    up: int
    down: int
    up_taps: np.ndarray
    down_taps: np.ndarray
    padding: tuple[int, int]
    size: int


# Images of each phase: of the rows, then of the columns.
_Phases = list[list[jax.Array]]


def between(
    x: jax.Array, filters: Filters, activate: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Activation of an image that is upsampled before it and downsampled after it.

    Args:
      x: [B, H, H, C].
      filters: the filters.
      activate: pointwise function.

    Returns:
      [B, size, size, C].

    Source: Karras et al. 2021, figure 4b.
    """
    phases = [
        _upsample(rows, filters, axis=2) for rows in _upsample(x, filters, axis=1)
    ]
    phases = [[activate(phase) for phase in row] for row in phases]
    return _downsample(phases, filters)


def _upsample(x: jax.Array, filters: Filters, axis: int) -> list[jax.Array]:
    """Phases, `down` of them, of an image upsampled along an axis.

    With n zeros in front of the pixels, u apart,

      y[u q + r] = u Σ_j f[u j − r + n] x[q + j].
    """
    up, taps, (before, after) = filters.up, filters.up_taps, filters.padding
    length = x.shape[axis] * up + before + after - len(taps) + 1
    phases = []
    for phase in range(up):
        first = -((before - phase) // up)
        weights = up * taps[up * first - phase + before :: up]
        phases.append(_along(x, weights, axis, first, -(-length // up)))
    # Of 4 phases, the first and third are the even pixels.
    together = up // filters.down
    return (
        [_interleave(phases[i :: filters.down], axis) for i in range(filters.down)]
        if (together > 1)
        else phases
    )


def _interleave(phases: Sequence[jax.Array], axis: int) -> jax.Array:
    """Image whose pixels along an axis are from phases in turn."""
    shape = list(phases[0].shape)
    shape[axis] *= len(phases)
    return jnp.stack(phases, axis=axis + 1).reshape(shape)


def _downsample(phases: _Phases, filters: Filters) -> jax.Array:
    """Image of phases, y[i] = Σ_r Σ_k f[d k + r] x_r[i + k] along each axis."""
    down, taps, size = filters.down, filters.down_taps, filters.size
    if taps.ndim == 2:
        parts = [
            _add(phases[r][c], taps[r::down, c::down], (0, 0), (size, size))
            for r in range(down)
            for c in range(down)
        ]
        return functools.reduce(jnp.add, parts)

    def along(phases: Sequence[jax.Array], axis: int) -> jax.Array:
        parts = [
            _along(phase, taps[r::down], axis, 0, size)
            for r, phase in enumerate(phases)
        ]
        return functools.reduce(jnp.add, parts)

    return along([along(row, axis=2) for row in phases], axis=1)


def _along(
    x: jax.Array, weights: np.ndarray, axis: int, first: int, size: int
) -> jax.Array:
    """Weighted sum of an image shifted along an axis."""
    if axis == 1:
        return _add(x, weights[:, None], (first, 0), (size, x.shape[2]))
    return _add(x, weights[None], (0, first), (x.shape[1], size))


def _add(
    x: jax.Array, weights: np.ndarray, start: tuple[int, int], size: tuple[int, int]
) -> jax.Array:
    taps = tuple(tuple(map(float, row)) for row in weights)
    return _SUM(x, plan=_Sum(taps, start, size))
