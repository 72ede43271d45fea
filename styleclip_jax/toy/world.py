"""The embedded world: faces with known attributes, their drawings and captions.

A face is nine categorical attributes (hair colour, glasses, …), eleven lengths and
angles, and the tints of four colours. It is drawn with Pillow at four times the size
and averaged down, so edges are anti-aliased and the same face is the same picture
everywhere.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from styleclip_jax import checks

Color = tuple[int, ...]
Points = list[tuple[float, float]]

HAIR_COLORS: dict[str, Color] = {
    "black": (38, 34, 38),
    "brown": (112, 70, 40),
    "blonde": (236, 200, 96),
    "red": (196, 72, 32),
    "grey": (172, 174, 180),
    "blue": (60, 110, 220),
    "pink": (240, 120, 180),
}
SKIN_COLORS: dict[str, Color] = {
    "light": (250, 214, 186),
    "medium": (222, 170, 126),
    "tan": (186, 128, 84),
    "dark": (124, 78, 52),
}
EYE_COLORS: dict[str, Color] = {
    "brown": (92, 56, 30),
    "blue": (60, 120, 200),
    "green": (70, 140, 80),
}
BACKGROUND_COLORS: dict[str, Color] = {
    "blue": (150, 200, 240),
    "green": (160, 220, 170),
    "grey": (206, 208, 212),
    "yellow": (250, 232, 150),
    "purple": (204, 180, 236),
    "orange": (250, 200, 150),
}
CLOTHES_COLORS: dict[str, Color] = {
    "red": (204, 52, 56),
    "blue": (52, 92, 190),
    "green": (48, 140, 84),
    "white": (240, 240, 240),
    "black": (52, 52, 60),
    "yellow": (240, 190, 50),
}

# Each attribute with its values and how often they are drawn.
ATTRIBUTES: dict[str, dict[str, float]] = {
    "hair_color": dict(
        zip(HAIR_COLORS, (0.2, 0.22, 0.2, 0.14, 0.1, 0.07, 0.07), strict=True)
    ),
    "hair_style": {
        "short": 0.3,
        "long": 0.22,
        "bald": 0.1,
        "curly": 0.14,
        "bun": 0.1,
        "bob": 0.14,
    },
    "skin": {"light": 0.3, "medium": 0.26, "tan": 0.22, "dark": 0.22},
    "eyes": dict.fromkeys(EYE_COLORS, 1 / 3),
    "mouth": {"neutral": 0.3, "smile": 0.36, "sad": 0.17, "surprised": 0.17},
    "facial_hair": {"none": 0.58, "beard": 0.24, "moustache": 0.18},
    "glasses": {"none": 0.56, "glasses": 0.22, "sunglasses": 0.22},
    "background": dict.fromkeys(BACKGROUND_COLORS, 1 / 6),
    "clothes": dict.fromkeys(CLOTHES_COLORS, 1 / 6),
}
# Lengths and angles in [-1, 1]; these and the tints below have a deviation of 0.5.
SHAPES = (
    "face_width",
    "face_height",
    "eye_distance",
    "eye_height",
    "eye_size",
    "brow_thickness",
    "brow_angle",
    "nose_width",
    "nose_length",
    "mouth_width",
    "yaw",
)
# Two numbers in [-1, 1] for each of these colours: brightness and warmth.
TINTS = ("hair_color", "skin", "background", "clothes")
SPREAD = 0.5

# What cannot be seen with a value of another attribute: a bald head shows no hair
# colour, and sunglasses hide the eyes.
HIDDEN_BY = {
    "hair_color": ("hair_style", "bald"),
    "eyes": ("glasses", "sunglasses"),
}

NUM_VALUES = sum(map(len, ATTRIBUTES.values()))
VECTOR_SIZE = NUM_VALUES + len(SHAPES) + 2 * len(TINTS)


def _slices() -> dict[str, slice]:
    slices, start = {}, 0
    for name, values in ATTRIBUTES.items():
        slices[name] = slice(start, start + len(values))
        start += len(values)
    return slices


# Where each attribute's one-hot code lies in a face's vector.
SLICES = _slices()


@dataclasses.dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
      hair_color … clothes: values of the categorical attributes in `ATTRIBUTES`.
      shapes: numbers in [-1, 1] in the order of `SHAPES`.
      tints: numbers in [-1, 1], two for each colour of `TINTS`.
    """

    hair_color: str
    hair_style: str
    skin: str
    eyes: str
    mouth: str
    facial_hair: str
    glasses: str
    background: str
    clothes: str
    shapes: tuple[float, ...] = (0.0,) * len(SHAPES)
    tints: tuple[float, ...] = (0.0,) * (2 * len(TINTS))

    def __post_init__(self) -> None:
        checks.one_of(self, **ATTRIBUTES)
        if len(self.shapes) != len(SHAPES) or len(self.tints) != 2 * len(TINTS):
            raise ValueError(
                f"expected {len(SHAPES)} shapes and {2 * len(TINTS)} tints, "
                f"found {len(self.shapes)} and {len(self.tints)}"
            )


