"""Conversion of discriminators: beside their generators, exhaustive, or refused."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convert import __main__
from convert import discriminator as convert_discriminator
from styleclip_jax import loading
from styleclip_jax.io import torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import discriminator, param_trees
from styleclip_jax.models.discriminator import DiscriminatorConfig
from tests import golden_data
from tests.programs import refusal

_FOLDER = golden_data.ROOT / "stylegan2_discriminator"
ROSINALITY = _FOLDER / "rosinality/000100.pt"
PLAIN = _FOLDER / "ada_unconditional/network-snapshot-000100.pkl"
CONDITIONAL = _FOLDER / "ada_conditional/network-snapshot-cond.pkl"
CONFIGS = {
    ROSINALITY: DiscriminatorConfig(32, (16, 16, 12, 8)),
    PLAIN: DiscriminatorConfig(32, (16, 16, 16, 8)),
    CONDITIONAL: DiscriminatorConfig(16, (12, 12, 8), 3, 12, 8, 1.25, 2),
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_program_writes_the_discriminator_beside_the_generator(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], path: pathlib.Path
) -> None:
    folder = tmp_path / "model"
    assert __main__.main(["convert", str(path), f"--output={folder}"]) == 0
    out = capsys.readouterr().out
    assert f"{folder / 'discriminator'}: " in out
    assert "D (" not in out
    assert "d (" not in out
    network = loading.load_discriminator(folder)
    assert network.config == CONFIGS[path]
    expected = convert_discriminator.convert(torch_files.read(path)).tensors
    found = param_trees.flatten(network.params)
    assert found.keys() == expected.keys()
    assert {k: x.shape for k, x in found.items()} == dict(
        discriminator.param_shapes(network.config)
    )
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
    assert loading.load_generator(folder).config.resolution == network.config.resolution


def _states(file: TorchFile) -> list[dict[str, Any]]:
    """Dicts of the tensors of a discriminator."""
    if "d" in file.content:
        return [file.content["d"]]
    states, modules = [], [file.content["D"]]
    for module in modules:
        states.append(module.state["_parameters"])
        modules += [x for x in module.state["_modules"].values() if x is not None]
    return states


@pytest.mark.parametrize("path", [ROSINALITY, CONDITIONAL], ids=lambda x: x.stem)
def test_every_single_missing_or_surplus_tensor_is_named(path: pathlib.Path) -> None:
    file, count = torch_files.read(path), 0
    states = _states(file)
    states[-1]["unheard"] = np.zeros(1, np.float32)
    message = refusal(convert_discriminator.convert, file)
    assert "1 surplus tensor (" in message
    assert "unheard)" in message
    del states[-1]["unheard"]
    for state in states:
        for name in [k for k, x in state.items() if isinstance(x, np.ndarray)]:
            # Of another size, a FIR is refused; without it nothing is missing.
            if name.endswith("kernel"):
                continue
            kept = state.pop(name)
            message = refusal(convert_discriminator.convert, file)
            state[name] = kept
            # Without its marks it would not be taken for a discriminator.
            assert "1 missing tensor" in message or "StyleGAN2 disc" in message, message
            count += 1
    assert count == len(discriminator.param_shapes(CONFIGS[path]))
    convert_discriminator.convert(file)


def _set(path: str, name: str, value: Any) -> Callable[[TorchFile], None]:
    def change(file: TorchFile) -> None:
        module = file.content["D"]
        for part in path.split("."):
            module = module.state["_modules"][part]
        module.state[name] = value

    return change


def _fir(file: TorchFile) -> None:
    module = file.content["D"].state["_modules"]["b16"].state["_modules"]["skip"]
    module.state["_buffers"]["resample_filter"] = np.full((4, 4), 1 / 16, np.float32)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set("b8", "architecture", "skip"), "b8.architecture 'resnet'"),
        (_set("b8.conv1", "activation", "relu"), "b8.conv1.activation 'lrelu'"),
        (_set("mapping.fc3", "bias_gain", 1.0), "mapping.fc3.bias_gain 0.01"),
        (_set("b8.conv0", "conv_clamp", 9), "one conv_clamp"),
        (_set("b4.mbstd", "group_size", "x"), "a positive group_size"),
        (_fir, "FIR kernel [1, 3, 3, 1]"),
    ],
)
def test_other_discriminators_are_left_out_and_told(
    change: Callable[[TorchFile], None], expected: str
) -> None:
    file = torch_files.read(CONDITIONAL)
    change(file)
    assert expected in refusal(convert_discriminator.convert, file)
    both = convert_discriminator.convert_both(file)
    assert not both.parts
    [note] = [x for x in both.notes if "discriminator" in x]
    assert note.startswith("the discriminator is left out: expected ")
    assert expected in note


def test_groups_of_the_whole_batch_are_kept() -> None:
    file = torch_files.read(CONDITIONAL)
    _set("b4.mbstd", "group_size", None)(file)
    assert convert_discriminator.convert(file).config.group_size is None
