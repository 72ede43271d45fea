"""Batches of an adversarial training: real images, and draws of generated ones.

Draws are values, so that a step can be done again, here or by another program.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from styleclip_jax import spaces
from styleclip_jax.models import stylegan2
from styleclip_jax.models.stylegan2 import Generator, GeneratorConfig


class Reals(NamedTuple):
    """Batch of real images.

    Attributes:
      image: [B, H, W, 3] in [-1, 1].
      label: [B, c_dim] one-hot classes, None without classes.
      augment: what `augment` takes beside the images: a PRNG key, or draws.
    """

    image: spaces.Image
    label: jax.Array | None = None
    augment: Any = None


class Fakes(NamedTuple):
    """Draws of a batch of generated images.

    Attributes:
      z: [B, z_dim], standard normal.
      mixed_z: the same for rows of W+ from `cutoff` on, None for no mixing.
      cutoff: [B] or [], first row that `mixed_z` gives; the number of rows for none.
      noise: standard normal noise [B, h, w] of each layer, by its name.
      label: [B, c_dim] one-hot classes, None without classes.
      augment: what `augment` takes beside the images: a PRNG key, or draws.
    """

    z: spaces.Z
    mixed_z: spaces.Z | None
    cutoff: jax.Array
    noise: Mapping[str, jax.Array]
    label: jax.Array | None = None
    augment: Any = None


def draw_fakes(
    key: jax.Array,
    config: GeneratorConfig,
    count: int,
    *,
    style_mixing: float,
    label: jax.Array | None = None,
) -> Fakes:
    """Draws of a batch of generated images.

    Args:
      key: PRNG key.
      config: configuration of the generator.
      count: number B of images.
      style_mixing: probability of mixing, of the batch as a whole.
      label: [B, c_dim] one-hot classes.

    Source: stylegan2-ada-pytorch's style_mixing_prob; a cutoff is uniform from 1 on.
    """
    of_z, of_mixed, of_cutoff, of_choice, of_noise, augment = jax.random.split(key, 6)
    rows = config.num_rows
    cutoff = jax.random.randint(of_cutoff, (), 1, rows)
    mixes = jax.random.uniform(of_choice) < style_mixing
    shapes = config.noise_shapes
    keys = jax.random.split(of_noise, len(shapes))
    return Fakes(
        z=jax.random.normal(of_z, (count, config.z_dim)),
        mixed_z=jax.random.normal(of_mixed, (count, config.z_dim)),
        cutoff=jnp.full(count, jnp.where(mixes, cutoff, rows)),
        noise={
            name: jax.random.normal(key, (count, *shape))
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        },
        label=label,
        augment=augment,
    )


def map_fakes(generator: Generator, fakes: Fakes) -> tuple[spaces.WPlus, jax.Array]:
    """W+ of draws, mixed, and the mean w of their z before that, [w_dim]."""
    rows = generator.config.num_rows
    w = stylegan2.map_latents(generator, fakes.z, fakes.label)
    w_plus = spaces.broadcast_w(w, rows)
    if fakes.mixed_z is not None:
        mixed = stylegan2.map_latents(generator, fakes.mixed_z, fakes.label)
        late = jnp.arange(rows) >= jnp.broadcast_to(fakes.cutoff, len(w))[:, None]
        mixed = spaces.broadcast_w(mixed, rows)
        w_plus = jnp.where(late[:, :, None], mixed, w_plus)
    return w_plus, jnp.mean(w, axis=0)
