"""Photo files: any common image file read as upright 8-bit RGB."""

import contextlib
import importlib.util
import io
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Final, NamedTuple

import numpy as np
from PIL import Image, ImageCms, features

from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images, text_files
from styleclip_jax.progress import ignore

_NAMES = "JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP, GIF or PPM"
_MIN_SIDE = 16
# Rows at a time of what is computed in larger types.
_BAND = 256
# What a JPEG can be shrunk by while it is decoded.
_REDUCTIONS = (2, 4, 8)

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
# Number of bytes that tell kinds apart.
_HEAD = 64
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

# Suffix of a list of photos.
_LIST = ".txt"

# Largest colour profile: twice the usual ones of printers.
_MAX_PROFILE = 4 << 20
# Modes of images by the colours that a profile is for.
_PROFILED = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_SRGB: Final = "sRGB"

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
      paths: photos, which are taken whatever they are; folders, which give the
        pictures in them, told by their content and sorted by name; and text files with
        such a path in each line, from the current folder on. A path with commas may be
        in pieces, as a list with commas has it.

    Returns:
      Photos in the order of the arguments, and what is none. Those of a text file need
      not exist.

    Raises:
      UserError: a path does not exist, a folder or text file holds no photo, or nothing
        is named.
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


def read(
    path: files.Path,
    max_pixels: int = images.MAX_PIXELS,
    tell: Callable[[str], None] = ignore,
) -> np.ndarray:
    """Reads a photo in sRGB, upright as its EXIF orientation says.

    Grey values are repeated, 16-bit values are scaled to 8, and transparent pixels are
    laid over white. The first frame of an animation counts. Colours of 8 bits with
    another profile than sRGB are converted. A larger JPEG is shrunk while it is
    decoded, unless it is progressive, which takes memory for all of it.

    Args:
      path: file in JPEG, PNG, WebP, TIFF, BMP, GIF or PPM; in AVIF where Pillow has
        it, and in HEIC with pillow-heif.
      max_pixels: largest number of pixels.
      tell: takes a note on an animation, or on a profile that is damaged.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: the file is missing, unreadable, truncated, too small or too large.
    """
    with _opened(pathlib.Path(path), max_pixels) as image:
        reduction = _reduction(path, image, max_pixels)
        if reduction > 1:
            width, height = image.size
            image.draft("RGB", (width // reduction, height // reduction))
        # Several pictures of a camera's file are one photo.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            tell(f"{path}: the first of its pictures is taken")
        return _decode(image, lambda image: _to_srgb(image, path, tell))


def decode(content: bytes, name: str) -> np.ndarray:
    """Reads an image that is in memory, of any size, as `read` does.

    Parity: profiles are ignored, as the official tools for data sets do.

    Args:
      content: content of its file.
      name: what it is, for messages.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: it is no image, a damaged one, or one of very many pixels.
    """
    with _parsed(name, _kind_of(content), io.BytesIO(content)) as image:
        if image.width * image.height > images.MAX_PIXELS:
            raise images.too_large(name, image.size, images.MAX_PIXELS)
        return _decode(image, _to_rgb)


def size(content: IO[bytes], name: str) -> tuple[int, int]:
    """Width and height of an image by its head, before its orientation.

    Args:
      content: stream that holds it.
      name: what it is, for messages.

    Raises:
      UserError: it is no image.
    """
    head = content.read(_HEAD)
    content.seek(0)
    with _parsed(name, _kind_of(head), content) as image:
        return image.size


def reduction(path: files.Path, max_pixels: int = images.MAX_PIXELS) -> int:
    """Factor that `read` shrinks a photo by: 1 for all but very large ones.

    Raises:
      UserError: as `read`, as far as the head of the file tells.
    """
    with _opened(pathlib.Path(path), max_pixels) as image:
        return _reduction(path, image, max_pixels)


@contextlib.contextmanager
def _opened(path: pathlib.Path, most: int) -> Iterator[Image.Image]:
    """Yields a photo whose header alone is read; what goes wrong with it is a line."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: expected a photo, found {found}")
    with _parsed(path, _kind(path), path, most) as image:
        yield image


@contextlib.contextmanager
def _parsed(
    path: files.Path,
    kind: str | None,
    source: pathlib.Path | IO[bytes],
    most: int = images.MAX_PIXELS,
) -> Iterator[Image.Image]:
    """Yields the image of a file or stream, likewise.

    Args:
      path: its name, for messages.
      kind: of `_kind`.
      source: what to read.
      most: as of `images.opened`.
    """
    formats = [*images.READ_FORMATS, *_more_formats()]
    if kind not in (None, _NO_PICTURE) and _PLUGINS.get(kind) not in formats:
        raise UserError(f"{path}: expected {_NAMES}, found {_MISSING.get(kind, kind)}")
    try:
        with images.opened(source, formats, str(path), most) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too large a photo, scale it down ({error})") from None
    except UserError:
        # It says already what is wrong.
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds.
        raise UserError(
            f"{path}: not a readable photo, expected {_NAMES} ({_line(error)})"
        ) from None


def _reduction(path: files.Path, image: Image.Image, max_pixels: int) -> int:
    """Factor that keeps a photo within the limit; see `reduction`."""
    if min(image.size) < _MIN_SIDE:
        raise UserError(
            f"{path}: expected a photo of at least {_MIN_SIDE}×{_MIN_SIDE} pixels, "
            f"found {image.width}×{image.height}"
        )
    width, height = image.size
    if width * height <= max_pixels:
        return 1
    if image.format == "JPEG" and not image.info.get("progressive"):
        for factor in _REDUCTIONS:
            if -(-width // factor) * -(-height // factor) <= max_pixels:
                return factor
    raise images.too_large(path, image.size, max_pixels)


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
        return _listed(path) if path.suffix.lower() == _LIST else Found([path], [])
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


def _listed(path: pathlib.Path) -> Found:
    """Photos that a text file names, and those of the folders that it names."""
    found = Found([], [])
    for line in text_files.read(path, "photos").split("\n"):
        if not line.strip():
            continue
        one = pathlib.Path(line.removesuffix("\r"))
        more = _find(one) if one.is_dir() else Found([one], [])
        found.photos.extend(more.photos)
        found.left_out.extend(more.left_out)
    if not found.photos:
        raise UserError(f"{path}: expected photos, one a line, found none")
    return found


def _kind(path: pathlib.Path) -> str | None:
    """Kind of a picture by its first bytes, None for what Pillow always reads."""
    if path.suffix.lower() in _CAMERA_SUFFIXES:
        return _CAMERA
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        # Reading it will say why.
        return None
    return _kind_of(head)


def _kind_of(head: bytes) -> str | None:
    """Kind of a picture by its first bytes, likewise."""
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


def _decode(
    image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]
) -> np.ndarray:
    """Pixels of a photo, [H, W, 3] uint8, upright."""
    image.load()
    # The tag is read after loading: Pillow turns TIFF itself, and then drops it.
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    rgb = to_rgb(image)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _to_srgb(
    image: Image.Image, path: files.Path, tell: Callable[[str], None]
) -> Image.Image:
    """RGB image whose colours are those of sRGB."""
    content = image.info.get("icc_profile")
    if not content or image.mode == "F" or image.mode.startswith("I"):
        return _to_rgb(image)
    try:
        if len(content) > _MAX_PROFILE:
            raise ValueError(f"more than {_MAX_PROFILE >> 20} MB")
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        mode = _PROFILED.get(profile.profile.xcolor_space)
        if mode is None or _is_srgb(profile):
            return _to_rgb(image)
        colors = _to_rgb(image) if mode == "RGB" else image
        if colors.mode != mode:
            raise ValueError(f"it is for {mode}, and the pixels are {colors.mode}")
        found = ImageCms.profileToProfile(
            colors, profile, ImageCms.createProfile(_SRGB), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        tell(f"{path}: its colour profile is ignored ({_line(error)})")
        return _to_rgb(image)
    assert found is not None
    return found


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether a profile calls itself sRGB."""
    try:
        return (profile.profile.profile_description or "").startswith(_SRGB)
    except ValueError:
        # Its name is no text.
        return False


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    # In bands, since each step makes a copy with four channels.
    found = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        box = (0, top, image.width, min(top + _BAND, image.height))
        over = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        found.paste(Image.alpha_composite(white, over).convert("RGB"), box)
    return found


def _to_8_bits(gray: np.ndarray) -> np.ndarray:
    """Scales grey values of 16 bits, perhaps in a wider type, to 8."""
    low, high = gray.min(), gray.max()
    if gray.dtype.kind == "f" or low < 0 or high > 65535:
        raise ValueError(f"grey values from {low} to {high} instead of 8 or 16 bits")
    found = np.empty(gray.shape, np.uint8)
    for top in range(0, len(gray), _BAND):
        band = slice(top, top + _BAND)
        found[band] = np.rint(gray[band] / 257)
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
