"""Latent directions: steps in W and W+ as steps in S, and those of the weights (SeFa).

The style of layer l is an affine map of its row of W+, s_l = A_l w_l + b_l. So a step
in W+ is a step in S, for all latents the same and whatever its length,

  s_l(w + αΔw) − s_l(w) = α A_l Δw_l,

toRGB layers included. SeFa asks which unit step n in W moves the styles of some layers
most: max |A n|² = nᵀ AᵀA n, for A the stacked A_l, is solved by the eigenvectors of AᵀA
in the order of their eigenvalues.

Source: Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs".
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from styleclip_jax import spaces
from styleclip_jax.methods.global_directions import Direction
from styleclip_jax.models import generators
from styleclip_jax.ops import norms, products


class Factors(NamedTuple):
    """Factors of the weights.

    Attributes:
      step: [D, D] unit steps in W, a row each, the one that moves styles most first.
      value: [D] their eigenvalues, descending.
    """

    step: jax.Array
    value: jax.Array


def to_direction(generator: generators.Generator, delta: jax.Array) -> Direction:
    """Direction in S of a step in W+.

    Args:
      generator: the generator.
      delta: [L, D] step in W+.

    Returns:
      The direction Δs with s(w + αΔw) = s(w) + αΔs.

    Raises:
      ValueError: the step does not fit the generator.
    """
    step = spaces.flatten_styles(_styles_of(generator, delta[None]))[0]
    return Direction(step, generator.config.style_layout)


def factorize(generator: generators.Generator, layers: Sequence[int]) -> Factors:
    """Steps in W that move the styles of some layers most.

    Every channel's row of A counts with length 1; of a step and its opposite, the one
    whose largest entry is positive is taken.

    Args:
      generator: the generator.
      layers: indices of the layers in the layout of S.

    Source: `factorize_weight` of the official code, which scales the rows of A too.
    """
    length, rows = generator.config.w_dim, generator.config.num_rows
    basis = spaces.broadcast_w(jnp.eye(length), rows)
    moved = _styles_of(generator, basis)
    weights = jnp.concatenate([moved[i] for i in layers], axis=1)
    weights = norms.unit_by_rsqrt(weights.T).T
    squares = jnp.matmul(weights, weights.T, precision=products.EXACT)
    value, vectors = jnp.linalg.eigh(squares)
    step = vectors.T[::-1]
    largest = jnp.argmax(jnp.abs(step), axis=1, keepdims=True)
    sign = jnp.sign(jnp.take_along_axis(step, largest, axis=1))
    return Factors(step * sign, value[::-1])


def in_layers(
    step: jax.Array, layout: Sequence[spaces.StyleLayer], layers: Sequence[int]
) -> jax.Array:
    """Step [L, D] in W+ of a step [D] in W, in the rows of some layers alone."""
    rows = sorted({layout[i].row for i in layers})
    count = max(layer.row for layer in layout) + 1
    return jnp.zeros((count, len(step))).at[jnp.array(rows)].set(step)


def _styles_of(generator: generators.Generator, delta: spaces.WPlus) -> spaces.Styles:
    """Linear part A Δw [N, C] per layer of the styles of steps [N, L, D]."""
    # The derivative of an affine map is its linear part, without rounding of the bias.
    _, moved = jax.jvp(
        lambda w_plus: generators.to_styles(generator, w_plus),
        (jnp.zeros_like(delta),),
        (delta,),
    )
    return moved
