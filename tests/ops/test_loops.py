"""Gradients inside of loops: on CPUs, convolutions that XLA has quick code for.

The compiled text names the order of a kernel's axes; quick code takes 01io alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.models import clip, irse50, stylegan2
from styleclip_jax.models.network import Network
from tests import tiny

STEPS = 2


def generator() -> tuple[Callable[[Any, jax.Array], jax.Array], Any, jax.Array]:
    """Network as a function, its network, and a batch to descend from."""
    config = tiny.GENERATOR_256
    network = Network(stylegan2.init(jax.random.key(0), config), config)
    shape = (2, config.num_rows, config.w_dim)
    return stylegan2.synthesize, network, jax.random.normal(jax.random.key(1), shape)


def identity() -> tuple[Callable[[Any, jax.Array], jax.Array], Any, jax.Array]:
    config = tiny.IDENTITY
    network = Network(irse50.init(jax.random.key(0), config), config)
    image = jax.random.normal(jax.random.key(1), (2, *[config.input_size] * 2, 3))
    return irse50.embed, network, image


def residual_clip() -> tuple[Callable[[Any, jax.Array], jax.Array], Any, jax.Array]:
    config = tiny.RESNET_CLIP
    network = Network(clip.init(jax.random.key(0), config), config)
    size = config.image_size
    image = jax.random.normal(jax.random.key(1), (2, size, size, 3))
    return clip.encode_image, network, image


@pytest.mark.parametrize("make", [generator, identity, residual_clip])
def test_gradients_in_loops_are_those_of_single_steps(make: Callable[[], Any]) -> None:
    function, network, batch = make()

    def step(network: Any, x: jax.Array) -> jax.Array:
        def loss(x: jax.Array) -> jax.Array:
            return jnp.mean(jnp.square(function(network, x[None])))

        return x - 0.1 * jax.grad(loss)(x)

    def descend(network: Any, x: jax.Array) -> jax.Array:
        one = functools.partial(step, network)
        return jax.lax.fori_loop(0, STEPS, lambda _, x: one(x), x)

    over_batch = functools.partial(jax.vmap, in_axes=(None, 0))
    compiled = jax.jit(over_batch(descend)).lower(network, batch).compile()
    text = compiled.as_text()
    assert "01io" in text
    assert "01oi" not in text
    single, expected = jax.jit(over_batch(step)), batch
    for _ in range(STEPS):
        expected = single(network, expected)
    np.testing.assert_allclose(compiled(network, batch), expected, rtol=0, atol=1e-4)
