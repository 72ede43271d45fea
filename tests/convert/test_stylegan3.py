"""Conversion of StyleGAN3's generators: official ones become ours or are refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from convert import kinds
from convert import stylegan3 as convert_stylegan3
from styleclip_jax.io import torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models.stylegan3 import GeneratorConfig
from tests import golden_data
from tests.programs import refusal

_FOLDER = golden_data.ROOT / "stylegan3"
T = _FOLDER / "t" / "stylegan3-t-tiny.pkl"
R = _FOLDER / "r_conditional" / "stylegan3-r-tiny.pkl"
CONFIGS = {
    T: GeneratorConfig(32, 16, 24, 0, 2, (*(12,) * 10, 11, 10, 8, 8)),
    R: GeneratorConfig(
        32,
        12,
        20,
        3,
        2,
        (*(16,) * 10, 14, 12, 10, 10),
        kernel_size=1,
        radial=True,
        conv_clamp=2.5,
    ),
}


def state_dict() -> dict[str, np.ndarray]:
    """Tensors of a generator by its official names."""
    return dict(torch_files.tensors(torch_files.read(T).content["G_ema"]))


def as_file(content: Any) -> TorchFile:
    return dataclasses.replace(torch_files.read(T), content=content)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_architecture_is_read_off_shapes_and_settings(path: Any) -> None:
    file = torch_files.read(path)
    assert convert_stylegan3.recognize(file)
    conversion = kinds.KINDS["stylegan3"].convert(file)
    assert conversion.config == CONFIGS[path]
    assert [part.kind for part in conversion.parts.values()] == ["discriminator"]


def test_state_dicts_and_decoders_are_generators() -> None:
    whole = convert_stylegan3.convert(torch_files.read(T))
    decoder = {f"decoder.{name}": x for name, x in state_dict().items()}
    inside = {"state_dict": decoder, "latent_avg": np.zeros((16, 24), np.float32)}
    for content in (state_dict(), inside):
        found = convert_stylegan3.convert(as_file(content))
        assert found.config == whole.config
        assert any("which a state dict does not tell" in note for note in found.notes)
        for name, tensor in whole.tensors.items():
            np.testing.assert_array_equal(found.tensors[name], tensor)


def _without_a_layer(state: dict[str, Any]) -> None:
    del state["synthesis.L3_36_12.weight"]


def _without_a_bias(state: dict[str, Any]) -> None:
    del state["synthesis.L3_36_12.bias"]


def _with_another_filter(state: dict[str, Any]) -> None:
    state["synthesis.L5_52_12.up_filter"] = state["synthesis.L5_52_12.up_filter"] + 1e-3


def _of_another_size(state: dict[str, Any]) -> None:
    for name in [name for name in state if "L4_36" in name]:
        state[name.replace("L4_36", "L4_52")] = state.pop(name)


def _of_other_colours(state: dict[str, Any]) -> None:
    state["synthesis.L14_32_3.weight"] = np.ones((1, 8, 1, 1), np.float32)


def _of_stylegan_xl(state: dict[str, Any]) -> None:
    state["mapping.embed_proj.weight"] = np.ones((16, 320), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_a_layer, "a tensor weight of each layer"),
        (_without_a_bias, r"1 missing tensor (synthesis/b16/conv3/bias)"),
        (_with_another_filter, "another up_filter in L5_52_12"),
        (_of_another_size, "expected L4_36_12 by StyleGAN3's schedule of cutoffs"),
        (_of_other_colours, "expected a generator of RGB images, found 1 channels"),
        (_of_stylegan_xl, "found StyleGAN-XL, which is not supported"),
    ],
)
def test_other_generators_are_refused_in_a_line(change: Any, message: str) -> None:
    state = state_dict()
    change(state)
    assert message in refusal(convert_stylegan3.convert, as_file(state))


def test_settings_that_are_no_numbers_are_refused() -> None:
    file = torch_files.read(T)
    synthesis = dict(convert_stylegan3.wrappers.modules(file.content["G_ema"]))
    synthesis["synthesis"].state["_init_kwargs"]["margin_size"] = "wide"
    message = refusal(convert_stylegan3.convert, file)
    assert "expected a number as margin_size, found 'wide'" in message
