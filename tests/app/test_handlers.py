"""Handlers of the page without a browser: what its controls show."""

import contextlib
import dataclasses
import pathlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs gradio: the extra app")

import gradio as gr

from styleclip_jax.app import handlers, look, optimizing, page, rooms, waiting
from styleclip_jax.app.handlers import Handlers
from styleclip_jax.app.rooms import Room
from styleclip_jax.app.storage import Storage
from styleclip_jax.app.tunings import Tunings
from styleclip_jax.app.views import Trail
from styleclip_jax.editing.directing import DirectionConfig
from styleclip_jax.errors import UserError
from styleclip_jax.methods.optimization import OptimizationConfig
from styleclip_jax.settings.photos import InversionConfig
from styleclip_jax.settings.tuning import TuningConfig

TRAIL, BEFORE, AFTER, SLIDER, STATUS, HISTORY, UNDO = range(7)
SKIPPED = gr.skip()
NOTHING = Trail((), -1)


@pytest.fixture(scope="module")
def do(room: Room, tmp_path_factory: pytest.TempPathFactory) -> Handlers:
    return Handlers(room, Storage(tmp_path_factory.mktemp("files"), 2**30))


@pytest.fixture
def start(do: Handlers) -> Trail:
    return do.draw(NOTHING, 3, 0.7)[TRAIL]


def direct(do: Handlers, trail: Trail, auto: bool, by: float = 0.0) -> Any:
    """Outputs of an edit along a direction."""
    *_, outputs = do.direct(trail, "dog", "cat", auto, by)
    return outputs


def test_page_starts_without_an_edit_and_with_a_start(do: Handlers) -> None:
    outputs = do.draw(NOTHING, 3, 0.7)
    assert "<img" in outputs[BEFORE]
    assert "press Edit" in outputs[AFTER]
    assert not outputs[SLIDER]["interactive"]
    assert not outputs[UNDO]["interactive"]


@pytest.mark.parametrize("seed", [-5, 1.5, 2**32, None])
def test_bad_seeds_are_answered_beside_the_face(do: Handlers, seed: Any) -> None:
    *outputs, note = do.draw(NOTHING, seed, 0.7)
    assert outputs == [SKIPPED] * 7
    assert note.startswith("Seed: expected a whole number")
    assert do.draw(NOTHING, 3, 0.7)[-1] == ""


@pytest.fixture(scope="module")
def quick(do: Handlers) -> Iterator[Handlers]:
    """Handlers of another room, whose inversions and tunings are of few steps."""
    config = TuningConfig(tune_steps=2, tune_rate=0.01, tune_lpips_lambda=0)
    room = dataclasses.replace(do.room, tuning=config, tunings=Tunings())
    with pytest.MonkeyPatch.context() as patch:
        few = InversionConfig(w_steps=10, refine_steps=10)
        patch.setattr(rooms, "_INVERSION", few)
        yield Handlers(room, do.storage)


def test_photos_become_faces_to_choose_from(
    quick: Handlers, tmp_path: pathlib.Path
) -> None:
    do = quick
    paths = [str(tmp_path / name) for name in ("a_b.png", "broken.png", "c.png")]
    for path, colour in zip(paths, ("red", "green", "blue"), strict=True):
        Image.new("RGB", (40, 30), colour).save(path)
    pathlib.Path(paths[1]).write_text("no picture")
    *lines, outputs = do.upload(NOTHING, paths, False, False, False)
    shown, (note, photos, gallery) = outputs[:7], outputs[7:]
    assert shown[TRAIL].view.start is photos[0]
    assert [face.name for face in photos] == ["a_b.png", "c.png"]
    assert gallery["visible"]
    assert len(gallery["value"]) == 2
    first, second, third = note.split("  \n")
    assert first == "a\\_b.png: used as it is"
    assert second == "c.png: used as it is"
    assert third.startswith("broken.png: not a readable photo")
    assert all(line[7:] == (SKIPPED,) * 3 for line in lines)
    # Red comes nearer than in the average face.
    red, average = (
        do.room.render(x.latent)[0].astype(int) - (255, 0, 0)
        for x in (photos[0], rooms.draw(do.room, 0, 0.0))
    )
    assert np.abs(red).mean() < 0.9 * np.abs(average).mean()
    # Another one is edited in turn.
    chosen = do.choose_photo(shown[TRAIL], photos, gr.EventData(None, {"index": 1}))
    assert chosen[TRAIL].view.start is photos[1]
    assert len(chosen[TRAIL].views) == 2
    with pytest.raises(UserError, match=r"broken\.png: not a readable photo"):
        list(do.upload(NOTHING, paths[1:2], False, False, False))


