"""styleclip-train-generator: what it writes, how it goes on, processes, refusals."""

import json
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from convert import __main__ as convert
from styleclip_jax import loading, parallel
from styleclip_jax.cli import generate
from styleclip_jax.io import checkpoints
from styleclip_jax.models import param_trees
from styleclip_jax.progress import SILENT
from styleclip_jax.settings.generator_training import GanRunConfig, ImageDataSettings
from tests import golden_data, programs, tiny
from train import generator_recipes, generator_run, image_data, stylegan2

SIZE, BATCH = 8, 8
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


def flags(**changes: Any) -> dict[str, Any]:
    """Flags of a short run, five steps of all phases unless told otherwise."""
    given = {"batch_size": BATCH, "kimg": 0.04, "kimg_per_tick": 0.016}
    given |= {"snapshot_ticks": 2, "metric_ticks": 0, "augment": "none"}
    given |= {"r1_interval": 3, "path_interval": 2, "sheet_size": 3}
    return TINY | given | changes


@pytest.fixture
def start(
    data: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Runs the program; returns its exit code, stdout and stderr."""

    def call(**changes: Any) -> tuple[int, str, str]:
        code = run(flags(**{"data": data, "workdir": tmp_path / "run"} | changes))
        return code, *capsys.readouterr()

    return call


def command(given: dict[str, Any]) -> list[str]:
    return ["train.stylegan2", *(f"--{name}={x}" for name, x in given.items())]


def run(given: dict[str, Any]) -> int:
    return programs.run(stylegan2, command(given))


def read_metrics(folder: pathlib.Path, split: str = "training") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return [line for line in lines if line["split"] == split]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Flags of FID by a converted Inception, every second tick and at the end."""
    folder = tmp_path_factory.mktemp("inception")
    official = golden_data.ROOT / "metrics/inception_tiny/inception-tiny.pth"
    argv = ["convert", str(official), f"--output={folder / 'features'}"]
    assert convert.main(argv) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        given = {"features": folder / "features", "metric": "fid50k_full"}
        yield given | {"metric_ticks": 2, "metric_samples": 16}


@pytest.fixture(scope="module")
def whole(
    data: pathlib.Path,
    measured: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
    """Folder of a run in a piece."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(flags(**{"data": data, "workdir": folder} | measured)) == 0
    return folder


def weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Parameters of a snapshot's generator and discriminator."""
    networks = loading.load_generator(folder), loading.load_discriminator(folder)
    return {
        f"{i}/{name}": np.asarray(x)
        for i, network in enumerate(networks)
        for name, x in param_trees.flatten(network.params).items()
    }


@pytest.mark.slow
def test_a_run_writes_metrics_sheets_and_a_generator_for_all_programs(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    lines = read_metrics(whole)
    assert [line["step"] for line in lines] == [16, 32, 40]
    assert {"generator/loss", "discriminator/loss", "r1/r1_penalty"} <= {*lines[0]}
    sheets = {x.name for x in (whole / "sheets").iterdir()}
    assert sheets == {"reals.png", "start.png", "000000k.png", "000000k040.png"}
    argv = ["styleclip-generate", f"--generator={whole / 'last'}", "--seeds=0-1"]
    argv += ["--class=1", f"--outdir={tmp_path / 'pictures'}"]
    assert programs.run(generate, argv) == 0
    assert len(list((tmp_path / "pictures/images").iterdir())) == 2


@pytest.mark.slow
def test_the_best_snapshot_by_fid_is_kept(whole: pathlib.Path) -> None:
    lines = read_metrics(whole, split="metric")
    assert [line["step"] for line in lines] == [32, 40]
    lowest = min(lines, key=lambda line: line["fid50k_full"])
    source = checkpoints.source(whole / "best")
    assert source.get("fid50k_full") == pytest.approx(lowest["fid50k_full"])
    assert source.get("images") == lowest["step"]
    table = json.loads((whole / "metrics/000000k040/metrics.json").read_text())
    (row,) = table["metrics"]
    assert (row["network"], row["samples"], row["reals"]) == ("inception", 16, 24)
    assert row["mean"] == pytest.approx(lines[-1]["fid50k_full"])


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_as_one_in_a_piece(
    start: Any, whole: pathlib.Path, measured: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(whole, folder)
    # As if killed after its fourth step, whose checkpoint is kept.
    shutil.rmtree(folder / "checkpoints/5")
    shutil.rmtree(folder / "last")
    code, out, err = start(workdir=folder, **measured)
    assert code == 0, err
    assert "2 classes" in out
    assert "resumed: 32 images are done" in out
    expected, found = weights(whole / "last"), weights(folder / "last")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert read_metrics(folder, "metric") == read_metrics(whole, "metric")
    # Fewer images than are done.
    code, _, err = start(workdir=folder, kimg=0.008, **measured)
    assert code == 2
    assert "--kimg: expected at least the 0.04 that are done" in err


@pytest.mark.slow
def test_transfer_keeps_frozen_layers_and_two_processes_train_as_one(
    start: Any, whole: pathlib.Path, data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """One process with four devices, and two with one each, have whole groups."""
    before = whole / "last"
    given = {"resume_from": before, "freeze_layers": 3, "r1_gamma": 0, "path_weight": 0}
    given |= {"augment": "fixed", "augment_pipe": "color", "augment_p": 0.5}
    given |= {"data": data, "batch_size": 16, "kimg": 0.032}
    code, out, err = start(**given)
    assert code == 0, err
    frozen = ("b8/fromrgb", "b8/conv0", "b8/conv1")
    assert f"frozen: {', '.join(frozen)} of the discriminator" in out
    one, two = tmp_path / "run", tmp_path / "two"
    old, new = weights(before), weights(one / "last")
    for name in old:
        if not name.startswith("1/"):
            continue
        layer = "/".join(name.split("/")[1:3])
        assert (old[name] == new[name]).all() == (layer in frozen), name
    outputs = programs.run_in_two(
        lambda shared: programs.launch_module(
            command(flags(**given, **shared, workdir=two)), devices=1
        )
    )
    assert "devices: 2 in 2 processes" in outputs[0]
    found, expected = read_metrics(two), read_metrics(one)
    assert [line["step"] for line in found] == [16, 32]
    for a, b in zip(found, expected, strict=True):
        losses = {name for name in a if "/" in name}
        assert {"generator/loss", "discriminator/real_sign"} <= losses
        for name in losses:
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-4), name


def test_snapshots_have_names_of_their_own_that_sort_as_images_do() -> None:
    def names(images: list[int], size: int = 32, **rhythm: Any) -> list[str]:
        run = GanRunConfig(**{"snapshot_ticks": 1, "metric_ticks": 0} | rhythm)
        return [generator_run.snapshot_name(x, run, size) for x in images]

    # Whole thousands are enough for snapshots that lie further apart.
    assert names([4000, 8000, 10000]) == ["000004k", "000008k", "000010k"]
    assert names([3968, 198_400], size=64) == ["000003k", "000198k"]
    many = list(range(32, 3000, 32))
    found = names(many, kimg_per_tick=0.032)
    assert found[0] == "000000k"
    assert found == sorted({*found})
    # A run that ends off its rhythm may go on later.
    ended = names([320, 1_024, 1_300], kimg_per_tick=1.024)
    assert ended == ["000000k320", "000001k", "000001k300"]


def test_groups_are_of_neighbours() -> None:
    rows = image_data.rows_of_device(8)
    # Members lie 2 apart.
    assert {*rows[0::2]} == {0, 1, 2, 3}
    assert {*rows[1::2]} == {4, 5, 6, 7}
    assert sorted(image_data.rows_of_device(6)) == list(range(6))


def test_batches_are_the_same_wherever_a_run_begins(data: pathlib.Path) -> None:
    asked = ImageDataSettings(data=str(data))
    opened = image_data.open_images(asked, seed=0, listener=SILENT)
    mesh = parallel.make_mesh(jax.devices()[:2])

    def images_of(start: int) -> list[np.ndarray]:
        return [batch.image for batch in opened.batches(16, start, 4, mesh)]

    whole, late = images_of(0), images_of(2)
    np.testing.assert_array_equal(whole[2:], late)
    # Every image once before any comes again.
    images = opened.load(np.arange(24)).reshape(24, -1)
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
        ({"resolution": 16}, "--data: expected square images of a power of two"),
        ({"augment_p": 2}, "--augment_p: expected 0 to 1"),
        ({"data": "nowhere"}, "expected a folder or zip of images, found none"),
        ({"freeze_layers": 99}, "--freeze_layers: expected at most 4"),
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


def test_stylegan3_is_not_trained(start: Any, tmp_path: pathlib.Path) -> None:
    network = tiny.generator(tiny.STYLEGAN3)
    before = tiny.write(tmp_path / "generator", "stylegan3", network)
    code, _, err = start(resume_from=before)
    assert code == 2
    assert "--resume_from: expected a generator of kind stylegan2" in err
    assert err.endswith(f"found stylegan3 in {before}\n")
    assert not (tmp_path / "run" / "run.json").exists()


def test_without_grain_it_says_what_to_install(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None in its place is what Python takes for a package that cannot be imported.
    monkeypatch.setitem(sys.modules, "grain", None)
    code, _, err = start()
    assert code == 2
    assert err.endswith("needs grain: pip install 'styleclip-jax[train]'\n")
