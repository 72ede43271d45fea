"""styleclip-edit with a method of a module of the user's own, and shared settings."""

import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from styleclip_jax import loading
from styleclip_jax.batch import edits
from styleclip_jax.cli import edit, program
from styleclip_jax.editing import registry
from styleclip_jax.editing.session import Session
from styleclip_jax.io import direction_files
from tests import programs, tiny
from tests.programs import Program

SOURCE = '''
import dataclasses

import jax.numpy as jnp

from styleclip_jax import latents
from styleclip_jax.batch.editor import finished
from styleclip_jax.editing import editors
from styleclip_jax.editing.registry import Method


@dataclasses.dataclass(frozen=True)
class PushConfig:
    """Settings of a push.

    Attributes:
      amount: Length of a push.
      steps: Number of pushes.
    """

    amount: float = 0.5
    steps: int = 2


def _apply(generator, weights, batch):
    latent = batch + weights
    image = latents.SPACES["w_plus"].synthesize(generator, latent)
    return finished(batch, latent, image)


def push(loaded, texts, config):
    weights = jnp.float32(config.amount * config.steps)
    return editors.at_once(
        _apply, loaded.generator, [weights], weights, method="push", space="w_plus",
        title=texts.title, settings=[{}], inputs={}, about=[],
        record=dataclasses.asdict(config) | editors.record_prompts(texts),
    )


PUSH = Method(PushConfig, push)
'''


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Folder with a module that holds a method, which programs are run in."""
    path = tmp_path / "own_push.py"
    path.write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_push", raising=False)
    return path


def test_a_method_of_ones_own_is_named_by_its_module(
    run: Program, own: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options: dict[str, Any] = {
        "method": "own_push:PUSH",
        "amount": 0.25,
        "steps": None,
        "seeds": "0-1",
    }
    code, _, err = run(edit, **options)
    assert code == 0, err
    original, edited = (
        np.load(tmp_path / "out" / f"{name}.npy") for name in ("original", "edited")
    )
    # Steps are two by default here, and 300 of the optimization.
    np.testing.assert_allclose(edited, original + 0.5, atol=1e-6)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    flags = record["flags"]
    assert (flags["method"], flags["amount"], flags["steps"]) == (
        "own_push:PUSH",
        0.25,
        2,
    )
    assert "alpha" not in flags
    assert len(record["inputs"]["method"]) == 64
    assert "2 of 2 latents are done" in run(edit, **options)[1]
    assert "--alpha: is a flag of" in run(edit, **options, alpha="3")[2]
    # Another source is another run.
    own.write_text(SOURCE + "\n")
    code, _, err = run(edit, **options)
    assert (code, err.count("\n")) == (2, 1)
    assert "run with method=" in err


def test_sessions_take_methods_by_name(
    own: pathlib.Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(own.parent))
    session = Session(loading.Models(**models))
    faces = session.sample("0-1")
    editor = session.editor_of("own_push:PUSH", "a cat", steps=3)
    assert editor.method == "own_push:PUSH"
    made = session.edit(faces, editor)
    np.testing.assert_allclose(made.after.latent, faces.latent + 1.5, atol=1e-6)
    done = edits.run(session, editor, seeds="0", outdir=own.parent / "run")
    assert done.succeeded
    message = programs.refusal(session.editor_of, "own_push:PUSH")
    assert "prompt" in message
    message = programs.refusal(session.editor_of, "mapper", "a cat", mapper=("x",))
    assert message == "prompt: mapper with these settings reads none, found 'a cat'"


@pytest.mark.parametrize(
    ("method", "source", "expected"),
    [
        ("absent_module:X", "", "No module named 'absent_module'"),
        ("own_push:X", "", "expected a name of own_push, found 'X'"),
        ("own_push:X", "X = 3", "expected own_push:X to be a registry.Method"),
        ("own_push:X", "y = 1\nX = absent", "name 'absent' is not defined at"),
        (":X", "", "ValueError: Empty module name"),
        ("magic", "", "or one of your own as module:NAME, found 'magic'"),
        ("own_push:PUSH", SOURCE.replace("amount: Len", "a: Len"), "field amount: ex"),
        ("own_push:PUSH", SOURCE.replace("amount", "seeds"), "another name than a"),
        ("own_push:PUSH", SOURCE.replace("s: int", "s: str"), "steps is str, expected"),
    ],
)
def test_wrong_names_of_methods_are_one_line(
    run: Program, own: pathlib.Path, method: str, source: str, expected: str
) -> None:
    own.write_text(source)
    code, _, err = run(edit, method=method, steps=None)
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith("error: ")
    assert expected in err


def test_help_shows_the_flags_of_a_method_of_ones_own(
    own: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["program", "--method", "own_push:PUSH", "--help"]
    assert programs.run(edit, argv) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--amount=… Length of a push." in text


def test_a_shared_setting_has_the_default_of_its_method(own: pathlib.Path) -> None:
    sys.path.append(str(own.parent))
    values = edit.extend(["program", "--method=own_push:PUSH"])
    assert values is not None
    values(["program"])
    push = registry.find("own_push:PUSH").config
    optimization = registry.METHODS["optimization"].config
    assert program.build(push, values).steps == 2
    assert program.build(optimization, values).steps == 300
    assert "For own_push:PUSH: Number of pushes." in values["steps"].help
    assert "essence 100, own_push:PUSH 2)" in values["steps"].help
    values.unparse_flags()
    values(["program", "--steps=5"])
    assert program.build(push, values).steps == 5


def test_runs_from_before_the_table_go_on(
    run: Program, models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    layout = tiny.GENERATOR.style_layout
    direction_files.write_direction(
        tmp_path / "one.safetensors",
        np.ones(sum(layer.channels for layer in layout), np.float32),
        layout=layout,
        generator=loading.Models(generator=models["generator"]).generator_origin(),
        about={},
    )
    options: dict[str, Any] = {
        "method": "direction",
        "steps": None,
        "prompt": None,
        "clip": None,
        "direction": tmp_path / "one.safetensors",
        "seeds": "0",
        "images": "none",
        "grid": 0,
    }
    assert run(edit, **options)[0] == 0
    path = tmp_path / "out" / "run.json"
    record = json.loads(path.read_text())
    assert "steps" not in record["flags"]
    # All flags of all methods were recorded, with their defaults.
    record["flags"] |= {"steps": 300, "mode": "edit", "keep_best": False}
    record["flags"] |= {"strength": None, "film_frames": 0}
    path.write_text(json.dumps(record))
    code, out, err = run(edit, **options)
    assert code == 0, err
    assert "1 of 1 latents are done" in out
    code, _, err = run(edit, **options, alpha="2")
    assert code == program.EXIT_USER_ERROR
    assert "--alpha=['4'], found ['2']" in err
