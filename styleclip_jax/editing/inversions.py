"""Inversions of many photos, resumable: faces are found, cut out and inverted."""

import dataclasses
import functools
import hashlib
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from styleclip_jax import latents, parallel
from styleclip_jax.batch import run_folder
from styleclip_jax.batch.journal import Journal, Kept
from styleclip_jax.editing import inverter
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images
from styleclip_jax.loading import Models
from styleclip_jax.methods import optimization
from styleclip_jax.methods.inversion import InversionConfig
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.photos import crops, pasting, photo_files
from styleclip_jax.progress import Listener, Report
from styleclip_jax.settings.photos import PhotoOutput, PhotoRequest

PROGRAM = "styleclip-invert"

# Largest number of letters of a file's name on the sheet.
_MAX_LABEL = 16


@dataclasses.dataclass(frozen=True)
class Request:
    """Request for inversions of the faces of photos.

    Attributes:
      models: names of the networks.
      photos: photos to invert.
      config: settings of the inversion.
      output: files to write.
      settings: all of this by the names of the flags, for run.json.
    """

    models: Models
    photos: PhotoRequest
    config: InversionConfig
    output: PhotoOutput
    settings: Mapping[str, Any]


class Summary(NamedTuple):
    """Summary of inversions that have ended.

    Attributes:
      journal: journal of the run.
      failures: lines on photos that were skipped, and faces that did not stay finite.
    """

    journal: Journal
    failures: list[str]


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
    with run_folder.only_run(request.output.outdir, listener.tell):
        return _carry_out(request, listener)


def _carry_out(request: Request, listener: Listener) -> Summary:
    asked, output = request.photos, request.output
    paths, left_out = photo_files.find(asked.photos)
    session = Session(request.models.with_decoder(), listener=listener)
    invert, steps = session.inverter(request.config)
    models, generator = session.models, session.generator
    inputs = _inputs(models, asked, paths)
    outdir, faces, skipped = _open(request, paths, inputs, session)
    resolution = generator.config.resolution
    listener.tell(
        f"{models.describe_generator(generator.config)}\n"
        f"encoder: {models.encoder or 'none'}\n"
        f"{models.describe_clip(session.clip)}\n"
        f"photos: {len(paths)}, {len(faces)} faces"
    )
    for line in left_out:
        listener.tell(f"left out: {line}")
    crop = functools.partial(
        crops.crop,
        resolution=resolution,
        encoded_size=session.encoded_size,
        is_aligned=not asked.align,
    )
    journal = Journal(
        outdir,
        len(faces),
        Kept.latents("w_plus", generator.config, ["w_plus"]),
        images=output.images,
    )
    for note in journal.notes:
        listener.tell(note)
    todo = np.flatnonzero(~journal.done).tolist()
    if len(todo) < len(faces):
        listener.tell(
            f"resumed: {len(faces) - len(todo)} of {len(faces)} faces are done"
        )
    with listener.long_bar(len(todo) * steps, "step", inverter.QUICKER) as report:
        for rows, size in _batches(todo, asked.batch_size, session.mesh.size):
            started = time.monotonic()
            cut = crop([faces[row] for row in rows])
            batch = parallel.shard(parallel.pad(cut, size), session.mesh)
            advance = functools.partial(_advance, report, len(rows))
            result = _to_host(invert(batch, advance), len(rows))
            seconds = (time.monotonic() - started) / len(rows)
            if output.images != "none":
                for row, picture in zip(rows, result.image, strict=True):
                    path = outdir / "images" / f"{row:06d}.{output.images}"
                    images.write(path, picture)
            lines = _lines(faces, rows, cut.target, result, seconds)
            journal.append(rows, lines, w_plus=result.latent)
    journal.finish()
    if output.grid:
        target = crop(faces[: output.grid]).target
        path = _write_sheet(journal, generator, faces, target)
        listener.tell(f"sheet: {path}")
    listener.tell(f"latents: {journal.paths['w_plus']}")
    if skipped or left_out:
        listener.tell(
            f"photos not taken: {len(skipped)} of {len(paths)}; other files left out: "
            f"{len(left_out)}"
        )
    return Summary(journal, _describe_failures(journal, skipped, listener))


def _batches(
    todo: list[int], batch_size: int, devices: int
) -> Iterator[tuple[list[int], int]]:
    """Rows of each batch, and the size that all batches are padded to."""
    size = parallel.round_up(min(batch_size, len(todo)), devices)
    for start in range(0, len(todo), max(size, 1)):
        yield todo[start : start + size], size


