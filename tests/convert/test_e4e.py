"""Conversion of encoders: the official file becomes an encoder and its generator."""

import functools
import pathlib
from typing import Any

import numpy as np
import pytest

from convert import __main__, kinds, stylegan2
from convert import e4e as convert_e4e
from convert.rules import Conversion
from styleclip_jax import loading
from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.models import e4e, param_trees
from tests import golden_data

CASE = golden_data.Case("e4e_encoder")
PATH = CASE.folder / CASE.meta["checkpoint"]


def read() -> torch_files.TorchFile:
    return torch_files.read(PATH)


@functools.cache
def converted() -> Conversion:
    return convert_e4e.convert(read())


def test_architecture_is_read_off_the_shapes() -> None:
    assert convert_e4e.recognize(read())
    assert converted().config == e4e.E4eConfig(
        widths=(16, 20, 24, 32), w_dim=32, num_rows=8
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("e4e_faces", {"widths": (16, 18, 16, 16)}),
        ("psp_faces", {"widths": (16, 16, 18, 20), "w_dim": 20, "offsets": False}),
        (
            "psp_cars",
            {"widths": (8, 10, 12, 16), "num_blocks": (3, 4, 6, 3), "reduction": 1}
            | {"body": "resnet", "offsets": False, "input_height": 192},
        ),
    ],
)
def test_architecture_of_a_restyle(name: str, expected: dict[str, Any]) -> None:
    case = golden_data.Case(f"restyle/{name}")
    file = torch_files.read(case.folder / case.meta["checkpoint"])
    common = {"w_dim": 16, "num_rows": 8, "pyramid": False, "in_channels": 6}
    config = e4e.E4eConfig(**(common | {"iterations": 5} | expected))
    found = convert_e4e.convert(file)
    assert found.config == config
    # Averages of either shape.
    average = np.broadcast_to(file.content["latent_avg"], (8, config.w_dim))
    np.testing.assert_array_equal(found.tensors["w_avg"], average)
    # What shapes tell is told without the options.
    del file.content["opts"]
    assert convert_e4e.convert(file).config.body == config.body


