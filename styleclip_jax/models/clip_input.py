"""Input of CLIP: images resized, and normalised as in its training or not."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import spaces
from styleclip_jax.models import clip
from styleclip_jax.ops import resampling


def preprocess_styleclip(network: clip.Clip, image: spaces.Image) -> Any:
    """Input of CLIP as the losses of StyleCLIP make it: area average, nothing else.

    Parity: generated images go into CLIP in [-1, 1], without the scaling to [0, 1] and
    the mean and standard deviation that CLIP was trained with, and without clipping.
    An image that is not square, which the official code cannot resize, stands between
    black bars, as cars do in what their generators learned from.

    Args:
      network: the CLIP; its configuration's image_size is S.
      image: [B, H, W, 3] float.

    Returns:
      [B, S, S, 3] float32; the image itself when H = W = S. A tuple of them for a joint
      CLIP.

    Source: criteria/clip_loss.py, nearest upsampling ×7, then average pooling H / 32.
    """
    _expect_image(image)
    image = _make_square(image.astype(jnp.float32))
    size = image.shape[1]

    def average(config: Any) -> jax.Array:
        out = config.image_size
        if size == out:
            return image
        # Upsampling ×7 splits a pixel into 7 equal ones, and pooling over k of them
        # averages [j, j + 1)·k/7 of the source. With k = size/32 that is the area
        # [j, j + 1)·size/224 under output pixel j of 224. (For a size that is no
        # multiple of 32 the official code gives another size than 224, or drops a
        # border.)
        matrix = resampling.area_matrix(size, out)
        return resampling.resize(image, matrix, matrix, config.precision)

    return _for_each(network, average)


def _make_square(image: jax.Array) -> jax.Array:
    """Images [B, N, N, 3] of [B, H, W, 3], N = max(H, W), with black bars."""
    size = max(image.shape[1:3])
    around = [((size - n) // 2, (size - n + 1) // 2) for n in image.shape[1:3]]
    if size == min(image.shape[1:3]):
        return image
    return jnp.pad(image, ((0, 0), *around, (0, 0)), constant_values=-1)


def preprocess_clip(network: clip.Clip, image: spaces.Image) -> Any:
    """Input of CLIP as in its training, differentiable.

    `preprocess_clip_uint8` without its rounding: it differs by at most about one level
    of 8 bits. Clipped values, as in 8-bit images, have no gradient. Of images that are
    not square OpenAI's CLIP sees the middle: what to do is in its preprocessing.

    Args:
      network: the CLIP; its configuration has image_size S and preprocessing.
      image: [B, H, W, 3] float in [-1, 1].

    Returns:
      [B, S, S, 3] float32. A tuple of them for a joint CLIP.

    Raises:
      ValueError: the image has another number of axes or channels.
    """
    _expect_image(image)
    clipped = jnp.clip(image.astype(jnp.float32), -1, 1)

    def resize(config: Any) -> jax.Array:
        rows, columns = _matrices(image, config)
        precision = config.precision
        # Bicubic weights overshoot at edges, and PIL clips after each pass.
        x = resampling.resize_columns(clipped, columns.astype(np.float32), precision)
        x = jnp.clip(x, -1, 1)
        x = resampling.resize_rows(x, rows.astype(np.float32), precision)
        return _standardize((jnp.clip(x, -1, 1) + 1) / 2, image, config)

    return _for_each(network, resize)


def preprocess_clip_uint8(network: clip.Clip, image: spaces.Pixels) -> Any:
    """Input of CLIP from 8-bit images, bit for bit as PIL and torchvision make it.

    Args:
      network: the CLIP; its configuration has image_size S and preprocessing.
      image: [B, H, W, 3] uint8, such as `pixels.to_uint8` gives.

    Returns:
      [B, S, S, 3] float32. A tuple of them for a joint CLIP.

    Raises:
      ValueError: the image has another type, number of axes or channels.

    Source: clip.load's transform; PIL's resampling of 8-bit images.
    """
    _expect_image(image)
    if image.dtype != jnp.uint8:
        raise ValueError(f"expected uint8 images, found {image.dtype}")

    def resize(config: Any) -> jax.Array:
        x = resampling.resize_uint8(image, *_matrices(image, config))
        return _standardize(x.astype(jnp.float32) / 255, image, config)

    return _for_each(network, resize)


def _for_each(network: clip.Clip, make: Callable[[Any], jax.Array]) -> Any:
    """Input that a function makes for a CLIP, or a tuple for each of a joint one."""
    if isinstance(network.config, clip.JointConfig):
        return tuple(make(config) for config in network.config.members)
    return make(network.config)


def _matrices(image: jax.Array, config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Row and column matrices [out, H], [out, W] of a resize to image_size."""
    found = [_matrix(image.shape[1:3], axis, config) for axis in (0, 1)]
    return found[0], found[1]


def _matrix(shape: tuple[int, ...], axis: int, config: Any) -> np.ndarray:
    """Matrix [out, size] of one axis; padded pixels have rows of zeros."""
    preprocessing, out = config.preprocessing, config.image_size
    filter_matrix = _FILTERS[preprocessing.interpolation]
    size = shape[axis]
    if preprocessing.resize_mode == "squash":
        return filter_matrix(size, out)
    if preprocessing.resize_mode == "longest":
        resized = round(out * size / max(shape))
        before = (out - resized) // 2
        matrix = np.zeros((out, size))
        matrix[before : before + resized] = filter_matrix(size, resized)
        return matrix
    resized = (preprocessing.resized or out) * size // min(shape)
    start = round((resized - out) / 2)
    return filter_matrix(size, resized)[start : start + out]


_FILTERS = {
    "bicubic": resampling.bicubic_matrix,
    "bilinear": resampling.bilinear_matrix,
}


def _standardize(x: jax.Array, image: jax.Array, config: Any) -> jax.Array:
    """Images in [0, 1] by the mean and deviation of the CLIP's training."""
    preprocessing = config.preprocessing
    if preprocessing.resize_mode == "longest":
        rows, columns = (matrix.any(axis=1) for matrix in _matrices(image, config))
        inside = np.outer(rows, columns)[..., None]
        x = jnp.where(inside, x, preprocessing.fill / 255)
    return (x - jnp.array(preprocessing.mean)) / jnp.array(preprocessing.std)


def _expect_image(image: jax.Array) -> None:
    if image.ndim != 4 or image.shape[3] != 3:
        raise ValueError(f"expected images [B, H, W, 3], found {list(image.shape)}")
