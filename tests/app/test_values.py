"""Values of controls: those that the page itself cannot send get one line."""

import asyncio
import errno
import math
import os
import pathlib
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs gradio: the extra app")

import gradio as gr

from styleclip_jax.app import values
from styleclip_jax.errors import UserError

SLIDER = gr.Slider(0, 1, 0.5, label="Truncation")
NUMBER = gr.Number(4, label="Seed")
CHECKBOX = gr.Checkbox(label="Align")
TEXTBOX = gr.Textbox(label="Towards")
DROPDOWN = gr.Dropdown(["a cat", "a dog"], label="Mapper")


@pytest.mark.parametrize(
    ("component", "wrong"),
    [
        (SLIDER, [-0.1, 1.1, None, "0.5", True, math.nan, math.inf, 10**400]),
        (NUMBER, ["4", True, math.nan, -math.inf, 10**400, [4], {}]),
        (CHECKBOX, [None, 1, "yes"]),
        (TEXTBOX, [5, ["a"], "a" * 2001, {"path": "/etc/passwd"}]),
        (DROPDOWN, [None, "a cow", 0, ["a cat"]]),
    ],
)
def test_wrong_values_are_one_line_with_the_label(
    component: Any, wrong: list[Any]
) -> None:
    for value in wrong:
        with pytest.raises(UserError) as error:
            values.check(component, value)
        line = str(error.value)
        assert line.startswith(f"{component.label}: expected "), line
        assert len(line) < 120
        assert "\n" not in line


@pytest.mark.parametrize(
    ("component", "right"),
    [
        (SLIDER, [0, 1, 0.25]),
        (NUMBER, [None, 5, -5, 1e300]),
        (CHECKBOX, [True, False]),
        (TEXTBOX, [None, "", "a cat"]),
        (DROPDOWN, ["a dog"]),
        (gr.State(), ["whatever"]),
    ],
)
def test_values_of_the_page_pass(component: Any, right: list[Any]) -> None:
    for value in right:
        values.check(component, value)


def test_uploads_are_files_of_the_folder_for_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "page"))
    button = gr.UploadButton("Upload")
    inside, outside = tmp_path / "page" / "me.png", tmp_path / "me.png"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_bytes(b"a photo")
    (inside.parent / "link.png").symlink_to(outside)
    meta = {"meta": {"_type": "gradio.FileData"}}
    values.check(button, {"path": str(inside)} | meta)
    for path in (
        *(outside, "http://example.org/me.png", f"{inside}.gone", "\0", inside.parent),
        *(inside.parent / ".." / "me.png", inside.parent / "link.png", "a" * 10**5),
    ):
        with pytest.raises(UserError, match="Upload: expected an uploaded file"):
            values.check(button, {"path": os.fspath(path)} | meta)
    for value in (None, "me.png", [1], {"path": 5}, {"path": str(inside)}):
        with pytest.raises(UserError, match="Upload: expected an uploaded file"):
            values.check(button, value)


def test_uploads_of_several_photos_are_few(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    button = gr.UploadButton("Upload", file_count="multiple")
    (tmp_path / "me.png").write_bytes(b"a photo")
    one = {"path": str(tmp_path / "me.png"), "meta": {"_type": "gradio.FileData"}}
    values.check(button, [one])
    values.check(button, [one] * values.MOST_UPLOADS)
    for value, expected in (
        ([], "1 to 8 files"),
        ([one] * (values.MOST_UPLOADS + 1), "1 to 8 files"),
        (one, "an uploaded file"),
        ([one, None], "an uploaded file"),
    ):
        with pytest.raises(UserError, match=f"Upload: expected {expected}"):
            values.check(button, value)


def test_what_was_selected_is_one_of_them() -> None:
    assert values.index_of(gr.EventData(None, {"index": 2}), 3) == 2
    for data in (None, {}, 5, {"index": 3}, {"index": -1}, {"index": "x"}):
        with pytest.raises(UserError, match="index: expected a whole number from 0"):
            values.index_of(gr.EventData(None, data), 3)


def test_a_page_answers_and_logs_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work(number: float) -> float:
        raise UserError("Seed: expected less\n" + "x" * 400)

    with values.Page() as page:
        number = gr.Number(label="Seed")
        number.submit(work, number, number)
    for inputs in ([4.0], ["4"], [], [4, 5]):
        with pytest.raises(gr.Error) as error:
            asyncio.run(page.process_api(0, inputs))
        assert not error.value.print_exception
        assert "expected" in error.value.message
        assert len(error.value.message) < 210
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("refused: ") for line in lines)


def test_a_full_disk_is_said_to_the_visitor() -> None:
    def work() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with values.Page() as page:
        gr.Button().click(work)
    with pytest.raises(gr.Error, match="disk of this page is full"):
        asyncio.run(page.process_api(0, []))