def sample_face(rng: np.random.Generator) -> Face:
    """A random face with the frequencies of `ATTRIBUTES`."""
    values = {
        name: str(rng.choice(list(table), p=list(table.values())))
        for name, table in ATTRIBUTES.items()
    }
    normal = rng.normal(size=len(SHAPES) + 2 * len(TINTS))
    numbers = tuple(np.clip(normal * SPREAD, -1, 1).tolist())
    return Face(**values, shapes=numbers[: len(SHAPES)], tints=numbers[len(SHAPES) :])


def to_vector(face: Face) -> np.ndarray:
    """[VECTOR_SIZE] float32: one-hot attributes, then shapes, then tints."""
    vector = np.zeros(VECTOR_SIZE, np.float32)
    for name, values in ATTRIBUTES.items():
        vector[SLICES[name].start + list(values).index(getattr(face, name))] = 1
    vector[NUM_VALUES:] = face.shapes + face.tints
    return vector


def from_vector(vector: np.ndarray) -> Face:
    """The face of a vector: the largest value of each attribute, numbers clipped."""
    values = {
        name: list(table)[int(np.argmax(vector[SLICES[name]]))]
        for name, table in ATTRIBUTES.items()
    }
    numbers = tuple(np.clip(vector[NUM_VALUES:], -1, 1).tolist())
    return Face(**values, shapes=numbers[: len(SHAPES)], tints=numbers[len(SHAPES) :])


def labels(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Index of each attribute's value, [N] int32, for vectors [N, VECTOR_SIZE]."""
    return {
        name: np.argmax(vectors[:, part], axis=1).astype(np.int32)
        for name, part in SLICES.items()
    }


def shown(vectors: Any, attribute: str) -> Any:
    """How far the attribute can be seen, [N] in [0, 1], for vectors [N, VECTOR_SIZE].

    Less where `HIDDEN_BY` names what hides it. Arrays may be numpy's or jax's.
    """
    if attribute not in HIDDEN_BY:
        return np.ones(len(vectors), np.float32)
    name, value = HIDDEN_BY[attribute]
    return 1 - vectors[:, SLICES[name].start + list(ATTRIBUTES[name]).index(value)]


def visible(vectors: np.ndarray, attribute: str) -> np.ndarray:
    """Whether the attribute can be seen, [N] bool, for vectors [N, VECTOR_SIZE]."""
    return shown(vectors, attribute) > 0.5


# The drawing. Coordinates are those of a canvas of 128 × 128, drawn slightly enlarged
# about the face.

_SUPERSAMPLING = 4
_ZOOM = 1.17
_OFFSET = (64 / _ZOOM - 64, 67 / _ZOOM - 62)
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def to_pixels(x: float, y: float, size: int) -> tuple[float, float]:
    """Position in a picture of the given size of a point of the 128 × 128 canvas."""
    scale = size / 128 * _ZOOM
    return (x + _OFFSET[0]) * scale, (y + _OFFSET[1]) * scale


class _Canvas:
    """Shapes in canvas coordinates, drawn onto a supersampled picture."""

    def __init__(self, size: int, background: Color) -> None:
        self.size = size * _SUPERSAMPLING
        self.scale = self.size / 128 * _ZOOM
        self.image = Image.new("RGB", (self.size, self.size), background)
        self._draw = ImageDraw.Draw(self.image)

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> Points:
        return [to_pixels(x0, y0, self.size), to_pixels(x1, y1, self.size)]

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        self._draw.ellipse(self._box(x - rx, y - ry, x + rx, y + ry), fill=fill)

    def ring(self, x: float, y: float, r: float, color: Color, width: float) -> None:
        self._draw.ellipse(
            self._box(x - r, y - r, x + r, y + r),
            outline=color,
            width=max(1, round(width * self.scale)),
        )

    def polygon(self, points: Points, fill: Color) -> None:
        self._draw.polygon([to_pixels(x, y, self.size) for x, y in points], fill=fill)

    def line(self, points: Points, fill: Color, width: float) -> None:
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
        self._draw.rounded_rectangle(
            self._box(x0, y0, x1, y1), radius=radius * self.scale, fill=fill
        )


def _mix(a: Color, b: Color, share: float) -> Color:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def _arc(
    x: float, y: float, rx: float, ry: float, start: float, stop: float, steps: int = 16
) -> Points:
    """Points of an elliptic arc; angles in half turns, clockwise from the right."""
    angles = np.linspace(start * math.pi, stop * math.pi, steps + 1)
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in angles]


