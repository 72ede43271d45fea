"""Crops of the faces that were found in photos, cut out as in FFHQ."""

from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from styleclip_jax import spaces
from styleclip_jax.io import images
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align, photo_files
from styleclip_jax.spaces import Size


class Crops(NamedTuple):
    """Crops: faces cut out of their photos.

    Attributes:
      target: [B, H, W, 3] in [-1, 1], as large as the generator's images.
      encoded: [B, S, S, 3] in [-1, 1], S the encoder's input size, or [B, H, W, 3];
        None without one.
    """

    target: Any
    encoded: Any


def crop(
    faces: list[dict[str, Any]],
    *,
    resolution: Size,
    encoded_size: Size | None,
    is_aligned: bool,
) -> Crops:
    """Cuts out the faces that a `finding.Finder` found, float32 [B, …]; see `cut`."""
    crops = []
    for face in faces:
        quad = None if is_aligned else np.array(face["quad"])
        photo = read(face)
        crops.append(cut(photo, quad, resolution=resolution, encoded_size=encoded_size))
    return jax.tree.map(lambda *one: np.stack(one), *crops)


def nothing(*, resolution: Size, encoded_size: Size | None) -> Crops:
    """Crops of NaN, without the batch axis, in place of a face that is not there."""

    def empty(size: Size) -> np.ndarray:
        height, width = spaces.shape_of(size)
        return np.full((height, width, 3), np.nan, np.float32)

    return Crops(empty(resolution), empty(encoded_size) if encoded_size else None)


def read(face: dict[str, Any]) -> np.ndarray:
    """Photo [H, W, 3] uint8 of a face, in the size in which it was found.

    Raises:
      UserError: the photo cannot be read.
    """
    return photo_files.read(face["file"], face.get("max_pixels", images.MAX_PIXELS))


def cut(
    photo: np.ndarray,
    quad: np.ndarray | None,
    *,
    resolution: Size,
    encoded_size: Size | None,
) -> Crops:
    """Cuts one face out of a photo.

    Parity: encoders get what the official e4e makes: the crop of its own alignment,
    without supersampling, or the whole photo by bilinear resizing. Cars, of which it
    takes 192×256, stand between black bars in what their generators make.

    Args:
      photo: [H, W, 3] uint8.
      quad: [4, 2] square of the face; None for the whole photo.
      resolution: size of the generator's images.
      encoded_size: input size of the encoder; None without one.

    Returns:
      Crops without the batch axis.
    """
    if quad is None:
        height, width = spaces.shape_of(resolution)
        top = 0
        if isinstance(encoded_size, tuple):
            rows, columns = encoded_size
            top = max(0, height - width * rows // columns) // 2
        target = np.zeros((height, width, 3), np.uint8)
        target[top : height - top] = resize(
            photo, (height - 2 * top, width), Image.Resampling.LANCZOS
        )
    elif isinstance(resolution, tuple):
        raise ValueError(f"quad: expected none with {resolution}, found one")
    else:
        target = align.crop(photo, quad, resolution)
    if not encoded_size:
        return Crops(pixels.to_float(target), None)
    if quad is None:
        encoded = resize(photo, encoded_size, Image.Resampling.BILINEAR)
    elif isinstance(encoded_size, tuple):
        raise ValueError(f"quad: expected none with {encoded_size}, found one")
    else:
        encoded = align.crop(photo, quad, encoded_size, supersampling=1)
    return Crops(pixels.to_float(target), pixels.to_float(encoded))


def resize(photo: np.ndarray, size: Size, filter_: Image.Resampling) -> np.ndarray:
    """Resizes a photo [H, W, 3] uint8 to [size, size, 3] uint8, or to height, width."""
    height, width = spaces.shape_of(size)
    return np.asarray(Image.fromarray(photo).resize((width, height), filter_))
