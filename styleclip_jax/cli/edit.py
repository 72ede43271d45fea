"""styleclip-edit: edit latents by a text prompt.

  styleclip-edit --prompt="a person with purple hair" --seeds=0-15
  styleclip-edit --prompt="a smiling face" --latents=w_plus.npy --steps=40 --space=s
  styleclip-edit --method=mapper --mapper=models/purple_hair --strength=0.12
  styleclip-edit --method=direction --prompt="a smiling face" --alpha=-4,4

Writes under --outdir: original.npy and edited.npy (.npz in S), images/, metrics.jsonl
(a line per edit), grid.png, films/ with --film_frames, pasted/ with --paste, and
run.json. A latent that is
edited with several --alpha and --beta has one row in each for every pair of them.
Started again with the same flags, it goes on where it stopped. Exit code 1 says that
some latents could not be edited; metrics.jsonl says which.
"""

import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from styleclip_jax import assets, parallel
from styleclip_jax.cli import editors, outputs, pasting
from styleclip_jax.cli import flags as cli
from styleclip_jax.cli import latents as cli_latents
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, images, latents
from styleclip_jax.methods import optimization
from styleclip_jax.models.network import Network

VALUES = flags.FlagValues()
cli_latents.define(VALUES)
outputs.define(VALUES, outdir="outputs/edit", grid=8)
editors.define(VALUES)
flags.DEFINE_bool(
    "paste",
    False,
    "Put the results back into the photos that styleclip-invert made --latents from.",
    flag_values=VALUES,
)


def main(values: flags.FlagValues) -> int:
    """Makes every edit that is not made yet."""
    directory = assets.generator_directory(values.generator)
    mesh = parallel.make_mesh()
    generator = parallel.replicate(assets.load_generator(directory), mesh)
    label = cli_latents.one_hot_label(values, generator.config)
    editor = editors.prepare(values, generator, mesh)
    source = _read_source(values, generator, editor)
    count, variants = len(source), len(editor.settings)
    faces = pasting.read_faces(values.latents, count) if values.paste else []
    print(
        f"generator: {directory}, {generator.config.resolution}², "
        f"{generator.config.num_rows} rows of W+"
    )
    print("\n".join(editor.about))
    print(f"latents: {count} in {source.latents.space}, edited in {editor.space}")
    inputs = {"generator": checkpoints.fingerprint(directory)} | editor.inputs
    if values.latents is not None:
        inputs["latents"] = files.hash_file(values.latents)
    outdir = outputs.begin("styleclip-edit", values, inputs)

    convert = functools.partial(
        cli_latents.convert,
        generator,
        space=source.latents.space,
        truncation_psi=source.truncation_psi,
        cutoff=source.truncation_cutoff,
        to=editor.space,
        label=label,
    )
    with outputs.Journal(
        outdir, count * variants, editor.space, generator.config, values.images
    ) as journal:
        done = {
            row
            for row in range(count)
            if all(row * variants + i in journal.lines for i in range(variants))
        }
        if done:
            print(f"resumed: {len(done)} of {count} latents are done")
        total = (count - len(done)) * editor.steps
        with cli.progress(total, editor.unit) as progress:
            for rows, batch in cli_latents.batches(
                source, generator.config, values.batch_size, mesh, done
            ):
                started = time.monotonic()
                report = functools.partial(_advance, progress, len(rows))
                edits = _to_host(editor.edit(convert(batch), report), len(rows))
                seconds = (time.monotonic() - started) / len(rows)
                if values.film_frames:
                    _write_films(outdir, generator, editor, rows, edits, values)
                if faces:
                    _paste(outdir, faces, rows, edits)
                _write(journal, source, editor, rows, edits, seconds)
        journal.finish()
    if values.grid:
        print(f"sheet: {_write_sheet(journal, generator, editor, values.grid)}")
    print(f"latents: {journal.paths['edited']}")
    return _report_failures(journal)


def _advance(progress: Any, latents: int, steps: int) -> None:
    """Reports steps that a batch of latents has taken."""
    progress.update(latents * steps)


