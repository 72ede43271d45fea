"""Computation of the networks of a work: how exactly, in which type, in what memory.

Model directories say what networks are; this says how they are computed, and is applied
when they are loaded.
"""

import dataclasses
from typing import Any

import jax

from styleclip_jax import parallel
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.ops import products
from styleclip_jax.settings.networks import AUTO, ComputationSettings

# Compute capability from which NVIDIA's cards have products of bfloat16.
_BFLOAT16_CAPABILITY = 8.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation(ComputationSettings):
    """Computation of the networks of a work, by its settings."""

    @property
    def settled(self) -> "Computation":
        """The same with what the device decides: precision, and types that are auto."""
        dtype = _settle(self.dtype)
        by_auto = self.dtype == AUTO and dtype == "float32"
        return dataclasses.replace(
            self,
            precision=self.precision or parallel.generator_precision(),
            dtype=dtype,
            low_precision_from=None if by_auto else self.low_precision_from,
            clip_dtype=_settle(self.clip_dtype),
        )

    def of_generator(self, network: Network) -> Network:
        """Generator that is computed so.

        Raises:
          UserError: low_precision_from is no resolution of it.
        """
        settled = self.settled
        return _replace(
            network,
            precision=settled.precision,
            dtype=settled.dtype,
            low_precision_from=settled.low_precision_from,
            remat=self.remat,
        )

    def of_clip(self, network: clip.Clip) -> clip.Clip:
        """CLIP that is computed so, one of a single family."""
        computed = _replace(
            network,
            precision=self.clip_precision,
            dtype=_settle(self.clip_dtype),
            remat=self.remat,
        )
        return clip.with_kernels_in_type(computed)

    def of_other(self, network: Network) -> Network:
        """Identity network, encoder or mapper that is computed so."""
        return _replace(network, precision=self.precision or "highest")

    def record(self) -> dict[str, Any]:
        """Settings by the names of the flags, for run.json; None for the exact one.

        Records from before these settings have none of them, and were exact.
        """
        exact, settled = Computation(precision="highest"), self.settled
        return {
            field.name: value if value != getattr(exact, field.name) else None
            for field in dataclasses.fields(Computation)
            for value in [getattr(settled, field.name)]
        }


def is_quick_with_bfloat16() -> bool:
    """Whether this process's device multiplies bfloat16 faster than float32.

    TPUs do, NVIDIA's cards from compute capability 8 on, and CPUs with AMX or AVX-512
    BF16, as far as Linux tells.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return products.cpu_multiplies_bfloat16()
    # AMD's cards name it in letters, TPUs have none.
    capability = getattr(device, "compute_capability", "")
    numbered = capability[:1].isdigit()
    return not numbered or float(capability) >= _BFLOAT16_CAPABILITY


def _settle(dtype: str) -> str:
    """Type that was asked for, or the device's where that is auto."""
    if dtype != AUTO:
        return dtype
    return "bfloat16" if is_quick_with_bfloat16() else "float32"


def describe_type(asked: str, dtype: str) -> str:
    """End of a description of a network: its type; nothing for the default one.

    Args:
      asked: type that was asked for.
      dtype: type that it has.
    """
    if asked == AUTO:
        return f", in {dtype}, the quicker type here"
    if dtype == "float32":
        return ""
    quick = is_quick_with_bfloat16()
    return f", in {dtype}" + ("" if quick else ", which is no quicker here")


def _replace(network: Network, **changes: Any) -> Network:
    config = dataclasses.replace(network.config, **changes)
    return dataclasses.replace(network, config=config)
