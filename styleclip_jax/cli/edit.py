"""styleclip-edit: edit latents by a text prompt.

  styleclip-edit --prompt="a person with purple hair" --seeds=0-15
  styleclip-edit --prompt="a smiling face" --latents=w_plus.npy --steps=40 --space=s
  styleclip-edit --method=mapper --mapper=models/purple_hair --strength=0.12
  styleclip-edit --method=direction --prompt="a smiling face" --alpha=-4,4

Writes under --outdir: original.npy and edited.npy (.npz in S), images/, metrics.jsonl
(a line per edit), grid.png, films/ with --film_frames, pasted/ with --paste, and
run.json. A latent that is edited with several --alpha and --beta has one row in each
for every pair of them.
Started again with the same flags, it goes on where it stopped. Exit code 1 says that
some latents could not be edited; metrics.jsonl says which.
"""

import functools
import itertools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from styleclip_jax import latents, loading, parallel, progress
from styleclip_jax.batch import journal, source, stream
from styleclip_jax.batch.journal import Journal
from styleclip_jax.batch.source import LatentSource
from styleclip_jax.cli import edit_flags, export, latent_flags, processes, program
from styleclip_jax.editing import editors
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, films, images
from styleclip_jax.models.network import Network
from styleclip_jax.photos import pasting

VALUES = flags.FlagValues()
latent_flags.define(VALUES)
journal.define(VALUES, outdir="outputs/edit", grid=8)
stream.define(VALUES)
edit_flags.define(VALUES)
export.define(VALUES)
flags.DEFINE_enum(
    "film_format",
    "gif",
    films.FORMATS,
    "Of the films of --film_frames; mp4 needs the extra film.",
    flag_values=VALUES,
)
flags.DEFINE_bool(
    "paste",
    False,
    "Put the results back into the photos that styleclip-invert made --latents from.",
    flag_values=VALUES,
)


def main(values: flags.FlagValues) -> int:
    """Makes every edit that is not made yet."""
    stream.check_batch_size(values)
    processes.connect(values)
    directory = loading.generator_directory(values.generator)
    mesh = parallel.make_mesh(jax.local_devices())
    generator = parallel.replicate(loading.load_generator(directory), mesh)
    label = latent_flags.one_hot_label(values, generator.config)
    editor = editors.prepare(values, generator, mesh)
    if values.export is not None:
        export.write(values, editor, generator)
        return 0
    source = _read_source(values, generator, editor)
    faces = pasting.read_faces(values.latents, len(source)) if values.paste else []
    primary = jax.process_index() == 0
    if primary:
        print(
            f"generator: {directory}, {generator.config.resolution}², "
            f"{generator.config.num_rows} rows of W+"
        )
        print("\n".join(editor.about))
        print(f"latents: {len(source)} in {source.space}, edited in {editor.space}")
    task = _task(values, source, editor, generator, label, faces)
    outdir, size = stream.begin(
        "styleclip-edit",
        values,
        functools.partial(_inputs, values, directory, editor),
        functools.partial(stream.find_batch_size, source, task, mesh),
    )
    journal = Journal(
        outdir,
        len(source) * len(editor.settings),
        editor.space,
        generator.config,
        process=jax.process_index(),
    )
    done = journal.done.reshape(len(source), -1).all(axis=1).sum()
    if done and primary:
        print(f"resumed: {done} of {len(source)} latents are done")
    open_edits = stream.count_open(len(source), size, journal.done)
    started = time.monotonic()
    with progress.bar(open_edits * editor.steps, editor.unit, shown=primary) as bar:
        failures = stream.run(task, source, journal, size, mesh, bar.update)
    seconds = time.monotonic() - started
    complete = stream.finish(journal)
    if not complete:
        stream.report_unwritten(failures, journal)
        return program.EXIT_FAILED_ITEMS
    if primary:
        if open_edits:
            print(
                f"edited: {open_edits} in {seconds:.1f} s, "
                f"{open_edits / seconds:.1f} per second, {size} per device at a time"
            )
        if values.grid:
            print(f"sheet: {_write_sheet(journal, generator, editor, values.grid)}")
        print(f"latents: {journal.paths['edited']}")
    return journal.report_failures(journal, "edit", shown=primary)


def _inputs(
    values: flags.FlagValues, directory: pathlib.Path, editor: editors.Editor
) -> dict[str, str]:
    """Hashes of what the run reads."""
    inputs = {"generator": checkpoints.fingerprint(directory)} | editor.inputs
    if values.latents is not None:
        inputs["latents"] = files.hash_file(values.latents)
    return inputs


def _task(
    values: flags.FlagValues,
    source: source.Source,
    editor: editors.Editor,
    generator: Network,
    label: jax.Array | None,
    faces: list[dict[str, Any]],
) -> stream.Task:
    """What is done with each latent."""
    convert = functools.partial(
        latents.convert,
        generator,
        space=source.space,
        truncation_psi=source.truncation_psi,
        cutoff=source.truncation_cutoff,
        to=editor.space,
        label=label,
    )

    def compute(
        latent: Any, rows: np.ndarray, variant: int, report: progress.Report
    ) -> stream.Outcome:
        made = editor.edit(latent, variant, report)
        packed = _pack({"original": made.original, "edited": made.latent})
        film = _film(made, values.film_frames)
        return stream.Outcome(made.image, packed, made.terms, made.failed_at, film)

    further = []
    outdir = pathlib.Path(values.outdir)
    if values.film_frames:
        film_format = values.film_format
        if film_format == "mp4":
            films.encoder()
        about = (outdir, generator, editor.space, film_format)
        further.append(("films", functools.partial(_write_film, *about)))
    if faces:
        further.append(("pasted", functools.partial(_paste, outdir, faces)))

    def write(index: int, row: int, one: stream.Outcome) -> None:
        for _, function in further:
            function(index, row, one)

    return stream.Task(
        variants=len(editor.settings),
        prepare=convert,
        compute=compute,
        describe=lambda row, i: source.origin(row) | editor.settings[i],
        image_format=values.images,
        probe=lambda latent, rows: editor.probe(latent),
        folders=[folder for folder, _ in further],
        write=write if further else None,
    )


