"""Latents of the e4e encoder equal the official ones; the network and its files."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from convert import __main__, stylegan2, torch_files
from convert import e4e as convert_e4e
from convert.pickles import Object
from convert.rules import Conversion
from styleclip_jax import loading
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.models import e4e
from styleclip_jax.models.network import Network
from styleclip_jax.photos import crops
from tests import golden_data, tiny
from tests.golden_data import to_nchw, to_nhwc

CASE = golden_data.Case("e4e_encoder")
PATH = CASE.folder / CASE.meta["checkpoint"]
TINY = e4e.E4eConfig(
    num_blocks=(1, 1, 1),
    widths=(6, 8, 10),
    reduction=3,
    w_dim=5,
    num_rows=8,
    input_size=16,
)


def read() -> torch_files.TorchFile:
    return torch_files.read(PATH)


@functools.cache
def converted() -> Conversion:
    return convert_e4e.convert(read())


encode_tiny = jax.jit(functools.partial(e4e.encode, config=TINY))


@functools.cache
def tiny_params(config: e4e.E4eConfig = TINY) -> Any:
    """Random parameters; drawn by NumPy, since `init` takes long to compile."""
    rng = np.random.default_rng(0)
    flat = {
        name: rng.uniform(-0.5 if name.endswith("kernel") else 0.1, 0.5, shape)
        for name, shape in e4e.param_shapes(config).items()
    }
    return jax.tree.map(jnp.float32, checkpoints.unflatten(flat))


def test_latents() -> None:
    conversion = converted()
    params = checkpoints.unflatten(conversion.tensors)
    encode = jax.jit(functools.partial(e4e.encode, config=conversion.config))
    CASE.check("wplus", encode(params, to_nhwc(CASE["images"])))


def test_photos_are_resized_as_officially() -> None:
    photo = crops.resize(CASE["pil_image"], 256, Image.Resampling.BILINEAR)
    image = to_nchw(crops.to_float(photo)[None])
    np.testing.assert_allclose(
        image[0, :, ::8, ::8], CASE["pil_preprocessed"], atol=1e-6
    )


def test_rows_of_e4e_are_offsets_to_the_first_those_of_psp_are_not() -> None:
    image, params = tiny.image(2, 16), tiny_params()
    psp = dataclasses.replace(TINY, offsets=False)
    alone = jax.jit(functools.partial(e4e.encode, config=psp))(params, image)
    base = (alone - params["w_avg"])[:, :1]
    expected = alone.at[:, 1:].add(base)
    np.testing.assert_allclose(encode_tiny(params, image), expected, atol=1e-5)
    assert np.abs(base).max() > 0.1


def test_the_average_latent_is_added() -> None:
    image, params = tiny.image(2, 16), tiny_params()
    without = {**params, "w_avg": jnp.zeros_like(params["w_avg"])}
    difference = encode_tiny(params, image) - encode_tiny(without, image)
    np.testing.assert_allclose(difference[0], params["w_avg"], atol=1e-5)


def test_gradient_is_the_slope_and_stops_at_the_average_latent() -> None:
    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(params: Any, image: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(e4e.encode(Network(params, TINY), image)))

    image, params = tiny.image(2, 16), tiny_params()
    _, (of_params, of_image) = loss(params, image)
    direction = of_image / jnp.linalg.norm(of_image)
    after, before = (
        loss(params, image + step * direction)[0] for step in (3e-3, -3e-3)
    )
    slope = jnp.sum(of_image * direction)
    np.testing.assert_allclose((after - before) / 6e-3, slope, rtol=1e-2)
    assert not of_params["w_avg"].any()
    assert of_params["head7"]["conv0"]["kernel"].any()
    assert of_params["body"]["input"]["conv"]["kernel"].any()


def test_batch_equals_its_examples_under_vmap() -> None:
    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def one(params: Any, image: jax.Array) -> jax.Array:
        return e4e.encode(Network(params, TINY), image[None])[0]

    image = tiny.image(3, 16)
    found = one(tiny_params(), image)
    np.testing.assert_allclose(found, encode_tiny(tiny_params(), image), atol=1e-5)
    assert np.abs(np.asarray(found[0] - found[1])).max() > 1e-2


def test_architecture_is_read_off_the_shapes() -> None:
    assert convert_e4e.recognize(read())
    assert converted().config == e4e.E4eConfig(
        widths=(16, 20, 24, 32), w_dim=32, num_rows=8
    )


def test_official_sizes() -> None:
    shapes = e4e.param_shapes(e4e.E4eConfig())
    assert shapes["lateral_middle/kernel"] == (1, 1, 256, 512)
    assert shapes["lateral_fine/kernel"] == (1, 1, 128, 512)
    assert shapes["w_avg"] == (18, 512)
    # Maps of 16², 32² and 64² are halved to a pixel.
    for row, count in ((0, 4), (2, 4), (3, 5), (6, 5), (7, 6), (17, 6)):
        convs = [n for n in shapes if n.startswith(f"head{row}/conv")]
        assert len(convs) == 2 * count
    assert "head18/conv0/kernel" not in shapes


def test_file_becomes_an_encoder_and_its_generator(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e4e"
    assert __main__.main(["convert", str(PATH), f"--output={out}"]) == 0
    printed = capsys.readouterr().out
    assert "zip file, e4e" in printed
    assert "generator: stylegan2" in printed
    network = loading.load_encoder(out)
    assert network.config == converted().config
    flat = checkpoints.flatten(network.params)
    assert flat.keys() == converted().tensors.keys()
    for name, tensor in converted().tensors.items():
        np.testing.assert_array_equal(flat[name], tensor, err_msg=name)

    state = {
        name.removeprefix("decoder."): tensor
        for name, tensor in read().content["state_dict"].items()
        if name.startswith("decoder.")
    }
    alone = stylegan2.convert(torch_files.TorchFile("x", "zip", state))
    generator = loading.load_generator(out / loading.DECODER)
    assert generator.config == alone.config
    assert generator.config.num_rows == network.config.num_rows
    for name, leaf in checkpoints.flatten(generator.params).items():
        np.testing.assert_array_equal(leaf, alone.tensors[name], err_msg=name)


def test_nothing_is_left_where_the_generator_cannot_be_written(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise UserError("no space")

    kind = __main__.KINDS["stylegan2"]._replace(write=fail)
    monkeypatch.setitem(__main__.KINDS, "stylegan2", kind)
    assert __main__.main(["convert", str(PATH), f"--output={tmp_path / 'e4e'}"]) == 2
    assert capsys.readouterr().err == "error: no space\n"
    assert not list(tmp_path.iterdir())


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


def test_wrong_shapes_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"\[B, 16, 16, 3\], found \[1, 16, 12, 3\]"):
        e4e.encode(Network(tiny_params(), TINY), jnp.zeros((1, 16, 12, 3)))


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (6, 8)},
        {"num_blocks": (1, 1), "widths": (6, 8)},
        {"w_dim": 0},
        {"num_rows": 0},
        {"input_size": 8},
        {"input_size": 24},
        {"reduction": 7},
    ],
)
def test_configurations_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found"):
        dataclasses.replace(TINY, **change)
