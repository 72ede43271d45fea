"""Products of matrices, convolutions among them: how exactly a device computes them.

A CPU multiplies float32 exactly always; an accelerator as exactly as it is asked to.
"""

import functools
import pathlib
import string
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax.ops import bilinear

# Precision of what no setting rounds: norms, similarities, relevance, 8-bit pixels.
# They are measurements, or tables that files keep, and too small to gain by rounding.
# So is the mapping of z to w: with TF32 it moved images of seeds by up to 111 levels.
EXACT = lax.Precision.HIGHEST

# Instructions of CPUs for products of bfloat16, and where Linux names what a CPU has.
_BFLOAT16_FEATURES = {"amx_bf16", "avx512_bf16"}
_CPU_FEATURES = pathlib.Path("/proc/cpuinfo")


def precision_of(dtype: Any, asked: str) -> lax.Precision:
    """Precision of products of a type: the one asked for in float32, else the default.

    Args:
      dtype: type of the factors; bfloat16 has no more digits to multiply.
      asked: highest, high or default.
    """
    return lax.Precision(asked) if dtype == jnp.float32 else lax.Precision.DEFAULT


@functools.cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether this machine's CPU has instructions for it, as far as Linux tells."""
    if not _CPU_FEATURES.is_file():
        return False
    return bool(_BFLOAT16_FEATURES & set(_CPU_FEATURES.read_text().split()))


def in_float32(form: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Form of two factors that are made float32, and its result their type again."""

    def exactly(x: jax.Array, kernel: jax.Array, *asked: Any, **options: Any) -> Any:
        factors = x.astype(jnp.float32), kernel.astype(jnp.float32)
        return form(*factors, *asked, **options).astype(x.dtype)

    return exactly


def dot(
    x: jax.Array, y: jax.Array, dimension_numbers: Any = None, precision: Any = None
) -> jax.Array:
    """Last axis of x times the first one of y; for `nn.Dense`, too.

    On CPUs with instructions for it, bfloat16 is summed up in float32 and then rounded,
    and so are derivatives. XLA uses these instructions for sums of float32 alone, and
    JAX would differentiate such a product into one of float32 with bfloat16, which is
    none of theirs.

    Args:
      x: [..., I].
      y: [I, O].
      dimension_numbers: as of `lax.dot_general`, which can say this alone.
      precision: precision of the product in float32.

    Returns:
      [..., O].
    """
    numbers = (((x.ndim - 1,), (0,)), ((), ()))
    assert dimension_numbers in (None, numbers)
    if not x.dtype == y.dtype == jnp.bfloat16:
        return lax.dot_general(x, y, numbers, precision=precision)
    rows = x.reshape(-1, x.shape[-1])
    product = _multiply(rows, y, equation="ab,bc->ac")
    return product.reshape(*x.shape[:-1], y.shape[1])


# Each letter of an equation is in two of its three terms.


def _in_bfloat16(x: jax.Array, y: jax.Array, *, equation: str) -> jax.Array:
    return jnp.einsum(equation, x, y)


def _on_cpu(x: jax.Array, y: jax.Array, *, equation: str) -> jax.Array:
    if not cpu_multiplies_bfloat16():
        return _in_bfloat16(x, y, equation=equation)
    total = jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
    return total.astype(x.dtype)


def _gradient_of_x(g: Any, y: Any, *, equation: str) -> Any:
    of_x, of_y, result = _terms(equation)
    return _multiply(g, y, equation=f"{result},{of_y}->{of_x}")


def _gradient_of_y(x: Any, g: Any, *, equation: str) -> Any:
    of_x, of_y, result = _terms(equation)
    return _multiply(x, g, equation=f"{of_x},{result}->{of_y}")


def _batched(x: Any, y: Any, axes: Any, *, equation: str) -> Any:
    batch = next(c for c in string.ascii_uppercase if c not in equation)
    *terms, result = _terms(equation)
    for i, axis in enumerate(axes):
        if axis is not None:
            terms[i] = batch + terms[i]
    x, y = (
        factor if axis is None else jnp.moveaxis(factor, axis, 0)
        for factor, axis in zip((x, y), axes, strict=True)
    )
    return _multiply(x, y, equation=f"{','.join(terms)}->{batch}{result}")


def _terms(equation: str) -> list[str]:
    return equation.replace("->", ",").split(",")


_multiply = bilinear.define(
    "multiply_bfloat16",
    static="equation",
    default=_in_bfloat16,
    cpu=_on_cpu,
    of_x=_gradient_of_x,
    of_y=_gradient_of_y,
    batched=_batched,
)
