"""Judge of attributes: a small classifier of faces, and checks without a network.

The judge says which value of each attribute a picture shows. It serves tests and
evaluation alone: no network is ever trained against it. The checks beside it look at
colours in known places, since a network can be fooled.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files
from styleclip_jax.models import linen, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.toy import attributes, canvas

KIND = "judge"

_ASSETS = pathlib.Path(__file__).parent.parent / "assets"


@dataclasses.dataclass(frozen=True)
class JudgeConfig(checks.Config):
    """Static architecture of a judge.

    Attributes:
      resolution: width and height of the pictures.
      widths: channels after each halving of the resolution.
      num_features: length of the feature vector before the heads.
    """

    resolution: int = 64
    widths: tuple[int, ...] = (24, 48, 64, 96)
    num_features: int = 128

    def __post_init__(self) -> None:
        if self.resolution % (1 << len(self.widths)):
            raise UserError(
                f"resolution {self.resolution} cannot be halved "
                f"{len(self.widths)} times",
                field="resolution",
            )


Judge = Network[JudgeConfig]


class _Module(linen.Module):
    config: JudgeConfig

    def setup(self) -> None:
        self.convs = [
            linen.Conv(width, (5, 5) if index == 0 else (3, 3), strides=2)
            for index, width in enumerate(self.config.widths)
        ]
        self.hidden = linen.Dense(self.config.num_features)
        self.heads = {
            name: linen.Dense(len(values))
            for name, values in attributes.ATTRIBUTES.items()
        }

    def maps(self, image: jax.Array) -> list[jax.Array]:
        maps = []
        x = image
        for conv in self.convs:
            x = nn.leaky_relu(conv(x), 0.1)
            maps.append(x)
        return maps

    def features(self, image: jax.Array) -> jax.Array:
        x = self.maps(image)[-1]
        return nn.leaky_relu(self.hidden(x.reshape(x.shape[0], -1)), 0.1)

    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        return self.classify(self.features(image))

    def classify(self, features: jax.Array) -> dict[str, jax.Array]:
        return {name: head(features) for name, head in self.heads.items()}


def init(key: jax.Array, config: JudgeConfig) -> Any:
    """Random parameters, as a nested dict."""
    size = config.resolution
    return _Module(config).init(key, jnp.zeros((1, size, size, 3)))["params"]


@functools.cache
def param_shapes(config: JudgeConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name."""
    return param_trees.shapes_of(init, config)


def load(directory: files.Path | None = None) -> Judge:
    """A judge from a model directory; the embedded one by default.

    Raises:
      UserError: the directory holds no valid one.
    """
    return checkpoints.load_network(
        directory or _ASSETS / "judge",
        kind=KIND,
        config_type=JudgeConfig,
        param_shapes=param_shapes,
    )


def logits(network: Judge, image: jax.Array) -> dict[str, jax.Array]:
    """Scores of each attribute's values.

    Args:
      network: the judge.
      image: [B, H, W, 3] float32 in [-1, 1].

    Returns:
      For each attribute [B, number of values] float32.
    """
    return _apply(network, image, _Module.__call__)


def predict(network: Judge, image: jax.Array) -> dict[str, jax.Array]:
    """Index of each attribute's value, [B]; arguments as of `logits`."""
    scores = logits(network, image)
    return {name: jnp.argmax(score, axis=1) for name, score in scores.items()}


def kept(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], target: str
) -> np.ndarray:
    """Share of the attributes beside the target that stayed, [N].

    The hair colour of a head that is or becomes bald does not count, nor do eyes behind
    sunglasses.

    Args:
      before, after: indices that `predict` found, [N] each.
      target: attribute that may change.
    """
    same = counted = np.zeros(len(before[target]))
    for name in attributes.ATTRIBUTES:
        if name == target:
            continue
        seen = np.ones(len(before[name]), bool)
        if name in attributes.HIDDEN_BY:
            other, value = attributes.HIDDEN_BY[name]
            index = attributes.index(other, value)
            seen = (before[other] != index) & (after[other] != index)
        same = same + ((before[name] == after[name]) & seen)
        counted = counted + seen
    return same / counted


def feature_maps(network: Judge, image: jax.Array) -> list[jax.Array]:
    """Activations after each convolution, for images [B, H, W, 3] in [-1, 1]."""
    return _apply(network, image, _Module.maps)


