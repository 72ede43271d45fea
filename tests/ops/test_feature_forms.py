"""Networks that look at images take quick convolutions on CPUs, and there alone.

Programs are lowered for shapes of the published widths, which needs no memory.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from styleclip_jax.models import irse50, param_trees, vgg16
from styleclip_jax.models.network import Network

# 3×3 convolutions of a network on accelerators, and as such on CPUs: its first one, and
# the first block's of each stage with a stride, which are 4.
IDENTITY = irse50.IrseConfig(num_blocks=(2, 2, 2, 2))
VGG16 = vgg16.Vgg16Config(dense=())
CASES = {
    "irse50": (irse50, irse50.embed, IDENTITY, 112, 1 + 16, 1 + 4),
    "vgg16": (vgg16, vgg16.feature_maps, VGG16, 224, 13, 1),
}


def convolutions_in(program: Any, platform: str) -> int:
    """Convolutions with kernels of 3×3, at every place that calls them."""
    text = program.lower(lowering_platforms=(platform,)).as_text()
    found = re.findall(r"func\.func \w+ @([\w.]+)\((.*?)\n  }", text, re.DOTALL)
    bodies = dict(found)

    def count(name: str) -> int:
        body = bodies[name]
        own = len(re.findall(r"stablehlo\.convolution.*tensor<3x3x", body))
        return own + sum(map(count, re.findall(r"call @([\w.]+)\(", body)))

    return count("main")


@pytest.mark.parametrize("name", CASES)
def test_quick_convolutions_are_taken_on_cpus(name: str) -> None:
    module, function, config, size, everywhere, on_cpus = CASES[name]
    shapes = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in module.param_shapes(config).items()
    }
    network = Network(param_trees.unflatten(shapes), config)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

    def total(network: Network, image: jax.Array) -> jax.Array:
        return sum(jnp.sum(x) for x in jax.tree.leaves(function(network, image)))

    gradient: Callable[..., Any] = jax.grad(total, argnums=1)
    for derived, times in ((total, 1), (gradient, 2)):
        program = jax.jit(derived).trace(network, image)
        # The transpose of a convolution is another one.
        assert convolutions_in(program, "cuda") == times * everywhere
        assert convolutions_in(program, "cpu") == times * on_cpus
