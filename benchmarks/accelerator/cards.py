"""Published rates of accelerators, to compare what is measured with."""

from typing import NamedTuple


class Rates(NamedTuple):
    """What a card can do at most.

    Attributes:
      products: operations per second of dense matrix products, by precision: float32
        "highest", "high" and "default", and "bfloat16".
      bandwidth: bytes per second to and from its memory.
      source: where that is published.
    """

    products: dict[str, float]
    bandwidth: float
    source: str


_NVIDIA = "NVIDIA's data sheet, without sparsity"
_GOOGLE = "Cloud TPU documentation; float32 in 6 passes of bfloat16, high in 3"


def _gpu(bfloat16: float, tf32: float, float32: float, bandwidth: float) -> Rates:
    """Rates in TFLOP/s and TB/s; where float32 may be rounded, JAX takes TF32."""
    products = {
        "highest": float32 * 1e12,
        "high": tf32 * 1e12,
        "default": tf32 * 1e12,
        "bfloat16": bfloat16 * 1e12,
    }
    return Rates(products, bandwidth * 1e12, _NVIDIA)


def _tpu(bfloat16: float, bandwidth: float) -> Rates:
    passes = {"highest": 6, "high": 3, "default": 1, "bfloat16": 1}
    products = {name: bfloat16 * 1e12 / n for name, n in passes.items()}
    return Rates(products, bandwidth * 1e12, _GOOGLE)


# By JAX's `device_kind`.
RATES = {
    "NVIDIA H200": _gpu(989, 495, 67, 4.8),
    "NVIDIA H100 80GB HBM3": _gpu(989, 495, 67, 3.35),
    "NVIDIA H100 PCIe": _gpu(756, 378, 51, 2.0),
    "NVIDIA A100-SXM4-80GB": _gpu(312, 156, 19.5, 2.04),
    "NVIDIA A100-SXM4-40GB": _gpu(312, 156, 19.5, 1.56),
    "NVIDIA L4": _gpu(121, 60, 30.3, 0.3),
    "TPU v4": _tpu(275, 1.2),
    "TPU v5 lite": _tpu(197, 0.819),
    "TPU v5": _tpu(459, 2.765),
    "TPU v6 lite": _tpu(918, 1.64),
}
