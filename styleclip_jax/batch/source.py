"""Source of a run: latents of seeds or of a file, some at a time."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from styleclip_jax import latents, spaces
from styleclip_jax.io import latent_files


@dataclasses.dataclass(frozen=True)
class LatentSource:
    """The latents that a program works on.

    Attributes:
      space: one of `io.latents.SPACES`.
      origins: where each latent comes from: its seed, or its row in the file.
      array: what the file holds, [N, …]; None for z of seeds.
      layout: of S.
      z_dim: length of z.
      truncation_psi: applied to z and w, never to W+ and S.
      truncation_cutoff: number of leading rows to truncate, None for all.
    """

    space: str
    origins: Sequence[int]
    array: np.ndarray | None
    layout: tuple[spaces.StyleLayer, ...]
    z_dim: int
    truncation_psi: float = 1.0
    truncation_cutoff: int | None = None

    def __len__(self) -> int:
        return len(self.origins)

    def origin(self, row: int) -> dict[str, int]:
        """Where a latent comes from: {"seed": 3} or {"row": 3}."""
        return {"seed" if self.array is None else "row": self.origins[row]}

    def load(self, rows: np.ndarray) -> Any:
        """Some latents as float32 in memory, S as a tuple of style vectors."""
        if self.array is None:
            seeds = (self.origins[row] for row in rows)
            return np.stack([latents.seeded_z(seed, self.z_dim) for seed in seeds])
        found: Any = latent_files.take(self.array, rows)
        if self.space == "s":
            return spaces.unflatten_styles(found, self.layout)
        return found
