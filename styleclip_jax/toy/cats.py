"""Drawn cats: a second domain of drawings, with attributes of its own.

A cat is seven categorical attributes (coat, pattern, eyes, …), six lengths and angles,
and the tints of two colours; the same cat is the same picture everywhere.
"""

import dataclasses

import numpy as np

from styleclip_jax import checks
from styleclip_jax.toy import attributes
from styleclip_jax.toy.canvas import BLACK, WHITE, Canvas, Color, arc, mix

COATS: dict[str, Color] = {
    "orange": (236, 142, 58),
    "grey": (138, 142, 152),
    "black": (52, 48, 54),
    "white": (244, 240, 234),
    "brown": (126, 88, 60),
    "cream": (238, 206, 160),
}
EYE_COLORS: dict[str, Color] = {
    "green": (132, 196, 88),
    "yellow": (246, 204, 64),
    "blue": (92, 168, 230),
}
BACKGROUND_COLORS: dict[str, Color] = {
    "teal": (110, 190, 186),
    "rose": (240, 176, 186),
    "lilac": (190, 176, 228),
    "sand": (232, 214, 176),
    "sky": (156, 204, 242),
}
COLLAR_COLORS: dict[str, Color] = {
    "red": (210, 54, 60),
    "blue": (56, 100, 200),
    "green": (60, 150, 92),
}

# Each attribute with its values and how often they are drawn.
ATTRIBUTES: dict[str, dict[str, float]] = {
    "coat": dict(zip(COATS, (0.24, 0.2, 0.16, 0.12, 0.14, 0.14), strict=True)),
    "pattern": {"plain": 0.3, "tabby": 0.34, "bicolour": 0.22, "mask": 0.14},
    "eyes": dict.fromkeys(EYE_COLORS, 1 / 3),
    "mouth": {"closed": 0.5, "open": 0.28, "tongue": 0.22},
    "ears": {"pointed": 0.72, "folded": 0.28},
    "collar": {"none": 0.46, "red": 0.18, "blue": 0.18, "green": 0.18},
    "background": dict.fromkeys(BACKGROUND_COLORS, 1 / 5),
}
# Lengths and angles in [-1, 1].
SHAPES = ("head_width", "ear_height", "eye_size", "eye_distance", "muzzle", "yaw")
# A brightness in [-1, 1] for each of these colours.
TINTS = ("coat", "background")

_PINK, _MOUTH, _TONGUE = (236, 150, 150), (120, 44, 52), (232, 112, 124)


@dataclasses.dataclass(frozen=True)
class Cat:
    """A cat.

    Attributes:
      coat … background: values of the categorical attributes in `ATTRIBUTES`.
      shapes: numbers in [-1, 1] in the order of `SHAPES`.
      tints: numbers in [-1, 1] in the order of `TINTS`.
    """

    coat: str
    pattern: str
    eyes: str
    mouth: str
    ears: str
    collar: str
    background: str
    shapes: tuple[float, ...] = (0.0,) * len(SHAPES)
    tints: tuple[float, ...] = (0.0,) * len(TINTS)

    def __post_init__(self) -> None:
        checks.one_of(self, **ATTRIBUTES)
        if len(self.shapes) != len(SHAPES) or len(self.tints) != len(TINTS):
            raise ValueError(
                f"expected {len(SHAPES)} shapes and {len(TINTS)} tints, found "
                f"{len(self.shapes)} and {len(self.tints)}"
            )


def sample(rng: np.random.Generator) -> Cat:
    """Random cat with the frequencies of `ATTRIBUTES`."""
    return Cat(**attributes.sample(rng, ATTRIBUTES, len(SHAPES), len(TINTS)))


def draw(cat: Cat, size: int) -> np.ndarray:
    """Picture of a cat, [size, size, 3] uint8."""
    return _Drawing(cat, size).paint().picture(size)


