"""Edits of many latents: an editor over a source, into the files of styleclip-edit."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, loading, traced
from styleclip_jax.batch import edit_sheets, group_photos, run_folder, runs, stream
from styleclip_jax.batch.editor import Editor, Outcome
from styleclip_jax.batch.journal import Kept
from styleclip_jax.batch.source import LatentSource, SourceRequest
from styleclip_jax.batch.tuned import Generators
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, films, latent_files
from styleclip_jax.io.images import PNG_LEVEL
from styleclip_jax.models import generators
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.photos import pasting, turning
from styleclip_jax.progress import Listener, Report
from styleclip_jax.settings.latents import LEFT_OUT
from styleclip_jax.settings.output import Extras

PROGRAM = "styleclip-edit"

_FILM_SECONDS = 3.0


class Place(Protocol):
    """Generator on its devices.

    Attributes:
      models: names of the networks.
      mesh: devices that batches are spread over.
      generator: generator on these devices.
      label: [c_dim] one-hot class, None for an unconditional generator.
    """

    @property
    def models(self) -> loading.Models: ...
    @property
    def mesh(self) -> jax.sharding.Mesh: ...
    @property
    def generator(self) -> Network: ...
    @property
    def label(self) -> jax.Array | None: ...


class Session(Place, Protocol):
    """Loaded networks that make editors; `editing.session.Session` is one."""

    listener: Listener

    def editor(self, edit: Any) -> Editor: ...


def run(
    session: Session,
    edit: Any,
    latents: files.Path | None = None,
    *,
    seeds: str | None = None,
    truncation_psi: float = 0.7,
    truncation_cutoff: int | None = None,
    outdir: files.Path,
    prompt: str | None = None,
    batch_size: int | str | None = None,
    images: str = "png",
    png_level: int = PNG_LEVEL,
    grid: int = 8,
    film_frames: int = 0,
    film_format: str = "gif",
    paste: bool = False,
    paste_mask: str | None = None,
    tuned: str | None = None,
) -> runs.Summary:
    """Edits many latents into a folder, as styleclip-edit does. A run is resumable.

    Args:
      session: loaded networks.
      edit: editor of the session, such as `session.optimization(…)`, or a direction,
        which is an edit by itself.
      latents: file of latents; None for random latents of `seeds`.
      seeds: seeds such as "0-15"; "0-7" without latents and seeds.
      truncation_psi: truncation of z and w: 1 for none, 0 for the average.
      truncation_cutoff: number of leading rows to truncate, None for all.
      outdir: folder for the results; the same call resumes an interrupted run.
      prompt: prompt of a direction, which is written down for evaluation.
      batch_size: latents per device at a time, or "auto"; 8 at most if absent, so that
        every device has some.
      images: format of the images: png, jpg, npy, tar, tar-jpg, or none.
      png_level: compression of PNGs, from 0 to 9.
      grid: number of latents on the sheet grid.png, 0 for no sheet.
      film_frames, film_format, paste, paste_mask: see `Extras`.
      tuned: see `TunedSettings`.

    Returns:
      Summary of the run.

    Raises:
      UserError: an argument is wrong, or the folder is of another run.
    """
    source = SourceRequest(
        seeds,
        None if latents is None else str(latents),
        truncation_psi,
        truncation_cutoff,
    )
    extras = Extras(film_frames, film_format, paste, paste_mask)
    editor = session.editor(edit)
    settings = record(session.models, editor, prompt=prompt, images=images, grid=grid)
    opened = source.open(session.generator.config, default_seeds="0-7")
    return carry_out(
        session,
        editor,
        opened,
        latents_file=source.latents,
        generators=open_generators(session, editor, tuned, source.latents, len(opened)),
        output=runs.Output(
            str(outdir),
            images,
            png_level,
            grid,
            None if batch_size is None else str(batch_size),
        ),
        extras=extras,
        settings=settings
        | {**dataclasses.asdict(source), **dataclasses.asdict(extras), "tuned": tuned},
        listener=session.listener,
    )


def record(
    models: loading.Models,
    editor: Editor,
    *,
    prompt: str | None,
    images: str,
    grid: int,
) -> dict[str, Any]:
    """Settings of an edit by the names of their flags, for run.json.

    Args:
      models: names of the session's networks.
      editor: editor of the run.
      prompt: prompt of a direction; other editors record their own.
      images, grid: as in `run`.
    """
    return {
        "generator": models.generator,
        "clip": models.clip,
        "clip_weights": models.clip_weights and [f"{w:g}" for w in models.clip_weights],
        "clip_towers": models.clip_towers,
        "identity": models.identity,
        "class": models.class_,
        **models.record(),
        "method": editor.method,
        "prompt": prompt,
        "images": images,
        "grid": grid,
        **editor.record,
    }


def open_generators(
    place: Place,
    editor: Editor,
    asked: str | None,
    latents_file: str | None,
    count: int,
) -> Generators:
    """Generators of the latents of a file, through which an editor edits.

    Args:
      place: generator and its devices.
      editor: editor of each latent.
      asked, latents_file, count: as of `Generators.open`.

    Raises:
      UserError: as of `Generators.open`, or the editor cannot edit through tuned ones.
    """
    about = (place.models, place.generator, place.mesh)
    found = Generators.open(*about, asked, latents_file, count)
    if found.tuned and editor.through is None:
        raise UserError(
            f"tuned: the method {editor.method} cannot edit through tuned generators, "
            f"expected {LEFT_OUT}",
            field="tuned",
        )
    return found


def carry_out(
    place: Place,
    editor: Editor,
    source: LatentSource,
    *,
    latents_file: str | None,
    generators: Generators,
    output: runs.Output,
    extras: Extras,
    settings: Mapping[str, Any],
    listener: Listener,
) -> runs.Summary:
    """Makes every edit that is missing, and the sheet of edits.

    Args:
      place: generator and its devices.
      editor: editor of each latent.
      source: source of the latents.
      latents_file: file of these latents, None for seeds.
      generators: generators that draw the latents, and edit them where the editor has
        a way through others than its own.
      output: files to write.
      extras: additional files to write.
      settings: settings that decide the results, by the names of the flags.
      listener: listener for the progress.

    Returns:
      Summary of the run.

    Raises:
      UserError: as in `runs.carry_out`, or there is nothing to paste into.
    """
    generator = place.generator
    for line in generators.describe():
        listener.tell(line)
    faces = []
    if extras.paste:
        faces = pasting.read_faces(latents_file, len(source), extras.paste_mask)
    turn = _turner(generators, faces)

    def inputs() -> dict[str, str]:
        found = place.models.fingerprints("generator") | dict(editor.inputs)
        found |= generators.inputs
        if latents_file is not None:
            found["latents"] = latent_files.hash_source(latents_file)
        return found

    work = runs.Work(
        program=PROGRAM,
        settings=settings,
        inputs=inputs,
        output=output,
        source=source,
        task=_task(
            editor, source, generators, place.label, output, extras, faces, turn
        ),
        kept=Kept.latents(editor.space, generator.config, ("original", "edited")),
        steps=editor.steps,
        unit=editor.unit,
        result="edit",
        quicker=editor.quicker,
    )
    with run_folder.only_run(output.outdir, listener.tell):
        done = runs.carry_out(work, place.mesh, listener)
        if done.complete and jax.process_index() == 0:
            for line in done.describe("edited"):
                listener.tell(line)
            if output.grid:
                path = edit_sheets.write(done.journal, generators, editor, output.grid)
                listener.tell(f"sheet: {path}")

            def draw(latent: Any, rows: np.ndarray) -> Any:
                image = generators.each(edit_sheets.render, latent, rows)
                return image, turn(latent, rows)

            about = (faces, len(editor.settings), draw)
            if together := group_photos.write(done.journal, *about, extras):
                listener.tell(f"photos of several faces: {together}")
            listener.tell(f"latents: {done.journal.paths['edited']}")
    return done


class _Writer(NamedTuple):
    """Writer of additional files of an edit, and their folder."""

    folder: str
    write: Callable[[int, int, Outcome], None]


def _task(
    editor: Editor,
    source: LatentSource,
    generators: Generators,
    label: jax.Array | None,
    output: runs.Output,
    extras: Extras,
    faces: list[dict[str, Any]],
    turn: Callable[[Any, np.ndarray], jax.Array | None],
) -> stream.Task:
    """Task of a run: the edit of each latent, and its files."""

    convert = functools.partial(source.convert, to=editor.space, label=label)
    prepare = functools.partial(convert, generators.generator)
    through = editor.through if generators.tuned else None
    # Tuned generators convert their latents themselves, when they edit them.
    late = prepare if through else _keep

    def edit(batch: Any, rows: np.ndarray, variant: int, report: Report) -> Outcome:
        if through is None:
            return editor.edit(batch, variant, report)

        def one(generator: Network, batch: Any) -> Outcome:
            return through(generator, convert(generator, batch), variant, report)

        return generators.each(one, batch, rows)

    def compute(batch: Any, rows: np.ndarray, variant: int, report: Report) -> Outcome:
        made = edit(batch, rows, variant, report)
        return made._replace(
            latent=_pack(made.latent),
            film=_film(made, extras.film_frames),
            history=None,
            turned=turn(made.latent["edited"], rows),
        )

    writers = []
    outdir = pathlib.Path(output.outdir)
    if extras.film_frames:
        films.require(extras.film_format)
        about = (outdir, generators, extras.film_format)
        writers.append(_Writer("films", functools.partial(_write_film, *about)))
    if faces:
        writers.append(
            _Writer("pasted", functools.partial(_paste, outdir, faces, extras))
        )

    def write(index: int, row: int, one: Outcome) -> None:
        for writer in writers:
            writer.write(index, row, one)

    return stream.Task(
        variants=len(editor.settings),
        prepare=_keep if through else prepare,
        compute=compute,
        describe=lambda row, i: source.origin(row) | editor.settings[i],
        image_format=output.images,
        png_level=output.png_level,
        probe=lambda batch, rows: editor.probe(late(batch)),
        memory=lambda batch, rows: editor.memory(late(batch)),
        folders=[writer.folder for writer in writers],
        write=write if writers else None,
    )


def _keep(batch: Any) -> Any:
    return batch


_pack = jax.jit(lambda tree: {n: latents.pack(x) for n, x in tree.items()})


def _film(made: Outcome, num_frames: int) -> Any:
    """Film of latents from the source to the edit, [B, F + 1, …]; None without one."""
    if not num_frames:
        return None
    share = jnp.linspace(0, 1, num_frames + 1, dtype=jnp.float32)[1:]

    def straight(a: jax.Array, b: jax.Array) -> jax.Array:
        return a[:, None] + share.reshape(-1, *[1] * (a.ndim - 1)) * (b - a)[:, None]

    before, film = made.latent["original"], made.film
    if film is None:
        film = jax.tree.map(straight, before, made.latent["edited"])
    return jax.tree.map(
        lambda a, rest: jnp.concatenate([a[:, None], rest], axis=1),
        before,
        film,
    )


def _write_film(
    outdir: pathlib.Path,
    generators: Generators,
    format_: str,
    index: int,
    row: int,
    one: Outcome,
) -> None:
    """Writes the film of an edit: the source, then the frames up to the edit."""
    frames = np.asarray(latents.render(generators.of(row), one.film))
    path = outdir / "films" / f"{index:06d}.{format_}"
    films.FORMATS[format_](path, frames, len(frames) / _FILM_SECONDS)


def _paste(
    outdir: pathlib.Path,
    faces: list[dict[str, Any]],
    extras: Extras,
    index: int,
    row: int,
    one: Outcome,
) -> None:
    path = outdir / "pasted" / f"{index:06d}.png"
    drawn = [(one.image, one.turned)]
    pasting.paste(path, [faces[row]], drawn, mask=extras.paste_mask)


def _turner(
    generators: Generators, faces: list[dict[str, Any]]
) -> Callable[[Any, np.ndarray], jax.Array | None]:
    """Function (latents, rows of their faces) → what `Outcome.turned` holds."""
    found = [turning.transform(np.array(face["quad"])) for face in faces]
    if not generators.generator.config.turns or all(x is None for x in found):
        return lambda latent, rows: None
    places = np.stack([np.eye(3, dtype=np.float32) if x is None else x for x in found])
    return lambda latent, rows: generators.each(_turned, (latent, places[rows]), rows)


@jax.jit
@functools.partial(traced.keep, "edits.turned")
def _turned(generator: Network, batch: Any) -> jax.Array:
    latent, place = batch
    return pixels.to_uint8(latents.render(generators.moved(generator, place), latent))
