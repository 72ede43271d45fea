"""Rows of the comparison: what is measured, at which size, by name.

A name is a question, a resolution if it has one, and a batch if it is not 1:
clip_gradient, synthesis_256, mapper_256_x2.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks import limit
from styleclip_jax.errors import UserError

# Peers that answer each question, the official code first: it leaves its weights for
# the others. What is lean is in `benchmarks/lean.py`, as it is and compiled.
_ALL = ("official", "lean", "compiled")
_OFFICIAL = ("official",)
PEERS: dict[str, tuple[str, ...]] = {
    "synthesis": _ALL,
    "synthesis_gradient": _ALL,
    "stylegan3_t": _OFFICIAL,
    "stylegan3_t_gradient": _OFFICIAL,
    "stylegan3_r": _OFFICIAL,
    "stylegan3_r_gradient": _OFFICIAL,
    "optimization": _ALL,
    "optimization_identity": _ALL,
    "mapper": _ALL,
    "training": _OFFICIAL,
    "training_narrow": _OFFICIAL,
    "training_rosinality": _OFFICIAL,
    "apply_mapper": _OFFICIAL,
    "apply_direction": _OFFICIAL,
    "relevance": _OFFICIAL,
    "clip_forward": _ALL,
    "clip_gradient": _ALL,
    "irse50_forward": _ALL,
    "irse50_gradient": _ALL,
    "matmul": _OFFICIAL,
}
# Questions about a network with a size of its own.
_SIZED = (
    "clip_forward",
    "clip_gradient",
    "irse50_forward",
    "irse50_gradient",
    "matmul",
)
# Questions that take steps. The first of an optimization has a learning rate of 0.
_STEPS = ("optimization", "optimization_identity", "mapper")
_NAME = re.compile(r"(.+?)(?:_(\d+))?(?:_x(\d+))?")


class Row(NamedTuple):
    """Row of the table.

    Attributes:
      name: its name.
      question: what both sides do.
      resolution: width of the images, 0 for a network with a size of its own.
      batch: examples at a time.
    """

    name: str
    question: str
    resolution: int
    batch: int

    @property
    def peers(self) -> tuple[str, ...]:
        """Peers that can do it."""
        return PEERS[self.question]

    @property
    def warm_ups(self) -> int:
        """Turns before those that count; the results of the last are compared."""
        return 4 if self.question in _STEPS else 2

    @property
    def tolerance(self) -> float:
        """Largest difference of results, as a relative L2 error."""
        # Adam divides by the size of gradients, so that the smallest entries move as
        # far as the others, each by its rounding.
        by_adam = self.question.startswith(("optimization", "training"))
        return 0.03 if by_adam else 1e-3


def parse(name: str) -> Row:
    """Row of a name.

    Raises:
      UserError: there is no such row, or no generator of this resolution.
    """
    found = _NAME.fullmatch(name)
    question, resolution, batch = found.groups() if found else ("", None, None)
    if question not in PEERS or (question in _SIZED) != (resolution is None):
        raise UserError(
            f"rows: expected some of {', '.join(row.name for row in TABLE)}, or such "
            f"names with another size or batch (_x4), found {name}",
            field="rows",
        )
    if resolution is not None:
        limit.config_of(question, int(resolution))
    return Row(name, question, int(resolution or 0), int(batch or 1))


def choose(names: Sequence[str]) -> list[Row]:
    """Rows of some names; the first words of a name stand for all such rows.

    Raises:
      UserError: as for `parse`.
    """
    chosen: dict[str, Row] = {}
    for name in names:
        alike = [row for row in TABLE if f"{row.name}_".startswith(f"{name}_")]
        chosen |= {row.name: row for row in alike or [parse(name)]}
    return list(chosen.values())


# What docs/measurements.md shows.
TABLE = tuple(
    map(
        parse,
        (
            *("synthesis_256", "synthesis_512", "synthesis_1024"),
            *("optimization_256", "optimization_1024", "mapper_256_x2"),
            *("clip_forward", "clip_gradient", "irse50_forward", "irse50_gradient"),
        ),
    )
)
