"""Kills of all programs: the same command goes on to the same files.

  python -m tests.kills [--count=30] [--seed=0] [--only=convert,edit]

Each program runs once to its end. Then one is killed by SIGKILL after a random one of
the calls by which it changes its folder, at once or some time before the next one, and
the same command follows: its files must be those of the run that was not killed, and
nothing else may be left. Networks are tiny, so that all of it takes minutes.
"""

import argparse
import hashlib
import importlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests import golden_data, programs, tiny
from tests.batch import fakes

# Functions of `os` that change a disk.
CALLS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "truncate")
_NETWORKS = ("--generator={0}/generator", "--clip={0}/clip")
_LATENTS = ("--latents={0}/w.npy", "--batch_size=2", "--grid=2")
_TRAINING = (
    *("--train_steps=6", "--batch_size=4", "--num_validation=8", "--log_interval=1"),
    *("--val_interval=2", "--image_interval=6", "--save_interval=2", "--sheet_size=2"),
)
_E4E = golden_data.ROOT / "e4e_encoder" / "e4e_ffhq_encode.pt"


class Program(NamedTuple):
    """Program to kill.

    Attributes:
      module: its module.
      flags: its flags; {0} is the folder of networks and inputs, {1} that of the run.
      refusal: words with which it refuses what a run has left that was killed after
        its result was there; none if it goes on.
    """

    module: str
    flags: tuple[str, ...]
    refusal: str | None = None


PROGRAMS = {
    "convert": Program(
        "convert.__main__",
        (str(_E4E), "--output={1}/model"),
        "already exists and is not empty",
    ),
    "generate": Program(
        "styleclip_jax.cli.generate",
        (_NETWORKS[0], "--seeds=0-8", "--batch_size=1", "--grid=2", "--outdir={1}/out"),
    ),
    "edit": Program(
        "styleclip_jax.cli.edit",
        (*_NETWORKS, *_LATENTS, "--prompt=cat", "--steps=2", "--outdir={1}/out"),
    ),
    "edit-tar": Program(
        "styleclip_jax.cli.edit",
        (
            *(*_NETWORKS, *_LATENTS, "--method=direction", "--prompt=cat"),
            *("--neutral=dog", "--directions={0}/relevance.safetensors", "--alpha=1,2"),
            *("--templates={0}/templates.txt", "--num_channels=9", "--images=tar"),
            "--outdir={1}/out",
        ),
    ),
    "invert": Program(
        "styleclip_jax.cli.invert",
        (
            *(*_NETWORKS, "--photos={0}/photos", "--noalign", "--w_steps=2"),
            *("--refine_steps=2", "--batch_size=2", "--grid=2", "--outdir={1}/out"),
        ),
    ),
    "evaluate": Program(
        "styleclip_jax.cli.evaluate",
        (
            *(_NETWORKS[1], "--images={0}/photos", "--zero_shot={0}/texts.txt"),
            "--outdir={1}/out",
        ),
    ),
    "find": Program(
        "styleclip_jax.cli.find_directions",
        (
            *(*_NETWORKS, "--texts={0}/texts.txt", "--templates={0}/templates.txt"),
            *("--num_components=3", "--seeds=0-3", "--outdir={1}/out"),
        ),
    ),
    "measure": Program(
        "train.global_directions",
        (
            *(*_NETWORKS, "--num_samples=3", "--num_statistics=20", "--batch_size=16"),
            "--output={1}/relevance.safetensors",
        ),
    ),
    "mapper": Program(
        "train.mapper",
        (
            *(*_NETWORKS, *_TRAINING, "--prompts_file={0}/texts.txt"),
            "--workdir={1}/out",
        ),
    ),
    "delta": Program(
        "train.delta", (*_NETWORKS, *_TRAINING, "--width=8", "--workdir={1}/out")
    ),
}


