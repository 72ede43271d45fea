"""Portraits: faces of photos in memory, inverted, and tuned to if that is asked for."""

import collections
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from styleclip_jax.batch.tuned import TunedInMemory
from styleclip_jax.editing import applying, inverter, tuning
from styleclip_jax.editing.faces import Faces
from styleclip_jax.errors import UserError
from styleclip_jax.photos import crops, finding
from styleclip_jax.progress import Report
from styleclip_jax.settings.photos import InversionConfig
from styleclip_jax.settings.tuning import TuningConfig

if TYPE_CHECKING:
    from styleclip_jax.editing.session import Session


def invert(
    session: "Session",
    paths: Sequence[pathlib.Path],
    *,
    align: bool,
    all_faces: bool,
    config: InversionConfig,
    tuned: TuningConfig,
) -> Faces:
    """Inverts the faces of photos, and tunes a generator to each if steps are given.

    Args:
      session: loaded networks.
      paths: photos.
      align: whether to find faces and crop them as in FFHQ; without it photos are such
        crops already.
      all_faces: whether to take all faces of a photo, not the largest alone.
      config: settings of the inversion.
      tuned: settings of the tuning after it.

    Raises:
      UserError: a photo cannot be read, has no face, or does not stay finite; or a
        network is missing.
    """
    invert_all, steps = session.inverter(config)
    tune = session.tuner(tuned) if tuned.tune_steps else None
    found, cut = finding.cut_all(
        paths,
        is_aligned=not align,
        resolution=session.generator.config.image_size,
        encoded_size=session.encoded_size,
        all_faces=all_faces,
    )
    names = _names([pathlib.Path(face["file"]).stem for face in found])
    total, quicker = len(found) * steps, inverter.QUICKER
    with session.listener.long_bar(total, "step", quicker) as report:

        def latents_of(batch: crops.Crops, rows: np.ndarray) -> jax.Array:
            return invert_all(batch, lambda n: report(len(rows) * n)).latent

        w_plus = applying.in_batches(session.mesh, cut, latents_of)
    _require(names, np.isfinite(w_plus).all(axis=(1, 2)), "inversion")
    if tune is None:
        return session.faces(w_plus, names)
    total, quicker = len(found) * tuned.tune_steps, tuning.QUICKER
    with session.listener.long_bar(total, "step", quicker) as report:
        made = tune_all(session, tune, cut.target, w_plus, report)
    _require(names, [one is not None for one in made], "tuning")
    return session.faces(w_plus, names, tuned=[x for x in made if x is not None])


def tune_all(
    session: "Session",
    tune: tuning.Tuner,
    photo: np.ndarray,
    w_plus: np.ndarray,
    report: Report,
    most: int | None = None,
) -> list[TunedInMemory | None]:
    """Generators that are tuned to photos; None where one did not stay finite.

    Each device tunes one at a time, which takes the memory of several generators.

    Args:
      session: loaded networks.
      tune: tuner of the session.
      photo: [N, H, W, 3] in [-1, 1], of the generator's size.
      w_plus: [N, L, D] latents whose images are near the photos.
      report: is told of steps, those of all photos together.
      most: largest number of steps; None for all.
    """

    def some(batch: Any, rows: np.ndarray) -> tuning.Tuned:
        photo, pivot = batch
        return tune(photo, pivot, lambda n: report(len(rows) * n), most)

    found = applying.in_batches(session.mesh, (photo, w_plus), some, 1)
    origin = session.models.generator_origin()
    return [
        TunedInMemory(
            {name: x[i] for name, x in found.changes.items()},
            origin,
            int(found.num_steps[i]),
        )
        if found.failed_at[i] < 0
        else None
        for i in range(len(photo))
    ]


def _names(stems: Sequence[str]) -> list[str]:
    """Names of faces by those of their photos; several of one are counted."""
    total, seen = collections.Counter(stems), collections.Counter[str]()
    names = []
    for stem in stems:
        seen[stem] += 1
        names.append(stem if total[stem] == 1 else f"{stem} {seen[stem]}")
    return names


def _require(
    names: Sequence[str], finite: Sequence[bool] | np.ndarray, what: str
) -> None:
    """Refuses work on a photo that did not stay finite."""
    for name, is_finite in zip(names, finite, strict=True):
        if not is_finite:
            raise UserError(f"{name}: the {what} did not stay finite")
