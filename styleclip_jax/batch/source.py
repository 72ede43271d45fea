"""Source of latents for a run: seeds or a file, read some at a time."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from styleclip_jax import latents, spaces, traced
from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files
from styleclip_jax.models import generators
from styleclip_jax.settings.latents import SourceSettings

_convert = jax.jit(
    traced.keep("source.convert", latents.convert),
    static_argnames=("space", "cutoff", "to"),
)

# Largest number of seeds of a run, which has a number in memory for each.
_MAX_SEEDS = 10_000_000


class Source(Protocol):
    """Source of what a stream works on, read some at a time."""

    def __len__(self) -> int: ...

    def load(self, rows: np.ndarray) -> Any:
        """Loads some as they go to the devices, a tree of arrays [B, …]."""


@dataclasses.dataclass(frozen=True)
class SourceRequest(SourceSettings):
    """Source of the latents of a run, which opens by its settings."""

    def open(
        self,
        config: generators.GeneratorConfig,
        *,
        default_seeds: str,
        space: str | None = None,
    ) -> "LatentSource":
        """Opens the source for a generator.

        Args:
          config: configuration of the generator.
          default_seeds: seeds where neither seeds nor latents are given.
          space: latent space of the file; None tells it by the shape.

        Raises:
          UserError: the seeds are no seeds, or the file does not fit.
        """
        options: dict[str, Any] = {
            "layout": config.style_layout,
            "z_dim": config.z_dim,
            "truncation_psi": self.truncation_psi,
            "truncation_cutoff": self.truncation_cutoff,
        }
        if self.latents is not None:
            found = latent_files.read(self.latents, config, space)
            rows = range(len(found.array))
            return LatentSource(
                found.space,
                rows,
                found.array,
                **options,
                names=found.names,
                notes=found.notes,
            )
        seeds = parse_seeds(default_seeds if self.seeds is None else self.seeds)
        return LatentSource("z", seeds, None, **options)


@dataclasses.dataclass(frozen=True, eq=False)
class LatentSource:
    """Source of latents: seeds or an array, read some at a time.

    Attributes:
      space: one of `latent_files.SPACES`.
      origins: origin of each latent: its seed, or its row in the file.
      array: latents of the file, [N, …]; None for z of seeds.
      layout: layout of S.
      z_dim: length of z.
      truncation_psi: truncation of z and w; W+ and S stay as they are.
      truncation_cutoff: number of leading rows to truncate, None for all.
      unit: unit of the origins, "seed" or "row"; told by the array if empty.
      names: name of each latent in its file, such as of its photo; none without.
      notes: what an ambiguous file was taken for, as lines for people.
    """

    space: str
    origins: Sequence[int]
    array: np.ndarray | None
    layout: tuple[spaces.StyleLayer, ...]
    z_dim: int
    truncation_psi: float = 1.0
    truncation_cutoff: int | None = None
    unit: str = ""
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.origins)

    def describe(self) -> Iterator[str]:
        """Lines on the latents: what the file was taken for, and their number."""
        yield from self.notes
        yield f"latents: {len(self)} in {self.space}"

    def origin(self, row: int) -> dict[str, int | str]:
        """Origin of a latent: {"seed": 3} or {"row": 3}, and its name if any."""
        unit = self.unit or ("seed" if self.array is None else "row")
        name: dict[str, int | str] = {"name": self.names[row]} if self.names else {}
        return {unit: self.origins[row]} | name

    def load(self, rows: np.ndarray) -> Any:
        """Loads some latents as float32, S as a tuple of style vectors."""
        if self.array is None:
            seeds = (self.origins[row] for row in rows)
            return latents.seeded_batch(seeds, self.z_dim)
        found: Any = latent_files.take(self.array, rows)
        if self.space == "s":
            return spaces.unflatten_styles(found, self.layout)
        return found

    def convert(self, generator: Any, batch: Any, *, to: str, label: Any) -> Any:
        """Converts a loaded batch to "w_plus" or "s"; see `latents.convert`."""
        return _convert(
            generator,
            batch,
            space=self.space,
            truncation_psi=self.truncation_psi,
            cutoff=self.truncation_cutoff,
            to=to,
            label=label,
        )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DerivedSource(LatentSource):
    """Source of latents that are derived from others while they are prepared.

    A million of them take no more memory than a batch.

    Attributes:
      fetch: (rows) → what the latents of these rows are derived from, arrays [B, …].
      derive: (what was fetched, on the devices) → latents of the source's space.
    """

    fetch: Callable[[np.ndarray], Any]
    derive: Callable[[Any], Any]

    def load(self, rows: np.ndarray) -> Any:
        """Loads what some latents are derived from."""
        return self.fetch(rows)

    def convert(self, generator: Any, batch: Any, *, to: str, label: Any) -> Any:
        """Derives latents of a loaded batch, and converts them to "w_plus" or "s"."""
        return super().convert(generator, self.derive(batch), to=to, label=label)


def parse_seeds(text: str, field: str = "seeds") -> list[int]:
    """Parses seeds such as "3", "0-15" or "1,5,8-11", in the order given.

    Args:
      text: the list.
      field: field that it is from.

    Raises:
      UserError: the text is no such list, or a seed is 2^32 or more.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})(?:-(\d{1,20}))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise UserError(
                f"{field}: expected numbers such as 0-15 or 1,5,8-11, found {text!r}",
                field=field,
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= 2**32:
            raise UserError(
                f"{field}: expected numbers below 2^32, found {last}", field=field
            )
        if len(seeds) + last - first >= _MAX_SEEDS:
            raise UserError(
                f"{field}: expected at most {_MAX_SEEDS:,} seeds, found {text!r}; give "
                "the others to further runs",
                field=field,
            )
        seeds += range(first, last + 1)
    return seeds
