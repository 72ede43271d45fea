"""The conversion: official generators become ours, and what does not fit is refused."""

import copy
import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from convert import __main__, rules, torch_files
from convert import stylegan2 as convert_stylegan2
from convert.rules import Rule
from convert.torch_files import TorchFile
from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden"
CONVERTED = GOLDEN / "stylegan2_rosinality/converted/stylegan2-ffhq-config-f.pt"
TRAINING = (
    GOLDEN
    / "stylegan2_rosinality/training_checkpoint"
    / "rosinality_training_checkpoint_550000.pt"
)
CONDITIONAL = GOLDEN / "stylegan2_ada_pkl/conditional/network-snapshot-cond.pkl"
TENSORFLOW = GOLDEN / "stylegan2_ada_pkl/tf_legacy/stylegan2-tiny-config-f.pkl"

Config = stylegan2.GeneratorConfig
CONFIGS = {
    CONVERTED: Config(64, 64, 64, 0, 8, (32, 32, 32, 32, 16)),
    TRAINING: Config(32, 32, 32, 0, 8, (24, 24, 16, 16)),
    CONDITIONAL: Config(32, 32, 48, 3, 8, (24, 24, 24, 16)),
    TENSORFLOW: Config(32, 48, 48, 0, 8, (24, 24, 24, 16)),
}


@functools.cache
def converted(path: pathlib.Path) -> rules.Conversion:
    """The conversion of an unchanged file; not to be changed itself."""
    return convert_stylegan2.convert(torch_files.read(path))


each_file = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The one-line message with which something is refused."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Rules

TABLE = (
    Rule(r"fc(\d)\.weight", r"fc\1/kernel", rules.transpose),
    Rule(r"fc(\d)\.bias", lambda match: f"fc{int(match[1])}/bias"),
    Rule(r"step", None),
)
SHAPES = {"fc0/kernel": (2, 3), "fc0/bias": (3,)}


def _source() -> dict[str, np.ndarray]:
    return {
        "fc0.weight": np.arange(6, dtype=np.float16).reshape(3, 2),
        "fc0.bias": np.ones(3, np.float64),
        "step": np.zeros(()),
    }


def test_rules_rename_and_transform_into_float32():
    found = rules.convert_tensors(TABLE, _source(), SHAPES, file="x.pt")
    assert list(found) == list(SHAPES)
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found["fc0/kernel"], [[0, 2, 4], [1, 3, 5]])


def test_rules_with_one_pattern_cut_a_tensor():
    table = [Rule("qkv", part, lambda x, i=i: x[i]) for i, part in enumerate("qkv")]
    shapes = {"q": (2,), "k": (2,), "v": (2,)}
    source = {"qkv": np.arange(6).reshape(3, 2)}
    found = rules.convert_tensors(table, source, shapes, file="x.pt")
    np.testing.assert_array_equal(found["k"], [2, 3])


def test_both_differences_and_wrong_shapes_stand_in_one_message():
    source = _source()
    del source["fc0.bias"]
    source["fc7.bias"] = np.ones(3)
    source["unknown"] = np.ones(3)
    source["fc0.weight"] = np.ones((2, 2))
    message = refusal(rules.convert_tensors, TABLE, source, SHAPES, file="x.pt")
    assert message == (
        "x.pt: 1 missing tensor (fc0/bias); 2 surplus tensors (unknown, fc7.bias); "
        "1 wrongly shaped tensor (fc0/kernel expected [2, 3] found [2, 2])"
    )


def test_long_differences_are_cut_short_and_counted():
    shapes = {f"t{i}": (1,) for i in range(9)}
    message = refusal(rules.convert_tensors, (), {}, shapes, file="x.pt")
    assert message == "x.pt: 9 missing tensors (t0, t1, t2, t3, t4, … and 4 more)"


def test_a_leaf_filled_twice_is_refused():
    table = (*TABLE, Rule("again", "fc0/bias"))
    source = _source() | {"again": np.ones(3)}
    message = refusal(rules.convert_tensors, table, source, SHAPES, file="x.pt")
    assert "fc0.bias and again would both become fc0/bias" in message


def test_a_transform_that_does_not_fit_names_the_tensor():
    source = _source() | {"fc0.weight": np.ones(3)}
    message = refusal(rules.convert_tensors, TABLE, source, SHAPES, file="x.pt")
    assert message == "x.pt: tensor fc0.weight: expected 2 axes, found [3]"


def test_layout_transforms_move_the_named_axes():
    x = np.arange(120).reshape(2, 3, 4, 5)
    assert rules.oihw_to_hwio(x)[3, 4, 2, 1] == x[1, 2, 3, 4]
    assert rules.chw_to_hwc(x[0])[3, 4, 2] == x[0, 2, 3, 4]
    assert rules.flip_hw(x)[0, 1, 2, 3] == x[1, 1, 2, 3]
    assert rules.first(x[:1]).shape == (3, 4, 5)
    with pytest.raises(ValueError, match="leading axis"):
        rules.first(x)


