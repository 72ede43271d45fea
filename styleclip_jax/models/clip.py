"""CLIP: the towers of transformers' FlaxCLIPModel as pure functions, and tokens.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision". transformers takes seconds to import, so it is imported by the functions
that need it.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import checks, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import bpe, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.ops import norms

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Static architecture of a CLIP; the defaults are ViT-B/32.

    Attributes:
      image_size: width and height of the input image.
      patch_size: width and height of a patch.
      vision_width: features per patch.
      vision_layers: transformer blocks over patches.
      vision_heads: attention heads over patches.
      vision_mlp_width: hidden features of the blocks' dense part.
      vocab_size: number of tokens.
      context_length: most tokens of a text.
      eos_token_id: end token, at whose first place the text feature is taken. 2 means
        at the largest id, as OpenAI's code does and older files of transformers say.
      text_width: features per token.
      text_layers: transformer blocks over tokens.
      text_heads: attention heads over tokens.
      text_mlp_width: hidden features of the blocks' dense part.
      embed_dim: length of an image or text feature.
      hidden_act: activation, one of ACTIVATIONS.
      layer_norm_eps: epsilon of every layer norm.
      dtype: "float32", or "bfloat16" for activations; features are float32 always.
    """

    image_size: int = 224
    patch_size: int = 32
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vision_mlp_width: int = 3072
    vocab_size: int = 49408
    context_length: int = 77
    eos_token_id: int = 49407
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    text_mlp_width: int = 2048
    embed_dim: int = 512
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise UserError(
                    f"{name} must be a whole number, found {value}", field=name
                )
        if self.image_size % self.patch_size:
            raise UserError(
                f"image_size {self.image_size} must be a multiple of patch_size "
                f"{self.patch_size}",
                field="image_size",
            )
        for tower in ("vision", "text"):
            width = getattr(self, f"{tower}_width")
            heads = getattr(self, f"{tower}_heads")
            if width % heads:
                name = f"{tower}_width"
                raise UserError(
                    f"{name} {width} must be a multiple of {tower}_heads {heads}",
                    field=name,
                )
        checks.one_of(self, hidden_act=ACTIVATIONS)
        checks.activation_dtype(self)


Clip = Network[ClipConfig]


def init(key: jax.Array, config: ClipConfig) -> Any:
    """Random parameters with transformers' initialisation, as a nested dict."""
    return _module(config).init(
        key,
        jnp.zeros((1, 1), jnp.int32),
        jnp.zeros((1, config.image_size, config.image_size, 3)),
        jnp.ones((1, 1), jnp.int32),
        jnp.zeros((1, 1), jnp.int32),
    )["params"]


