"""CLIP with a residual network: OpenAI's RN50 to RN50x64.

Radford et al. 2021, section 2.4: a ResNet-D with a stem of three convolutions, average
pools where others stride, and an attention pool at the end. The tower of texts is that
of all families.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import (
    batch_norm,
    clip_towers,
    linen,
    param_trees,
    transformer,
)
from styleclip_jax.models.clip_towers import TextConfig
from styleclip_jax.models.network import Network
from styleclip_jax.models.preprocessing import OPENAI, Preprocessing

# Pixels of the image, along an axis, for one of the last feature map.
REDUCTION = 32
# Channels of a block's result for each in between.
_EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class ResnetClipConfig(TextConfig):
    """Static architecture of a CLIP with a ResNet; the defaults are OpenAI's RN50.

    Attributes:
      image_size: width and height of the input image, a multiple of 32.
      vision_width: channels after the stem; the last feature map has 32 times as many.
      vision_layers: blocks of each of the four stages.
      vision_heads: attention heads of the pool.
      eos_token_id: end token, as in `clip.ClipConfig`.
      embed_dim: length of an image or text feature.
      preprocessing: how the images of its training were made.
    """

    image_size: int = 224
    vision_width: int = 64
    vision_layers: tuple[int, ...] = (3, 4, 6, 3)
    vision_heads: int = 32
    eos_token_id: int = 49407
    embed_dim: int = 1024
    preprocessing: Preprocessing = OPENAI

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = self.vision_layers
        if len(layers) != 4 or not all(isinstance(n, int) and n > 0 for n in layers):
            raise UserError(
                f"vision_layers must be four whole numbers, found {list(layers)}",
                field="vision_layers",
            )
        if self.image_size % REDUCTION:
            raise UserError(
                f"image_size {self.image_size} must be a multiple of {REDUCTION}",
                field="image_size",
            )
        if self.vision_width % 2 or self.pool_width % self.vision_heads:
            raise UserError(
                f"vision_width {self.vision_width} must be even, and 32 times it, "
                f"{self.pool_width}, a multiple of vision_heads {self.vision_heads}",
                field="vision_width",
            )

    @property
    def pool_width(self) -> int:
        """Channels of the last feature map, which the attention pool reads."""
        # The last of four stages, of which each doubles the width.
        return 8 * _EXPANSION * self.vision_width


def init(key: jax.Array, config: ResnetClipConfig) -> Any:
    """Random parameters as a nested dict; variances 1, means and shifts 0."""
    image = jnp.zeros((1, config.image_size, config.image_size, 3))
    return _Module(config).init(key, image, jnp.zeros((1, 1), jnp.int32))["params"]


@functools.cache
def param_shapes(config: ResnetClipConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its name, such as "text_projection/kernel"."""
    return param_trees.shapes_of(init, config)


def encode_image(
    network: Network[ResnetClipConfig], image: spaces.Square
) -> spaces.Feature:
    """Image features of preprocessed images; see `clip.encode_image`."""
    return _apply(network, image, "encode_image")


def encode_text(
    network: Network[ResnetClipConfig], tokens: spaces.Tokens
) -> spaces.Feature:
    """Text features of tokens; see `clip.encode_text`."""
    return _apply(network, tokens, "encode_text")


def _apply(
    network: Network[ResnetClipConfig], value: jax.Array, method: str
) -> jax.Array:
    config = network.config
    with config.multiply():
        params = {"params": network.params}
        feature: Any = _Module(config).apply(params, value, method=method)
    return feature.astype(jnp.float32)


class _Module(linen.Module):
    """Both towers; that of images ends in its projection."""

    config: ResnetClipConfig

    def setup(self) -> None:
        config = self.config
        self.vision_model = _VisionTower(config)
        self.text_model = clip_towers.TextTower(
            config.text,
            config.vocab_size,
            config.context_length,
            config.eos_token_id,
            config,
        )
        self.text_projection = linen.Dense(
            config.embed_dim, use_bias=False, dtype=jnp.dtype(config.dtype)
        )
        self.logit_scale = self.param("logit_scale", lambda _: jnp.float32(2.6592))

    def __call__(self, image: jax.Array, tokens: jax.Array) -> Any:
        return self.encode_image(image), self.encode_text(tokens)

    def encode_image(self, image: jax.Array) -> jax.Array:
        """Features."""
        return self.vision_model(image)

    def encode_text(self, tokens: jax.Array) -> jax.Array:
        """Features."""
        return self.text_projection(self.text_model(tokens))


