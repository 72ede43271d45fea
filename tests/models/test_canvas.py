"""Generators of images that are not square equal the official code; their shapes."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import stylegan2 as convert_stylegan2
from convert.settings import GeneratorSettings
from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.methods import encoding
from styleclip_jax.models import runtime, stylegan2
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks, tiny
from tests.golden_data import to_nchw, to_nhwc

HUMAN = "stylegan2_rectangular/human"
CAR = "stylegan2_rectangular/car_crop"


@functools.cache
def human(name: str) -> Network:
    return golden_networks.converted(convert_stylegan2.convert, f"{HUMAN}/{name}")


@jax.jit
def _images_of_human(
    network: Network, z: jax.Array, noise: jax.Array, weight: jax.Array
) -> dict[str, jax.Array]:
    """What the official code computed, by the names of the arrays."""
    synthesize = functools.partial(stylegan2.synthesize, network)
    ws = spaces.broadcast_w(stylegan2.map_latents(network, z), network.config.num_rows)
    w_plus = ws + noise
    styles = stylegan2.to_styles(network, w_plus)
    start = stylegan2.synthesize_layers(network, styles, stop=5)
    image, pull = jax.vjp(synthesize, w_plus)
    found = {
        "image": synthesize(ws),
        "image_wplus": image,
        "image_wplus_nonoise": synthesize(w_plus, noise="none"),
        "feat_x_8": start.x[:1],
        "feat_img_8": start.rgb[:1],
    }
    w_avg = network.params["mapping"]["w_avg"]
    return {name: jnp.moveaxis(x, -1, 1) for name, x in found.items()} | {
        "ws": ws,
        "ws_psi0.7": spaces.truncate(ws, w_avg, 0.7),
        "styles_wplus": spaces.flatten_styles(styles),
        "grad_wplus": pull(jnp.concatenate([weight, 0 * weight]))[0][:1],
    }


@pytest.mark.slow
def test_images_and_gradient_of_stylegan_human() -> None:
    case = golden_data.Case(HUMAN)
    inputs = case["z"], case["wplus_noise"], to_nhwc(case["grad_weight"])
    network, converted = (human(f"stylegan_human_tiny.{x}") for x in ("pkl", "pth"))
    assert network.config.image_shape == (32, 16)
    for name, found in _images_of_human(network, *inputs).items():
        case.check(name, found)
    case.check("image_pth", _images_of_human(converted, *inputs)["image"])


@pytest.mark.slow
def test_cars_are_cropped_as_officially() -> None:
    case = golden_data.Case(CAR)
    path = f"{CAR}/{case.meta['checkpoint']}"
    convert = functools.partial(
        convert_stylegan2.convert, settings=GeneratorSettings(crop_height=24)
    )
    network = golden_networks.converted(convert, path)
    square = network.replace(config=network.config.replace(crop_height=None))
    synthesize = jax.jit(stylegan2.synthesize)
    case.check("image", to_nchw(synthesize(square, case["wplus"])))
    case.check("image_cropped", to_nchw(synthesize(network, case["wplus"])))
    # The same, cropped by its configuration or by the encoder's shape.
    for generator in (network, square):
        pooled = encoding.look(generator, case["wplus"], (12, 16))
        case.check("image_pooled", to_nchw(pooled))


def test_shapes_of_every_resolution() -> None:
    config = dataclasses.replace(tiny.GENERATOR, base=(4, 2))
    assert config.noise_shapes == {
        "b4/conv1": (4, 2),
        "b8/conv0": (8, 4),
        "b8/conv1": (8, 4),
    }
    assert (config.image_size, config.size_text) == ((8, 4), "4×8")
    assert (tiny.GENERATOR.image_size, tiny.GENERATOR.size_text) == (8, "8²")
    cropped = dataclasses.replace(tiny.GENERATOR, crop_height=6)
    assert (cropped.image_shape, cropped.shown_at(4)) == ((6, 8), (3, 4))
    image = np.arange(8.0)[None, :, None, None] * np.ones((1, 8, 8, 3))
    np.testing.assert_array_equal(cropped.show(image), image[:, 1:7])


def test_square_configurations_are_stored_as_before() -> None:
    stored = runtime.stored(tiny.GENERATOR)
    assert not {"base", "crop_height"} & stored.keys()
    for change in ({"base": (4, 2)}, {"crop_height": 6}):
        assert (
            runtime.stored(tiny.GENERATOR.replace(**change)).items() >= change.items()
        )


@pytest.mark.parametrize(
    "change",
    [
        {"base": (4, 0)},
        {"base": (4, 17)},
        {"base": (4,)},
        {"base": (4, 2.0)},
        {"crop_height": 0},
        {"crop_height": 6.0},
        {"crop_height": 5},
        {"crop_height": 8},
    ],
)
def test_shapes_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(change))} must be .*, found"):
        tiny.GENERATOR.replace(**change)
