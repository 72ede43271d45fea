"""Layers that the networks of StyleGAN2 and its mappers share."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax.models import linen
from styleclip_jax.ops import convolutions

_EPSILON = 1e-8


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky ReLU with slope 0.2 below zero and the official gain of sqrt(2)."""
    # `where`, not `maximum(x, 0.2 x)`: XLA differentiates the latter wrongly inside
    # the whole network.
    return jnp.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def clamp(x: jax.Array, bound: float | None) -> jax.Array:
    """Values within a bound on either side, None for no bound."""
    return x if bound is None else jnp.clip(x, -bound, bound)


def scale(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Features [B, H, W, C] times factors [B, C], in the type of the features."""
    return x * factor[:, None, None, :].astype(x.dtype)


def to_rgb(
    x: jax.Array,
    style: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    bound: float | None,
    precision: str,
) -> jax.Array:
    """Modulated 1×1 convolution to colours, without demodulation; float32.

    Args:
      x: [B, H, W, I] features.
      style: [B, I].
      kernel: [1, 1, I, 3], not yet scaled by 1/sqrt(I).
      bias: [3].
      bound: bound on the result, None for none.
      precision: precision of the product.
    """
    style = style / math.sqrt(x.shape[-1])
    # Three columns for each example are less to multiply than its activations, which
    # are then read once.
    columns = style[:, :, None] * kernel[0, 0]
    rgb = convolutions.convolve_pixels(x, columns.astype(x.dtype), precision)
    return clamp(rgb.astype(jnp.float32) + bias, bound)


def pixel_norm(x: jax.Array, axis: int = -1) -> jax.Array:
    """Vectors along an axis divided by their root mean square."""
    return x * lax.rsqrt(jnp.mean(x**2, axis=axis, keepdims=True) + _EPSILON)


class Dense(linen.Module):
    """Equalised dense layer: stored weights are scaled by lr_multiplier / sqrt(in).

    Attributes:
      features: length of the output.
      precision: precision of the product.
      lr_multiplier: scale of weights and bias.
      bias_value: initial bias, one or all of them.
      kernel_std: initial deviation of the weights, before their scale.
    """

    features: int
    precision: str | lax.Precision
    lr_multiplier: float = 1.0
    bias_value: float | tuple[float, ...] = 0.0
    kernel_std: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        in_features = x.shape[-1]
        kernel = self.param(
            "kernel",
            nn.initializers.normal(self.kernel_std / self.lr_multiplier),
            (in_features, self.features),
        )
        bias = self.param(
            "bias",
            nn.initializers.constant(np.asarray(self.bias_value)),
            (self.features,),
        )
        scale = self.lr_multiplier / math.sqrt(in_features)
        y = jnp.dot(x, kernel * scale, precision=self.precision)
        return y + bias * self.lr_multiplier
