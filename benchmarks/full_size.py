"""What does one optimization step cost at full size: seconds and peak memory?

  python -m benchmarks.full_size --resolution=1024 --steps=3

A generator of config F and a ViT-B/32, randomly initialised, one latent.
"""

import functools
import resource
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from styleclip_jax import losses
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip, stylegan2
from styleclip_jax.models.network import Network

RESOLUTION = flags.DEFINE_integer("resolution", 1024, "Width of the image.")
STEPS = flags.DEFINE_integer("steps", 3, "Steps to time, after one of warm-up.")
REMAT = flags.DEFINE_bool("remat", False, "Recompute blocks in the backward pass.")


def random_network(module: Any, config: Any) -> Network:
    """A network with parameters drawn by NumPy, which compiles nothing."""
    random = np.random.RandomState(0)
    flat = {
        name: jnp.asarray(random.randn(*shape) / max(1, np.prod(shape[:-1])) ** 0.5)
        for name, shape in module.param_shapes(config).items()
    }
    tree = checkpoints.unflatten(flat)
    return Network(jax.tree.map(lambda x: x.astype(jnp.float32), tree), config)


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main(_: list[str]) -> None:
    """Prints one line per measurement."""
    levels = RESOLUTION.value.bit_length() - 2
    config = stylegan2.GeneratorConfig(
        resolution=RESOLUTION.value,
        channels=stylegan2.GeneratorConfig().channels[:levels],
        remat=REMAT.value,
    )
    networks = losses.Networks(
        random_network(stylegan2, config), random_network(clip, clip.ClipConfig())
    )
    print(f"networks: {peak_gigabytes():.1f} GB peak")
    problem = optimization.official(optimization.OptimizationConfig())
    latent = jax.random.normal(jax.random.key(1), (config.num_rows, config.w_dim))
    text = clip.normalize(jnp.ones(networks.clip.config.embed_dim))
    start = jax.jit(functools.partial(optimization.start, problem=problem))
    step = jax.jit(
        functools.partial(optimization.step, problem=problem), donate_argnums=1
    )
    state = jax.block_until_ready(start(networks, latent, text))
    began = time.perf_counter()
    state = jax.block_until_ready(step(networks, state))
    print(f"compile and first step: {time.perf_counter() - began:.1f} s")
    seconds = []
    for _ in range(STEPS.value):
        began = time.perf_counter()
        state = jax.block_until_ready(step(networks, state))
        seconds.append(time.perf_counter() - began)
    device = jax.devices()[0].device_kind
    print(
        f"{RESOLUTION.value}², batch 1, {device}, jax {jax.__version__}: "
        f"{np.median(seconds):.2f} s per step, {peak_gigabytes():.1f} GB peak"
    )


if __name__ == "__main__":
    app.run(main)