@pytest.mark.slow
def test_a_tick_tells_how_long_and_then_tunes(
    quick: Handlers, tmp_path: pathlib.Path
) -> None:
    do = quick
    start = do.draw(NOTHING, 3, 0.7)[TRAIL]
    *_, (_, note) = do.forecast(start, True)
    assert re.search(r"will take about \d+ s for each face, for 2 steps", note)
    assert list(do.forecast(start, False)) == [("", "")]
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (30, 30), colour).save(path)
    *_, outputs = do.upload(NOTHING, paths, True, False, False)
    photos = outputs[8]
    assert len({face.tuned for face in photos} - {None}) == 2
    numbers = re.findall(r"([\d.]+) of 255 levels from the photo, ([\d.]+)", outputs[7])
    assert len(numbers) == 2
    assert all(float(after) < float(before) for before, after in numbers)
    edited = direct(do, outputs[TRAIL], False)[TRAIL].view
    assert edited.step.tuned == edited.start.tuned == photos[0].tuned
    # The next edit from here keeps it, and a random face goes without.
    trail = NOTHING.add(edited)
    assert do.go_on(trail)[TRAIL].view.start.tuned == photos[0].tuned
    assert do.draw(trail, 3, 0.7)[TRAIL].view.start.tuned is None


def test_automatic_strength_is_shown_and_the_slider_goes_on_from_it(
    do: Handlers, start: Trail
) -> None:
    outputs = direct(do, start, True)
    view = outputs[TRAIL].view
    assert view.step.fit is not None
    assert outputs[SLIDER]["value"] == pytest.approx(view.strength)
    assert outputs[SLIDER]["maximum"] >= abs(view.strength)
    moved = do.move(outputs[TRAIL], 3.0)
    assert moved[TRAIL].view.strength == 3.0
    # The same step, and no value that would push the slider under a hand.
    assert moved[TRAIL].view.step is view.step
    assert moved[SLIDER] == SKIPPED
    # Switched on again, it is found again.
    *_, again = do.search(moved[TRAIL], True)
    assert again[TRAIL].view.strength == pytest.approx(view.strength)
    assert len(again[TRAIL].views) == len(moved[TRAIL].views)


def test_without_automatic_the_start_is_the_methods_own(
    do: Handlers, start: Trail
) -> None:
    outputs = direct(do, start, False)
    assert outputs[SLIDER]["value"] == float(DirectionConfig.alpha[0])
    # Another text keeps the strength of the slider.
    assert direct(do, outputs[TRAIL], False, 2.0)[SLIDER]["value"] == 2.0
    # Another method does not, since its strengths are others.
    *_, mapped = do.map_face(start, "a cat", False, 2.0)
    assert mapped[SLIDER]["value"] == do.room.mappers["a cat"].config.strength


def test_advised_settings_are_those_of_the_models(room: Room) -> None:
    assert not room.is_embedded
    config = OptimizationConfig()
    assert optimizing.advised(room) == (
        config.steps,
        config.learning_rate,
        config.l2_lambda,
        config.id_lambda,
    )


def test_undo_and_history_bring_earlier_edits_back(do: Handlers, start: Trail) -> None:
    edited = direct(do, start, False)
    assert edited[UNDO]["interactive"]
    undone = do.undo(edited[TRAIL])
    assert undone[BEFORE] == edited[BEFORE]
    assert "press Edit" in undone[AFTER]
    chosen = gr.EventData(None, {"index": 1})
    assert do.go(undone[TRAIL], chosen)[AFTER] == edited[AFTER]
    assert len(edited[HISTORY]["value"]) == 2
    # An edit as the start of another one.
    again = do.go_on(edited[TRAIL])
    assert (
        again[BEFORE].partition("<img")[2].split('"')[1]
        == (edited[AFTER].partition("<img")[2].split('"')[1])
    )


