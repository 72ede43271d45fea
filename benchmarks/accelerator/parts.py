"""Table of the parts, the most telling ones first, each with its share of the time."""

import functools
import pathlib

from benchmarks.accelerator import checks, setting, speed
from benchmarks.accelerator.run import Part


def of(*, toy: bool, outdir: pathlib.Path) -> dict[str, Part]:
    """Parts by name, in their order.

    Args:
      toy: tiny sizes, for a test on a CPU.
      outdir: folder for the trace.
    """
    size = setting.TOY if toy else setting.FULL
    world = setting.World(size)

    # Shares are seconds, of eight minutes.
    return {
        "device": Part(15, functools.partial(speed.device, world)),
        "golden": Part(40, functools.partial(checks.parity, size)),
        "faces": Part(15, functools.partial(checks.embedded, size)),
        "synthesis": Part(110, functools.partial(speed.synthesis, world)),
        "optimization": Part(130, functools.partial(speed.steps, world)),
        "stream": Part(45, functools.partial(speed.runs, world)),
        "bits": Part(50, functools.partial(checks.bits, toy)),
        "clip": Part(15, functools.partial(speed.towers, world)),
        "mapper": Part(25, functools.partial(speed.mapper_steps, world)),
        "layers": Part(20, functools.partial(speed.layers, world)),
        "kernels": Part(15, functools.partial(speed.longest_kernels, world, outdir)),
    }
