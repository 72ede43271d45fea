"""Training of mappers: devices, processes, interruptions, files, refusals."""

import dataclasses
import json
import pathlib
import signal
import subprocess
from typing import Any

import jax
import numpy as np
import pytest

from styleclip_jax import loading, losses
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, latent_files
from styleclip_jax.methods import mapper, mapper_training
from tests import programs, tiny
from train import latent_data, mapper_run, trainer, training_files
from train import mapper as train_mapper

PROMPTS = ("a cat", "a dog")
STEPS = 24


@pytest.fixture(scope="module")
def models(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Flags of a short training on tiny networks."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n\n")
    return models | {
        "prompts_file": str(folder / "prompts.txt"),
        "train_steps": str(STEPS),
        "batch_size": "4",
        "num_validation": "8",
        "learning_rate": "5",
        "log_interval": "1",
        "val_interval": "4",
        "image_interval": str(STEPS),
        "save_interval": "4",
        "sheet_size": "2",
    }


def command(options: dict[str, Any]) -> list[str]:
    given = {name: x for name, x in options.items() if x is not None}
    return ["train.mapper", *(f"--{name}={x}" for name, x in given.items())]


def run(capsys: Any, options: dict[str, Any]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program, in this process."""
    code = programs.run(train_mapper, command(options))
    out, err = capsys.readouterr()
    return code, out, err


def launch(options: dict[str, Any], devices: int) -> subprocess.Popen[str]:
    """The program as a process with so many simulated devices."""
    return programs.launch_module(command(options), devices)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open()]


def assert_same_metrics(found: Any, expected: Any, tolerance: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name, value in b.items():
            if isinstance(value, float):
                assert abs(a[name] - value) <= tolerance, (a, b)
            else:
                assert a[name] == value, (a, b)


@pytest.fixture(scope="module")
def finished(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """The workdir of a run without interruption, on four devices."""
    workdir = tmp_path_factory.mktemp("finished")
    process = launch(models | {"workdir": workdir}, devices=4)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    assert "best/a-cat, validation loss" in out
    return workdir


@pytest.mark.slow
def test_run_writes_everything_that_it_promises(
    models: dict[str, str], finished: pathlib.Path
) -> None:
    lines = read_metrics(finished)
    for split, every in (("training", 1), ("validation", 4)):
        steps = [x["step"] for x in lines if x["split"] == split]
        expected = [n for n in range(every, STEPS + 1, every) for _ in PROMPTS]
        assert steps == expected
    assert {"clip", "l2", "total"} < lines[0].keys()
    assert [x["prompt"] for x in lines[:2]] == list(PROMPTS)
    assert (finished / "sheets" / f"step_{STEPS:06d}.png").exists()
    record = json.loads((finished / "run.json").read_text())
    assert record["program"] == "train.mapper"
    assert len(record["inputs"]["prompts_file"]) == 64
    for index, folder in enumerate(("a-cat", "a-dog")):
        for kind in ("best", "last"):
            directory = finished / kind / folder
            assert loading.mapper_prompt(directory) == PROMPTS[index]
            network = loading.load_mapper(
                directory, models["generator"], tiny.GENERATOR
            )
            assert network.config == mapper.of_generator(tiny.GENERATOR)
            assert network.config.levels == ("coarse",)
    validation = [
        x["total"]
        for x in lines
        if x["split"] == "validation" and x["prompt"] == "a dog"
    ]
    about = json.loads((finished / "best" / "a-dog" / "config.json").read_text())
    training = about["source"]["training"]
    assert training["validation_loss"] == min(validation)
    assert training["step"] == 4 * (1 + int(np.argmin(validation)))


@pytest.mark.slow
def test_a_mapper_for_another_generator_is_refused(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    network = tiny.generator()
    params = jax.tree.map(lambda x: x + 1, network.params)
    checkpoints.save_network(
        tmp_path / "other",
        kind="stylegan2",
        params=params,
        config=network.config,
        source={},
    )
    with pytest.raises(UserError, match="was trained on"):
        loading.load_mapper(
            finished / "best" / "a-cat", tmp_path / "other", network.config
        )
    wider = dataclasses.replace(network.config, w_dim=13)
    with pytest.raises(UserError, match="rows of 13, found one for 12"):
        loading.load_mapper(finished / "best" / "a-cat", tmp_path / "other", wider)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_in_the_middle_a_run_goes_on_to_the_same_result(
    models: dict[str, str],
    finished: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: Any,
    number: signal.Signals,
) -> None:
    options = models | {"workdir": tmp_path}
    # A line for each prompt, of nine steps and of the validations after four and eight.
    part, lines = tmp_path / "metrics.jsonl", (9 + 2) * len(PROMPTS)
    ended = programs.ended(command(options), part, lines, number)
    process = programs.launch_module(ended, devices=4)
    out, _ = process.communicate()
    done = max(line["step"] for line in read_whole_lines(tmp_path))
    assert 8 <= done < STEPS
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 143
        path = tmp_path / "checkpoints" / str(done)
        assert f"ended: {done} steps are done, kept in {path}\n" in out
        assert out.endswith("terminated\n")

    code, out, err = run(capsys, options)
    assert code == 0, err
    assert "resumed: " in out
    assert_same_metrics(read_metrics(tmp_path), read_metrics(finished), 0.0)
    for folder in ("best/a-cat", "last/a-dog"):
        found, expected = (
            checkpoints.fingerprint(root / folder) for root in (tmp_path, finished)
        )
        assert found == expected, folder


def read_whole_lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Lines of metrics, but for one that was cut off."""
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


@pytest.mark.slow
def test_two_processes_train_as_one(
    models: dict[str, str], finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = models | {"workdir": tmp_path}
    outputs = programs.run_in_two(lambda shared: launch(options | shared, devices=1))
    assert "2 in 2 processes" in outputs[0]
    assert_same_metrics(read_metrics(tmp_path), read_metrics(finished), 1e-4)
    assert (tmp_path / "last" / "a-dog" / "config.json").exists()


@pytest.mark.slow
def test_the_number_of_devices_does_not_matter(networks: losses.Networks) -> None:
    config = mapper.of_generator(tiny.GENERATOR)
    training = mapper_training.TrainingConfig(id_lambda=0.0, learning_rate=5.0)
    problem = mapper_training.official(config, training)
    file = latent_files.Latents(np.asarray(tiny.w_plus(12)), "w_plus")
    data = latent_data.Data(file, file, 8, batch_size=4, seed=0)
    text = tiny.text_features(2)
    curves = []
    for count in (1, 4):
        work = trainer.Trainer(
            mapper_run.task_of(networks, text, problem),
            data,
            lambda generator, batch, space: batch,
            devices=jax.devices()[:count],
        )
        state, curve = work.start(0), []
        for _, batch in zip(range(10), work.batches(0), strict=False):
            used, (state, terms) = state, work.step(state, batch)
            # The first state is the host's; each further one is used up.
            held = [x for x in jax.tree.leaves(used) if isinstance(x, jax.Array)]
            assert all(leaf.is_deleted() for leaf in held)
            assert bool(held) == bool(curve)
            curve.append(terms["total"])
        curves.append(np.stack(curve))
    assert np.ptp(curves[0], axis=0).min() > 1e-3
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], atol=1e-4)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_with_step_and_checkpoint(
    models: dict[str, str], tmp_path: pathlib.Path, capsys: Any
) -> None:
    """In style space, from a file."""
    layout = tiny.GENERATOR.style_layout
    channels = sum(layer.channels for layer in layout)
    flat = np.random.default_rng(0).standard_normal((16, channels)) + 1
    flat[3] = np.nan
    path = tmp_path / "styles.npz"
    latent_files.write(path, latent_files.Latents(np.float32(flat), "s"), layout)
    options = models | {"workdir": tmp_path / "run", "latents": path, "space": "s"}
    code, _, err = run(capsys, options | {"save_interval": "1", "val_interval": "1"})
    assert code == 1
    line = err.strip().splitlines()[-1]
    # Two steps make an epoch, which has the row in one of them.
    step = int(line.partition("not finite at step ")[2].partition(";")[0])
    assert step in (1, 2)
    kept = "none" if step == 1 else str(tmp_path / "run" / "checkpoints" / "1")
    assert line.endswith(f"last good checkpoint: {kept}")
    assert line.startswith("failed: the loss for 'a dog'")