def features(network: Judge, image: jax.Array) -> jax.Array:
    """Features before the heads, [B, num_features], for images in [-1, 1]."""
    return _apply(network, image, _Module.features)


def classify(network: Judge, features: jax.Array) -> dict[str, jax.Array]:
    """Scores of each attribute's values, as `logits`, for features [B, F]."""
    return _apply(network, features, _Module.classify)


def _apply(network: Judge, image: jax.Array, method: Callable[..., Any]) -> Any:
    params = {"params": network.params}
    return _Module(network.config).apply(params, image, method=method)


# The checks. Each takes one picture, [H, W, 3] float in [-1, 1], and reads patches
# given in the drawing's canvas of 128 × 128.

Box = tuple[float, float, float, float]

_HAIR = (56, 27, 72, 32)
_FOREHEAD = (61, 30.5, 74, 33)
_CHEEKS = ((54, 72, 59, 74.5), (69, 72, 74, 74.5))  # between nose and blush
_CHIN = (58, 90.5, 70, 93)
_EYES = (44, 54, 84, 68)
_MOUTH = (50, 76, 78, 92)
_OPEN_MOUTH = (62, 78.5, 66, 88.5)


def _patch(image: np.ndarray, box: Box) -> np.ndarray:
    """Pixels of a box (x0, y0, x1, y1) of the canvas, [N, 3] in [0, 255]."""
    size = image.shape[0]
    x0, y0 = np.round(canvas.to_pixels(*box[:2], size)).astype(int)
    x1, y1 = np.round(canvas.to_pixels(*box[2:], size)).astype(int)
    pixels = image[y0 : y1 + 1, x0 : x1 + 1].reshape(-1, 3)
    return (np.clip(pixels, -1, 1) + 1) * 127.5


def _color(image: np.ndarray, *boxes: Box) -> np.ndarray:
    """Median colour of some boxes."""
    return np.median(np.concatenate([_patch(image, box) for box in boxes]), axis=0)


def _to_hair(color: np.ndarray) -> dict[str, float]:
    """Distance of a colour to each hair colour."""
    return {
        name: float(np.linalg.norm(color - np.array(hair)))
        for name, hair in attributes.HAIR_COLORS.items()
    }


def _to_cheeks(image: np.ndarray, color: np.ndarray) -> float:
    """Distance of a colour to that of the cheeks."""
    return float(np.linalg.norm(color - _color(image, *_CHEEKS)))


def hair_color(image: np.ndarray) -> str:
    """Name of the hair colour nearest to the pixels at the top of the head."""
    distances = _to_hair(_color(image, _HAIR))
    return min(distances, key=distances.__getitem__)


def is_bald(image: np.ndarray) -> bool:
    """Whether the top of the forehead is more like the cheeks than like any hair."""
    color = _color(image, _FOREHEAD)
    return _to_cheeks(image, color) < min(_to_hair(color).values())


def has_sunglasses(image: np.ndarray) -> bool:
    """Whether most of the band over the eyes is dark."""
    return bool(np.mean(_patch(image, _EYES).max(axis=1) < 90) > 0.4)


def has_beard(image: np.ndarray) -> bool:
    """Whether the chin has another colour than the cheeks."""
    return _to_cheeks(image, _color(image, _CHIN)) >= 30


def is_smiling(image: np.ndarray) -> bool:
    """Whether white teeth lie over a dark mouth."""
    pixels = _patch(image, _MOUTH)
    teeth = np.mean(pixels.min(axis=1) > 190)
    return bool(teeth > 0.05 and np.mean(pixels[:, 1] < 90) > 0.05)


def is_surprised(image: np.ndarray) -> bool:
    """Whether half of a column as high as an open mouth is red, as beards are not."""
    red, green, blue = _patch(image, _OPEN_MOUTH).T
    return bool(np.mean((green < 0.5 * red) & (blue > 0.75 * green)) > 0.5)


# Checks by the attribute and value that they look for.
CHECKS: dict[tuple[str, str], Callable[[np.ndarray], bool]] = {
    **{
        ("hair_color", name): functools.partial(
            lambda image, name: hair_color(image) == name, name=name
        )
        for name in attributes.HAIR_COLORS
    },
    ("hair_style", "bald"): is_bald,
    ("glasses", "sunglasses"): has_sunglasses,
    ("facial_hair", "beard"): has_beard,
    ("mouth", "smile"): is_smiling,
    ("mouth", "surprised"): is_surprised,
}
