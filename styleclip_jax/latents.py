"""Latents: from seeds, from one space to another, and as images.

`convert` goes down the chain z → w → W+ → S; nothing goes back up. `SPACES` holds the
two spaces that edits move in, W+ and S.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import spaces
from styleclip_jax.models import generators


def seeded_z(seed: int, z_dim: int) -> np.ndarray:
    """z [D] float32 of a seed, that of stylegan2-ada-pytorch's `generate.py`."""
    return seeded_batch([seed], z_dim)[0]


def seeded_batch(seeds: Iterable[int], z_dim: int) -> np.ndarray:
    """z [B, D] float32 of some seeds, each as of `seeded_z`."""
    # Seeding one generator anew takes a tenth of the time of making another.
    random, found = np.random.RandomState(), []
    for seed in seeds:
        random.seed(seed)
        found.append(random.randn(z_dim))
    return np.array(found, np.float32)


def pack(latent: Any) -> jax.Array:
    """Latents as files hold them: W+ [B, L, D] as it is, S flat [B, S]."""
    return spaces.flatten_styles(latent) if isinstance(latent, tuple) else latent


def flatten(latent: Any) -> jax.Array:
    """Latents, or steps of them, [B, L, D] or a tuple of [B, C], as vectors [B, F]."""
    packed = pack(latent)
    return packed.reshape(len(packed), -1)


@jax.jit
def take(arrays: Any, rows: Any) -> Any:
    """Rows of each array of a tree, by one program."""
    return jax.tree.map(lambda x: x[rows], arrays)


@functools.partial(jax.jit, static_argnames=("space", "cutoff", "to"))
def convert(
    generator: generators.Generator,
    batch: Any,
    *,
    space: str,
    truncation_psi: float | jax.Array,
    cutoff: int | None,
    to: str,
    label: jax.Array | None = None,
) -> Any:
    """Latents of any space in W+ or in S; z and w are truncated on the way.

    Args:
      generator: the generator.
      batch: [B, D] z or w, [B, L, D] W+, or a tuple of [B, C] styles.
      space: space of the batch: z, w, w_plus or s.
      truncation_psi: truncation of z and w, one for all or [B, 1, 1]; W+ and S stay
        as they are.
      cutoff: number of leading rows to truncate, None for all.
      to: space of the result: w_plus or s. There is no way from s to w_plus: S stays.
      label: [c_dim] class of all, for z of a class-conditional generator.

    Returns:
      [B, L, D] W+, or a tuple of [B, C] styles.
    """
    if space == "z":
        if label is not None:
            label = jnp.broadcast_to(label, (len(batch), *label.shape))
        batch = generators.map_latents(generator, batch, label)
    if space in ("z", "w"):
        w_plus = spaces.broadcast_w(batch, generator.config.num_rows)
        w_avg = generator.params["mapping"]["w_avg"]
        batch = spaces.truncate(w_plus, w_avg, truncation_psi, cutoff)
    if to == "s" and space != "s":
        batch = generators.to_styles(generator, batch)
    return batch


class Space(NamedTuple):
    """Space that edits move in: the way from its latents to images, and what may move.

    Attributes:
      synthesize: (generator, latents) → images [B, H, W, 3].
      movable: (generator) → for each leaf of a latent, whether it may move.
    """

    synthesize: Callable[[generators.Generator, Any], spaces.Image]
    movable: Callable[[generators.Generator], Any]


SPACES = {
    "w_plus": Space(generators.synthesize, movable=lambda generator: True),
    # Parity: the toRGB vectors stay, as in the official code.
    "s": Space(
        generators.synthesize_styles,
        movable=lambda generator: tuple(
            layer.moves for layer in generator.config.style_layout
        ),
    ),
}


@jax.jit
def render(generator: generators.Generator, latent: Any) -> spaces.Image:
    """Images [B, H, W, 3] of W+ [B, L, D], or of a tuple of styles [B, C]; jitted."""
    space = "s" if isinstance(latent, tuple) else "w_plus"
    return SPACES[space].synthesize(generator, latent)
