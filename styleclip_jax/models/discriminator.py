"""Discriminator of StyleGAN2 (residual): image, and its class, to a logit.

From the image's resolution down to 8², a block is

  y = (downsample(conv1(conv0(x))) + downsample(skip(x))) · √½

with the FIR [1, 3, 3, 1] before each stride of 2. At 4² the deviation within groups of
the batch joins as channels; a convolution and two dense layers make the logit. With
classes it is the projection of the last features onto the mapped class.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from styleclip_jax import checks, spaces
from styleclip_jax.models import layers, linen, mapping, param_trees, runtime
from styleclip_jax.models.network import Network
from styleclip_jax.ops import convolutions, downsampling, products

_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(runtime.Pyramid):
    """Static architecture of a discriminator; the defaults are config F at 1024².

    Precision and type are those of the convolutions above 4²; what follows is in
    float32, the mapping of classes exact.

    Attributes:
      resolution: width and height of the image, a power of two from 8 up.
      channels: feature channels at 4², 8², …, resolution².
      c_dim: number of classes, 0 for an unconditional discriminator.
      cmap_dim: length of a mapped class.
      num_mapping_layers: dense layers that map a class.
      conv_clamp: bound on the activations of every convolution, None for none.
      group_size: images of a batch whose deviation is taken, at most; None for all.
      num_deviation_channels: channels of deviations, 0 for none.
    """

    resolution: int = 1024
    channels: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64, 32)
    c_dim: int = 0
    cmap_dim: int = 512
    num_mapping_layers: int = 8
    conv_clamp: float | None = None
    group_size: int | None = 4
    num_deviation_channels: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, 0, "c_dim", "num_deviation_channels")
        if self.group_size is not None:
            checks.at_least(self, 1, "group_size")


Discriminator = Network[DiscriminatorConfig]


def init(key: jax.Array, config: DiscriminatorConfig) -> Any:
    """Random parameters with the official initialisation, as a nested dict."""
    image = jnp.zeros((1, config.resolution, config.resolution, 3))
    label = jnp.zeros((1, config.c_dim)) if config.c_dim else None
    return _Discriminator(config).init(key, image, label)["params"]


@functools.cache
def param_shapes(config: DiscriminatorConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "b4/fc/kernel"."""
    return param_trees.shapes_of(init, config)


def logits(
    discriminator: Discriminator, image: spaces.Image, label: jax.Array | None = None
) -> jax.Array:
    """Logits of images, above zero for those that look real.

    Args:
      discriminator: the discriminator.
      image: [B, H, W, 3] in [-1, 1].
      label: [B, c_dim] one-hot classes; given exactly when the discriminator is
        class-conditional.

    Returns:
      [B] float32. An image's logit depends on the others of its group, which lie
      B / group_size apart in the batch.

    Raises:
      ValueError: image or label do not fit the discriminator, or the batch is no
        multiple of the group.
    """
    config = discriminator.config
    shape = (config.resolution, config.resolution, 3)
    if image.ndim != 4 or image.shape[1:] != shape:
        raise ValueError(f"image: expected [N, {shape}], found {list(image.shape)}")
    found = None if label is None else label.shape
    expected = (len(image), config.c_dim) if config.c_dim else None
    if found != expected:
        raise ValueError(f"label: expected shape {expected}, found {found}")
    params = {"params": discriminator.params}
    result: Any = _Discriminator(config).apply(params, image, label)
    return result


