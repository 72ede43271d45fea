"""Perception of images: vectors of a network whose squared distances people see."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from styleclip_jax import spaces
from styleclip_jax.models.network import Network
from styleclip_jax.ops import products, resampling


@struct.dataclass
class Perception:
    """Perception of images by a network, such as LPIPS.

    Attributes:
      network: the network.
      look: (network, images [B, H, W, 3] in [-1, 1]) → [B, N].
      largest: width and height from which on images are shrunk to it; None for none.
    """

    network: Network
    look: Callable[[Network, spaces.Image], jax.Array] = struct.field(pytree_node=False)
    largest: int | None = struct.field(pytree_node=False, default=None)

    def __call__(self, image: spaces.Image) -> jax.Array:
        """Vectors [B, N] of images [B, H, W, 3] in [-1, 1]."""
        size = image.shape[1:3]
        if self.largest is not None and max(size) > self.largest:
            rows, columns = (resampling.area_matrix(x, self.largest) for x in size)
            image = resampling.resize(image, rows, columns, products.EXACT)
        return self.look(self.network, image)


def distance(one: jax.Array, other: jax.Array) -> jax.Array:
    """Squared distances [B] of vectors [B, N]."""
    return jnp.sum(jnp.square(one - other), axis=-1)
