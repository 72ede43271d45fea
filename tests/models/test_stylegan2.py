"""The generator: styles, noise, precision, shapes, refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from tests import tiny

GENERATOR = tiny.GENERATOR


def render(config: stylegan2.GeneratorConfig, **options: object) -> jax.Array:
    network = Network(tiny.generator().params, config)
    synthesize = functools.partial(stylegan2.synthesize, **options)
    return jax.jit(synthesize)(network, tiny.w_plus(2))


def test_styles_equal_w_plus() -> None:
    @jax.jit
    def through_styles(generator: Network) -> jax.Array:
        styles = stylegan2.to_styles(generator, tiny.w_plus(2))
        return stylegan2.synthesize_styles(generator, styles)

    found = through_styles(tiny.generator())
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
    generator = tiny.generator(config)
    z, labels = jnp.ones((2, 8)), jnp.eye(2)
    w = stylegan2.map_latents(generator, z, labels)
    assert jnp.abs(w[0] - w[1]).max() > 1e-3
    with pytest.raises(ValueError, match="needs a label"):
        stylegan2.map_latents(generator, z)


def test_training_moves_no_stored_noise() -> None:
    def loss(generator: Network) -> jax.Array:
        return jnp.sum(stylegan2.synthesize(generator, tiny.w_plus(1)) ** 2)

    gradient = jax.jit(jax.grad(loss))(tiny.generator())
    layer = gradient.params["synthesis"]["b8"]["conv0"]
    assert jnp.abs(layer["noise_const"]).max() == 0
    assert jnp.abs(layer["noise_strength"]) > 0
    assert jnp.abs(layer["kernel"]).max() > 0


def test_wrong_shapes_are_refused_with_both() -> None:
    generator = tiny.generator()
    with pytest.raises(ValueError, match=r"expected \[N, 4, 12\], found \[2, 5, 12\]"):
        stylegan2.to_styles(generator, jnp.zeros((2, 5, 12)))
    with pytest.raises(ValueError, match=r"expected \[N, 8\]"):
        stylegan2.map_latents(generator, jnp.zeros((2, 9)))
    with pytest.raises(ValueError, match="5 style vectors"):
        stylegan2.synthesize_styles(generator, (jnp.zeros((1, 10)),))
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


@pytest.mark.parametrize(
    ("start", "stop", "given", "message"),
    [
        (0, 6, False, "expected layers from 0 to 5, found 0 to 6"),
        (3, 2, True, "found 3 to 2"),
        (2, 5, False, "activations go with a start"),
        (0, 5, True, "activations go with a start"),
    ],
)
def test_parts_of_the_synthesis_that_do_not_fit(start, stop, given, message) -> None:
    generator = tiny.generator()
    styles = stylegan2.to_styles(generator, tiny.w_plus(3))
    activations = stylegan2.Activations(jnp.zeros((3, 4, 4, 10)), None)
    with pytest.raises(ValueError, match=message):
        stylegan2.synthesize_layers(
            generator,
            styles,
            activations if given else None,
            start=start,
            stop=stop,
        )
