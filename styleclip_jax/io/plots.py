"""Curves in a plane, drawn with Pillow."""

import itertools
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
# Sides of a point that its label may stand at: across and down, the best first.
_SIDES = ((1, -1), (1, 0), (1, 1), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1))

# Left, top, right, bottom.
_Box = tuple[float, float, float, float]
_Color = tuple[int, ...]


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
    colors = [_COLORS[i % len(_COLORS)] for i in range(len(curves))]
    taken: list[_Box] = []
    for curve, color in zip(curves, colors, strict=True):
        taken += _draw_curve(canvas, curve, x_axis, y_axis, color)
    _draw_legend(canvas, [curve.name for curve in curves], colors, taken)
    for curve, color in zip(curves, colors, strict=True):
        for point in curve.points:
            place = (x_axis.place(point.x), y_axis.place(point.y))
            _draw_label(canvas, place, point.label, color, taken)
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
    color: _Color,
) -> list[_Box]:
    """Draws a curve; boxes that texts should stay out of."""
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
    for x, y in places:
        _draw_mark(canvas, x, y, color)
    taken = [_around(x, y, _RADIUS) for x, y in places]
    for (a, b), (c, d) in itertools.pairwise(places):
        count = math.ceil(math.dist((a, b), (c, d)) / _RADIUS)
        for i in range(1, count):
            share = i / count
            taken.append(_around(a + share * (c - a), b + share * (d - b), 2))
    return taken


def _draw_legend(
    canvas: ImageDraw.ImageDraw,
    names: Sequence[str],
    colors: Sequence[_Color],
    taken: list[_Box],
) -> None:
    """Draws names of curves in the corner where they cover least."""
    width = 48 + max(_font(_FONT).getlength(name) for name in names)
    height = 26 * len(names) + 4
    corners = [
        (left, top, left + width, top + height)
        for top in (_TOP, _HEIGHT - _BOTTOM - height)
        for left in (_LEFT, _WIDTH - _RIGHT - width)
    ]
    box = min(corners, key=lambda box: _covered(box, taken))
    taken.append(box)
    for i, (name, color) in enumerate(zip(names, colors, strict=True)):
        x, y = box[0], box[1] + 14 + i * 26
        _draw_mark(canvas, x + 18, y, color)
        canvas.text((x + 34, y), name, _TEXT, _font(_FONT), anchor="lm")


def _draw_label(
    canvas: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    color: _Color,
    taken: list[_Box],
) -> None:
    """Writes the label of a point where it covers least, and joins it if it is far."""
    if not text:
        return
    box = min(_boxes_near(*place, text), key=lambda box: _covered(box, taken))
    left, top, right, bottom = box
    near = (min(max(place[0], left), right), min(max(place[1], top), bottom))
    if math.dist(near, place) > 3 * _RADIUS:
        canvas.line([place, near], color)
    canvas.text((left, top), text, color, _font(_SMALL), anchor="lt")
    taken.append(box)


def _boxes_near(x: float, y: float, text: str) -> Iterator[_Box]:
    """Boxes for a text beside a point, the best ones first, inside of the axes."""
    left, top, right, bottom = _font(_SMALL).getbbox(text, anchor="lt")
    width, height = right - left, bottom - top
    for distance in (9, 18, 30, 44, 60, 78):
        for across, down in _SIDES:
            a = x + across * (distance + width / 2) - width / 2
            b = y + down * (distance + height / 2) - height / 2
            inside = _LEFT < a < _WIDTH - _RIGHT - width
            if inside and _TOP < b < _HEIGHT - _BOTTOM - height:
                yield (a, b, a + width, b + height)
    # There always is one, to the side where there is room.
    start = x + 9 if x + 9 + width < _WIDTH - _RIGHT else x - 9 - width
    yield (start, y, start + width, y + height)


def _covered(box: _Box, taken: Sequence[_Box]) -> float:
    """Area of a box that others cover."""
    left, top, right, bottom = box
    return sum(
        max(0.0, min(right, c) - max(left, a)) * max(0.0, min(bottom, d) - max(top, b))
        for a, b, c, d in taken
    )


def _around(x: float, y: float, radius: float) -> _Box:
    return (x - radius, y - radius, x + radius, y + radius)


def _draw_mark(canvas: ImageDraw.ImageDraw, x: float, y: float, color: _Color) -> None:
    canvas.ellipse([x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS], color)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