def group_deviation(
    x: jax.Array, group_size: int | None, num_channels: int
) -> jax.Array:
    """Deviations within groups of a batch, as channels that are flat over an image.

    Args:
      x: [B, H, W, C].
      group_size: images of a group, at most; None for the whole batch. Its members lie
        B / group_size apart.
      num_channels: channels F of the result; each is the mean deviation of C / F
        channels over all pixels.

    Returns:
      [B, H, W, F].

    Raises:
      ValueError: the batch is no multiple of the group.

    Source: section 3 of Karras et al. 2018, with the groups of the official code.
    """
    batch, height, width, channels = x.shape
    size = min(group_size or batch, batch)
    if batch % size:
        raise ValueError(f"expected a batch of groups of {size}, found {batch} images")
    groups = x.reshape(size, -1, height, width, num_channels, channels // num_channels)
    deviation = jnp.sqrt(jnp.var(groups, axis=0) + _EPSILON)
    mean = jnp.mean(deviation, axis=(1, 2, 4))
    each = jnp.tile(mean, (size, 1))[:, None, None, :]
    return jnp.broadcast_to(each, (batch, height, width, num_channels))


class _Conv(linen.Module):
    """Equalised convolution, then bias, leaky ReLU and the bound on activations.

    Attributes:
      config: configuration of the network.
      features: channels of the result.
      size: taps of each axis.
      convolve: (x, kernel, precision) → result.
      activated: whether anything follows the convolution.
    """

    config: DiscriminatorConfig
    features: int
    size: int
    convolve: Callable[..., jax.Array]
    activated: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        kernel = kernel / math.sqrt(math.prod(shape[:3]))
        x = self.convolve(x, kernel.astype(x.dtype), self.config.precision)
        if not self.activated:
            return x
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = layers.leaky_relu(x + bias.astype(x.dtype))
        return layers.clamp(x, self.config.conv_clamp)


def _convolve_pixels(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """1×1 convolution of [B, H, W, I] with [1, 1, I, O]."""
    asked = products.precision_of(x.dtype, precision)
    return products.dot(x, kernel[0, 0], precision=asked)


class _Block(linen.Module):
    """Residual block of one resolution, to the next one below."""

    config: DiscriminatorConfig
    resolution: int

    def setup(self) -> None:
        config = self.config
        index = self.resolution.bit_length() - 3
        below, features = config.channels[index - 1 : index + 1]
        if self.resolution == config.resolution:
            self.fromrgb = _Conv(config, features, 1, _convolve_pixels)
        self.conv0 = _Conv(config, features, 3, convolutions.conv3x3)
        self.conv1 = _Conv(config, below, 3, downsampling.downsample_conv3x3)
        self.skip = _Conv(config, below, 1, _convolve_pixels, activated=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        x = x.astype(config.dtype_at(self.resolution))
        if self.resolution == config.resolution:
            x = self.fromrgb(x)
        y = self.conv1(self.conv0(x))
        return (y + self.skip(downsampling.downsample(x))) * math.sqrt(0.5)


class _Head(linen.Module):
    """Layers from 4² to the logit, in float32."""

    config: DiscriminatorConfig

    @nn.compact
    def __call__(self, x: jax.Array, mapped: jax.Array | None) -> jax.Array:
        config = self.config
        x = x.astype(jnp.float32)
        if config.num_deviation_channels:
            deviation = group_deviation(
                x, config.group_size, config.num_deviation_channels
            )
            x = jnp.concatenate([x, deviation], axis=-1)
        features = config.channels[0]
        x = _Conv(config, features, 3, convolutions.conv3x3, name="conv")(x)
        dense = functools.partial(layers.Dense, precision=config.precision)
        x = layers.leaky_relu(dense(features, name="fc")(x.reshape(len(x), -1)))
        length = 1 if mapped is None else config.cmap_dim
        x = dense(length, name="out")(x)
        if mapped is None:
            return x[:, 0]
        return jnp.sum(x * mapped, axis=-1) / math.sqrt(length)


class _Discriminator(linen.Module):
    """Whole network."""

    config: DiscriminatorConfig

    @nn.compact
    def __call__(self, image: jax.Array, label: jax.Array | None) -> jax.Array:
        config = self.config
        block = nn.remat(_Block) if config.remat else _Block
        mapped = None
        if label is not None:
            of_class = mapping.Mapping(
                config.cmap_dim,
                config.c_dim,
                config.num_mapping_layers,
                averages=False,
                name="mapping",
            )
            mapped = of_class(None, label)
        x = image
        for resolution in (4 << i for i in range(len(config.channels) - 1, 0, -1)):
            x = block(config, resolution, name=f"b{resolution}")(x)
        return _Head(config, name="b4")(x, mapped)
