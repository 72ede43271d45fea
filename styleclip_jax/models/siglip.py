"""SigLIP and SigLIP 2 of a fixed resolution: towers with transformers' parameters.

Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training"; Tschannen et al. 2025,
"SigLIP 2". An image feature is what a learnt query finds among the patches; a text
feature is that of the last place, up to which every text is padded.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import clip_towers, linen, param_trees, transformer
from styleclip_jax.models.clip_towers import VitConfig
from styleclip_jax.models.network import Network
from styleclip_jax.models.preprocessing import Preprocessing
from styleclip_jax.models.runtime import Runtime
from styleclip_jax.models.transformer import Encoder, Size

PREPROCESSING = Preprocessing(
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize_mode="squash"
)


@dataclasses.dataclass(frozen=True)
class SiglipConfig(VitConfig):
    """Static architecture of a SigLIP; the defaults are those of the base model.

    What is left of an image beside whole patches is not seen. A text fills all of
    context_length, with padding.

    Attributes:
      preprocessing: how the images of its training were made.
    """

    patch_size: int = 16
    vision_act: str = "gelu_pytorch_tanh"
    vision_eps: float = 1e-6
    vocab_size: int = 32000
    context_length: int = 64
    text_width: int = 768
    text_heads: int = 12
    text_mlp_width: int = 3072
    text_act: str = "gelu_pytorch_tanh"
    text_eps: float = 1e-6
    preprocessing: Preprocessing = PREPROCESSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < self.patch_size:
            raise UserError(
                f"image_size {self.image_size} must be at least patch_size "
                f"{self.patch_size}",
                field="image_size",
            )

    @property
    def embed_dim(self) -> int:
        """Length of an image or text feature."""
        return self.vision_width


def init(key: jax.Array, config: SiglipConfig) -> Any:
    """Random parameters, as a nested dict."""
    image = jnp.zeros((1, config.image_size, config.image_size, 3))
    tokens = jnp.zeros((1, config.context_length), jnp.int32)
    return SiglipModule(config).init(key, image, tokens)["params"]


@functools.cache
def param_shapes(config: SiglipConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its name, such as "text_model/head/kernel"."""
    return param_trees.shapes_of(init, config)


def encode_image(
    network: Network[SiglipConfig], image: spaces.Square
) -> spaces.Feature:
    """Image features of preprocessed images; see `clip.encode_image`."""
    return _apply(network, image, "encode_image")


def encode_text(
    network: Network[SiglipConfig], tokens: spaces.Tokens
) -> spaces.Feature:
    """Text features of tokens; see `clip.encode_text`.

    Raises:
      ValueError: the texts are not padded to context_length.
    """
    length = network.config.context_length
    if tokens.shape[1] != length:
        raise ValueError(
            f"expected tokens [B, {length}], padded as `clip.tokenize` does it, found "
            f"{list(tokens.shape)}"
        )
    return _apply(network, tokens, "encode_text")


def _apply(network: Network[SiglipConfig], value: jax.Array, method: str) -> jax.Array:
    module = SiglipModule(network.config)
    with network.config.multiply():
        feature = module.apply({"params": network.params}, value, method=method)
    return jnp.asarray(feature, jnp.float32)


class SiglipModule(linen.Module):
    """Both towers, and the scale and bias of the logits."""

    config: SiglipConfig

    def setup(self) -> None:
        config = self.config
        self.vision_model = _VisionTower(config)
        self.text_model = _TextTower(config)
        # The paper's start: few of the pairs of a batch belong together.
        self.logit_scale = self._number("logit_scale", math.log(10))
        self.logit_bias = self._number("logit_bias", -10)

    def __call__(self, image: jax.Array, tokens: jax.Array) -> Any:
        return self.encode_image(image), self.encode_text(tokens)

    def encode_image(self, image: jax.Array) -> jax.Array:
        """Features [B, vision_width]."""
        return self.vision_model(image)

    def encode_text(self, tokens: jax.Array) -> jax.Array:
        """Features [B, vision_width]."""
        return self.text_model(tokens)

    def _number(self, name: str, value: float) -> jax.Array:
        return self.param(name, lambda _: jnp.full(1, value, jnp.float32))


