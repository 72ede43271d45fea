"""CLIP with a vision transformer: towers with the parameters of FlaxCLIPModel.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision". OpenAI's ViTs and those of OpenCLIP, MetaCLIP and DFN are such.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from styleclip_jax import checks, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import param_trees, transformer
from styleclip_jax.models.network import Network
from styleclip_jax.models.preprocessing import OPENAI, Preprocessing
from styleclip_jax.models.transformer import Encoder, Runtime, Size

TOWERS = ("own", "transformers")


@dataclasses.dataclass(frozen=True)
class ClipConfig(Runtime):
    """Static architecture of a CLIP; the defaults are OpenAI's ViT-B/32.

    Attributes:
      image_size: width and height of the input image.
      patch_size: width and height of a patch.
      vision_width: features per patch.
      vision_layers: transformer blocks over patches.
      vision_heads: attention heads over patches.
      vision_mlp_width: hidden features of the blocks' dense part.
      vision_act: activation of these, one of `transformer.ACTIVATIONS`.
      vision_eps: epsilon of the tower's layer norms.
      vocab_size: number of tokens.
      context_length: most tokens of a text.
      eos_token_id: end token, at whose first place the text feature is taken. 2 means
        at the largest id, as OpenAI's code does and older files of transformers say.
      text_width: features per token.
      text_layers: transformer blocks over tokens.
      text_heads: attention heads over tokens.
      text_mlp_width: hidden features of the blocks' dense part.
      text_act: activation of these.
      text_eps: epsilon of the tower's layer norms.
      embed_dim: length of an image or text feature.
      preprocessing: how the images of its training were made.
      towers: "own", or "transformers" for FlaxCLIPModel's, where transformers has it
        (4.x); they are equal.
    """

    image_size: int = 224
    patch_size: int = 32
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vision_mlp_width: int = 3072
    vision_act: str = "quick_gelu"
    vision_eps: float = 1e-5
    vocab_size: int = 49408
    context_length: int = 77
    eos_token_id: int = 49407
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    text_mlp_width: int = 2048
    text_act: str = "quick_gelu"
    text_eps: float = 1e-5
    embed_dim: int = 512
    preprocessing: Preprocessing = OPENAI
    towers: str = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        transformer.check_sizes(self, "vision", "text")
        if self.image_size % self.patch_size:
            raise UserError(
                f"image_size {self.image_size} must be a multiple of patch_size "
                f"{self.patch_size}",
                field="image_size",
            )
        acts = transformer.ACTIVATIONS
        checks.one_of(self, vision_act=acts, text_act=acts, towers=TOWERS)

    @property
    def vision(self) -> Size:
        """Size of the tower of images."""
        return Size(
            self.vision_width,
            self.vision_layers,
            self.vision_heads,
            self.vision_mlp_width,
            self.vision_act,
            self.vision_eps,
        )

    @property
    def text(self) -> Size:
        """Size of the tower of texts."""
        return Size(
            self.text_width,
            self.text_layers,
            self.text_heads,
            self.text_mlp_width,
            self.text_act,
            self.text_eps,
        )


def choose_towers(network: Network, towers: str) -> Network:
    """Network with the towers of one's choice, where its family has a choice.

    Raises:
      UserError: there are no such towers, or transformers does not have them.
    """
    if not isinstance(network.config, ClipConfig):
        return network
    config = dataclasses.replace(network.config, towers=towers)
    if towers == "transformers":
        _transformers_module(config)
    return Network(network.params, config)


def init(key: jax.Array, config: ClipConfig) -> Any:
    """Random parameters with transformers' initialisation, as a nested dict."""
    image = jnp.zeros((1, config.image_size, config.image_size, 3))
    return ClipModule(config).init(key, image, jnp.zeros((1, 1), jnp.int32))["params"]


@functools.cache
def param_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its name, such as "text_projection/kernel"."""
    return param_trees.shapes_of(init, config)


def encode_image(network: Network[ClipConfig], image: spaces.Square) -> spaces.Feature:
    """Image features of preprocessed images; see `clip.encode_image`."""
    return encode_image_and_patches(network, image)[0]


def encode_image_and_patches(
    network: Network[ClipConfig], image: spaces.Square
) -> tuple[spaces.Feature, jax.Array]:
    """Image features as `encode_image` gives them, and features of the patches.

    Returns:
      Features [B, embed_dim], and the last layer's patches [B, P, vision_width] from
      left to right and top to bottom, not normalised; both float32.
    """
    config = network.config
    if config.towers == "transformers":
        return _encode_by_transformers(network, image)
    with config.multiply():
        feature, patches = _apply(ClipModule(config), network, image, "encode_image")
    return feature.astype(jnp.float32), patches.astype(jnp.float32)


def encode_text(network: Network[ClipConfig], tokens: spaces.Tokens) -> spaces.Feature:
    """Text features of tokens; see `clip.encode_text`."""
    config = network.config
    if config.towers == "transformers":
        return _encode_text_by_transformers(network, tokens)
    with config.multiply():
        feature = _apply(ClipModule(config), network, tokens, "encode_text")
    return feature.astype(jnp.float32)


def _apply(module: Any, network: Network, value: jax.Array, method: Any) -> Any:
    return module.apply({"params": network.params}, value, method=method)


class ClipModule(nn.Module):
    """Both towers and their projections."""

    config: ClipConfig

    def setup(self) -> None:
        config = self.config
        self.vision_model = VisionTower(
            config.vision, config.image_size, config.patch_size, config
        )
        self.text_model = TextTower(
            config.text,
            config.vocab_size,
            config.context_length,
            config.eos_token_id,
            config,
        )
        self.visual_projection = _projection(config)
        self.text_projection = _projection(config)
        self.logit_scale = self.param("logit_scale", lambda _: jnp.float32(2.6592))

    def __call__(self, image: jax.Array, tokens: jax.Array) -> Any:
        return self.encode_image(image), self.encode_text(tokens)

    def encode_image(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features, and patches of the last layer."""
        pooled, patches = self.vision_model(image)
        return self.visual_projection(pooled), patches

    def encode_text(self, tokens: jax.Array) -> jax.Array:
        """Features."""
        return self.text_projection(self.text_model(tokens))


