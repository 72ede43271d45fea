"""jit, vmap, grad and sharding compose over everything in the catalogue."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from styleclip_jax import parallel
from tests import catalogue, tiny

pytestmark = pytest.mark.slow

ENTRIES = {entry.name: entry for entry in catalogue.entries()}


@functools.cache
def compiled(name: str) -> tuple[Any, Any]:
    """The function of an entry under jit, and what it gives of the entry's batch."""
    entry = ENTRIES[name]

    # Several entries call one function, whose programs jax would keep together.
    @jax.jit
    def function(network: Any, batch: Any) -> Any:
        return entry.function(network, batch)

    return function, function(entry.network, entry.batch)


@pytest.fixture(params=ENTRIES, scope="module")
def entry(request: pytest.FixtureRequest) -> catalogue.Entry:
    return ENTRIES[request.param]


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def test_batch_equals_its_examples_under_jit_and_vmap(entry: catalogue.Entry) -> None:
    _, expected = compiled(entry.name)

    def one(network: Any, example: Any) -> Any:
        batch = jax.tree.map(lambda x: x[None], example)
        return jax.tree.map(lambda x: x[0], entry.function(network, batch))

    mapped = jax.jit(jax.vmap(one, in_axes=(None, 0)))
    assert_close(mapped(entry.network, entry.batch), expected, entry.tolerance)
    alone = jax.tree.map(lambda x: x[2], entry.batch)
    third = jax.tree.map(lambda x: x[2], expected)
    assert_close(jax.jit(one)(entry.network, alone), third, entry.tolerance)


def test_new_values_compile_nothing_new(entry: catalogue.Entry) -> None:
    function, _ = compiled(entry.name)
    other = jax.tree.map(lambda x: x[::-1], entry.batch)
    function(jax.tree.map(lambda x: 0.9 * x, entry.network), other)
    assert function._cache_size() == 1


def test_results_are_float32(entry: catalogue.Entry) -> None:
    _, found = compiled(entry.name)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "entry",
    [e for e in ENTRIES.values() if e.differentiable and jax.tree.leaves(e.network)],
    ids=lambda e: e.name,
)
def test_networks_stacked_equal_each_alone_under_vmap(entry: catalogue.Entry) -> None:
    _, expected = compiled(entry.name)
    stacked = jax.tree.map(lambda x: jnp.stack([0.9 * x, x]), entry.network)
    mapped = jax.jit(jax.vmap(entry.function, in_axes=(0, None)))
    found = jax.tree.map(lambda x: x[1], mapped(stacked, entry.batch))
    assert_close(found, expected, entry.tolerance)


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES.values() if e.shardable], ids=lambda e: e.name
)
def test_sharded_batch_equals_one_device_without_communication(
    entry: catalogue.Entry,
) -> None:
    assert jax.device_count() == 4
    mesh = parallel.make_mesh()
    _, expected = compiled(entry.name)
    network = parallel.replicate(entry.network, mesh)
    batch = parallel.shard(entry.batch, mesh)
    program = jax.jit(entry.function).lower(network, batch).compile()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in program.as_text()
    found = program(network, batch)
    assert all(
        leaf.sharding.is_equivalent_to(parallel.over_batch(mesh), leaf.ndim)
        for leaf in jax.tree.leaves(found)
    )
    assert_close(found, expected, entry.tolerance)


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES.values() if e.differentiable], ids=lambda e: e.name
)
def test_gradient_is_the_slope(entry: catalogue.Entry) -> None:
    """Along the gradient and a random direction at once, by central differences."""

    @jax.jit
    @jax.value_and_grad
    def value_and_gradient(batch: Any) -> jax.Array:
        leaves = jax.tree.leaves(entry.function(entry.network, batch))
        return sum(jnp.mean(jnp.sin(leaf)) for leaf in leaves)

    _, gradient = value_and_gradient(entry.batch)
    noise = jax.tree.map(lambda x: tiny.normal(7, *x.shape), entry.batch)
    direction = optax.tree.add(
        optax.tree.scale(1 / optax.tree.norm(gradient), gradient),
        optax.tree.scale(0.5 / optax.tree.norm(noise), noise),
    )
    step = 2e-3
    after, before = (
        value_and_gradient(optax.tree.add_scale(entry.batch, sign * step, direction))[0]
        for sign in (1, -1)
    )
    slope = optax.tree.vdot(gradient, direction)
    # float32 and the kinks of leaky ReLU leave about a thousandth.
    np.testing.assert_allclose((after - before) / (2 * step), slope, rtol=5e-3)
