"""Images in files, and captioned sheets of them."""

import bisect
import contextlib
import io
import logging
import math
import os
import pathlib
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from PIL import Image, ImageDraw

from styleclip_jax.errors import UserError
from styleclip_jax.io import files, fonts
from styleclip_jax.ops import pixels
from styleclip_jax.settings.output import PNG_LEVEL
from styleclip_jax.settings.photos import MAX_PIXELS

# Formats that are read: named, since Pillow would hand other files to outside programs
# (EPS).
READ_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")

# Pixels of a JPEG that is encoded in less time than a file of the system is made.
_SMALL_JPEG = 64 * 64

# Pillow logs some of what is wrong with a file, which the error says already; where
# nobody listens, Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# A row of a sheet: images, and texts where there is none.
Cells = np.ndarray | Sequence[np.ndarray | str]

# First bytes of a PNG.
_PNG = b"\x89PNG\r\n\x1a\n"
_MARGIN = 8
# Bytes with the size of a WebP, and the bits of a width or height.
_HEAD, _VP8 = 30, (1 << 14) - 1
# Lines of a caption.
_MAX_LINES = 4
_TEXT = (40, 40, 40)
_BACKGROUND = (255, 255, 255)


def write(path: files.Path, image: np.ndarray, *, png_level: int = PNG_LEVEL) -> None:
    """Writes one image [H, W, 3] in [-1, 1] or uint8, in the format of the suffix.

    `.npy` keeps the float32 values, for exact work.

    Args:
      path: file to make.
      image: the image.
      png_level: compression of a PNG, from 0 for none to 9.

    Raises:
      UserError: the file cannot be written, as for want of space.
    """
    content = encode(image, pathlib.Path(path).suffix, png_level=png_level)
    files.write_bytes(path, content)


