"""Face recognition by IR-SE-50 in Flax: face → ArcFace identity features.

Deng et al. 2019, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
with squeeze-and-excitation blocks, as in StyleCLIP's `models/facial_recognition`. The
body is a module of its own, since e4e's encoder is built on it.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import checks, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import batch_norm, linen, param_trees, runtime
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import Products
from styleclip_jax.ops import convolutions, norms, products, resampling

_PRELU_SLOPE = 0.25

# The official crop: an aligned photo is pooled to 256², of which the face is this part.
_FRAME = 256
_FACE_ROWS = (35, 223)
_FACE_COLUMNS = (32, 220)


@dataclasses.dataclass(frozen=True)
class IrseConfig(Products):
    """Static architecture of a recognition network; the defaults are IR-SE-50.

    Attributes:
      num_blocks: residual blocks of each stage; the first halves the resolution.
      widths: feature channels of each stage.
      embed_dim: length of an identity feature.
      input_size: width and height of the face.
      reduction: channels per hidden channel of squeeze-and-excitation.
      dtype: "float32", or "bfloat16" for the activations of the body; identity
        features are float32 always.
    """

    num_blocks: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    embed_dim: int = 512
    input_size: int = 112
    reduction: int = 16
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = (*self.num_blocks, *self.widths, self.embed_dim, self.input_size)
        if not self.num_blocks or min(*numbers, self.reduction) < 1:
            raise UserError(f"all counts must be positive, found {self}")
        if len(self.num_blocks) != len(self.widths):
            raise UserError(
                f"each stage has a number of blocks and a width, "
                f"found {self.num_blocks} and {self.widths}"
            )
        if min(self.widths) < self.reduction:
            raise UserError(
                f"widths must be at least the reduction {self.reduction}, "
                f"found {self.widths}",
                field="widths",
            )
        checks.one_of(self, dtype=runtime.DTYPES)


Identity = Network[IrseConfig]


class Embedded(NamedTuple):
    """Identity features under batch statistics.

    Attributes:
      features: [B, E] float32, of length 1.
      params: the parameters with updated running statistics, otherwise unchanged.
    """

    features: spaces.Feature
    params: Any


def init(key: jax.Array, config: IrseConfig) -> Any:
    """Random parameters as a nested dict; variances 1, means and shifts 0."""
    image = jnp.zeros((1, config.input_size, config.input_size, 3))
    return _Module(config).init(key, image)["params"]


@functools.cache
def param_shapes(config: IrseConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "body/block0/conv1/kernel"."""
    return param_trees.shapes_of(init, config)


def features(network: Identity, image: spaces.Image) -> spaces.Feature:
    """Identity features of aligned photos: `embed` of `preprocess`.

    Args:
      network: the identity network.
      image: [B, H, H, 3] in [-1, 1], aligned as FFHQ is.

    Returns:
      [B, E] float32, of length 1.

    Raises:
      ValueError: the image is not square or not RGB.
    """
    return embed(network, preprocess(network, image))


def preprocess(network: Identity, image: spaces.Image) -> spaces.Square:
    """Face of aligned photos, in the network's resolution.

    The official code pools an image of another size adaptively to 256², crops rows 35
    to 223 and columns 32 to 220, and pools adaptively to 112². All three are linear and
    separable, hence together one product R·X·Cᵀ with constant matrices. Networks of
    another input size see the same part of the photo: only the last pooling differs.

    Args:
      network: the identity network.
      image: [B, H, H, 3] in [-1, 1].

    Returns:
      [B, input_size, input_size, 3] in [-1, 1].

    Raises:
      ValueError: the image is not square or not RGB.
    """
    size = image.shape[1] if image.ndim == 4 else 0
    _expect_image(image, size)
    rows = _crop_matrix(size, _FACE_ROWS, network.config.input_size)
    columns = _crop_matrix(size, _FACE_COLUMNS, network.config.input_size)
    return resampling.resize(image, rows, columns, network.config.precision)


def embed(network: Identity, image: spaces.Square) -> spaces.Feature:
    """Identity features of faces that are already cropped.

    Args:
      network: the identity network.
      image: [B, input_size, input_size, 3] in [-1, 1].

    Returns:
      [B, E] float32, of length 1.

    Raises:
      ValueError: the image does not fit the network.
    """
    _expect_image(image, network.config.input_size)
    return _apply(network, image)


def embed_in_training(network: Identity, image: spaces.Square) -> Embedded:
    """Identity features as by `embed`, but with the statistics of the batch.

    Running statistics move a tenth of the way to those of the batch. They carry no
    gradient, so that an optimizer's update of the returned parameters leaves them as
    they are, unless it decays weights without a mask.
    """
    _expect_image(image, network.config.input_size)
    found, updated = _apply(network, image, train=True, mutable=["params"])
    return Embedded(found, updated["params"])


def feature_maps(network: Identity, image: spaces.Image) -> tuple[jax.Array, ...]:
    """Output [B, h, w, C] of every block of the body, for images of any size."""
    return _apply(network, image, method=_Module.feature_maps)


def _apply(network: Identity, image: jax.Array, **options: Any) -> Any:
    return _Module(network.config).apply({"params": network.params}, image, **options)


def _expect_image(image: jax.Array, size: int) -> None:
    if image.ndim != 4 or image.shape[1:] != (size, size, 3):
        side = size or "H"
        raise ValueError(
            f"image: expected [B, {side}, {side}, 3], found {list(image.shape)}"
        )


