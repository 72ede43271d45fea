"""Losses of StyleCLIP: what they may see, each term, and their weighted sum.

A loss is a function f(networks, edit) → [B], one value per example; whoever calls it
reduces. An objective is {name: (weight, loss)}. A new loss is one more such function:

  def brightness(networks, edit):
      return -jnp.mean(edit.image, axis=(1, 2, 3))

  objective = {"clip": (1.0, clip_distance), "bright": (0.1, brightness)}
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from styleclip_jax import spaces
from styleclip_jax.models import clip, clip_input, irse50
from styleclip_jax.models.clip import Clip
from styleclip_jax.models.irse50 import Identity
from styleclip_jax.models.stylegan2 import Generator
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
      text: [B, E] normalised CLIP features of each example's prompt.
    """

    image: spaces.Image
    latent: Any
    source: Source
    text: spaces.Feature


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
    seen = preprocess(networks.clip, edit.image)
    features = clip.encode_image(networks.clip, seen)
    cosine = jnp.sum(norms.unit(features) * edit.text, axis=-1)
    logit = clip.logit_scale(networks.clip) * cosine + clip.logit_bias(networks.clip)
    return 1 - logit / 100


def latent_l2(networks: Networks, edit: Edit) -> spaces.PerExample:
    """Sum of squared differences between the edited and the source latent, [B].

    Source: `l2_loss` of the official optimization, a sum over the whole latent (over
    all style vectors in S).
    """
    del networks
    return _latent_squares(edit, jnp.sum)


def latent_mean_squares(networks: Networks, edit: Edit) -> spaces.PerExample:
    """Mean of squared differences between the edited and the source latent, [B].

    In S the sum over style vectors of the mean of each.

    Source: `l2_loss` of the official mapper, which takes a mean where the optimization
    takes a sum.
    """
    del networks
    return _latent_squares(edit, jnp.mean)


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
    """Weighted sum of an objective, [B], and each term before its weight, [B]."""
    terms = {name: loss(networks, edit) for name, (_, loss) in objective.items()}
    total = sum(objective[name][0] * term for name, term in terms.items())
    return jnp.asarray(total), terms


def _latent_squares(edit: Edit, reduce: Callable[..., jax.Array]) -> spaces.PerExample:
    """Squared differences to the source latent, reduced for each vector and added."""

    def squares(latent: jax.Array, source: jax.Array) -> jax.Array:
        return reduce(jnp.square(latent - source), axis=range(1, latent.ndim))

    leaves = jax.tree.map(squares, edit.latent, edit.source.latent)
    return jax.tree.reduce(jnp.add, leaves)
