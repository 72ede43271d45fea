"""Captions in any script: letters are drawn or spelled, and never boxes."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from styleclip_jax.io import fonts, images


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No font but Pillow's own."""
    monkeypatch.setattr(fonts, "_others", lambda size: [])


def drawn(captions: fonts.Captions, text: str) -> np.ndarray:
    sheet = Image.new("L", (400, 40), 255)
    captions.draw(ImageDraw.Draw(sheet), (5, 5), text, 0, anchor="la")
    return np.asarray(sheet)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a smiling face", "a smiling face"),
        ("très ﬁn\nñ", "tres ﬁn\nn"),
        ("微笑 face", "U+5FAE U+7B11 face"),
        ("🙂\ufe0f", "U+1F642"),
        ("two  blanks", "two  blanks"),
    ],
)
def test_letters_without_a_glyph_are_spelled(
    alone: None, text: str, expected: str
) -> None:
    found = fonts.Captions(16).spell(text)
    assert found == expected
    # Whatever is left has a glyph.
    own = ImageFont.load_default(16)
    box = bytes(own.getmask("\U0010ffff"))
    assert all(bytes(own.getmask(x)) != box for x in found if not x.isspace())


def test_other_fonts_take_what_pillows_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = fonts.Captions(16)
    plain = drawn(captions, "aXb")
    bigger = ImageFont.load_default(24)
    lacks = fonts._has
    monkeypatch.setattr(fonts, "_others", lambda size: [bigger])
    monkeypatch.setattr(
        fonts, "_has", lambda f, x: lacks(f, x) and (x != "X" or f is bigger)
    )
    assert captions.spell("aXb") == "aXb"
    assert captions.length("aXb") > ImageFont.load_default(16).getlength("aXb")
    assert (drawn(captions, "aXb") < 128).sum() > (plain < 128).sum()


def test_sheets_in_ascii_are_as_pillow_draws_them(alone: None) -> None:
    image = np.zeros((1, 8, 8, 3), np.float32)
    sheet = images.grid([image], title="a title", column_labels=["très"], cell=128)
    same = images.grid([image], title="a title", column_labels=["tres"], cell=128)
    assert sheet.tobytes() == same.tobytes()
    own = Image.new("L", (400, 40), 255)
    font = ImageFont.load_default(14)
    ImageDraw.Draw(own).text((5, 5), "a title", 0, font, anchor="la")
    np.testing.assert_array_equal(drawn(fonts.Captions(14), "a title"), np.asarray(own))
