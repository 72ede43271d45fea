"""Page of styleclip-app: its layout, and the handlers of its controls.

Nothing is computed here. `gr.State` holds what belongs to a visitor: the face to start
from, the last edit, and the relevance of the direction. Networks are in the room.
"""

import base64
import contextlib
import io
import pathlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from styleclip_jax.app import edits
from styleclip_jax.app.edits import Edited, Room
from styleclip_jax.editing.faces import Faces
from styleclip_jax.errors import UserError
from styleclip_jax.methods.global_directions import TextRelevance, automatic_beta
from styleclip_jax.ops import pixels

_TITLE = "StyleCLIP"
_MAX_ALPHA = 10.0
_SHEET_ALPHAS = (-6, -3, 0, 3, 6)
# Settings of an optimization that the page shows first for the embedded models.
_EMBEDDED = edits.Settings(80, 0.1, 0.0045, 0.0)
# Width of the largest picture that is shown without loss.
_MAX_PNG = 256
# Seconds between two looks for old uploads, pictures and files, and their lifetime.
_KEEP = (3600, 86400)

_CSS = """
.gradio-container {
  width: 100% !important; max-width: 1120px !important; margin: 0 auto !important;
}
#heading h1 { margin: 0; }
#status { min-height: 1.6em; }
#status, #status * { overflow: hidden !important; }
#upload { align-self: stretch; height: auto; }
figure { margin: 0; }
figure img { width: 100%; aspect-ratio: 1; border-radius: 8px; display: block; }
figcaption { padding: 0 0 .3em .1em; font-weight: 600; }
footer { display: none !important; }
"""

# Arguments of quick events: they need no spinner, and do not wait for others.
_LIVE: dict[str, Any] = {
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "queue": False,
    "api_visibility": "private",
}
# Arguments of heavy events: they keep the processor busy, one at a time for all.
_HEAVY: dict[str, Any] = {
    "concurrency_id": "heavy",
    "concurrency_limit": 1,
    "api_visibility": "private",
}


