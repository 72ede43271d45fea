"""The mapping network, z and class to w, and the parts that the synthesis shares."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_EPSILON = 1e-8
_LR_MULTIPLIER = 0.01


def leaky_relu(x: jax.Array) -> jax.Array:
    """With slope 0.2 below zero and the official gain of sqrt(2)."""
    # `where`, not `maximum(x, 0.2 x)`: XLA differentiates the latter wrongly inside
    # the whole network.
    return jnp.where(x > 0, x, 0.2 * x) * math.sqrt(2)


class Dense(nn.Module):
    """Equalised dense layer: stored weights are scaled by lr_multiplier / sqrt(in).

    Attributes:
      in_features: length of the input.
      features: length of the output.
      lr_multiplier: scale of weights and bias.
      bias_value: initial bias.
    """

    in_features: int
    features: int
    lr_multiplier: float = 1.0
    bias_value: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param(
            "kernel",
            nn.initializers.normal(1 / self.lr_multiplier),
            (self.in_features, self.features),
        )
        bias = self.param(
            "bias", nn.initializers.constant(self.bias_value), (self.features,)
        )
        scale = self.lr_multiplier / math.sqrt(self.in_features)
        y = jnp.dot(x, kernel * scale, precision=lax.Precision.HIGHEST)
        return y + bias * self.lr_multiplier


class Mapping(nn.Module):
    """z (and the class) to w.

    Attributes:
      w_dim: length of w.
      c_dim: number of classes, 0 for none.
      num_layers: dense layers.
    """

    w_dim: int
    c_dim: int
    num_layers: int

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None) -> jax.Array:
        # The running average of w: data that travels with the weights.
        self.param("w_avg", nn.initializers.zeros, (self.w_dim,))
        x = _normalize(z)
        if label is not None:
            embedded = Dense(self.c_dim, self.w_dim, name="embed")(label)
            x = jnp.concatenate([x, _normalize(embedded)], axis=-1)
        for i in range(self.num_layers):
            layer = Dense(x.shape[-1], self.w_dim, _LR_MULTIPLIER, name=f"fc{i}")
            x = leaky_relu(layer(x))
        return x


def _normalize(x: jax.Array) -> jax.Array:
    """Pixel norm: divides each vector by its root mean square."""
    return x * lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + _EPSILON)
