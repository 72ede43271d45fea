"""Latents of the e4e encoder equal the official ones; the network."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import e4e as convert_e4e
from styleclip_jax.models import e4e
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks, tiny
from tests.golden_data import to_nhwc

CASE = golden_data.Case("e4e_encoder")
# Rows of all three maps.
TINY = dataclasses.replace(tiny.ENCODER, w_dim=5, num_rows=8)
encode = jax.jit(e4e.encode)


@pytest.mark.slow
def test_latents() -> None:
    path = f"e4e_encoder/{CASE.meta['checkpoint']}"
    network = golden_networks.converted(convert_e4e.convert, path)
    CASE.check("wplus", encode(network, to_nhwc(CASE["images"])))


def test_rows_of_e4e_are_offsets_to_the_first_those_of_psp_are_not() -> None:
    image, network = tiny.image(2, 16), tiny.encoder(TINY)
    psp = network.replace(config=dataclasses.replace(TINY, offsets=False))
    alone = encode(psp, image)
    base = (alone - network.params["w_avg"])[:, :1]
    expected = alone.at[:, 1:].add(base)
    np.testing.assert_allclose(encode(network, image), expected, atol=1e-5)
    assert np.abs(base).max() > 0.1


def test_the_average_latent_is_added() -> None:
    image, network = tiny.image(2, 16), tiny.encoder(TINY)
    w_avg = network.params["w_avg"]
    without = network.replace(params={**network.params, "w_avg": jnp.zeros_like(w_avg)})
    difference = encode(network, image) - encode(without, image)
    np.testing.assert_allclose(difference[0], w_avg, atol=1e-5)


@pytest.mark.slow
def test_gradient_is_the_slope_and_stops_at_the_average_latent() -> None:
    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(network: Network, image: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(e4e.encode(network, image)))

    image, network = tiny.image(2, 16), tiny.encoder(TINY)
    _, (of_network, of_image) = loss(network, image)
    of_params = of_network.params
    direction = of_image / jnp.linalg.norm(of_image)
    after, before = (
        loss(network, image + step * direction)[0] for step in (3e-3, -3e-3)
    )
    slope = jnp.sum(of_image * direction)
    np.testing.assert_allclose((after - before) / 6e-3, slope, rtol=1e-2)
    assert not of_params["w_avg"].any()
    assert of_params["head7"]["conv0"]["kernel"].any()
    assert of_params["body"]["input"]["conv"]["kernel"].any()


@pytest.mark.slow
def test_batch_equals_its_examples_under_vmap() -> None:
    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def one(network: Network, image: jax.Array) -> jax.Array:
        return e4e.encode(network, image[None])[0]

    image, network = tiny.image(3, 16), tiny.encoder(TINY)
    found = one(network, image)
    np.testing.assert_allclose(found, encode(network, image), atol=1e-5)
    assert np.abs(np.asarray(found[0] - found[1])).max() > 1e-2


def test_heads_without_a_pyramid_all_read_the_coarsest_features() -> None:
    for body in e4e.BODIES:
        config = e4e.E4eConfig(body=body, pyramid=False, in_channels=6, iterations=5)
        shapes = e4e.param_shapes(config)
        assert not [name for name in shapes if name.startswith("lateral")]
        for row in (0, 17):
            convs = [n for n in shapes if n.startswith(f"head{row}/conv")]
            assert len(convs) == 2 * 4
        size = 3 if body == "irse" else 7
        assert shapes["body/input/conv/kernel"] == (size, size, 6, 64)


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


def test_photos_of_3_to_4_have_the_parameters_of_square_ones() -> None:
    wide = dataclasses.replace(TINY, input_size=32, input_height=24)
    assert (wide.photo_size, wide.input_shape) == ((24, 32), (24, 32))
    square = dataclasses.replace(wide, input_height=None)
    assert (square.photo_size, square.input_shape) == (32, (32, 32))
    assert e4e.param_shapes(wide) == e4e.param_shapes(square)
    found = e4e.encode(tiny.encoder(wide), jnp.ones((2, 24, 32, 3)))
    assert found.shape == (2, wide.num_rows, wide.w_dim)
    with pytest.raises(ValueError, match=r"\[B, 24, 32, 3\], found \[2, 32, 32, 3\]"):
        e4e.encode(tiny.encoder(wide), jnp.ones((2, 32, 32, 3)))


def test_wrong_shapes_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"\[B, 16, 16, 3\], found \[1, 16, 12, 3\]"):
        e4e.encode(tiny.encoder(TINY), jnp.zeros((1, 16, 12, 3)))


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
        {"input_height": 8},
        {"input_height": 20},
        {"input_height": 24},
        {"body": "vit"},
        {"in_channels": 4},
        {"iterations": 2},
        {"in_channels": 6, "iterations": 0},
    ],
)
def test_configurations_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found"):
        dataclasses.replace(TINY, **change)
