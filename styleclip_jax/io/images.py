"""Images out: files, captioned grids, films."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from styleclip_jax.io import files

FORMATS = ("png", "jpg", "npy", "none")

_MARGIN = 8
_TEXT = (40, 40, 40)
_BACKGROUND = (255, 255, 255)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """[-1, 1] to 0…255, rounded to the nearest, clipped; uint8 stays as it is.

    Source: torchvision's `save_image` with range (-1, 1), as the official scripts use
    it.
    """
    if image.dtype == np.uint8:
        return image
    return np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8)


def write(path: files.Path, image: np.ndarray, *, make_folder: bool = True) -> None:
    """Writes one image [H, W, 3] in [-1, 1] or uint8, in the format of the suffix.

    `.npy` keeps the float32 values, for exact work.

    Raises:
      UserError: the file cannot be written, as for want of space, or because its folder
        is gone and not to be made.
    """
    suffix, content = pathlib.Path(path).suffix, io.BytesIO()
    if suffix == ".npy":
        np.save(content, image.astype(np.float32))
    else:
        kind = Image.registered_extensions()[suffix]
        Image.fromarray(to_uint8(image)).save(content, kind, quality=95)
    files.write_bytes(path, content.getvalue(), make_folder=make_folder)


def grid(
    rows: Sequence[np.ndarray],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    cell: int | None = None,
) -> Image.Image:
    """A captioned sheet of images.

    Args:
      rows: one array [N, H, W, 3] in [-1, 1] per row.
      row_labels: caption left of each row.
      column_labels: caption above each column.
      title: caption of the sheet.
      cell: width of an image on the sheet; None keeps it between 128 and 256.

    Returns:
      An RGB image.
    """
    size = rows[0].shape[1]
    cell = cell or min(max(size, 128), 256)
    height = max(12, cell // 9)
    font = ImageFont.load_default(height)
    line = height * 3 // 2
    left = max((int(font.getlength(t)) for t in row_labels), default=-_MARGIN)
    left += 2 * _MARGIN
    top = _MARGIN + line * (bool(title) + bool(len(column_labels)))
    columns = max(len(row) for row in rows)
    step = cell + _MARGIN
    width = left + columns * step
    needed = int(font.getlength(title)) + 2 * _MARGIN
    sheet = Image.new("RGB", (max(width, needed), top + len(rows) * step), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN // 2), title, _TEXT, font)
    for j, label in enumerate(column_labels):
        x = left + j * step + cell // 2
        draw.text((x, top - _MARGIN // 2), label, _TEXT, font, anchor="mb")
    for i, row in enumerate(rows):
        y = top + i * step
        if row_labels:
            middle = (_MARGIN, y + cell // 2)
            draw.text(middle, row_labels[i], _TEXT, font, anchor="lm")
        for j, image in enumerate(row):
            sheet.paste(_fit(image, cell), (left + j * step, y))
    return sheet


def write_film(path: files.Path, frames: np.ndarray, seconds: float = 3.0) -> None:
    """Writes frames [F, H, W, 3] in [-1, 1] as an animated GIF that loops."""
    pictures = [Image.fromarray(frame) for frame in to_uint8(frames)]
    with files.new_file(path) as temporary:
        pictures[0].save(
            temporary,
            save_all=True,
            append_images=pictures[1:],
            duration=max(20, round(1000 * seconds / len(pictures))),
            loop=0,
        )


def save_sheet(path: files.Path, sheet: Image.Image) -> pathlib.Path:
    """Writes a sheet as PNG."""
    with files.new_file(path) as temporary:
        sheet.save(temporary)
    return pathlib.Path(path)


def _fit(image: np.ndarray, cell: int) -> Image.Image:
    picture = Image.fromarray(to_uint8(image))
    if picture.width == cell:
        return picture
    # Enlarged pixels stay square; a smooth enlargement would flatter the model.
    smaller = cell < picture.width
    filter_ = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
    return picture.resize((cell, cell), filter_)
