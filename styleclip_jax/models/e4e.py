"""Encoders e4e, pSp and ReStyle in Flax: aligned photo → W+ of a StyleGAN2 generator.

Tov et al. 2021, "Designing an Encoder for StyleGAN Image Manipulation", on the feature
pyramid of pSp (Richardson et al. 2021, "Encoding in Style"), which differs in nothing
but how rows of W+ come out. With h_i what head i reads off its level of the pyramid and
m_i the average latent,

  e4e:  w_i = h_0 + [i > 0]·h_i + m_i,   pSp:  w_i = h_i + m_i.

ReStyle (Alaluf et al. 2021) has either form, sees a latent's image behind the photo,
and adds to that latent in place of m. All of its heads read the coarsest features.
"""

import dataclasses
import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax import checks, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import (
    batch_norm,
    generators,
    irse50,
    layers,
    linen,
    param_trees,
)
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import STORED_IF_GIVEN, Products
from styleclip_jax.ops import resampling

# Rows of W+ from here on read the middle and the fine level of the pyramid. They are
# not the levels of the mapper.
_MIDDLE_ROW, _FINE_ROW = 3, 7
_NUM_LEVELS = 3
_SLOPE = 0.01
# Slope of a learned activation, before learning.
_PRELU_SLOPE = 0.25

BODIES = ("irse", "resnet")
_MAX_ITERATIONS = 100


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
      body: residual blocks, one of BODIES: those of IR-SE, or of ResNet-34.
      pyramid: whether later rows read finer levels; without it all read the coarsest.
      in_channels: 3 for the photo alone, 6 for a latent's image behind it (ReStyle).
      iterations: number of passes of a ReStyle, which an inversion may change.
    """

    num_blocks: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    reduction: int = 16
    w_dim: int = 512
    num_rows: int = 18
    input_size: int = 256
    offsets: bool = True
    input_height: int | None = None
    body: str = dataclasses.field(default="irse", metadata=STORED_IF_GIVEN)
    pyramid: bool = dataclasses.field(default=True, metadata=STORED_IF_GIVEN)
    in_channels: int = dataclasses.field(default=3, metadata=STORED_IF_GIVEN)
    iterations: int = dataclasses.field(default=1, metadata=STORED_IF_GIVEN)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, body=BODIES)
        # Checks what the two have in common.
        reduction = self.reduction if self.body == "irse" else 1
        irse50.IrseConfig(self.num_blocks, self.widths, reduction=reduction)
        if self.in_channels not in (3, 6):
            raise UserError(
                f"in_channels must be 3 or 6, found {self.in_channels}",
                field="in_channels",
            )
        most = _MAX_ITERATIONS if self.refines else 1
        if not 1 <= self.iterations <= most:
            raise UserError(
                f"iterations must be from 1 to {most} with {self.in_channels} "
                f"channels, found {self.iterations}",
                field="iterations",
            )
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
    def refines(self) -> bool:
        """Whether it refines a latent that it sees the image of (ReStyle)."""
        return self.in_channels == 6

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
    image = jnp.zeros((1, *config.input_shape, config.in_channels))
    return _Encoder(config).init(key, image)["params"]


@functools.cache
def param_shapes(config: E4eConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "head0/conv0/kernel"."""
    return param_trees.shapes_of(init, config)


def average(network: Encoder) -> jax.Array:
    """Average latent [num_rows, w_dim], at which an encoder starts."""
    return network.params["w_avg"]


def check_generator(config: E4eConfig, generator: generators.GeneratorConfig) -> None:
    """Checks that latents of an encoder are those of a generator.

    What an encoder of wide photos sees stands between bars in what its generator makes,
    or is all that is shown of it.

    Raises:
      ValueError: the generator has other latents, or images that cannot show what the
        encoder sees.
    """
    expected = [generator.num_rows, generator.w_dim]
    found = [config.num_rows, config.w_dim]
    if found != expected:
        raise ValueError(
            f"expected one to W+ of {expected}, as the generator of "
            f"{generator.size_text} has it, found {found}"
        )
    (rows, columns), (height, width) = config.input_shape, generator.image_shape
    if config.input_height and not width * rows <= height * columns <= width * columns:
        raise ValueError(
            f"expected one for images of {generator.size_text}, as the generator makes "
            f"them, found one of whole photos of {columns}×{rows}"
        )


def encode(network: Encoder, image: spaces.Image) -> spaces.WPlus:
    """Latent of each photo in one pass, the average latent included.

    Args:
      network: the encoder, which sees a photo alone.
      image: [B, *input_shape, 3] in [-1, 1], faces aligned as FFHQ is.

    Returns:
      [B, num_rows, w_dim] float32 W+.

    Raises:
      ValueError: the image does not fit the encoder.

    Source: `pSp.forward` of encoder4editing with `Encoder4Editing` at its last
    progressive stage, and of pixel2style2pixel with `GradualStyleEncoder`.
    """
    return _offsets(network, image, 3) + lax.stop_gradient(average(network))


