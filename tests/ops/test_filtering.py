"""Filters around an activation equal their definition, in forward and reverse mode."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from styleclip_jax.ops import filtering
from styleclip_jax.ops.filtering import Filters
from tests import tiny
from tests.golden_data import assert_near


def by_definition(x: jax.Array, filters: Filters) -> jax.Array:
    """Zeros between pixels, two convolutions, and every other pixel of the second."""
    up, (low, high) = filters.up, filters.padding
    edges = (low, high + up - 1, up - 1)
    x = lax.pad(x, jnp.zeros(()), [(0, 0, 0), edges, edges, (0, 0, 0)])
    plane = np.outer(filters.up_taps, filters.up_taps) * up**2
    x = jnp.tanh(_convolve(x, plane, 1))
    down = filters.down_taps
    down = np.outer(down, down) if down.ndim == 1 else down
    return _convolve(x, down, filters.down)[:, : filters.size, : filters.size]


def _convolve(x: jax.Array, plane: np.ndarray, stride: int) -> jax.Array:
    planes = jnp.moveaxis(x, -1, 0)[..., None].reshape(-1, *x.shape[1:3], 1)
    y = lax.conv_general_dilated(
        planes,
        jnp.asarray(plane, jnp.float32)[..., None, None],
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    return jnp.moveaxis(y.reshape(x.shape[-1], len(x), *y.shape[1:3]), 0, -1)


@pytest.mark.parametrize(
    ("up", "padding", "radial"),
    [(2, (9, 8), False), (2, (-3, -4), True), (4, (2, -1), True)],
)
def test_value_and_derivatives_are_those_of_the_definition(
    up: int, padding: tuple[int, int], radial: bool
) -> None:
    x = tiny.normal(0, 2, 20, 20, 3)
    taps = filtering.lowpass(6 * up, 3.0, 8.0, 64.0)
    down = filtering.lowpass(12, 4.0, 8.0, 64.0, radial=radial)
    left = 20 * up + sum(padding) - len(taps) + 1
    filters = Filters(up, 2, taps, down, padding, (left - 12) // 2 + 1)

    def ours(x: jax.Array) -> jax.Array:
        return filtering.between(x, filters, jnp.tanh)

    def run(function: Any) -> Any:
        y, tangent = jax.jvp(function, (x,), (x[::-1],))
        gradient = jax.grad(lambda x: jnp.sum(function(x) ** 2))(x)
        return y, tangent, gradient

    expected = jax.jit(lambda: run(lambda x: by_definition(x, filters)))()
    for found, wanted in zip(jax.jit(lambda: run(ours))(), expected, strict=True):
        assert_near(found, wanted, 1e-5)


def test_lowpass_keeps_constants_and_stops_what_is_beyond() -> None:
    taps = filtering.lowpass(64, 4.0, 2.0, 32.0)
    t = np.arange(64) / 32

    def response(frequency: float) -> float:
        return abs(np.sum(taps * np.exp(2j * np.pi * frequency * t)))

    assert response(0) == pytest.approx(1, abs=1e-6)
    assert response(4) == pytest.approx(0.5, abs=1e-2)
    assert max(response(f) for f in (6, 8, 12)) < 1e-2
    plane = filtering.lowpass(12, 4.0, 8.0, 32.0, radial=True)
    np.testing.assert_allclose(plane, plane.T)
    np.testing.assert_allclose(plane, plane[::-1])
