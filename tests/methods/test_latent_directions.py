"""Steps in W+ are steps in S, and the weights' factors move styles most."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import spaces
from styleclip_jax.methods import global_directions, latent_directions
from styleclip_jax.models import stylegan2
from tests import tiny

GENERATOR = tiny.generator()
LAYOUT = GENERATOR.config.style_layout
ROWS, LENGTH = GENERATOR.config.num_rows, GENERATOR.config.w_dim
_SYNTHESIZE = jax.jit(stylegan2.synthesize_styles)


@pytest.mark.parametrize("alpha", [-3.0, 0.5, 20.0])
def test_a_step_in_w_plus_is_the_same_step_in_s(alpha: float) -> None:
    w_plus, delta = tiny.w_plus(3), tiny.normal(5, ROWS, LENGTH)
    direction = latent_directions.to_direction(GENERATOR, delta)
    before = stylegan2.to_styles(GENERATOR, w_plus)
    expected = stylegan2.to_styles(GENERATOR, w_plus + alpha * delta)
    found = global_directions.edit(before, direction, alpha)
    size = max(1.0, abs(alpha))
    for layer, one, other in zip(LAYOUT, found, expected, strict=True):
        # float32 rounds the two sums in another order; toRGB layers move as well.
        np.testing.assert_allclose(one, other, atol=4e-6 * size, err_msg=layer.name)
    torgb = global_directions.mask(
        direction, [i for i, x in enumerate(LAYOUT) if x.is_torgb]
    )
    assert float(jnp.abs(torgb.delta).max()) > 0.1
    images = [_SYNTHESIZE(GENERATOR, x) for x in (found, expected)]
    largest = float(jnp.abs(images[1]).max())
    np.testing.assert_allclose(images[0], images[1], atol=2e-5 * largest)


def test_steps_are_linear_and_can_be_transformed() -> None:
    delta = tiny.normal(5, 2, ROWS, LENGTH)

    def convert(x: jax.Array) -> jax.Array:
        return latent_directions.to_direction(GENERATOR, x).delta

    single = jnp.stack([convert(x) for x in delta])
    np.testing.assert_allclose(jax.vmap(convert)(delta), single, atol=1e-6)
    np.testing.assert_allclose(jax.jit(convert)(delta[0]), single[0], atol=1e-6)
    np.testing.assert_allclose(
        convert(2 * delta[0] - delta[1]), 2 * single[0] - single[1], atol=1e-5
    )
    np.testing.assert_array_equal(convert(jnp.zeros_like(delta[0])), 0)


@pytest.mark.parametrize("layers", ["all", "b8", "b4/conv1"])
def test_factors_are_the_eigenvectors_of_the_weights(layers: str) -> None:
    chosen = global_directions.select_layers(LAYOUT, layers)
    found = latent_directions.factorize(GENERATOR, chosen)
    rows = []
    for i in chosen:
        block, name = LAYOUT[i].name.split("/")
        kernel = np.asarray(
            GENERATOR.params["synthesis"][block][name]["affine"]["kernel"], np.float64
        )
        rows.append((kernel / np.linalg.norm(kernel, axis=0)).T)
    weights = np.concatenate(rows)
    values = np.linalg.svd(weights, compute_uv=False) ** 2
    np.testing.assert_allclose(found.value[: len(values)], values, rtol=1e-4, atol=1e-4)
    assert (np.diff(found.value) <= 1e-5).all()
    step = np.asarray(found.step, np.float64)
    np.testing.assert_allclose(step @ step.T, np.eye(LENGTH), atol=1e-5)
    np.testing.assert_allclose(
        weights.T @ weights @ step[0], found.value[0] * step[0], atol=1e-4
    )
    largest = step[np.arange(LENGTH), np.abs(step).argmax(axis=1)]
    assert (largest > 0).all()
    # It is the maximum: no random unit step moves styles more.
    random = np.random.default_rng(0).normal(size=(LENGTH, 100))
    random /= np.linalg.norm(random, axis=0)
    moved = (np.linalg.norm(weights @ random, axis=0) ** 2).max()
    assert moved <= found.value[0]


def test_a_step_in_layers_moves_their_rows_alone() -> None:
    step = tiny.normal(1, LENGTH)
    chosen = global_directions.select_layers(LAYOUT, "b8/conv0")
    found = latent_directions.in_layers(step, LAYOUT, chosen)
    assert found.shape == (ROWS, LENGTH)
    np.testing.assert_array_equal(found[1], step)
    np.testing.assert_array_equal(found[jnp.array([0, 2, 3])], 0)
    moved = spaces.unflatten_styles(
        latent_directions.to_direction(GENERATOR, found).delta, LAYOUT
    )
    # toRGB of 4² reads the same row.
    names = [x.name for x, s in zip(LAYOUT, moved, strict=True) if jnp.any(s != 0)]
    assert names == ["b4/torgb", "b8/conv0"]
