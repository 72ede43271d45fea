"""Generators that were tuned to the photos of latents, one for each latent."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, parallel
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, tuned_files
from styleclip_jax.io.direction_files import Origin
from styleclip_jax.loading import Models
from styleclip_jax.models import param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.settings.latents import LEFT_OUT

# Folder of their files beside the latents, and the latents that it belongs to.
FOLDER, _LATENTS = "tuned", "w_plus"


@dataclasses.dataclass(frozen=True)
class Generators:
    """Generators of the latents of a source: the same for all, or one for each.

    Attributes:
      generator: generator on the devices, before any tuning.
      mesh: devices that batches are spread over.
      origin: identity of the generator.
      paths: file of what the tuning to each latent has changed; none without tuning.
    """

    generator: Network
    mesh: jax.sharding.Mesh
    origin: Origin | None = None
    paths: Sequence[pathlib.Path] = ()

    @classmethod
    def open(
        cls,
        models: Models,
        generator: Network,
        mesh: jax.sharding.Mesh,
        asked: str | None,
        latents_file: str | None,
        count: int,
    ) -> "Generators":
        """Opens the generators of a file of latents, each of which is read once.

        Args:
          models: names of the networks.
          generator: generator on the devices.
          mesh: devices that batches are spread over.
          asked: folder of the files; None to look beside the latents of
            styleclip-invert, `LEFT_OUT` not to look.
          latents_file: file of latents, None for seeds.
          count: number of the latents.

        Raises:
          UserError: there is not one for each latent, or a file is broken or of another
            generator.
        """
        paths = _find(asked, latents_file, count)
        if not paths:
            return cls(generator, mesh)
        found = cls(generator, mesh, models.generator_origin(), paths)
        for row in range(count):
            found.read(row)
        return found

    @property
    def inputs(self) -> dict[str, str]:
        """Hash of all files, by name; none without tuning."""
        if not self.paths:
            return {}
        hashes = "".join(map(files.hash_file, self.paths))
        return {"tuned": hashlib.sha256(hashes.encode()).hexdigest()}

    def of(self, row: int) -> Network:
        """Generator of a latent, on the devices.

        Raises:
          UserError: its file is broken, or of another generator.
        """
        if not self.paths:
            return self.generator
        return _changed(self.generator, parallel.replicate(self.read(row), self.mesh))

    def read(self, row: int) -> dict[str, np.ndarray]:
        """Changes of the generator of a latent, by flat name; errors as of `of`."""
        assert self.origin is not None
        flat = param_trees.flatten(self.generator.params)
        shapes = {name: x.shape for name, x in flat.items()}
        return tuned_files.read(self.paths[row], shapes=shapes, generator=self.origin)

    def each(
        self, function: Callable[[Network, Any], Any], batch: Any, rows: np.ndarray
    ) -> Any:
        """What a function makes of a batch, through the generators of its latents.

        Args:
          function: (generator, arrays [B, …]) → arrays [B, …] on the devices.
          batch: arrays [B, …] on the devices.
          rows: [B] rows of the latents.
        """
        if not self.paths:
            return function(self.generator, batch)
        parts = []
        for i, row in enumerate(rows.tolist()):
            # Each device takes the same one.
            alone = latents.take(batch, np.full(self.mesh.size, i))
            alone = parallel.shard(alone, self.mesh)
            parts.append(_first(function(self.of(row), alone)))
        return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    def draw(self, w_plus: np.ndarray) -> np.ndarray:
        """Images [B, H, W, 3] of the first latents, [B, L, D] in W+."""
        if not self.paths:
            return np.asarray(latents.render(self.generator, w_plus))
        drawn = [
            latents.render(self.of(row), w_plus[row : row + 1])
            for row in range(len(w_plus))
        ]
        return np.concatenate(drawn)

    def describe(self) -> list[str]:
        """Lines on the tuned generators, for people."""
        if not self.paths:
            return []
        return [f"tuned: {len(self.paths)} generators of {self.paths[0].parent}"]


def as_stored(
    generator: Network, after: Mapping[str, jax.Array]
) -> tuple[dict[str, jax.Array], Network]:
    """Changes of a generator as files have them, and the generator read from these.

    Args:
      generator: generator before.
      after: parameters that have changed, by flat name.

    Returns:
      Changes in bfloat16 by flat name, and the generator with them.
    """
    before = param_trees.flatten(generator.params)
    changes = {
        name: (x - before[name]).astype(jnp.bfloat16) for name, x in after.items()
    }
    params = param_trees.changed(generator.params, changes)
    return changes, Network(params, generator.config)


@jax.jit
def _changed(generator: Network, changes: Mapping[str, jax.Array]) -> Network:
    """Generator with changes of its parameters, by flat name."""
    params = param_trees.changed(generator.params, changes)
    return Network(params, generator.config)


def _first(tree: Any) -> Any:
    """First rows of arrays [B, …], with their axis."""
    return jax.tree.map(lambda x: x[:1], tree)


def _find(
    asked: str | None, latents_file: str | None, count: int
) -> list[pathlib.Path]:
    """Files of the tuned generators of a file of latents; none if there are none."""
    if asked == LEFT_OUT:
        return []
    if asked is None:
        path = pathlib.Path(latents_file or "")
        folder = path.parent / FOLDER
        if latents_file is None or path.stem != _LATENTS or not folder.is_dir():
            return []
    else:
        folder = pathlib.Path(asked)
    paths = [folder / tuned_files.name(row) for row in range(count)]
    found = len(list(folder.glob("*.safetensors"))) if folder.is_dir() else 0
    if found != count or not all(path.is_file() for path in paths):
        raise UserError(
            f"tuned: expected a tuned generator in {folder} for each of {count} "
            f"latents, {tuned_files.name(0)} and on, found {found}; {LEFT_OUT} leaves "
            "them out",
            field="tuned",
            also=["latents"],
        )
    return paths
