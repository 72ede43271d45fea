"""Computation of the networks of a work: how exactly, in which type, in what memory.

Model directories say what networks are; this says how they are computed, and is applied
when they are loaded.
"""

import dataclasses
from typing import Any

from styleclip_jax import checks, parallel
from styleclip_jax.models import clip, runtime
from styleclip_jax.models.network import Network

# Fields of `Computation` that a generator sees, whether or not it has gradients, and
# those of a CLIP.
GENERATOR_FIELDS = ("precision", "dtype", "low_precision_from")
CLIP_FIELDS = ("clip_precision", "clip_dtype")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation(checks.Config):
    """Computation of the networks of a work.

    Attributes:
      precision: Precision of products in float32, in all networks but CLIP: highest,
        or what the device makes of high and default, see docs/scale.md. A CPU is exact
        always. If absent, high for generators on accelerators, else highest.
      dtype: Type of a generator's activations.
      low_precision_from: Resolution of the generator from which dtype applies, such as
        128; all if absent.
      remat: Compute a generator's and a CLIP's blocks again for gradients, which takes
        less memory and more time.
      clip_precision: Precision of CLIP's products in float32. A CLIP in low precision
        guides badly.
      clip_dtype: Type of CLIP's activations.
    """

    precision: str | None = dataclasses.field(
        default=None, metadata={"choices": runtime.PRECISIONS}
    )
    dtype: str = dataclasses.field(
        default="float32", metadata={"choices": runtime.DTYPES}
    )
    low_precision_from: int | None = None
    remat: bool = False
    clip_precision: str = dataclasses.field(
        default="highest", metadata={"choices": runtime.PRECISIONS}
    )
    clip_dtype: str = dataclasses.field(
        default="float32", metadata={"choices": runtime.DTYPES}
    )

    def __post_init__(self) -> None:
        if self.precision is not None:
            checks.one_of(self, precision=runtime.PRECISIONS)
        checks.one_of(self, dtype=runtime.DTYPES, clip_dtype=runtime.DTYPES)
        checks.one_of(self, clip_precision=runtime.PRECISIONS)

    @property
    def generator_precision(self) -> str:
        """Precision of the generator; by the device if none was asked for."""
        return self.precision or parallel.generator_precision()

    def of_generator(self, network: Network) -> Network:
        """Generator that is computed so.

        Raises:
          UserError: low_precision_from is no resolution of it.
        """
        return _replace(
            network,
            precision=self.generator_precision,
            dtype=self.dtype,
            low_precision_from=self.low_precision_from,
            remat=self.remat,
        )

    def of_clip(self, network: clip.Clip) -> clip.Clip:
        """CLIP that is computed so, one of a single family."""
        return _replace(
            network,
            precision=self.clip_precision,
            dtype=self.clip_dtype,
            remat=self.remat,
        )

    def of_other(self, network: Network) -> Network:
        """Identity network, encoder or mapper that is computed so."""
        return _replace(network, precision=self.precision or "highest")

    def record(self) -> dict[str, Any]:
        """Settings by the names of the flags, for run.json; None for the exact one.

        Records from before these settings have none of them, and were exact.
        """
        exact = Computation(precision="highest")
        now = dataclasses.replace(self, precision=self.generator_precision)
        return {
            field.name: value if value != getattr(exact, field.name) else None
            for field in dataclasses.fields(Computation)
            for value in [getattr(now, field.name)]
        }


def _replace(network: Network, **changes: Any) -> Network:
    config = dataclasses.replace(network.config, **changes)
    return dataclasses.replace(network, config=config)