class _VisionTower(linen.Module):
    """Tower of images, [B, S, S, 3] → [B, width]."""

    config: SiglipConfig

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        config = self.config
        x = _VisionEmbeddings(config, name="embeddings")(image)
        x = Encoder(config.vision, config, name="encoder")(x)
        x = _norm(config.vision_eps, config, name="post_layernorm")(x)
        return _PoolingHead(config.vision, config, name="head")(x)


class _VisionEmbeddings(linen.Module):
    """Patches of images as tokens with their places, [B, P, width]."""

    config: SiglipConfig

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        width, size = self.config.vision_width, self.config.patch_size
        seen = self.config.image_size // size * size
        x = clip_towers.PatchEmbedding(
            width,
            size,
            jnp.dtype(self.config.dtype),
            use_bias=True,
            name="patch_embedding",
        )(image[:, :seen, :seen])
        places = clip_towers.embedding(x.shape[1], width, name="position_embedding")
        return x + places(jnp.arange(x.shape[1]))


class _PoolingHead(linen.Module):
    """What a learnt query finds among tokens, [B, T, width] → [B, width]."""

    size: Size
    runtime: Runtime

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = jnp.dtype(self.runtime.dtype)
        shape = (1, 1, self.size.width)
        probe = self.param("probe", nn.initializers.normal(0.02), shape)
        attention = _ProbeAttention(self.size.heads, dtype, name="attention")
        pooled = attention(probe.astype(dtype), x)
        normalised = _norm(self.size.eps, self.runtime, name="layernorm")(pooled)
        return pooled + transformer.Mlp(self.size, dtype, name="mlp")(normalised)


class _ProbeAttention(linen.Module):
    """Attention of one query [1, 1, width] over tokens [B, T, width], → [B, width].

    The parameters are those of PyTorch's MultiheadAttention: projections to queries,
    keys and values in one matrix [3·width, width].
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, query: jax.Array, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        initial = nn.initializers.normal(0.01)
        kernel = self.param("in_proj_weight", initial, (3 * width, width))
        bias = self.param("in_proj_bias", nn.initializers.zeros, (3 * width,))
        query, key, value = (
            (
                jnp.dot(tokens, part.T.astype(self.dtype)) + shift.astype(self.dtype)
            ).reshape(*tokens.shape[:2], self.heads, -1)
            for tokens, part, shift in zip(
                (query, x, x), jnp.split(kernel, 3), jnp.split(bias, 3), strict=True
            )
        )
        query = jnp.broadcast_to(query, (len(x), *query.shape[1:]))
        weights = nn.dot_product_attention_weights(
            query, key, deterministic=True, dtype=self.dtype
        )
        mixed = jnp.einsum("...hqk,...khd->...qhd", weights, value)
        mixed = mixed.reshape(len(x), width)
        return transformer.dense(width, self.dtype, name="out_proj")(mixed)


class _TextTower(linen.Module):
    """Tower of texts, tokens [B, T] → [B, vision_width]: the feature of the last."""

    config: SiglipConfig

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        config = self.config
        x = clip_towers.TokenEmbeddings(
            config.text_width,
            config.vocab_size,
            config.context_length,
            name="embeddings",
        )(tokens)
        # Every token sees every other, padding too, as in its training.
        x = Encoder(config.text, config, name="encoder")(x)
        x = _norm(config.text_eps, config, name="final_layer_norm")(x[:, -1])
        dtype = jnp.dtype(config.dtype)
        return transformer.dense(config.embed_dim, dtype, name="head")(x)


def _norm(eps: float, runtime: Runtime, *, name: str) -> linen.LayerNorm:
    return linen.LayerNorm(epsilon=eps, dtype=jnp.dtype(runtime.dtype), name=name)
