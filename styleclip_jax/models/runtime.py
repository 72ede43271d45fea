"""Runtime of networks: how they are computed, which is no part of what they are."""

import contextlib
import dataclasses
from typing import Any

import jax

from styleclip_jax import checks
from styleclip_jax.settings.networks import DTYPES, PRECISIONS

# Metadata of a field that model directories do not store.
UNSTORED = {"stored": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Products(checks.Config):
    """Base of configurations: how exactly matrices are multiplied.

    Attributes:
      precision: precision of the products in float32, one of PRECISIONS: what an
        accelerator may round; a CPU multiplies exactly always.
    """

    precision: str = dataclasses.field(default="highest", metadata=UNSTORED)

    def __post_init__(self) -> None:
        checks.one_of(self, precision=PRECISIONS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime(Products):
    """Base of configurations: type, precision and memory of the computation.

    Attributes:
      dtype: "float32", or "bfloat16" for activations; results are float32 always.
      remat: whether a gradient computes the blocks again instead of keeping their
        activations, which takes less memory and more time.
    """

    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, dtype=DTYPES)

    def multiply(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which matrix products have the precision."""
        # On accelerators JAX multiplies float32 matrices in less than float32 by
        # default.
        exact = self.dtype == "float32"
        return jax.default_matmul_precision(self.precision if exact else "default")


def stored(config: Any) -> dict[str, Any]:
    """Fields of a configuration that a model directory stores, by name."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.metadata.get("stored", True)
    }
