"""Precision of products: that of float32 in full, whatever the device."""

from typing import Any

import jax.numpy as jnp
from jax import lax


def of(dtype: Any) -> lax.Precision:
    """Precision of products of this type: highest for float32, else the default."""
    # Accelerators multiply float32 in lower precision unless they are told not to.
    return lax.Precision.HIGHEST if dtype == jnp.float32 else lax.Precision.DEFAULT