def _to_host(edits: list[editors.Edits], count: int) -> list[editors.Edits]:
    """The edits as NumPy arrays, without the padding of the batch."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], edits)


def _read_source(
    values: flags.FlagValues, generator: Network, editor: editors.Editor
) -> cli_latents.Source:
    if values.mode == "free_generation":
        if values.latents is not None or values.seeds is not None:
            raise UserError(
                "--mode: free_generation starts at the average latent, expected "
                "neither --latents nor --seeds"
            )
        w_avg = np.asarray(generator.params["mapping"]["w_avg"])[None]
        average = latents.Latents(w_avg, "w")
        return cli_latents.Source(average, [{"row": 0}], 1.0, None)
    source = cli_latents.read(values, generator, default_seeds="0-7")
    if source.latents.space == "s" and editor.space != "s":
        wanted = "--space=s with it"
        if values.method != "optimization":
            wanted = f"latents in {editor.space}, which the {values.method} edits"
        raise UserError(f"--latents: {values.latents} is in s, expected {wanted}")
    return source


def _write(
    journal: outputs.Journal,
    source: cli_latents.Source,
    editor: editors.Editor,
    rows: list[int],
    edits: list[editors.Edits],
    seconds: float,
) -> None:
    """Stores a batch: the edits of a latent lie side by side."""
    variants = len(edits)
    indices, lines = [], []
    for i, row in enumerate(rows):
        for variant, (setting, made) in enumerate(
            zip(editor.settings, edits, strict=True)
        ):
            failed_at = int(made.failed_at[i])
            terms = {name: float(value[i]) for name, value in made.terms.items()}
            indices.append(row * variants + variant)
            lines.append(
                {"index": indices[-1], **source.origins[row], **setting}
                | ({"failed_at": failed_at} if failed_at >= 0 else terms)
                | {"seconds": round(seconds / variants, 4)}
            )

    def interleave(arrays: list[np.ndarray]) -> np.ndarray:
        stacked = np.stack(arrays, axis=1)
        return stacked.reshape(-1, *stacked.shape[2:])

    journal.write(
        indices,
        image=interleave([np.asarray(made.image) for made in edits]),
        lines=lines,
        original=interleave([cli_latents.pack(made.original) for made in edits]),
        edited=interleave([cli_latents.pack(made.latent) for made in edits]),
    )


def _write_films(
    outdir: pathlib.Path,
    generator: Network,
    editor: editors.Editor,
    rows: list[int],
    edits: list[editors.Edits],
    values: flags.FlagValues,
) -> None:
    """An animated GIF of each edit: the source, then the frames on the way."""
    render = jax.jit(optimization.SPACES[editor.space].synthesize)
    share = np.linspace(0, 1, values.film_frames + 1, dtype=np.float32)[1:]
    for variant, made in enumerate(edits):
        for i, row in enumerate(rows):
            first, last = jax.tree.map(lambda x, i=i: x[i], made[:2])
            if made.film is None:
                film = jax.tree.map(
                    lambda a, b: a + share.reshape(-1, *[1] * a.ndim) * (b - a),
                    first,
                    last,
                )
            else:
                film = jax.tree.map(lambda x, i=i: x[i], made.film)
            frames = jax.tree.map(
                lambda a, rest: jnp.concatenate([a[None], rest]), first, film
            )
            name = f"{row * len(edits) + variant:06d}.gif"
            images.write_film(
                outdir / "films" / name, np.asarray(render(generator, frames))
            )


def _paste(
    outdir: pathlib.Path,
    faces: list[dict[str, Any]],
    rows: list[int],
    edits: list[editors.Edits],
) -> None:
    for variant, made in enumerate(edits):
        for i, row in enumerate(rows):
            name = f"{row * len(edits) + variant:06d}.png"
            pasting.paste(
                outdir / "pasted" / name, faces[row], np.asarray(made.image[i])
            )


def _write_sheet(
    journal: outputs.Journal, generator: Network, editor: editors.Editor, count: int
) -> pathlib.Path:
    """Sheet of the first latents, from the files of the run.

    One edit per latent: originals above, edits below. Several: a row per latent and β,
    a column per α, the original first (Figure 6 of the paper).
    """
    render = jax.jit(optimization.SPACES[editor.space].synthesize)
    variants = len(editor.settings)
    count = min(count, len(journal.lines) // variants)
    labels = [_name(journal.lines[i * variants]) for i in range(count)]
    before, after = (
        [
            np.asarray(render(generator, part))
            for part in _split(journal.read(name, count * variants), count)
        ]
        for name in ("original", "edited")
    )
    if variants == 1:
        sheet = images.grid(
            [np.concatenate(before), np.concatenate(after)],
            row_labels=["original", "edited"],
            column_labels=labels,
            title=editor.title,
        )
    else:
        alphas = list(dict.fromkeys(s["alpha"] for s in editor.settings))
        betas = list(dict.fromkeys(s["beta"] for s in editor.settings))
        rows, row_labels = [], []
        for label, first, edited in zip(labels, before, after, strict=True):
            for beta, part in zip(betas, np.split(edited, len(betas)), strict=True):
                rows.append(np.concatenate([first[:1], part]))
                row_labels.append(f"{label}, beta {beta:.3g}")
        sheet = images.grid(
            rows,
            row_labels=row_labels,
            column_labels=["original", *(f"alpha {alpha:g}" for alpha in alphas)],
            title=editor.title,
        )
    return images.save_sheet(journal.outdir / "grid.png", sheet)


def _name(line: dict[str, Any]) -> str:
    return f"seed {line['seed']}" if "seed" in line else f"row {line['row']}"


def _split(tree: Any, parts: int) -> list[Any]:
    """A tree of [N, …] as a list of trees of [N / parts, …]."""
    leaves, structure = jax.tree.flatten(tree)
    split = [np.split(np.asarray(leaf), parts) for leaf in leaves]
    return [jax.tree.unflatten(structure, part) for part in zip(*split, strict=True)]


def _report_failures(journal: outputs.Journal) -> int:
    failed = [line for line in journal.lines.values() if "failed_at" in line]
    for line in failed[:10]:
        print(
            f"failed: edit {line['index']} of {_name(line)}, it was not finite at step "
            f"{line['failed_at']}"
        )
    if failed:
        print(f"failed: {len(failed)} of {len(journal.lines)} edits")
    return cli.EXIT_FAILED_ITEMS if failed else 0


def entry() -> None:
    """The console script."""
    cli.run(main, VALUES)


if __name__ == "__main__":
    entry()