@pytest.mark.slow
def test_a_batch_fills_the_devices_and_stays_on_others(
    models: dict[str, str], tmp_path: pathlib.Path, capsys: Any
) -> None:
    options = models | {"batch_size": "2", "num_validation": "3", "train_steps": "1"}
    four, one = (options | {"workdir": str(tmp_path / x)} for x in ("four", "one"))
    code, out, _ = run(capsys, four)
    assert code == 0
    assert "a batch of 2 is rounded up to 4, which the 4 devices share" in out
    path = tmp_path / "four" / "run.json"
    record = json.loads(path.read_text())
    assert (record["flags"]["batch_size"], record["batch_size"]) == (2, 4)
    # As if there had been eight devices.
    path.write_text(json.dumps(record | {"batch_size": 8}))
    code, out, _ = run(capsys, four)
    assert code == 0
    assert "the run goes on with its batch of 8, on 4 of 4 devices" in out
    process = launch(one, 1)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    code, out, _ = run(capsys, one | {"train_steps": "2"})
    assert code == 0
    assert "the run goes on with its batch of 2, on 2 of 4 devices" in out
    assert "resumed: 1 steps are done" in out


def test_few_latents_held_out_count_equally() -> None:
    three = latent_files.Latents(np.arange(3.0), "z")
    data = latent_data.Data(None, three, 8, batch_size=4, seed=0)
    batches = list(data.validation_batches())
    np.testing.assert_array_equal(np.concatenate(batches), np.tile(np.arange(3), 4))
    assert {len(batch) for batch in batches} == {4}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompts_file": None, "prompt": " "}, "--prompt: expected a text"),
        ({"prompt": "a cat"}, "expected one, found both"),
        ({"prompts_file": None}, "--prompt: expected a text, found None"),
        ({"levels": "coarse,thin"}, "--levels must be some of coarse, medium, fine"),
        ({"levels": "fine"}, "some of coarse for a generator of 4 rows, found fine"),
        ({"levels": "coarse", "space": "s"}, "--levels must be all of them in s"),
        ({"latents": "wide.npy"}, "was it made for a 256² one?"),
        ({"latents": "few.npy", "num_validation": "8"}, "latents for training, 2,"),
        ({"latents": "missing.npy"}, "expected a file of latents"),
        ({"id_lambda": "0.1"}, "expected --identity with it"),
        ({"optimizer": "sgd"}, "--optimizer must be one of ranger, adam"),
        ({"train_steps": "0"}, "--train_steps must be at least 1, found 0"),
        ({"process_id": "0"}, "--coordinator_address: expected"),
        ({"prompts_file": "twice.txt"}, "found 'a cat' twice"),
        ({"generator": "missing"}, "expected a model directory"),
    ],
)
def test_refusals_are_one_line(
    models: dict[str, str],
    tmp_path: pathlib.Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("wide.npy", np.zeros((5, 14, 12), np.float32))
    np.save("few.npy", np.zeros((10, 4, 12), np.float32))
    pathlib.Path("twice.txt").write_text("a cat\na dog\na cat\n")
    code, _, err = run(capsys, models | {"workdir": "new"} | change)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert not pathlib.Path("new").exists()


@pytest.mark.slow
def test_a_workdir_of_another_run_is_refused_by_the_difference(
    models: dict[str, str], finished: pathlib.Path, capsys: Any
) -> None:
    before = (finished / "metrics.jsonl").read_text()
    options = models | {"workdir": finished}
    code, _, err = run(capsys, options | {"latent_l2_lambda": "0.5"})
    assert code == 2
    assert err.count("\n") == 1
    assert "--workdir: " in err
    assert "of a run with --latent_l2_lambda=0.8, found 0.5" in err
    code, _, err = run(capsys, options | {"train_steps": "5"})
    assert code == 2
    assert f"--train_steps: expected at least the {STEPS} that are done" in err
    assert (finished / "metrics.jsonl").read_text() == before


def test_batches_are_a_function_of_the_step() -> None:
    array = np.arange(10, dtype=np.float32)[:, None]
    data = latent_data.Data(
        latent_files.Latents(array, "w"), latent_files.Latents(array, "w"), 5, 3, 7
    )
    steps = [x for _, x in zip(range(9), data.batches(0), strict=False)]
    for start in (1, 4):
        again = [x for _, x in zip(range(3), data.batches(start), strict=False)]
        np.testing.assert_array_equal(again, steps[start : start + 3])
    # Three batches an epoch, each row at most once.
    for epoch in range(3):
        rows = np.concatenate(steps[3 * epoch : 3 * epoch + 3]).ravel()
        assert len(set(rows)) == 9
    assert (steps[0] != steps[3]).any()
    sampled = data._replace(training=None)
    drawn = [x for _, x in zip(range(4), sampled.batches(0), strict=False)]
    later = next(sampled.batches(2))
    assert later.shape == (3, 5)
    np.testing.assert_array_equal(later, drawn[2])
    assert (drawn[0] != drawn[1]).all()
    held_out = np.concatenate(list(data.validation_batches())).ravel()
    np.testing.assert_array_equal(held_out, np.arange(9))


def test_latents_held_out_are_not_trained_on(tmp_path: pathlib.Path) -> None:
    generator = tiny.GENERATOR
    array = np.random.default_rng(0).standard_normal((9, 4, 12)).astype(np.float32)
    np.save(tmp_path / "all.npy", array)
    np.save(tmp_path / "other.npy", array[:4] + 1)

    def opened(path: str | None, held_out: str | None, seed: int = 0) -> Any:
        paths = [name and str(tmp_path / name) for name in (path, held_out)]
        request = latent_data.DataRequest(*paths)
        return latent_data.open_data(
            request, generator, to="s", num_validation=4, batch_size=2, seed=seed
        )

    data = opened("all.npy", None)
    np.testing.assert_array_equal(data.training.array, array[:5])
    np.testing.assert_array_equal(data.validation.array, array[5:])
    data = opened("all.npy", "other.npy")
    assert len(data.training.array) == 9
    np.testing.assert_array_equal(data.validation.array, array[:4] + 1)
    first, second = opened(None, None), opened(None, None, seed=1)
    assert (first.validation.array != second.validation.array).all()
    assert first.space == first.validation.space == "z"


def test_each_mapper_keeps_its_own_best() -> None:
    params = {"a": np.zeros((2, 3), np.float32)}
    best = trainer.Best(np.float32([np.inf, 1]), np.array([0, 4]), params)
    new = {"a": np.ones((2, 3), np.float32)}
    found, improved = trainer.keep_best(best, 8, new, {"total": np.float32([3, 2])})
    assert improved == [0]
    np.testing.assert_array_equal(found.loss, [3, 1])
    np.testing.assert_array_equal(found.step, [8, 4])
    np.testing.assert_array_equal(found.params["a"], [[1] * 3, [0] * 3])
    # A loss that is not a number is never the best.
    _, improved = trainer.keep_best(found, 9, new, {"total": np.float32([np.nan] * 2)})
    assert improved == []


def test_metrics_of_steps_to_do_again_are_dropped(tmp_path: pathlib.Path) -> None:
    metrics = training_files.Metrics(tmp_path, ["a"], 0)
    for step in (1, 2, 3):
        metrics.write(step, "training", {"total": np.float32([step])})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')
    training_files.Metrics(tmp_path, ["a"], 2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


def test_names_of_folders_differ() -> None:
    names = training_files.folder_names(["A cat!", "a cat", "???", "Frühling", None])
    assert names == ["a-cat", "a-cat-1", "prompt", "frühling", ""]


def test_events_for_tensorboard(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("tensorboard")
    metrics = training_files.Metrics(tmp_path, ["a"], 0)
    metrics.write(1, "training", {"total": np.float32([2])})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"training/total/a" in events.read_bytes()
