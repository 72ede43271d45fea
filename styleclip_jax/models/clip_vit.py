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
from styleclip_jax.models import clip_towers, linen, param_trees
from styleclip_jax.models.clip_towers import TextTower, VitConfig
from styleclip_jax.models.network import Network
from styleclip_jax.models.preprocessing import OPENAI, Preprocessing
from styleclip_jax.models.runtime import Runtime
from styleclip_jax.models.transformer import Encoder, Size
from styleclip_jax.settings.networks import TOWERS


@dataclasses.dataclass(frozen=True)
class ClipConfig(VitConfig):
    """Static architecture of a CLIP; the defaults are OpenAI's ViT-B/32.

    Attributes:
      eos_token_id: end token, at whose first place the text feature is taken. 2 means
        at the largest id, as OpenAI's code does and older files of transformers say.
      embed_dim: length of an image or text feature.
      preprocessing: how the images of its training were made.
      towers: "own", or "transformers" for FlaxCLIPModel's, where transformers has it
        (4.x); they are equal.
    """

    eos_token_id: int = 49407
    embed_dim: int = 512
    preprocessing: Preprocessing = OPENAI
    towers: str = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise UserError(
                f"image_size {self.image_size} must be a multiple of patch_size "
                f"{self.patch_size}",
                field="image_size",
            )
        checks.one_of(self, towers=TOWERS)


def choose_towers(network: Network, towers: str) -> Network:
    """Network with the towers of one's choice, one of TOWERS.

    Raises:
      UserError: transformers does not have them, in this version or for this family.
    """
    if towers == "own":
        return network
    if not isinstance(network.config, ClipConfig):
        raise UserError(
            f"clip_towers: expected own for a {type(network.config).__name__}, which "
            f"transformers has no Flax class for, found {towers}",
            field="clip_towers",
        )
    config = dataclasses.replace(network.config, towers=towers)
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


class ClipModule(linen.Module):
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


class VisionTower(linen.Module):
    """Tower of images, [B, S, S, 3] → [B, width], and its patches [B, P, width]."""

    size: Size
    image_size: int
    patch_size: int
    runtime: Runtime

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        norm = functools.partial(
            linen.LayerNorm, epsilon=self.size.eps, dtype=jnp.dtype(self.runtime.dtype)
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


class _VisionEmbeddings(linen.Module):
    """Patches of images as tokens [B, 1 + P, width], behind one for the whole."""

    width: int
    image_size: int
    patch_size: int
    runtime: Runtime

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        normal = nn.initializers.normal
        first = self.param("class_embedding", normal(0.02), (self.width,))
        patches = clip_towers.PatchEmbedding(
            self.width,
            self.patch_size,
            jnp.dtype(self.runtime.dtype),
            name="patch_embedding",
        )(image)
        first = jnp.broadcast_to(first, (len(image), 1, self.width))
        x = jnp.concatenate([first, patches], axis=1)
        count = x.shape[1]
        places = clip_towers.embedding(count, self.width, name="position_embedding")
        return x + places(jnp.arange(count))


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


def _projection(config: ClipConfig) -> linen.Dense:
    return linen.Dense(
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
