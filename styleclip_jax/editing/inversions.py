"""Inversions of many photos, resumable: faces are found, cut out and inverted."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import parallel
from styleclip_jax.batch import photo_faces, run_folder, runs, stream, tuned
from styleclip_jax.batch.editor import Outcome
from styleclip_jax.batch.journal import Journal, Kept
from styleclip_jax.batch.photo_faces import FaceSource
from styleclip_jax.batch.tuned import Generators
from styleclip_jax.editing import inverter, projecting, tuning
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images
from styleclip_jax.loading import Models
from styleclip_jax.methods import optimization
from styleclip_jax.methods.inversion import InversionConfig
from styleclip_jax.ops import pixels
from styleclip_jax.photos import photo_files
from styleclip_jax.photos.crops import Crops
from styleclip_jax.photos.finding import Finder
from styleclip_jax.progress import Listener, Report, ignore
from styleclip_jax.settings.output import Output
from styleclip_jax.settings.photos import PhotoRequest
from styleclip_jax.settings.projection import ProjectionConfig
from styleclip_jax.settings.tuning import TuningConfig

PROGRAM = "styleclip-invert"

# Largest number of letters of a file's name on the sheet.
_MAX_LABEL = 16
# Steps of each phase that tell how long all take.
_PROBED = 2


@dataclasses.dataclass(frozen=True)
class Request:
    """Request for inversions of the faces of photos.

    Attributes:
      models: names of the networks.
      photos: photos to invert.
      config: settings of the inversion.
      output: files to write.
      settings: all of this by the names of the flags, for run.json.
      tuning: settings of the tuning of generators after that.
      projection: settings of a projection in place of the inversion by `config`; None
        for the latter.
    """

    models: Models
    photos: PhotoRequest
    config: InversionConfig
    output: Output
    settings: Mapping[str, Any]
    tuning: TuningConfig
    projection: ProjectionConfig | None = None


class Summary(NamedTuple):
    """Summary of inversions that have ended.

    Attributes:
      journal: journal of the run.
      failures: lines on photos that were skipped, and faces that did not stay finite or
        could not be written.
      succeeded: whether every photo was inverted.
    """

    journal: Journal
    failures: list[str]
    succeeded: bool


def carry_out(request: Request, listener: Listener) -> Summary:
    """Inverts every face that is not done yet.

    Args:
      request: photos, and settings of their inversion.
      listener: listener for the progress.

    Returns:
      Summary of the run.

    Raises:
      UserError: no photo has a face, a network is missing, or the folder is of another
        run.
    """
    with (
        run_folder.only_run(request.output.outdir, listener.tell),
        photo_faces.readers() as readers,
    ):
        return _carry_out(request, readers, listener)


def _carry_out(
    request: Request, readers: concurrent.futures.Executor, listener: Listener
) -> Summary:
    asked, output = request.photos, request.output
    paths, left_out = photo_files.find(asked.photos)
    session = Session(request.models.with_decoder(), listener=listener)
    invert, steps = _inverter(session, request)
    models, config = session.models, session.generator.config
    tune, total = None, steps
    if request.tuning.tune_steps:
        tune = tuning.tuner(models, session.generator, request.tuning, session.mesh)
        total = steps + request.tuning.tune_steps
    settings = {**request.settings, **request.models.record()}
    inputs = functools.cache(lambda: _inputs(models, asked, paths, readers))
    finder = Finder(
        is_aligned=not asked.align,
        landmarks_file=asked.landmarks,
        all_faces=asked.all_faces,
        resolution=config.image_size,
        encoded_size=session.encoded_size,
        max_pixels=asked.max_pixels,
    )
    with parallel.first_alone():
        if jax.process_index() == 0:
            run_folder.begin(
                output.outdir, program=PROGRAM, settings=settings, inputs=inputs()
            )
    outdir = pathlib.Path(output.outdir)
    faces, skipped = photo_faces.find(outdir, paths, finder, readers, listener).values()
    source = FaceSource(
        faces,
        resolution=config.image_size,
        encoded_size=session.encoded_size,
        is_aligned=not asked.align,
        readers=readers,
    )
    listener.tell(
        f"{models.describe_generator(config)}\n"
        f"encoder: {models.encoder or 'none'}\n"
        f"{models.describe_clip(session.clip)}\n"
        f"photos: {len(paths)}, {len(faces)} faces"
    )
    for line in left_out:
        listener.tell(f"left out: {line}")
    work = runs.Work(
        program=PROGRAM,
        settings=settings,
        inputs=inputs,
        output=output,
        source=source,
        task=_task(request, session, source, invert, tune, steps),
        kept=Kept.latents("w_plus", config, ["w_plus"]),
        steps=total,
        unit="step",
        result="face",
        quicker=inverter.QUICKER if tune is None else tuning.QUICKER,
        items="faces",
    )
    done = runs.carry_out(work, session.mesh, listener)
    if done.complete and jax.process_index() == 0:
        _finish(done, source, session, output.grid)
    if skipped or left_out:
        listener.tell(
            f"photos not taken: {len(skipped)} of {len(paths)}; other files left out: "
            f"{len(left_out)}"
        )
    failures = list(done.failures)
    if jax.process_index() == 0:
        failures += [f"skipped: {line}" for line in skipped]
    return Summary(done.journal, failures, done.succeeded and not skipped)


def _inverter(session: Session, request: Request) -> tuple[inverter.Inverter, int]:
    """Inverter of batches of photos, and its number of steps per photo."""
    if request.projection is None:
        return session.inverter(request.config)
    about = (session.models, session.generator, session.encoder)
    return projecting.projector(*about, request.projection, session.mesh)


def _task(
    request: Request,
    session: Session,
    source: FaceSource,
    invert: inverter.Inverter,
    tune: tuning.Tuner | None,
    steps: int,
) -> stream.Task:
    """Inversion of each face of a source, and the tuning of its generator."""
    output = request.output
    moves_noise = request.projection is not None and request.projection.noise_lambda
    folders = [tuned.FOLDER] if tune is not None or moves_noise else []
    folder = pathlib.Path(output.outdir) / tuned.FOLDER
    origin = session.models.generator_origin()

    def followed(
        result: Any, faces: Crops, report: Report, most: int | None = None
    ) -> Outcome:
        outcome = _outcome(result)
        if tune is None:
            return outcome
        found = tune(faces.target, outcome.latent["w_plus"], report, most)
        return tuning.follow(outcome, faces.target, found, steps)

    def compute(faces: Crops, rows: np.ndarray, variant: int, report: Report) -> Any:
        return followed(invert(faces, report), faces, report)

    def probe(faces: Crops) -> Outcome:
        return followed(invert.probe(faces), faces, ignore, _PROBED)

    def memory(faces: Crops) -> int:
        needed = invert.memory(faces)
        if tune is None:
            return needed
        config = session.generator.config
        shape = (len(faces.target), config.num_rows, config.w_dim)
        sharding = parallel.over_batch(session.mesh)
        latent = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
        return max(needed, tune.memory(faces.target, latent))

    return stream.Task(
        variants=1,
        prepare=lambda faces: faces,
        compute=compute,
        describe=lambda row, variant: source.describe(row),
        image_format=output.images,
        png_level=output.png_level,
        probe=lambda faces, rows: probe(faces),
        memory=lambda faces, rows: memory(faces),
        folders=folders,
        write=(lambda index, row, one: tuning.write(folder, origin, row, one))
        if folders
        else None,
    )


@jax.jit
def _outcome(result: optimization.Result | projecting.Projected) -> Outcome:
    """Inversions with their mean absolute error in levels of 8 bits.

    One without steps has an encoder's latent, which nobody has looked at.
    """
    photo, latent = result.source.image, result.latent
    known = jnp.isfinite(latent).all((1, 2)) & pixels.is_drawn(result.image)
    levels = pixels.mean_levels(result.image, photo)
    return Outcome(
        result.image,
        {"w_plus": latent},
        {**result.terms, "levels": levels},
        jnp.where(known | (result.failed_at >= 0), result.failed_at, 0),
        changes=result.changes if isinstance(result, projecting.Projected) else None,
    )


def _inputs(
    models: Models,
    asked: PhotoRequest,
    paths: Sequence[pathlib.Path],
    readers: concurrent.futures.Executor,
) -> dict[str, str]:
    """Hashes of the files that the run reads; a CLIP from the hub goes by its name."""
    named = [
        n for n in ("encoder", "identity", "lpips") if getattr(models, n) is not None
    ]
    inputs = models.fingerprints("generator", "clip", *named)
    if asked.landmarks is not None:
        inputs["landmarks"] = files.hash_file(asked.landmarks)
    hashes = "".join(readers.map(_hash_photo, paths))
    inputs["photos"] = hashlib.sha256(hashes.encode()).hexdigest()
    return inputs


def _hash_photo(path: pathlib.Path) -> str:
    try:
        return files.hash_file(path)
    except UserError as error:
        # The photo will be skipped and listed.
        return str(error)


def _finish(
    done: runs.Summary, source: FaceSource, session: Session, count: int
) -> None:
    """Writes the sheet of the first faces, and tells of a run that is complete."""
    listener, journal = session.listener, done.journal
    for line in done.describe("inverted"):
        listener.tell(line)
    if count:
        rows = range(min(count, len(source)))
        w_plus = journal.read("w_plus", len(rows))
        beside = str(journal.paths["w_plus"])
        about = (session.models, session.generator, session.mesh)
        generators = Generators.open(*about, None, beside, len(source))
        image = generators.draw(w_plus)
        names = [pathlib.Path(source.describe(row)["file"]).stem for row in rows]
        sheet = images.grid(
            [source.load(np.array(rows)).target, np.asarray(image)],
            row_labels=["photo", "inversion"],
            column_labels=[name[:_MAX_LABEL] for name in names],
        )
        path = images.save_sheet(journal.outdir / "grid.png", sheet)
        listener.tell(f"sheet: {path}")
    listener.tell(f"latents: {journal.paths['w_plus']}")
    levels = [line["levels"] for line in journal.lines() if "levels" in line]
    if levels:
        listener.tell(f"mean absolute error: {np.mean(levels):.2f} of 255 levels")