class _Drawing:
    """The parts of one face, painted from back to front."""

    def __init__(self, face: Face, size: int) -> None:
        shape = dict(zip(SHAPES, face.shapes, strict=True))
        self.face, self.shape = face, shape
        self.hair = self._tinted(HAIR_COLORS, "hair_color")
        self.skin = self._tinted(SKIN_COLORS, "skin")
        self.background = self._tinted(BACKGROUND_COLORS, "background")
        self.clothes = self._tinted(CLOTHES_COLORS, "clothes")
        self.dark_hair = _mix(self.hair, _BLACK, 0.25)
        self.light_hair = _mix(self.hair, _WHITE, 0.16)
        self.dark_skin = _mix(self.skin, (70, 20, 10), 0.22)
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
        self.canvas = _Canvas(size, self.background)

    def _tinted(self, colors: dict[str, Color], name: str) -> Color:
        color = colors[getattr(self.face, name)]
        index = 2 * TINTS.index(name)
        bright, warm = (10 * tint for tint in self.face.tints[index : index + 2])
        change = (bright + warm / 2, bright, bright - warm / 2)
        return tuple(
            int(min(255, max(0, c + d))) for c, d in zip(color, change, strict=True)
        )

    def paint(self) -> Image.Image:
        light = _mix(self.background, _WHITE, 0.18)
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
        return self.canvas.image

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
                for curl in _arc(x, y - 8, width + 3, self.height - 1, 0.85, 2.15, 10):
                    canvas.ellipse(*curl, 12, 12, self.dark_hair)
            case "bun":
                canvas.ellipse(x, top - 8, 13, 12, self.dark_hair)
                canvas.ellipse(x - 2, top - 10, 8, 7, self.hair)

    def _body(self) -> None:
        x, canvas = self.x, self.canvas
        shade = _mix(self.clothes, _BLACK, 0.22)
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
        cheek = _mix(self.skin, (235, 90, 90), 0.22)
        for side in (-1, 1):
            canvas.ellipse(self.front + 16 * side, y + 12, 5.5, 4, cheek)

    def _facial_hair(self) -> None:
        x, y, front, mouth = self.x, self.y, self.front, self.mouth_y
        color = _mix(self.dark_hair, self.hair, 0.4)
        if self.face.facial_hair == "beard":
            jaw = _arc(x, y + 4, self.width - 1.5, self.height - 1.5, 0.02, 0.98, 24)
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
        lip = _mix(self.skin, (150, 30, 40), 0.55)
        palate, tongue = (110, 24, 34), (206, 84, 92)
        match self.face.mouth:
            case "neutral":
                canvas.line([(x - width * 0.8, y), (x + width * 0.8, y)], lip, 2.6)
            case "smile":
                canvas.polygon(_arc(x, y - 2.5, width + 1.5, 8.5, 0, 1, 20), palate)
                upper, lower = width + 0.2, width - 1.5
                teeth = [(-upper, -2.5), (upper, -2.5), (lower, 0.8), (-lower, 0.8)]
                canvas.polygon([(x + a, y + b) for a, b in teeth], _WHITE)
            case "sad":
                canvas.line(_arc(x, y + 5, width, 6.5, 1.1, 1.9), lip, 2.8)
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
            _mix(self.skin, self.dark_skin, 0.45),
        )

    def _eyes(self) -> None:
        y, canvas, shape = self.eye_y, self.canvas, self.shape
        size = 1 + 0.16 * shape["eye_size"]
        brow_y = y - 9.5 - (2.2 if self.face.mouth == "surprised" else 0)
        angle = 2.2 * shape["brow_angle"] + (1.8 if self.face.mouth == "sad" else 0)
        brow_color = _mix(self.dark_hair, (40, 26, 20), 0.35)
        for side in (-1, 1):
            x = self.front + side * self.eye_x
            iris = x + self.yaw / 4
            canvas.ellipse(x, y, 5.6 * size, 4.6 * size, (252, 252, 252))
            color = EYE_COLORS[self.face.eyes]
            canvas.ellipse(iris, y, 3.2 * size, 3.6 * size, color)
            canvas.ellipse(iris, y, 1.7 * size, 1.9 * size, (16, 14, 18))
            canvas.ellipse(iris + 1, y - 1.2, 0.9, 0.9, _WHITE)
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
                cap = _arc(x, y - 5, width + 2.5, height + 1.5, 1, 2, 26)
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
                    outer = _arc(x, y - 5, width + 4, height + 2.5, 1.5 + side / 2, 1.5)
                    strand = [
                        (x - 2, top + 7),
                        (x + side * inner * width, top + fall),
                        (x + side * (width - 1), y - 2),
                        (x + side * (width + 1), end),
                        (x + side * (width + 8), end),
                    ]
                    canvas.polygon(outer + strand, self.hair)
                shine = _arc(x, y - 3, width - 4, height - 3, 1.2, 1.45, 8)
                canvas.line(shine, self.light_hair, 2.6)
            case "curly":
                for curl in _arc(x, y - 8, width - 3, height - 7, 1.04, 1.96, 7):
                    canvas.ellipse(*curl, 8.5, 8.5, self.hair)
                for curl in _arc(x, y - 10, width - 4, height - 6, 1.2, 1.6, 3):
                    canvas.ellipse(*curl, 3.2, 3.2, self.light_hair)
            case "bald":
                canvas.ellipse(x - 8, top + 9, 6, 3.5, _mix(self.skin, _WHITE, 0.3))

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
    """The face's picture, [size, size, 3] uint8."""
    image = _Drawing(face, size).paint()
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


