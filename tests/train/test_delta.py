"""styleclip-train-delta, and edits by what it makes."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from styleclip_jax import losses
from styleclip_jax.cli import edit
from styleclip_jax.evaluation import edit_sets
from styleclip_jax.io import latent_files
from styleclip_jax.methods import delta, delta_training
from tests import programs, tiny
from train import delta as train_delta
from train import delta_run, latent_data, trainer

STEPS = 6


@pytest.fixture(scope="module")
def options(models: dict[str, str]) -> dict[str, Any]:
    """Flags of a short training on tiny networks."""
    return models | {
        "train_steps": STEPS,
        "batch_size": 4,
        "num_validation": 8,
        "width": 8,
        "log_interval": 1,
        "val_interval": 2,
        "image_interval": STEPS,
        "save_interval": 3,
        "sheet_size": 3,
    }


def run(
    capsys: pytest.CaptureFixture[str], program: Any, options: dict[str, Any]
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program, in this process."""
    given = [f"--{name}={x}" for name, x in options.items() if x is not None]
    code = programs.run(program, ["program", *given])
    return (code, *capsys.readouterr())


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open()]


def test_a_network_is_trained_resumed_and_edits(
    options: dict[str, Any],
    models: dict[str, str],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir = tmp_path / "run"
    given = options | {"workdir": workdir}
    assert run(capsys, train_delta, given | {"train_steps": 3})[0] == 0
    code, out, err = run(capsys, train_delta, given)
    assert code == 0, err
    assert "resumed: 3 steps are done" in out
    assert f"delta network: {workdir / 'best'}, validation loss" in out
    assert (workdir / "sheets" / f"step_{STEPS:06d}.png").exists()
    lines = read_metrics(workdir)
    assert [x["step"] for x in lines if x["split"] == "training"] == [*range(1, 7)]
    assert set(lines[0]) == {"step", "split", "total"}
    document = json.loads((workdir / "best" / "config.json").read_text())
    assert document["kind"] == "delta"
    assert document["source"]["training"]["validation_loss"] == min(
        x["total"] for x in lines if x["split"] == "validation"
    )
    code, _, err = run(capsys, train_delta, given | {"noise": 0.3})
    assert (code, err.count("\n")) == (2, 1)
    assert "of a run with --noise=0.5, found 0.3" in err

    (tmp_path / "prompts.txt").write_text("cat\nbird\n")
    (tmp_path / "templates.txt").write_text("a {}\n")
    editing = models | {
        "method": "delta",
        "delta": workdir / "best",
        "prompts_file": tmp_path / "prompts.txt",
        "templates": tmp_path / "templates.txt",
        "neutral": "dog",
        "strength": 2,
        "seeds": "0-2",
        "images": "npy",
    }
    code, _, err = run(capsys, edit, editing | {"outdir": tmp_path / "edits"})
    assert code == 0, err
    styles = [
        np.load(tmp_path / "edits" / f"{x}.npz")["styles"]
        for x in ("edited", "original")
    ]
    steps = (styles[0] - styles[1]).reshape(3, 2, -1)
    assert np.abs(steps).max(axis=-1).min() > 0
    assert (steps[:, 0] != steps[:, 1]).any()
    texts = [json.loads(x)["prompt"] for x in (tmp_path / "edits/metrics.jsonl").open()]
    assert texts == ["cat", "bird"] * 3
    sets = edit_sets.read(tmp_path / "edits")
    assert [(x.prompt, x.strength) for x in sets] == [
        ("cat", "strength 2"),
        ("bird", "strength 2"),
    ]
    other = editing | {"outdir": tmp_path / "other", "clip": "embedded"}
    code, _, err = run(capsys, edit, other)
    assert (code, err.count("\n")) == (2, 1)
    assert "expected --clip to be the one that this network was trained with" in err


def test_the_number_of_devices_does_not_matter(networks: losses.Networks) -> None:
    config = delta.of_generator(
        tiny.GENERATOR, embed_dim=tiny.CLIP.embed_dim, space="w_plus", width=8
    )
    settings = delta_training.TrainingConfig(learning_rate=0.01)
    problem = delta_training.official(config, settings)
    file = latent_files.Latents(np.asarray(tiny.w_plus(12)), "w_plus")
    data = latent_data.Data(file, file, 8, batch_size=4, seed=0)
    task = delta_run.task_of(networks, tiny.w_plus(12), problem)
    curves = []
    for count in (1, 4):
        work = trainer.Trainer(
            task,
            data,
            lambda generator, batch, space: batch,
            devices=jax.devices()[:count],
        )
        state, curve = work.start(0), []
        for _, batch in zip(range(5), work.batches(0), strict=False):
            state, terms = work.step(state, batch)
            curve.append(terms["total"])
        curve.append(work.validate(state.params)["total"])
        curves.append(np.stack(curve))
    assert np.ptp(curves[0]) > 1e-3
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-4)


@pytest.mark.slow
def test_one_device_needs_two_latents_a_step(
    options: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    given = options | {"workdir": tmp_path / "run", "batch_size": 1}
    environment = dict(os.environ)
    environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=1"
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "train.delta",
            *(f"--{n}={x}" for n, x in given.items()),
        ],
        cwd=programs.REPOSITORY,
        env=environment,
        text=True,
        capture_output=True,
    )
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert "--batch_size: expected at least 2 latents to pair" in process.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_pairs": 0}, "--num_pairs"),
        ({"width": 0}, "--width"),
        ({"train_steps": 0}, "--train_steps must be at least 1, found 0"),
        ({"latents": "missing.npy"}, "expected a file of latents"),
        ({"space": "z"}, "--space"),
    ],
)
def test_wrong_settings_are_refused(
    options: dict[str, Any],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    expected: str,
) -> None:
    given = options | {"workdir": tmp_path / "run"} | change
    code, _, err = run(capsys, train_delta, given)
    assert (code, err.count("\n")) == (2, 1)
    assert expected in err
    assert not (tmp_path / "run").exists()


def test_edits_need_a_network(
    models: dict[str, str],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = models | {"method": "delta", "prompt": "a cat", "seeds": "0"}
    code, _, err = run(capsys, edit, given | {"outdir": tmp_path / "out"})
    assert (code, err.count("\n")) == (2, 1)
    assert "delta needs --delta with a model directory" in err