def test_channels_of_a_threshold_switch_to_it(do: Handlers, start: Trail) -> None:
    trail = direct(do, start, True)[TRAIL]
    beta = do.count(trail, 5)
    *outputs, number = do.select(trail, beta)
    assert number == 5
    assert "5 channels" in outputs[STATUS]
    with pytest.raises(UserError, match="Channels: expected a whole number"):
        do.count(trail, 1.5)


def test_sheet_is_that_of_the_edit(do: Handlers, start: Trail) -> None:
    made = do.sheet(direct(do, start, False)[TRAIL], 4)["value"]
    assert made.width > made.height
    with pytest.raises(UserError, match="Press Edit in the tab Direction first"):
        do.sheet(start, 4)


def test_same_edit_on_other_faces(do: Handlers, start: Trail) -> None:
    trail = direct(do, start, False)[TRAIL]
    *_, (gallery, _) = do.several(trail, False)
    assert len(gallery["value"]) == 8
    size = do.room.generator.config.resolution
    pair, name = gallery["value"][3]
    assert pair.shape == (size, 2 * size, 3)
    assert name == "seed 3: 4"
    # The face of seed 3 is the start, so its edit is the one that is shown.
    shown = do.room.render(trail.view.latent)[0].astype(int)
    assert np.abs(pair[:, size:] - shown).max() <= 1


def test_messages_are_short_and_show_no_template(do: Handlers, start: Trail) -> None:
    edits, shown = do.direct(start, "dog", "cat " * 200, True, 0.0), []
    with pytest.raises(UserError) as error:
        shown.extend(edits)
    # No line says any more that something is being done.
    assert shown[-1][STATUS] == ""
    assert len(str(error.value)) < 200
    assert "the cat" not in str(error.value)


def test_texts_of_people_are_no_markup(do: Handlers, start: Trail) -> None:
    *_, outputs = do.direct(start, "dog", "<b>a *cat*", False, 0.0)
    assert r"\<b\>a \*cat\*" in outputs[STATUS]


def test_download_is_one_zip(do: Handlers, start: Trail) -> None:
    found = do.save(direct(do, start, False)[TRAIL])
    assert pathlib.Path(found["value"]).name == "edit.zip"


def test_rehearsal_compiles_what_the_first_click_needs(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those who wait look at times, and may miss a short stage.
    stage, stages = waiting.Work.stage, list[str]()

    @contextlib.contextmanager
    def noted(work: Any, *about: Any, **options: Any) -> Iterator[None]:
        with stage(work, *about, **options):
            stages.append(work._what)
            yield

    monkeypatch.setattr(waiting.Work, "stage", noted)
    rehearsed = Handlers(room, Storage("", 0))

    def edit() -> str:
        stages.clear()
        trail = rehearsed.draw(NOTHING, handlers.SEED, 0.7)[TRAIL]
        list(rehearsed.direct(trail, "dog", "cat", True, 0.0))
        return " ".join(stages)

    assert "compiling once" in edit()
    rehearsed = Handlers(room, Storage("", 0))
    rehearsed.rehearse(threading.Event())
    found = edit()
    assert "Finding the strength" in found
    assert "compiling once" not in found


def test_rehearsal_ends_when_the_program_does(room: Room) -> None:
    stopped = threading.Event()
    stopped.set()
    rehearsed = Handlers(room, Storage("", 0))
    rehearsed.rehearse(stopped)
    assert room.heavy.acquire(timeout=300)
    room.heavy.release()


def test_page_has_no_limits_that_paint_fields_red(do: Handlers) -> None:
    # Gradio paints a number red that is missing or outside of its own limits.
    for block in page.build(do).blocks.values():
        if isinstance(block, gr.Number) and not isinstance(block, gr.Slider):
            assert block.minimum is None
            assert block.maximum is None
        if isinstance(block, (gr.Number, gr.Slider, gr.Textbox)):
            assert block.info, block.label


def test_pictures_lie_in_the_page_without_loss_where_they_are_small() -> None:
    small, large = (np.zeros((x, x, 3), np.uint8) for x in (64, 512))
    assert "data:image/png" in look.figure("Start", small)
    assert "data:image/jpeg" in look.figure("Start", large)