def test_file_becomes_an_encoder_and_its_generator(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e4e"
    assert __main__.main(["convert", str(PATH), f"--output={out}"]) == 0
    printed = capsys.readouterr().out
    assert "zip file, e4e" in printed
    assert "generator: stylegan2" in printed
    generator = loading.load_generator(out / loading.DECODER)
    network = loading.load_encoder(out, generator.config)
    assert network.config == converted().config
    flat = param_trees.flatten(network.params)
    assert flat.keys() == converted().tensors.keys()
    for name, tensor in converted().tensors.items():
        np.testing.assert_array_equal(flat[name], tensor, err_msg=name)

    state = {
        name.removeprefix("decoder."): tensor
        for name, tensor in read().content["state_dict"].items()
        if name.startswith("decoder.")
    }
    alone = stylegan2.convert(torch_files.TorchFile("x", "zip", state))
    assert generator.config == alone.config
    for name, leaf in param_trees.flatten(generator.params).items():
        np.testing.assert_array_equal(leaf, alone.tensors[name], err_msg=name)


def test_nothing_is_left_where_the_generator_cannot_be_written(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise UserError("no space")

    kind = kinds.KINDS["stylegan2"]._replace(write=fail)
    monkeypatch.setitem(kinds.KINDS, "stylegan2", kind)
    assert __main__.main(["convert", str(PATH), f"--output={tmp_path / 'e4e'}"]) == 2
    assert capsys.readouterr().err == "error: no space\n"
    assert not list(tmp_path.iterdir())


def test_model_appears_with_its_parts_by_one_rename(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    kind = kinds.KINDS["stylegan2"]

    def write(*arguments: Any) -> None:
        there.append((tmp_path / "e4e").exists())
        kind.write(*arguments)

    monkeypatch.setitem(kinds.KINDS, "stylegan2", kind._replace(write=write))
    assert __main__.main(["convert", str(PATH), f"--output={tmp_path / 'e4e'}"]) == 0
    assert there == [False]
    assert sorted(x.name for x in (tmp_path / "e4e").iterdir()) == [
        "config.json",
        "generator",
        "model.safetensors",
    ]
    assert [x.name for x in tmp_path.iterdir()] == ["e4e"]


@pytest.mark.parametrize("shape", [(32,), (8, 32)])
def test_one_average_of_all_rows_is_the_generators_too(shape: tuple[int, ...]) -> None:
    file = read()
    average = np.arange(32, dtype=np.float32)
    file.content["latent_avg"] = np.broadcast_to(average, shape)
    found = convert_e4e.convert(file)
    np.testing.assert_array_equal(found.tensors["w_avg"], np.tile(average, (8, 1)))
    generator = found.parts[loading.DECODER]
    np.testing.assert_array_equal(generator.tensors["mapping/w_avg"], average)
    assert not any("average" in note for note in generator.notes)


def test_absent_average_is_that_of_the_generator() -> None:
    file = read()
    file.content["latent_avg"] = None
    found = convert_e4e.convert(file)
    w_avg = found.parts[loading.DECODER].tensors["mapping/w_avg"]
    np.testing.assert_array_equal(found.tensors["w_avg"], np.tile(w_avg, (8, 1)))
    assert any("no average latent" in note for note in found.notes)
    file = without_decoder()
    del file.content["latent_avg"]
    with pytest.raises(UserError, match="expected latent_avg"):
        convert_e4e.convert(file)


def without_decoder() -> torch_files.TorchFile:
    file = read()
    state = file.content["state_dict"]
    for name in [name for name in state if name.startswith("decoder.")]:
        del state[name]
    return file


def test_options_decide_what_shapes_cannot() -> None:
    file = without_decoder()
    assert not convert_e4e.convert(file).parts
    options = file.content["opts"]
    # pSp stores a dict, its training scripts a namespace.
    options["encoder_type"] = "GradualStyleEncoder"
    file.content["opts"] = Object("argparse.Namespace", state=options)
    assert not convert_e4e.convert(file).config.offsets
    options["start_from_latent_avg"] = False
    assert not convert_e4e.convert(file).tensors["w_avg"].any()
    del file.content["opts"]
    found = convert_e4e.convert(file)
    assert found.config.offsets
    assert any("taken for Encoder4Editing" in note for note in found.notes)
    options["encoder_type"] = "BackboneEncoderUsingLastLayerIntoW"
    file.content["opts"] = options
    with pytest.raises(UserError, match="found 'BackboneEncoderUsing"):
        convert_e4e.convert(file)


def test_all_differences_of_a_file_stand_in_one_message() -> None:
    file = without_decoder()
    state = file.content["state_dict"]
    del state["encoder.styles.3.convs.8.bias"]
    state["encoder.styles.3.convs.10.bias"] = np.ones(32)
    state["encoder.extra.weight"] = np.ones(2)
    state["encoder.latlayer1.bias"] = np.ones(3)
    with pytest.raises(UserError) as caught:
        convert_e4e.convert(file)
    assert str(caught.value) == (
        f"{file.path}: 1 missing tensor (head3/conv4/bias); "
        "2 surplus tensors (encoder.extra.weight, encoder.styles.3.convs.10.bias); "
        "1 wrongly shaped tensor (lateral_middle/bias expected [32] found [3])"
    )


@pytest.mark.parametrize(
    ("average", "expected"),
    [(np.ones((9, 32)), r"\[9, 32\]"), (np.ones(31), r"\[8, 32\] or \[32\]")],
)
def test_averages_of_another_shape_are_refused(
    average: np.ndarray, expected: str
) -> None:
    file = without_decoder()
    file.content["latent_avg"] = average
    with pytest.raises(UserError, match=expected):
        convert_e4e.convert(file)


def test_other_files_are_not_encoders() -> None:
    for content in ({}, [], {"state_dict": 3}, {"state_dict": {"encoder.x": 1}}):
        file = torch_files.TorchFile("x", "zip", content)
        assert not convert_e4e.recognize(file)
        with pytest.raises(UserError, match="found none"):
            convert_e4e.convert(file)
