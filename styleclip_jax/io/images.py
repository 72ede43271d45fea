"""Images out: files written in the background, captioned grids, films."""

import concurrent.futures
import pathlib
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from styleclip_jax.io import files

FORMATS = ("png", "jpg", "npy", "none")

_MARGIN = 8
_TEXT = (40, 40, 40)
_BACKGROUND = (255, 255, 255)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """[-1, 1] to 0…255, rounded to the nearest, clipped.

    Source: torchvision's `save_image` with range (-1, 1), as the official scripts use
    it.
    """
    return np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8)


def write(path: files.Path, image: np.ndarray) -> None:
    """Writes one image [H, W, 3] in [-1, 1]; the suffix of the path is the format.

    `.npy` keeps the float32 values, for exact work.
    """
    with files.new_file(path) as temporary:
        if temporary.suffix == ".npy":
            np.save(temporary, image.astype(np.float32))
        else:
            Image.fromarray(to_uint8(image)).save(temporary, quality=95)


class Writer:
    """Writes images on a few threads while the next batch computes.

    Holds at most a bounded number of images that are not written yet. The first error
    is raised by `flush`, or when the `with` block ends.
    """

    def __init__(self, num_threads: int = 2, max_pending: int = 64) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(num_threads)
        self._slots = threading.BoundedSemaphore(max_pending)
        self._pending: list[concurrent.futures.Future[None]] = []

    def submit(self, path: files.Path, image: np.ndarray) -> None:
        """Queues one image; waits while too many are pending."""
        self._slots.acquire()
        future = self._pool.submit(write, path, image)
        future.add_done_callback(lambda _: self._slots.release())
        self._pending.append(future)

    def flush(self) -> None:
        """Waits until everything queued is on disk."""
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._pool.shutdown(cancel_futures=True)


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
