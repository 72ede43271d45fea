"""Compilers of machines that are not here: what a program would take on them.

The compilers of TPUs (`pip install libtpu`) and of CUDA (`jax-cuda12-plugin`,
`jax-cuda12-pjrt`, `nvidia-cuda-nvcc-cu12`) need no device. Where one is absent, so are
its numbers.
"""

import math
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

# Before jax is imported: no host to ask about its TPUs, and several processes at once.
for _name, _value in {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}.items():
    os.environ.setdefault(_name, _value)

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

# An H100 SXM as XLA describes it.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

_DESCRIPTIONS: dict[str, Callable[[], Any]] = {
    "tpu": lambda: topologies.get_topology_desc("v5e:2x2", "tpu"),
    "cuda": lambda: topologies.get_topology_desc(
        "h100", "cuda", target_config=_H100, topology="1x1x1"
    ),
}

# Instructions that move nothing.
_FREE = {"parameter", "constant", "get-tuple-element", "bitcast", "tuple", "after-all"}
_INSTRUCTION = re.compile(
    r"^ *(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([a-z][a-z0-9-]*)\(([^)]*)\)", re.M
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")


class Cost(NamedTuple):
    """Cost of a compiled program.

    Attributes:
      kernels: instructions that a device runs one after the other.
      moved: bytes that they read and write, each its whole operands.
      temp: bytes of temporary memory.
      seconds: what the compiler's own model expects; None for CUDA, which has none.
      text: the compiled program.
    """

    kernels: int
    moved: int
    temp: int
    seconds: float | None
    text: str


def device(platform: str) -> Any:
    """Device of a platform, "tpu" (v5e) or "cuda" (H100), to compile for.

    Raises:
      RuntimeError: its compiler is not installed.
    """
    try:
        return _DESCRIPTIONS[platform]().devices[0]
    except (ImportError, NotImplementedError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RuntimeError(f"{platform}: no compiler here ({reason})") from error


def compile_for(device: Any, function: Callable[..., Any], *shapes: Any) -> Cost:
    """Cost of a function of arrays of these shapes on a device."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    jitted = jax.jit(function, in_shardings=sharding, out_shardings=sharding)
    # Triton's products are tuned on a device, and may fail without.
    options = {"xla_gpu_enable_triton_gemm": False} if device.platform != "tpu" else {}
    compiled = jitted.lower(*shapes).compile(options)
    text, costs = compiled.as_text(), compiled.cost_analysis() or {}
    kernels, moved = traffic(text)
    temp = compiled.memory_analysis().temp_size_in_bytes
    return Cost(kernels, moved, temp, costs.get("optimal_seconds"), text)


def traffic(text: str) -> tuple[int, int]:
    """Number of kernels of a compiled program, and bytes that they read and write."""
    entry = text[text.index("\nENTRY ") :]
    sizes: dict[str, int] = {}
    kernels = moved = 0
    for name, result, operation, operands in _INSTRUCTION.findall(entry):
        sizes[name] = _bytes(result)
        if operation not in _FREE:
            kernels += 1
            read = (sizes.get(x, 0) for x in re.findall(r"%([^\s,)]+)", operands))
            moved += sizes[name] + sum(read)
    return kernels, moved


def _bytes(arrays: str) -> int:
    """Bytes of an array or a tuple of them, such as "(f32[2,3]{1,0}, u8[0]{0})"."""
    total = 0
    for kind, shape in _ARRAY.findall(arrays):
        bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
        total += bits * math.prod(int(x) for x in shape.split(",") if x) // 8
    return total
