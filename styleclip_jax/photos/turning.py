"""Images of turned faces: generated as they lie in a photo, and laid over warped crops.

Coordinates are (x, y) in pixels, of which pixel i covers [i, i + 1].
"""

from collections.abc import Callable

import numpy as np
from PIL import Image


def transform(quad: np.ndarray) -> np.ndarray | None:
    """Transform under which a generator shows a face as it lies in its photo.

    The image is then that of the upright square of the same centre and side.

    Args:
      quad: [4, 2] square of the crop, from `align.quad`.

    Returns:
      [3, 3] float32, see `generators.with_transform`; None for a crop that is upright,
      or no square.
    """
    right, down = quad[3] - quad[0], quad[1] - quad[0]
    found = np.eye(3, dtype=np.float32)
    found[:2, :2] = np.stack([right, down]) / np.hypot(*right)
    is_turned = not np.allclose(found, np.eye(3))
    is_square = np.allclose(down, (-right[1], right[0]))
    return found if is_turned and is_square else None


def lay_over(
    warped: np.ndarray, turned: np.ndarray, corners: np.ndarray, feather: float
) -> None:
    """Lays an image of an upright square over a warped crop, fading to its sides.

    It is scaled once, where a warp scales and then interpolates between pixels.

    Args:
      warped: [H, W, 3] float32 part of the photo, which is changed in place.
      turned: [S, S, 3] uint8 image under the transform of the crop's square.
      corners: [4, 2] corners of that square in the part.
      feather: width of the fading rim, as a part of the side.
    """
    side = np.hypot(*(corners[3] - corners[0]))
    start = corners.mean(0) - side / 2
    # Whole pixels of the square in the part; none where a tiny one leaves the photo.
    low = np.ceil(np.maximum(start, 0)).astype(int)
    high = np.floor(np.minimum(start + side, warped.shape[1::-1])).astype(int)
    if not (low < high).all():
        return
    box = np.concatenate([low - start, high - start]) * (len(turned) / side)
    lanczos = Image.Resampling.LANCZOS
    scaled = each_channel(
        turned, lambda channel: channel.resize(tuple(high - low), lanczos, tuple(box))
    )
    part = warped[low[1] : high[1], low[0] : high[0]]
    y, x = (np.indices(part.shape[:2]) + 0.5 + (low - start)[::-1, None, None]) / side
    weight = rim(x, feather) * rim(y, feather)
    part += weight[..., None] * (scaled - part)


def each_channel(
    image: np.ndarray, change: Callable[[Image.Image], Image.Image]
) -> np.ndarray:
    """An image [H, W, C] whose channels are changed in float32, [H', W', C].

    Pillow drops fractions where it warps or scales images of 8 bits.
    """
    channels = np.moveaxis(image.astype(np.float32), -1, 0)
    return np.stack([np.asarray(change(Image.fromarray(x))) for x in channels], -1)


def rim(t: np.ndarray, feather: float) -> np.ndarray:
    """Weight over a square's side, t in [0, 1]: 0 at both ends, 1 from the rim on."""
    return fade(np.minimum(t, 1 - t) / feather)


def fade(t: np.ndarray) -> np.ndarray:
    """Fade: 0 below 0, 1 above 1, and smooth between."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
