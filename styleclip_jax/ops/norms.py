"""Vectors of length 1, cosines of pairs of them, and squares of kernels.

Three ways to length 1 round differently, and results keep their bits with their own:
features of networks are divided as in official codes, measurements are multiplied by
the reciprocal root, and the host divides.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.ops import products

# Below this length a vector counts as none.
_TINY = 1e-12


def unit(x: jax.Array) -> jax.Array:
    """Vectors [..., D] divided by their length, for features of networks.

    Parity: official codes divide, and have no case for zero, which features never are:
    it becomes NaN. A guard against it rounds gradients of identity losses otherwise.
    """
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def unit_by_rsqrt(x: jax.Array) -> jax.Array:
    """Vectors [..., D] times the reciprocal of their length; zero stays zero.

    Those shorter than 1e-12 stay shorter than 1, so that the gradient is bounded.

    Parity: relevance and metrics keep their bits; `unit` rounds otherwise.
    """
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, _TINY**2))


def unit_on_host(x: np.ndarray) -> np.ndarray:
    """Vectors [..., D] divided by their length, by NumPy; zero stays zero."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.where(length > 0, x / np.where(length > 0, length, 1), 0)


def pair_cosines(unit: jax.Array) -> jax.Array:
    """Cosines [..., N (N − 1) / 2] of all pairs of N unit vectors [..., N, D]."""
    cosine = jnp.einsum("...if,...jf->...ij", unit, unit, precision=products.EXACT)
    first, second = np.triu_indices(unit.shape[-2], k=1)
    return cosine[..., first, second]


def kernel_power(kernel: jax.Array) -> jax.Array:
    """Sum of squares over the taps of [h, w, I, O], [I, O].

    Tap by tap, then row by row: XLA's sum over leading axes takes sixty times as long
    on CPUs.
    """
    total = functools.partial(functools.reduce, jnp.add)
    return total([total([jnp.square(tap) for tap in row]) for row in kernel])
