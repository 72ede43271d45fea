"""Fixtures of program runs."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from styleclip_jax import loading
from styleclip_jax.cli import edit
from styleclip_jax.io import direction_files
from styleclip_jax.methods import global_directions
from tests import programs, tiny
from tests.test_cli import Program

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    models: dict[str, str],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> Program:
    """Runs a program's main and returns its exit code, stdout and stderr."""

    def call(module: Any, **options: Any) -> tuple[int, str, str]:
        defaults = {"generator": models["generator"], "outdir": str(tmp_path / "out")}
        if module is edit:
            defaults |= {"clip": models["clip"], "prompt": "cat", "steps": 3}
            defaults |= {"batch_size": 4}
        argv = ["program"]
        for name, value in (defaults | options).items():
            argv += [] if value is None else [f"--{name}={value}"]
        code = programs.run(module, argv)
        out, err = capsys.readouterr()
        return code, out, err

    return call


LAYOUT = tiny.GENERATOR.style_layout


@pytest.fixture
def relevance(models: dict[str, str], tmp_path: pathlib.Path) -> pathlib.Path:
    """A file of random relevance for the tiny networks."""
    random = np.random.RandomState(0)
    layers = global_directions.select_layers(LAYOUT, "all")
    count = int(global_directions.channels_of(LAYOUT, layers).sum())
    rows = random.randn(count, tiny.CLIP.embed_dim)
    total = sum(layer.channels for layer in LAYOUT)
    origins = loading.origins(models["generator"], models["clip"])
    path = tmp_path / "relevance.safetensors"
    direction_files.write_relevance(
        path,
        direction_files.RelevanceFile(
            rows / np.linalg.norm(rows, axis=1, keepdims=True),
            np.zeros(total),
            random.rand(total) + 0.5,
            layers,
            {},
        ),
        layout=LAYOUT,
        generator=origins[0],
        clip=origins[1],
    )
    (tmp_path / "templates.txt").write_text("a {}\nthe {}\n")
    return path
