"""Fixtures of program runs."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from styleclip_jax import loading
from styleclip_jax.cli import edit
from styleclip_jax.io import checkpoints, direction_files
from styleclip_jax.methods import global_directions, mapper
from tests import programs, tiny
from tests.programs import Program


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
    origin = loading.Models(generator=models["generator"], clip=models["clip"])
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
        generator=origin.generator_origin(),
        clip=origin.clip_origin(),
    )
    (tmp_path / "templates.txt").write_text("a {}\nthe {}\n")
    return path


@pytest.fixture
def direction(
    relevance: pathlib.Path,
    models: dict[str, str],
    tmp_path: pathlib.Path,
) -> dict[str, Any]:
    """Flags of a run of styleclip-edit on many latents."""
    w = np.random.RandomState(2).randn(27, 12).astype(np.float32)
    np.save(tmp_path / "w.npy", w)
    return models | {
        "method": "direction",
        "directions": relevance,
        "templates": tmp_path / "templates.txt",
        "prompt": "cat",
        "neutral": "dog",
        "alpha": "1,2",
        "num_channels": 9,
        "latents": tmp_path / "w.npy",
        "batch_size": 2,
        "images": "jpg",
        "grid": 2,
    }


@pytest.fixture
def mappers(models: dict[str, str], tmp_path: pathlib.Path) -> list[str]:
    """Two mappers of one layer, the second of twice the weights."""
    config = mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)
    network = tiny.mapper_network(config)
    for factor, name in ((1, "a"), (2, "b")):
        loading.save_mapper(
            tmp_path / name,
            jax.tree.map(lambda x, factor=factor: factor * x, network.params),
            config,
            prompt=name,
            generator=checkpoints.fingerprint(models["generator"]),
            clip="tiny",
            training={},
        )
    return [str(tmp_path / name) for name in "ab"]
