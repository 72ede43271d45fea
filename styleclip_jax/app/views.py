"""Views of the page: a face with its edit, the trail of them, and files of one."""

import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from styleclip_jax import spaces
from styleclip_jax.app import rooms, steps
from styleclip_jax.app.rooms import Face, Room
from styleclip_jax.app.steps import Step
from styleclip_jax.batch.tuned import FOLDER
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images, latent_files, tuned_files
from styleclip_jax.methods.global_directions import Direction, TextRelevance

# Number of views that a trail keeps.
_LONGEST = 24
ZIP = "edit.zip"


class View(NamedTuple):
    """View of a face, before and after its edit.

    Attributes:
      start: face before the edit.
      picture: small picture of the face after it.
      step: step of the edit; None before one.
      strength: strength of the edit.
    """

    start: Face
    picture: Image.Image
    step: Step | None = None
    strength: float = 0.0

    @property
    def latent(self) -> Any:
        """Latent after the edit. Without strength it is the start, perhaps in W+."""
        if self.step is None or not self.strength:
            return self.start.latent
        return steps.moved(self.step, self.strength)

    @property
    def about(self) -> str:
        """Line on the edit, for people."""
        step = self.step
        if step is None:
            return ""
        stays = step.fit is not None and not step.strength.any()
        if stays and not self.strength:
            shows = step.fit is not None and step.fit[0] >= 0.9
            why = "shows this already" if shows else "is not brought nearer by any"
            return (
                f"“{step.text}”: this face {why}, so automatic strength leaves it as "
                f"it is. Move {rooms.STRENGTH} to change it."
            )
        parts = [step.method, f"strength {self.strength:.3g}", step.about]
        return f"“{step.text}”: {', '.join(filter(None, parts))}"


def see(room: Room, start: Face, step: Step | None = None, by: float = 0.0) -> View:
    """View of a face with a step of a strength.

    Raises:
      UserError: the picture has a value that is not finite.
    """
    view = View(start, Image.new("RGB", (1, 1)), step, by)
    image = room.render(view.latent, start.tuned)[0]
    return view._replace(picture=rooms.thumbnail(image))


class Trail(NamedTuple):
    """Trail of a visitor's views, of which one is shown.

    Attributes:
      views: views, oldest first.
      at: number of the one that is shown; -1 where there is none.
    """

    views: tuple[View, ...]
    at: int

    @property
    def view(self) -> View:
        """View that is shown.

        Raises:
          UserError: there is none, as after the program was started again.
        """
        if not self.views:
            raise UserError("This page is too old: reload it")
        return self.views[self.at]

    def add(self, view: View) -> "Trail":
        """Trail with another view behind the one that is shown."""
        views = (*self.views[: self.at + 1], view)[-_LONGEST:]
        return Trail(views, len(views) - 1)

    def replace(self, view: View) -> "Trail":
        """Trail with another view in place of the one that is shown."""
        return self._replace(
            views=(*self.views[: self.at], view, *self.views[self.at + 1 :])
        )

    def go(self, at: int) -> "Trail":
        """Trail at another view."""
        return self._replace(at=min(max(at, 0), len(self.views) - 1))


def sheet(
    room: Room,
    step: Step,
    relevance: TextRelevance,
    alphas: Sequence[float],
    counts: Sequence[int],
) -> Image.Image:
    """Sheet of a face along a direction: strengths by numbers of channels.

    Raises:
      UserError: fewer channels were measured.
    """
    texts, rows = step.texts or ("", step.text), []
    for count in counts:
        beta = steps.beta_for(relevance, count)
        made = steps.direct(room, step.start, texts, relevance, beta, step.tuned)
        shown = [
            room.render(steps.moved(made, alpha), step.tuned)[0] for alpha in alphas
        ]
        rows.append(np.stack(shown))
    return images.grid(
        rows,
        row_labels=[f"{count} channels" for count in counts],
        column_labels=[f"strength {alpha:g}" for alpha in alphas],
    )


def save(room: Room, view: View, folder: pathlib.Path) -> pathlib.Path:
    """Writes all files of a view as one zip into a folder, and gives its path.

    It holds start.png and edited.png, the latents start and edited (.npy in W+, .npz in
    S), edit.json, for an edit in S direction.safetensors, a step for a strength of 1,
    and with a tuned generator its file in tuned/, as styleclip-invert has it.
    """
    parts = folder / "parts"
    tuned = view.start.tuned
    if tuned is not None:
        file = parts / FOLDER / tuned_files.name(0)
        room.tunings.find(tuned).write(file)
    for name, latent in (("start", view.start.latent), ("edited", view.latent)):
        images.write(parts / f"{name}.png", room.render(latent, tuned)[0])
        in_s = isinstance(latent, tuple)
        array = spaces.flatten_styles(latent) if in_s else latent
        found = latent_files.Latents(np.asarray(array), "s" if in_s else "w_plus")
        path = parts / f"{name}{'.npz' if in_s else '.npy'}"
        latent_files.write(path, found, room.layout)
    about: dict[str, Any] = {"face": view.start.name, "generator": room.origin.name}
    step = view.step
    if step is not None:
        about |= {"method": step.method, "text": step.text, "strength": view.strength}
        if step.texts is not None:
            about["neutral"] = step.texts[0]
        if isinstance(step.delta, tuple):
            flat = spaces.flatten_styles(jax.tree.map(lambda x: x[0], step.delta))
            room.session.save_direction(
                Direction(flat, room.layout),
                parts / "direction.safetensors",
                **about,
            )
    files.write_json(parts / "edit.json", about)
    path = folder / ZIP
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in sorted(x for x in parts.rglob("*") if x.is_file()):
            packed.write(part, part.relative_to(parts))
    return path
