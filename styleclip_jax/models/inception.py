"""Inception-v3 in Flax, in the form that FID is defined by: images → features.

Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", as
TensorFlow released it in 2015 and Heusel et al. 2017 took it for FID. It differs from
other Inception-v3: average pools leave padding out, the last block takes the largest
value instead of an average, and there are 1008 classes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.models import batch_norm, linen, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import Products
from styleclip_jax.ops import resampling

# How pixels are put to the network: as TensorFlow's code for FID does, and NVIDIA's and
# torch-fidelity, or as pytorch-fid.
Input = Literal["tensorflow", "pytorch_fid"]

# Width and height of images for the network.
_SIZE = 299
_EPSILON = 1e-3
# Channels of the first convolution; those of all others are told beside these.
_WIDTH = 32


@dataclasses.dataclass(frozen=True)
class InceptionConfig(Products):
    """Static architecture of an Inception-v3; the defaults are the official one.

    Attributes:
      width: feature channels of the first convolution; all others are in proportion.
      num_classes: length of the logits.
    """

    width: int = _WIDTH
    num_classes: int = 1008

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, 1, "num_classes")
        if self.width < 2 or self.width % 2:
            raise UserError(
                f"width: expected an even number, found {self.width}", field="width"
            )

    @property
    def num_features(self) -> int:
        """Number of features of an image."""
        return 64 * self.width

    def channels(self, official: int) -> int:
        """Channels of a layer that has `official` ones at the official width."""
        return official * self.width // _WIDTH


Inception = Network[InceptionConfig]


def init(key: jax.Array, config: InceptionConfig) -> Any:
    """Random parameters as a nested dict; variances 1, means and shifts 0."""
    return _Module(config).init(key, jnp.zeros((1, _SIZE, _SIZE, 3)))["params"]


@functools.cache
def param_shapes(config: InceptionConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name: "mixed_5b/branch1x1/conv/kernel"."""
    return param_trees.shapes_of(init, config)


def features(
    network: Inception, pixels: jax.Array, *, form: Input = "tensorflow"
) -> jax.Array:
    """Features of FID, KID and the Inception Score: the mean over the last map.

    Args:
      network: the Inception-v3.
      pixels: as of `feature_maps`.
      form: as of `feature_maps`.

    Returns:
      [B, 64 · width] float32, 2048 of the official network.

    Raises:
      ValueError: the pixels have another shape, or there is no such form.
    """
    *_, last = feature_maps(network, pixels, form=form).values()
    return jnp.mean(last, axis=(1, 2))


def logits(network: Inception, features: jax.Array, *, bias: bool = False) -> jax.Array:
    """Logits [B, num_classes] of `features` [B, D].

    Args:
      network: the Inception-v3.
      features: of `features`.
      bias: whether to add the bias of the classes, which the Inception Score leaves
        out.
    """
    dense = network.params["fc"]
    product = jnp.dot(features, dense["kernel"], precision=network.config.precision)
    return product + dense["bias"] if bias else product


def feature_maps(
    network: Inception, pixels: jax.Array, *, form: Input = "tensorflow"
) -> dict[str, jax.Array]:
    """Output of every block and pool, by the official names in lower case.

    Args:
      network: the Inception-v3.
      pixels: [B, H, W, 3] in [0, 255] of any size, float or 8 bits.
      form: "tensorflow" resizes to 299² as TensorFlow 1 does and takes (x − 128) / 128,
        as NVIDIA's metrics and torch-fidelity; "pytorch_fid" resizes with half pixels
        and takes x / 127.5 − 1. Neither has antialiasing.

    Returns:
      [B, h, w, C] float32 of each: "conv2d_1a_3x3", …, "mixed_7c".

    Raises:
      ValueError: the pixels have another shape, or there is no such form.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3:
        raise ValueError(f"expected images [B, H, W, 3], found {list(pixels.shape)}")
    if form not in ("tensorflow", "pytorch_fid"):
        raise ValueError(f"form must be tensorflow or pytorch_fid, found {form!r}")
    grid: resampling.Grid = "corners" if form == "tensorflow" else "centres"
    rows, columns = (
        resampling.interpolation_matrix(size, _SIZE, grid) for size in pixels.shape[1:3]
    )
    config, x = network.config, pixels.astype(jnp.float32)
    x = resampling.resize(x, rows, columns, config.precision)
    x = (x - 128) / 128 if form == "tensorflow" else x / 127.5 - 1
    found: Any = _Module(config).apply({"params": network.params}, x)
    return found


def _largest(x: jax.Array, stride: int, padding: str = "VALID") -> jax.Array:
    return nn.max_pool(x, (3, 3), (stride, stride), padding)


def _average(x: jax.Array) -> jax.Array:
    """Mean of the 3×3 pixels around each, of those that are inside of the image."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


class _Layer(NamedTuple):
    """Convolution by its name, with the channels that it has at the official width."""

    name: str
    channels: int
    height: int
    width: int
    stride: int = 1
    padding: str = "SAME"


class _Convolution(linen.Module):
    """Convolution, batch normalisation and ReLU."""

    layer: _Layer
    config: InceptionConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer, config = self.layer, self.config
        x = linen.Conv(
            config.channels(layer.channels),
            (layer.height, layer.width),
            strides=layer.stride,
            padding=layer.padding,
            use_bias=False,
            precision=config.precision,
            name="conv",
        )(x)
        return nn.relu(batch_norm.BatchNorm(_EPSILON, name="norm")(x))


