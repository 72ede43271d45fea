"""Encoder e4e in Flax: aligned photo → W+ of a StyleGAN2 generator.

Tov et al. 2021, "Designing an Encoder for StyleGAN Image Manipulation", on the feature
pyramid of pSp (Richardson et al. 2021, "Encoding in Style"), which differs in nothing
but how rows of W+ come out. With h_i what head i reads off its level of the pyramid and
m_i the average latent,

  e4e:  w_i = h_0 + [i > 0]·h_i + m_i,   pSp:  w_i = h_i + m_i.
"""

import dataclasses
import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import irse50, layers, linen, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import Products
from styleclip_jax.ops import resampling

# Rows of W+ from here on read the middle and the fine level of the pyramid. They are
# not the levels of the mapper.
_MIDDLE_ROW, _FINE_ROW = 3, 7
_NUM_LEVELS = 3
_SLOPE = 0.01


@dataclasses.dataclass(frozen=True)
class E4eConfig(Products):
    """Static architecture of an encoder; the defaults are the official one at 1024².

    Attributes:
      num_blocks: residual blocks of each stage of the body; the last three stages are
        the levels of the pyramid, fine to coarse.
      widths: feature channels of each stage.
      reduction: channels per hidden channel of squeeze-and-excitation.
      w_dim: length of w.
      num_rows: number of W+ rows.
      input_size: width of the photo, a power of two, and its height too.
      input_height: height of the photo where it is not square, such as 192 of 256 with
        cars; None for a square.
      offsets: whether rows after the first are offsets to it (e4e) or stand alone
        (pSp).
    """

    num_blocks: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    reduction: int = 16
    w_dim: int = 512
    num_rows: int = 18
    input_size: int = 256
    offsets: bool = True
    input_height: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # Checks what the two have in common.
        irse50.IrseConfig(self.num_blocks, self.widths, reduction=self.reduction)
        if len(self.widths) < _NUM_LEVELS:
            raise UserError(
                f"widths must be those of {_NUM_LEVELS} stages or more, "
                f"found {self.widths}",
                field="widths",
            )
        if min(self.w_dim, self.num_rows) < 1:
            raise UserError(f"all counts must be positive, found {self}")
        if self.coarse_size < 2 or self.input_size & (self.input_size - 1):
            raise UserError(
                f"input_size must be a power of two from {2 << len(self.widths)} up, "
                f"found {self.input_size}",
                field="input_size",
            )
        height, step = self.input_shape[0], 1 << len(self.widths)
        if height % step or not 2 * step <= height <= self.input_size:
            raise UserError(
                f"input_height must be a multiple of {step} from {2 * step} to "
                f"{self.input_size}, found {height}",
                field="input_height",
            )

    @property
    def input_shape(self) -> tuple[int, int]:
        """Height and width of the photo."""
        return self.input_height or self.input_size, self.input_size

    @property
    def photo_size(self) -> int | tuple[int, int]:
        """Width of a square photo, height and width of another."""
        return self.input_shape if self.input_height else self.input_size

    @property
    def coarse_size(self) -> int:
        """Width of the coarsest level; every stage halves it."""
        return self.input_size >> len(self.widths)


Encoder = Network[E4eConfig]


def init(key: jax.Array, config: E4eConfig) -> Any:
    """Random parameters as a nested dict, the average latent 0."""
    image = jnp.zeros((1, *config.input_shape, 3))
    return _Encoder(config).init(key, image)["params"]


@functools.cache
def param_shapes(config: E4eConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "head0/conv0/kernel"."""
    return param_trees.shapes_of(init, config)


def encode(network: Encoder, image: spaces.Image) -> spaces.WPlus:
    """Latent of each photo, the average latent included.

    Args:
      network: the encoder.
      image: [B, *input_shape, 3] in [-1, 1], faces aligned as FFHQ is.

    Returns:
      [B, num_rows, w_dim] float32 W+.

    Raises:
      ValueError: the image does not fit the encoder.

    Source: `pSp.forward` of encoder4editing with `Encoder4Editing` at its last
    progressive stage, and of pixel2style2pixel with `GradualStyleEncoder`.
    """
    height, width = network.config.input_shape
    if image.ndim != 4 or image.shape[1:] != (height, width, 3):
        raise ValueError(
            f"image: expected [B, {height}, {width}, 3], found {list(image.shape)}"
        )
    w_plus: Any = _Encoder(network.config).apply({"params": network.params}, image)
    return w_plus


def _conv(
    x: jax.Array, features: int, size: int, stride: int, precision: str, name: str
) -> jax.Array:
    """Convolution with bias and the padding of a convolution that keeps the size."""
    layer = linen.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        precision=precision,
        name=name,
    )
    return layer(x)


class _Head(linen.Module):
    """Head: a level of the pyramid [B, H, 2^n, C], H ≤ 2^n, to a row [B, D].

    Each of n halvings rounds up, so that both axes end at one pixel.
    """

    w_dim: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(x.shape[2].bit_length() - 1):
            x = _conv(x, self.w_dim, 3, 2, self.precision, name=f"conv{i}")
            x = jnp.where(x > 0, x, _SLOPE * x)
        return layers.Dense(self.w_dim, self.precision, name="dense")(x[:, 0, 0])


class _Encoder(linen.Module):
    """Body, feature pyramid, and a head per row of W+."""

    config: E4eConfig

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        config = self.config
        # Data that travels with the weights.
        shape = (config.num_rows, config.w_dim)
        w_avg = lax.stop_gradient(self.param("w_avg", nn.initializers.zeros, shape))
        coarse, middle, fine = self._pyramid(image)
        rows = []
        for row in range(config.num_rows):
            level = coarse
            if row >= _MIDDLE_ROW:
                level = fine if row >= _FINE_ROW else middle
            head = _Head(config.w_dim, config.precision, name=f"head{row}")
            rows.append(head(level))
        w_plus = jnp.stack(rows, axis=1)
        if config.offsets:
            w_plus = w_plus.at[:, 1:].add(w_plus[:, :1])
        return w_plus + w_avg

    def _pyramid(self, image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Levels, coarse to fine: each adds detail to the one before, enlarged."""
        config = self.config
        body = irse50.Body(
            config.num_blocks,
            config.widths,
            config.reduction,
            config.precision,
            name="body",
        )
        maps = body(image.astype(jnp.float32))
        ends = list(itertools.accumulate(config.num_blocks))[-_NUM_LEVELS:]
        fine, middle, coarse = (maps[end - 1] for end in ends)
        middle = self._add_detail(coarse, middle, "lateral_middle")
        return coarse, middle, self._add_detail(middle, fine, "lateral_fine")

    def _add_detail(self, x: jax.Array, detail: jax.Array, name: str) -> jax.Array:
        rows, columns = (
            resampling.interpolation_matrix(
                x.shape[axis], detail.shape[axis], "align_corners"
            )
            for axis in (1, 2)
        )
        precision = self.config.precision
        enlarged = resampling.resize(x, rows, columns, precision)
        return enlarged + _conv(detail, x.shape[-1], 1, 1, precision, name=name)
