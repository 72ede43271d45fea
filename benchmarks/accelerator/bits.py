"""Bits of results in this process: a line of JSON with a hash of each.

`checks` starts it several times, since a compiler that tries kernels out may choose
other ones in each process.
"""

import hashlib
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import setting
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network

_BATCH = 4


def hashes(*, toy: bool) -> dict[str, list[list[str]]]:
    """Hashes of images and of a gradient by W+, of two calls, for each way."""
    size = setting.TOY if toy else setting.FULL
    world, found = setting.World(size._replace(generator=size.bits)), {}
    w_plus = world.w_plus(_BATCH)

    def loss(w_plus: jax.Array, network: Network) -> tuple[jax.Array, jax.Array]:
        image = stylegan2.synthesize(network, w_plus)
        return jnp.sum(image**2), image

    for name, config in setting.ways(size.gradient_ways, size.bits).items():
        network = world.generator.replace(config=config)
        function = jax.jit(jax.grad(loss, has_aux=True))
        found[name] = [[*map(_hash, function(w_plus, network))] for _ in range(2)]
    return found


def _hash(array: Any) -> str:
    return hashlib.sha256(np.asarray(array).tobytes()).hexdigest()


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", "--toy" in sys.argv)
    print(json.dumps(hashes(toy="--toy" in sys.argv)))
