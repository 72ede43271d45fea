"""Losses of the small CLIP's features: matching, their angles, and moves."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.ops import norms
from styleclip_jax.toy import attributes

# Length of the part of a code that all faces share; that of each attribute is 1.
_FACE_LENGTH = 0.5
# Length of the whole code of a picture.
CODE_LENGTH = float(np.hypot(_FACE_LENGTH, np.sqrt(len(attributes.ATTRIBUTES))))


def contrastive(
    image_feature: jax.Array, text_feature: jax.Array, scale: jax.Array, fits: jax.Array
) -> jax.Array:
    """Mean cross-entropy of both directions, [].

    `fits` [B, B] in [0, 1] says how far each caption is true of each picture.
    """
    logits = scale * norms.unit(image_feature) @ norms.unit(text_feature).T
    # A picture with too many unclear attributes has no caption, not even its own.
    images = fits / jnp.maximum(fits.sum(1, keepdims=True), 1e-3)
    texts = fits / jnp.maximum(fits.sum(0, keepdims=True), 1e-3)
    by_image = jax.nn.log_softmax(logits, axis=1) * images
    by_text = jax.nn.log_softmax(logits, axis=0) * texts
    return -(by_image.sum() + by_text.sum()) / (2 * len(logits))


def frame(size: int) -> np.ndarray:
    """Orthonormal rows along which the features of length `size` have their codes."""
    square = np.random.default_rng(0).normal(size=(size, size))
    return np.linalg.qr(square)[0].astype(np.float32)


def agreement(feature: jax.Array, code: jax.Array) -> jax.Array:
    """Mean cosine distance of features [B, E] to codes [B, C], []."""
    wanted = code @ frame(feature.shape[1])[: code.shape[1]]
    return jnp.mean(1 - jnp.sum(norms.unit(feature) * norms.unit(wanted), 1))


def disagreement(
    features: Sequence[jax.Array], codes: Sequence[jax.Array]
) -> jax.Array:
    """Error of the change of features against that of the codes of pictures, [].

    It is the mean squared error, relative to the change that is wanted.

    Args:
      features: two of [B, E], before and after.
      codes: two of [B, C]; what is unknown of them is NaN.
    """
    size = features[0].shape[1]
    before, after = (norms.unit(feature) for feature in features)
    found = (after - before) @ frame(size).T
    wanted = (codes[1] - codes[0]) / CODE_LENGTH
    wanted = jnp.pad(wanted, ((0, 0), (0, size - wanted.shape[1])))
    known = jnp.isfinite(wanted)
    wanted = jnp.where(known, wanted, 0)
    error = jnp.sum(known * (found - wanted) ** 2, axis=1)
    # What is wanted may be nothing; the first 4 % of the way to a value are 0.004.
    return jnp.mean(error / (jnp.sum(wanted**2, axis=1) + 0.004))


def picture_code(vectors: jax.Array) -> jax.Array:
    """Codes that the features of pictures with these vectors should have, [B, 1 + V].

    They are the roots of each attribute's shares, whose squares sum to one; the shares
    are equal where a picture does not show it (`attributes.shown` is 0). So the angle
    between two pictures says in how many attributes they agree, the way from one value
    to another leads past no third, and a picture comes no nearer to a text by losing
    what the text does not speak of. (It did with attributes around their mean, which
    are short when they are unclear.) The similarity rises most where the way begins.
    (With the shares divided by their length a tenth of a beard was not worth learning,
    and an edit's first steps went elsewhere.)
    """
    parts = [jnp.full((len(vectors), 1), _FACE_LENGTH)]
    for name, part in attributes.SLICES.items():
        count = len(attributes.ATTRIBUTES[name])
        clear = attributes.shown(vectors, name)[:, None]
        shown = clear * vectors[:, part] + (1 - clear) / count
        parts.append(jnp.sqrt(shown))
    return jnp.concatenate(parts, 1)


def caption_code(contradicted: jax.Array) -> jax.Array:
    """Code that the feature of a caption should have, which contradicts values [B, V].

    It holds, for each attribute, the values that the caption allows, around the mean of
    all: nothing for an attribute that it does not speak of. A caption that names none
    is left with what all faces have in common, [B, 1 + V].
    """
    parts = [jnp.full((len(contradicted), 1), _FACE_LENGTH)]
    for part in attributes.SLICES.values():
        allowed = 1 - contradicted[:, part]
        parts.append(allowed / allowed.sum(1, keepdims=True) - 1 / allowed.shape[1])
    return jnp.concatenate(parts, 1)
