"""CLIP as one value, whatever its family: features of images and texts, and tokens.

A `Clip` is a network of any of these configurations:

  ClipConfig        vision transformers of OpenAI, OpenCLIP and others (`clip_vit`)
  ResnetClipConfig  OpenAI's residual networks (`clip_resnet`)
  SiglipConfig      SigLIP and SigLIP 2 (`siglip`)
  JointConfig       several of them, which count as one (`join`)

Those of one have image_size, context_length, embed_dim, preprocessing and those of
`runtime.Runtime`. No method knows which family it has.
"""

import dataclasses
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import checks, spaces, traced
from styleclip_jax.errors import UserError
from styleclip_jax.models import bpe, clip_resnet, clip_vit, pieces, siglip
from styleclip_jax.models.clip_resnet import ResnetClipConfig
from styleclip_jax.models.clip_vit import ClipConfig
from styleclip_jax.models.network import Network
from styleclip_jax.models.siglip import SiglipConfig
from styleclip_jax.ops import norms, products

# Module of each family: init, param_shapes, encode_image, encode_text.
_FAMILIES: dict[type, ModuleType] = {
    ClipConfig: clip_vit,
    SiglipConfig: siglip,
    ResnetClipConfig: clip_resnet,
}
# Module of each kind of tokenizer: tokenize.
_TOKENIZERS: dict[type, ModuleType] = {
    bpe.Tokenizer: bpe,
    pieces.Tokenizer: pieces,
}


@dataclasses.dataclass(frozen=True)
class JointConfig(checks.Config):
    """Configuration of several CLIPs that count as one, made by `join`.

    Attributes:
      members: configuration of each.
      weights: weight of each in losses and similarities; their sum is 1.
    """

    members: tuple[Any, ...]
    weights: tuple[float, ...]

    @property
    def embed_dim(self) -> int:
        """Length of a feature: those of the members, one after the other."""
        return sum(member.embed_dim for member in self.members)


Clip = Network[Any]
# A tokenizer, or that of each member.
Tokenizer = Any


def join(networks: Sequence[Clip], weights: Sequence[float] = ()) -> Clip:
    """Joins several CLIPs into one, whose similarity is their weighted mean.

    A feature is the members' normalised features one after the other, scaled so that
    `logits`, and so every loss of CLIP, are the weighted mean of the members'. Inputs
    (preprocessed images, tokens) are tuples, one for each.

    Args:
      networks: CLIPs of any families, at least one, none of them joined.
      weights: weight of each, above 0, of which the ratios count; equal if absent.

    Returns:
      The network; the only CLIP itself where there is one.

    Raises:
      UserError: the weights are not as many, or not positive.
    """
    weights = tuple(weights) or (1.0,) * len(networks)
    if len(weights) != len(networks) or not all(0 < w < math.inf for w in weights):
        raise UserError(
            f"clip_weights: expected {len(networks)} numbers above 0, one for each "
            f"CLIP, found {', '.join(map(str, weights))}",
            field="clip_weights",
        )
    if len(networks) == 1:
        return networks[0]
    total = sum(weights)
    return Network(
        tuple(network.params for network in networks),
        JointConfig(
            tuple(network.config for network in networks),
            tuple(weight / total for weight in weights),
        ),
    )


def members(network: Clip) -> list[Clip]:
    """CLIPs that a network joins; itself where it joins none."""
    if not isinstance(network.config, JointConfig):
        return [network]
    pairs = zip(network.params, network.config.members, strict=True)
    return [Network(params, config) for params, config in pairs]


def without_text(network: Clip) -> Clip:
    """CLIP without its tower of texts, which can only look at images."""

    def images_alone(member: Clip) -> Any:
        return {n: x for n, x in member.params.items() if not n.startswith("text")}

    if isinstance(network.config, JointConfig):
        kept = tuple(images_alone(member) for member in members(network))
        return Network(kept, network.config)
    return Network(images_alone(network), network.config)


def with_kernels_in_type(network: Clip) -> Clip:
    """CLIP of one family whose kernels have the type that it multiplies them in.

    Its features are the same; they would be rounded in every call, which takes as long
    as to multiply them.
    """

    def cast(path: Any, value: jax.Array) -> jax.Array:
        kernel = path[-1].key == "kernel"
        return value.astype(network.config.dtype) if kernel else value

    params = jax.tree_util.tree_map_with_path(cast, network.params)
    return Network(params, network.config)


def init(key: jax.Array, config: Any) -> Any:
    """Random parameters of a family's configuration, as a nested dict."""
    return _family(config).init(key, config)


