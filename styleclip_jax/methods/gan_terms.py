"""Terms of an adversarial loss: one value for each image, which the caller averages."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from styleclip_jax import spaces


def loss_of_fooling(logit: jax.Array) -> jax.Array:
    """Non-saturating loss [B] of a generator, of the logits [B] of its images.

    Source: Goodfellow et al. 2014, section 3: -log of the probability of being real.
    """
    return jax.nn.softplus(-logit)


def loss_on_fakes(logit: jax.Array) -> jax.Array:
    """Logistic loss [B] of a discriminator, of the logits [B] of generated images."""
    return jax.nn.softplus(logit)


def loss_on_reals(logit: jax.Array) -> jax.Array:
    """Logistic loss [B] of a discriminator, of the logits [B] of real images."""
    return jax.nn.softplus(-logit)


def squared_gradients(
    logits: Callable[[spaces.Image], jax.Array], image: spaces.Image
) -> tuple[jax.Array, jax.Array]:
    """Squared length of the gradient by each image of the sum of logits: R1.

    Args:
      logits: images → logits [B].
      image: [B, H, W, 3], real ones.

    Returns:
      ‖∂ Σ logits / ∂ image‖² [B], and the logits [B].

    Source: Mescheder et al. 2018, equation 9; its weight is γ/2.
    """
    logit, pull = jax.vjp(logits, image)
    (gradient,) = pull(jnp.ones_like(logit))
    return jnp.sum(gradient**2, axis=(1, 2, 3)), logit


def path_lengths(
    synthesize: Callable[[spaces.WPlus], spaces.Image],
    w_plus: spaces.WPlus,
    direction: spaces.Image,
) -> jax.Array:
    """Lengths ‖Jᵀ y‖ of generated images' change in random directions y.

    Args:
      synthesize: W+ → images [B, H, W, 3].
      w_plus: [B, L, D].
      direction: [B, H, W, 3], standard normal.

    Returns:
      [B], the root of the mean over rows of W+ of the sum over D of squares.

    Source: Karras et al. 2020, equation 4, y / √(H·W) by the official code.
    """
    image, pull = jax.vjp(synthesize, w_plus)
    scale = 1 / math.sqrt(math.prod(image.shape[1:3]))
    (gradient,) = pull(direction * scale)
    return jnp.sqrt(jnp.mean(jnp.sum(gradient**2, axis=2), axis=1))


def path_penalty(
    length: jax.Array,
    mean: jax.Array,
    *,
    decay: float,
    average: Callable[[Any], Any],
) -> tuple[jax.Array, jax.Array]:
    """Squared distances of path lengths to their running mean.

    Args:
      length: [B].
      mean: [], running mean before this batch.
      decay: share of this batch in the mean.
      average: value on this device → mean over devices.

    Returns:
      [B] penalties and the mean after this batch.

    Parity: the mean has this batch in it, and is differentiated through.
    """
    mean = mean + decay * (average(jnp.mean(length)) - mean)
    return (length - mean) ** 2, mean
