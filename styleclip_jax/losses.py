"""Losses of StyleCLIP: what they may see, each term, and their weighted sum.

A loss is a function f(networks, edit) → [B], one value per example; whoever calls it
reduces. An objective is {name: (weight, loss)}. A new loss is one more such function:

  def brightness(networks, edit):
      return -jnp.mean(edit.image, axis=(1, 2, 3))

  objective = {"clip": (1.0, clip_distance), "bright": (0.1, brightness)}
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import clip, clip_input, irse50
from styleclip_jax.models.clip import Clip
from styleclip_jax.models.generators import Generator
from styleclip_jax.models.irse50 import Identity
from styleclip_jax.ops import norms


@struct.dataclass
class Networks:
    """Networks that an edit runs through; they are frozen.

    Attributes:
      generator: StyleGAN2.
      clip: the joint embedding of pictures and text.
      identity: face recognition network, or None when no loss needs one.
    """

    generator: Generator
    clip: Clip
    identity: Identity | None = None


class Source(NamedTuple):
    """Source of an edit: the latent and what is known of it, without gradient.

    Attributes:
      latent: [B, L, D] W+, or a tuple of [B, C] styles.
      image: [B, H, W, 3], the generator's image of it.
      identity: [B, E] face features of that image, None without such a network.
    """

    latent: Any
    image: spaces.Image
    identity: spaces.Feature | None


class Edit(NamedTuple):
    """Edit under way: all that a loss may see.

    Attributes:
      image: [B, H, W, 3] edited image, nominally in [-1, 1].
      latent: the edited latent, of the shape of the source's.
      source: start of the edit.
      text: [B, E] normalised CLIP features of each example's prompt; the weighted sum
        of several.
      neutral: [B, E] features of the neutral text, of the same weight as the prompts
        in all; None where no loss needs them.
    """

    image: spaces.Image
    latent: Any
    source: Source
    text: spaces.Feature
    neutral: spaces.Feature | None = None


# Length of a step in CLIP's space below which its direction counts less.
SHORT_STEP = 0.1
# Change of an entry of the latent that costs as much by `latent_l1` as by `latent_l2`.
_UNIT_CHANGE = 0.2

Loss = Callable[[Networks, Edit], spaces.PerExample]
Objective = Mapping[str, tuple[float, Loss]]


def clip_distance(
    networks: Networks,
    edit: Edit,
    *,
    preprocess: Callable[..., jax.Array] = clip_input.preprocess_styleclip,
) -> spaces.PerExample:
    """1 − logits / 100 between image and text, [B].

    Args:
      networks: `clip` is used.
      edit: `image` and `text` are used.
      preprocess: function that makes the image CLIP's input. The default is the
        official resize without CLIP's normalisation; `clip_input.preprocess_clip` is
        the one that CLIP was trained with.

    Source: `CLIPLoss` of the official code; the paper's D_CLIP (eq. 1) up to the
    factor exp(logit_scale) / 100, which is about 1.
    """
    features = image_features(networks.clip, edit.image, preprocess=preprocess)
    cosine = jnp.sum(features * edit.text, axis=-1)
    logit = clip.logit_scale(networks.clip) * cosine + clip.logit_bias(networks.clip)
    return 1 - logit / 100


def directional_distance(
    networks: Networks,
    edit: Edit,
    *,
    preprocess: Callable[..., jax.Array] = clip_input.preprocess_styleclip,
) -> spaces.PerExample:
    """1 − cosine of the step between images and that between texts, [B].

    Args:
      networks: `clip` is used.
      edit: `image`, `source.image`, `text` and `neutral` are used.
      preprocess: function that makes the images CLIP's input.

    Raises:
      ValueError: there is no neutral text.

    Source: Gal et al. 2021 (StyleGAN-NADA), L_direction.
    """
    if edit.neutral is None:
        raise ValueError("directional_distance needs a neutral text, found none")
    step = clip_step(networks, edit, preprocess=preprocess)
    text_step = edit.text - edit.neutral
    return 1 - step_similarity(step, text_step, min_length=SHORT_STEP)


def image_features(
    network: Clip, image: spaces.Image, *, preprocess: Callable[..., jax.Array]
) -> spaces.Feature:
    """Unit CLIP features [B, E] of images, seen through `preprocess`."""
    return norms.unit(clip.encode_image(network, preprocess(network, image)))


def clip_step(
    networks: Networks, edit: Edit, *, preprocess: Callable[..., jax.Array]
) -> spaces.Feature:
    """Step [B, E] in CLIP's space from the source image to the edited one."""
    encode = functools.partial(image_features, networks.clip, preprocess=preprocess)
    return encode(edit.image) - encode(edit.source.image)


