"""Curves in a plane, drawn with Pillow."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

# Told apart by people who do not see all colours (Okabe and Ito 2008).
_COLORS = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)),
    *((230, 159, 0), (86, 180, 233), (60, 60, 60)),
)
_WIDTH, _HEIGHT = 960, 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 100, 30, 40, 80
_TEXT, _LINES, _BACKGROUND = (40, 40, 40), (225, 225, 225), (255, 255, 255)
_FONT, _SMALL = 20, 15
_RADIUS = 6


class Point(NamedTuple):
    """Point of a curve, with a caption and intervals around it."""

    x: float
    y: float
    label: str = ""
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


class Curve(NamedTuple):
    """Curve: points that a line joins."""

    name: str
    points: Sequence[Point]


def draw(curves: Sequence[Curve], *, x_label: str, y_label: str) -> Image.Image:
    """Picture of curves with axes and a legend, RGB of 960 × 640.

    Args:
      curves: at least one point in all; values are finite.
      x_label: caption of the axis to the right.
      y_label: caption of the axis up.
    """
    image = Image.new("RGB", (_WIDTH, _HEIGHT), _BACKGROUND)
    canvas = ImageDraw.Draw(image)
    points = [point for curve in curves for point in curve.points]
    x_axis = _Axis.around(_values(points, "x"), _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis.around(_values(points, "y"), _HEIGHT - _BOTTOM, _TOP)
    _draw_axes(image, canvas, x_axis, y_axis, x_label, y_label)
    for i, curve in enumerate(curves):
        _draw_curve(canvas, curve, x_axis, y_axis, _COLORS[i % len(_COLORS)])
    for i, curve in enumerate(curves):
        y = _TOP + 14 + i * 26
        _draw_mark(canvas, _LEFT + 18, y, _COLORS[i % len(_COLORS)])
        canvas.text((_LEFT + 34, y), curve.name, _TEXT, _font(_FONT), anchor="lm")
    return image


class _Axis(NamedTuple):
    """Axis: values from low to high on pixels from start to stop."""

    low: float
    high: float
    start: int
    stop: int

    @classmethod
    def around(cls, values: Sequence[float], start: int, stop: int) -> "_Axis":
        """Axis with room for all values."""
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 0.1 * max(abs(low), 1)
        return cls(low - margin, high + margin, start, stop)

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Round values, about six, with captions."""
        rough = (self.high - self.low) / 6
        power = 10 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
        digits = max(0, -math.floor(math.log10(step)))
        for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            yield i * step, f"{i * step:.{digits}f}"


def _values(points: Sequence[Point], axis: str) -> list[float]:
    intervals = [getattr(point, f"{axis}_interval") or () for point in points]
    values = [getattr(point, axis) for point in points]
    return values + [end for interval in intervals for end in interval]


def _draw_axes(
    image: Image.Image,
    canvas: ImageDraw.ImageDraw,
    x_axis: _Axis,
    y_axis: _Axis,
    x_label: str,
    y_label: str,
) -> None:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value, caption in x_axis.ticks():
        x = x_axis.place(value)
        canvas.line([(x, _TOP), (x, bottom)], _LINES)
        canvas.text((x, bottom + 8), caption, _TEXT, _font(_SMALL), anchor="mt")
    for value, caption in y_axis.ticks():
        y = y_axis.place(value)
        canvas.line([(_LEFT, y), (right, y)], _LINES)
        canvas.text((_LEFT - 8, y), caption, _TEXT, _font(_SMALL), anchor="rm")
    canvas.rectangle([_LEFT, _TOP, right, bottom], outline=_TEXT)
    middle = ((_LEFT + right) // 2, _HEIGHT - 24)
    canvas.text(middle, x_label, _TEXT, _font(_FONT), anchor="mm")
    # Text is drawn level only.
    tall = Image.new("RGB", (bottom - _TOP, 32), _BACKGROUND)
    middle = (tall.width // 2, tall.height // 2)
    ImageDraw.Draw(tall).text(middle, y_label, _TEXT, _font(_FONT), anchor="mm")
    image.paste(tall.transpose(Image.Transpose.ROTATE_90), (4, _TOP))


def _draw_curve(
    canvas: ImageDraw.ImageDraw,
    curve: Curve,
    x_axis: _Axis,
    y_axis: _Axis,
    color: tuple[int, ...],
) -> None:
    places = [(x_axis.place(p.x), y_axis.place(p.y)) for p in curve.points]
    pale = tuple((c + 2 * 255) // 3 for c in color)
    for point, (x, y) in zip(curve.points, places, strict=True):
        if point.x_interval:
            ends = [(x_axis.place(end), y) for end in point.x_interval]
            canvas.line(ends, pale, 2)
        if point.y_interval:
            ends = [(x, y_axis.place(end)) for end in point.y_interval]
            canvas.line(ends, pale, 2)
    canvas.line(places, color, 3)
    for point, (x, y) in zip(curve.points, places, strict=True):
        _draw_mark(canvas, x, y, color)
        room = _font(_SMALL).getlength(point.label) + 10 < _WIDTH - _RIGHT - x
        place, anchor = ((x + 9, y - 4), "ls") if room else ((x - 9, y - 4), "rs")
        canvas.text(place, point.label, color, _font(_SMALL), anchor=anchor)


def _draw_mark(
    canvas: ImageDraw.ImageDraw, x: float, y: float, color: tuple[int, ...]
) -> None:
    canvas.ellipse([x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS], color)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
