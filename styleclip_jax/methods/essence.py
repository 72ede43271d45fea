"""Essence of an image: one direction Δs that moves every face towards the image.

Learned as StyleMC's (`stylemc`), with the CLIP feature of the image, e, in place of a
text's, and two more terms. Each face's step Δe_i in CLIP's space is parallel to what
sets the image apart from all faces on average, ē, and to the steps of the others:

  directional(i) = 1 − cos(Δe_i, e − ē)
  consistency(i) = 1 − mean over j ≠ i of  cos(Δe_i, Δe_j)
  Δe_i = E(G(s_i + Δs)) − E(G(s_i))

Source: Chefer et al. 2021 (TargetCLIP), there in W+ and without ē.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from styleclip_jax import losses, spaces
from styleclip_jax.methods import optimization, stylemc
from styleclip_jax.models import clip, clip_input
from styleclip_jax.ops import products
from styleclip_jax.settings.edits import EssenceConfig


def official(
    config: EssenceConfig, layout: tuple[spaces.StyleLayer, ...]
) -> stylemc.Problem:
    """Problem with StyleMC's terms and both further ones.

    `stylemc.Faces.neutral` is the mean feature of the faces, ē.

    Raises:
      UserError: the generator has no such resolution.
    """
    problem = stylemc.official(config, layout)
    preprocess = optimization.PREPROCESSINGS[config.clip_preprocess]
    directional = functools.partial(losses.directional_distance, preprocess=preprocess)
    consistency = functools.partial(consistency_distance, preprocess=preprocess)
    terms = {
        "directional": (config.directional_lambda, directional),
        "consistency": (config.consistency_lambda, consistency),
    }
    return problem._replace(objective={**problem.objective, **terms})


def encode(
    network: clip.Clip, image: spaces.Image, *, config: EssenceConfig
) -> spaces.Feature:
    """Normalised CLIP features [B, E] of images, with the input of the objective."""
    preprocess = optimization.PREPROCESSINGS[config.clip_preprocess]
    return losses.image_features(network, image, preprocess=preprocess)


def consistency_distance(
    networks: losses.Networks,
    edit: losses.Edit,
    *,
    preprocess: Callable[..., jax.Array] = clip_input.preprocess_styleclip,
) -> spaces.PerExample:
    """1 − mean cosine of the step of each image with those of the others, [B].

    Args:
      networks: `clip` is used.
      edit: `image` and `source.image` are used, of two examples or more.
      preprocess: function that makes the images CLIP's input.
    """

    return inconsistency(losses.clip_step(networks, edit, preprocess=preprocess))


def inconsistency(step: jax.Array) -> spaces.PerExample:
    """1 − mean cosine of each of several steps [B, E] with the others, [B]."""
    length = losses.step_length(step, min_length=losses.SHORT_STEP)
    along = step / length[:, None]
    cosine = jnp.einsum("id,jd->ij", along, along, precision=products.EXACT)
    others = jnp.sum(cosine, axis=1) - jnp.diagonal(cosine)
    return 1 - others / (len(step) - 1)
