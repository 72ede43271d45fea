"""Applying of editors to faces in memory, some at a time on the devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from styleclip_jax import latents, parallel, spaces
from styleclip_jax.batch.editor import Editor, Outcome
from styleclip_jax.editing.faces import Edit, Faces
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.errors import UserError


def apply(loaded: Loaded, faces: Faces, editor: Editor) -> Edit:
    """Applies an editor to faces.

    Raises:
      UserError: the faces are in S, and the editor edits in W+.
    """
    if faces.space == "s" and editor.space != "s":
        raise UserError(
            f"faces: these are in s, expected w_plus, which the {editor.method} edits"
        )
    batch = to_styles(loaded, faces) if editor.space == "s" else faces.latent
    variants = len(editor.settings)
    total = len(faces) * variants * editor.steps
    with loaded.listener.long_bar(total, editor.unit, editor.quicker) as report:

        def compute(setting: int, part: Any, count: int) -> Outcome:
            return editor.edit(part, setting, lambda n: report(count * n))

        made = [
            in_batches(loaded.mesh, batch, functools.partial(compute, setting))
            for setting in range(variants)
        ]
    # Edits of one face stand side by side.
    found = jax.tree.map(_interleave, *made)
    repeated = [i for i in range(len(faces)) for _ in range(variants)]
    after = Faces(
        found.latent["edited"],
        found.image,
        tuple(faces.names[i] for i in repeated),
        tuple(faces.origins[i] for i in repeated),
        faces.unit,
    )
    before = Faces(batch, faces.images, faces.names, faces.origins, faces.unit)
    about = (found.terms, found.failed_at, found.film, found.history)
    return Edit(before, after, *about, editor, loaded)


def to_styles(loaded: Loaded, faces: Faces) -> spaces.Styles:
    """Converts faces to styles, a tuple of [B, C]."""
    if faces.space == "s":
        return faces.latent

    def convert(batch: Any, _: int) -> Any:
        return latents.convert(
            loaded.generator,
            batch,
            space="w_plus",
            truncation_psi=1.0,
            cutoff=None,
            to="s",
        )

    return in_batches(loaded.mesh, faces.latent, convert)


def in_batches(
    mesh: jax.sharding.Mesh, tree: Any, function: Callable[[Any, int], Any]
) -> Any:
    """Applies a function to arrays [N, …] in batches; results are on the host.

    Args:
      mesh: devices to spread batches over.
      tree: tree of arrays [N, …].
      function: (batch on the devices, number of its rows that are no padding) → tree
        of arrays of the batch.
    """
    count = len(jax.tree.leaves(tree)[0])
    # The batches of a device are those of `stream`, and so are the results' bits.
    size = parallel.default_batch_size(count, mesh.size) * mesh.size
    parts = []
    for start in range(0, count, size):
        part = jax.tree.map(lambda x, i=start: np.asarray(x[i : i + size]), tree)
        rows = len(jax.tree.leaves(part)[0])
        batch = parallel.shard(parallel.pad(part, size), mesh)
        found = jax.device_get(function(batch, rows))
        parts.append(jax.tree.map(lambda x, n=rows: x[:n], found))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _interleave(*parts: np.ndarray) -> np.ndarray:
    """Interleaves arrays [N, …] of V settings to [N · V, …], a row's side by side."""
    count = len(parts) * len(parts[0])
    return np.stack(parts, axis=1).reshape(count, *parts[0].shape[1:])