def param_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its name, such as "text_projection/kernel"."""
    return _family(config).param_shapes(config)


def encode_image(network: Clip, image: Any) -> spaces.Feature:
    """Image features, not normalised.

    Args:
      network: the CLIP.
      image: [B, S, S, 3] with S = network.config.image_size, preprocessed by one of the
        functions of `clip_input`; a tuple of them for a joint CLIP.

    Returns:
      [B, embed_dim] float32.

    Raises:
      ValueError: the image has another shape.
    """
    if isinstance(network.config, JointConfig):
        return _encode_jointly(network, image, encode_image)
    size = network.config.image_size
    if image.ndim != 4 or image.shape[1:] != (size, size, 3):
        raise ValueError(
            f"expected images [B, {size}, {size}, 3], found {list(image.shape)}"
        )
    return _family(network.config).encode_image(network, image)


def encode_text(network: Clip, tokens: Any) -> spaces.Feature:
    """Text features, not normalised.

    Args:
      network: the CLIP.
      tokens: [B, T] integers from `tokenize`, T at most network.config.context_length;
        a tuple of them for a joint CLIP.

    Returns:
      [B, embed_dim] float32.

    Raises:
      ValueError: the tokens have another shape.
    """
    if isinstance(network.config, JointConfig):
        return _encode_jointly(network, tokens, encode_text)
    length = network.config.context_length
    if tokens.ndim != 2 or tokens.shape[1] > length:
        raise ValueError(
            f"expected tokens [B, at most {length}], found {list(tokens.shape)}"
        )
    return _family(network.config).encode_text(network, tokens)


def _encode_jointly(network: Clip, inputs: Any, encode: Any) -> jax.Array:
    """Members' unit features with the share of each in the length, which is 1."""
    features = [
        jnp.sqrt(share) * norms.unit(encode(member, part))
        for member, part, share in zip(
            members(network), inputs, _shares(network), strict=True
        )
    ]
    return jnp.concatenate(features, axis=-1)


def _shares(network: Clip) -> jax.Array:
    """Share of each member in the joint logits; their sum is 1."""
    scales = jnp.stack([logit_scale(member) for member in members(network)])
    weighted = jnp.asarray(network.config.weights) * scales
    return weighted / weighted.sum()


def logit_scale(network: Clip) -> jax.Array:
    """Factor from a cosine to a logit, about 100, an array []."""
    if isinstance(network.config, JointConfig):
        return _weighted(network, logit_scale)
    return jnp.exp(network.params["logit_scale"]).reshape(())


def logit_bias(network: Clip) -> jax.Array:
    """Summand of a logit, an array []; 0 where the family has none."""
    if isinstance(network.config, JointConfig):
        return _weighted(network, logit_bias)
    return jnp.reshape(network.params.get("logit_bias", 0.0), ())


def _weighted(network: Clip, value: Any) -> jax.Array:
    """Weighted mean of a value of each member."""
    pairs = zip(network.config.weights, members(network), strict=True)
    return jnp.asarray(sum(weight * value(member) for weight, member in pairs))


def logits(
    network: Clip, image_feature: spaces.Feature, text_feature: spaces.Feature
) -> jax.Array:
    """Logits: logit_scale · cosine of every image with every text + logit_bias.

    Args:
      network: the CLIP.
      image_feature: [B, D], need not be normalised.
      text_feature: [N, D], need not be normalised.

    Returns:
      [B, N], OpenAI's logits_per_image.
    """
    cosine = jnp.matmul(
        norms.unit(image_feature),
        norms.unit(text_feature).T,
        precision=products.EXACT,
    )
    return logit_scale(network) * cosine + logit_bias(network)


def encode_prompts(
    network: Clip, tokenizer: Tokenizer, prompts: Sequence[str]
) -> spaces.Feature:
    """Normalised features [B, embed_dim] of prompts.

    Raises:
      UserError: a prompt is too long, or features are not finite.
    """
    tokens = jax.tree.map(jnp.asarray, tokenize(network, tokenizer, prompts))
    features = np.asarray(norms.unit(_encode_text(network, tokens)))
    if not np.isfinite(features).all():
        raise UserError(
            "clip: its features of texts are not finite, or zero: expected a network "
            "that was trained",
            field="clip",
        )
    # By way of the host, since results of what is kept are tied to a device.
    return jnp.asarray(features)


_encode_text = jax.jit(traced.keep("clip.encode_text", encode_text))


def tokenize(
    network: Clip,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    truncate: bool = False,
) -> Any:
    """Token ids of texts, as rows of the network's context_length.

    Args:
      network: the CLIP.
      tokenizer: that of the CLIP; of each member for a joint one.
      texts: B texts; an empty one gives what begins and ends a text.
      truncate: cut long texts, and let them end with the end token, instead of raising.

    Returns:
      [B, T] int32; a tuple of them for a joint CLIP.

    Raises:
      UserError: a text is too long.

    Source: clip.tokenize.
    """
    if isinstance(network.config, JointConfig):
        pairs = zip(members(network), tokenizer, strict=True)
        return tuple(tokenize(*pair, texts, truncate=truncate) for pair in pairs)
    length = network.config.context_length
    module = _TOKENIZERS[type(tokenizer)]
    return module.tokenize(tokenizer, texts, context_length=length, truncate=truncate)


def _family(config: Any) -> ModuleType:
    """Module of a configuration's family."""
    return _FAMILIES[type(config)]
