"""Photos of several faces, with the edits of all of them in one."""

import collections
import itertools
import operator
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from styleclip_jax import parallel
from styleclip_jax.batch.journal import Journal
from styleclip_jax.photos import pasting
from styleclip_jax.settings.output import Extras

# Folder of these photos in that of a run.
FOLDER = "pasted/together"
# Number of faces that are drawn at a time.
_BATCH = 8

_Render = Callable[[Any, np.ndarray], tuple[jax.Array, jax.Array | None]]


def write(
    journal: Journal,
    faces: Sequence[dict[str, Any]],
    variants: int,
    render: _Render,
    extras: Extras,
) -> pathlib.Path | None:
    """Pastes the edits of all faces of a photo into it, once a run is finished.

    The file has the index of the edit of its first face. Edits that have failed are
    left out.

    Args:
      journal: journal of the run.
      faces: faces of the latents, of `pasting.read_faces`.
      variants: number of edits of each face.
      render: (latents, rows of their faces [B]) → images [B, H, W, 3] in [-1, 1], and
        what `Outcome.turned` holds.
      extras: how faces are pasted.

    Returns:
      Folder of the photos; None where no photo has several faces.
    """
    rows = collections.defaultdict(list)
    for row, face in enumerate(faces):
        rows[face["file"]].append(row)
    groups = [group for group in rows.values() if len(group) > 1]
    if not groups:
        return None
    folder = journal.outdir / FOLDER
    failed = {line["index"] for line in journal.lines() if "failed_at" in line}
    for group, variant in itertools.product(groups, range(variants)):
        path = folder / f"{group[0] * variants + variant:06d}.png"
        kept = [row for row in group if row * variants + variant not in failed]
        if kept and not path.exists():
            indices = [row * variants + variant for row in kept]
            drawn = _draw(journal, indices, variants, render)
            pasting.paste(path, [faces[x] for x in kept], drawn, mask=extras.paste_mask)
    return folder


def _draw(
    journal: Journal,
    indices: Sequence[int],
    variants: int,
    render: _Render,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Images of some edits in turn, a batch of one size at a time."""
    for start in range(0, len(indices), _BATCH):
        part = np.array(indices[start : start + _BATCH])
        wanted = parallel.pad(part, _BATCH)
        latent = journal.take("edited", wanted)
        drawn = jax.device_get(render(latent, wanted // variants))
        for i in range(len(part)):
            yield jax.tree.map(operator.itemgetter(i), drawn)