class _Branches(linen.Module):
    """Base of modules with chains of convolutions."""

    config: InceptionConfig

    def chain(self, x: jax.Array, *layers: tuple[Any, ...]) -> jax.Array:
        """Result of layers one after another, each given as a `_Layer` is."""
        for given in layers:
            layer = _Layer(*given)
            x = _Convolution(layer, self.config, name=layer.name)(x)
        return x


class _Mixed5(_Branches):
    """Block at 35²."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        branches = (
            self.chain(x, ("branch1x1", 64, 1, 1)),
            self.chain(x, ("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 5)),
            self.chain(
                x,
                ("branch3x3dbl_1", 64, 1, 1),
                ("branch3x3dbl_2", 96, 3, 3),
                ("branch3x3dbl_3", 96, 3, 3),
            ),
            self.chain(_average(x), ("branch_pool", self.pooled, 1, 1)),
        )
        return jnp.concatenate(branches, axis=-1)


class _Mixed6a(_Branches):
    """Block from 35² to 17²."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        branches = (
            self.chain(x, ("branch3x3", 384, 3, 3, 2, "VALID")),
            self.chain(
                x,
                ("branch3x3dbl_1", 64, 1, 1),
                ("branch3x3dbl_2", 96, 3, 3),
                ("branch3x3dbl_3", 96, 3, 3, 2, "VALID"),
            ),
            _largest(x, 2),
        )
        return jnp.concatenate(branches, axis=-1)


class _Mixed6(_Branches):
    """Block at 17², with kernels of one row or one column."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.inner
        branches = (
            self.chain(x, ("branch1x1", 192, 1, 1)),
            self.chain(
                x,
                ("branch7x7_1", inner, 1, 1),
                ("branch7x7_2", inner, 1, 7),
                ("branch7x7_3", 192, 7, 1),
            ),
            self.chain(
                x,
                ("branch7x7dbl_1", inner, 1, 1),
                ("branch7x7dbl_2", inner, 7, 1),
                ("branch7x7dbl_3", inner, 1, 7),
                ("branch7x7dbl_4", inner, 7, 1),
                ("branch7x7dbl_5", 192, 1, 7),
            ),
            self.chain(_average(x), ("branch_pool", 192, 1, 1)),
        )
        return jnp.concatenate(branches, axis=-1)


class _Mixed7a(_Branches):
    """Block from 17² to 8²."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        branches = (
            self.chain(
                x, ("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 3, 2, "VALID")
            ),
            self.chain(
                x,
                ("branch7x7x3_1", 192, 1, 1),
                ("branch7x7x3_2", 192, 1, 7),
                ("branch7x7x3_3", 192, 7, 1),
                ("branch7x7x3_4", 192, 3, 3, 2, "VALID"),
            ),
            _largest(x, 2),
        )
        return jnp.concatenate(branches, axis=-1)


class _Mixed7(_Branches):
    """Block at 8², two of whose branches fork."""

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = self.chain(x, ("branch3x3_1", 384, 1, 1))
        double = self.chain(
            x, ("branch3x3dbl_1", 448, 1, 1), ("branch3x3dbl_2", 384, 3, 3)
        )
        branches = (
            self.chain(x, ("branch1x1", 320, 1, 1)),
            self.chain(single, ("branch3x3_2a", 384, 1, 3)),
            self.chain(single, ("branch3x3_2b", 384, 3, 1)),
            self.chain(double, ("branch3x3dbl_3a", 384, 1, 3)),
            self.chain(double, ("branch3x3dbl_3b", 384, 3, 1)),
            self.chain(self.pool(x), ("branch_pool", 192, 1, 1)),
        )
        return jnp.concatenate(branches, axis=-1)


class _Module(_Branches):
    """All blocks, and the dense layer of the logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        config = self.config
        maps = {}
        for layer in (
            ("conv2d_1a_3x3", 32, 3, 3, 2, "VALID"),
            ("conv2d_2a_3x3", 32, 3, 3, 1, "VALID"),
            ("conv2d_2b_3x3", 64, 3, 3),
        ):
            x = maps[layer[0]] = self.chain(x, layer)
        x = maps["maxpool_1"] = _largest(x, 2)
        for layer in (
            ("conv2d_3b_1x1", 80, 1, 1),
            ("conv2d_4a_3x3", 192, 3, 3, 1, "VALID"),
        ):
            x = maps[layer[0]] = self.chain(x, layer)
        x = maps["maxpool_2"] = _largest(x, 2)
        largest = functools.partial(_largest, stride=1, padding="SAME")
        for block in (
            _Mixed5(config, 32, name="mixed_5b"),
            _Mixed5(config, 64, name="mixed_5c"),
            _Mixed5(config, 64, name="mixed_5d"),
            _Mixed6a(config, name="mixed_6a"),
            _Mixed6(config, 128, name="mixed_6b"),
            _Mixed6(config, 160, name="mixed_6c"),
            _Mixed6(config, 160, name="mixed_6d"),
            _Mixed6(config, 192, name="mixed_6e"),
            _Mixed7a(config, name="mixed_7a"),
            _Mixed7(config, _average, name="mixed_7b"),
            _Mixed7(config, largest, name="mixed_7c"),
        ):
            x = maps[str(block.name)] = block(x)
        if self.is_initializing():
            # `logits` multiplies by it.
            linen.Dense(config.num_classes, name="fc")(jnp.mean(x, axis=(1, 2)))
        return maps
