"""Drawings of faces: a canvas of 128 × 128, slightly enlarged about the face.

A face is drawn with Pillow at four times the size and averaged down, so edges are
anti-aliased and the same face is the same picture everywhere.
"""

import numpy as np

from styleclip_jax.toy import attributes
from styleclip_jax.toy.attributes import Color, Face
from styleclip_jax.toy.canvas import BLACK, WHITE, Canvas, arc, mix


class _Drawing:
    """Drawing of one face, whose parts are painted from back to front."""

    def __init__(self, face: Face, size: int) -> None:
        shape = dict(zip(attributes.SHAPES, face.shapes, strict=True))
        self.face, self.shape = face, shape
        self.hair = self._tinted(attributes.HAIR_COLORS, "hair_color")
        self.skin = self._tinted(attributes.SKIN_COLORS, "skin")
        self.background = self._tinted(attributes.BACKGROUND_COLORS, "background")
        self.clothes = self._tinted(attributes.CLOTHES_COLORS, "clothes")
        self.dark_hair = mix(self.hair, BLACK, 0.25)
        self.light_hair = mix(self.hair, WHITE, 0.16)
        self.dark_skin = mix(self.skin, (70, 20, 10), 0.22)
        self.x, self.y = 64.0, 62.0
        self.width = 27 + 3.5 * shape["face_width"]
        self.height = 33 + 3 * shape["face_height"]
        self.top = self.y - self.height
        self.yaw = 3 * shape["yaw"]
        # Turning the head moves eyes, nose and mouth sideways.
        self.front = self.x + self.yaw
        self.eye_y = self.y - 1 + 2 * shape["eye_height"]
        self.eye_x = 12.5 + 2 * shape["eye_distance"]
        self.mouth_y = self.y + 21
        self.canvas = Canvas(size, self.background)

    def _tinted(self, colors: dict[str, Color], name: str) -> Color:
        color = colors[getattr(self.face, name)]
        index = 2 * attributes.TINTS.index(name)
        bright, warm = (10 * tint for tint in self.face.tints[index : index + 2])
        change = (bright + warm / 2, bright, bright - warm / 2)
        return tuple(
            int(min(255, max(0, c + d))) for c, d in zip(color, change, strict=True)
        )

    def paint(self) -> Canvas:
        light = mix(self.background, WHITE, 0.18)
        self.canvas.ellipse(64, 58, 50, 50, light)
        self._hair_behind()
        self._body()
        self._head()
        self._facial_hair()
        self._mouth()
        self._nose()
        self._eyes()
        self._hair_in_front()
        if self.face.glasses != "none":
            self._glasses()
        return self.canvas

    def _hair_behind(self) -> None:
        x, y, width, top, canvas = self.x, self.y, self.width, self.top, self.canvas
        match self.face.hair_style:
            case "long":
                left, right = x - width - 9, x + width + 9
                canvas.rectangle(left, top - 6, right, 116, 24, self.dark_hair)
            case "bob":
                left, right = x - width - 9, x + width + 9
                canvas.rectangle(left, top - 6, right, y + 22, 22, self.dark_hair)
            case "curly":
                for curl in arc(x, y - 8, width + 3, self.height - 1, 0.85, 2.15, 10):
                    canvas.ellipse(*curl, 12, 12, self.dark_hair)
            case "bun":
                canvas.ellipse(x, top - 8, 13, 12, self.dark_hair)
                canvas.ellipse(x - 2, top - 10, 8, 7, self.hair)

    def _body(self) -> None:
        x, canvas = self.x, self.canvas
        shade = mix(self.clothes, BLACK, 0.22)
        canvas.rectangle(x - 46, 103, x + 46, 150, 24, self.clothes)
        canvas.rectangle(x - 46, 120, x - 36, 150, 4, shade)
        canvas.rectangle(x + 36, 120, x + 46, 150, 4, shade)
        canvas.ellipse(x, 104, 17, 9, self.dark_skin)
        canvas.rectangle(x - 12, 84, x + 12, 108, 9, self.dark_skin)

    def _head(self) -> None:
        x, y, canvas = self.x, self.y, self.canvas
        for side in (-1, 1):
            ear = x + side * self.width + self.yaw / 2
            canvas.ellipse(ear, y + 3, 6, 8, self.dark_skin)
        canvas.ellipse(x, y - 6, self.width, self.height - 4, self.skin)
        canvas.ellipse(x, y + 4, self.width - 2.5, self.height - 3, self.skin)
        cheek = mix(self.skin, (235, 90, 90), 0.22)
        for side in (-1, 1):
            canvas.ellipse(self.front + 16 * side, y + 12, 5.5, 4, cheek)

    def _facial_hair(self) -> None:
        x, y, front, mouth = self.x, self.y, self.front, self.mouth_y
        color = mix(self.dark_hair, self.hair, 0.4)
        if self.face.facial_hair == "beard":
            jaw = arc(x, y + 4, self.width - 1.5, self.height - 1.5, 0.02, 0.98, 24)
            cheek = self.width - 9
            edge = [(-cheek, 14), (-12, 14), (0, 12.5), (12, 14), (cheek, 14)]
            self.canvas.polygon(jaw + [(front + a, y + b) for a, b in edge], color)
        elif self.face.facial_hair == "moustache":
            half = [(7, -7.5), (14, -1), (6, -2)]
            outline = [(0, -7), *half, (0, -3), *[(-a, b) for a, b in half[::-1]]]
            self.canvas.polygon([(front + a, mouth + b) for a, b in outline], color)

    def _mouth(self) -> None:
        x, y, canvas = self.front, self.mouth_y, self.canvas
        width = 9 + 1.5 * self.shape["mouth_width"]
        lip = mix(self.skin, (150, 30, 40), 0.55)
        palate, tongue = (110, 24, 34), (206, 84, 92)
        match self.face.mouth:
            case "neutral":
                canvas.line([(x - width * 0.8, y), (x + width * 0.8, y)], lip, 2.6)
            case "smile":
                canvas.polygon(arc(x, y - 2.5, width + 1.5, 8.5, 0, 1, 20), palate)
                upper, lower = width + 0.2, width - 1.5
                teeth = [(-upper, -2.5), (upper, -2.5), (lower, 0.8), (-lower, 0.8)]
                canvas.polygon([(x + a, y + b) for a, b in teeth], WHITE)
            case "sad":
                canvas.line(arc(x, y + 5, width, 6.5, 1.1, 1.9), lip, 2.8)
            case "surprised":
                canvas.ellipse(x, y + 0.5, 5.2, 6.6, palate)
                canvas.ellipse(x, y + 3.5, 3.2, 2.6, tongue)

    def _nose(self) -> None:
        x = self.front + 0.3 * self.yaw
        y = self.y + 9 + 1.8 * self.shape["nose_length"]
        width = 3.6 + 1.1 * self.shape["nose_width"]
        self.canvas.ellipse(x, y, width, 2.6, self.dark_skin)
        bridge, base = self.eye_y + 3, 0.7 * width
        self.canvas.polygon(
            [(x - 1.2, bridge), (x + 1.2, bridge), (x + base, y), (x - base, y)],
            mix(self.skin, self.dark_skin, 0.45),
        )

    def _eyes(self) -> None:
        y, canvas, shape = self.eye_y, self.canvas, self.shape
        size = 1 + 0.16 * shape["eye_size"]
        brow_y = y - 9.5 - (2.2 if self.face.mouth == "surprised" else 0)
        angle = 2.2 * shape["brow_angle"] + (1.8 if self.face.mouth == "sad" else 0)
        brow_color = mix(self.dark_hair, (40, 26, 20), 0.35)
        for side in (-1, 1):
            x = self.front + side * self.eye_x
            iris = x + self.yaw / 4
            canvas.ellipse(x, y, 5.6 * size, 4.6 * size, (252, 252, 252))
            color = attributes.EYE_COLORS[self.face.eyes]
            canvas.ellipse(iris, y, 3.2 * size, 3.6 * size, color)
            canvas.ellipse(iris, y, 1.7 * size, 1.9 * size, (16, 14, 18))
            canvas.ellipse(iris + 1, y - 1.2, 0.9, 0.9, WHITE)
            brow = [
                (x - 6 * side, brow_y - angle / 2 + 0.2),
                (x, brow_y - 0.9),
                (x + 6 * side, brow_y + angle / 2 + 0.4),
            ]
            canvas.line(brow, brow_color, 2.3 + 0.8 * shape["brow_thickness"])

    def _hair_in_front(self) -> None:
        x, y, width, height = self.x, self.y, self.width, self.height
        top, canvas = self.top, self.canvas
        match self.face.hair_style:
            case "short" | "bun":
                cap = arc(x, y - 5, width + 2.5, height + 1.5, 1, 2, 26)
                fringe = [
                    (x + width - 2, y - 12),
                    (x + 0.45 * width, top + 13),
                    (x - 0.25 * width, top + 16),
                    (x - width + 2, y - 11),
                ]
                canvas.polygon(cap + fringe, self.hair)
                shine = [(-0.6, 8), (-2 / width, 1.5), (4 / width, 4), (-0.4, 12)]
                points = [(x + a * width, top + b) for a, b in shine]
                canvas.polygon(points, self.light_hair)
            case "long" | "bob":
                end = y + (30 if self.face.hair_style == "long" else 14)
                for side, inner, fall in ((-1, 0.55, 17), (1, 0.6, 15)):
                    # From the ear up to the crown, then down along the parting.
                    outer = arc(x, y - 5, width + 4, height + 2.5, 1.5 + side / 2, 1.5)
                    strand = [
                        (x - 2, top + 7),
                        (x + side * inner * width, top + fall),
                        (x + side * (width - 1), y - 2),
                        (x + side * (width + 1), end),
                        (x + side * (width + 8), end),
                    ]
                    canvas.polygon(outer + strand, self.hair)
                shine = arc(x, y - 3, width - 4, height - 3, 1.2, 1.45, 8)
                canvas.line(shine, self.light_hair, 2.6)
            case "curly":
                for curl in arc(x, y - 8, width - 3, height - 7, 1.04, 1.96, 7):
                    canvas.ellipse(*curl, 8.5, 8.5, self.hair)
                for curl in arc(x, y - 10, width - 4, height - 6, 1.2, 1.6, 3):
                    canvas.ellipse(*curl, 3.2, 3.2, self.light_hair)
            case "bald":
                canvas.ellipse(x - 8, top + 9, 6, 3.5, mix(self.skin, WHITE, 0.3))

    def _glasses(self) -> None:
        y, canvas = self.eye_y, self.canvas
        dark = self.face.glasses == "sunglasses"
        color = (24, 24, 28) if dark else (60, 44, 40)
        for side in (-1, 1):
            x = self.front + side * self.eye_x
            if dark:
                canvas.rectangle(x - 10.5, y - 7, x + 10.5, y + 7.5, 5.5, color)
                canvas.line([(x - 5, y + 1), (x - 1.5, y - 3.5)], (110, 112, 124), 2)
            else:
                canvas.ring(x, y, 9.5, color, 2.2)
            ear = (self.x + side * (self.width + 1), y - 2.5)
            canvas.line([(x + side * 9.5, y - 1.5), ear], color, 2.2)
        bridge = self.eye_x - 9
        points = [(self.front - bridge, y - 1.5), (self.front + bridge, y - 1.5)]
        canvas.line(points, color, 2.4)


def draw(face: Face, size: int) -> np.ndarray:
    """Picture of a face, [size, size, 3] uint8."""
    return _Drawing(face, size).paint().picture(size)
