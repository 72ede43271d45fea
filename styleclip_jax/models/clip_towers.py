"""Parts that the families of CLIP share: configurations of towers, and embeddings."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.models import linen
from styleclip_jax.models.runtime import Runtime
from styleclip_jax.models.transformer import Encoder, Size
from styleclip_jax.ops import products
from styleclip_jax.settings.networks import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class TextConfig(Runtime):
    """Base of configurations: the tower of texts; the defaults are those of ViT-B/32.

    Attributes:
      vocab_size: number of tokens.
      context_length: most tokens of a text.
      text_width: features per token.
      text_layers: transformer blocks over tokens.
      text_heads: attention heads over tokens.
      text_mlp_width: hidden features of the blocks' dense part.
      text_act: activation of these, one of `settings.networks.ACTIVATIONS`.
      text_eps: epsilon of the tower's layer norms.
    """

    vocab_size: int = 49408
    context_length: int = 77
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    text_mlp_width: int = 2048
    text_act: str = "quick_gelu"
    text_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise UserError(
                    f"{name} must be a whole number, found {value}", field=name
                )
        check_heads(self, "text")

    @property
    def text(self) -> Size:
        """Size of the tower of texts."""
        return _size(self, "text")


@dataclasses.dataclass(frozen=True)
class VitConfig(TextConfig):
    """Base of configurations with a vision transformer; the defaults are ViT-B/32's.

    Attributes:
      image_size: width and height of the input image.
      patch_size: width and height of a patch.
      vision_width: features per patch.
      vision_layers: transformer blocks over patches.
      vision_heads: attention heads over patches.
      vision_mlp_width: hidden features of the blocks' dense part.
      vision_act: activation of these, one of `settings.networks.ACTIVATIONS`.
      vision_eps: epsilon of the tower's layer norms.
    """

    image_size: int = 224
    patch_size: int = 32
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vision_mlp_width: int = 3072
    vision_act: str = "quick_gelu"
    vision_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self, "vision")

    @property
    def vision(self) -> Size:
        """Size of the tower of images."""
        return _size(self, "vision")


def _size(config: Any, tower: str) -> Size:
    """Size of a tower, whose fields begin with its name."""
    names = ("width", "layers", "heads", "mlp_width", "act", "eps")
    return Size(*(getattr(config, f"{tower}_{name}") for name in names))


def check_heads(config: Any, tower: str) -> None:
    """Refuses a tower with no such activation, or whose width its heads do not share.

    Raises:
      UserError: names the field.
    """
    checks.one_of(config, **{f"{tower}_act": ACTIVATIONS})
    width, heads = (getattr(config, f"{tower}_{n}") for n in ("width", "heads"))
    if width % heads:
        name = f"{tower}_width"
        raise UserError(
            f"{name} {width} must be a multiple of {tower}_heads {heads}", field=name
        )


class PatchEmbedding(linen.Module):
    """Patches as tokens, [B, S, S, 3] → [B, P, width]: a convolution as a product.

    The patches do not overlap, so that one product of rows is the convolution; its
    gradient is as fast inside of loops as outside.
    """

    width: int
    patch_size: int
    dtype: Any
    use_bias: bool = False

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        size = self.patch_size
        kernel = self.param(
            "kernel", nn.initializers.normal(), (size, size, image.shape[3], self.width)
        )
        batch, height, width, channels = image.shape
        rows, columns = height // size, width // size
        x = image.reshape(batch, rows, size, columns, size, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)
        kernel = kernel.reshape(-1, self.width).astype(self.dtype)
        x = products.dot(x.astype(self.dtype), kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,))
            x = x + bias.astype(self.dtype)
        return x


class TextTower(linen.Module):
    """Tower of texts, tokens [B, T] → [B, width]: the feature of the end token."""

    size: Size
    vocab_size: int
    context_length: int
    eos_token_id: int
    runtime: Runtime

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = TokenEmbeddings(
            self.size.width, self.vocab_size, self.context_length, name="embeddings"
        )(tokens)
        # Padding comes after the end token, where causal attention hides it.
        x = Encoder(self.size, self.runtime, causal=True, name="encoder")(x)
        x = linen.LayerNorm(
            epsilon=self.size.eps,
            dtype=jnp.dtype(self.runtime.dtype),
            name="final_layer_norm",
        )(x)
        ends = tokens if self.eos_token_id == 2 else tokens == self.eos_token_id
        return x[jnp.arange(len(tokens)), jnp.argmax(ends, axis=-1)]


class TokenEmbeddings(linen.Module):
    """Tokens and their places as features, [B, T] → [B, T, width]."""

    width: int
    vocab_size: int
    context_length: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = embedding(self.vocab_size, self.width, name="token_embedding")(tokens)
        places = embedding(self.context_length, self.width, name="position_embedding")
        return x + places(jnp.arange(tokens.shape[1]))


def embedding(number: int, width: int, *, name: str) -> linen.Embed:
    """Table of features with transformers' initialisation."""
    return linen.Embed(
        number, width, embedding_init=nn.initializers.normal(), name=name
    )
