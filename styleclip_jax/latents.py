"""Latents: from seeds, from one space to another, and the spaces of edits."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import spaces
from styleclip_jax.models import stylegan2


def seeded_z(seed: int, z_dim: int) -> np.ndarray:
    """z [D] of a seed, the same as in stylegan2-ada-pytorch's `generate.py`."""
    return np.random.RandomState(seed).randn(z_dim).astype(np.float32)


def pack(latent: Any) -> jax.Array:
    """Latents as files hold them: W+ as it is, S flat."""
    return spaces.flatten_styles(latent) if isinstance(latent, tuple) else latent


@functools.partial(jax.jit, static_argnames=("space", "cutoff", "to"))
def convert(
    generator: stylegan2.Generator,
    batch: Any,
    *,
    space: str,
    truncation_psi: float,
    cutoff: int | None,
    to: str,
    label: jax.Array | None = None,
) -> Any:
    """A batch from the space of the source to "w_plus" or "s".

    W+ and S stay as they are, z and w are truncated on the way. `label` [c_dim] is the
    class of all.
    """
    if space == "z":
        if label is not None:
            label = jnp.broadcast_to(label, (len(batch), *label.shape))
        batch = stylegan2.map_latents(generator, batch, label)
    if space in ("z", "w"):
        w_plus = spaces.broadcast_w(batch, generator.config.num_rows)
        w_avg = generator.params["mapping"]["w_avg"]
        batch = spaces.truncate(w_plus, w_avg, truncation_psi, cutoff)
    if to == "s" and space != "s":
        batch = stylegan2.to_styles(generator, batch)
    return batch


class Space(NamedTuple):
    """Where the optimization moves.

    Attributes:
      synthesize: (generator, latents) → images [B, H, W, 3].
      movable: (generator) → per leaf of a latent, whether it may move.
    """

    synthesize: Callable[[stylegan2.Generator, Any], jax.Array]
    movable: Callable[[stylegan2.Generator], Any]


SPACES = {
    "w_plus": Space(
        synthesize=stylegan2.synthesize,
        movable=lambda generator: True,
    ),
    # Parity: the toRGB vectors stay, as in the official code.
    "s": Space(
        synthesize=stylegan2.synthesize_styles,
        movable=lambda generator: tuple(
            not layer.is_torgb for layer in generator.config.style_layout
        ),
    ),
}


@jax.jit
def render(generator: stylegan2.Generator, latent: Any) -> jax.Array:
    """Images [B, H, W, 3] of W+ [B, L, D], or of a tuple of styles [B, C]; jitted."""
    space = "s" if isinstance(latent, tuple) else "w_plus"
    return SPACES[space].synthesize(generator, latent)
