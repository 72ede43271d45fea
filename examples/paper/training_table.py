"""Table of StyleGAN2's ablations: short trainings on drawn faces, a row each."""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

from examples.paper.requests import ABLATIONS
from examples.paper.setup import Setup
from styleclip_jax.errors import UserError
from styleclip_jax.io import tables
from styleclip_jax.progress import BARS
from styleclip_jax.settings.generator_training import (
    GanRunConfig,
    ImageDataSettings,
    RecipeSettings,
)
from train import generator_run

_METRIC = "fd_judge"
_SIZE = 32
# γ by resolution and batch is too small here: the discriminator wins.
_FULL = RecipeSettings(channel_base=1024, channel_max=64, w_dim=64, r1_gamma=1.0)
# Early quality comes of steps.
_BATCH = 8
# What is another than in the first row.
_CHANGES: dict[str, dict[str, Any]] = dict(
    zip(
        ABLATIONS,
        (
            {},
            {"path_weight": 0.0},
            {"r1_interval": 1, "path_interval": 1},
            {"augment": "none"},
            {"channel_base": 512, "channel_max": 32},
            {"channel_base": 2048, "channel_max": 128},
        ),
        strict=True,
    )
)
# Lines of metrics of a training.
_TICKS = 10


def training_ablations(setup: Setup) -> str:
    """Distance of faces after so many images, and images per second, by ablation."""
    rows = []
    for name in setup.content.ablations:
        folder = pathlib.Path(setup.outdir) / "training" / name
        _train(setup, _CHANGES[name], folder)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        # The first tick has the time of compilation in it.
        rates = [x["images_per_second"] for x in _of(lines, "training")][1:]
        distance = [x[_METRIC] for x in _of(lines, "metric")][-1]
        rate = f"{statistics.median(rates):.1f}" if rates else "—"
        rows.append([name, tables.digits(distance), rate])
    content = setup.content
    return (
        f"# Trainings on drawn faces of {_SIZE}², {content.kimg:g} thousand images "
        f"each, seed {content.training_seed}\n\n"
        + tables.markdown(["training", _METRIC, "images/s"], rows)
    )


def _of(lines: list[dict[str, Any]], split: str) -> Iterator[dict[str, Any]]:
    return (line for line in lines if line["split"] == split)


def _train(setup: Setup, changes: dict[str, Any], folder: pathlib.Path) -> None:
    """Trains, or goes on; what is done is kept."""
    content = setup.content
    recipe = dataclasses.replace(_FULL, **changes)
    run = GanRunConfig(
        kimg=content.kimg,
        batch_size=_BATCH,
        kimg_per_tick=content.kimg / _TICKS,
        metric=_METRIC,
        metric_samples=content.num_samples,
        # The last tick is always measured.
        metric_ticks=_TICKS + 1,
        snapshot_ticks=1,
        seed=content.training_seed,
    )
    request = generator_run.GeneratorRequest(
        data=ImageDataSettings(resolution=_SIZE),
        recipe=recipe,
        run=run,
        workdir=folder,
        settings={
            "num_samples": content.num_samples,
            "kimg": content.kimg,
            "seed": content.training_seed,
        },
    )
    for line in generator_run.train(request, BARS):
        raise UserError(line)
