"""Page of styleclip-app: its layout, and what happens at which control.

Nothing is computed here. `gr.State` holds what belongs to a visitor, networks are in
the room, and the handlers lead from one to the other.
"""

from typing import Any, NamedTuple

import gradio as gr

from styleclip_jax.app import optimizing, rooms, views
from styleclip_jax.app.handlers import NEUTRAL, PROMPT, PROMPTS, SEED, Handlers
from styleclip_jax.app.rooms import Room
from styleclip_jax.app.values import Page
from styleclip_jax.app.views import Trail

_TITLE = "StyleCLIP"

# Arguments of quick events: they do not wait for others.
_LIVE: dict[str, Any] = {
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "queue": False,
    "api_visibility": "private",
}
# Arguments of heavy events: they keep the processor busy, one at a time for all, and
# say how far they are in the line of status.
_HEAVY: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_id": "heavy",
    "concurrency_limit": 1,
    "api_visibility": "private",
}


class _Faces(NamedTuple):
    """Controls that choose a face."""

    gallery: gr.Gallery
    random: gr.Button
    upload: gr.UploadButton
    tune: gr.Checkbox
    photos: gr.Gallery
    seed: gr.Number
    psi: gr.Slider
    align: gr.Checkbox
    every: gr.Checkbox
    note: gr.Markdown


class _Result(NamedTuple):
    """Pictures, and controls of the edit that they show."""

    before: gr.HTML
    after: gr.HTML
    strength: gr.Slider
    auto: gr.Checkbox
    status: gr.Markdown
    undo: gr.Button
    go_on: gr.Button
    several: gr.Button
    save: gr.Button


class _Below(NamedTuple):
    """What is shown below the pictures once there is some."""

    history: gr.Gallery
    file: gr.File
    others: gr.Gallery
    sheet: gr.Image


class _Direction(NamedTuple):
    """Controls of directions."""

    edit: gr.Button
    neutral: gr.Textbox
    beta: gr.Slider
    number: gr.Number
    sheet: gr.Button


class _Optimization(NamedTuple):
    """Controls of optimizations."""

    edit: gr.Button
    stop: gr.Button
    settings: list[Any]


class _Mapper(NamedTuple):
    """Controls of mappers."""

    edit: gr.Button
    name: gr.Dropdown


def build(do: Handlers) -> gr.Blocks:
    """Builds the page of handlers."""
    room = do.room
    with Page(title=_TITLE, analytics_enabled=False, fill_width=True) as page:
        trail = gr.State(Trail((), -1))
        photos = gr.State(())
        gr.Markdown(
            f"# {_TITLE}\nChoose a face, say what it should become, and press Edit.",
            elem_id="heading",
        )
        mapper = None
        with gr.Row(elem_id="main"):
            with gr.Column(scale=2, min_width=320, elem_id="result"):
                result = _result(room)
                below = _below(room)
            with gr.Column(scale=1, min_width=320):
                faces = _faces(room)
                prompt = gr.Textbox(
                    PROMPT,
                    label=rooms.PROMPT,
                    info="What the face should become, in English.",
                    max_lines=3,
                    elem_id="prompt",
                )
                gr.Examples([[x] for x in PROMPTS], prompt, label="Examples")
                with gr.Tabs():
                    with gr.Tab("Direction"):
                        direction = _direction()
                    with gr.Tab("Optimization"):
                        optimization = _optimization(room)
                    if room.mappers:
                        with gr.Tab("Mapper"):
                            mapper = _mapper(room)
        shown = [
            trail,
            result.before,
            result.after,
            result.strength,
            result.status,
            below.history,
            result.undo,
        ]
        how = [result.auto, result.strength]

        for event in (page.load, faces.seed.input, faces.psi.input):
            event(
                do.draw, [trail, faces.seed, faces.psi], [*shown, faces.note], **_LIVE
            )
        page.load(do.thumbnails, None, faces.gallery, **_LIVE)
        for event, choose in (
            (faces.gallery.select, do.choose),
            (faces.random.click, do.roll),
        ):
            event(choose, None, faces.seed, **_LIVE).then(
                do.draw, [trail, faces.seed, faces.psi], [*shown, faces.note], **_LIVE
            )
        faces.upload.upload(
            do.upload,
            [trail, faces.upload, faces.tune, faces.align, faces.every],
            [*shown, faces.note, photos, faces.photos],
            **_HEAVY,
        )
        faces.tune.input(
            do.forecast, [trail, faces.tune], [result.status, faces.note], **_HEAVY
        )
        faces.photos.select(do.choose_photo, [trail, photos], shown, **_LIVE)

        for event in (direction.edit.click, prompt.submit, direction.neutral.submit):
            event(do.direct, [trail, direction.neutral, prompt, *how], shown, **_HEAVY)
        running = optimization.edit.click(
            do.optimize,
            [trail, prompt, *how, *optimization.settings],
            shown,
            **_HEAVY,
        )
        optimization.stop.click(do.stop, trail, shown, cancels=running, **_LIVE)
        if mapper is not None:
            mapper.edit.click(do.map_face, [trail, mapper.name, *how], shown, **_HEAVY)

        # A hand on the edit switches off what is automatic.
        result.strength.input(do.move, [trail, result.strength], shown, **_LIVE).then(
            lambda: False, None, result.auto, **_LIVE
        )
        result.auto.input(do.search, [trail, result.auto], shown, **_HEAVY)
        selected = [*shown, direction.number]
        direction.beta.input(
            do.select, [trail, direction.beta], selected, **_LIVE
        ).then(lambda: False, None, result.auto, **_LIVE)
        direction.number.submit(
            do.count, [trail, direction.number], direction.beta, **_LIVE
        ).success(do.select, [trail, direction.beta], selected, **_LIVE).then(
            lambda: False, None, result.auto, **_LIVE
        )
        direction.sheet.click(
            do.sheet, [trail, direction.number], below.sheet, **_HEAVY
        )

        result.undo.click(do.undo, trail, shown, **_LIVE)
        below.history.select(do.go, trail, shown, **_LIVE)
        result.go_on.click(do.go_on, trail, shown, **_LIVE)
        result.several.click(
            do.several, [trail, result.auto], [below.others, result.status], **_HEAVY
        )
        result.save.click(do.save, trail, below.file, **_HEAVY)
    return page


