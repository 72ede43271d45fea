"""Handlers of the page's controls: each gives the values of its outputs.

A visitor's faces and edits are a `Trail`, which goes in and out as a value.
"""

import pathlib
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from styleclip_jax.app import (
    look,
    optimizing,
    rooms,
    steps,
    uploads,
    values,
    views,
)
from styleclip_jax.app.rooms import Face, Room
from styleclip_jax.app.steps import Step
from styleclip_jax.app.storage import Storage
from styleclip_jax.app.views import Trail
from styleclip_jax.app.waiting import Work
from styleclip_jax.errors import UserError
from styleclip_jax.progress import describe_time

# Texts that the page begins with, and others to choose.
NEUTRAL, PROMPT = "a face", "a smiling face"
PROMPTS = (
    PROMPT,
    "a person wearing sunglasses",
    "a face with pink hair",
    "a person with curly hair",
    "a bearded man",
    "a surprised face",
)
# Face that the page begins with.
SEED = 4

_MEASURING, _SEARCHING = "Measuring what each channel changes", "Finding the strength"
_LOOKING, _OPTIMIZING = "Looking at random faces", "Optimizing"
_OTHERS = "Editing other faces"
_SHEET_ALPHAS = (-4, -2, 0, 2, 4)
# Bytes of a download at most, of the largest pictures.
_DOWNLOAD_BYTES = 40 * 2**20


