"""How much memory do runs of the programs take, and does it grow with the latents?

  python -m benchmarks.memory --counts=1000,10000

Embedded models and no image files. The first row compiles everything anew; the others
find it in the compilation cache. Optimizations are short and of a tenth of the latents:
their number is asked about, and not their steps.
"""

import os
import subprocess
import sys
import tempfile
import time

from absl import app, flags

COUNTS = flags.DEFINE_list("counts", ["1000", "10000"], "Numbers of latents.")
MAPPER = flags.DEFINE_string("mapper", None, "Mapper of the embedded generator.")

_EDIT = ("-m", "styleclip_jax.cli.edit", "--images=none")
_SPOT = ("--method=direction", "--prompt=a smiling face")


def _kinds() -> dict[str, tuple[int, tuple[str, ...]]]:
    """What to run by name: the part of the latents, and flags."""
    found = {
        "direction, relevance on the spot": (1, _SPOT),
        "direction of a channel": (1, ("--method=direction", "--channel=2:4")),
        "optimization": (10, ("--prompt=a smiling face", "--steps=2")),
    }
    if MAPPER.value is not None:
        found["mapper"] = 1, ("--method=mapper", f"--mapper={MAPPER.value}")
    return found


def _measure(label: str, count: int, options: tuple[str, ...], cache: str) -> None:
    """Prints the row of a run in a process of its own."""
    variables = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        flags_ = (f"--seeds=0-{count - 1}", f"--outdir={folder}", *options)
        process = subprocess.Popen(
            [sys.executable, *_EDIT, *flags_], env=variables, stdout=subprocess.DEVNULL
        )
        # The memory of this child alone.
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    megabytes = usage.ru_maxrss * unit / 1e6
    if process.returncode:
        raise SystemExit(f"{label}: exit code {process.returncode}")
    seconds = time.monotonic() - started
    print(f"| {label} | {count:,} | {megabytes:.0f} | {seconds:.0f} |", flush=True)


def main(_: list[str]) -> None:
    """Prints a row per kind of edit and number of latents."""
    print("| run | latents | largest resident memory (MB) | seconds |")
    print("|---|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        _measure("direction, everything compiled anew", 16, _SPOT, cache)
        for name, (part, options) in _kinds().items():
            for count in map(int, COUNTS.value):
                _measure(name, max(1, count // part), options, cache)


if __name__ == "__main__":
    app.run(main)
