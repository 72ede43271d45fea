"""3×3 convolution by Winograd's algorithm, with a quarter or a half of the products.

Along one axis, the four values y = Aᵀ[(G k) ⊙ (Bᵀ x)] are the convolution of six
neighbouring pixels x with three taps k, by six multiplications instead of twelve; two
values are one of four pixels, by four multiplications instead of six. With both axes,
a tile of 6×6 (or 4×4) pixels and all channels c:

  Y = Aᵀ [Σ_c (G K_c Gᵀ) ⊙ (Bᵀ X_c B)] A   (Lavin and Gray 2016, section 4.3).

For each of the 36 (16) positions the sum over c is a matrix product of all tiles at
once. With one axis only, each of six positions is a convolution along the other axis:
half of the multiplications, for less traffic.

Bᵀ, G and Aᵀ for four values are those of the points 0, ±1, ±2 and ∞; their entries up
to 8 cost about two decimal digits of float32. For two values the points ±2 are missing,
and nearly no digits are lost; the transformed kernel is half as large, which counts
where it is larger than the images.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Values of an axis at once, where nothing else is said.
TILE = 4

_Matrix = tuple[tuple[float, ...], ...]


class _Transforms(NamedTuple):
    """Matrices of an axis: Bᵀ, G and Aᵀ."""

    input: _Matrix
    kernel: _Matrix
    output: _Matrix


_TRANSFORMS = {
    2: _Transforms(
        input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        kernel=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        output=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: _Transforms(
        input=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        kernel=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        output=(
            (1, 1, 1, 1, 1, 0),
            (0, 1, -1, 2, -2, 0),
            (0, 1, 1, 4, 4, 0),
            (0, 1, -1, 8, -8, 1),
        ),
    ),
}


def fits(height: int, width: int) -> bool:
    """Whether whole tiles cover an image."""
    return height % TILE == width % TILE == 0


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
    matrices = _TRANSFORMS[TILE]
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
            _combine(matrices.input, _windows(x, TILE, axis=1)),
            _combine(matrices.kernel, list(kernel)),
            strict=True,
        )
    ]
    lines = jnp.stack(_combine(matrices.output, products), axis=2)
    return lines.reshape(batch, height, width, kernel.shape[3])


def conv3x3(
    x: jax.Array,
    kernel: jax.Array,
    precision: str,
    *,
    transposed: bool = False,
    tile: int = TILE,
) -> jax.Array:
    """F(4×4, 3×3) or F(2×2, 3×3): convolution with zero padding, same size.

    Args:
      x: [B, H, W, I], H and W multiples of `tile`.
      kernel: [3, 3, I, O].
      precision: precision of the products: highest, high or default.
      transposed: the transpose of the convolution, of [B, H, W, O]: with the kernel
        turned, and channels swapped by the products, since XLA would combine the taps
        of a kernel that is swapped before ten times as slowly.
      tile: values of an axis at once, 4 or 2.

    Returns:
      [B, H, W, O], or [B, H, W, I] of the transpose.

    Raises:
      ValueError: H or W is no multiple of `tile`.
    """
    matrices, equation = _TRANSFORMS[tile], "bhwi,io->bhwo"
    if transposed:
        kernel, equation = kernel[::-1, ::-1], "bhwo,io->bhwi"
    kernel_by_row = _combine(matrices.kernel, list(kernel))

    products = [
        [
            jnp.einsum(equation, pixels, weight, precision=precision)
            for pixels, weight in zip(
                _combine(matrices.input, _windows(part, tile, axis=2)),
                _combine(matrices.kernel, list(kernel_part)),
                strict=True,
            )
        ]
        for part, kernel_part in zip(_by_row(x, tile), kernel_by_row, strict=True)
    ]

    # Stacked when they are done, rows are computed once, too.
    by_column = [
        jnp.stack(_combine(matrices.output, column), axis=2)
        for column in zip(*products, strict=True)
    ]
    y = jnp.stack(_combine(matrices.output, by_column), axis=4)
    return y.reshape(*x.shape[:3], -1)


def conv3x3_kernel_gradient(x: jax.Array, g: jax.Array, precision: str) -> jax.Array:
    """F(3×3, 4×4): gradient of `conv3x3` by its kernel, with a quarter of the products.

    The transpose of its formula: Gᵀ [Σ (Bᵀ X B) ⊙ (A dY Aᵀ)] G, over all tiles.

    Args:
      x: images [B, H, W, I], H and W multiples of 4.
      g: gradient by the result, [B, H, W, O].
      precision: precision of the products: highest, high or default.

    Returns:
      [3, 3, I, O].

    Raises:
      ValueError: H or W is no multiple of 4.
    """
    batch, height, width, outputs = g.shape
    inputs, matrices = x.shape[3], _TRANSFORMS[TILE]
    to_values, to_taps = _transpose(matrices.output), _transpose(matrices.kernel)
    lines = g.reshape(batch, height // TILE, TILE, width, outputs)
    # Stacked, positions are computed once, and their products are one call.
    g_by_row = jnp.stack(_combine(to_values, [lines[:, :, i] for i in range(TILE)]))
    g_by_row = g_by_row.reshape(*g_by_row.shape[:3], -1, TILE, outputs)
    by_row = []
    for part, g_part in zip(_by_row(x, TILE), g_by_row, strict=True):
        pixels = jnp.stack(_combine(matrices.input, _windows(part, TILE, axis=2)))
        g_parts = [g_part[:, :, :, i] for i in range(TILE)]
        values = jnp.stack(_combine(to_values, g_parts))
        products = lax.dot_general(
            pixels.reshape(len(pixels), -1, inputs),
            values.reshape(len(values), -1, outputs),
            (((1,), (1,)), ((0,), (0,))),
            precision=precision,
        )
        by_row.append(jnp.stack(_combine(to_taps, list(products))))
    return jnp.stack(_combine(to_taps, by_row))


def _by_row(x: jax.Array, tile: int) -> list[jax.Array]:
    """Bᵀ X of tiles: for each of their rows [B, H / tile, W / tile + 1, tile, I].

    One pixel is added before the first tile, and behind the last one what fills another
    tile. An axis is padded when it is taken: XLA for CPUs would else compute one axis
    anew for each position of the other.

    Raises:
      ValueError: H or W is no multiple of `tile`.
    """
    batch, height, width, inputs = x.shape
    if height % tile or width % tile:
        raise ValueError(f"expected multiples of {tile}, found {height} by {width}")
    border = (1, tile - 1)
    x = jnp.pad(x, ((0, 0), border, (0, 0), (0, 0)))
    x = x.reshape(batch, -1, tile, width, inputs)
    return [
        jnp.pad(part, ((0, 0), (0, 0), border, (0, 0))).reshape(
            batch, height // tile, -1, tile, inputs
        )
        for part in _combine(_TRANSFORMS[tile].input, _windows(x, tile, axis=1))
    ]


def _transpose(matrix: _Matrix) -> _Matrix:
    return tuple(zip(*matrix, strict=True))


def _windows(x: jax.Array, tile: int, axis: int) -> list[jax.Array]:
    """The pixels of each tile, two more than values; [tiles + 1, tile] → [tiles]."""

    def take(i: int) -> jax.Array:
        tiles = lax.index_in_dim(x, i % tile, axis + 1, keepdims=False)
        first = i // tile
        return lax.slice_in_dim(tiles, first, first + x.shape[axis] - 1, axis=axis)

    return [take(i) for i in range(tile + 2)]


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
