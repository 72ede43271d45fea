"""Photo files: any common image file read as upright 8-bit RGB."""

import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

# Formats are named, since Pillow would hand other files to outside programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm")
_MIN_SIDE = 16

# Orientation tag of EXIF, and the turn that makes a photo with each value upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find(paths: Sequence[files.Path]) -> list[pathlib.Path]:
    """Finds the photos among files and folders.

    Args:
      paths: photos, which are taken whatever their suffix, and folders, which give
        the files in them with the suffix of an image, sorted by name.

    Returns:
      Each photo once, in the order of the arguments.

    Raises:
      UserError: a path does not exist, a folder holds no photo, or nothing is named.
    """
    if not paths:
        raise UserError("expected photos or folders of photos, found none")
    return list(dict.fromkeys(p for path in paths for p in _find(pathlib.Path(path))))


def read(path: files.Path) -> np.ndarray:
    """Reads a photo, upright as its EXIF orientation says.

    Grey values are repeated, 16-bit values are scaled to 8, and transparent pixels are
    laid over white. The first frame of an animation counts. Colour profiles are
    ignored, as the official alignment does.

    Args:
      path: file in JPEG, PNG, WebP, TIFF, BMP, GIF or PPM.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: the file is missing, unreadable, truncated, too small or too large.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: expected a photo, found {found}")
    try:
        with warnings.catch_warnings():
            # Pillow warns from half the size that it refuses, which cameras reach.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _read(path)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too large a photo, scale it down ({error})") from None
    except UserError:
        # It is a ValueError as well, and says already what is wrong.
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(
            f"{path}: not a readable photo, expected JPEG, PNG, WebP, TIFF, BMP, GIF "
            f"or PPM ({_line(error)})"
        ) from None


def _find(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such photo or folder")
    photos = sorted(
        p
        for p in path.iterdir()
        if p.suffix.lower() in _SUFFIXES and p.is_file() and p.name[0] != "."
    )
    if not photos:
        raise UserError(f"{path}: no photos in this folder ({', '.join(_SUFFIXES)})")
    return photos


def _read(path: pathlib.Path) -> np.ndarray:
    with Image.open(path, formats=_FORMATS) as image:
        if min(image.size) < _MIN_SIDE:
            raise UserError(
                f"{path}: expected a photo of at least {_MIN_SIDE}×{_MIN_SIDE} pixels, "
                f"found {image.width}×{image.height}"
            )
        image.load()
        # The tag is read after loading: Pillow turns TIFF itself, and then drops it.
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
        rgb = _to_rgb(image)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(gray: np.ndarray) -> np.ndarray:
    """Scales grey values of 16 bits, perhaps in a wider type, to 8."""
    low, high = gray.min(), gray.max()
    if gray.dtype.kind == "f" or low < 0 or high > 65535:
        raise ValueError(f"grey values from {low} to {high} instead of 8 or 16 bits")
    return np.rint(gray / 257).astype(np.uint8)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