def _result(room: Room) -> _Result:
    crisp = ["crisp"] if room.is_small else []
    with gr.Row(elem_id="pictures", elem_classes=crisp):
        before = gr.HTML(elem_id="before", padding=False, min_height=100)
        after = gr.HTML(elem_id="after", padding=False, min_height=100)
    status = gr.Markdown(elem_id="status")
    with gr.Group():
        strength = gr.Slider(
            -8,
            8,
            0,
            step=0.04,
            label=rooms.STRENGTH,
            info="How far the face goes; below 0 it goes the other way.",
            interactive=False,
            elem_id="strength",
        )
        auto = gr.Checkbox(
            room.is_embedded,
            label="Automatic strength",
            info="Finds for each face the least strength that shows the text.",
            elem_id="auto",
        )
    with gr.Row():
        undo = gr.Button("Undo", size="sm", min_width=80, elem_id="undo")
        go_on = gr.Button("Go on from here", size="sm", min_width=120, elem_id="use")
        several = gr.Button("Same on 8 faces", size="sm", min_width=120)
        save = gr.Button("Download", size="sm", min_width=80, elem_id="save")
    return _Result(before, after, strength, auto, status, undo, go_on, several, save)


def _below(room: Room) -> _Below:
    crisp = ["crisp"] if room.is_small else []
    with gr.Column(elem_id="trail"):
        file = gr.File(
            label=views.ZIP, visible=False, interactive=False, elem_id="files"
        )
        others = gr.Gallery(
            label="Same edit on other faces",
            visible=False,
            columns=4,
            allow_preview=False,
            format="png",
            object_fit="contain",
            elem_id="others",
            elem_classes=crisp,
        )
        sheet = gr.Image(
            label="Strengths by numbers of channels",
            visible=False,
            format="png",
            buttons=["download"],
            elem_id="sheet",
        )
        gr.Markdown("**History**: click a picture to go back to it.")
        history = _thumbnails("history", crisp)
    return _Below(history, file, others, sheet)


