"""Products of matrices, convolutions among them: how exactly a device computes them.

A CPU multiplies float32 exactly always; an accelerator as exactly as it is asked to.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax

# Precision of what no setting rounds: norms, similarities, relevance, 8-bit pixels.
# They are measurements, or tables that files keep, and too small to gain by rounding.
# So is the mapping of z to w: with TF32 it moved images of seeds by up to 111 levels.
EXACT = lax.Precision.HIGHEST


def precision_of(dtype: Any, asked: str) -> lax.Precision:
    """Precision of products of a type: the one asked for in float32, else the default.

    Args:
      dtype: type of the factors; bfloat16 has no more digits to multiply.
      asked: highest, high or default.
    """
    return lax.Precision(asked) if dtype == jnp.float32 else lax.Precision.DEFAULT
