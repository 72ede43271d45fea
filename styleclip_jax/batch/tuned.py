"""Generators that were tuned to the photos of latents, one for each latent."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

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


class Tuning(Protocol):
    """Tuning of a generator to a photo: what it has changed, in memory or in a file."""

    def read(self) -> Mapping[str, np.ndarray]:
        """Changes of the parameters in bfloat16, by flat name.

        Raises:
          UserError: their file is broken, or of another generator.
        """
        ...

    def hash(self) -> str:
        """SHA-256 of the file; errors as of `read`."""
        ...


@dataclasses.dataclass(frozen=True)
class TunedFile:
    """File of a tuned generator, which is read when it is used.

    Attributes:
      path: the file.
      shapes: shape of every parameter of the generator.
      generator: identity of the generator.
    """

    path: pathlib.Path
    shapes: param_trees.Shapes
    generator: Origin

    def check(self) -> None:
        """Checks the head of the file; errors as of `read`."""
        tuned_files.check(self.path, shapes=self.shapes, generator=self.generator)

    def read(self) -> Mapping[str, np.ndarray]:
        """Changes of the parameters; see `Tuning`."""
        about: Any = {"shapes": self.shapes, "generator": self.generator}
        return tuned_files.read(self.path, **about)

    def hash(self) -> str:
        """SHA-256 of the file; see `Tuning`."""
        return tuned_files.hash_file(self.path)


@dataclasses.dataclass(frozen=True, eq=False)
class TunedInMemory:
    """Tuned generator in memory.

    Attributes:
      changes: changes of the parameters in bfloat16, by flat name.
      generator: identity of the generator.
      num_steps: steps of the tuning.
    """

    changes: Mapping[str, np.ndarray]
    generator: Origin
    num_steps: int

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes."""
        return sum(x.nbytes for x in self.changes.values())

    def read(self) -> Mapping[str, np.ndarray]:
        """Changes of the parameters; see `Tuning`."""
        return self.changes

    def write(self, path: files.Path) -> None:
        """Writes the file of styleclip-invert; errors as of `tuned_files.write`."""
        tuned_files.write(path, self.changes, **self._record)

    def hash(self) -> str:
        """SHA-256 of the file; see `Tuning`."""
        return files.hash_bytes(tuned_files.dump(self.changes, **self._record))

    @property
    def _record(self) -> dict[str, Any]:
        return {"generator": self.generator, "about": {"steps": self.num_steps}}


@dataclasses.dataclass(frozen=True)
class Generators:
    """Generators of the latents of a source: the same for all, or one for each.

    Attributes:
      generator: generator on the devices, before any tuning.
      mesh: devices that batches are spread over.
      tuned: tuned generator of each latent; none without tuning.
      folder: folder of their files, where they have some.
    """

    generator: Network
    mesh: jax.sharding.Mesh
    tuned: Sequence[Tuning] = ()
    folder: pathlib.Path | None = None

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
        """Opens the generators of a file of latents, of which the heads are read.

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
        flat = param_trees.flatten(generator.params)
        shapes = {name: x.shape for name, x in flat.items()}
        origin = models.generator_origin()
        found = [TunedFile(path, shapes, origin) for path in paths]
        for one in found:
            one.check()
        return cls(generator, mesh, found, paths[0].parent)

    @property
    def inputs(self) -> dict[str, str]:
        """Hash of all files, by name; none without tuning.

        Raises:
          UserError: a file cannot be read, or a number in it is not finite.
        """
        if not self.tuned:
            return {}
        hashes = "".join(one.hash() for one in self.tuned)
        return {"tuned": hashlib.sha256(hashes.encode()).hexdigest()}

    def of(self, row: int) -> Network:
        """Generator of a latent, on the devices.

        Raises:
          UserError: its file is broken, or of another generator.
        """
        if not self.tuned:
            return self.generator
        return changed(self.generator, self.tuned[row], self.mesh)

    def each(
        self, function: Callable[[Network, Any], Any], batch: Any, rows: np.ndarray
    ) -> Any:
        """What a function makes of a batch, through the generators of its latents.

        Args:
          function: (generator, arrays [B, …]) → arrays [B, …] on the devices.
          batch: arrays [B, …] on the devices.
          rows: rows of the latents, [B] or fewer where the others are padding.

        Returns:
          Arrays of the rows.
        """
        if not self.tuned:
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
        if not self.tuned:
            return np.asarray(latents.render(self.generator, w_plus))
        drawn = [
            latents.render(self.of(row), w_plus[row : row + 1])
            for row in range(len(w_plus))
        ]
        return np.concatenate(drawn)

    def describe(self) -> list[str]:
        """Lines on the tuned generators, for people."""
        if not self.tuned:
            return []
        return [f"tuned: {len(self.tuned)} generators of {self.folder or 'memory'}"]


def changed(generator: Network, tuned: Tuning, mesh: jax.sharding.Mesh) -> Network:
    """Tuned generator, on the devices; errors as of `Tuning.read`."""
    return _changed(generator, parallel.replicate(dict(tuned.read()), mesh))


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