def make_inputs(folder: pathlib.Path) -> None:
    """Writes networks, latents, photos and texts."""
    tiny.save(folder, tiny.clip_network())
    random_values = np.random.RandomState(0)
    np.save(folder / "w.npy", random_values.randn(9, 12).astype(np.float32))
    (folder / "texts.txt").write_text("cat\ndog\na bird\n")
    (folder / "templates.txt").write_text("a {}\nthe {}\n")
    (folder / "photos").mkdir()
    for i in range(5):
        pixels = random_values.randint(0, 256, (20, 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")


def snapshot(folder: pathlib.Path) -> dict[str, str]:
    """Hashes of files, hidden ones included, and folders.

    Of checkpoints the names alone, as their files tell the time; events of TensorBoard
    and seconds of lines likewise count for nothing.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        inside = name.partition("checkpoints/")[2]
        if "/" in inside or "tensorboard" in name:
            continue
        content = b"" if path.is_dir() else path.read_bytes()
        if path.name == "metrics.jsonl":
            lines = map(json.loads, content.splitlines())
            kept = [{k: x for k, x in y.items() if k != "seconds"} for y in lines]
            content = json.dumps(kept).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def run(
    program: Program,
    inputs: pathlib.Path,
    folder: pathlib.Path,
    *,
    kill_at: int = -1,
    wait: float = 0.0,
) -> tuple[int, str, list[float]]:
    """Runs a program in a process.

    Args:
      program: the program.
      inputs: folder of networks and inputs.
      folder: folder of the run.
      kill_at: number of the call that it is killed before; none if negative.
      wait: seconds that it still has after that call has come; it is made then.

    Returns:
      Exit code, stderr, and the time of each call that changed the folder.
    """
    folder.mkdir(exist_ok=True)
    argv = [flag.format(inputs, folder) for flag in program.flags]
    times = inputs / "times.json"
    times.unlink(missing_ok=True)
    command = {"module": program.module, "argv": argv, "folder": str(folder)}
    command |= {"kill_at": kill_at, "wait": wait, "times": str(times)}
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 "
        "--xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(inputs / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", "--child"],
        input=json.dumps(command),
        env=environment,
        cwd=programs.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(times.read_text()) if times.exists() else []
    return done.returncode, done.stderr, found


def kill(
    name: str,
    inputs: pathlib.Path,
    work: pathlib.Path,
    whole: tuple[dict[str, str], list[float]],
    dice: random.Random,
) -> str:
    """Kills a program and starts it again; returns what went wrong, or nothing."""
    program, (expected, times) = PROGRAMS[name], whole
    position = dice.randrange(len(times))
    rest = times[position + 1] - times[position] if times[position + 1 :] else 0.1
    wait = dice.choice([0.0, dice.random() * rest])
    moment = f"{name} at call {position} of {len(times)} + {wait:.3f} s"
    code, err, _ = run(program, inputs, work, kill_at=position, wait=wait)
    if code not in (-signal.SIGKILL, 0):
        return f"{moment}: exit code {code}: {err[-300:]}"
    code, err, _ = run(program, inputs, work)
    refused = program.refusal is not None and code == 2 and program.refusal in err
    if code and not refused:
        return f"{moment}: exit code {code} when it went on: {err[-300:]}"
    found = snapshot(work)
    names = sorted(
        x for x in found.keys() | expected if found.get(x) != expected.get(x)
    )
    print(
        f"{moment}: {'different: ' + ', '.join(names) if names else 'equal'}",
        flush=True,
    )
    return f"{moment}: different: {', '.join(names)}" if names else ""


def _child() -> None:
    """Runs the program that stdin describes, and kills itself."""
    command = json.load(sys.stdin)
    times: list[float] = []

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def call(number: int) -> None:
        if number == command["kill_at"]:
            if command["wait"]:
                threading.Timer(command["wait"], die).start()
            else:
                die()
        times.append(time.monotonic())

    fakes.count_calls(pytest.MonkeyPatch(), call, CALLS, command["folder"])
    sys.argv = [command["module"], *command["argv"]]
    try:
        importlib.import_module(command["module"]).entry()
    finally:
        pathlib.Path(command["times"]).write_text(json.dumps(times))


def main() -> None:
    """Kills programs in turn and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PROGRAMS))
    options, dice = parser.parse_args(), None
    dice, names = random.Random(options.seed), options.only.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        inputs = pathlib.Path(scratch, "inputs")
        inputs.mkdir()
        make_inputs(inputs)
        # Edits along directions need what measuring makes.
        measured = pathlib.Path(scratch, "measured")
        code, err, _ = run(PROGRAMS["measure"], inputs, measured)
        assert code == 0, err
        relevance = "relevance.safetensors"
        (measured / relevance).rename(inputs / relevance)
        whole = {}
        for name in names:
            folder = pathlib.Path(scratch, "whole", name)
            folder.parent.mkdir(exist_ok=True)
            code, err, times = run(PROGRAMS[name], inputs, folder)
            assert code == 0, f"{name}: {err}"
            whole[name] = snapshot(folder), times
        faults = []
        for number in range(options.count):
            name = names[number % len(names)]
            work = pathlib.Path(scratch, f"killed{number}")
            faults.append(kill(name, inputs, work, whole[name], dice))
    faults = [fault for fault in faults if fault]
    print(f"{options.count} kills of {len(names)} programs, {len(faults)} faults")
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    if "--child" in sys.argv:
        _child()
    else:
        main()
