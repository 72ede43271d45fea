"""Products of bfloat16: values, derivatives, batches, and what CPUs compute them by."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.ops import products


def factors(*shape: int) -> tuple[jax.Array, jax.Array]:
    """[..., I] and [I, 4] in bfloat16, whose products are exact in float32."""
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], shape, jnp.bfloat16)
    return x, jax.random.normal(keys[1], (shape[-1], 4), jnp.bfloat16)


def exact(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.dot(x.astype(jnp.float32), y.astype(jnp.float32))


def assert_rounded(found: jax.Array, expected: jax.Array) -> None:
    """Expects bfloat16 that is a float32 rounded once."""
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(found, np.float32), expected, rtol=2.0**-8, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(5, 3), (3,), (2, 5, 3), (64, 64), (1, 1)])
def test_products_are_rounded_once_and_so_are_their_derivatives(
    shape: tuple[int, ...],
) -> None:
    x, y = factors(*shape)
    value, pull = jax.vjp(products.dot, x, y)
    exact_value, exact_pull = jax.vjp(exact, x, y)
    assert_rounded(value, exact_value)
    for found, expected in zip(
        pull(value), exact_pull(value.astype(jnp.float32)), strict=True
    ):
        assert_rounded(found, expected.astype(jnp.float32))
    _, pushed = jax.jvp(products.dot, (x, y), (x, jnp.zeros_like(y)))
    assert_rounded(pushed, exact_value)


@pytest.mark.parametrize("in_axes", [(0, 0), (0, None), (None, 1), (2, 0)])
def test_batches_are_products_one_by_one(
    in_axes: tuple[int | None, int | None],
) -> None:
    x, y = (
        factor if axis is None else jnp.stack([factor, -2 * factor], axis)
        for factor, axis in zip(factors(5, 3), in_axes, strict=True)
    )

    def multiply(x: jax.Array, y: jax.Array) -> list[jax.Array]:
        value, pull = jax.vjp(products.dot, x, y)
        return [value, *pull(value)]

    def one(factor: jax.Array, axis: int | None, index: int) -> jax.Array:
        return factor if axis is None else jnp.take(factor, index, axis)

    # Twice, as nested maps do.
    nested = jax.vmap(jax.vmap(multiply, in_axes), (0, 0))
    found = nested(jnp.stack([x, 3 * x]), jnp.stack([y, y]))
    for index in range(2):
        parts = (one(f, a, index) for f, a in zip((x, y), in_axes, strict=True))
        for several, single in zip(found, multiply(*parts), strict=True):
            np.testing.assert_array_equal(several[0, index], single)


def test_float32_is_left_to_jax() -> None:
    x, y = (factor.astype(jnp.float32) for factor in factors(5, 3))
    np.testing.assert_array_equal(products.dot(x, y), x @ y)


@pytest.mark.skipif(
    not products.cpu_multiplies_bfloat16(), reason="this CPU has no such instructions"
)
def test_cpus_multiply_bfloat16_to_float32_in_gradients_too() -> None:
    kernel = jnp.ones((64, 64), jnp.bfloat16)

    def loss(x: jax.Array, kernel: jax.Array) -> Any:
        y = products.dot(x.astype(jnp.bfloat16), kernel)
        return jnp.sum(jnp.tanh(y).astype(jnp.float32))

    compiled = jax.jit(jax.grad(loss)).lower(jnp.ones((8, 64)), kernel)
    products_of = re.findall(r"f32\[8,64\]\S* dot\(%(\S+), %(\S+)\)", text(compiled))
    assert len(products_of) == 2
    for names in products_of:
        for name in names:
            assert re.search(rf"%{re.escape(name)} = bf16\[", text(compiled)), name


def text(lowered: Any) -> str:
    return lowered.compile().as_text()
