"""Runtime of networks: how they are computed, which is no part of what they are."""

import abc
import contextlib
import dataclasses
from typing import Any

import jax

from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.settings.networks import DTYPES, PRECISIONS

# Metadata of a field that model directories do not store, and of one that they store
# only where it is not the default.
UNSTORED = {"stored": False}
STORED_IF_GIVEN = {"stored": "if given"}


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staged(Runtime, abc.ABC):
    """Base of configurations of features at several resolutions.

    Attributes:
      low_precision_from: resolution from which `dtype` applies, None for all; those
        below it stay in float32.
    """

    low_precision_from: int | None = dataclasses.field(default=None, metadata=UNSTORED)

    @property
    @abc.abstractmethod
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions of the features, powers of two, the smallest first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        lowest = self.low_precision_from
        if lowest is None:
            return
        known = self.resolutions
        if lowest not in known:
            raise UserError(
                f"low_precision_from must be a resolution of this network, a power "
                f"of two from {known[0]} to {known[-1]}, found {lowest}",
                field="low_precision_from",
            )
        if self.dtype == "float32":
            raise UserError(
                "low_precision_from is for dtype bfloat16, found float32 with "
                f"{lowest}",
                field="low_precision_from",
            )

    def dtype_at(self, resolution: int) -> str:
        """Type of the activations at a resolution."""
        return self.dtype if resolution >= (self.low_precision_from or 0) else "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pyramid(Staged):
    """Base of configurations of features at 4², 8², …, `resolution`².

    They have `resolution` and `channels`, a count for each of these.
    """

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, …, `resolution`."""
        config: Any = self
        return tuple(4 << i for i in range(len(config.channels)))

    def __post_init__(self) -> None:
        config: Any = self
        resolution, channels = config.resolution, config.channels
        if resolution < 8 or resolution & (resolution - 1):
            raise UserError(
                f"resolution must be a power of two from 8 up, found {resolution}",
                field="resolution",
            )
        expected = resolution.bit_length() - 2
        if len(channels) != expected:
            raise UserError(
                f"a network of {resolution}² has {expected} resolutions from 4² up, "
                f"found {len(channels)} channel counts {channels}"
            )
        super().__post_init__()


def stored(config: Any) -> dict[str, Any]:
    """Fields of a configuration that a model directory stores, by name."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if (stored := field.metadata.get("stored", True))
        if stored is True or getattr(config, field.name) != field.default
    }
