"""Conversion of mappers: official checkpoints become ours or are refused."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from convert import __main__
from convert import mapper as convert_mapper
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, torch_files
from styleclip_jax.methods import mapper
from styleclip_jax.models import param_trees, stylegan2
from tests import golden_data, golden_networks


def read(kind: str) -> torch_files.TorchFile:
    return golden_networks.mapper_checkpoint(golden_data.Case(f"mapper/{kind}"))


def assert_same(params: Any, tensors: dict[str, np.ndarray]) -> None:
    """Fails unless parameters are the tensors with their names."""
    found = param_trees.flatten(params)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_architecture_is_read_off_names_shapes_and_options() -> None:
    levels = {
        "levels_full": ("coarse", "medium", "fine"),
        "levels_no_coarse": ("medium", "fine"),
        "levels_no_fine": ("coarse", "medium"),
        "single": ("single",),
    }
    for kind, expected in levels.items():
        config = golden_networks.mapper(kind)[1].config
        assert config == mapper.MapperConfig(levels=expected, w_dim=48), kind
    in_s = mapper.MapperConfig("s", channels=(24, 24, 20, 16, 8))
    assert golden_networks.mapper("stylespace")[1].config == in_s
    assert golden_networks.mapper("full_stylespace")[1].config == dataclasses.replace(
        in_s, torgb=True
    )


@pytest.mark.parametrize("name", ["adam_levels_no_fine", "ranger_stylespace"])
def test_converted_checkpoint_and_its_decoder_are_read_back(
    name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = golden_data.ROOT / "mapper_trajectory" / name
    argv = ["convert", str(folder / "init_mapper.pt"), f"--output={tmp_path / 'm'}"]
    assert __main__.main(argv) == 0
    out = capsys.readouterr().out
    assert "zip file, mapper" in out
    assert "generator: stylegan2" in out
    found = checkpoints.load_network(
        tmp_path / "m",
        kind=mapper.KIND,
        config_type=mapper.MapperConfig,
        param_shapes=mapper.param_shapes,
    )
    expected = convert_mapper.convert(torch_files.read(folder / "init_mapper.pt"))
    assert found.config == expected.config
    assert_same(found.params, expected.tensors)
    decoder = checkpoints.load_network(
        tmp_path / "m" / "generator",
        kind="stylegan2",
        config_type=stylegan2.GeneratorConfig,
        param_shapes=stylegan2.param_shapes,
    )
    mapper.check_generator(found.config, decoder.config)
    assert_same(decoder.params, expected.parts["generator"].tensors)


def test_options_and_tensors_that_disagree_are_refused() -> None:
    file = read("levels_no_fine")
    file.content["opts"]["no_fine_mapper"] = False
    file.content["state_dict"]["mapper.medium_mapping.mapping.1.extra"] = np.ones(2)
    with pytest.raises(UserError) as caught:
        convert_mapper.convert(file)
    assert str(caught.value).startswith("mapper.pt: 8 missing tensors (fine/fc0/bias,")
    assert "1 surplus tensor (mapper.medium_mapping.mapping.1.extra)" in str(
        caught.value
    )
    # Without options the tensors alone say it.
    file = read("levels_no_fine")
    bare = dataclasses.replace(file, content=file.content["state_dict"])
    assert convert_mapper.convert(bare).config.levels == ("coarse", "medium")


def test_a_missing_style_vector_is_refused() -> None:
    file = read("stylespace")
    for name in list(file.content["state_dict"]):
        if name.startswith(("mapper.mapper_3.", "mapper.mapper_5.")):
            del file.content["state_dict"][name]
    with pytest.raises(UserError, match="every resolution up to 64², found none of 8²"):
        convert_mapper.convert(file)
