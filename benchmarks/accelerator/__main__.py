"""How right and how fast is it on the accelerator of this machine?

  python -m benchmarks.accelerator --outdir=outputs/accelerator

It needs jax, flax, optax, numpy, safetensors and Pillow alone, and for golden data the
repository's tests/. Each row of the table is printed, and written as a line of
OUTDIR/measurements.jsonl, as soon as it is known: a killed run keeps what it has
found. All ends within --minutes: a part has a share of the time that is left when it
begins, what does not fit is skipped with a note, and a watchdog stops whatever still
runs at the end. The exit code is 1 if anything has failed or was stopped.
"""

import argparse
import os
import pathlib
import sys
import threading
import time
from collections.abc import Sequence

import jax

from benchmarks.accelerator import parts as table
from benchmarks.accelerator import run

# Share of the time after which nothing new begins.
_BEGIN = 0.95


def _stop_at(seconds: float, report: run.Report) -> None:
    """Ends the process after so many seconds; a compilation cannot be interrupted."""

    def stop() -> None:
        report.add("clock", "end", {"error_text": "stopped: the time is over"})
        os._exit(1)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts; 1 if something failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--outdir", default="outputs/accelerator", help="Results.")
    parser.add_argument("--parts", help="Names with commas; all if absent.")
    parser.add_argument("--minutes", type=float, default=8.0, help="Time for all.")
    parser.add_argument("--toy", action="store_true", help="Tiny sizes, as a test.")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    seconds = 60 * options.minutes
    outdir = pathlib.Path(options.outdir)

    if options.toy:
        jax.config.update("jax_disable_most_optimizations", True)
    parts = table.of(toy=options.toy, outdir=outdir)
    names = options.parts.split(",") if options.parts else list(parts)
    if unknown := set(names) - parts.keys():
        parser.error(f"parts: expected some of {', '.join(parts)}, found {unknown}")
    report = run.Report(outdir / "measurements.jsonl")
    _stop_at(seconds - (time.monotonic() - started), report)
    clock = run.Clock(_BEGIN * seconds - (time.monotonic() - started))
    chosen = {name: part for name, part in parts.items() if name in names}
    run.carry_out(chosen, report, clock)
    print(f"{time.monotonic() - started:.0f} s; {outdir / 'measurements.jsonl'}")
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