# Generators


@each_file
def test_architecture_is_read_off_the_shapes(path):
    assert convert_stylegan2.recognize(torch_files.read(path))
    conversion = converted(path)
    assert conversion.kind == "stylegan2"
    assert conversion.config == CONFIGS[path]
    shapes = {name: tensor.shape for name, tensor in conversion.tensors.items()}
    assert shapes == dict(stylegan2.param_shapes(CONFIGS[path]))


@each_file
def test_converted_generator_makes_the_official_image(path):
    conversion = converted(path)
    config, params = conversion.config, checkpoints.unflatten(conversion.tensors)
    with np.load(path.parent / "io.npz") as expected:
        label = jnp.asarray(expected["c"][:1]) if config.c_dim else None
        image = _image(params, jnp.asarray(expected["z"][:1]), label, config)
        official = expected["image" if "image" in expected else "image_z"]
    # The official float32 images are themselves uncertain by about 1e-6.
    error = np.abs(np.asarray(image).transpose(0, 3, 1, 2) - official).max()
    assert error < 2e-5


@functools.partial(jax.jit, static_argnames="config")
def _image(params: Any, z: Any, label: Any, config: Config) -> jax.Array:
    w = stylegan2.map_latents(Network(params, config), z, label)
    w_plus = spaces.broadcast_w(w, config.num_rows)
    return stylegan2.synthesize(Network(params, config), w_plus)


def test_stored_average_of_w_is_kept():
    conversion = converted(CONVERTED)
    average = torch_files.read(CONVERTED).content["latent_avg"]
    np.testing.assert_array_equal(conversion.tensors["mapping/w_avg"], average)
    assert not any("average" in note for note in conversion.notes)


def test_absent_average_of_w_is_computed_and_noted():
    conversion = converted(TRAINING)
    assert any("average of w" in note for note in conversion.notes)
    config, params = conversion.config, checkpoints.unflatten(conversion.tensors)
    z = np.random.default_rng(1).standard_normal((4096, config.z_dim))
    w = np.asarray(stylegan2.map_latents(Network(params, config), jnp.asarray(z)))
    # Two independent means of 4096 differ by less than 6 deviations of the difference.
    bound = 6 * np.sqrt(2 / 4096) * w.std(axis=0)
    assert (np.abs(conversion.tensors["mapping/w_avg"] - w.mean(axis=0)) < bound).all()


def test_bare_state_dict_is_a_generator():
    file = torch_files.read(CONVERTED)
    bare = dataclasses.replace(file, content=file.content["g_ema"])
    whole, alone = converted(CONVERTED), convert_stylegan2.convert(bare)
    for name in whole.tensors.keys() - {"mapping/w_avg"}:
        np.testing.assert_array_equal(whole.tensors[name], alone.tensors[name])


def test_absent_noise_is_drawn_and_noted():
    file = torch_files.read(CONVERTED)
    for name in [name for name in file.content["g_ema"] if "noises" in name]:
        del file.content["g_ema"][name]
    first, second = convert_stylegan2.convert(file), convert_stylegan2.convert(file)
    assert any("noise" in note for note in first.notes)
    noise = first.tensors["synthesis/b64/conv1/noise_const"]
    np.testing.assert_array_equal(
        noise, second.tensors["synthesis/b64/conv1/noise_const"]
    )
    assert noise.shape == (64, 64)
    assert 0.9 < noise.std() < 1.1


def test_one_absent_noise_is_missing():
    file = torch_files.read(CONVERTED)
    del file.content["g_ema"]["noises.noise_3"]
    message = refusal(convert_stylegan2.convert, file)
    assert "1 missing tensor (synthesis/b16/conv0/noise_const)" in message


def _modules(file: TorchFile, path: str) -> Any:
    module = file.content["G_ema"]
    for name in path.split("."):
        module = module.state["_modules"][name]
    return module


def _layers(file: TorchFile) -> list[Any]:
    return [
        _modules(file, f"synthesis.b{r}.{layer}")
        for r in (4, 8, 16, 32)
        for layer in ("conv0", "conv1", "torgb")
        if (r, layer) != (4, "conv0")
    ]


def test_mixed_precision_snapshots_keep_their_clamp_and_layout():
    file, plain = torch_files.read(CONDITIONAL), converted(CONDITIONAL)
    for layer in _layers(file):
        layer.state["conv_clamp"] = 256
        weight = layer.state["_parameters"]["weight"]
        channels_last = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
        layer.state["_parameters"]["weight"] = channels_last.transpose(0, 3, 1, 2)
    clamped = convert_stylegan2.convert(file)
    assert clamped.config == dataclasses.replace(plain.config, conv_clamp=256.0)
    for name, tensor in plain.tensors.items():
        np.testing.assert_array_equal(tensor, clamped.tensors[name])


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_any_mapping_depth_is_accepted(depth):
    file = torch_files.read(CONDITIONAL)
    modules = file.content["G_ema"].state["_modules"]["mapping"].state["_modules"]
    for index in range(depth, 8):
        del modules[f"fc{index}"]
    assert convert_stylegan2.convert(file).config.num_mapping_layers == depth


