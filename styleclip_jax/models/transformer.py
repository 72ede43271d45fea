"""Transformer of the towers of CLIP: pre-norm blocks with transformers' names.

Vaswani et al. 2017, "Attention is all you need", with the norms before each part. The
parameters of an `Encoder` are named as those of FlaxCLIPEncoder.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from styleclip_jax.models import linen
from styleclip_jax.models.runtime import Runtime

# Functions of `ACTIVATIONS`.
_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}


class Size(NamedTuple):
    """Size of a transformer and its activation.

    Attributes:
      width: features per token.
      layers: number of blocks.
      heads: attention heads.
      mlp_width: hidden features of the blocks' dense part.
      activation: activation of the dense part, one of `settings.networks.ACTIVATIONS`.
      eps: epsilon of every layer norm.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    eps: float


class Encoder(linen.Module):
    """Blocks of a transformer, [B, T, width] → [B, T, width].

    Attributes:
      size: size of the blocks.
      causal: whether a token sees only those up to itself.
      runtime: type, precision and memory of the computation.
    """

    size: Size
    runtime: Runtime
    causal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _Layers(self.size, self.runtime, self.causal, name="layers")(x)


class _Layers(linen.Module):
    size: Size
    runtime: Runtime
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        block = Block(self.size, self.runtime, self.causal, parent=None)
        for index in range(self.size.layers):
            if self.is_initializing():
                x = block.copy(parent=self, name=str(index))(x)
            else:
                x = _apply(block, self.variables["params"][str(index)], x)
        return x


@functools.partial(jax.jit, static_argnums=0)
def _apply(block: "Block", params: Any, x: jax.Array) -> jax.Array:
    """A block by itself; those of one shape are traced once in a process."""
    apply: Any = jax.checkpoint(block.apply) if block.runtime.remat else block.apply
    return apply({"params": params}, x)


class Block(linen.Module):
    """Attention, then a dense part, each after a norm and beside a shortcut."""

    size: Size
    runtime: Runtime
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, dtype = self.size, jnp.dtype(self.runtime.dtype)
        norm = functools.partial(linen.LayerNorm, epsilon=size.eps, dtype=dtype)
        attention = Attention(size.width, size.heads, self.causal, dtype)
        x = x + attention.copy(name="self_attn")(norm(name="layer_norm1")(x))
        return x + Mlp(size, dtype, name="mlp")(norm(name="layer_norm2")(x))


class Attention(linen.Module):
    """Self-attention, [B, T, width] → [B, T, width]."""

    width: int
    heads: int
    causal: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        query, key, value = (
            dense(self.width, self.dtype, name=f"{part}_proj")(x).reshape(
                *x.shape[:2], self.heads, -1
            )
            for part in ("q", "k", "v")
        )
        bias = None
        if self.causal:
            length = x.shape[1]
            seen = jnp.tril(jnp.ones((length, length), bool))
            lowest = jnp.finfo(self.dtype).min
            bias = jnp.where(seen, 0, lowest).astype(self.dtype)
        weights = nn.dot_product_attention_weights(
            query, key, bias=bias, deterministic=True, dtype=self.dtype
        )
        mixed = jnp.einsum("...hqk,...khd->...qhd", weights, value)
        return dense(self.width, self.dtype, name="out_proj")(mixed.reshape(x.shape))


class Mlp(linen.Module):
    """Two dense layers with an activation between."""

    size: Size
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = dense(self.size.mlp_width, self.dtype, name="fc1")(x)
        x = _ACTIVATIONS[self.size.activation](x)
        return dense(self.size.width, self.dtype, name="fc2")(x)


def dense(
    features: int, dtype: Any, *, name: str, use_bias: bool = True
) -> linen.Dense:
    """Dense layer with transformers' initialisation."""
    return linen.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=nn.initializers.normal(0.01),
        name=name,
    )
