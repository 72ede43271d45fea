"""Input of CLIP: images resized, and normalised as in its training or not."""

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import spaces
from styleclip_jax.models import clip
from styleclip_jax.ops import resampling

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def preprocess_styleclip(network: clip.Clip, image: spaces.Image) -> spaces.Square:
    """Input of CLIP as the losses of StyleCLIP make it: area average, nothing else.

    Parity: generated images go into CLIP in [-1, 1], without the scaling to [0, 1] and
    the mean and standard deviation that CLIP was trained with, and without clipping.

    Args:
      network: the CLIP; its configuration's image_size is S.
      image: [B, H, H, 3] float.

    Returns:
      [B, S, S, 3] float32; the image itself when H = S.

    Raises:
      ValueError: the image is not square.

    Source: criteria/clip_loss.py, nearest upsampling ×7, then average pooling H / 32.
    """
    _expect_image(image)
    size, out = image.shape[1], network.config.image_size
    if image.shape[2] != size:
        raise ValueError(f"expected square images, found {list(image.shape)}")
    image = image.astype(jnp.float32)
    if size == out:
        return image
    # Upsampling ×7 splits a pixel into 7 equal ones, and pooling over k of them
    # averages [j, j + 1)·k/7 of the source. With k = size/32 that is the area
    # [j, j + 1)·size/224 under output pixel j of 224. (For a size that is no multiple
    # of 32 the official code gives another size than 224, or drops a border.)
    matrix = resampling.area_matrix(size, out)
    return resampling.resize_columns(resampling.resize_rows(image, matrix), matrix)


def preprocess_clip(network: clip.Clip, image: spaces.Image) -> spaces.Square:
    """Input of CLIP as in its training, differentiable.

    `preprocess_clip_uint8` without its rounding: it differs by at most about one level
    of 8 bits. Clipped values, as in 8-bit images, have no gradient.

    Args:
      network: the CLIP; its configuration's image_size is S.
      image: [B, H, W, 3] float in [-1, 1].

    Returns:
      [B, S, S, 3] float32.

    Raises:
      ValueError: the image has another number of axes or channels.
    """
    _expect_image(image)
    rows, columns = _clip_matrices(image, network.config.image_size)
    x = jnp.clip(image.astype(jnp.float32), -1, 1)
    # Bicubic weights overshoot at edges, and PIL clips after each pass.
    x = jnp.clip(resampling.resize_columns(x, columns.astype(np.float32)), -1, 1)
    x = jnp.clip(resampling.resize_rows(x, rows.astype(np.float32)), -1, 1)
    return _standardize((x + 1) / 2)


def preprocess_clip_uint8(network: clip.Clip, image: spaces.Pixels) -> spaces.Square:
    """Input of CLIP from 8-bit images, bit for bit as PIL and torchvision make it.

    Args:
      network: the CLIP; its configuration's image_size is S.
      image: [B, H, W, 3] uint8, such as `pixels.to_uint8` gives.

    Returns:
      [B, S, S, 3] float32.

    Raises:
      ValueError: the image has another type, number of axes or channels.

    Source: clip.load's transform; PIL's resampling of 8-bit images.
    """
    _expect_image(image)
    if image.dtype != jnp.uint8:
        raise ValueError(f"expected uint8 images, found {image.dtype}")
    rows, columns = _clip_matrices(image, network.config.image_size)
    x = resampling.resize_uint8(image, rows, columns)
    return _standardize(x.astype(jnp.float32) / 255)


def _clip_matrices(image: jax.Array, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column matrices [out, H], [out, W]: shorter side to out, centre crop."""
    height, width = image.shape[1:3]
    short = min(height, width)

    def matrix(size: int) -> np.ndarray:
        resized = out * size // short
        start = round((resized - out) / 2)
        return resampling.bicubic_matrix(size, resized)[start : start + out]

    return matrix(height), matrix(width)


def _standardize(image: jax.Array) -> jax.Array:
    return (image - jnp.array(PIXEL_MEAN)) / jnp.array(PIXEL_STD)


def _expect_image(image: jax.Array) -> None:
    if image.ndim != 4 or image.shape[3] != 3:
        raise ValueError(f"expected images [B, H, W, 3], found {list(image.shape)}")