# The captions.

# Phrases by where they stand in a caption: before the noun ("adjective"), or after it
# behind "with" or "wearing", or alone ("on a … background").
_PLACES = ("adjective", "with", "wearing", "on")

_HAIR_WORDS = {
    "black": ("black", "dark"),
    "brown": ("brown", "brunette"),
    "blonde": ("blonde", "blond", "golden", "yellow"),
    "red": ("red", "ginger", "orange"),
    "grey": ("grey", "gray", "silver", "white"),
    "blue": ("blue",),
    "pink": ("pink",),
}
_PHRASES: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "hair_color": {
        value: {
            "with": tuple(f"{word} hair" for word in words),
            "adjective": tuple(f"{word} haired" for word in words),
        }
        for value, words in _HAIR_WORDS.items()
    },
    "hair_style": {
        "short": {"with": ("short hair",), "adjective": ("short haired",)},
        "long": {"with": ("long hair",), "adjective": ("long haired",)},
        "bald": {
            "adjective": ("bald", "bald", "bald headed", "hairless"),
            "with": ("no hair", "a bald head", "a shaved head"),
        },
        "curly": {
            "with": ("curly hair", "curls", "an afro"),
            "adjective": ("curly haired",),
        },
        "bun": {"with": ("a bun", "a hair bun", "hair in a bun")},
        "bob": {"with": ("a bob", "a bob cut", "a bob haircut", "bob hair")},
    },
    "skin": {
        "light": {"with": ("light skin", "pale skin", "fair skin")},
        "medium": {"with": ("medium skin", "olive skin")},
        "tan": {"with": ("tan skin", "tanned skin", "brown skin")},
        "dark": {"with": ("dark skin", "black skin")},
    },
    "eyes": {value: {"with": (f"{value} eyes",)} for value in EYE_COLORS},
    "mouth": {
        "neutral": {
            "adjective": ("serious", "neutral", "calm"),
            "with": ("a neutral expression", "a closed mouth"),
        },
        "smile": {
            "adjective": ("smiling", "smiling", "happy", "laughing", "cheerful"),
            "with": ("a smile", "a big smile", "a happy smile"),
        },
        "sad": {
            "adjective": ("sad", "sad", "unhappy", "frowning"),
            "with": ("a frown", "a sad expression"),
        },
        "surprised": {
            "adjective": ("surprised", "surprised", "shocked", "amazed"),
            "with": ("an open mouth", "a surprised expression"),
        },
    },
    "facial_hair": {
        "none": {
            "adjective": ("clean shaven", "beardless"),
            "with": ("no beard", "no facial hair"),
        },
        "beard": {
            "adjective": ("bearded",),
            "with": ("a beard", "a full beard", "a bushy beard", "beard"),
        },
        "moustache": {"with": ("a moustache", "a mustache", "moustache")},
    },
    "glasses": {
        "none": {"with": ("no glasses",)},
        "glasses": {
            "with": ("glasses", "eyeglasses", "round glasses", "spectacles"),
            "wearing": ("glasses", "eyeglasses", "round glasses", "spectacles"),
        },
        "sunglasses": {
            "with": ("sunglasses", "sunglasses", "dark glasses", "shades"),
            "wearing": ("sunglasses", "sunglasses", "dark glasses", "shades"),
        },
    },
    "background": {
        value: {"on": (f"on a {value} background",)} for value in BACKGROUND_COLORS
    },
    "clothes": {
        value: {"wearing": tuple(f"a {value} {w}" for w in ("shirt", "sweater"))}
        for value in CLOTHES_COLORS
    },
}
_MENTION_WEIGHTS = {
    "hair_color": 3.0,
    "hair_style": 2.4,
    "skin": 1.0,
    "eyes": 0.8,
    "mouth": 3.0,
    "facial_hair": 2.4,
    "glasses": 3.0,
    "background": 0.7,
    "clothes": 0.9,
}
_NOUNS = ("face", "person", "man", "woman", "portrait", "head", "character", "human")
_COMMON_NOUNS = ("face", "person")
_TEMPLATES = (
    "a photo of {}",
    "a bad photo of {}",
    "a picture of {}",
    "a drawing of {}",
    "a cartoon of {}",
    "an image of {}",
    "a portrait of {}",
    "a rendering of {}",
    "a photo of the {}",
    "a close-up photo of {}",
)


