"""Captions in pictures, in any script: Pillow's own font, and others where it ends.

Letters that Pillow's font lacks are drawn in a font of the system, or of matplotlib. A
letter that none has is spelled, as its base letter or as U+5FAE; boxes are never drawn.
"""

import functools
import importlib.util
import itertools
import pathlib
import unicodedata
from collections.abc import Iterator
from typing import Any

from PIL import ImageDraw, ImageFont

# Fonts by their files, which Pillow finds on every system: Latin, Greek and Cyrillic,
# then Chinese, Japanese and Korean.
_FILES = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf"),
    *("Arial.ttf", "Arial Unicode.ttf", "segoeui.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "PingFang.ttc"),
    *("DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "wqy-microhei.ttc"),
    *("wqy-zenhei.ttc", "Hiragino Sans GB.ttc", "msyh.ttc", "msgothic.ttc"),
    *("malgun.ttf", "AppleSDGothicNeo.ttc"),
)
# A character that no font has.
_MISSING = "\U0010ffff"


class Captions:
    """Captions of one size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._own: Any = ImageFont.load_default(size)

    def spell(self, text: str) -> str:
        """Text of letters that can be drawn alone; lines stay as they are."""
        return "\n".join(
            " ".join("".join(map(self._spell, line)).split())
            if any(self._font(x) is None for x in line)
            else line
            for line in text.splitlines()
        )

    def length(self, text: str) -> float:
        """Width of a spelled line in pixels."""
        return sum(font.getlength(run) for font, run in self._runs(text))

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[float, float],
        text: str,
        color: tuple[int, int, int],
        *,
        anchor: str,
    ) -> None:
        """Draws a spelled line; `anchor` is Pillow's "la" or "ma"."""
        runs = list(self._runs(text))
        if all(font is self._own for font, _ in runs):
            draw.text(place, text, color, self._own, anchor=anchor)
            return
        x, y = place
        x -= self.length(text) / 2 if anchor == "ma" else 0
        baseline = y + self._own.getmetrics()[0]
        for font, run in runs:
            draw.text((x, baseline), run, color, font, anchor="ls")
            x += font.getlength(run)

    def _runs(self, text: str) -> Iterator[tuple[Any, str]]:
        """Parts of a line with the font of each."""
        for font, run in itertools.groupby(text, lambda x: self._font(x) or self._own):
            yield font, "".join(run)

    def _spell(self, letter: str) -> str:
        if self._font(letter) is not None:
            return letter
        parts = unicodedata.normalize("NFKD", letter)
        # Marks and joiners are drawn with a letter or not at all.
        base = [x for x in parts if unicodedata.category(x) not in ("Mn", "Me", "Cf")]
        if all(self._font(x) is not None for x in base):
            return "".join(base)
        return f" U+{ord(letter):04X} "

    def _font(self, letter: str) -> Any:
        """Font that has a letter, None without one."""
        if letter.isspace() or _has(self._own, letter):
            return self._own
        fonts = _others(self._size)
        return next((font for font in fonts if _has(font, letter)), None)


@functools.lru_cache(maxsize=8)
def _others(size: int) -> list[Any]:
    """Fonts of the system and of matplotlib."""
    files = list(_FILES)
    package = importlib.util.find_spec("matplotlib")
    if package is not None and package.origin is not None:
        folder = pathlib.Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
        files.append(str(folder / "DejaVuSans.ttf"))
    found = []
    for file in files:
        try:
            found.append(ImageFont.truetype(file, size))
        except OSError:
            # It is not installed.
            continue
    return found


@functools.lru_cache(maxsize=4096)
def _has(font: Any, letter: str) -> bool:
    """Whether a font has a glyph: other fonts draw nothing, or the same for all."""
    glyph, missing = font.getmask(letter), font.getmask(_MISSING)
    if not glyph.getbbox():
        return False
    return glyph.size != missing.size or bytes(glyph) != bytes(missing)
