"""Canvas of drawings: 128 × 128, slightly enlarged about its middle.

Shapes are drawn with Pillow at four times the size and averaged down, so edges are
anti-aliased, and the same drawing is the same picture everywhere.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, ...]
Points = list[tuple[float, float]]

_SUPERSAMPLING = 4
_ZOOM = 1.17
_OFFSET = (64 / _ZOOM - 64, 67 / _ZOOM - 62)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def to_pixels(x: float, y: float, size: int) -> tuple[float, float]:
    """Position in a picture of the given size of a point of the 128 × 128 canvas."""
    scale = size / 128 * _ZOOM
    return (x + _OFFSET[0]) * scale, (y + _OFFSET[1]) * scale


class Canvas:
    """Canvas: shapes in its coordinates, drawn onto a supersampled picture."""

    def __init__(self, size: int, background: Color) -> None:
        """A canvas of one colour, for a picture of so many pixels."""
        self.size = size * _SUPERSAMPLING
        self.scale = self.size / 128 * _ZOOM
        self.image = Image.new("RGB", (self.size, self.size), background)
        self._draw = ImageDraw.Draw(self.image)

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> Points:
        return [to_pixels(x0, y0, self.size), to_pixels(x1, y1, self.size)]

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        """An ellipse by its middle and radii."""
        self._draw.ellipse(self._box(x - rx, y - ry, x + rx, y + ry), fill=fill)

    def ring(self, x: float, y: float, r: float, color: Color, width: float) -> None:
        """A circle's line."""
        self._draw.ellipse(
            self._box(x - r, y - r, x + r, y + r),
            outline=color,
            width=max(1, round(width * self.scale)),
        )

    def polygon(self, points: Points, fill: Color) -> None:
        """A polygon by its corners."""
        self._draw.polygon([to_pixels(x, y, self.size) for x, y in points], fill=fill)

    def line(self, points: Points, fill: Color, width: float) -> None:
        """A line with round ends."""
        self._draw.line(
            [to_pixels(x, y, self.size) for x, y in points],
            fill=fill,
            width=max(1, round(width * self.scale)),
            joint="curve",
        )
        for x, y in (points[0], points[-1]):
            self.ellipse(x, y, width / 2, width / 2, fill)

    def rectangle(
        self, x0: float, y0: float, x1: float, y1: float, radius: float, fill: Color
    ) -> None:
        """A rectangle with round corners."""
        self._draw.rounded_rectangle(
            self._box(x0, y0, x1, y1), radius=radius * self.scale, fill=fill
        )

    def picture(self, size: int) -> np.ndarray:
        """The drawing averaged down, [size, size, 3] uint8."""
        image = self.image.resize((size, size), Image.Resampling.BOX)
        return np.asarray(image)


def mix(a: Color, b: Color, share: float) -> Color:
    """Colour that has so much of the second, between both."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def arc(
    x: float, y: float, rx: float, ry: float, start: float, stop: float, steps: int = 16
) -> Points:
    """Points of an elliptic arc; angles in half turns, clockwise from the right."""
    angles = np.linspace(start * math.pi, stop * math.pi, steps + 1)
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in angles]
