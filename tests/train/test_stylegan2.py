"""styleclip-train-generator: what it writes, how it goes on, devices, refusals."""

import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import loading
from styleclip_jax.cli import generate
from styleclip_jax.models import param_trees
from styleclip_jax.progress import SILENT
from styleclip_jax.settings.augmentation import PIPELINES, AdaptationConfig
from styleclip_jax.settings.generator_training import (
    ImageDataSettings,
    RecipeSettings,
)
from tests import programs
from train import generator_recipes, image_data, stylegan2
from train.gan_trainer import Augmentation, GanTrainer

SIZE, BATCH = 16, 8
TINY = {"channel_base": 64, "channel_max": 4, "w_dim": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of 24 images of two classes."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    labels = []
    for i in range(24):
        pixels = random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        labels.append([f"{i:02d}.png", i % 2])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


@pytest.fixture
def start(
    data: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Runs the program; returns its exit code, stdout and stderr."""

    def call(**changes: Any) -> tuple[int, str, str]:
        given = {
            "data": data,
            **TINY,
            "batch_size": BATCH,
            "kimg": 0.04,
            "kimg_per_tick": 0.016,
            "snapshot_ticks": 2,
            "metric_ticks": 0,
            "r1_interval": 3,
            "path_interval": 2,
            "augment": "none",
            "sheet_size": 3,
            "workdir": tmp_path / "run",
        } | changes
        argv = ["styleclip-train-generator"]
        argv += [f"--{name}={value}" for name, value in given.items()]
        code = programs.run(stylegan2, argv)
        return code, *capsys.readouterr()

    return call


def weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Parameters of a snapshot's generator and discriminator."""
    networks = loading.load_generator(folder), loading.load_discriminator(folder)
    return {
        f"{i}/{name}": np.asarray(x)
        for i, network in enumerate(networks)
        for name, x in param_trees.flatten(network.params).items()
    }


@pytest.mark.slow
def test_a_run_in_parts_ends_as_one_in_a_piece(
    start: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = start(workdir=tmp_path / "whole")
    assert code == 0, err
    assert "data: " in out
    assert "2 classes" in out
    folder = tmp_path / "whole"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [16, 32, 40]
    assert {"generator/loss", "discriminator/loss", "r1/r1_penalty"} <= {*lines[0]}
    assert {x.name for x in (folder / "sheets").iterdir()} >= {
        "reals.png",
        "000000k.png",
    }
    # In parts: the second call goes on after the first.
    parts = tmp_path / "parts"
    assert start(workdir=parts, kimg=0.024)[0] == 0
    code, out, err = start(workdir=parts)
    assert code == 0, err
    assert "resumed: 24 images are done" in out
    expected, found = weights(folder / "last"), weights(parts / "last")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    # Fewer images than are done.
    code, _, err = start(workdir=parts, kimg=0.008)
    assert code == 2
    assert "--kimg: expected at least the 0.04 that are done" in err
    # Another program takes the snapshot.
    argv = ["styleclip-generate", f"--generator={folder / 'last'}", "--seeds=0-1"]
    argv += ["--class=1", f"--outdir={tmp_path / 'pictures'}"]
    assert programs.run(generate, argv) == 0
    assert len(list((tmp_path / "pictures/images").iterdir())) == 2


@pytest.mark.slow
def test_transfer_keeps_frozen_layers(start: Any, tmp_path: pathlib.Path) -> None:
    plain = {"r1_gamma": 0, "path_weight": 0}
    code, _, err = start(kimg=0.008, workdir=tmp_path / "first", **plain)
    assert code == 0, err
    before = tmp_path / "first" / "last"
    code, out, err = start(
        resume_from=before,
        freeze_layers=3,
        workdir=tmp_path / "second",
        kimg=0.016,
        **plain,
    )
    assert code == 0, err
    assert "frozen: b16/fromrgb, b16/conv0, b16/conv1 of the discriminator" in out
    old, new = weights(before), weights(tmp_path / "second" / "last")
    for name in old:
        if not name.startswith("1/"):
            continue
        layer = "/".join(name.split("/")[1:3])
        is_frozen = layer in ("b16/fromrgb", "b16/conv0", "b16/conv1")
        assert (old[name] == new[name]).all() == is_frozen, name


def trainer(devices: int, data: pathlib.Path, size: int = 16) -> tuple[GanTrainer, Any]:
    """A trainer on so many devices, and the state before its first step."""
    asked = ImageDataSettings(data=str(data))
    images = image_data.open_images(asked, seed=0, listener=SILENT)
    recipe = generator_recipes.make(
        RecipeSettings(**TINY, r1_gamma=0, path_weight=0),
        resolution=SIZE,
        c_dim=2,
        batch_size=size,
        per_device=size // devices,
        seed=0,
    )
    augmenting = Augmentation(PIPELINES["color"], AdaptationConfig(), 0.4)
    made = GanTrainer(
        recipe.problem, augmenting, images, size, 0, jax.devices()[:devices]
    )
    return made, made.start(recipe.generator, recipe.discriminator)


@pytest.mark.slow
def test_devices_share_a_batch_and_agree(data: pathlib.Path) -> None:
    found = []
    # Of the regularizations test_gan_training.py shows it.
    for devices in (1, 4):
        made, state = trainer(devices, data)
        for number, batch in enumerate(made.batches(0, 2)):
            state = made.step(state, number, batch)
        found.append((state.means, np.asarray(state.signs)))
    for means, signs in found[1:]:
        assert means == pytest.approx(found[0][0], rel=1e-4, abs=1e-4)
        np.testing.assert_array_equal(signs, found[0][1])


def test_groups_are_of_neighbours() -> None:
    rows = image_data.rows_of_device(8)
    # Members lie 2 apart.
    assert {*rows[0::2]} == {0, 1, 2, 3}
    assert {*rows[1::2]} == {4, 5, 6, 7}
    assert sorted(image_data.rows_of_device(6)) == list(range(6))


def test_batches_are_the_same_wherever_a_run_begins(data: pathlib.Path) -> None:
    made, _ = trainer(2, data)
    whole = [np.asarray(batch.image) for batch in made.batches(0, 4)]
    late = [np.asarray(batch.image) for batch in made.batches(2, 4)]
    np.testing.assert_array_equal(whole[2:], late)
    # Every image once before any comes again.
    images = made.data.load(np.arange(24)).reshape(24, -1)
    flat = np.concatenate([x.reshape(16, -1) for x in whole])[:24]
    order = [int(np.flatnonzero((images == x).all(axis=1))[0]) for x in flat]
    first = {order.index(i) for i in range(24)}
    assert len(first) == 24


def test_recipes_are_the_official_ones() -> None:
    def numbers(resolution: int, size: int, config: str = "auto") -> Any:
        return generator_recipes.numbers_of(config, resolution, size)

    assert numbers(256, 64) == (
        16384,
        2,
        0.0025,
        pytest.approx(0.0002 * 256**2 / 64),
        20_000.0,
        0.05,
    )
    assert numbers(1024, 32)[:3] == (32768, 2, 0.002)
    assert numbers(1024, 32, config="f") == (32768, 8, 0.002, 10, 10_000, None)
    assert numbers(1024, 32, config="e")[0:4:3] == (16384, 100)
    assert generator_recipes.default_batch_size(1024, 8) == 32
    assert generator_recipes.default_batch_size(256, 8) == 64
    assert generator_recipes.default_batch_size(256, 1) == 16


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"resolution": 12}, "--resolution: expected a power of two from 8 up"),
        ({"resolution": 32}, "--data: expected square images of a power of two"),
        ({"augment_p": 2}, "--augment_p: expected 0 to 1"),
        ({"data": "nowhere"}, "expected a folder or zip of images, found none"),
        ({"freeze_layers": 99}, "--freeze_layers: expected at most 7"),
        ({"metric_ticks": 1, "metric": "pr50k3"}, "--metric: expected one of fid50k"),
    ],
)
def test_what_does_not_fit_is_one_line(
    start: Any, tmp_path: pathlib.Path, changes: dict[str, Any], expected: str
) -> None:
    code, _, err = start(**changes)
    assert code == 2
    assert expected in err.splitlines()[-1]
    assert not (tmp_path / "run" / "run.json").exists()


def test_without_grain_it_says_what_to_install(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None in its place is what Python takes for a package that cannot be imported.
    monkeypatch.setitem(sys.modules, "grain", None)
    code, _, err = start()
    assert code == 2
    assert err.endswith("needs grain: pip install 'styleclip-jax[train]'\n")
