"""Curves with labels that stay apart."""

import itertools

from PIL import Image, ImageDraw

from styleclip_jax.io import plots


def test_labels_of_points_side_by_side_do_not_cover_each_other() -> None:
    canvas = ImageDraw.Draw(Image.new("RGB", (960, 640)))
    points = [(400.0 + 9 * (i % 4), 300.0 + 9 * (i // 4)) for i in range(12)]
    marks = [plots._around(x, y, 6) for x, y in points]
    taken = list(marks)
    for index, point in enumerate(points):
        plots._draw_label(canvas, point, f"alpha {index}", (0, 0, 0), taken)
    boxes = taken[len(marks) :]
    assert len(boxes) == len(points)
    for box, other in itertools.combinations(boxes, 2):
        assert plots._covered(box, [other, *marks]) == 0
    assert all(box[0] >= 100 and box[2] <= 930 for box in boxes)


def test_the_legend_leaves_the_curve_free() -> None:
    def corner(ascending: bool) -> bytes:
        """The pixels of the upper left corner, in which one curve begins."""
        points = [plots.Point(x, x if ascending else -x) for x in range(5)]
        curves = [plots.Curve("a curve of a long name", points)]
        image = plots.draw(curves, x_label="gain", y_label="identity")
        return image.crop((102, 42, 340, 70)).convert("L").tobytes()

    # Texts are dark, and the curve is not.
    assert min(corner(ascending=True)) < 50
    assert min(corner(ascending=False)) > 50