@dataclasses.dataclass(frozen=True)
class Caption:
    """A sentence about a face, and of which faces it is true.

    Attributes:
      text: the sentence.
      allowed: the values that each attribute mentioned may have.
    """

    text: str
    allowed: dict[str, tuple[str, ...]]


def caption(face: Face, rng: np.random.Generator) -> Caption:
    """A true sentence about the face, naming up to four attributes in varied words."""
    names = list(_MENTION_WEIGHTS)
    weights = np.array(list(_MENTION_WEIGHTS.values()))
    count = rng.choice(5, p=(0.04, 0.41, 0.3, 0.17, 0.08))
    mentioned = rng.choice(names, count, replace=False, p=weights / weights.sum())
    phrases: dict[str, list[str]] = {place: [] for place in _PLACES}
    allowed: dict[str, tuple[str, ...]] = {}
    for name in mentioned:
        if name == "hair_color" and face.hair_style == "bald":
            continue
        if name == "eyes" and face.glasses == "sunglasses":
            continue
        value = getattr(face, name)
        places = _PHRASES[name][value]
        place = str(rng.choice(list(places)))
        phrases[place].append(str(rng.choice(places[place])))
        allowed[name] = (value,)
        # A hair colour is said of hair, and an eye colour of eyes that are seen.
        if name == "hair_color":
            allowed.setdefault("hair_style", _all_but("hair_style", "bald"))
        if name == "eyes":
            allowed.setdefault("glasses", _all_but("glasses", "sunglasses"))
    if not allowed and face.hair_style != "bald" and rng.random() < 0.3:
        phrases["with"].append("hair")
        allowed["hair_style"] = _all_but("hair_style", "bald")
    return Caption(_sentence(phrases, rng), allowed)


def contradictions(captions: list[Caption]) -> np.ndarray:
    """Values that contradict each caption, [N, NUM_VALUES] float32 of 0 and 1.

    A caption is true of a face exactly when the product with the face's one-hot
    attributes is zero.
    """
    contradicted = np.zeros((len(captions), NUM_VALUES), np.float32)
    for row, entry in zip(contradicted, captions, strict=True):
        for name, values in entry.allowed.items():
            part = row[SLICES[name]]
            part[:] = [value not in values for value in ATTRIBUTES[name]]
    return contradicted


def _all_but(name: str, value: str) -> tuple[str, ...]:
    return tuple(other for other in ATTRIBUTES[name] if other != value)


def _sentence(phrases: dict[str, list[str]], rng: np.random.Generator) -> str:
    nouns = _COMMON_NOUNS if rng.random() < 0.5 else _NOUNS
    style = rng.random()
    if any(phrases.values()) and style < 0.12:
        # The bare phrases: "blonde hair", "a beard and sunglasses".
        text = " and ".join(part for place in _PLACES for part in phrases[place])
    else:
        article = ("a", "a", "the", "")[rng.integers(4)]
        parts = [article, *phrases["adjective"], str(rng.choice(nouns))]
        for word in ("with", "wearing"):
            if phrases[word]:
                parts += [word, " and ".join(phrases[word])]
        text = " ".join([*parts, *phrases["on"]]).strip()
    if rng.random() < 0.4:
        text = str(rng.choice(_TEMPLATES)).format(text)
    return text + "." if rng.random() < 0.25 else text
