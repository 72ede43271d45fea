"""Names of directions by CLIP: the texts that a direction leads to.

A direction moves the image features of faces s_n from one end to the other,

  m = unit(mean_n unit(E(s_n + αΔs) − E(s_n − αΔs))),

and a text t_j stands apart from the mean text by

  d_j = unit(t_j − mean_i t_i).

Its score is the cosine ⟨m, d_j⟩: from 1, where the direction leads to the text and to
nothing else, to −1, where its opposite does. The mean is taken away because all texts
share a part, which would let those that CLIP hardly knows win everywhere.
"""

import jax
import jax.numpy as jnp

from styleclip_jax import losses, spaces
from styleclip_jax.methods import global_directions
from styleclip_jax.methods.global_directions import Direction
from styleclip_jax.models import clip, clip_input, generators
from styleclip_jax.ops import norms, products


def ends(
    networks: losses.Networks,
    styles: spaces.Styles,
    direction: Direction,
    alpha: float | jax.Array,
) -> tuple[spaces.Image, spaces.Image, jax.Array]:
    """Images at both ends of a direction, and how far CLIP's feature moves between.

    Args:
      networks: generator and CLIP.
      styles: tuple of [B, C], the faces.
      direction: direction Δs.
      alpha: strength at the far end; its opposite at the near one.

    Returns:
      Images [B, H, W, 3] of −α and of +α, and [B, E] unit vectors between their
      features; zero where nothing moves.
    """

    def at(strength: float | jax.Array) -> tuple[spaces.Image, jax.Array]:
        moved = global_directions.edit(styles, direction, strength)
        image = generators.synthesize_styles(networks.generator, moved)
        seen = clip_input.preprocess_clip(networks.clip, image)
        return image, norms.unit_by_rsqrt(clip.encode_image(networks.clip, seen))

    (low, start), (high, end) = at(-alpha), at(alpha)
    return low, high, norms.unit_by_rsqrt(end - start)


def scores(movement: jax.Array, text: jax.Array) -> jax.Array:
    """Scores of texts for a direction.

    Args:
      movement: [N, E] unit vectors of `ends`, a face each.
      text: [T, E] unit features of two texts or more.

    Returns:
      [T] in [-1, 1].
    """
    mean = norms.unit_by_rsqrt(jnp.mean(movement, axis=0))
    apart = norms.unit_by_rsqrt(text - jnp.mean(text, axis=0))
    return jnp.matmul(apart, mean, precision=products.EXACT)
