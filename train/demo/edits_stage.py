"""Stages "mappers", "directions", "tuning" and "edits": the three methods, scored.

They call the project's programs as a user does, with the flags below, and end with the
table of `styleclip-evaluate`. Mappers and edits that are there are not made again.
"""

import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from absl import logging

from ..training_files import folder_names


class Goal(NamedTuple):
    """Goal of an edit by a prompt, and the strength of each method for it.

    Attributes:
      target: attribute that the judge is to find.
      l2_lambda: weight of the distance, of optimization.
      strength: factor of the mapper's step.
      alpha: strength of the direction.
    """

    target: str
    l2_lambda: float
    strength: float
    alpha: float


PROMPTS = {
    "a face with blonde hair": Goal("hair_color:blonde", 0.0045, 0.18, 5.5),
    "a person wearing sunglasses": Goal("glasses:sunglasses", 0.004, 0.1, 3),
    "a bearded man": Goal("facial_hair:beard", 0.003, 0.11, 3),
    "a smiling face": Goal("mouth:smile", 0.005, 0.1, 3),
    "a face with blue hair": Goal("hair_color:blue", 0.0045, 0.09, 6),
    "a bald person": Goal("hair_style:bald", 0.00425, 0.1, 4.5),
    "a person with grey hair": Goal("hair_color:grey", 0.005, 0.13, 7),
    "a surprised face": Goal("mouth:surprised", 0.004, 0.12, 3),
}

# Flag for the strength of each method, and its values that the stage "tuning" tries.
_CHOICES = {
    "optimization": ("l2_lambda", (0.003, 0.0035, 0.004, 0.00425, 0.0045, 0.005)),
    "mapper": ("strength", (0.08, 0.09, 0.1, 0.11, 0.12, 0.13, 0.14, 0.16, 0.18)),
    "direction": ("alpha", (2, 3, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8)),
}

# Seeds of latents that are scored, and of others that settings are chosen on.
_SEEDS = "0-63"
_TUNING_SEEDS = "1000-1063"

# Large first steps lead past halfway pictures that CLIP takes for something else.
_OPTIMIZATION = ("--steps=80", "--learning_rate=0.7")
# Every w is positive here, so that the official normalisation over rows leaves signs.
_MAPPER = (
    "--train_steps=600",
    "--batch_size=4",
    "--learning_rate=10",
    "--normalize_over=features",
    "--num_validation=32",
    "--val_interval=300",
    "--image_interval=300",
    "--save_interval=300",
    "--id_lambda=0",
)
_RELEVANCE = ("--method=exact", "--num_samples=64")
_DIRECTION = ("--num_channels=100",)


def train_mappers(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Trains a mapper for each prompt, below workdir/mappers."""
    folder = f"--workdir={workdir / 'mappers'}"
    prompts = _prompts_file(workdir / "prompts.txt", list(PROMPTS))
    _run("train.mapper", assets, prompts, folder, *_MAPPER)


def measure_directions(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Measures the relevance of all channels, for workdir/directions.safetensors."""
    output = f"--output={_directions(workdir)}"
    _run("train.global_directions", assets, output, *_RELEVANCE)


def tune(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Scores every choice of every method for all prompts, below workdir/tuning."""
    folder = workdir / "tuning"
    edited = [
        _edit(workdir, assets, folder, method, value, list(PROMPTS), _TUNING_SEEDS)
        for method, (_, values) in _CHOICES.items()
        for value in values
    ]
    _evaluate(assets, edited, list(PROMPTS) * len(edited), folder / "evaluation")


def run(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Edits with each method as `PROMPTS` says, and scores all edits together."""
    folder = workdir / "edits"
    edited: list[pathlib.Path] = []
    prompts: list[str] = []
    for method, (flag, _) in _CHOICES.items():
        chosen = {prompt: getattr(goal, flag) for prompt, goal in PROMPTS.items()}
        for value in sorted(set(chosen.values())):
            group = [prompt for prompt in PROMPTS if chosen[prompt] == value]
            edited.append(_edit(workdir, assets, folder, method, value, group, _SEEDS))
            prompts += group
    _evaluate(assets, edited, prompts, workdir / "evaluation")


def _edit(
    workdir: pathlib.Path,
    assets: pathlib.Path,
    folder: pathlib.Path,
    method: str,
    value: float,
    prompts: Sequence[str],
    seeds: str,
) -> pathlib.Path:
    """Edits latents by some prompts with one choice of the method's flag."""
    flag, _ = _CHOICES[method]
    outdir = folder / f"{method}-{value:g}"
    mappers = [workdir / "mappers" / "best" / name for name in folder_names(prompts)]
    text = _prompts_file(folder / f"{outdir.name}.txt", prompts)
    options: Mapping[str, Sequence[str]] = {
        "optimization": (text, *_OPTIMIZATION),
        "mapper": (f"--mapper={','.join(map(str, mappers))}",),
        "direction": (text, f"--directions={_directions(workdir)}", *_DIRECTION),
    }
    _run(
        "styleclip_jax.cli.edit",
        assets,
        f"--method={method}",
        f"--{flag}={value}",
        f"--seeds={seeds}",
        "--batch_size=16",
        f"--outdir={outdir}",
        *options[method],
    )
    return outdir


def _evaluate(
    assets: pathlib.Path,
    edited: Sequence[pathlib.Path],
    prompts: Sequence[str],
    outdir: pathlib.Path,
) -> None:
    """Scores folders of edits, with the prompt of each set of edits in them."""
    _run(
        "styleclip_jax.cli.evaluate",
        assets,
        f"--edits={','.join(map(str, edited))}",
        f"--target={','.join(PROMPTS[prompt].target for prompt in prompts)}",
        f"--outdir={outdir}",
    )


def _directions(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "directions.safetensors"


def _prompts_file(path: pathlib.Path, prompts: Sequence[str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{prompt}\n" for prompt in prompts))
    return f"--prompts_file={path}"


def _run(module: str, assets: pathlib.Path, *flags: str) -> None:
    networks = [f"--{name}={assets / name}" for name in ("generator", "clip")]
    command = [sys.executable, "-m", module, *networks, *flags]
    logging.info("running %s", " ".join(command))
    subprocess.run(command, check=True)
