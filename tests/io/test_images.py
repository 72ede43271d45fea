"""Sheets of images: captions stay apart, and gaps say why."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from styleclip_jax.io import images
from styleclip_jax.ops import pixels

LONG = "a person with very long and very curly purple hair"


def _white(sheet: object) -> np.ndarray:
    return (np.asarray(sheet) == 255).all(axis=-1)


@pytest.mark.parametrize(
    ("suffix", "size", "known"),
    [(".png", 72, False), (".jpg", 72, True), (".jpg", 64, False)],
)
def test_large_jpegs_are_encoded_into_a_file_that_the_system_knows(
    monkeypatch: pytest.MonkeyPatch, suffix: str, size: int, known: bool
) -> None:
    """Pillow keeps the interpreter's lock while it encodes a JPEG into another one."""
    save, made = Image.Image.save, []

    def remember(self: Image.Image, file: Any, *arguments: Any, **options: Any) -> None:
        made.append(file)
        save(self, file, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", remember)
    image = np.linspace(-1, 1, size * size * 3, dtype=np.float32)
    image = image.reshape(size, size, 3)
    content = images.encode(image, suffix)
    monkeypatch.undo()
    assert [not isinstance(file, io.BytesIO) for file in made] == [known]
    # The bytes are those of any other file.
    expected = io.BytesIO()
    kind = {".png": "png", ".jpg": "jpeg"}[suffix]
    picture = Image.fromarray(pixels.to_uint8(image))
    picture.save(expected, kind, quality=95, compress_level=1)
    assert content == expected.getvalue()


def test_captions_of_columns_do_not_meet() -> None:
    rows = [np.zeros((5, 8, 8, 3), np.float32)] * 2
    labels = [LONG, "x" * 90, "alpha -6\nbeta 0.15", LONG, ""]
    sheet = images.grid(rows, column_labels=labels, title="a title")
    white = _white(sheet)
    plain = images.grid(rows, title="a title")
    added = sheet.height - plain.height
    assert added > 0
    # Below the title; the gaps between columns stay free of them.
    head = slice(plain.height - 2 * 136, plain.height - 2 * 136 + added)
    for j in range(5):
        column = white[head, j * 136 :][:, :8]
        assert column.all(), j
    assert not white[head].all()


def test_captions_of_rows_stand_beside_the_images() -> None:
    row = np.full((2, 8, 8, 3), -1, np.float32)
    sheet = images.grid([row, row], row_labels=[LONG, "seed 3"])
    dark = ~_white(sheet)
    black = (np.asarray(sheet) == 0).all(axis=-1)
    left = np.flatnonzero(black.any(axis=0))[0]
    written = np.flatnonzero(dark.any(axis=0))
    assert written[written < left].max() < left - 4
    # Long captions are wrapped, not wide.
    assert left < 1.5 * 128 + 3 * 8


def test_a_text_stands_where_there_is_no_image() -> None:
    image = np.zeros((8, 8, 3), np.float32)
    sheet = images.grid([[image, "no mapper given"], [image, image]])
    pixels = np.asarray(sheet)
    cell = pixels[8:136, 144:272]
    share = (cell == 255).all(axis=-1).mean()
    assert 0.8 < share < 1
    assert sheet.size == (8 + 2 * 136, 8 + 2 * 136)


def test_cells_have_the_shape_of_the_first_image() -> None:
    image = np.full((2, 8, 4, 3), -1, np.float32)
    sheet = images.grid([image])
    assert sheet.size == (8 + 2 * 136, 8 + 264)
    black = (np.asarray(sheet) == 0).all(axis=-1)
    np.testing.assert_array_equal(np.flatnonzero(black.any(axis=1)), np.arange(8, 264))


@pytest.mark.slow
def test_long_captions_end_after_four_lines() -> None:
    row = np.zeros((1, 8, 8, 3), np.float32)
    sheets = [images.grid([row], column_labels=["word " * n]) for n in (40, 400)]
    assert sheets[0].size == sheets[1].size


def test_values_out_of_range_are_clipped_and_no_numbers_become_black() -> None:
    values = np.array([-2, -1, 0, 1, 2, np.nan, np.inf, -np.inf], np.float32)
    expected = [0, 0, 128, 255, 255, 0, 255, 0]
    np.testing.assert_array_equal(pixels.to_uint8(values), expected)
