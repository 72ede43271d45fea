"""How long would the main works take on an H100 and on a TPU v5e?

  python -m benchmarks.predictions --programs=synthesis --resolutions=1024

Nothing runs: programs are lowered for each platform, and compiled for those whose
compilers are installed (see `benchmarks.compilers`). Times are the least that the
published rates allow: of the products in so many passes, or of the bytes.
"""

from typing import NamedTuple

from absl import app, flags

from benchmarks import compilers, programs

# Before jax: `compilers` sets what it reads when it is imported.
import jax  # isort: skip

PROGRAMS = flags.DEFINE_list("programs", list(programs.PROGRAMS), "Works to predict.")
RESOLUTIONS = flags.DEFINE_list("resolutions", ["256", "512", "1024"], "Widths.")
BATCHES = flags.DEFINE_list("batches", ["1", "8"], "Latents per program.")
COMPILE = flags.DEFINE_list("compile", ["cuda"], "Platforms to compile for: cuda, tpu.")


class Machine(NamedTuple):
    """Published rates of a machine.

    Attributes:
      name: what it is called.
      platform: whose programs it runs.
      rates: products and additions per second of float32 at each precision.
      bandwidth: bytes per second.
    """

    name: str
    platform: str
    rates: dict[str, float]
    bandwidth: float


MACHINES = (
    Machine(
        "H100",
        "cuda",
        {"highest": 67e12, "high": 495e12, "default": 495e12},
        3.35e12,
    ),
    # Six, three and one passes of bfloat16.
    Machine(
        "v5e",
        "tpu",
        {"highest": 197e12 / 6, "high": 197e12 / 3, "default": 197e12},
        819e9,
    ),
)

_PLATFORMS = ("cpu", "cuda", "tpu")
_COLUMNS = (
    "program",
    "size",
    "batch",
    *(f"{platform} GFLOP, GB unfused" for platform in _PLATFORMS),
    "moved GB",
    "temp GB",
    *(f"{machine.name} ms highest, high, default" for machine in MACHINES),
)


def predicted(machine: Machine, flops: float, moved: float) -> list[float]:
    """Milliseconds at each precision, the larger one of products and bytes."""
    return [
        1e3 * max(flops / rate, moved / machine.bandwidth)
        for rate in machine.rates.values()
    ]


def _row(name: str, resolution: int, batch: int, devices: dict[str, object]) -> str:
    program = programs.config_f(name, resolution, batch)
    shapes = (*program.shared, program.batch)
    traced = jax.jit(program.function).trace(*shapes)
    costs = {
        platform: traced.lower(lowering_platforms=(platform,)).cost_analysis()
        for platform in _PLATFORMS
    }
    compiled = {}
    for platform, device in devices.items():
        try:
            cost = compilers.compile_for(device, program.function, *shapes)
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).splitlines()[0]
            print(f"{platform}: {name} does not compile without a device: {reason}")
        else:
            compiled[platform] = cost
    # What CUDA's compiler fuses is fused elsewhere too.
    moved = max((cost.moved for cost in compiled.values()), default=0)
    cells = [name, f"{resolution}²", str(batch)]
    cells += [
        f"{cost['flops'] / 1e9:.0f}, {cost['bytes accessed'] / 1e9:.1f}"
        for cost in costs.values()
    ]
    for values in (
        [cost.moved for cost in compiled.values()],
        [cost.temp for cost in compiled.values()],
    ):
        cells.append(", ".join(f"{value / 1e9:.2f}" for value in values))
    for machine in MACHINES:
        flops = costs[machine.platform]["flops"]
        times = predicted(machine, flops, moved)
        cells.append(", ".join(f"{time:.2f}" for time in times))
    return f"| {' | '.join(cells)} |"


def main(_: list[str]) -> None:
    """Prints a row per work, size and batch."""
    devices = {}
    for platform in COMPILE.value:
        try:
            devices[platform] = compilers.device(platform)
        except RuntimeError as error:
            print(f"{error}; times are of products alone")
    print(f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|", flush=True)
    for name in PROGRAMS.value:
        for resolution in map(int, RESOLUTIONS.value):
            for batch in map(int, BATCHES.value):
                print(_row(name, resolution, batch, devices), flush=True)


if __name__ == "__main__":
    app.run(main)