class _VisionTower(linen.Module):
    """Tower of images, [B, S, S, 3] → [B, embed_dim]."""

    config: ResnetClipConfig

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        config = self.config
        x = _Stem(config.vision_width, name="stem")(image.astype(config.dtype))
        for index, count in enumerate(config.vision_layers):
            stage = _Stage(count, config.vision_width << index, index > 0, config.remat)
            x = stage.copy(name=f"layer{index + 1}")(x)
        pool = AttentionPool(config.vision_heads, config.embed_dim, name="attnpool")
        return pool(x)


class _Stem(linen.Module):
    """Image to features of a fourth of its size, [B, S, S, 3] → [B, S/4, S/4, C]."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        half = self.width // 2
        for index, features in enumerate((half, half, self.width), 1):
            x = _conv3x3(x, features, name=f"conv{index}", stride=3 - min(index, 2))
            x = nn.relu(batch_norm.BatchNorm(name=f"norm{index}")(x))
        return _halve(x)


class _Stage(linen.Module):
    """Blocks of one resolution; the first may halve that of what comes in."""

    count: int
    width: int
    halves: bool
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        block = nn.remat(_Block) if self.remat else _Block
        for index in range(self.count):
            halves = self.halves and index == 0
            x = block(self.width, halves, name=str(index))(x)
        return x


class _Block(linen.Module):
    """Bottleneck of three convolutions beside a shortcut."""

    width: int
    halves: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm, wide = batch_norm.BatchNorm, _EXPANSION * self.width
        y = nn.relu(norm(name="norm1")(_conv1x1(x, self.width, name="conv1")))
        y = nn.relu(norm(name="norm2")(_conv3x3(y, self.width, name="conv2")))
        if self.halves:
            x, y = _halve(x), _halve(y)
        y = norm(name="norm3")(_conv1x1(y, wide, name="conv3"))
        if self.halves or x.shape[-1] != wide:
            x = norm(name="shortcut_norm")(_conv1x1(x, wide, name="shortcut"))
        return nn.relu(x + y)


class AttentionPool(linen.Module):
    """Attention of the mean pixel to itself and all pixels, [B, h, w, C] → [B, E]."""

    heads: int
    embed_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height * width, channels)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1)
        length = x.shape[1]
        places = clip_towers.embedding(length, channels, name="position_embedding")
        x = x + places(jnp.arange(length)).astype(x.dtype)

        def heads_of(x: jax.Array, name: str) -> jax.Array:
            y = transformer.dense(channels, x.dtype, name=name)(x)
            return y.reshape(*y.shape[:2], self.heads, -1)

        mixed = nn.dot_product_attention(
            heads_of(x[:, :1], "q_proj"),
            heads_of(x, "k_proj"),
            heads_of(x, "v_proj"),
            dtype=x.dtype,
        )
        project = transformer.dense(self.embed_dim, x.dtype, name="out_proj")
        return project(mixed.reshape(batch, channels))


def _conv3x3(x: jax.Array, features: int, *, name: str, stride: int = 1) -> jax.Array:
    """Convolution without bias, zero padding that keeps the size at stride 1."""
    layer = linen.Conv(
        features,
        (3, 3),
        strides=stride,
        padding=1,
        use_bias=False,
        dtype=x.dtype,
        name=name,
    )
    return layer(x)


def _conv1x1(x: jax.Array, features: int, *, name: str) -> jax.Array:
    """1×1 convolution without bias: a product, which is as fast inside of loops."""
    return linen.Dense(features, use_bias=False, dtype=x.dtype, name=name)(x)


def _halve(x: jax.Array) -> jax.Array:
    """Mean of every 2×2 pixels, [B, H, W, C] → [B, H/2, W/2, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