class Handlers:
    """Handlers of the page's controls, for all visitors."""

    def __init__(self, room: Room, storage: Storage) -> None:
        self.room, self.storage = room, storage
        self.relevances = steps.Relevances(room)
        self._compiled: set[str] = set()
        self._seconds: float | None = None
        self._is_rehearsing = False

    def rehearse(self, stopped: threading.Event) -> None:
        """Makes the first edit of the page, so that a visitor's compiles nothing.

        Pictures that are not small are left to visitors, since each takes long.
        """
        if not self.room.is_small:
            return
        trail = self._start(Trail((), -1), rooms.draw(self.room, SEED))
        self._is_rehearsing = True
        edits = self.direct(trail, NEUTRAL, PROMPT, True, 0.0)
        for _ in edits:
            if stopped.is_set():
                edits.close()
        self._is_rehearsing = False

    # Faces

    def draw(self, trail: Trail, seed: float | None, psi: float) -> Any:
        """View of the face of a seed, or a note on what is wrong with the seed."""
        if seed is None:
            return *_same(), f"{rooms.SEED}: expected a whole number"
        try:
            face = rooms.draw(self.room, seed, psi)
        except UserError as error:
            return *_same(), str(error)
        return *self._present(self._start(trail, face)), ""

    def choose(self, event: gr.EventData) -> int:
        """Seed of the face that was chosen from the gallery."""
        return rooms.SEEDS[values.index_of(event, len(rooms.SEEDS))]

    def roll(self) -> int:
        """Seed by chance."""
        return secrets.randbelow(100_000)

    def thumbnails(self) -> list[Image.Image]:
        """Faces to choose from."""
        return rooms.thumbnails(self.room)

    def forecast(self, trail: Trail, tunes: bool) -> Any:
        """Status, and a note on how long a tuning takes, before there is one."""
        if not tunes:
            yield _note(trail.view.about), ""
            return

        def do(work: Work[float]) -> float:
            if self._seconds is None:
                with work.stage(uploads.TUNING):
                    self._seconds = uploads.forecast(self.room)
            return self._seconds

        work = self._work(do)
        for line in work:
            yield _note(line.line), gr.skip()
        number = self.room.tuning.tune_steps
        note = (
            f"Tuning will take about {describe_time(work.result)} for each face, for "
            f"{number} steps. Upload photos to go on, or take the tick away."
        )
        yield _note(trail.view.about), note

    def upload(
        self,
        trail: Trail,
        paths: list[str],
        tunes: bool,
        find_face: bool,
        all_faces: bool,
    ) -> Any:
        """View of the first face, notes on all photos, their faces and a gallery.

        A photo that cannot be used is in the notes, and the others are taken.
        """

        about = {"find_face": find_face, "all_faces": all_faces, "tunes": tunes}

        def do(work: Work[Any]) -> Any:
            return uploads.take(self.room, work, paths, **about)

        work = self._work(do)
        try:
            for line in work:
                yield *_same(line.line), *[gr.skip()] * 3
        except UserError:
            yield *_same(""), *[gr.skip()] * 3
            raise
        faces, notes = work.result
        pictures = [
            rooms.thumbnail(self.room.render(face.latent, face.tuned)[0])
            for face in faces
        ]
        gallery = gr.update(value=pictures, visible=len(faces) > 1, selected_index=None)
        shown = self._present(self._start(trail, faces[0]))
        yield *shown, "  \n".join(map(_note, notes)), faces, gallery

    def choose_photo(
        self, trail: Trail, photos: tuple[Face, ...], event: gr.EventData
    ) -> Any:
        """View of the face that was chosen from the photos."""
        face = photos[values.index_of(event, len(photos))]
        return self._present(self._start(trail, face))

    def _start(self, trail: Trail, face: Face) -> Trail:
        return trail.add(views.see(self.room, face))

    # Edits

    def direct(
        self, trail: Trail, neutral: str, prompt: str, auto: bool, by: float
    ) -> Any:
        """View of the face along the direction of two texts."""

        def make(work: Work[Step]) -> Step:
            with work.stage(_MEASURING, self.room.num_samples):
                relevance = self.relevances.find(neutral, prompt, work.count)
            texts = (neutral.strip(), prompt.strip())
            face = trail.view.start
            about = (texts, relevance, None, face.tuned)
            return steps.direct(self.room, face.latent, *about)

        yield from self._edit(trail, make, auto, by)

    def optimize(
        self, trail: Trail, prompt: str, auto: bool, by: float, *settings: float
    ) -> Any:
        """Views of the face on the way to a text, and the last one."""
        number, *others = (0.0 if x is None else float(x) for x in settings)
        # A number of steps that is not whole is refused by its check.
        whole: Any = number
        chosen = optimizing.Settings(whole, *others)
        face = trail.view.start
        space = face.space

        def make(work: Work[Step]) -> Step:
            with work.stage(_OPTIMIZING, int(number), of=space):
                before = 0
                for done, step in optimizing.optimize(
                    self.room, face.latent, prompt, chosen, face.tuned
                ):
                    work.count(done - before)
                    work.show(step)
                    before = done
            return step

        yield from self._edit(trail, make, auto, by)

    def map_face(self, trail: Trail, name: str, auto: bool, by: float) -> Any:
        """View of the face after a mapper."""

        def make(work: Work[Step]) -> Step:
            face = trail.view.start
            return steps.map_latents(self.room, face.latent, name, face.tuned)

        yield from self._edit(trail, make, auto, by)

    def stop(self, trail: Trail) -> Any:
        """View that was made last, after work was cancelled."""
        return self._present(trail)

    def search(self, trail: Trail, auto: bool) -> Any:
        """View with the strength that is found, where that was switched on."""
        step = trail.view.step
        if step is None or not auto:
            yield _same()
            return
        yield from self._edit(trail, lambda work: step, auto, 0.0, is_new=False)

    def _edit(
        self,
        trail: Trail,
        make: Callable[[Work[Step]], Step],
        auto: bool,
        by: float,
        *,
        is_new: bool = True,
    ) -> Iterator[Any]:
        """Waits for a step, with its strength, and shows it as another view."""
        start, before = trail.view.start, trail.view.step
        began = time.monotonic()

        def do(work: Work[Step]) -> Step:
            return self._searched(make(work), work) if auto else make(work)

        def shown(step: Step, by: float) -> Trail:
            view = views.see(self.room, start, step, by)
            return trail.add(view) if is_new else trail.replace(view)

        work = self._work(do)
        try:
            for line in work:
                if line.shown is None:
                    yield _same(line.line)
                else:
                    outputs = self._present(shown(line.shown, line.shown.unit))
                    yield *outputs[:4], _note(line.line), *outputs[5:]
        except UserError:
            yield self._present(trail)
            raise
        step = work.result
        goes_on = before is not None and before.method == step.method
        if step.fit is None and goes_on and is_new and by:
            strength = by
        else:
            strength = float(step.strength[0])
        seconds = time.monotonic() - began
        yield self._present(shown(step, strength), f" ({seconds:.1f} s)")

    def _searched(self, step: Step, work: Work[Any]) -> Step:
        """Step with the strength that makes its text fit, where it names one."""
        if not step.text:
            return step
        with work.stage(_LOOKING):
            _ = self.room.seen
        count = len(step.strength)
        with work.stage(_SEARCHING, of=f"{isinstance(step.start, tuple)} {count}"):
            return steps.search(self.room, step)

    # Changes of the edit that is shown

    def move(self, trail: Trail, by: float) -> Any:
        """View at another strength."""
        if trail.view.step is None:
            return _same()
        view = views.see(self.room, trail.view.start, trail.view.step, by)
        found = trail.replace(view)
        outputs = list(self._present(found))
        outputs[3] = gr.skip()
        return tuple(outputs)

    def select(self, trail: Trail, beta: float) -> Any:
        """View with the channels that a threshold keeps, and their number."""
        step = trail.view.step
        if step is None or step.texts is None:
            return *_same(), gr.skip()
        relevance = self.relevances.find(*step.texts)
        face = trail.view.start
        about = (step.texts, relevance, beta, face.tuned)
        made = steps.direct(self.room, face.latent, *about)
        by = trail.view.strength or made.unit
        view = views.see(self.room, trail.view.start, made, by)
        shown = self._present(trail.replace(view))
        return *shown, steps.count_kept(relevance, beta)

    def count(self, trail: Trail, number: float | None) -> Any:
        """Threshold that keeps so many channels."""
        step = trail.view.step
        if step is None or step.texts is None:
            raise UserError("Press Edit before you choose channels")
        if number is None:
            raise UserError(f"{rooms.CHANNELS}: expected a whole number")
        return steps.beta_for(self.relevances.find(*step.texts), number)

    def go_on(self, trail: Trail) -> Any:
        """View that starts from the edit."""
        view = trail.view
        if view.step is None:
            return _same()
        name = f"{view.start.name}, edited"
        face = view.start._replace(latent=view.latent, name=name)
        return self._present(self._start(trail, face))

    def undo(self, trail: Trail) -> Any:
        """View before the one that is shown."""
        return self._present(trail.go(trail.at - 1))

    def go(self, trail: Trail, event: gr.EventData) -> Any:
        """View that was chosen from the history."""
        return self._present(trail.go(values.index_of(event, len(trail.views))))

    # Beside the edit

    def several(self, trail: Trail, auto: bool) -> Any:
        """Other faces before and after the same edit, and a line on them."""
        view = trail.view
        step = view.step
        if step is None:
            raise UserError("Press Edit first")

        def do(work: Work[list[tuple[np.ndarray, str]]]) -> Any:
            faces = self.room.session.sample(
                rooms.SEEDS, truncation_psi=rooms.TRUNCATION_PSI
            )
            with work.stage(_OTHERS, of=step.method):
                made = step.again(faces.latent, work.count)
            if auto and step.fit is not None:
                made = self._searched(made, work)
                by = made.strength
            else:
                by = np.full(len(rooms.SEEDS), view.strength)
            before = self.room.render(made.start)
            after = self.room.render(steps.moved(made, by))
            pairs = np.concatenate([before, after], axis=2)
            names = [
                f"{name}: {x:.3g}" if x else f"{name} stays"
                for name, x in zip(faces.names, by, strict=True)
            ]
            return list(zip(pairs, names, strict=True))

        work = self._work(do)
        for line in work:
            yield gr.skip(), _note(line.line)
        yield gr.update(value=work.result, visible=True), view.about

    def sheet(self, trail: Trail, count: float | None) -> Any:
        """Sheet of strengths by numbers of channels."""
        step = trail.view.step
        if step is None or step.texts is None:
            raise UserError("Press Edit in the tab Direction first")
        relevance = self.relevances.find(*step.texts)
        middle = max(1, int(count or 40))
        counts = dict.fromkeys((max(1, middle // 2), middle, 2 * middle))
        made = views.sheet(self.room, step, relevance, _SHEET_ALPHAS, list(counts))
        return gr.update(value=made, visible=True)

    def save(self, trail: Trail) -> Any:
        """All files of the view as one zip, which is shown as a link."""
        tuned = trail.view.start.tuned
        more = 0 if tuned is None else self.room.tunings.find(tuned).num_bytes
        # That of the tuned generator lies there twice: alone, and in the zip.
        self.storage.check(_DOWNLOAD_BYTES + 2 * more)
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.storage.folder))
        path = views.save(self.room, trail.view, folder)
        return gr.update(value=str(path), visible=True)

    # Parts

    def _work(self, do: Callable[[Work[Any]], Any]) -> Work[Any]:
        if self._is_rehearsing:
            before = "Preparing, once after each start"
            return Work(do, self.room.heavy, self._compiled, before=before)
        return Work(do, self.room.heavy, self._compiled)

    def _present(self, trail: Trail, after: str = "") -> tuple[Any, ...]:
        """Values of all that shows a view."""
        view = trail.view
        step = view.step
        face = view.start
        start = self.room.render(face.latent, face.tuned)[0]
        before = look.figure("Start", start)
        if step is None:
            edit = look.hint("Edit", "Choose a face and a text, and press Edit.")
            slider = gr.update(value=0, interactive=False)
        else:
            image = self.room.render(view.latent, face.tuned)[0]
            edit = look.figure("Edit", image, "hold to compare")
            most = max(step.most, abs(view.strength))
            slider = gr.update(
                minimum=-most,
                maximum=most,
                step=step.resolution,
                value=float(f"{view.strength:.6g}"),
                interactive=True,
            )
        history = [x.picture for x in trail.views]
        return (
            trail,
            before,
            edit,
            slider,
            _note(view.about + (after if view.about else "")),
            gr.update(value=history, selected_index=None),
            gr.update(interactive=trail.at > 0),
        )


def _same(line: str | None = None) -> tuple[Any, ...]:
    """Outputs of `_present` that stay, but for a line of status where there is one."""
    status = gr.skip() if line is None else _note(line)
    return (*[gr.skip()] * 4, status, gr.skip(), gr.skip())


def _note(text: str) -> str:
    """Text for the line of status, in which people's own words are no markup."""
    return "".join(f"\\{x}" if x in r"\`*_[]<>#~$|" else x for x in text)