def launch(page: gr.Blocks, *, host: str, port: int, max_upload_mb: int) -> None:
    """Serves a page in the background.

    Raises:
      OSError: the address is taken or not of this machine.
    """
    theme = gr.themes.Default(
        primary_hue="indigo",
        spacing_size="sm",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    # Gradio's own code causes these warnings at every event.
    warnings.filterwarnings("ignore", module=r"gradio\.routes")
    page.queue(default_concurrency_limit=1).launch(
        server_name=host,
        server_port=port,
        max_file_size=f"{max_upload_mb}mb",
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        footer_links=[],
        state_session_capacity=100,
        theme=theme,
        css=_CSS,
    )


class Handlers:
    """Handlers of the controls; each gives the values of its outputs."""

    def __init__(self, room: Room, folder: str) -> None:
        self.room = room
        self.folder = pathlib.Path(folder)
        self.relevances = edits.Relevances(room)

    def draw(self, seed: float, psi: float) -> Faces:
        """Random face of a seed."""
        with _told():
            return edits.draw(self.room, int(seed or 0), psi)

    def show(self, face: Faces | None) -> str:
        """Picture of a face to start from."""
        return "" if face is None else _figure("Start", face)

    def upload(
        self,
        path: str,
        find_face: bool,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> tuple[Faces, str]:
        """Face of a photo, and a line on how it was found."""
        total = self.room.num_inversion_steps
        report = _reporter(progress, total, "Inverting the photo")
        with _told():
            face, found = edits.invert_photo(
                self.room, path, find_face=find_face, report=report
            )
        return face, f"{face.names[0]}: {found}"

    def measure(
        self,
        neutral: str,
        target: str,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> tuple[TextRelevance, str, Any]:
        """Relevance for a pair of texts, a line with the texts, and the slider of β."""
        report = _reporter(progress, self.room.num_samples, "Measuring channels")
        with _told():
            relevance = self.relevances.find(neutral, target, report)
        largest = float(np.abs(np.asarray(relevance.value)).max())
        slider = gr.update(
            value=round(automatic_beta(relevance), 4),
            maximum=float(np.ceil(largest * 100) / 100),
            interactive=True,
        )
        return relevance, f"{neutral.strip()} → {target.strip()}", slider

    def move(
        self,
        face: Faces | None,
        relevance: TextRelevance | None,
        texts: str,
        alpha: float,
        beta: float,
    ) -> tuple[Any, ...]:
        """Edit, its image, the number of channels, and a line on it."""
        if face is None:
            return None, None, gr.skip(), ""
        if relevance is None:
            hint = "Measure a direction to move along it."
            return Edited(face, ""), _figure("Edit", face), gr.skip(), hint
        started = time.perf_counter()
        edited, kept = edits.move(self.room, face, relevance, alpha, beta)
        note = (edited.note or {}) | {"texts": texts}
        milliseconds = 1000 * (time.perf_counter() - started)
        about = f"{texts}: {edited.about} ({milliseconds:.0f} ms)"
        picture = _figure("Edit", edited.face)
        return edited._replace(note=note), picture, kept, about

    def choose_channels(self, relevance: TextRelevance | None, count: float) -> Any:
        """β that keeps so many channels."""
        if relevance is None or not count:
            return gr.skip()
        with _told():
            return edits.beta_for(relevance, int(count))

    def sheet(
        self, face: Faces | None, relevance: TextRelevance | None, count: float
    ) -> Any:
        """Sheet of strengths by numbers of channels."""
        with _told():
            if face is None or relevance is None:
                raise UserError("Measure a direction first")
            half, count = max(1, int(count) // 2), max(1, int(count))
            counts = dict.fromkeys((half, count, 2 * count))
            made = edits.sheet(self.room, face, relevance, _SHEET_ALPHAS, list(counts))
        return gr.update(value=made, visible=True)

    def optimize(
        self, face: Faces | None, prompt: str, *settings: float
    ) -> Iterator[tuple[Any, ...]]:
        """Edit, its image and a line on it, again and again."""
        if face is None:
            return
        steps, *others = (float(x or 0) for x in settings)
        chosen = edits.Settings(int(steps), *others)
        with _told():
            run = edits.optimize(self.room, face, prompt, chosen)
        about = "Preparing the optimization; the first takes longest …"
        yield Edited(face, ""), _figure("Edit", face), about
        with _told():
            for _, edited in run:
                yield edited, _figure("Edit", edited.face), edited.about

    def map_face(
        self, face: Faces | None, name: str, strength: float
    ) -> tuple[Any, ...]:
        """Edit by a mapper, its image and a line on it."""
        if face is None:
            return gr.skip(), gr.skip(), gr.skip()
        with _told():
            edited = edits.map_face(self.room, face, name, strength)
        return edited, _figure("Edit", edited.face), edited.about

    def use(self, edited: Edited | None) -> tuple[Any, ...]:
        """Edit as the face to start from, at α 0."""
        if edited is None:
            return gr.skip(), gr.skip(), gr.skip()
        return edited.face, _figure("Start", edited.face), 0

    def save(self, edited: Edited | None) -> Any:
        """Saves the edit as files, which are shown as links."""
        if edited is None:
            return gr.skip()
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        with _told():
            paths = edits.save(self.room, edited, folder)
        return gr.update(value=[str(path) for path in paths], visible=True)


def build(room: Room, folder: str) -> gr.Blocks:
    """Builds the page.

    Args:
      room: networks of all visitors.
      folder: folder for files to download.
    """
    do = Handlers(room, folder)
    size = room.session.generator.config.resolution
    with gr.Blocks(
        title=_TITLE, analytics_enabled=False, delete_cache=_KEEP, fill_width=True
    ) as page:
        start, edit = gr.State(), gr.State()
        relevance, texts = gr.State(), gr.State("")
        gr.Markdown(
            f"# {_TITLE}\nGenerator {room.origin.name}, {size}². Choose a face, say "
            "what it should become, and move the sliders.",
            elem_id="heading",
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=340):
                with gr.Group():
                    with gr.Row():
                        seed = gr.Number(
                            0, label="Seed", precision=0, minimum=0, elem_id="seed"
                        )
                        psi = gr.Slider(0, 1, 0.7, step=0.05, label="Truncation ψ")
                    with gr.Row():
                        upload = gr.UploadButton(
                            "Upload a photo",
                            size="sm",
                            file_types=["image"],
                            elem_id="upload",
                        )
                        find_face = gr.Checkbox(True, label="Align the face")
                with gr.Tabs():
                    with gr.Tab("Direction"):
                        direction = _direction_tab()
                    with gr.Tab("Optimization"):
                        optimization = _optimization_tab(room)
                    if room.mappers:
                        with gr.Tab("Mapper"):
                            mapper = _mapper_tab(room)
            with gr.Column(scale=3, min_width=460):
                with gr.Row():
                    before = _picture("before")
                    after = _picture("after")
                status = gr.Markdown(elem_id="status")
                with gr.Row():
                    use = gr.Button("Use as new start", elem_id="use")
                    save = gr.Button("Save as files", elem_id="save")
                files = gr.File(
                    label="Files", visible=False, interactive=False, elem_id="files"
                )
                sheet = gr.Image(
                    show_label=False,
                    visible=False,
                    format="png",
                    buttons=["download"],
                    elem_id="sheet",
                )

        alpha, beta, channels = direction["alpha"], direction["beta"], direction["n"]
        moved = {
            "fn": do.move,
            "inputs": [start, relevance, texts, alpha, beta],
            "outputs": [edit, after, channels, status],
        }
        shown = [edit, after, status]

        def restart(event: Any) -> None:
            """Shows a new start, and the direction's edit of it."""
            event.then(do.show, start, before, **_LIVE).then(**moved, **_LIVE)

        for event in (page.load, seed.input, psi.input):
            restart(event(do.draw, [seed, psi], start, **_LIVE))
        restart(
            upload.upload(
                do.upload,
                [upload, find_face],
                [start, status],
                show_progress_on=before,
                **_HEAVY,
            )
        )
        for event in (direction["measure"].click, direction["target"].submit):
            event(
                do.measure,
                [direction["neutral"], direction["target"]],
                [relevance, texts, beta],
                show_progress_on=after,
                **_HEAVY,
            ).then(**moved, **_LIVE)
        for slider in (alpha, beta):
            slider.input(**moved, **_LIVE)
        channels.submit(do.choose_channels, [relevance, channels], beta, **_LIVE).then(
            **moved, **_LIVE
        )
        direction["sheet"].click(
            do.sheet, [start, relevance, channels], sheet, **_HEAVY
        )
        running = optimization["start"].click(
            do.optimize,
            [start, optimization["prompt"], *optimization["settings"]],
            shown,
            show_progress="hidden",
            **_HEAVY,
        )
        optimization["stop"].click(None, cancels=running)
        if room.mappers:
            inputs = [start, mapper["name"], mapper["strength"]]
            for event in (
                mapper["name"].input,
                mapper["strength"].input,
                mapper["apply"].click,
            ):
                event(do.map_face, inputs, shown, **_LIVE)
        use.click(do.use, edit, [start, before, alpha], **_LIVE).then(**moved, **_LIVE)
        save.click(do.save, edit, files, **_HEAVY)
    return page


def _direction_tab() -> dict[str, Any]:
    with gr.Row():
        neutral = gr.Textbox("a face", label="From", min_width=120)
        target = gr.Textbox("a smiling face", label="To", elem_id="target")
    measure = gr.Button("Measure this direction", variant="primary", elem_id="measure")
    alpha = gr.Slider(
        -_MAX_ALPHA, _MAX_ALPHA, 5, step=0.1, label="α, strength", elem_id="alpha"
    )
    with gr.Row():
        beta = gr.Slider(
            0,
            0.3,
            0.1,
            step=0.0001,
            label="β, least relevance",
            elem_id="beta",
            scale=3,
        )
        number = gr.Number(
            label="Channels", precision=0, minimum=1, min_width=80, elem_id="channels"
        )
    sheet = gr.Button("Sheet of strengths", size="sm", elem_id="make_sheet")
    return {
        "neutral": neutral,
        "target": target,
        "measure": measure,
        "alpha": alpha,
        "beta": beta,
        "n": number,
        "sheet": sheet,
    }


def _optimization_tab(room: Room) -> dict[str, Any]:
    embedded = room.origin.name == "embedded"
    values = _EMBEDDED if embedded else edits.Settings()
    prompt = gr.Textbox("a smiling face", label="Towards", elem_id="prompt")
    steps = gr.Slider(10, 500, values.steps, step=10, label="Steps")
    with gr.Row():
        rate = gr.Number(
            values.learning_rate, label="Learning rate", step=0.01, min_width=90
        )
        l2 = gr.Number(values.l2_lambda, label="λ latent", step=0.0005, min_width=90)
        identity = gr.Number(
            values.id_lambda,
            label="λ identity",
            step=0.001,
            min_width=90,
            interactive=room.session.identity is not None,
        )
    with gr.Row():
        start = gr.Button("Optimize", variant="primary", elem_id="optimize")
        stop = gr.Button("Stop", elem_id="stop")
    settings = [steps, rate, l2, identity]
    return {"prompt": prompt, "settings": settings, "start": start, "stop": stop}


def _mapper_tab(room: Room) -> dict[str, Any]:
    names = list(room.mappers)
    strength = room.mappers[names[0]].config.strength
    # Three times 0.1 would be shown with all of its digits.
    most = float(f"{3 * strength:.6g}")
    name = gr.Dropdown(names, value=names[0], label="Mapper", elem_id="mapper")
    slider = gr.Slider(-most, most, strength, step=most / 150, label="Strength")
    apply = gr.Button("Apply", variant="primary", elem_id="map")
    return {"name": name, "strength": slider, "apply": apply}


def _figure(caption: str, face: Faces) -> str:
    """Figure inside the page itself, which is sooner there than a file would be."""
    image = pixels.to_uint8(face.images[0])
    kind = "png" if len(image) <= _MAX_PNG else "jpeg"
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, quality=92)
    data = base64.b64encode(content.getvalue()).decode()
    source = f"data:image/{kind};base64,{data}"
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<img src="{source}" alt="{caption}"></figure>'
    )


def _picture(name: str) -> gr.HTML:
    return gr.HTML(elem_id=name, padding=False, min_height=200)


def _reporter(progress: Any, total: int, what: str) -> Callable[[int], None]:
    """Reporter that adds up what is done, for a bar on the page."""
    done = 0
    progress((0, total), desc=what)

    def report(count: int) -> None:
        nonlocal done
        done += count
        progress((done, total), desc=what)

    return report


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Shows a UserError on the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