def _faces(room: Room) -> _Faces:
    gr.Markdown("**Face**: click one, draw one, or upload photos.")
    crisp = ["crisp"] if room.is_small else []
    gallery = _thumbnails("faces", crisp)
    with gr.Row():
        random = gr.Button("Random face", size="sm", min_width=120, elem_id="random")
        upload = gr.UploadButton(
            "Upload photos",
            size="sm",
            min_width=120,
            file_types=["image"],
            file_count="multiple",
            elem_id="upload",
        )
    tune = gr.Checkbox(
        False,
        label="Tune the generator to the photo",
        info="Keeps fine detail of the person in all edits, and takes longer."
        if room.can_tune
        else "Started without a network that sees photos: lpips or identity.",
        interactive=room.can_tune,
        elem_id="tune",
    )
    photos = _thumbnails("photos", crisp, visible=False)
    note = gr.Markdown(elem_id="note")
    with gr.Accordion("More on faces", open=False):
        seed = gr.Number(
            SEED,
            label=rooms.SEED,
            info="The number that a random face is drawn from.",
            elem_id="seed",
        )
        psi = gr.Slider(
            0,
            1,
            rooms.TRUNCATION_PSI,
            step=0.05,
            label="Truncation (ψ)",
            info="Less gives faces nearer to the average one.",
        )
        align = gr.Checkbox(
            True,
            label="Align the face of a photo",
            info="Finds the face and cuts it out.",
        )
        every = gr.Checkbox(
            False,
            label="All faces of a photo",
            info="Takes each face that is found, not the largest alone.",
            elem_id="every",
        )
    about = (seed, psi, align, every, note)
    return _Faces(gallery, random, upload, tune, photos, *about)


def _thumbnails(name: str, classes: list[str], *, visible: bool = True) -> gr.Gallery:
    """Row of small pictures to click."""
    return gr.Gallery(
        visible=visible,
        show_label=False,
        columns=8,
        allow_preview=False,
        format="png",
        buttons=[],
        elem_id=name,
        elem_classes=["thumbs", *classes],
    )


def _direction() -> _Direction:
    gr.Markdown("One direction for all faces. It is measured once for each text.")
    edit = gr.Button("Edit", variant="primary", elem_id="direct")
    with gr.Accordion("More on directions", open=False):
        neutral = gr.Textbox(
            NEUTRAL,
            label=rooms.NEUTRAL,
            info="What the face is now; both texts should differ in one thing.",
            max_lines=3,
        )
        beta = gr.Slider(
            0,
            0.5,
            0.1,
            step=0.0001,
            label=rooms.SELECTIVITY,
            info="More of it moves fewer channels, and changes less beside the text.",
            elem_id="beta",
        )
        number = gr.Number(
            None,
            label=rooms.CHANNELS,
            info="Number of channels that move; press Enter after it.",
            elem_id="channels",
        )
        sheet = gr.Button("Sheet of strengths", size="sm", elem_id="make_sheet")
    return _Direction(edit, neutral, beta, number, sheet)


def _optimization(room: Room) -> _Optimization:
    values = optimizing.advised(room)
    gr.Markdown("Works on this face alone, step by step. Slower, for any text.")
    with gr.Row():
        edit = gr.Button("Edit", variant="primary", elem_id="optimize")
        stop = gr.Button("Stop", min_width=80, scale=0, elem_id="stop")
    with gr.Accordion("More on optimization", open=False):
        number = gr.Slider(
            10,
            500,
            values.steps,
            step=10,
            label=rooms.STEPS,
            info="More take longer, and go further.",
        )
        rate = gr.Number(
            values.learning_rate,
            label=rooms.RATE,
            info="How far a step goes.",
            step=0.01,
        )
        l2 = gr.Number(
            values.l2_lambda,
            label=f"{rooms.STAY} (λ latent)",
            info="More of it changes the face less.",
            step=0.0005,
        )
        identity = gr.Number(
            values.id_lambda,
            label=f"{rooms.IDENTITY} (λ identity)",
            info="More of it keeps the same person.",
            step=0.001,
            interactive=room.session.identity is not None,
        )
    return _Optimization(edit, stop, [number, rate, l2, identity])


def _mapper(room: Room) -> _Mapper:
    names = list(room.mappers)
    gr.Markdown("Each mapper was trained for one text, and edits at once.")
    name = gr.Dropdown(
        names,
        value=names[0],
        label=rooms.MAPPER,
        info="Its text takes the place of the one above.",
        elem_id="mapper",
    )
    edit = gr.Button("Edit", variant="primary", elem_id="map")
    return _Mapper(edit, name)
