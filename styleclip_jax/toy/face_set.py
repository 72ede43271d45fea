"""Set of drawn faces: images of the embedded world, as many as are asked for."""

import numpy as np

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.progress import Listener
from styleclip_jax.toy import attributes, drawing

# Side of the pictures that the embedded models know.
RESOLUTION = 64
# First number of the seed of each face; the embedded networks were trained on others.
_SEED = 1_000_003


class DrawnFaces:
    """Random faces, each from its own seed.

    An `image_sets.ImageSet`.
    """

    labels = None

    def __init__(self, count: int, resolution: int = RESOLUTION) -> None:
        self._count, self._resolution = count, resolution
        self.name = "drawn faces"
        self.identity = f"drawn faces of {resolution}, seed {_SEED}"

    def __len__(self) -> int:
        return self._count

    def check(self, resolution: spaces.Size, listener: Listener) -> None:
        """Checks that a generator draws them as large.

        Raises:
          UserError: it does not.
        """
        if resolution != self._resolution:
            raise UserError(
                "data: expected images of the generator's "
                f"{spaces.describe_size(resolution)}, found none; "
                f"drawn faces are of {self._resolution}²",
                field="data",
            )

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Draws some, [B, H, W, 3] uint8."""
        return np.stack([self._draw(int(row)) for row in rows])

    def _draw(self, row: int) -> np.ndarray:
        face = attributes.sample_face(np.random.default_rng((_SEED, row)))
        return drawing.draw(face, self._resolution)