def refine(
    network: Encoder, photo: spaces.Image, image: spaces.Image, w_plus: spaces.WPlus
) -> spaces.WPlus:
    """Latent of each photo after a pass of ReStyle, from the one before.

    Args:
      network: the encoder, which sees two images.
      photo: [B, *input_shape, 3] in [-1, 1], aligned as in training.
      image: that of the latent, of this shape, or one for all, [1, ...].
      w_plus: [B, num_rows, w_dim], or [1, ...].

    Returns:
      [B, num_rows, w_dim] float32 W+.

    Raises:
      ValueError: an image does not fit the encoder.

    Source: `run_on_batch` of restyle-encoder.
    """
    both = jnp.concatenate([photo, jnp.broadcast_to(image, photo.shape)], axis=-1)
    return _offsets(network, both, 6) + w_plus


def _offsets(network: Encoder, image: jax.Array, channels: int) -> jax.Array:
    """What the heads make of images, before the latent that they add to."""
    height, width = network.config.input_shape
    if network.config.in_channels != channels:
        raise ValueError(
            f"expected an encoder of {channels} channels, found one of "
            f"{network.config.in_channels}"
        )
    if image.ndim != 4 or image.shape[1:] != (height, width, channels):
        raise ValueError(
            f"image: expected [B, {height}, {width}, {channels}], "
            f"found {list(image.shape)}"
        )
    found: Any = _Encoder(network.config).apply({"params": network.params}, image)
    return found


def _conv(
    x: jax.Array,
    features: int,
    size: int,
    stride: int,
    precision: str,
    name: str,
    *,
    use_bias: bool = True,
) -> jax.Array:
    """Convolution with the padding of one that keeps the size."""
    layer = linen.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=use_bias,
        precision=precision,
        name=name,
    )
    return layer(x)


class _ResNetInput(linen.Module):
    """Layers before the blocks: image to features of half its size."""

    width: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _conv(x, self.width, 7, 2, self.precision, "conv", use_bias=False)
        x = batch_norm.BatchNorm(name="norm")(x)
        slope = nn.initializers.constant(_PRELU_SLOPE)
        return irse50.prelu(x, self.param("slope", slope, (self.width,)))


class _BasicBlock(linen.Module):
    """Residual block of two 3×3 convolutions (He et al. 2015)."""

    width: int
    stride: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(_conv, precision=self.precision, use_bias=False)
        width, shortcut = self.width, x
        if self.stride > 1 or x.shape[-1] != width:
            shortcut = conv(x, width, 1, self.stride, name="shortcut")
            shortcut = batch_norm.BatchNorm(name="shortcut_norm")(shortcut)
        x = conv(x, width, 3, self.stride, name="conv1")
        x = nn.relu(batch_norm.BatchNorm(name="norm1")(x))
        x = batch_norm.BatchNorm(name="norm2")(conv(x, width, 3, 1, name="conv2"))
        return nn.relu(x + shortcut)


class _ResNet(linen.Module):
    """ResNet of basic blocks without pool or head: image → output of every block."""

    num_blocks: tuple[int, ...]
    widths: tuple[int, ...]
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        x = _ResNetInput(self.widths[0], self.precision, name="input")(x)
        maps: list[jax.Array] = []
        for stage, (count, width) in enumerate(
            zip(self.num_blocks, self.widths, strict=True)
        ):
            for index in range(count):
                stride, name = 2 if stage and not index else 1, f"block{len(maps)}"
                x = _BasicBlock(width, stride, self.precision, name=name)(x)
                maps.append(x)
        return tuple(maps)


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
    """Body, feature pyramid where there is one, and a head per row of W+."""

    config: E4eConfig

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        config = self.config
        # Data that travels with the weights; `encode` adds it.
        self.param("w_avg", nn.initializers.zeros, (config.num_rows, config.w_dim))
        coarse, middle, fine = self._levels(image)
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
        return w_plus

    def _levels(self, image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Levels, coarse to fine: each adds detail to the one before, enlarged."""
        config = self.config
        make: Any = _ResNet
        if config.body == "irse":
            make = functools.partial(
                irse50.Body, reduction=config.reduction, quick=False
            )
        body = make(
            num_blocks=config.num_blocks,
            widths=config.widths,
            precision=config.precision,
            name="body",
        )
        maps = body(image.astype(jnp.float32))
        if not config.pyramid:
            return (maps[-1],) * 3
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
