"""Computation of the networks of a work: how exactly, in which type, in what memory.

Model directories say what networks are; this says how they are computed, and is applied
when they are loaded.
"""

import dataclasses
from typing import Any

from styleclip_jax import parallel
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.settings.networks import ComputationSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation(ComputationSettings):
    """Computation of the networks of a work, by its settings."""

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