class _Drawing:
    """Drawing of one cat, whose parts are painted from back to front."""

    def __init__(self, cat: Cat, size: int) -> None:
        shape = dict(zip(SHAPES, cat.shapes, strict=True))
        self.cat, self.shape = cat, shape
        self.coat = self._tinted(COATS, "coat")
        self.background = self._tinted(BACKGROUND_COLORS, "background")
        is_dark = sum(self.coat) < 240
        self.shade = mix(self.coat, BLACK, 0.45)
        # Stripes and masks of a dark coat are lighter than it.
        self.mark = (
            mix(self.coat, WHITE, 0.22) if is_dark else mix(self.coat, BLACK, 0.4)
        )
        # The second colour of a bicolour cat; of a white one it is ginger.
        is_white = self.cat.coat == "white"
        self.light = (238, 176, 112) if is_white else mix(self.coat, WHITE, 0.82)
        self.x, self.y = 64.0, 62.0
        self.width = 36 + 3 * shape["head_width"]
        self.height = 30.0
        # Turning the head moves eyes, nose and mouth sideways.
        self.front = self.x + 3.5 * shape["yaw"]
        self.eye_x = 15.5 + 1.8 * shape["eye_distance"]
        self.nose_y = self.y + 9
        self.canvas = Canvas(size, self.background)

    def _tinted(self, colors: dict[str, Color], name: str) -> Color:
        change = 12 * self.cat.tints[TINTS.index(name)]
        color = colors[getattr(self.cat, name)]
        return tuple(int(min(255, max(0, c + change))) for c in color)

    def paint(self) -> Canvas:
        self.canvas.ellipse(64, 60, 52, 52, mix(self.background, WHITE, 0.22))
        self._body()
        self._ears()
        self._head()
        self._pattern()
        self._muzzle()
        self._eyes()
        self._whiskers()
        return self.canvas

    def _body(self) -> None:
        x, canvas = self.x, self.canvas
        dark = mix(self.coat, self.shade, 0.4)
        canvas.ellipse(x, 124, 36, 40, dark)
        chest = (
            self.light if self.cat.pattern == "bicolour" else mix(dark, self.coat, 0.6)
        )
        canvas.ellipse(x, 122, 19, 30, chest)
        if self.cat.collar != "none":
            color = COLLAR_COLORS[self.cat.collar]
            canvas.line(arc(x, 78, 27, 19, 0.1, 0.9), color, 7)
            canvas.ellipse(self.front, 100, 5.5, 5.5, (250, 206, 70))
            canvas.ellipse(self.front, 102, 1.6, 2, (120, 84, 20))

    def _ears(self) -> None:
        height = 27 + 4 * self.shape["ear_height"]
        for side in (-1, 1):
            outer, inner = self.x + side * (self.width - 2), self.x + side * 10
            base, top = self.y - 10, self.y - 20
            if self.cat.ears == "pointed":
                tip = (self.x + side * (self.width - 3), self.y - 18 - height)
                self.canvas.polygon([(outer, base), tip, (inner, top - 6)], self.coat)
                pink = [
                    (outer - side * 5, base - 8),
                    (tip[0] - side * 2.5, tip[1] + 9),
                    (inner + side * 9, top - 6),
                ]
                self.canvas.polygon(pink, _PINK)
            else:
                ear = [
                    (outer, base),
                    (outer - side * 2, self.y - 32),
                    (inner + side * 6, self.y - 34),
                    (inner, top - 6),
                ]
                self.canvas.polygon(ear, self.coat)

    def _head(self) -> None:
        x, y, canvas = self.x, self.y, self.canvas
        canvas.ellipse(x, y - 2, self.width - 4, self.height, self.coat)
        canvas.ellipse(x, y + 5, self.width, self.height - 7, self.coat)
        if self.cat.ears == "folded":
            for side in (-1, 1):
                fold = [
                    (x + side * (self.width - 2), y - 31),
                    (x + side * 15, y - 33),
                    (x + side * (self.width - 9), y - 15),
                ]
                canvas.polygon(fold, self.shade)

    def _pattern(self) -> None:
        x, y, front, canvas = self.x, self.y, self.front, self.canvas
        match self.cat.pattern:
            case "tabby":
                for offset, end in ((-9, -18), (0, -14), (9, -18)):
                    start = (x + offset, y - self.height + 1)
                    canvas.line([start, (front + 0.8 * offset, y + end)], self.mark, 4)
                for side in (-1, 1):
                    for drop in (3, 11):
                        edge = (x + side * (self.width - 2), y + drop - 1)
                        tip = (x + side * (self.width - 12), y + drop + 1)
                        canvas.line([edge, tip], self.mark, 3.6)
            case "bicolour":
                blaze = [(-2.5, -31), (2.5, -31), (7, -6), (15, 8), (-15, 8), (-7, -6)]
                canvas.polygon([(front + a, y + b) for a, b in blaze], self.light)
                canvas.ellipse(front, y + 15, 20, 12, self.light)
            case "mask":
                canvas.ellipse(front, y + 6, 25, 19, self.mark)

    def _muzzle(self) -> None:
        x, y, canvas, cat = self.front, self.nose_y, self.canvas, self.cat
        size = 9.5 + 1.2 * self.shape["muzzle"]
        puff = mix(self.coat, WHITE, 0.55)
        line = mix(self.shade, _MOUTH, 0.5)
        if cat.mouth != "closed":
            canvas.ellipse(x, y + 14, 8, 8.5, _MOUTH)
            low, ry = (19, 3) if cat.mouth == "open" else (20, 8.5)
            canvas.ellipse(x, y + low, 5.2, ry, _TONGUE)
        for side in (-1, 1):
            canvas.ellipse(x + side * 0.75 * size, y + 6.5, size, 7.2, puff)
        canvas.polygon([(x - 6, y - 3.2), (x + 6, y - 3.2), (x, y + 3.6)], _PINK)
        canvas.line([(x, y + 3), (x, y + 7)], line, 1.8)
        for side in (-1, 1):
            curve = arc(x + side * 5, y + 6.5, 5, 4.6, 0.05, 0.95)
            canvas.line(curve, line, 1.8)

    def _eyes(self) -> None:
        y, canvas = self.y - 4, self.canvas
        size = 1 + 0.14 * self.shape["eye_size"]
        for side in (-1, 1):
            x = self.front + side * self.eye_x
            canvas.ellipse(x, y, 9 * size, 8.4 * size, (30, 26, 30))
            canvas.ellipse(x, y, 7.6 * size, 7 * size, EYE_COLORS[self.cat.eyes])
            canvas.ellipse(x, y, 2.7 * size, 6 * size, (18, 16, 20))
            canvas.ellipse(x + 2.2, y - 2.6, 1.9, 1.9, WHITE)

    def _whiskers(self) -> None:
        is_light = sum(self.coat) > 600
        color = (120, 112, 108) if is_light else (250, 248, 244)
        for side in (-1, 1):
            for rise, fall in ((3, -1), (7, 8)):
                start = (self.front + side * 13, self.nose_y + rise)
                tip = (self.front + side * 37, self.nose_y + fall)
                self.canvas.line([start, tip], color, 1.1)
