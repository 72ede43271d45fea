"""VGG16 in Flax: images → feature maps of its stages, or features of a dense layer.

Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image
Recognition". Its maps are what `lpips` compares; its second dense layer describes
images for precision and recall of a generator. Files have one of the two, or both.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import linen, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import Products
from styleclip_jax.ops import convolutions, resampling

# Convolutions of each stage; a pool that halves the resolution stands between stages.
STAGES = (2, 2, 3, 3, 3)
# Width and height of images for the dense layers, and of the map that these see.
_SIZE, _LAST = 224, 7
# Mean and deviation of ImageNet's images in [0, 1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Vgg16Config(Products):
    """Static architecture of a VGG16; the defaults are the published one with all.

    Attributes:
      widths: feature channels of each stage.
      dense: lengths of both hidden dense layers, () for a network without them.
      lpips: whether the weights of LPIPS are there, one for each channel of `widths`.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    dense: tuple[int, ...] = (4096, 4096)
    lpips: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) != len(STAGES) or len(self.dense) not in (0, 2):
            raise UserError(
                f"VGG16 has {len(STAGES)} widths and two dense layers or none, found "
                f"{self.widths} and {self.dense}"
            )
        if min(self.widths + self.dense) < 1:
            raise UserError(f"all counts must be positive, found {self}")

    @property
    def num_features(self) -> int:
        """Number of features of an image by the dense layers, 0 without them."""
        return self.dense[1] if self.dense else 0

    def require_dense(self) -> None:
        """Refuses a network without dense layers.

        Raises:
          UserError: it has none.
        """
        if not self.dense:
            raise UserError(
                "vgg16: expected a network with its dense layers, as converted from "
                "torchvision's vgg16-397923af.pth or NVIDIA's vgg16.pt, found one "
                "with convolutions alone",
                field="vgg16",
            )

    def require_lpips(self) -> None:
        """Refuses a network without the weights of LPIPS.

        Raises:
          UserError: it has none.
        """
        if not self.lpips:
            raise UserError(
                "vgg16: expected a network with the weights of LPIPS, as converted "
                "with lpips_weights or from NVIDIA's vgg16.pt, found one without",
                field="vgg16",
            )


Vgg16 = Network[Vgg16Config]


def init(key: jax.Array, config: Vgg16Config) -> Any:
    """Random parameters as a nested dict; weights of LPIPS 1, biases 0."""
    return _Module(config).init(key, jnp.zeros((1, 32, 32, 3)))["params"]


@functools.cache
def param_shapes(config: Vgg16Config) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "conv0/kernel"."""
    return param_trees.shapes_of(init, config)


def feature_maps(network: Vgg16, image: spaces.Image) -> tuple[jax.Array, ...]:
    """Last map of every stage, after its ReLU: relu1_2, 2_2, 3_3, 4_3 and 5_3.

    Args:
      network: the VGG16.
      image: [B, H, W, 3] in [-1, 1], at least 16 pixels high and wide.

    Returns:
      [B, h, w, C] float32 of each, h = H // 2ⁱ in stage i.

    Raises:
      ValueError: the image has another shape.
    """
    expect_image(image, least=2 ** (len(STAGES) - 1))
    return _apply(network, image, method=_Module.feature_maps)


def dense_features(network: Vgg16, pixels: jax.Array) -> jax.Array:
    """Features of precision and recall: the second dense layer after its ReLU.

    Args:
      network: the VGG16.
      pixels: [B, H, W, 3] in [0, 255] of any size, float or 8 bits. They are resized
        to 224² as TensorFlow 1 does.

    Returns:
      [B, D] float32, at least 0.

    Raises:
      UserError: the network has no dense layers.
      ValueError: the pixels have another shape.

    Source: `pr50k3` of StyleGAN2, `vgg16.pt` with return_features.
    """
    network.config.require_dense()
    expect_image(pixels)
    rows, columns = (
        resampling.interpolation_matrix(size, _SIZE, "corners")
        for size in pixels.shape[1:3]
    )
    pixels = pixels.astype(jnp.float32)
    image = resampling.resize(pixels, rows, columns, network.config.precision)
    # The official adaptive pool to 7² finds a map of 7² at this size.
    last = feature_maps(network, image / 127.5 - 1)[-1]
    flat = _pool(last).reshape(len(last), -1)
    return _apply(network, flat, method=_Module.dense_features)


def lpips_weights(network: Vgg16) -> tuple[jax.Array, ...]:
    """Weights of LPIPS for the channels [C] of every stage.

    Raises:
      UserError: the network has none.
    """
    network.config.require_lpips()
    return tuple(network.params[_lpips_name(stage)] for stage in range(len(STAGES)))


def normalise(image: spaces.Image) -> jax.Array:
    """Images in [-1, 1], by the mean and deviation of ImageNet's."""
    return (image - (2 * jnp.array(_MEAN) - 1)) / (2 * jnp.array(_STD))


def _apply(network: Vgg16, x: jax.Array, **options: Any) -> Any:
    return _Module(network.config).apply({"params": network.params}, x, **options)


def expect_image(image: jax.Array, least: int = 1) -> None:
    """Refuses what is no batch of images, or of images below a width and height.

    Raises:
      ValueError: names the shape.
    """
    if image.ndim != 4 or image.shape[3] != 3 or min(image.shape[1:3]) < least:
        size = f", H and W at least {least}" if least > 1 else ""
        raise ValueError(
            f"expected images [B, H, W, 3]{size}, found {list(image.shape)}"
        )


def _pool(x: jax.Array) -> jax.Array:
    """Largest of every 2×2 pixels, [B, H // 2, W // 2, C] of [B, H, W, C].

    Not as a window that moves, which XLA on CPUs fuses with the dense layers into one
    loop of more than twice the time, and whose gradient takes longer as well.
    """
    batch, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width]
    x = x.reshape(batch, height, 2, 2 * width, channels)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    x = x.reshape(batch, height, width, 2, channels)
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def _lpips_name(stage: int) -> str:
    return f"lpips{stage}"


class _Conv(linen.Module):
    """3×3 convolution that keeps the size, then ReLU."""

    width: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, 3, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return nn.relu(convolutions.feature_conv3x3(x, kernel, self.precision) + bias)


class _Module(linen.Module):
    """Convolutions, dense layers and weights of LPIPS."""

    config: Vgg16Config

    def setup(self) -> None:
        config = self.config
        widths = [
            width
            for width, count in zip(config.widths, STAGES, strict=True)
            for _ in range(count)
        ]
        self.conv = [
            _Conv(width, config.precision, name=f"conv{i}")
            for i, width in enumerate(widths)
        ]
        self.dense = [
            linen.Dense(width, precision=config.precision, name=f"dense{i}")
            for i, width in enumerate(config.dense)
        ]
        if config.lpips:
            for i, width in enumerate(config.widths):
                self.param(_lpips_name(i), nn.initializers.ones, (width,))

    def feature_maps(self, image: jax.Array) -> tuple[jax.Array, ...]:
        x = normalise(image)
        layers, maps = iter(self.conv), []
        for stage, count in enumerate(STAGES):
            if stage:
                x = _pool(x)
            for _ in range(count):
                x = next(layers)(x)
            maps.append(x)
        return tuple(maps)

    def dense_features(self, flat: jax.Array) -> jax.Array:
        for layer in self.dense:
            flat = nn.relu(layer(flat))
        return flat

    def __call__(self, image: jax.Array) -> jax.Array:
        last = self.feature_maps(image)[-1]
        flat = jnp.zeros((len(last), _LAST**2 * last.shape[-1]))
        return self.dense_features(flat)
