"""Pixels: images of 8 bits out of float ones in [-1, 1], and back."""

from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

# Array of NumPy or of JAX, as the argument is.
Array = TypeVar("Array", np.ndarray, jax.Array)
Rounding = Literal["nearest", "torch", "tf"]

# Largest pixel that a generator may draw; those of edits that are strong beyond reason
# are some 20.
_REACH = 100


def to_uint8(image: Array, *, rounding: Rounding = "nearest") -> Array:
    """8-bit image of one in [-1, 1]; one of 8 bits stays as it is.

    Parity: before CLIP sees an image of 8 bits, official codes cut digits off.
    TensorFlow's code adds half a level before, torch's does not, so its images are
    darker by half a level on average.

    Args:
      image: float, any shape; values outside [-1, 1] are clipped, and those that are
        not numbers become black.
      rounding: "nearest" for round((x + 1) · 127.5), "torch" for
        floor((x + 1) · 127.5), "tf" for floor(x · 127.5 + 128).

    Returns:
      uint8, same shape, of NumPy or JAX as the image is.

    Raises:
      ValueError: another rounding.

    Source: nearest is torchvision's `save_image` with range (-1, 1), as the official
    scripts use it; torch and tf are those of the official measures of relevance.
    """
    if rounding not in ("nearest", "torch", "tf"):
        raise ValueError(f"rounding must be nearest, torch or tf, found {rounding!r}")
    if image.dtype == np.uint8:
        return image
    xp = image.__array_namespace__()
    x = image * 127.5 + 128 if rounding == "tf" else (image + 1) * 127.5
    if rounding == "nearest":
        x = xp.rint(x)
    # Unlike `clip`, these two take the number of a pair with one that is none.
    return xp.fmin(xp.fmax(x, 0), 255).astype(np.uint8)


def is_drawn(image: Array) -> Array:
    """Whether each image is finite and in reach of a generator, bool without the axes.

    Latents far outside of what a generator knows make images whose pixels grow with
    them; what is measured of these says nothing.

    Args:
      image: [..., H, W, 3] float, in [-1, 1] but for what generators overshoot.

    Returns:
      [...] bool: all pixels are in [-100, 100].
    """
    found: Any = abs(image) <= _REACH
    return found.all(axis=(-3, -2, -1))


def to_float(image: Array) -> Array:
    """float32 image in [-1, 1] of one of 8 bits, of any shape."""
    return image.astype(np.float32) / 127.5 - 1


def mean_levels(image: jax.Array, other: jax.Array) -> jax.Array:
    """Mean absolute difference [B] of images [B, H, W, 3] as 8-bit ones, 0 to 255."""
    a, b = (to_uint8(x).astype(jnp.int32) for x in (image, other))
    # Whole numbers, so that their sum is exact up to 2048².
    total = jnp.sum(jnp.abs(a - b).astype(jnp.uint32), (1, 2, 3))
    return total / np.prod(image.shape[1:])