def _set(path: str, name: str, value: Any) -> Callable[[TorchFile], None]:
    def change(file: TorchFile) -> None:
        _modules(file, path).state[name] = value

    return change


def _fir(file: TorchFile) -> None:
    buffers = _modules(file, "synthesis.b8.conv0").state["_buffers"]
    buffers["resample_filter"] = np.full((4, 4), 1 / 16, np.float32)


def _gray(file: TorchFile) -> None:
    parameters = _modules(file, "synthesis.b4.torgb").state["_parameters"]
    parameters["weight"] = parameters["weight"][:1]


def _style_gan3(file: TorchFile) -> None:
    del _modules(file, "synthesis").state["_modules"]["b4"]


def _hole(file: TorchFile) -> None:
    del _modules(file, "synthesis").state["_modules"]["b16"]


def _no_mapping(file: TorchFile) -> None:
    del file.content["G_ema"].state["_modules"]["mapping"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set("synthesis.b8", "architecture", "resnet"), "architecture 'skip'"),
        (_set("synthesis.b8.conv0", "activation", "relu"), "activation 'lrelu'"),
        (_set("mapping.fc3", "bias_gain", 1.0), "mapping.fc3.bias_gain 0.01"),
        (_set("synthesis.b8.conv0", "conv_clamp", 9), "one conv_clamp"),
        (_set("synthesis.b8.conv0", "conv_clamp", "x"), "a positive conv_clamp"),
        (_fir, "FIR kernel [1, 3, 3, 1]"),
        (_gray, "RGB images, found 1 channels"),
        (_style_gan3, "StyleGAN3 does not fit"),
        (_hole, "found none of 16²"),
        (_no_mapping, "expected a mapping network"),
    ],
)
def test_other_architectures_are_refused(change, expected):
    file = torch_files.read(CONDITIONAL)
    change(file)
    message = refusal(convert_stylegan2.convert, file)
    assert message.startswith(f"{CONDITIONAL}: expected ")
    assert expected in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("architecture", "orig"),
        ("resample_kernel", [1, 2, 1]),
        ("mapping_lrmul", 1.0),
        ("nonlinearity", "relu"),
    ],
)
def test_other_tensorflow_architectures_are_refused(name, value):
    file = torch_files.read(TENSORFLOW)
    file.content[2].state["static_kwargs"][name] = value
    assert f"with {name} " in refusal(convert_stylegan2.convert, file)


def test_tensorflow_clamp_is_kept():
    file = torch_files.read(TENSORFLOW)
    file.content[2].state["components"]["synthesis"].state["static_kwargs"] = {
        "conv_clamp": 256
    }
    assert convert_stylegan2.convert(file).config.conv_clamp == 256


@pytest.mark.parametrize("path", [CONVERTED, CONDITIONAL, TENSORFLOW])
def test_any_single_missing_or_surplus_tensor_is_named(path):
    file = torch_files.read(path)
    source = convert_stylegan2._open(file)
    rule_free = {"unheard.of": np.zeros(1, np.float32)}
    message = _convert_tensors(file, source, source.tensors | rule_free)
    assert "1 surplus tensor (unheard.of)" in message
    # Averages and noise that are absent are made up, FIR kernels are not needed.
    optional = ("avg", "noise", "filter", "kernel", "lod")
    for name in list(source.tensors)[::9]:
        if not any(part in name for part in optional):
            tensors = {k: v for k, v in source.tensors.items() if k != name}
            message = _convert_tensors(file, source, tensors)
            assert "missing tensor" in message or "wrongly shaped" in message


def _convert_tensors(file: TorchFile, source: Any, tensors: dict[str, Any]) -> str:
    changed = copy.copy(source)._replace(tensors=tensors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_stylegan2, "_open", lambda _: changed)
        return refusal(convert_stylegan2.convert, file)


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
    params, config = checkpoints.load_network(
        tmp_path / "model",
        kind="stylegan2",
        config_type=Config,
        param_shapes=stylegan2.param_shapes,
    )
    assert config == CONFIGS[path]
    expected = converted(path).tensors
    found = checkpoints.flatten(params)
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
    assert "stylegan2|clip" in fail(capsys, CONVERTED, "--kind=face")
    assert "speed" in fail(capsys, CONVERTED, "--speed=3")


def test_unknown_content_is_described(tmp_path, capsys):
    path = tmp_path / "latents.npz"
    np.savez(path, w_plus=np.zeros((2, 18, 512), np.float32))
    message = fail(capsys, path, "--output", tmp_path / "model")
    assert "expected one of stylegan2, clip" in message
    assert "found a npz file that holds a dict with w_plus" in message


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
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == "error: absent.pt: no such file\n"