def _crop_matrix(size: int, bounds: tuple[int, int], out: int) -> np.ndarray:
    """Matrix [out, size] of an axis: pool to the frame, crop, pool to the face."""
    face = resampling.pool_matrix(size, _FRAME)[slice(*bounds)]
    return (resampling.pool_matrix(len(face), out) @ face).astype(np.float32)


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """ReLU with a slope [C] below zero."""
    # `where`, not `maximum(x, slope x)`: XLA differentiates the latter wrongly inside
    # a whole network.
    return jnp.where(x > 0, x, slope.astype(x.dtype) * x)


def _conv(
    x: jax.Array,
    features: int,
    size: int,
    precision: str,
    *,
    name: str,
    stride: int = 1,
) -> jax.Array:
    """Convolution without bias, zero padding that keeps the size at stride 1."""
    layer = linen.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        dtype=x.dtype,
        precision=products.precision_of(x.dtype, precision),
        name=name,
    )
    return layer(x)


class _Conv3x3(linen.Module):
    """3×3 convolution without bias that keeps the size, in the form that is quick."""

    features: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        kernel = kernel.astype(x.dtype)
        return convolutions.feature_conv3x3(x, kernel, self.precision)


def _dense(
    x: jax.Array, features: int, precision: str, *, name: str, use_bias: bool
) -> jax.Array:
    layer = linen.Dense(
        features,
        use_bias=use_bias,
        dtype=x.dtype,
        precision=products.precision_of(x.dtype, precision),
        name=name,
    )
    return layer(x)


class _Block(linen.Module):
    """Residual block of two 3×3 convolutions with squeeze-and-excitation."""

    width: int
    stride: int
    reduction: int
    precision: str
    quick: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width, precision = self.width, self.precision
        shortcut = x[:, :: self.stride, :: self.stride]
        if x.shape[-1] != width:
            shortcut = _conv(shortcut, width, 1, precision, name="shortcut")
            shortcut = batch_norm.BatchNorm(name="shortcut_norm")(shortcut, train)
        x = batch_norm.BatchNorm(name="norm1")(x, train)
        x = self._conv3x3(x, "conv1", stride=1)
        slope = self.param("slope", nn.initializers.constant(_PRELU_SLOPE), (width,))
        x = prelu(x, slope)
        x = self._conv3x3(x, "conv2", self.stride)
        x = batch_norm.BatchNorm(name="norm2")(x, train)
        return x * self._gate(x)[:, None, None, :] + shortcut

    def _conv3x3(self, x: jax.Array, name: str, stride: int) -> jax.Array:
        if self.quick and stride == 1:
            return _Conv3x3(self.width, self.precision, name=name)(x)
        return _conv(x, self.width, 3, self.precision, name=name, stride=stride)

    def _gate(self, x: jax.Array) -> jax.Array:
        """Squeeze-and-excitation: a factor in [0, 1] for every channel [B, C]."""
        pooled, hidden = jnp.mean(x, (1, 2)), self.width // self.reduction
        dense = functools.partial(_dense, precision=self.precision, use_bias=False)
        squeezed = nn.relu(dense(pooled, hidden, name="squeeze"))
        return nn.sigmoid(dense(squeezed, self.width, name="excite"))


class _Input(linen.Module):
    """Layers before the blocks: image to the features of the first stage."""

    width: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = batch_norm.BatchNorm(name="norm")(
            _conv(x, self.width, 3, self.precision, name="conv"), train
        )
        slope = nn.initializers.constant(_PRELU_SLOPE)
        return prelu(x, self.param("slope", slope, (self.width,)))


class Body(linen.Module):
    """Residual network without a head: image → the output of every block.

    Attributes:
      quick: whether convolutions that keep the size are computed in the form that is
        quick where they are; the others as XLA has them. For the rest see `IrseConfig`.
    """

    num_blocks: tuple[int, ...]
    widths: tuple[int, ...]
    reduction: int
    precision: str
    quick: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, ...]:
        x = _Input(self.widths[0], self.precision, name="input")(x, train)
        maps: list[jax.Array] = []
        for count, width in zip(self.num_blocks, self.widths, strict=True):
            for index in range(count):
                stride = 1 if index else 2
                name = f"block{len(maps)}"
                setting = (self.reduction, self.precision, self.quick)
                x = _Block(width, stride, *setting, name=name)(x, train)
                maps.append(x)
        return tuple(maps)


class _Head(linen.Module):
    """Head: the last feature map to identity features."""

    embed_dim: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        # Parity: the official dropout of 0.6 between the first two is for training
        # from scratch alone.
        x = batch_norm.BatchNorm(name="norm1")(x.astype(jnp.float32), train)
        x = x.reshape(len(x), -1)
        x = _dense(x, self.embed_dim, self.precision, name="dense", use_bias=True)
        x = batch_norm.BatchNorm(name="norm2")(x, train)
        return norms.unit(x)


class _Module(linen.Module):
    """Body and head."""

    config: IrseConfig

    def setup(self) -> None:
        config = self.config
        self.body = Body(
            config.num_blocks,
            config.widths,
            config.reduction,
            config.precision,
            quick=True,
        )
        self.head = _Head(config.embed_dim, config.precision)

    def feature_maps(
        self, image: jax.Array, train: bool = False
    ) -> tuple[jax.Array, ...]:
        return self.body(image.astype(self.config.dtype), train)

    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        return self.head(self.feature_maps(image, train)[-1], train)
