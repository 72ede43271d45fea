"""styleclip-convert: model directories, several files, refusals that leave nothing."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from convert import __main__
from styleclip_jax.io import checkpoints, torch_files
from styleclip_jax.models import param_trees, stylegan2
from tests import programs
from tests.convert.generators import (
    CONFIGS,
    CONVERTED,
    TENSORFLOW,
    TRAINING,
    converted,
    each_file,
)

# The program


def run(*args: Any) -> int:
    return __main__.main(["convert", *map(str, args)])


def fail(capsys: pytest.CaptureFixture[str], *args: Any) -> str:
    """The line on stderr of a run that must fail."""
    capsys.readouterr()
    assert run(*args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def write_state(path: pathlib.Path, drop: str = "", add: str = "") -> pathlib.Path:
    """A generator's bare state dict, with a tensor less or one more."""
    state = torch_files.read(TRAINING).content["g_ema"]
    tensors = {k: np.ascontiguousarray(v) for k, v in state.items() if k != drop}
    if add:
        tensors[add] = np.zeros(2, np.float32)
    safetensors.numpy.save_file(tensors, path)
    return path


@each_file
def test_program_writes_a_model_directory(tmp_path, capsys, path):
    assert run(path, "--output", tmp_path / "model") == 0
    out = capsys.readouterr().out
    assert f"resolution: {CONFIGS[path].resolution}" in out
    assert "read back and compared" in out
    network = checkpoints.load_network(
        tmp_path / "model",
        kind="stylegan2",
        config_type=stylegan2.GeneratorConfig,
        param_shapes=stylegan2.param_shapes,
    )
    assert network.config == CONFIGS[path]
    expected = converted(path).tensors
    found = param_trees.flatten(network.params)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
    document = json.loads((tmp_path / "model/config.json").read_text())
    assert document["source"]["file"] == path.name
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_several_files_become_folders_with_their_names(tmp_path):
    assert run(CONVERTED, f"--output={tmp_path}", "--kind=stylegan2", TENSORFLOW) == 0
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["stylegan2-ffhq-config-f", "stylegan2-tiny-config-f"]


def test_nothing_is_written_when_one_of_several_fails(tmp_path, capsys):
    text = tmp_path / "notes.pt"
    text.write_text("notes")
    assert "notes.pt" in fail(capsys, CONVERTED, text, "--output", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_files_of_one_name_are_refused(tmp_path, capsys):
    twice = tmp_path / CONVERTED.name
    twice.write_bytes(CONVERTED.read_bytes())
    message = fail(capsys, CONVERTED, twice, "--output", tmp_path / "models")
    assert "found stylegan2-ffhq-config-f twice" in message


def test_missing_and_surplus_tensors_are_both_named(tmp_path, capsys):
    path = write_state(
        tmp_path / "x.safetensors", drop="convs.1.noise.weight", add="convs.1.gate"
    )
    message = fail(capsys, path, "--output", tmp_path / "model")
    assert f"{path}: 1 missing tensor (synthesis/b8/conv1/noise_strength)" in message
    assert "1 surplus tensor (convs.1.gate)" in message
    assert not (tmp_path / "model").exists()


@each_file
def test_truncated_files_leave_nothing_behind(tmp_path, capsys, path):
    data = path.read_bytes()
    cut = tmp_path / "cut"
    for length in (0, 3, 500, len(data) // 3, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        assert str(cut) in fail(capsys, cut, "--output", tmp_path / "model")
        assert [entry.name for entry in tmp_path.iterdir()] == ["cut"]


def test_inputs_that_are_no_files_are_refused(tmp_path, capsys):
    out = tmp_path / "model"
    assert "no such file" in fail(capsys, tmp_path / "absent.pt", "--output", out)
    assert "found a folder" in fail(capsys, tmp_path, "--output", out)
    assert not out.exists()


def test_outputs_that_cannot_be_written_are_refused(tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "photo.png").write_bytes(b"")
    message = fail(capsys, CONVERTED, "--output", full)
    assert "already exists and is not empty" in message
    assert [entry.name for entry in full.iterdir()] == ["photo.png"]
    file = full / "photo.png"
    assert "found a file" in fail(capsys, CONVERTED, "--output", file)
    message = fail(capsys, CONVERTED, "--output", file / "model")
    assert "photo.png/model" in message
    assert file.is_file()


def test_command_lines_that_lack_something_are_refused(tmp_path, capsys):
    assert "--output" in fail(capsys, CONVERTED)
    assert "found none" in fail(capsys, "--output", tmp_path)
    assert "stylegan2|stylegan3|clip" in fail(capsys, CONVERTED, "--kind=face")
    assert "speed" in fail(capsys, CONVERTED, "--speed=3")


def test_unknown_content_is_described(tmp_path, capsys):
    path = tmp_path / "pictures.npz"
    np.savez(path, pictures=np.zeros((2, 4, 4, 3), np.float32))
    message = fail(capsys, path, "--output", tmp_path / "model")
    assert "expected one of stylegan2, stylegan3, clip" in message
    assert "found a npz file that holds a dict with pictures" in message


def test_wrong_kind_is_refused(tmp_path, capsys):
    message = fail(capsys, CONVERTED, "--kind=clip", "--output", tmp_path / "model")
    assert str(CONVERTED) in message
    path = tmp_path / "w.npy"
    np.save(path, np.zeros(3))
    message = fail(capsys, path, "--kind=stylegan2", "--output", tmp_path / "model")
    assert "expected a StyleGAN2 generator, found none" in message


def test_a_result_that_reads_back_differently_is_removed(tmp_path, capsys, monkeypatch):
    save = checkpoints.save_network

    def damage(directory: pathlib.Path, **kwargs: Any) -> None:
        params = dict(kwargs.pop("params"))
        params["mapping/fc0/bias"] = params["mapping/fc0/bias"] + 1e-3
        save(directory, params=params, **kwargs)

    monkeypatch.setattr(checkpoints, "save_network", damage)
    message = fail(capsys, CONVERTED, "--output", tmp_path / "model")
    assert "differs from what was written (mapping/fc0/bias)" in message
    assert not list(tmp_path.iterdir())


def test_help_names_the_flags(capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert "--output" in out
    assert "--kind" in out


def test_module_exits_with_2_and_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "convert", "absent.pt", "--output", str(tmp_path / "x")],
        cwd=programs.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == "error: absent.pt: no such file\n"
