"""Stages "mappers", "directions" and "edits": the three methods on drawn faces, scored.

They call the project's programs as a user does, with the flags below, and end with the
table and the sheets of `styleclip-evaluate` and `styleclip-edit`. What was trained or
edited before is not made again.
"""

import pathlib
import subprocess
import sys

from absl import logging

# Each prompt with what the judge is to find.
PROMPTS = {
    "a face with blonde hair": "hair_color:blonde",
    "a person wearing sunglasses": "glasses:sunglasses",
    "a bearded man": "facial_hair:beard",
    "a smiling face": "mouth:smile",
    "a face with blue hair": "hair_color:blue",
    "a bald person": "hair_style:bald",
    "a person with grey hair": "hair_color:grey",
    "a surprised face": "mouth:surprised",
}

# Latents that are scored. Settings were chosen on seeds 1000 to 1031.
SEEDS = "0-63"

# All of w is positive here, and over rows the official normalisation would leave signs.
_MAPPER = (
    "--train_steps=1200",
    "--batch_size=4",
    "--learning_rate=10",
    "--normalize_over=features",
    "--num_validation=32",
    "--val_interval=300",
    "--image_interval=600",
    "--save_interval=300",
    "--id_lambda=0",
)
_DIRECTIONS = ("--method=exact", "--num_samples=64")
EDITS = {
    "optimization": ("--steps=80", "--l2_lambda=0.0035"),
    "mapper": (),
    "direction": ("--alpha=2,4,6,8", "--num_channels=100"),
}


def train_mappers(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Trains a mapper for each prompt, below workdir/mappers."""
    folder = f"--workdir={workdir / 'mappers'}"
    _run("train.mapper", assets, _prompts_file(workdir), folder, *_MAPPER)


def measure_directions(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Measures the relevance of all channels, for workdir/directions.safetensors."""
    output = f"--output={_directions(workdir)}"
    _run("train.global_directions", assets, output, *_DIRECTIONS)


def run(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Edits with each method, into workdir/edits, and scores all edits together."""
    mappers = [workdir / "mappers" / "best" / slug(prompt) for prompt in PROMPTS]
    inputs = {
        "optimization": [_prompts_file(workdir)],
        "mapper": [f"--mapper={','.join(map(str, mappers))}"],
        "direction": [
            _prompts_file(workdir),
            f"--directions={_directions(workdir)}",
        ],
    }
    folders: list[str] = []
    targets: list[str] = []
    for method, settings in EDITS.items():
        folders.append(str(workdir / "edits" / method))
        targets += PROMPTS.values()
        _run(
            "styleclip_jax.cli.edit",
            assets,
            f"--method={method}",
            f"--seeds={SEEDS}",
            "--batch_size=16",
            f"--outdir={folders[-1]}",
            *inputs[method],
            *settings,
        )
    _run(
        "styleclip_jax.cli.evaluate",
        assets,
        f"--edits={','.join(folders)}",
        f"--target={','.join(targets)}",
        f"--outdir={workdir / 'evaluation'}",
    )


def slug(prompt: str) -> str:
    """The folder name that train.mapper gives a prompt."""
    return prompt.replace(" ", "-")


def _directions(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "directions.safetensors"


def _prompts_file(workdir: pathlib.Path) -> str:
    path = workdir / "prompts.txt"
    path.write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    return f"--prompts_file={path}"


def _run(module: str, assets: pathlib.Path, *flags: str) -> None:
    networks = [f"--{name}={assets / name}" for name in ("generator", "clip")]
    command = [sys.executable, "-m", module, *networks, *flags]
    logging.info("running %s", " ".join(command))
    subprocess.run(command, check=True)
