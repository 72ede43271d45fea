"""Uploads of the page: photos, the faces in them, their inversion and tuning."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.app import rooms
from styleclip_jax.app.rooms import Face, Room
from styleclip_jax.app.waiting import Work
from styleclip_jax.editing import portraits
from styleclip_jax.errors import UserError
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align, crops, finding, photo_files
from styleclip_jax.progress import Report, ignore

# Stages of work, for people.
_FINDING, _INVERTING = "Finding the face", "Looking for the photo's latent"
TUNING = "Tuning the generator"
# Faces of an upload.
MOST_FACES = 16
# Steps that tell how long a tuning takes: few at first, and more where they are quick.
_TRIED, _MOST_TRIED, _TRIED_SECONDS = 2, 32, 1.0


class Photo(NamedTuple):
    """Face of a photo of a visitor.

    Attributes:
      name: name of its file, and which of several faces it is.
      crop: the face, cut out.
      found: how the face was found, for people.
    """

    name: str
    crop: crops.Crops
    found: str


def open_photo(
    room: Room, path: str, *, find_face: bool, all_faces: bool = False
) -> list[Photo]:
    """Opens a photo, and cuts out the faces that it shows.

    Args:
      room: networks.
      path: file of the photo, whatever its name.
      find_face: whether to crop faces as in FFHQ; without it, or without a face, the
        largest square in the middle is the face.
      all_faces: whether to take all faces, not the largest alone.

    Raises:
      UserError: the file is no photo, or a face is not inside of it.
    """
    name, session = pathlib.Path(path).name, room.session
    notes: list[str] = []
    size = session.generator.config.image_size
    try:
        photo = photo_files.read(path, room.max_pixels, notes.append)
    except UserError as error:
        # The folder of an upload concerns nobody.
        raise UserError(str(error).replace(str(path), name)) from None
    quads: list[np.ndarray | None] = [None]
    if isinstance(session.encoded_size, tuple):
        found = "used as it is"
    elif isinstance(size, tuple):
        photo, found = _middle(photo, *size), "its middle is used"
    else:
        faces, found = _find(name, photo, all_faces) if find_face else ([], "")
        quads = [align.quad(face) for face in faces] or quads
        if not faces:
            photo, found = _middle(photo, 1, 1), found or "used as it is"
    about = "; ".join([found, *(x.replace(f"{path}: ", "") for x in notes)])
    sizes: Any = {"resolution": size, "encoded_size": session.encoded_size}
    return [
        Photo(_name(name, i, len(quads)), crops.cut(photo, quad, **sizes), about)
        for i, quad in enumerate(quads)
    ]


def take(
    room: Room,
    work: Work[Any],
    paths: Sequence[str],
    *,
    find_face: bool,
    all_faces: bool,
    tunes: bool,
) -> tuple[tuple[Face, ...], list[str]]:
    """Takes photos: inverts their faces, perhaps tunes, and gives a note on each.

    Args:
      room: networks.
      work: is told of the stages.
      paths: files of the photos.
      find_face, all_faces: see `open_photo`.
      tunes: whether to tune a generator to each face.

    Raises:
      UserError: no photo can be used. One of several is in the notes.
    """
    photos: list[Photo] = []
    notes: list[str] = []
    refused: list[str] = []
    with work.stage(_FINDING, len(paths)):
        for path in paths:
            with _noted(refused):
                photos += open_photo(
                    room, path, find_face=find_face, all_faces=all_faces
                )
            work.count(1)
    if len(photos) > MOST_FACES:
        refused.append(f"{len(photos)} faces: the first {MOST_FACES} are taken")
    made: list[tuple[Photo, Face]] = []
    photos = photos[:MOST_FACES]
    with work.stage(_INVERTING, len(photos) * room.num_inversion_steps):
        for photo in photos:
            with _noted(refused):
                made.append((photo, invert(room, photo, work.count)))
    if tunes:
        untuned, made = made, []
        with work.stage(TUNING, len(untuned) * room.tuning.tune_steps):
            for photo, face in untuned:
                with _noted(refused):
                    made.append(tune(room, photo, face, work.count))
    if not made:
        raise UserError("; ".join(refused))
    notes = [f"{photo.name}: {photo.found}" for photo, _ in made]
    return tuple(face for _, face in made), notes + refused


@contextlib.contextmanager
def _noted(refused: list[str]) -> Iterator[None]:
    """Context in which an error is noted, and others go on."""
    try:
        yield
    except UserError as error:
        refused.append(str(error))


def invert(room: Room, photo: Photo, report: Report) -> Face:
    """Inverts the face of a photo.

    Args:
      room: networks.
      photo: the photo.
      report: is told of steps, `num_inversion_steps` in all.

    Raises:
      UserError: it does not stay finite.
    """
    result = room.inverter(jax.tree.map(lambda x: x[None], photo.crop), report)
    if int(result.failed_at[0]) >= 0 or not np.isfinite(result.latent).all():
        raise UserError(f"{photo.name}: the inversion did not stay finite")
    return Face(np.asarray(result.latent), photo.name)


def tune(room: Room, photo: Photo, face: Face, report: Report) -> tuple[Photo, Face]:
    """Photo with a note, and face with a generator that is tuned to it.

    Args:
      room: networks.
      photo: the photo.
      face: its inversion.
      report: is told of steps, `room.tuning.tune_steps` in all.

    Raises:
      UserError: it does not stay finite.
    """
    target = photo.crop.target[None]
    (made,) = portraits.tune_all(room.session, room.tuner, target, face.latent, report)
    if made is None:
        raise UserError(f"{photo.name}: the tuning did not stay finite")
    tuned = face._replace(tuned=room.tunings.add(made))
    before, after = (
        float(pixels.mean_levels(jnp.asarray(pixels.to_float(x)), target)[0])
        for x in (room.render(face.latent), room.render(tuned.latent, tuned.tuned))
    )
    note = f"{before:.1f} of 255 levels from the photo, {after:.1f} after tuning"
    return photo._replace(found=f"{photo.found}; {note}"), tuned


def forecast(room: Room) -> float:
    """Seconds that the tuning to a face takes here, by some steps of one."""
    latent = rooms.draw(room, rooms.SEEDS[0]).latent
    about = (room.session, room.tuner, room.session.render(latent), latent)
    # The first step is compiled.
    portraits.tune_all(*about, ignore, 1)
    most = _TRIED
    while True:
        taken: list[int] = []
        began = time.monotonic()
        portraits.tune_all(*about, taken.append, most)
        seconds = time.monotonic() - began
        if seconds >= _TRIED_SECONDS or most >= _MOST_TRIED:
            return seconds / max(1, sum(taken)) * room.tuning.tune_steps
        most *= 4


def _find(
    name: str, photo: np.ndarray, all_faces: bool
) -> tuple[list[np.ndarray], str]:
    """Landmarks of the faces of a photo, and how they were found."""
    try:
        found = align.detect(photo)
    except UserError:
        return [], "no face detector (the extra align), its middle is used"
    if not found:
        return [], "no face was found, its middle is used"
    try:
        return finding.choose(photo, found, all_faces), "the face was aligned"
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _name(name: str, index: int, count: int) -> str:
    return name if count == 1 else f"{name}, face {index + 1} of {count}"


def _middle(photo: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Largest part in the middle of a photo of a shape, rows by columns."""
    height, width, _ = photo.shape
    high = min(height, width * rows // columns)
    wide = min(width, height * columns // rows)
    top, left = (height - high) // 2, (width - wide) // 2
    return photo[top : top + high, left : left + wide]
