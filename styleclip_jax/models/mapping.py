"""Mapping network of StyleGAN2 in Flax: z, the class, or both, to w."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from styleclip_jax.models import layers, linen
from styleclip_jax.ops import products

_LR_MULTIPLIER = 0.01


class Mapping(linen.Module):
    """Mapping network: z, the class, or both, to w; exact on every device.

    It is a few products of vectors, and decides which face a seed shows.

    Attributes:
      w_dim: length of w.
      c_dim: number of classes, 0 for none.
      num_layers: dense layers.
      averages: whether it keeps an average of w, as a generator's does.
    """

    w_dim: int
    c_dim: int
    num_layers: int
    averages: bool = True

    @nn.compact
    def __call__(self, z: jax.Array | None, label: jax.Array | None) -> jax.Array:
        if self.averages:
            # The running average of w: data that travels with the weights.
            self.param("w_avg", nn.initializers.zeros, (self.w_dim,))
        parts = [] if z is None else [layers.pixel_norm(z)]
        if label is not None:
            embedded = layers.Dense(self.w_dim, products.EXACT, name="embed")(label)
            parts.append(layers.pixel_norm(embedded))
        x = jnp.concatenate(parts, axis=-1)
        for i in range(self.num_layers):
            layer = layers.Dense(
                self.w_dim, products.EXACT, _LR_MULTIPLIER, name=f"fc{i}"
            )
            x = layers.leaky_relu(layer(x))
        return x
