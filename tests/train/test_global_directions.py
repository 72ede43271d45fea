"""The program that measures relevance: results, devices, resuming, refusals."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from styleclip_jax import losses, parallel
from styleclip_jax.batch import run_folder
from styleclip_jax.editing import estimation
from styleclip_jax.errors import UserError
from styleclip_jax.methods import channel_relevance
from styleclip_jax.methods.channel_relevance import RelevanceConfig
from styleclip_jax.progress import SILENT, Listener, Report, ignore
from tests import processes, programs, tiny
from tests.programs import Program
from train import global_directions, relevance_file, relevance_run

CONFIG = RelevanceConfig(num_samples=3, num_statistics=20, rounding="none")
LAYOUT = tiny.GENERATOR.style_layout


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups in a layer of eight channels."""
    monkeypatch.setattr(relevance_run, "_GROUP", 4)


@pytest.fixture
def run(
    models: dict[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> Program:
    """Runs the program and returns its exit code, stdout and stderr."""

    def call(**options: Any) -> tuple[int, str, str]:
        defaults = {
            "output": tmp_path / "out.safetensors",
            "num_samples": 3,
            "num_statistics": 20,
            "layers": "b8/conv1",
            "batch_size": 16,
        }
        argv = ["program"]
        for name, value in (models | defaults | options).items():
            argv += [] if value is None else [f"--{name}={value}"]
        code = programs.run(global_directions, argv)
        return code, *capsys.readouterr()

    return call


def record_of(path: pathlib.Path) -> dict[str, Any]:
    with safetensors.safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["styleclip_jax"])


class StoppedError(Exception):
    """An interruption."""


def measure(
    networks: losses.Networks,
    folder: pathlib.Path,
    config: RelevanceConfig,
    *,
    devices: int = 4,
    stop_after: int | None = None,
    layers: tuple[int, ...] = (3,),
) -> relevance_run.Measured:
    mesh = parallel.make_mesh(jax.devices()[:devices])
    samples = estimation.draw_samples(networks.generator, config, mesh)
    reports: list[int] = []

    def report(count: int) -> None:
        reports.append(count)
        if stop_after is not None and len(reports) > stop_after:
            raise StoppedError

    @contextlib.contextmanager
    def bar(total: int, unit: str) -> Iterator[Report]:
        assert unit == "image"
        yield report
        # What an interrupted run has done is not counted again.
        assert sum(reports) == total

    return relevance_run.measure(
        networks,
        samples,
        config,
        layers,
        mesh=mesh,
        batch_size=16,
        work=relevance_run.Work(folder, {"seed": config.seed}),
        listener=Listener(ignore, bar),
        save_every=0,
    )


@pytest.mark.parametrize(
    "method", ["exact", pytest.param("jacobian", marks=pytest.mark.slow)]
)
def test_four_devices_and_interruptions_change_nothing(
    networks: losses.Networks, tmp_path: pathlib.Path, method: str
) -> None:
    config = RelevanceConfig(
        num_samples=5, num_statistics=20, rounding="none", method=method
    )
    whole = measure(networks, tmp_path / "whole", config)
    assert whole.rows.shape == (8, tiny.CLIP.embed_dim)
    np.testing.assert_allclose(np.linalg.norm(whole.rows, axis=1), 1, rtol=1e-5)
    # Marks at 1, 2 and 4 of 5 samples.
    assert whole.convergence.shape == (3, 8)
    assert (whole.convergence[2] > 0.6).all()

    single = measure(networks, tmp_path / "single", config, devices=1)
    np.testing.assert_allclose(single.rows, whole.rows, atol=2e-5)

    # In the midst of the group, with two samples left and with one.
    for stop_after in (2, 0) if method == "exact" else (1,):
        with pytest.raises(StoppedError):
            measure(networks, tmp_path / "cut", config, stop_after=stop_after)
    resumed = measure(networks, tmp_path / "cut", config)
    for found, expected in zip(resumed, whole, strict=True):
        assert found.tobytes() == expected.tobytes()
    for path in sorted((tmp_path / "cut").glob("*.npz"))[:1]:
        os.truncate(path, 300)
    again = measure(networks, tmp_path / "cut", config)
    assert again.rows.tobytes() == whole.rows.tobytes()


def test_damage_and_other_versions_of_kept_results_are_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    work = relevance_run.Work(tmp_path, {"seed": 1}, told.append)
    path, shapes = tmp_path / "a.npz", {"x": (3,)}
    assert work.load("a", shapes) is None
    for damage in (
        lambda content: content[:-30],
        lambda content: content.replace(np.float32(7).tobytes(), bytes(4)),
        lambda content: bytes(len(content)),
        lambda content: b"",
    ):
        work.save("a", {"x": np.full(3, 7, np.float32)})
        assert work.load("a", shapes)["x"].tolist() == [7, 7, 7]
        path.write_bytes(damage(path.read_bytes()))
        assert work.load("a", shapes) is None
        assert told.pop().startswith(f"note: {path}: ")
        assert not path.exists()
    for arrays in ({"y": np.zeros(3)}, {"x": np.zeros(4)}):
        work.save("a", arrays)
        assert work.load("a", shapes) is None
        assert told.pop().endswith(
            "x is missing or of other shape; it is measured again"
        )
    assert not told
    monkeypatch.setattr(run_folder, "__version__", "99.1")
    relevance_run.Work(tmp_path, {"seed": 1}, told.append)
    assert ", now 99.1; " in told.pop()


def test_leftovers_beside_the_output_are_removed(
    run: Program, tmp_path: pathlib.Path
) -> None:
    assert run()[0] == 0
    before = sorted(tmp_path.iterdir())
    # A kill between the output and the end of its folder leaves some of it.
    partial = tmp_path / "out.safetensors.partial"
    partial.mkdir()
    (partial / "samples.npz").touch()
    assert run()[0] == 0
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_exact_rows_are_those_of_the_method(
    networks: losses.Networks, tmp_path: pathlib.Path
) -> None:
    """Batches, padding and groups put every channel into its own row."""
    mesh = parallel.make_mesh(jax.devices()[:1])
    samples = estimation.draw_samples(networks.generator, CONFIG, mesh)
    found = measure(networks, tmp_path / "work", CONFIG, layers=(3,)).rows

    @jax.jit
    def expected(networks: losses.Networks) -> jax.Array:
        prepared = channel_relevance.prepare(
            networks, samples.styles, samples.mean, layer=3, layers=(3,), config=CONFIG
        )
        features = channel_relevance.channel_features(
            networks,
            prepared,
            samples.mean,
            samples.std,
            np.arange(8),
            layer=3,
            config=CONFIG,
        )
        return channel_relevance.combine(channel_relevance.differences(features))

    np.testing.assert_allclose(found, expected(networks), atol=2e-5)


@pytest.mark.slow
def test_program_writes_reports_and_compares(
    run: Program, tmp_path: pathlib.Path
) -> None:
    code, out, _ = run()
    path = tmp_path / "out.safetensors"
    assert code == 0
    assert not path.with_name("out.safetensors.partial").exists()
    record = record_of(path)
    assert record["generator"]["name"] == "generator"
    assert len(record["generator"]["sha256"]) == 64
    assert record["layers"] == ["b8/conv1"]
    about = record["about"]
    assert about["settings"]["num_samples"] == 3
    assert about["cost"] == {"images": 2 * 8 * 3}
    assert list(about["convergence"]) == ["1", "2"]
    assert "cosine to the final relevance" in out

    # Done already: nothing is measured again.
    before = path.stat().st_mtime_ns
    templates = tmp_path / "templates.txt"
    templates.write_text("a {}\n")
    code, out, _ = run(compare=path, pairs="cat:dog", templates=templates)
    assert code == 0
    assert path.stat().st_mtime_ns == before
    assert "quantiles 5 %, 25 %, 50 %: 1.000  1.000  1.000" in out
    assert "cat → dog: rank correlation 1.000, top 8 100 %" in out

    code, _, err = run(num_samples=2)
    assert code == 2
    assert "is of a run with --num_samples=3, found 2" in err


@pytest.mark.slow
def test_interrupted_program_ends_in_the_same_bytes(
    run: Program, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "out.safetensors", tmp_path / "whole.safetensors"
    assert run(output=whole)[0] == 0
    add, calls = relevance_run.Mean.add, []

    def interrupted(self: Any, differences: np.ndarray) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        add(self, differences)

    with monkeypatch.context() as patch:
        patch.setattr(relevance_run.Mean, "add", interrupted)
        assert run()[0] == 130
    assert not path.exists()
    code, _, err = run(seed=6)
    assert code == 2
    assert "out.safetensors.partial: is of a run with --seed=5, found 6" in err
    assert run()[0] == 0
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_two_processes_share_the_channels(
    run: Program, models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    # Their batches are not of one shape, and rounding to 8 bits would magnify that.
    settings = {"layers": "all", "rounding": "none"}
    assert run(output=tmp_path / "whole.safetensors", **settings)[0] == 0
    flags = {
        "output": tmp_path / "out.safetensors",
        "num_samples": 3,
        "num_statistics": 20,
        "batch_size": 16,
    }

    def launch(shared: dict[str, Any]) -> subprocess.Popen[str]:
        options = models | flags | settings | shared
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "train.global_directions"),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            env=os.environ | {"XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    outputs = programs.run_in_two(launch)
    assert "relevance: " in outputs[0]
    assert "relevance: " not in outputs[1]
    tables = [
        safetensors.numpy.load_file(tmp_path / f"{name}.safetensors")
        for name in ("whole", "out")
    ]
    assert tables[0].keys() == tables[1].keys()
    for name, expected in tables[0].items():
        np.testing.assert_allclose(tables[1][name], expected, atol=2e-5)
    assert not (tmp_path / "out.safetensors.partial").exists()


def test_a_process_waits_for_the_results_of_the_others(
    networks: losses.Networks, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready: list[bool] = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(parallel, "meet", lambda is_ready: ready.append(is_ready()))
    monkeypatch.setattr(parallel, "agree", lambda number: number)
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        with contextlib.suppress(UserError):
            measure(networks, tmp_path, CONFIG)
    assert ready == [False, True]


def test_processes_without_a_common_folder_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = types.SimpleNamespace(generator_origin=str, clip_origin=str)

    def open_work(index: int) -> None:
        request: Any = types.SimpleNamespace(
            partial=tmp_path / f"host{index}", settings={}, models=models
        )
        with parallel.first_alone():
            relevance_file._open_work(request, SILENT)

    first, second = processes.run(monkeypatch, 2, open_work)
    assert "another process refused the run" in str(first)
    assert "all processes need one folder" in str(second)


@pytest.mark.slow
def test_lower_resolution_reports_its_cosine(
    networks: losses.Networks, tmp_path: pathlib.Path
) -> None:
    config = dataclasses.replace(CONFIG, clip_resolution=4)
    found = measure(networks, tmp_path / "work", config, layers=(0,))
    assert found.lower.shape == (10,)
    assert (np.abs(found.lower) < 0.999).any()
    assert (found.lower <= 1.0001).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": None}, "--output: expected a .safetensors file, found None"),
        ({"output": "x.npy"}, "--output: expected a .safetensors file"),
        ({"layers": "b16"}, "--layers: expected all"),
        ({"num_samples": 0}, "--num_samples must be at least 1"),
        ({"method": "fast"}, "--method must be one of exact, jacobian"),
        ({"class": 1}, "--class: this generator is not class-conditional"),
        ({"compare": "none.safetensors"}, "none.safetensors: no such file"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(
    run: Program, tmp_path: pathlib.Path, options: dict[str, Any], message: str
) -> None:
    code, _, err = run(**options)
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert message in err
    assert not list(tmp_path.iterdir())