def _advance(report: Report, faces: int, steps: int) -> None:
    """Reports the steps of a batch of faces as units of work."""
    report(faces * steps)


def _to_host(result: optimization.Result, count: int) -> Any:
    """Result as NumPy arrays, without the padding of the batch."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], result)


def _inputs(
    models: Models, asked: PhotoRequest, paths: Sequence[pathlib.Path]
) -> dict[str, str]:
    """Hashes of the files that the run reads; a CLIP from the hub goes by its name."""
    named = [n for n in ("encoder", "identity") if getattr(models, n) is not None]
    inputs = models.fingerprints("generator", "clip", *named)
    if asked.landmarks is not None:
        inputs["landmarks"] = files.hash_file(asked.landmarks)
    hashes = "".join(map(_hash_photo, paths))
    inputs["photos"] = hashlib.sha256(hashes.encode()).hexdigest()
    return inputs


def _hash_photo(path: pathlib.Path) -> str:
    try:
        return files.hash_file(path)
    except UserError as error:
        # The photo will be skipped and listed.
        return str(error)


def _open(
    request: Request,
    paths: list[pathlib.Path],
    inputs: Mapping[str, str],
    session: Session,
) -> tuple[pathlib.Path, list[dict[str, Any]], list[str]]:
    """Folder of the run, its faces, and lines on why photos were skipped.

    A face has the keys "file" and "quad", the corners of its square. A run that goes on
    has the same photos, so that faces need not be found again.
    """
    path = pathlib.Path(request.output.outdir) / pasting.RECORD
    found = None
    if not path.exists():
        found = crops.find(
            paths,
            is_aligned=not request.photos.align,
            landmarks_file=request.photos.landmarks,
            all_faces=request.photos.all_faces,
            encoded_size=session.encoded_size,
            max_pixels=request.photos.max_pixels,
            tell=session.listener.tell,
        )
    outdir = run_folder.begin(
        request.output.outdir,
        program=PROGRAM,
        settings={**request.settings, **request.models.record()},
        inputs=inputs,
        tell=session.listener.tell,
    )
    if found is not None:
        files.write_json(path, found)
    document = pasting.read_record(path)
    return outdir, document["faces"], document["skipped"]


def _lines(
    faces: list[dict[str, Any]],
    rows: list[int],
    target: np.ndarray,
    result: Any,
    seconds: float,
) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl for a batch of faces."""
    lines = []
    for i, row in enumerate(rows):
        failed_at = int(result.failed_at[i])
        known = np.isfinite(result.latent[i]).all() and pixels.is_drawn(result.image[i])
        if failed_at < 0 and not known:
            # The latent is an encoder's, which no step has looked at.
            failed_at = 0
        outcome: dict[str, Any] = {"failed_at": failed_at}
        if failed_at < 0:
            outcome = {name: float(value[i]) for name, value in result.terms.items()}
            outcome["levels"] = _levels(result.image[i], target[i])
        lines.append(
            {"index": row, "file": faces[row]["file"]}
            | outcome
            | {"seconds": round(seconds, 3)}
        )
    return lines


def _levels(image: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute difference of two images as 8-bit images, from 0 to 255."""
    a, b = (pixels.to_uint8(x).astype(int) for x in (image, target))
    return float(np.abs(a - b).mean())


def _write_sheet(
    journal: Journal,
    generator: Network,
    faces: list[dict[str, Any]],
    target: np.ndarray,
) -> pathlib.Path:
    """Writes the sheet of the first faces and inversions, from the files of the run."""
    image = latents.render(generator, journal.read("w_plus", len(target)))
    labels = [pathlib.Path(face["file"]).stem[:_MAX_LABEL] for face in faces]
    sheet = images.grid(
        [target, np.asarray(image)],
        row_labels=["photo", "inversion"],
        column_labels=labels[: len(target)],
    )
    return images.save_sheet(journal.outdir / "grid.png", sheet)


def _describe_failures(
    journal: Journal, skipped: list[str], listener: Listener
) -> list[str]:
    """Lines on faces and photos that failed; the mean error of the others is told."""
    lines = list(journal.lines())
    levels = [line["levels"] for line in lines if "levels" in line]
    if levels:
        listener.tell(f"mean absolute error: {np.mean(levels):.2f} of 255 levels")
    failed = [
        f"failed: {line.get('file', line['index'])}: the loss was not finite at step "
        f"{line['failed_at']}"
        for line in lines
        if "failed_at" in line
    ]
    return failed + [f"skipped: {line}" for line in skipped]
