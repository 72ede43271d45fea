"""Photo files: any common image file read as upright 8-bit RGB."""

import importlib.util
import pathlib
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

# Formats are named, since Pillow would hand other files to outside programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
_NAMES = "JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP, GIF or PPM"
_MIN_SIDE = 16

# First bytes of pictures, and why some are not read; AVIF and HEIC may be.
_CAMERA = "a raw photo of a camera; export it as JPEG or TIFF"
_KINDS = (
    (rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|II\*\0|MM\0\*|BM|GIF8|P[1-6]\s", None),
    (rb"....ftyp(avif|avis)", "AVIF"),
    (rb"....ftyp(hei.|hev.|mif1|msf1)", "HEIC"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture; export it as JPEG or PNG"),
    (rb"\0\0\0\x0cjP  ", "a JPEG 2000 picture; export it as JPEG or PNG"),
    (rb"8BPS", "a Photoshop document; export it as JPEG or PNG"),
    (rb"....ftypcrx|FUJIFILM|IIRO|IIU\0", _CAMERA),
    (rb"%!PS|%PDF|(<\?xml[^>]*>\s*)?<svg", "a drawing; export it as PNG"),
)
_NO_PICTURE = "no picture"
# Formats of Pillow that read kinds, and what to do where they are missing.
_PLUGINS = {"AVIF": "AVIF", "HEIC": "HEIF"}
_MISSING = {
    "AVIF": "AVIF, which needs pillow 11.3 or later",
    "HEIC": "HEIC, which needs pillow-heif: pip install 'styleclip-jax[heif]'",
}
_CAMERA_SUFFIXES = {".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".pef"}
# Files with these suffixes are pictures even if their content is damaged.
_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp"),
    *(".gif", ".ppm", ".pgm", ".mpo", ".avif", ".heic", ".heif", ".jxl", ".jp2"),
    *_CAMERA_SUFFIXES,
}

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


class Found(NamedTuple):
    """Files found among those that a user names.

    Attributes:
      photos: every picture once, also one that cannot be read.
      left_out: a line on each other file and folder in the folders.
    """

    photos: list[pathlib.Path]
    left_out: list[str]


def find(paths: Sequence[files.Path]) -> Found:
    """Finds the photos among files and folders.

    Args:
      paths: photos, which are taken whatever they are, and folders, which give the
        pictures in them, told by their content and sorted by name. A path with commas
        may be in pieces, as a list with commas has it.

    Returns:
      Photos in the order of the arguments, and what is none.

    Raises:
      UserError: a path does not exist, a folder holds no photo, or nothing is named.
    """
    if not paths:
        raise UserError("expected photos or folders of photos, found none")
    photos: list[pathlib.Path] = []
    left_out: list[str] = []
    for path in _rejoin(list(map(str, paths))):
        found = _find(path)
        photos += found.photos
        left_out += found.left_out
    return Found(list(dict.fromkeys(photos)), left_out)


def read(path: files.Path) -> np.ndarray:
    """Reads a photo, upright as its EXIF orientation says.

    Grey values are repeated, 16-bit values are scaled to 8, and transparent pixels are
    laid over white. The first frame of an animation counts. Colour profiles are
    ignored, as the official alignment does.

    Args:
      path: file in JPEG, PNG, WebP, TIFF, BMP, GIF or PPM; in AVIF where Pillow has
        it, and in HEIC with pillow-heif.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: the file is missing, unreadable, truncated, too small or too large.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: expected a photo, found {found}")
    kind = _kind(path)
    formats = [*_FORMATS, *_more_formats()]
    if kind not in (None, _NO_PICTURE) and _PLUGINS.get(kind) not in formats:
        raise UserError(f"{path}: expected {_NAMES}, found {_MISSING.get(kind, kind)}")
    try:
        with warnings.catch_warnings():
            # Pillow warns from half the size that it refuses, which cameras reach.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _read(path, formats)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too large a photo, scale it down ({error})") from None
    except UserError:
        # It is a ValueError as well, and says already what is wrong.
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(
            f"{path}: not a readable photo, expected {_NAMES} ({_line(error)})"
        ) from None


def _rejoin(parts: list[str]) -> list[pathlib.Path]:
    """Paths of parts between commas, where a path may have had commas itself."""
    found = []
    while parts:
        for count, comma in [(n, c) for n in range(1, len(parts) + 1) for c in ",\0"]:
            path = pathlib.Path(comma.replace("\0", ", ").join(parts[:count]))
            if path.exists():
                break
        else:
            raise UserError(
                f"{parts[0]}: no such photo or folder; a path with a comma needs "
                "double quotes of its own around it"
            )
        found.append(path)
        parts = parts[count:]
    return found


def _find(path: pathlib.Path) -> Found:
    if path.is_file():
        return Found([path], [])
    photos, left_out = [], []
    for file in sorted(path.iterdir()):
        # Names that begin with a dot, and these, are of the system.
        if file.name[0] == "." or file.name in ("Thumbs.db", "desktop.ini"):
            continue
        if file.is_dir():
            left_out.append(f"{file}: a folder in a folder; name it by itself")
        elif file.suffix.lower() in _SUFFIXES or _kind(file) != _NO_PICTURE:
            photos.append(file)
        else:
            left_out.append(f"{file}: {_NO_PICTURE}")
    if not photos:
        raise UserError(f"{path}: no photos in this folder ({_NAMES})")
    return Found(photos, left_out)


def _kind(path: pathlib.Path) -> str | None:
    """Kind of a picture by its first bytes, None for what Pillow always reads."""
    if path.suffix.lower() in _CAMERA_SUFFIXES:
        return _CAMERA
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        # Reading it will say why.
        return None
    for pattern, kind in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return kind
    return _NO_PICTURE


def _more_formats() -> list[str]:
    """Formats of Pillow that not every installation has."""
    found = ["AVIF"] if features.check("avif") else []
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
        found.append("HEIF")
    return found


def _read(path: pathlib.Path, formats: list[str]) -> np.ndarray:
    with Image.open(path, formats=formats) as image:
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
