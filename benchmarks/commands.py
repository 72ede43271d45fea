"""What CPU time does a program take, from the command to its files?

  taskset -c 1 python -m benchmarks.commands --runs=3

Embedded models; each row first with nothing kept from earlier runs, then the median of
runs that find what it left. CPU seconds are those of all threads, user and system, so
other work on the machine lengthens them less than the seconds that one waits.
"""

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

from absl import app, flags

from benchmarks import machine

RUNS = flags.DEFINE_integer("runs", 3, "Runs with what the first one has kept.")

_EDIT, _FACE = "styleclip_jax.cli.edit", ("--seeds=0", "--prompt=a smiling face")
# Module and arguments of each program; the last is code, and a wrong flag fails.
_COMMANDS: dict[str, tuple[str, ...]] = {
    "`--help`": ("-m", _EDIT, "--help"),
    "a wrong flag": ("-m", _EDIT, "--stepz=20"),
    "one picture": ("-m", "styleclip_jax.cli.generate", "--seeds=0"),
    "20 steps of one latent": ("-m", _EDIT, *_FACE, "--steps=20"),
    "a direction on the spot": ("-m", _EDIT, *_FACE, "--method=direction"),
    "`import styleclip_jax`": ("-c", "import styleclip_jax"),
}
_FAILS = {"a wrong flag": 2}


def _seconds(name: str, folder: pathlib.Path) -> float:
    """CPU seconds of a program; its files go into a new folder."""
    arguments = [*_COMMANDS[name]]
    if any("seeds" in x for x in arguments):
        outdir = tempfile.mkdtemp(dir=folder)
        arguments.append(f"--outdir={outdir}")
    cache = {"XDG_CACHE_HOME": str(folder / name.replace("`", ""))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments],
        env=dict(os.environ) | cache,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != _FAILS.get(name, 0):
        raise RuntimeError(f"{name}: exit code {done.returncode}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(_: list[str]) -> None:
    """Prints a row per program."""
    busy = f"{machine.load():.1f} busy before"
    print(f"{machine.cpu()}, {machine.cores()} cores, {busy}; CPU seconds")
    print("| command | first | later |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for command in _COMMANDS:
            first = _seconds(command, folder)
            later = [_seconds(command, folder) for _ in range(RUNS.value)]
            median = statistics.median(later)
            print(f"| {command} | {first:.2f} | {median:.2f} |", flush=True)


if __name__ == "__main__":
    app.run(main)
