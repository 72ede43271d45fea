"""Layers that the networks of StyleGAN2 and its mappers share."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax.models import linen

_EPSILON = 1e-8


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky ReLU with slope 0.2 below zero and the official gain of sqrt(2)."""
    # `where`, not `maximum(x, 0.2 x)`: XLA differentiates the latter wrongly inside
    # the whole network.
    return jnp.where(x > 0, x, 0.2 * x) * math.sqrt(2)


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
