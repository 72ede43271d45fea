"""Sheets of edits: originals and what was made of them, in grids with captions."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from styleclip_jax import latents, traced
from styleclip_jax.batch.editor import Editor
from styleclip_jax.batch.journal import Journal
from styleclip_jax.batch.result_lines import name
from styleclip_jax.batch.tuned import Generators
from styleclip_jax.io import images

render = jax.jit(traced.keep("edits.render", latents.render))


def write(
    journal: Journal, generators: Generators, editor: Editor, count: int
) -> pathlib.Path:
    """Writes the sheet of the first latents, from the files of the run."""
    variants = len(editor.settings)
    count = min(count, len(journal.done) // variants)
    lines = list(itertools.islice(journal.lines(), count * variants))
    names = [name(line) for line in lines[::variants]]
    labels = captions_of(editor, names, [line.get(editor.finds) for line in lines])
    before, after = (
        [
            np.asarray(render(generators.of(row), part))
            for row, part in enumerate(
                _split(journal.read(which, count * variants), count)
            )
        ]
        for which in ("original", "edited")
    )
    sheet = draw(before, after, labels, editor.settings, editor.title)
    return images.save_sheet(journal.outdir / "grid.png", sheet)


def captions_of(
    editor: Editor, names: Sequence[str], found: Sequence[Any]
) -> Sequence[str]:
    """Captions of latents on a sheet: their names, and what was found for their edits.

    Args:
      editor: editor of the edits.
      names: names of the latents.
      found: value of the term `Editor.finds` in each edit, those of a latent in turn.
    """
    if not editor.finds:
        return names
    captions, variants = [], len(editor.settings)
    for i, latent in enumerate(names):
        own = found[i * variants : (i + 1) * variants]
        values = ", ".join("none" if value is None else f"{value:.2g}" for value in own)
        caption = f"{editor.finds} {values}" if any(own) else "stays"
        captions.append(f"{latent}\n{caption}")
    return captions


def draw(
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    labels: Sequence[str],
    settings: Sequence[Mapping[str, Any]],
    title: str,
) -> Any:
    """Sheet of edits: originals and edits in a grid with captions.

    One edit per latent: originals are above, edits below. Several strengths: each
    latent and β has a row, and each α a column after the original (Figure 6 of the
    paper). Several prompts or mappers: each latent has a row, and each edit a column.

    Args:
      before: originals, for each latent its image once per edit, [variants, H, W, 3].
      after: edits, for each latent [variants, H, W, 3].
      labels: names of the latents.
      settings: settings of each edit of a latent.
      title: caption of the sheet: what was edited towards.

    Returns:
      An RGB image.
    """
    if len(settings) == 1:
        return images.grid(
            [np.concatenate(before), np.concatenate(after)],
            row_labels=["original", "edited"],
            column_labels=labels,
            title=title,
        )
    groups, columns = _columns(settings)
    rows, row_labels = [], []
    for label, first, edited in zip(labels, before, after, strict=True):
        for group, part in zip(groups, np.split(edited, len(groups)), strict=True):
            rows.append(np.concatenate([first[:1], part]))
            row_labels.append(label + group)
    return images.grid(
        rows,
        row_labels=row_labels,
        column_labels=["original", *columns],
        title=title,
    )


def _columns(settings: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Captions of the rows of a latent, and of the columns of its edits."""
    if {"alpha", "beta"} <= settings[0].keys() and "prompt" not in settings[0]:
        alphas = list(dict.fromkeys(s["alpha"] for s in settings))
        betas = list(dict.fromkeys(s["beta"] for s in settings))
        return [f", beta {b:.3g}" for b in betas], [f"alpha {a:g}" for a in alphas]
    varying = [n for n in settings[0] if len({str(s[n]) for s in settings}) > 1]
    captions = ["\n".join(_caption(n, s[n]) for n in varying) for s in settings]
    return [""], captions


def _caption(setting: str, value: Any) -> str:
    """Caption: a prompt, the words of a mapper's folder, or a number with its name."""
    if isinstance(value, float):
        return f"{setting} {value:.3g}"
    if setting == "mapper":
        return pathlib.Path(value).name.replace("-", " ")
    return value


def _split(tree: Any, parts: int) -> list[Any]:
    """Splits a tree of [N, …] into a list of trees of [N / parts, …]."""
    leaves, structure = jax.tree.flatten(tree)
    split = [np.split(np.asarray(leaf), parts) for leaf in leaves]
    return [jax.tree.unflatten(structure, part) for part in zip(*split, strict=True)]
