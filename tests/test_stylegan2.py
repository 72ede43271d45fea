"""The generator: convolutions against plain ones, noise, precision, refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from styleclip_jax import spaces
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.ops import convolutions
from tests import tiny

GENERATOR = tiny.GENERATOR


def render(config: stylegan2.GeneratorConfig, **options: object) -> jax.Array:
    synthesize = functools.partial(stylegan2.synthesize, config=config, **options)
    return jax.jit(synthesize)(tiny.generator().params, tiny.w_plus(2))


def zero_insertion_fir(x: jax.Array) -> jax.Array:
    """FIR [1, 3, 3, 1] (gain 2) per axis over [B, H, W, C], padding 1."""
    taps = jnp.outer(jnp.array([1.0, 3, 3, 1]), jnp.array([1.0, 3, 3, 1])) / 16
    kernel = jnp.tile(taps[:, :, None, None], (1, 1, 1, x.shape[-1]))
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize("size", [4, 5])
def test_upsampling_convolution_is_transposed_convolution_then_fir(size: int) -> None:
    x, kernel = tiny.normal(0, 2, size, size, 3), tiny.normal(1, 3, 3, 3, 4)
    # Zeros between pixels, then the flipped kernel: a transposed convolution.
    spread = lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = zero_insertion_fir(spread)
    found = convolutions.upsample_conv3x3(x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rgb_upsampling_keeps_a_constant_inside() -> None:
    found = convolutions.upsample_rgb(jnp.ones((1, 4, 4, 3)))
    assert found.shape == (1, 8, 8, 3)
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], 1)


def test_styles_equal_w_plus() -> None:
    @jax.jit
    def through_styles(params: object) -> jax.Array:
        styles = stylegan2.to_styles(Network(params, GENERATOR), tiny.w_plus(2))
        return stylegan2.synthesize_styles(Network(params, GENERATOR), styles)

    found = through_styles(tiny.generator().params)
    np.testing.assert_allclose(found, render(GENERATOR), atol=1e-6)


def test_noise_const_random_none_differ_as_they_should() -> None:
    const = render(GENERATOR)
    none = render(GENERATOR, noise="none")
    one, same, other = (
        render(GENERATOR, noise="random", key=jax.random.key(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    for a, b in ((const, none), (const, one), (one, other)):
        assert jnp.abs(a - b).max() > 1e-2


def test_bfloat16_stays_near_float32() -> None:
    config = dataclasses.replace(GENERATOR, dtype="bfloat16")
    found, expected = render(config), render(GENERATOR)
    assert found.dtype == jnp.float32
    error = jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)
    assert 1e-5 < error < 2e-2


def test_conv_clamp_bounds_the_image_terms() -> None:
    config = dataclasses.replace(GENERATOR, conv_clamp=0.05)
    # Two resolutions, each adding at most the clamp.
    assert jnp.abs(render(config)).max() <= 0.1 + 1e-6
    assert jnp.abs(render(GENERATOR)).max() > 0.1


@pytest.mark.parametrize("resolution", [8, 16, 64, 1024])
def test_any_resolution_and_depth_has_shapes(resolution: int) -> None:
    num = resolution.bit_length() - 2
    config = stylegan2.GeneratorConfig(
        resolution=resolution,
        z_dim=4,
        w_dim=6,
        c_dim=3,
        num_mapping_layers=5,
        channels=(5, 4, 7, 3, 2, 2, 2, 2, 2)[:num],
    )
    shapes = stylegan2.param_shapes(config)
    assert shapes["mapping/fc0/kernel"] == (4 + 6, 6)
    assert shapes["mapping/fc4/kernel"] == (6, 6)
    assert shapes[f"synthesis/b{resolution}/torgb/kernel"][-1] == 3
    image = jax.eval_shape(
        lambda params, w: stylegan2.synthesize(Network(params, config), w),
        jax.eval_shape(lambda: stylegan2.init(jax.random.key(0), config)),
        jax.ShapeDtypeStruct((2, config.num_rows, 6), jnp.float32),
    )
    assert image.shape == (2, resolution, resolution, 3)


def test_class_changes_w() -> None:
    config = dataclasses.replace(GENERATOR, c_dim=2)
    params = tiny.generator(config).params
    z, labels = jnp.ones((2, 8)), jnp.eye(2)
    w = stylegan2.map_latents(Network(params, config), z, labels)
    assert jnp.abs(w[0] - w[1]).max() > 1e-3
    with pytest.raises(ValueError, match="needs a label"):
        stylegan2.map_latents(Network(params, config), z)


def test_training_moves_no_stored_noise() -> None:
    def loss(params: object) -> jax.Array:
        image = stylegan2.synthesize(Network(params, GENERATOR), tiny.w_plus(1))
        return jnp.sum(image**2)

    gradient = jax.jit(jax.grad(loss))(tiny.generator().params)
    layer = gradient["synthesis"]["b8"]["conv0"]
    assert jnp.abs(layer["noise_const"]).max() == 0
    assert jnp.abs(layer["noise_strength"]) > 0
    assert jnp.abs(layer["kernel"]).max() > 0


def test_wrong_shapes_are_refused_with_both() -> None:
    params = tiny.generator().params
    with pytest.raises(ValueError, match=r"expected \[N, 4, 12\], found \[2, 5, 12\]"):
        stylegan2.to_styles(Network(params, GENERATOR), jnp.zeros((2, 5, 12)))
    with pytest.raises(ValueError, match=r"expected \[N, 8\]"):
        stylegan2.map_latents(Network(params, GENERATOR), jnp.zeros((2, 9)))
    with pytest.raises(ValueError, match="5 style vectors"):
        stylegan2.synthesize_styles(Network(params, GENERATOR), (jnp.zeros((1, 10)),))
    with pytest.raises(ValueError, match="noise must be one of"):
        render(GENERATOR, noise="loud")
    with pytest.raises(ValueError, match="needs a PRNG key"):
        render(GENERATOR, noise="random")


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 24},
        {"channels": (4, 4, 4)},
        {"dtype": "float16"},
    ],
)
def test_configurations_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="found"):
        dataclasses.replace(GENERATOR, **change)


def test_number_of_rows() -> None:
    assert [spaces.num_rows(r) for r in (16, 64, 256, 512, 1024)] == [6, 10, 14, 16, 18]
