"""Films: animated GIFs, and MP4 by the extra `film`."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image

from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.ops import pixels

# Constant quality of H.264; lower is better.
_QUALITY = {"crf": "18"}


def encoder() -> Any:
    """Package that writes MP4.

    Raises:
      UserError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError(
            "film_format: mp4 needs an extra, expected after "
            'pip install "styleclip-jax[film]"',
            field="film_format",
        ) from None
    return av


def require(format_: str) -> None:
    """Refuses a format of `FORMATS` that needs an extra which is not installed.

    Raises:
      UserError: it needs one.
    """
    if format_ == "mp4":
        encoder()


def write_gif(path: files.Path, frames: Iterable[np.ndarray], rate: float) -> None:
    """Writes frames [H, W, 3] in [-1, 1] or of 8 bits as an animated GIF that loops.

    Args:
      path: file to make.
      frames: the frames; what they become is in memory until all are there, so that
        long films are better MP4.
      rate: frames per second, at most 50.
    """
    pictures = (Image.fromarray(pixels.to_uint8(frame)) for frame in frames)
    with files.new_file(path) as temporary:
        next(pictures).save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures,
            duration=max(20, round(1000 / rate)),
            loop=0,
        )


def write_mp4(path: files.Path, frames: Iterable[np.ndarray], rate: float) -> None:
    """Writes frames [H, W, 3] in [-1, 1] or of 8 bits as H.264, H and W even.

    Args:
      path: file to make.
      frames: the frames, of which a few are in memory at a time.
      rate: frames per second.

    Raises:
      UserError: the extra is not installed.
    """
    av = encoder()
    with (
        files.new_file(path) as temporary,
        av.open(str(temporary), "w", format="mp4") as container,
    ):
        stream = container.add_stream(
            "libx264", rate=max(1, round(rate)), options=_QUALITY
        )
        for i, frame in enumerate(frames):
            if not i:
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
            picture = av.VideoFrame.from_ndarray(pixels.to_uint8(frame), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


# Function (path, frames, rate) of each format.
FORMATS: dict[str, Callable[[files.Path, Iterable[np.ndarray], float], None]] = {
    "gif": write_gif,
    "mp4": write_mp4,
}
