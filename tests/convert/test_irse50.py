"""Conversion of identity networks: the official file becomes ours or is refused."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from convert import __main__
from convert import irse50 as convert_irse50
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, torch_files
from styleclip_jax.models import irse50
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks

PATH = golden_data.ROOT / golden_networks.IDENTITY


def read() -> torch_files.TorchFile:
    return torch_files.read(PATH)


@functools.cache
def load() -> Network:
    return golden_networks.network_of(convert_irse50.convert(read()))


def test_architecture_is_read_off_the_shapes() -> None:
    assert convert_irse50.recognize(read())
    assert load().config == irse50.IrseConfig(widths=(16, 24, 32, 40), embed_dim=40)


def test_converted_file_is_read_back(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, out = load(), tmp_path / "identity"
    assert __main__.main(["convert", str(PATH), f"--output={out}"]) == 0
    assert "legacy file, irse50" in capsys.readouterr().out
    found = checkpoints.load_network(
        out,
        kind="irse50",
        config_type=irse50.IrseConfig,
        param_shapes=irse50.param_shapes,
    )
    assert found.config == network.config
    jax.tree.map(np.testing.assert_array_equal, found.params, network.params)


def test_all_differences_of_a_file_stand_in_one_message() -> None:
    file = read()
    del file.content["body.3.res_layer.4.running_var"]
    del file.content["body.3.shortcut_layer.0.weight"]
    file.content["body.3.extra.weight"] = np.ones(2)
    file.content["input_layer.2.weight"] = np.ones(3)
    with pytest.raises(UserError) as caught:
        convert_irse50.convert(file)
    assert str(caught.value) == (
        f"{file.path}: 2 missing tensors (body/block3/norm2/var, "
        "body/block3/shortcut/kernel); 1 surplus tensor (body.3.extra.weight); "
        "1 wrongly shaped tensor (body/input/slope expected [16] found [3])"
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("body.5.res_layer.5.fc1.weight", np.ones((5, 24, 1, 1)), "one reduction"),
        ("body.30.res_layer.2.weight", np.ones(40), "found no width of block 24"),
        ("output_layer.3.weight", np.ones((40, 41)), "found one of 41 inputs"),
    ],
)
def test_other_architectures_are_refused(name: str, value: Any, expected: str) -> None:
    file = read()
    file.content[name] = value
    with pytest.raises(UserError, match=expected):
        convert_irse50.convert(file)