class VisionTower(nn.Module):
    """Tower of images, [B, S, S, 3] → [B, width], and its patches [B, P, width]."""

    size: Size
    image_size: int
    patch_size: int
    runtime: Runtime

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        norm = functools.partial(
            nn.LayerNorm, epsilon=self.size.eps, dtype=jnp.dtype(self.runtime.dtype)
        )
        x = _VisionEmbeddings(
            self.size.width,
            self.image_size,
            self.patch_size,
            self.runtime,
            name="embeddings",
        )(image)
        x = norm(name="pre_layrnorm")(x)  # The misspelling is transformers'.
        x = Encoder(self.size, self.runtime, name="encoder")(x)
        return norm(name="post_layernorm")(x[:, 0]), x[:, 1:]


class _VisionEmbeddings(nn.Module):
    """Patches of images as tokens [B, 1 + P, width], behind one for the whole."""

    width: int
    image_size: int
    patch_size: int
    runtime: Runtime

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        normal = nn.initializers.normal
        first = self.param("class_embedding", normal(0.02), (self.width,))
        patches = PatchEmbedding(
            self.width,
            self.patch_size,
            jnp.dtype(self.runtime.dtype),
            name="patch_embedding",
        )(image)
        first = jnp.broadcast_to(first, (len(image), 1, self.width))
        x = jnp.concatenate([first, patches], axis=1)
        return x + embedding(x.shape[1], self.width, name="position_embedding")(
            jnp.arange(x.shape[1])
        )


class PatchEmbedding(nn.Module):
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
        x = jnp.dot(x.astype(self.dtype), kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,))
            x = x + bias.astype(self.dtype)
        return x


class TextTower(nn.Module):
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
        x = nn.LayerNorm(
            epsilon=self.size.eps,
            dtype=jnp.dtype(self.runtime.dtype),
            name="final_layer_norm",
        )(x)
        ends = tokens if self.eos_token_id == 2 else tokens == self.eos_token_id
        return x[jnp.arange(len(tokens)), jnp.argmax(ends, axis=-1)]


class TokenEmbeddings(nn.Module):
    """Tokens and their places as features, [B, T] → [B, T, width]."""

    width: int
    vocab_size: int
    context_length: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = embedding(self.vocab_size, self.width, name="token_embedding")(tokens)
        places = embedding(self.context_length, self.width, name="position_embedding")
        return x + places(jnp.arange(tokens.shape[1]))


def embedding(number: int, width: int, *, name: str) -> nn.Embed:
    """Table of features with transformers' initialisation."""
    return nn.Embed(number, width, embedding_init=nn.initializers.normal(), name=name)


def transformers_config(config: ClipConfig) -> dict[str, Any]:
    """Configuration as the document of transformers' CLIPConfig, its config.json."""
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": 2.6592,
        "initializer_factor": 1.0,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.context_length,
            "bos_token_id": config.vocab_size - 2,
            "eos_token_id": config.eos_token_id,
            "hidden_size": config.text_width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "intermediate_size": config.text_mlp_width,
            "hidden_act": config.text_act,
            "layer_norm_eps": config.text_eps,
            "projection_dim": config.embed_dim,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "hidden_size": config.vision_width,
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": config.vision_heads,
            "intermediate_size": config.vision_mlp_width,
            "hidden_act": config.vision_act,
            "layer_norm_eps": config.vision_eps,
            "projection_dim": config.embed_dim,
        },
    }


def _projection(config: ClipConfig) -> nn.Dense:
    return nn.Dense(
        config.embed_dim,
        use_bias=False,
        dtype=jnp.dtype(config.dtype),
        kernel_init=nn.initializers.normal(0.02),
    )


# FlaxCLIPModel's towers, for those who want them.


@functools.cache
def _transformers_module(config: ClipConfig) -> Any:
    """Linen module inside FlaxCLIPModel.

    Raises:
      UserError: this version of transformers has none.
    """
    import transformers

    model = getattr(transformers, "FlaxCLIPModel", None)
    if model is None:
        raise UserError(
            "clip_towers: expected transformers 4.57 for its FlaxCLIPModel, found "
            f"{transformers.__version__}",
            field="clip_towers",
        )
    document = transformers.CLIPConfig.from_dict(transformers_config(config))
    return model.module_class(config=document, dtype=jnp.dtype(config.dtype))


def _encode_by_transformers(
    network: Network[ClipConfig], image: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def features(module: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        output = module.vision_model(pixel_values=image)
        feature = module.visual_projection(output.pooler_output)
        return feature, output.last_hidden_state[:, 1:]

    with network.config.multiply():
        module = _transformers_module(network.config)
        feature, patches = _apply(module, network, image, features)
    return feature.astype(jnp.float32), patches.astype(jnp.float32)


def _encode_text_by_transformers(
    network: Network[ClipConfig], tokens: jax.Array
) -> jax.Array:
    def features(module: Any, tokens: jax.Array) -> jax.Array:
        pooled = module.text_model(
            input_ids=tokens,
            attention_mask=None,
            position_ids=np.arange(tokens.shape[1])[None],
        ).pooler_output
        return module.text_projection(pooled)

    with network.config.multiply():
        module = _transformers_module(network.config)
        feature = _apply(module, network, tokens, features)
    return feature.astype(jnp.float32)