_pack = jax.jit(lambda tree: {n: latents.pack(x) for n, x in tree.items()})


def _film(made: editors.Edits, num_frames: int) -> Any:
    """Latents from the source to the edit, [B, F + 1, …]; None without a film."""
    if not num_frames:
        return None
    share = jnp.linspace(0, 1, num_frames + 1, dtype=jnp.float32)[1:]

    def straight(a: jax.Array, b: jax.Array) -> jax.Array:
        return a[:, None] + share.reshape(-1, *[1] * (a.ndim - 1)) * (b - a)[:, None]

    film = made.film
    if film is None:
        film = jax.tree.map(straight, made.original, made.latent)
    return jax.tree.map(
        lambda a, rest: jnp.concatenate([a[:, None], rest], axis=1),
        made.original,
        film,
    )


def _read_source(
    values: flags.FlagValues, generator: Network, editor: editors.Editor
) -> source.Source:
    if values.mode == "free_generation":
        if values.latents is not None or values.seeds is not None:
            raise UserError(
                "--mode: free_generation starts at the average latent, expected "
                "neither --latents nor --seeds"
            )
        config = generator.config
        w_avg = np.asarray(generator.params["mapping"]["w_avg"])[None]
        layout = config.style_layout
        return LatentSource("w", range(1), w_avg, layout, config.z_dim)
    source = latent_flags.read(values, generator, default_seeds="0-7")
    if source.space == "s" and editor.space != "s":
        wanted = "--space=s with it"
        if values.method != "optimization":
            wanted = f"latents in {editor.space}, which the {values.method} edits"
        raise UserError(f"--latents: {values.latents} is in s, expected {wanted}")
    return source


def _write_film(
    outdir: pathlib.Path,
    generator: Network,
    space: str,
    format_: str,
    index: int,
    row: int,
    one: stream.Outcome,
) -> None:
    """A film of an edit: the source, then the frames on the way."""
    frames = np.asarray(_renderer(space)(generator, one.film))
    write = films.write_mp4 if format_ == "mp4" else films.write_gif
    write(outdir / "films" / f"{index:06d}.{format_}", frames)


@functools.cache
def _renderer(space: str) -> Callable[[Network, Any], jax.Array]:
    return jax.jit(latents.SPACES[space].synthesize)


def _paste(
    outdir: pathlib.Path,
    faces: list[dict[str, Any]],
    index: int,
    row: int,
    one: stream.Outcome,
) -> None:
    pasting.paste(outdir / "pasted" / f"{index:06d}.png", faces[row], one.image)


def _write_sheet(
    journal: journal.Journal, generator: Network, editor: editors.Editor, count: int
) -> pathlib.Path:
    """Sheet of the first latents, from the files of the run.

    One edit per latent: originals above, edits below. Several strengths: a row per
    latent and β, a column per α, the original first (Figure 6 of the paper). Several
    prompts or mappers: a row per latent, a column for each edit.
    """
    render, variants = _renderer(editor.space), len(editor.settings)
    count = min(count, len(journal.done) // variants)
    lines = list(itertools.islice(journal.lines(), count * variants))
    labels = [journal.name(line) for line in lines[::variants]]
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
        return images.save_sheet(journal.outdir / "grid.png", sheet)
    groups, columns = _columns(editor.settings)
    rows, row_labels = [], []
    for label, first, edited in zip(labels, before, after, strict=True):
        for group, part in zip(groups, np.split(edited, len(groups)), strict=True):
            rows.append(np.concatenate([first[:1], part]))
            row_labels.append(label + group)
    sheet = images.grid(
        rows,
        row_labels=row_labels,
        column_labels=["original", *columns],
        title=editor.title,
    )
    return images.save_sheet(journal.outdir / "grid.png", sheet)


def _columns(settings: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Captions of the rows of a latent, and of the columns with its edits."""
    if "beta" in settings[0] and "prompt" not in settings[0]:
        alphas = list(dict.fromkeys(s["alpha"] for s in settings))
        betas = list(dict.fromkeys(s["beta"] for s in settings))
        return [f", beta {b:.3g}" for b in betas], [f"alpha {a:g}" for a in alphas]
    varying = [n for n in settings[0] if len({str(s[n]) for s in settings}) > 1]
    captions = ["\n".join(_caption(n, s[n]) for n in varying) for s in settings]
    return [""], captions


def _caption(name: str, value: Any) -> str:
    """A prompt, the words of a mapper's folder, or a number with its name."""
    if isinstance(value, float):
        return f"{name} {value:.3g}"
    if name == "mapper":
        return pathlib.Path(value).name.replace("-", " ")
    return value


def _split(tree: Any, parts: int) -> list[Any]:
    """A tree of [N, …] as a list of trees of [N / parts, …]."""
    leaves, structure = jax.tree.flatten(tree)
    split = [np.split(np.asarray(leaf), parts) for leaf in leaves]
    return [jax.tree.unflatten(structure, part) for part in zip(*split, strict=True)]


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
