"""Batch normalisation whose running statistics are parameters without gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax.models import linen

_MOMENTUM = 0.9


class BatchNorm(linen.Module):
    """Batch normalisation over all axes but the last, by running statistics.

    The running mean and variance are data that travels with the weights. With `train`
    those of the batch count, and move the running ones.

    Attributes:
      epsilon: what is added to the variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = lax.stop_gradient(self.param("mean", nn.initializers.zeros, shape))
        var = lax.stop_gradient(self.param("var", nn.initializers.ones, shape))
        if train:
            running, wide = (mean, var), x.astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            mean, var = jnp.mean(wide, axes), jnp.var(wide, axes)
            self._move("mean", running[0], mean)
            self._move("var", running[1], var)
        factor = scale * lax.rsqrt(var + self.epsilon)
        shift = bias - mean * factor
        return x * factor.astype(x.dtype) + shift.astype(x.dtype)

    def _move(self, name: str, old: jax.Array, of_batch: jax.Array) -> None:
        """Moves a running average towards the batch."""
        average = lax.stop_gradient(_MOMENTUM * old + (1 - _MOMENTUM) * of_batch)
        self.put_variable("params", name, average)
