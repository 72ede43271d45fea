"""Attributes of drawn faces: values, frequencies, and faces as vectors.

A face is nine categorical attributes (hair colour, glasses, …), eleven lengths and
angles, and the tints of four colours.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from styleclip_jax import checks
from styleclip_jax.toy.canvas import Color

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

# Attributes that a value of another one hides: a bald head shows no hair colour, and
# sunglasses hide the eyes.
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


# Places of each attribute's one-hot code in a face's vector.
SLICES = _slices()


@dataclasses.dataclass(frozen=True)
class Face:
    """Face of the world.

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


def index(attribute: str, value: str) -> int:
    """Index of a value among those of its attribute."""
    return list(ATTRIBUTES[attribute]).index(value)


def sample_face(rng: np.random.Generator) -> Face:
    """Random face with the frequencies of `ATTRIBUTES`."""
    return Face(**sample(rng, ATTRIBUTES, len(SHAPES), 2 * len(TINTS)))


def sample(
    rng: np.random.Generator,
    table: Mapping[str, Mapping[str, float]],
    num_shapes: int,
    num_tints: int,
) -> dict[str, Any]:
    """Random fields of a drawing.

    Args:
      rng: random numbers.
      table: values of each attribute, and how often they are drawn.
      num_shapes: numbers of "shapes", in [-1, 1] with a deviation of `SPREAD`.
      num_tints: numbers of "tints", likewise.
    """
    values = {
        name: str(rng.choice(list(shares), p=list(shares.values())))
        for name, shares in table.items()
    }
    normal = rng.normal(size=num_shapes + num_tints)
    numbers = tuple(np.clip(normal * SPREAD, -1, 1).tolist())
    return values | {"shapes": numbers[:num_shapes], "tints": numbers[num_shapes:]}


def to_vector(face: Face) -> np.ndarray:
    """Vector [VECTOR_SIZE] float32: one-hot attributes, then shapes, then tints."""
    vector = np.zeros(VECTOR_SIZE, np.float32)
    for name in ATTRIBUTES:
        vector[SLICES[name].start + index(name, getattr(face, name))] = 1
    vector[NUM_VALUES:] = face.shapes + face.tints
    return vector


def from_vector(vector: np.ndarray) -> Face:
    """Face of a vector: the largest value of each attribute, numbers clipped."""
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
    """Visibility of an attribute, [N] in [0, 1], for vectors [N, VECTOR_SIZE].

    Less where `HIDDEN_BY` names what hides it. Arrays may be numpy's or jax's.
    """
    if attribute not in HIDDEN_BY:
        return np.ones(len(vectors), np.float32)
    name, value = HIDDEN_BY[attribute]
    return 1 - vectors[:, SLICES[name].start + index(name, value)]


def visible(vectors: np.ndarray, attribute: str) -> np.ndarray:
    """Whether an attribute can be seen, [N] bool, for vectors [N, VECTOR_SIZE]."""
    return shown(vectors, attribute) > 0.5