@functools.cache
def param_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its name, such as "text_projection/kernel"."""
    return param_trees.shapes_of(init, config)


def encode_image(network: Clip, image: spaces.Square) -> spaces.Feature:
    """Image features, not normalised.

    Args:
      network: the CLIP.
      image: [B, S, S, 3] with S = network.config.image_size, preprocessed by one of the
        functions of `clip_input`.

    Returns:
      [B, embed_dim] float32.

    Raises:
      ValueError: the image has another shape.
    """
    return encode_image_and_patches(network, image)[0]


def encode_image_and_patches(
    network: Clip, image: spaces.Square
) -> tuple[spaces.Feature, jax.Array]:
    """Image features as `encode_image` gives them, and features of the patches.

    Returns:
      Features [B, embed_dim], and the last layer's patches [B, P, vision_width] from
      left to right and top to bottom, not normalised; both float32.

    Raises:
      ValueError: the image has another shape.
    """
    size = network.config.image_size
    if image.ndim != 4 or image.shape[1:] != (size, size, 3):
        raise ValueError(
            f"expected images [B, {size}, {size}, 3], found {list(image.shape)}"
        )

    def features(module: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        output = module.vision_model(pixel_values=image)
        feature = module.visual_projection(output.pooler_output)
        return feature, output.last_hidden_state[:, 1:]

    with _matmul_precision(network.config):
        feature, patches = _module(network.config).apply(
            {"params": network.params}, image, method=features
        )
    return feature.astype(jnp.float32), patches.astype(jnp.float32)


def encode_text(network: Clip, tokens: spaces.Tokens) -> spaces.Feature:
    """Text features, not normalised.

    Args:
      network: the CLIP.
      tokens: [B, T] integers from `tokenize`, T at most network.config.context_length.

    Returns:
      [B, embed_dim] float32.

    Raises:
      ValueError: the tokens have another shape.
    """
    length = network.config.context_length
    if tokens.ndim != 2 or tokens.shape[1] > length:
        raise ValueError(
            f"expected tokens [B, at most {length}], found {list(tokens.shape)}"
        )

    def features(module: Any, tokens: jax.Array) -> jax.Array:
        # Padding comes after the end token, where causal attention hides it.
        pooled = module.text_model(
            input_ids=tokens,
            attention_mask=None,
            position_ids=jnp.arange(tokens.shape[1])[None],
        ).pooler_output
        return module.text_projection(pooled)

    with _matmul_precision(network.config):
        feature = _module(network.config).apply(
            {"params": network.params}, tokens, method=features
        )
    return feature.astype(jnp.float32)


def logits(
    network: Clip, image_feature: spaces.Feature, text_feature: spaces.Feature
) -> jax.Array:
    """Logits: exp(logit_scale) · cosine of every image with every text.

    Args:
      network: the CLIP.
      image_feature: [B, D], need not be normalised.
      text_feature: [N, D], need not be normalised.

    Returns:
      [B, N], OpenAI's logits_per_image.
    """
    cosine = jnp.matmul(
        norms.unit(image_feature), norms.unit(text_feature).T, precision="highest"
    )
    return jnp.exp(network.params["logit_scale"]) * cosine


def encode_prompts(
    network: Clip, tokenizer: bpe.Tokenizer, prompts: Sequence[str]
) -> spaces.Feature:
    """Normalised features [B, embed_dim] of prompts.

    Raises:
      UserError: a prompt is too long.
    """
    length = network.config.context_length
    tokens = jnp.asarray(tokenize(tokenizer, prompts, context_length=length))
    return norms.unit(jax.jit(encode_text)(network, tokens))


def tokenize(
    tokenizer: bpe.Tokenizer,
    texts: Sequence[str],
    *,
    context_length: int,
    truncate: bool = False,
) -> np.ndarray:
    """Token ids of texts: start, tokens, end, then zeros.

    Args:
      tokenizer: that of the CLIP.
      texts: B texts; an empty one gives start and end alone.
      context_length: length T of a row.
      truncate: cut long texts, and let them end with the end token, instead of raising.

    Returns:
      [B, T] int32.

    Raises:
      UserError: a text is too long.

    Source: clip.tokenize.
    """
    tokens = np.zeros((len(texts), context_length), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        ids = [tokenizer.start, *bpe.encode(tokenizer, text), tokenizer.end]
        if len(ids) > context_length:
            if not truncate:
                raise UserError(
                    f"text {text!r}: expected at most {context_length} tokens with "
                    f"start and end, found {len(ids)}: shorten it"
                )
            ids = [*ids[: context_length - 1], tokenizer.end]
        row[: len(ids)] = ids
    return tokens


def transformers_config(config: ClipConfig) -> Any:
    """Configuration as a `transformers.CLIPConfig`."""
    import transformers

    both = {
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "projection_dim": config.embed_dim,
    }
    return transformers.CLIPConfig(
        text_config={
            **both,
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.context_length,
            "bos_token_id": config.vocab_size - 2,
            "eos_token_id": config.eos_token_id,
            "hidden_size": config.text_width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "intermediate_size": config.text_mlp_width,
        },
        vision_config={
            **both,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "hidden_size": config.vision_width,
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": config.vision_heads,
            "intermediate_size": config.vision_mlp_width,
        },
        projection_dim=config.embed_dim,
    )


@functools.cache
def _module(config: ClipConfig) -> Any:
    """Linen module inside FlaxCLIPModel."""
    import transformers

    return transformers.FlaxCLIPModel.module_class(
        config=transformers_config(config), dtype=jnp.dtype(config.dtype)
    )


def _matmul_precision(config: ClipConfig) -> contextlib.AbstractContextManager[Any]:
    # On accelerators JAX multiplies float32 matrices in less than float32 by default.
    return jax.default_matmul_precision(
        "highest" if config.dtype == "float32" else "default"
    )
