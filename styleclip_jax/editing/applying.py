"""Applying of editors to faces in memory, some at a time on the devices."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from styleclip_jax import latents, parallel, spaces
from styleclip_jax.batch.editor import Editor, Outcome
from styleclip_jax.batch.tuned import Generators, Tuning
from styleclip_jax.editing.faces import Edit, Faces
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.errors import UserError
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Report


def apply(loaded: Loaded, faces: Faces, editor: Editor) -> Edit:
    """Applies an editor to faces, through the tuned generators of those that have one.

    Raises:
      UserError: the faces are in S, and the editor edits in W+; or they have tuned
        generators, through which it cannot edit.
    """
    if faces.space == "s" and editor.space != "s":
        raise UserError(
            f"faces: these are in s, expected w_plus, which the {editor.method} edits"
        )
    edit = _through(loaded, faces.tuned, editor)
    batch = to_styles(loaded, faces) if editor.space == "s" else faces.latent
    variants = len(editor.settings)
    total = len(faces) * variants * editor.steps
    with loaded.listener.long_bar(total, editor.unit, editor.quicker) as report:

        def compute(setting: int, part: Any, rows: np.ndarray) -> Outcome:
            return edit(part, rows, setting, report)

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
        tuple(faces.tuned[i] for i in repeated if faces.tuned),
    )
    before = dataclasses.replace(faces, latent=batch)
    about = (found.terms, found.failed_at, found.film, found.history)
    return Edit(before, after, *about, editor, loaded)


def _through(
    loaded: Loaded, tuned: Sequence[Tuning], editor: Editor
) -> Callable[[Any, np.ndarray, int, Report], Outcome]:
    """(batch, its rows, number of the setting, report) → edits by an editor."""
    through = editor.through
    if not tuned:

        def edit(part: Any, rows: np.ndarray, setting: int, report: Report) -> Outcome:
            return editor.edit(part, setting, lambda n: report(len(rows) * n))

        return edit
    if through is None:
        raise UserError(
            f"faces: the method {editor.method} cannot edit through the tuned "
            "generators of these, expected faces without"
        )
    generators = Generators(loaded.generator, loaded.mesh, tuned)

    def edit_each(part: Any, rows: np.ndarray, setting: int, report: Report) -> Outcome:
        def one(generator: Network, alone: Any) -> Outcome:
            return through(generator, alone, setting, report)

        return generators.each(one, part, rows)

    return edit_each


def render(loaded: Loaded, latent: Any, tuned: Sequence[Tuning] = ()) -> np.ndarray:
    """Renders latents as images [B, H, W, 3], by the tuned generator of each if any."""
    generators = Generators(loaded.generator, loaded.mesh, tuned)
    return in_batches(
        loaded.mesh,
        latent,
        lambda batch, rows: generators.each(latents.render, batch, rows),
    )


def to_styles(loaded: Loaded, faces: Faces) -> spaces.Styles:
    """Converts faces to styles, a tuple of [B, C]."""
    if faces.space == "s":
        return faces.latent
    generators = Generators(loaded.generator, loaded.mesh, faces.tuned)
    about: Any = {"space": "w_plus", "truncation_psi": 1.0, "cutoff": None, "to": "s"}
    convert = functools.partial(latents.convert, **about)
    return in_batches(
        loaded.mesh,
        faces.latent,
        lambda batch, rows: generators.each(convert, batch, rows),
    )


def in_batches(
    mesh: jax.sharding.Mesh,
    tree: Any,
    function: Callable[[Any, np.ndarray], Any],
    size: int | None = None,
) -> Any:
    """Applies a function to arrays [N, …] in batches; results are on the host.

    Args:
      mesh: devices to spread batches over.
      tree: tree of arrays [N, …].
      function: (batch on the devices, its rows that are no padding) → tree of arrays of
        the batch, or of these rows.
      size: rows for each device at a time; as `stream` takes them if absent.
    """
    count = len(jax.tree.leaves(tree)[0])
    # The batches of a device are those of `stream`, and so are the results' bits.
    size = (size or parallel.default_batch_size(count, mesh.size)) * mesh.size
    parts = []
    for start in range(0, count, size):
        part = jax.tree.map(lambda x, i=start: np.asarray(x[i : i + size]), tree)
        rows = np.arange(start, min(start + size, count))
        batch = parallel.shard(parallel.pad(part, size), mesh)
        found = jax.device_get(function(batch, rows))
        parts.append(jax.tree.map(lambda x, n=rows.size: x[:n], found))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _interleave(*parts: np.ndarray) -> np.ndarray:
    """Interleaves arrays [N, …] of V settings to [N · V, …], a row's side by side."""
    count = len(parts) * len(parts[0])
    return np.stack(parts, axis=1).reshape(count, *parts[0].shape[1:])
