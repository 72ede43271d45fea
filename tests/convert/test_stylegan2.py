"""Conversion of generators: official ones become ours or are refused."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import stylegan2 as convert_stylegan2
from styleclip_jax import spaces
from styleclip_jax.io import torch_files
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from tests import golden_networks
from tests.convert.generators import (
    CONDITIONAL,
    CONFIGS,
    CONVERTED,
    TENSORFLOW,
    TRAINING,
    converted,
    each_file,
)
from tests.programs import refusal

# Generators


@each_file
def test_architecture_is_read_off_the_shapes(path):
    assert convert_stylegan2.recognize(torch_files.read(path))
    conversion = converted(path)
    assert conversion.kind == "stylegan2"
    assert conversion.config == CONFIGS[path]
    shapes = {name: tensor.shape for name, tensor in conversion.tensors.items()}
    assert shapes == dict(stylegan2.param_shapes(CONFIGS[path]))


@pytest.mark.slow
@each_file
def test_converted_generator_makes_the_official_image(path):
    generator = golden_networks.network_of(converted(path))
    with np.load(path.parent / "io.npz") as expected:
        label = jnp.asarray(expected["c"][:1]) if generator.config.c_dim else None
        image = _image(generator, jnp.asarray(expected["z"][:1]), label)
        official = expected["image" if "image" in expected else "image_z"]
    # The official float32 images are themselves uncertain by about 1e-6.
    error = np.abs(np.asarray(image).transpose(0, 3, 1, 2) - official).max()
    assert error < 2e-5


@jax.jit
def _image(generator: Network, z: Any, label: Any) -> jax.Array:
    w = stylegan2.map_latents(generator, z, label)
    w_plus = spaces.broadcast_w(w, generator.config.num_rows)
    return stylegan2.synthesize(generator, w_plus)


def test_stored_average_of_w_is_kept():
    conversion = converted(CONVERTED)
    average = torch_files.read(CONVERTED).content["latent_avg"]
    np.testing.assert_array_equal(conversion.tensors["mapping/w_avg"], average)
    assert not any("average" in note for note in conversion.notes)


def test_absent_average_of_w_is_computed_and_noted():
    conversion = converted(TRAINING)
    assert any("average of w" in note for note in conversion.notes)
    generator = golden_networks.network_of(conversion)
    z = np.random.default_rng(1).standard_normal((4096, generator.config.z_dim))
    w = np.asarray(stylegan2.map_latents(generator, jnp.asarray(z)))
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
    places = list(_places(_generator(file)))
    container, key, _ = places[0]
    if isinstance(container, dict):
        container["unheard"] = np.zeros(1, np.float32)
    else:
        container.append(("unheard", np.zeros(1, np.float32)))
    message = refusal(convert_stylegan2.convert, file)
    assert re.search(r"1 surplus tensor \(\S*unheard\)", message)
    container.pop("unheard" if isinstance(container, dict) else -1)
    # Averages and noise that are absent are made up, FIR kernels are not needed, and
    # without the last two it would not be taken for a generator.
    skipped = ("avg", "noise", "filter", "kernel", "lod")
    skipped += ("b4.const", ".conv1.conv.modulation.weight")
    for container, key, name in places[::9]:
        if not any(part in name for part in skipped):
            kept = container.pop(key)
            message = refusal(convert_stylegan2.convert, file)
            if isinstance(container, dict):
                container[key] = kept
            else:
                container.insert(key, kept)
            assert "missing tensor" in message or "wrongly shaped" in message


def _generator(file: TorchFile) -> Any:
    """The part of a file that holds the averaged generator."""
    if isinstance(file.content, dict):
        return file.content.get("g_ema") or file.content["G_ema"]
    return file.content[2]


def _places(content: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Container, key there and name of every tensor of a nested object."""
    if isinstance(content, Object):
        yield from _places(content.state, path)
        return
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(pairs):
        if isinstance(value, np.ndarray):
            yield content, key, f"{path}.{key}"
        elif isinstance(value, tuple) and len(value) == 2 and type(value[0]) is str:
            yield content, key, value[0]
        elif isinstance(value, dict | list | Object):
            name = path if key in ("_modules", "_parameters") else f"{path}.{key}"
            yield from _places(value, name)
