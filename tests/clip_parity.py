"""Comparison of a CLIP with golden data: features, gradient and preprocessing."""

from typing import Any

import jax
import jax.numpy as jnp

from styleclip_jax.models import clip, clip_input
from styleclip_jax.ops import norms
from tests import golden_data

encode_image = jax.jit(clip.encode_image)
encode_text = jax.jit(clip.encode_text)


def check(
    case: golden_data.Case, network: clip.Clip, images: str, tokens: str, pixels: str
) -> None:
    """Fails unless a network computes what a folder of golden data holds.

    Args:
      case: the folder.
      network: the CLIP.
      images: name of its preprocessed images.
      tokens: name of its tokens.
      pixels: name of its picture, preprocessed.
    """
    image = jnp.asarray(golden_data.to_nhwc(case[images]))
    feature = encode_image(network, image)
    text_feature = encode_text(network, jnp.asarray(case[tokens]))
    case.check("image_features", feature)
    case.check("text_features", text_feature)
    case.check("image_normalised", norms.unit(feature))
    case.check("text_normalised", norms.unit(text_feature))
    case.check("logits_per_image", clip.logits(network, feature, text_feature))

    def weighted(image: Any) -> jax.Array:
        return jnp.sum(clip.encode_image(network, image) * case["grad_weight"])

    gradient = jax.jit(jax.grad(weighted))(image)
    case.check("image_grad", golden_data.to_nchw(gradient))
    check_preprocessing(case, network, "picture", pixels)


def check_preprocessing(
    case: golden_data.Case, network: clip.Clip, picture: str, name: str
) -> None:
    """Fails unless both functions preprocess a picture as golden data has it."""
    image = jnp.asarray(case[picture][None])
    exact = clip_input.preprocess_clip_uint8(network, image)
    case.check(name, golden_data.to_nchw(exact))
    smooth = clip_input.preprocess_clip(network, image / 127.5 - 1)
    case.check(name, golden_data.to_nchw(smooth))
