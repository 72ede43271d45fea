"""Films: animated GIFs, and MP4 by the extra `film`."""

from typing import Any

import numpy as np
from PIL import Image

from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.ops import pixels

FORMATS = ("gif", "mp4")

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


def write_gif(path: files.Path, frames: np.ndarray, seconds: float = 3.0) -> None:
    """Writes frames [F, H, W, 3] in [-1, 1] as an animated GIF that loops."""
    pictures = [Image.fromarray(frame) for frame in pixels.to_uint8(frames)]
    with files.new_file(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=max(20, round(1000 * seconds / len(pictures))),
            loop=0,
        )


def write_mp4(path: files.Path, frames: np.ndarray, seconds: float = 3.0) -> None:
    """Writes frames [F, H, W, 3] in [-1, 1] as H.264, H and W even.

    Raises:
      UserError: the extra is not installed.
    """
    av = encoder()
    with (
        files.new_file(path) as temporary,
        av.open(str(temporary), "w", format="mp4") as container,
    ):
        rate = max(1, round(len(frames) / seconds))
        stream = container.add_stream("libx264", rate=rate, options=_QUALITY)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in pixels.to_uint8(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