def step_length(step: jax.Array, *, min_length: float) -> jax.Array:
    """Lengths [B] of steps [B, E], and `min_length` for shorter ones.

    An image is its own source at the start, and has no direction. Divided by this
    length, a short step counts in proportion.
    """
    squares = jnp.sum(jnp.square(step), axis=-1)
    return jnp.sqrt(jnp.maximum(squares, min_length**2))


def step_similarity(
    image_step: jax.Array, text_step: jax.Array, *, min_length: float
) -> jax.Array:
    """Cosine [B] of steps in CLIP's space, ⟨Δi, Δt⟩ / max(|Δi|, min_length).

    Args:
      image_step: [B, E] difference of normalised features of images.
      text_step: [E] or [B, E] difference of features of texts, of any length.
      min_length: least length of a step; shorter ones count in proportion.
    """
    length = step_length(image_step, min_length=min_length)
    return jnp.sum(image_step * norms.unit_by_rsqrt(text_step), axis=-1) / length


def latent_l2(networks: Networks, edit: Edit) -> spaces.PerExample:
    """Sum of squared differences between the edited and the source latent, [B].

    Source: `l2_loss` of the official optimization, a sum over the whole latent (over
    all style vectors in S).
    """
    del networks
    return _add_differences(edit, jnp.square, jnp.sum)


def latent_l1(networks: Networks, edit: Edit) -> spaces.PerExample:
    """Sum of absolute differences to the source latent, times 0.2, [B].

    The factor makes weights comparable with those of `latent_l2`: u · |Δ| = Δ² where an
    entry has moved by u = 0.2, as in edits of the embedded models. Smaller moves cost
    more than there, larger ones less, so fewer entries move.
    """
    del networks
    return _UNIT_CHANGE * _add_differences(edit, jnp.abs, jnp.sum)


def latent_mean_squares(networks: Networks, edit: Edit) -> spaces.PerExample:
    """Mean of squared differences between the edited and the source latent, [B].

    In S the sum over style vectors of the mean of each.

    Source: `l2_loss` of the official mapper, which takes a mean where the optimization
    takes a sum.
    """
    del networks
    return _add_differences(edit, jnp.square, jnp.mean)


def identity_distance(networks: Networks, edit: Edit) -> spaces.PerExample:
    """1 − ⟨R(source), R(image)⟩, [B], with R the face features.

    Raises:
      ValueError: there is no identity network.

    Source: `IDLoss` of the official code; the paper's L_ID (eq. 2).
    """
    if networks.identity is None or edit.source.identity is None:
        raise ValueError("identity_distance needs an identity network, found none")
    features = irse50.features(networks.identity, edit.image)
    return 1 - jnp.sum(features * edit.source.identity, axis=-1)


def pixel_distance(networks: Networks, edit: Edit) -> spaces.PerExample:
    """Mean absolute plus mean squared difference to the source image, [B].

    The squares pull large errors in, the absolute values do not let go of small ones.
    """
    del networks
    difference = edit.image - edit.source.image
    error = jnp.abs(difference) + jnp.square(difference)
    return jnp.mean(error, axis=(1, 2, 3))


def describe_source(networks: Networks, latent: Any, image: spaces.Image) -> Source:
    """Source of edits, for losses, of a batch of latents and their images."""
    identity = None
    if networks.identity is not None:
        identity = irse50.features(networks.identity, image)
    return Source(latent, image, identity)


def evaluate(
    objective: Objective, networks: Networks, edit: Edit
) -> tuple[spaces.PerExample, dict[str, spaces.PerExample]]:
    """Weighted sum of an objective, [B], and each term before its weight, [B].

    All are float32, as images are, whatever the latents' type.

    Raises:
      UserError: a loss does not return one value per image.
    """
    terms = {
        name: _per_image(name, loss(networks, edit), edit)
        for name, (_, loss) in objective.items()
    }
    total = sum(objective[name][0] * term for name, term in terms.items())
    return jnp.asarray(total), terms


def _per_image(name: str, term: Any, edit: Edit) -> spaces.PerExample:
    """Values of a loss, which may be a user's own."""
    found, expected = jnp.shape(term), (len(edit.image),)
    if found != expected:
        raise UserError(
            f"objective: expected one value per image of the loss {name}, an array of "
            f"shape {expected}, found shape {found}; a mean leaves out the batch axis",
            field="objective",
        )
    return jnp.asarray(term, jnp.float32)


def _add_differences(
    edit: Edit,
    measure: Callable[[jax.Array], jax.Array],
    reduce: Callable[..., jax.Array],
) -> jax.Array:
    """Measured differences to the source latent, reduced per vector and added."""

    def differences(latent: jax.Array, source: jax.Array) -> jax.Array:
        return reduce(measure(latent - source), axis=range(1, latent.ndim))

    leaves = jax.tree.map(differences, edit.latent, edit.source.latent)
    return jax.tree.reduce(jnp.add, leaves)
