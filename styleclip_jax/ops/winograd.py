"""3×3 convolution by Winograd's algorithm, with a quarter or a half of the products.

Along one axis, the four values y = Aᵀ[(G k) ⊙ (Bᵀ x)] are the convolution of six
neighbouring pixels x with three taps k, by six multiplications instead of twelve. With
both axes, a tile of 6×6 pixels and all channels c:

  Y = Aᵀ [Σ_c (G K_c Gᵀ) ⊙ (Bᵀ X_c B)] A   (Lavin and Gray 2016, section 4.3).

For each of the 36 positions the sum over c is a matrix product of all tiles at once.
With one axis only, each of six positions is a convolution along the other axis: half
of the multiplications, for less traffic.

Bᵀ, G and Aᵀ are those of the points 0, ±1, ±2 and ∞; their entries up to 8 cost about
two decimal digits of float32.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

TILE = 4
_POSITIONS = 6

_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def conv3x3_by_rows(
    x: jax.Array, kernel: jax.Array, precision: str, *, transposed: bool = False
) -> jax.Array:
    """F(4, 3) along the height: convolution with zero padding, same size.

    Args:
      x: [B, H, W, I], H a multiple of 4.
      kernel: [3, 3, I, O].
      precision: precision of the products: highest, high or default.
      transposed: the transpose of the convolution, of [B, H, W, O].

    Returns:
      [B, H, W, O], or [B, H, W, I] of the transpose.

    Raises:
      ValueError: H is no multiple of 4.
    """
    batch, height, width, inputs = x.shape
    if height % TILE:
        raise ValueError(f"expected a height of multiples of {TILE}, found {height}")
    if transposed:
        # Behind a barrier, the quick kernels of XLA for CPUs take it in loops, too.
        kernel = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    x = jnp.pad(x, ((0, 0), (1, TILE - 1), (0, 0), (0, 0)))
    x = x.reshape(batch, -1, TILE, width, inputs)
    products = [
        lax.conv_general_dilated(
            tile,
            weight[None],
            window_strides=(1, 1),
            padding=((0, 0), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )
        for tile, weight in zip(
            _combine(_INPUT, _windows(x, axis=1)),
            _combine(_KERNEL, list(kernel)),
            strict=True,
        )
    ]
    lines = jnp.stack(_combine(_OUTPUT, products), axis=2)
    return lines.reshape(batch, height, width, kernel.shape[3])


def conv3x3(
    x: jax.Array, kernel: jax.Array, precision: str, *, transposed: bool = False
) -> jax.Array:
    """F(4×4, 3×3): convolution with zero padding, same size.

    Args:
      x: [B, H, W, I], H and W multiples of 4.
      kernel: [3, 3, I, O].
      precision: precision of the products: highest, high or default.
      transposed: the transpose of the convolution, of [B, H, W, O]: with the kernel
        turned, and channels swapped by the products, since XLA would combine the taps
        of a kernel that is swapped before ten times as slowly.

    Returns:
      [B, H, W, O], or [B, H, W, I] of the transpose.

    Raises:
      ValueError: H or W is no multiple of 4.
    """
    batch, height, width, inputs = x.shape
    if height % TILE or width % TILE:
        raise ValueError(f"expected multiples of {TILE}, found {height} by {width}")
    rows, columns = height // TILE, width // TILE
    equation = "bhwi,io->bhwo"
    if transposed:
        kernel, equation = kernel[::-1, ::-1], "bhwo,io->bhwi"

    # One pixel before the first tile; behind the last one what fills another tile.
    border = (1, TILE - 1)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    x = x.reshape(batch, rows + 1, TILE, -1, inputs)
    # The barriers keep XLA from computing one axis anew for each position of the other.
    by_row = lax.optimization_barrier(_combine(_INPUT, _windows(x, axis=1)))
    kernel_by_row = _combine(_KERNEL, list(kernel))

    products = []
    for part, kernel_part in zip(by_row, kernel_by_row, strict=True):
        part = part.reshape(batch, rows, columns + 1, TILE, inputs)
        products.append(
            [
                jnp.einsum(equation, tile, weight, precision=precision)
                for tile, weight in zip(
                    _combine(_INPUT, _windows(part, axis=2)),
                    _combine(_KERNEL, list(kernel_part)),
                    strict=True,
                )
            ]
        )

    sums = [_combine(_OUTPUT, column) for column in zip(*products, strict=True)]
    sums = lax.optimization_barrier(sums)
    lines = [
        jnp.stack(_combine(_OUTPUT, row), axis=3) for row in zip(*sums, strict=True)
    ]
    return jnp.stack(lines, axis=2).reshape(batch, height, width, -1)


def _windows(x: jax.Array, axis: int) -> list[jax.Array]:
    """The six pixels of each tile; [tiles + 1, 4] at an axis becomes [tiles]."""

    def take(i: int) -> jax.Array:
        tiles = lax.index_in_dim(x, i % TILE, axis + 1, keepdims=False)
        first = i // TILE
        return lax.slice_in_dim(tiles, first, first + x.shape[axis] - 1, axis=axis)

    return [take(i) for i in range(_POSITIONS)]


def _combine(
    matrix: Sequence[Sequence[float]], parts: Sequence[jax.Array]
) -> list[jax.Array]:
    """Matrix times vector of arrays, without what is multiplied by zero."""
    return [
        functools.reduce(
            jnp.add,
            [
                part if c == 1 else c * part
                for c, part in zip(row, parts, strict=True)
                if c
            ],
        )
        for row in matrix
    ]
