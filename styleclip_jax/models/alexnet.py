"""AlexNet in Flax: images → the feature maps that LPIPS compares.

Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", as
torchvision has it. Pivotal tuning looks with it.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import linen, param_trees, vgg16
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import Products

# Size, stride and padding of each convolution; pools stand before the second and third.
_LAYERS = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
_POOLED = (1, 2)
# Smallest image whose last map has a pixel.
SMALLEST = 31


@dataclasses.dataclass(frozen=True)
class AlexNetConfig(Products):
    """Static architecture of the convolutions; the defaults are the published ones.

    Attributes:
      widths: feature channels of each convolution.
      lpips: whether the weights of LPIPS are there, one for each channel of `widths`.
    """

    widths: tuple[int, ...] = (64, 192, 384, 256, 256)
    lpips: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) != len(_LAYERS) or min(self.widths) < 1:
            raise UserError(
                f"AlexNet has {len(_LAYERS)} widths of at least 1, found {self.widths}"
            )


AlexNet = Network[AlexNetConfig]


def init(key: jax.Array, config: AlexNetConfig) -> Any:
    """Random parameters as a nested dict; weights of LPIPS 1, biases 0."""
    return _Module(config).init(key, jnp.zeros((1, SMALLEST, SMALLEST, 3)))["params"]


@functools.cache
def param_shapes(config: AlexNetConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "conv0/kernel"."""
    return param_trees.shapes_of(init, config)


def feature_maps(network: AlexNet, image: spaces.Image) -> tuple[jax.Array, ...]:
    """Map of every convolution, after its ReLU.

    Args:
      network: the AlexNet.
      image: [B, H, W, 3] in [-1, 1], at least 31 pixels high and wide.

    Returns:
      [B, h, w, C] float32 of each.

    Raises:
      ValueError: the image has another shape.
    """
    vgg16.expect_image(image, SMALLEST)
    module = _Module(network.config)
    found: Any = module.apply({"params": network.params}, image)
    return found


def lpips_weights(network: AlexNet) -> tuple[jax.Array, ...]:
    """Weights of LPIPS for the channels [C] of every map.

    Raises:
      UserError: the network has none.
    """
    if not network.config.lpips:
        raise UserError(
            "lpips: expected a network with the weights of LPIPS, as converted with "
            "lpips_weights, found one without",
            field="lpips",
        )
    return tuple(network.params[f"lpips{i}"] for i in range(len(_LAYERS)))


class _Module(linen.Module):
    """Convolutions, and weights of LPIPS."""

    config: AlexNetConfig

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        x, maps = vgg16.normalise(image), []
        about = zip(self.config.widths, _LAYERS, strict=True)
        for i, (width, (size, stride, padding)) in enumerate(about):
            if i in _POOLED:
                x = nn.max_pool(x, (3, 3), (2, 2))
            conv = linen.Conv(
                width,
                (size, size),
                strides=stride,
                padding=padding,
                precision=self.config.precision,
                name=f"conv{i}",
            )
            x = nn.relu(conv(x))
            maps.append(x)
            if self.config.lpips:
                self.param(f"lpips{i}", nn.initializers.ones, (width,))
        return tuple(maps)
