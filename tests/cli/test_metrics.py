"""styleclip-metrics: features streamed and kept, metrics of them, refusals."""

import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import latents, parallel
from styleclip_jax.batch import stream
from styleclip_jax.cli import metrics
from styleclip_jax.evaluation import generator_features, generator_metrics
from styleclip_jax.evaluation.generator_features import Sampling
from styleclip_jax.io import checkpoints
from styleclip_jax.models import stylegan2
from styleclip_jax.ops import pixels
from styleclip_jax.ops.moments import FeatureStatistics
from styleclip_jax.settings.measures import PathLengthConfig
from styleclip_jax.toy import judge
from tests import programs, tiny

CONFIG = tiny.GENERATOR.replace(resolution=64, channels=(8, 8, 8, 6, 4))
COUNT = 24


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a tiny generator that draws as large as the judge sees."""
    folder = tmp_path_factory.mktemp("generator")
    save(folder, CONFIG)
    return str(folder)


def save(folder: pathlib.Path, config: stylegan2.GeneratorConfig) -> None:
    network = tiny.generator(config)
    checkpoints.save_network(
        folder,
        kind="stylegan2",
        params=network.params,
        config=config,
        source={},
        overwrite=True,
    )


@pytest.fixture
def flags(generator: str, tmp_path: pathlib.Path) -> dict[str, Any]:
    return {
        "generator": generator,
        "outdir": tmp_path / "out",
        "data_cache": tmp_path / "cache",
        "num_samples": COUNT,
        "metrics": "fd_judge,kd_judge,pr_judge",
        "noise": "const",
    }


def argv(flags: dict[str, Any]) -> list[str]:
    return ["styleclip-metrics", *(f"--{name}={x}" for name, x in flags.items())]


def start(
    capsys: pytest.CaptureFixture[str], flags: dict[str, Any], **more: Any
) -> tuple[int, str, str]:
    code = programs.run(metrics, argv(flags | more))
    return code, *capsys.readouterr()


def values(outdir: pathlib.Path) -> dict[str, Any]:
    table = json.loads((outdir / "metrics.json").read_text())
    return {row["metric"]: row["mean"] for row in table["metrics"]}


def test_metrics_are_those_of_the_samples(
    flags: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = start(capsys, flags, keep_features=True)
    assert code == 0, err
    outdir = flags["outdir"]
    seen = np.load(outdir / "repeat-0/samples/judge.npy")
    z = latents.seeded_batch(range(COUNT), CONFIG.z_dim)
    network = tiny.generator(CONFIG)
    w = stylegan2.map_latents(network, z)
    w_plus = jnp.repeat(w[:, None], CONFIG.num_rows, axis=1)
    image = jax.jit(stylegan2.synthesize)(network, w_plus)
    image = pixels.to_uint8(image, rounding="tf")
    expected = np.asarray(judge.features(judge.load(), pixels.to_float(image)))
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-3 * abs(expected).max())
    real = np.load(outdir / "data/judge.npy")
    found = values(outdir)
    both = [FeatureStatistics.of(x).gaussian for x in (seen, real)]
    assert found["fd_judge"] == pytest.approx(
        generator_metrics.frechet_distance(*both), rel=1e-6
    )
    pair = generator_metrics.precision_recall(seen, real)
    assert (found["pr_judge_precision"], found["pr_judge_recall"]) == pair
    assert "| fd_judge |" in out
    assert "values of different numbers do not compare" in out
    # The same command makes nothing anew.
    before = programs.hashes(outdir)
    assert start(capsys, flags, keep_features=True)[0] == 0
    assert programs.hashes(outdir) == before


def test_repeats_have_other_seeds_and_a_deviation(
    flags: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"metrics": "fd_judge"}
    for name, more in (("both", {"repeats": 2}), ("second", {"seed": COUNT})):
        outdir = flags["outdir"].with_name(name)
        code, _, err = start(capsys, flags | options, outdir=outdir, **more)
        assert code == 0, err
        # Features of gigabytes are gone.
        assert {x.suffix for x in outdir.iterdir()} <= {".json", ".md", ".lock", ""}
        assert not list(outdir.rglob("*.npy"))
    table = json.loads((flags["outdir"].with_name("both") / "metrics.json").read_text())
    (row,) = table["metrics"]
    first, second = row["values"]
    assert first != second
    assert second == values(flags["outdir"].with_name("second"))["fd_judge"]
    assert row["mean"] == pytest.approx((first + second) / 2)
    assert row["std"] == pytest.approx(abs(first - second) / 2**0.5)


def test_features_of_data_are_kept_and_made_anew_when_damaged(
    flags: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    flags |= {"metrics": "fd_judge"}
    _, first, _ = start(capsys, flags)
    _, second, _ = start(capsys, flags, outdir=flags["outdir"].with_name("two"))
    assert "of an earlier run" not in first
    assert "of an earlier run" in second
    (kept,) = (flags["data_cache"] / "features").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    _, third, _ = start(capsys, flags, outdir=flags["outdir"].with_name("three"))
    assert "they are made again" in third
    found = [values(flags["outdir"].with_name(x)) for x in ("out", "two", "three")]
    assert found[0] == found[1] == found[2]


def command(flags: dict[str, Any]) -> list[str]:
    """Module and flags of the program."""
    return ["styleclip_jax.cli.metrics", *argv(flags)[1:]]


@pytest.mark.slow
def test_four_devices_two_processes_and_a_kill_give_the_same_digits(
    flags: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    flags |= {"batch_size": 2, "metrics": "fd_judge,pr_judge,ppl_judge"}
    assert start(capsys, flags)[0] == 0
    outdir = flags["outdir"].with_name("killed")
    flags |= {"outdir": outdir, "data_cache": "none"}
    part = outdir / "repeat-0/samples/metrics.part0.jsonl"
    killed = programs.ended(command(flags), part, lines=4)
    programs.expect_kill(programs.launch_module(killed, devices=1))
    printed = programs.run_in_two(
        lambda shared: programs.launch_module(command(flags | shared), devices=1)
    )
    assert "images are done" in printed[0]
    tables = [outdir.with_name(name) / "metrics.md" for name in ("out", "killed")]
    assert tables[0].read_text() == tables[1].read_text()


def test_features_are_there_until_all_processes_have_left_them(
    flags: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []

    def heard(module: Any, name: str, event: str) -> None:
        function = getattr(module, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            events.append(event)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, called)

    heard(stream, "finish", "finished")
    heard(parallel, "agree", "together")
    heard(shutil, "rmtree", "removed")
    assert start(capsys, flags | {"metrics": "fd_judge"})[0] == 0
    after = events[len(events) - events[::-1].index("finished") :]
    assert after == ["together", "removed", "removed"]


def test_classes_of_samples_are_those_of_the_data() -> None:
    config = CONFIG.replace(c_dim=3)
    network = tiny.generator(config)
    labels = np.array([2, 2, 0])
    drawn = Sampling(network, "const", 7, 50, labels=labels).load(np.arange(50))
    counts = drawn["label"].sum(axis=0)
    assert drawn["label"].shape == (50, 3)
    assert counts[1] == 0
    assert counts[2] > counts[0] > 0
    # A sample has its class wherever it is drawn.
    alone = Sampling(network, "const", 7, 50, labels=labels).load(np.array([31]))
    np.testing.assert_array_equal(alone["label"][0], drawn["label"][31])
    vectors = np.array([[0, 0.5, 0.5]], np.float32)
    found = Sampling(network, "const", 7, 2, labels=vectors).load(np.arange(2))
    np.testing.assert_array_equal(found["label"], np.repeat(vectors, 2, axis=0))
    one = Sampling(network, "const", 7, 2, label=np.eye(3)[1]).load(np.arange(2))
    np.testing.assert_array_equal(one["label"], [[0, 1, 0]] * 2)


def test_a_path_is_the_same_in_every_batch(tmp_path: pathlib.Path) -> None:
    network = tiny.generator(CONFIG)
    seeds = np.arange(4, dtype=np.uint32)

    def walk(rows: list[int]) -> np.ndarray:
        return np.asarray(
            generator_features.walk(
                network,
                judge.load(),
                {"seed": seeds[rows]},
                "judge",
                PathLengthConfig(epsilon=1e-2),
            )
        )

    whole = walk([0, 1, 2, 3])
    assert (whole > 0).all()
    np.testing.assert_allclose(walk([2, 3]), whole[2:], rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"metrics": "fid"}, "--metrics: expected some of fid50k_full"),
        ({"metrics": "fid50k"}, "--metrics: fid50k takes --features of inception"),
        ({"num_samples": 1}, "--num_samples"),
        (
            {"num_samples": 3},
            "--num_samples: expected 4 images or more for pr_judge, found 3",
        ),
        (
            {"data": "nowhere"},
            "nowhere: expected a folder or zip of images, found none",
        ),
        ({"features": "nowhere"}, "--features: expected a model directory of each"),
        ({"class": 1}, "--class: this generator is not class-conditional"),
    ],
)
def test_what_does_not_fit_is_one_line(
    flags: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    expected: str,
) -> None:
    code, _, err = start(capsys, flags, **options)
    assert code == 2
    assert expected in err.splitlines()[-1]
    assert not flags["outdir"].exists()


def test_classes_of_data_do_not_concern_a_generator_without_any(
    flags: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (64, 64), (60 * i, 0, 0)).save(folder / f"{i}.png")
    labels = {"labels": [[f"{i}.png", i % 2] for i in range(4)]}
    (folder / "dataset.json").write_text(json.dumps(labels))
    options = {"data": folder, "metrics": "fd_judge", "num_samples": 4}
    code, _, err = start(capsys, flags, **options)
    assert code == 0, err


def test_images_of_another_size_and_generators_the_judge_cannot_see_are_refused(
    flags: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("L", (64, 64)).save(folder / "a.png")
    Image.new("RGB", (64, 32)).save(folder / "b.png")
    code, _, err = start(capsys, flags, data=folder)
    assert code == 2
    assert "expected images of 64×64 as the generator draws them, found 64×32" in err
    (folder / "b.png").unlink()
    code, _, err = start(capsys, flags, data=folder)
    assert code == 2
    assert "expected two images or more, found 1" in err
    save(tmp_path / "small", tiny.GENERATOR)
    code, _, err = start(capsys, flags, generator=tmp_path / "small")
    assert code == 2
    assert "the judge knows drawn faces alone, of 32² to 128²" in err
    assert not flags["outdir"].exists()
