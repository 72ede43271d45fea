"""Variants of the methods, a page each (docs/variants.md), and what they share."""

import jax

from styleclip_jax import latents, spaces
from styleclip_jax.methods import global_directions, optimization
from styleclip_jax.models import stylegan2


def sample_latents(generator, count):
    """Random W+ latents [count, L, D], truncated to 0.7."""
    config = generator.config
    z = jax.random.normal(jax.random.key(0), (count, config.z_dim))
    w_plus = spaces.broadcast_w(stylegan2.map_latents(generator, z), config.num_rows)
    return spaces.truncate(w_plus, generator.params["mapping"]["w_avg"], 0.7)


def sample_styles(generator, count):
    """Styles of `sample_latents`, a tuple of [count, C]."""
    w_plus = sample_latents(generator, count)
    return stylegan2.to_styles(generator, w_plus)


def optimize(problem, networks, latents, text):
    """`optimization.optimize` for a batch, with its loop on the host."""
    compiled = optimization.compiled(problem, sharding=None)
    state = compiled.start(networks, latents, text)
    for _ in range(problem.steps):
        state = compiled.step(networks, state)
    return compiled.finish(networks, state)


@jax.jit
def render(generator, styles, direction):
    """Images of styles, a tuple of [B, C], moved by a direction."""
    edited = global_directions.edit(styles, direction, 1.0)
    return latents.SPACES["s"].synthesize(generator, edited)
