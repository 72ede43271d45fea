"""Blends of latents: mixed rows, and paths through keyframes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate

from styleclip_jax import blends
from tests import tiny


def points(keyframes: jax.Array, positions: np.ndarray, **options) -> jax.Array:
    def one(position: jax.Array) -> jax.Array:
        return blends.interpolate(keyframes, position, **options)

    return jax.jit(jax.vmap(one))(jnp.asarray(positions, jnp.float32))


@pytest.mark.parametrize("count", [3, 4, 7])
def test_closed_spline_is_scipys_periodic_one(count: int) -> None:
    y = np.asarray(tiny.normal(0, count, 6))
    around = np.concatenate([y, y[:1]])
    spline = interpolate.CubicSpline(np.arange(count + 1), around, bc_type="periodic")
    t = np.linspace(0, count, 41)
    np.testing.assert_allclose(points(y, t), spline(t), rtol=0, atol=2e-6)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_open_spline_is_scipys_natural_one(count: int) -> None:
    y = np.asarray(tiny.normal(0, count, 2, 3))
    spline = interpolate.CubicSpline(np.arange(count), y, bc_type="natural")
    t = np.linspace(0, count - 1, 41)
    found = points(y, t, closed=False)
    np.testing.assert_allclose(found, spline(t), rtol=0, atol=2e-6)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("curve", blends.CURVES)
def test_paths_pass_keyframes_to_the_last_bit(curve: str, closed: bool) -> None:
    y = tiny.normal(1, 5, 8)
    found = points(y, np.arange(5), curve=curve, closed=closed)
    np.testing.assert_array_equal(found, y)
    if closed:
        (end,) = points(y, np.array([5]), curve=curve)
        np.testing.assert_array_equal(end, y[0])


def test_spherical_turns_evenly_and_keeps_length() -> None:
    y = jnp.array([[2.0, 0, 0], [0, 2, 0]])
    found = points(y, np.linspace(0, 1, 7), curve="spherical", closed=False)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 2, rtol=1e-6)
    angle = np.arctan2(found[:, 1], found[:, 0])
    np.testing.assert_allclose(angle, np.linspace(0, np.pi / 2, 7), atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0])
def test_spherical_is_finite_between_parallel_vectors(factor: float) -> None:
    y = jnp.array([[1.0, 2, 3], [factor, 2 * factor, 3 * factor]])

    def total(y: jax.Array) -> jax.Array:
        point = blends.interpolate(y, jnp.float32(0.25), curve="spherical")
        return jnp.sum(point)

    value, gradient = jax.value_and_grad(total)(y)
    np.testing.assert_allclose(value, 6 * (0.75 + 0.25 * factor), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.75] * 3, [0.25] * 3], rtol=1e-6)


def test_mixing_takes_chosen_rows_of_the_other() -> None:
    first, second = tiny.w_plus(2)
    found = blends.mix(first, second, np.array([True, False, True, False]))
    np.testing.assert_array_equal(found[::2], second[::2])
    np.testing.assert_array_equal(found[1::2], first[1::2])