def read(path: files.Path) -> np.ndarray:
    """Image [H, W, 3] uint8 of a file in one of `READ_FORMATS`.

    Raises:
      UserError: the file is none, or a very large one.
    """
    try:
        with opened(path, READ_FORMATS, str(path)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise too_large(path, image.size, MAX_PIXELS)
            return np.asarray(image.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds.
        raise UserError(f"{path}: expected an image ({error})") from None


@contextlib.contextmanager
def opened(
    source: files.Path | IO[bytes],
    formats: Sequence[str],
    name: str,
    most: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
    """Yields an image of which only the header is read, whatever its size.

    Pillow refuses very large ones itself, but WebPs after it has made room for them.

    Args:
      source: what to read.
      formats: formats of Pillow that it may have.
      name: its name, for messages.
      most: largest number of pixels of a WebP.

    Raises:
      UserError: it is a larger WebP.
    """
    size = _webp_size(_head(source))
    if size is not None and size[0] * size[1] > most:
        raise too_large(name, size, most)
    with warnings.catch_warnings():
        # Pillow warns from half the size that it refuses, which cameras reach, and of
        # metadata that nobody needs here.
        warnings.simplefilter("ignore")
        with Image.open(source, formats=list(formats)) as image:
            yield image


def _head(source: files.Path | IO[bytes]) -> bytes:
    if not isinstance(source, str | os.PathLike):
        head = source.read(_HEAD)
        source.seek(0)
        return head
    with open(source, "rb") as file:
        return file.read(_HEAD)


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP claims, None for other files; see RFC 9649."""
    if len(head) < _HEAD or (head[:4], head[8:12]) != (b"RIFF", b"WEBP"):
        return None

    def number(start: int, count: int) -> int:
        return int.from_bytes(head[start : start + count], "little")

    match head[12:16]:
        case b"VP8X":
            return number(24, 3) + 1, number(27, 3) + 1
        case b"VP8L":
            bits = number(21, 4)
            return (bits & _VP8) + 1, (bits >> 14 & _VP8) + 1
        case b"VP8 ":
            return number(26, 2) & _VP8, number(28, 2) & _VP8
    return None


def too_large(path: files.Path, size: tuple[int, int], most: int) -> UserError:
    """Line on an image of more pixels than are read."""
    width, height = size
    return UserError(
        f"{path}: expected at most {most:,} pixels, found {width}×{height}; scale it "
        "down, or give more max_pixels",
        also=["max_pixels"],
    )


def encode(image: np.ndarray, suffix: str, *, png_level: int = PNG_LEVEL) -> bytes:
    """Content of the file of one image, as in `write`.

    Threads encode side by side: Pillow lets the interpreter's lock go for a PNG, but
    for a JPEG only while it writes into a file that the system knows. A small JPEG
    takes less time than such a file.

    Raises:
      UserError: there is no space for the file.
    """
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = io.BytesIO()
        if suffix == ".npy":
            np.save(file, image.astype(np.float32))
        else:
            if suffix == ".jpg" and image.shape[0] * image.shape[1] > _SMALL_JPEG:
                file = stack.enter_context(files.scratch())
            kind = Image.registered_extensions()[suffix]
            Image.fromarray(pixels.to_uint8(image)).save(
                file, kind, quality=95, compress_level=png_level
            )
        file.seek(0)
        return file.read()


def is_whole(content: bytes, suffix: str) -> bool:
    """Whether the content of an image file that `encode` made is undamaged.

    A PNG has checksums; of a JPEG both ends are looked at, as it has none.
    """
    if suffix == ".jpg":
        return content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9")
    start, kind = len(_PNG), b""
    if not content.startswith(_PNG):
        return False
    while kind != b"IEND":
        size = int.from_bytes(content[start : start + 4], "big")
        stop = start + 8 + size
        kind, told = content[start + 4 : start + 8], content[stop : stop + 4]
        if (
            len(told) < 4
            or zlib.crc32(content[start + 4 : stop]).to_bytes(4, "big") != told
        ):
            return False
        start = stop + 4
    return start == len(content)


def grid(
    rows: Sequence[Cells],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    cell: int | None = None,
) -> Image.Image:
    """Sheet of images with captions, wrapped so that none meets another.

    Args:
      rows: for each row an array [N, H, W, 3] in [-1, 1], or a list of images
        [H, W, 3] and of texts that stand where there is no image.
      row_labels: caption left of each row.
      column_labels: caption above each column.
      title: caption of the sheet.
      cell: width of an image on the sheet; None keeps it between 128 and 256. Its
        height is in proportion, by the first image.

    Returns:
      An RGB image.
    """
    first = next(x for row in rows for x in row if not isinstance(x, str))
    cell = cell or min(max(first.shape[1], 128), 256)
    high = round(cell * first.shape[0] / first.shape[1])
    captions = fonts.Captions(max(12, cell // 9))
    line, step = max(12, cell // 9) * 4 // 3, cell + _MARGIN
    beside = [_wrap(label, captions, 3 * cell // 2) for label in row_labels]
    above = [_wrap(label, captions, cell - _MARGIN // 2) for label in column_labels]
    room = (math.ceil(captions.length(text)) for label in beside for text in label)
    left = max(room, default=-_MARGIN) + 2 * _MARGIN
    width = left + max(map(len, rows)) * step
    head = _wrap(title, captions, width - 2 * _MARGIN)
    top = _MARGIN + line * (len(head) + max(map(len, above), default=0))
    bottom = top + len(rows) * (high + _MARGIN)
    sheet = Image.new("RGB", (width, bottom), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)

    def write_lines(lines: list[str], x: int, y: int, anchor: str) -> None:
        for i, text in enumerate(lines):
            place = (x, y + i * line)
            captions.draw(draw, place, text, _TEXT, anchor=anchor)

    write_lines(head, _MARGIN, _MARGIN // 2, "la")
    for j, lines in enumerate(above):
        y = top - _MARGIN // 2 - len(lines) * line
        write_lines(lines, left + j * step + cell // 2, y, "ma")
    for i, row in enumerate(rows):
        y = top + i * (high + _MARGIN)
        if row_labels:
            middle = y + (high - len(beside[i]) * line) // 2
            write_lines(beside[i], _MARGIN, middle, "la")
        for j, image in enumerate(row):
            x = left + j * step
            if isinstance(image, str):
                lines = _wrap(image, captions, cell)
                middle = y + (high - len(lines) * line) // 2
                write_lines(lines, x + cell // 2, middle, "ma")
            else:
                sheet.paste(_fit(image, (cell, high)), (x, y))
    return sheet


def save_sheet(path: files.Path, sheet: Image.Image) -> pathlib.Path:
    """Writes a sheet in the format of the suffix."""
    with files.new_file(path) as temporary:
        sheet.save(temporary, quality=90)
    return pathlib.Path(path)


def _wrap(text: str, captions: fonts.Captions, width: int) -> list[str]:
    """Lines no wider than `width`, a few at most; what does not fit ends in "…"."""
    lines: list[str] = []
    for part in captions.spell(text).splitlines():
        line = ""
        for word in part.split():
            longer = f"{line} {word}" if line else word
            if line and captions.length(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], " ".join(lines[_MAX_LINES - 1 :])]
    return [_shorten(line, captions, width) for line in lines]


def _shorten(text: str, captions: fonts.Captions, width: int) -> str:
    """As much of a line as fits."""
    if captions.length(text) <= width:
        return text

    def length(count: int) -> float:
        return captions.length(text[:count] + "…")

    fitting = bisect.bisect_right(range(len(text)), float(width), key=length) - 1
    return text[: max(0, fitting)] + "…"


def _fit(image: np.ndarray, cell: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(pixels.to_uint8(image))
    if picture.size == cell:
        return picture
    # Enlarged pixels stay square; a smooth enlargement would flatter the model.
    smaller = cell < picture.size
    filter_ = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
    return picture.resize(cell, filter_)
