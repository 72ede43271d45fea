"""styleclip-edit with further terms, several texts, StyleMC and essences."""

import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from styleclip_jax.cli import edit
from tests import programs, tiny
from tests.programs import Program

SOURCE = """
import jax.numpy as jnp


def brightness(networks, edit):
    return -jnp.mean(edit.image, axis=(1, 2, 3))


NUMBER = 3
"""
TEXTS = {"also": "dog=0.5", "avoid": "cow"}
STYLEMC = {"method": "stylemc", "resolution": 4, "num_samples": 2, "seeds": "0-2"}
DIRECTION = {"method": "direction", "steps": None, "prompt": None, "clip": None}


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Module of a user's own in the folder that programs are run in."""
    path = tmp_path / "own_terms.py"
    path.write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    # As with a console script: the current folder is not looked in.
    others = [x for x in sys.path if x not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", others)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_terms", raising=False)
    return path


def _lines(folder: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def _styles(folder: pathlib.Path) -> np.ndarray:
    steps = [np.load(folder / f"{x}.npz")["styles"] for x in ("edited", "original")]
    return steps[0] - steps[1]


def test_optimization_weighs_terms_and_texts(
    run: Program, own: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = {
        **TEXTS,
        "objective": "clip=0,directional,sparse=0,own_terms:brightness=10",
        "neutral": "goat",
        "l2_lambda": 0,
        "seeds": "0-1",
    }
    code, _, err = run(edit, **options)
    assert code == 0, err
    for line in _lines(tmp_path / "out"):
        assert line["beside"] == ["+ 0.5 dog", "- cow"]
        # Zero weights count for nothing, and are still told.
        assert line["sparse"] > 0
        total = line["directional"] + 10 * line["own_terms:brightness"]
        assert line["total"] == pytest.approx(total, abs=1e-4)
        assert line["own_terms:brightness"] < 0
    assert "2 of 2 latents are done" in run(edit, **options)[1]
    own.write_text(SOURCE + "\n")
    code, _, err = run(edit, **options)
    assert (code, err.count("\n")) == (2, 1)
    assert "own_terms:brightness=" in err


def test_stylemc_is_one_direction_of_coarse_layers(
    run: Program, tmp_path: pathlib.Path
) -> None:
    folder, saved = tmp_path / "out", tmp_path / "one.safetensors"
    options = {**STYLEMC, "alpha": "0,1", "save_direction": saved}
    code, out, err = run(edit, **options)
    assert code == 0, err
    assert "learning: 3 steps on 2 faces at 4², about " in out
    step = _styles(folder).reshape(3, 2, -1)
    assert not step[:, 0].any()
    np.testing.assert_allclose(step[1:, 1], step[:-1, 1], atol=1e-5)
    layout, start = tiny.GENERATOR.style_layout, 0
    for layer in layout:
        part = step[0, 1, start : start + layer.channels]
        moves = layer.resolution == 4 and not layer.is_torgb
        assert np.all(part != 0) == moves, layer.name
        assert moves or not part.any(), layer.name
        start += layer.channels
    assert "3 of 3 latents are done" in run(edit, **options)[1]
    # The direction is the same from its file.
    other = {"direction": saved, "alpha": "1", "outdir": tmp_path / "again"}
    code, _, err = run(edit, **DIRECTION, **other, seeds="0-2")
    assert code == 0, err
    np.testing.assert_array_equal(_styles(tmp_path / "again"), step[:, 1])
    # Texts beside the prompt turn it.
    options |= TEXTS | {"save_direction": None, "outdir": tmp_path / "turned"}
    assert run(edit, **options)[0] == 0
    turned = _styles(tmp_path / "turned").reshape(3, 2, -1)
    assert np.abs(turned - step).max() > 0.01


def test_essence_of_an_image_or_of_a_latent(
    run: Program, tmp_path: pathlib.Path
) -> None:
    latents = tmp_path / "w_plus.npy"
    np.save(latents, np.asarray(tiny.w_plus(3)))
    options: dict[str, Any] = {
        "method": "essence",
        "prompt": None,
        "num_samples": 2,
        "seeds": "0",
        "target": f"{latents}:2",
    }
    code, out, err = run(edit, **options)
    assert code == 0, err
    assert f"target: {latents}:2" in out
    picture, pixels = tmp_path / "target.png", np.zeros((32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(picture)
    others = {"target": picture, "outdir": tmp_path / "image"}
    code, _, err = run(edit, **options | others)
    assert code == 0, err
    steps = [_styles(tmp_path / name) for name in ("out", "image")]
    assert np.abs(steps[0] - steps[1]).max() > 0.01
    # Another picture of the same name is another run.
    Image.fromarray(pixels + 255).save(picture)
    code, _, err = run(edit, **options | others)
    assert code == 2
    assert "target=" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"objective": "l2=1"}, "expected clip, directional, pixels, sparse, or a fu"),
        ({"objective": "pixels,pixels=2"}, "expected each term once, found pixels"),
        ({"objective": "own_terms:absent"}, "expected a name of own_terms, found 'abs"),
        ({"objective": "own_terms:NUMBER"}, "of networks and edit, found int"),
        ({"objective": "pixels", "neutral": "x"}, "--neutral: is of no use without a"),
        ({"also": "dog=-1"}, "--also: expected a weight above 0, found 'dog=-1'"),
        ({"avoid": "=2"}, "--avoid: "),
        ({"method": "mapper", "steps": None, "also": "dog"}, "--also: is of no use"),
        ({**STYLEMC, "resolution": 5}, "--resolution: expected one of 4, 8, found 5"),
        ({**STYLEMC, "space": "s"}, "--space: is a flag of --method=optimization"),
        ({**STYLEMC, "id_lambda": 0.1}, "identity"),
        ({**STYLEMC, "learning_rate": 1e38}, "--learning_rate: step "),
        ({**STYLEMC, "alpha": "x"}, "--alpha: expected numbers, found 'x'"),
        ({"method": "essence"}, "--target: expected an image"),
        ({"method": "essence", "target": "absent.png"}, "absent.png: expected a photo"),
        ({"method": "essence", "target": "w.npy:1"}, "expected a row below 1 of w.npy"),
        ({"method": "essence", "num_samples": 1, "target": "x"}, "--num_samples"),
    ],
)
def test_what_does_not_fit_is_one_line(
    run: Program, own: pathlib.Path, options: dict[str, Any], expected: str
) -> None:
    np.save("w.npy", np.asarray(tiny.w_plus(1)))
    code, _, err = run(edit, **options)
    error = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(error)) == (2, 1), err
    assert expected in error[0]
    assert not pathlib.Path("out").exists()


def test_several_prompts_are_not_saved_as_one(
    run: Program, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "prompts.txt").write_text("cat\ndog\n")
    options = {**STYLEMC, "prompt": None, "prompts_file": tmp_path / "prompts.txt"}
    code, _, err = run(edit, **options, save_direction=tmp_path / "x.safetensors")
    assert code == 2
    assert "--save_direction: expected one prompt, found 2" in err


def test_help_has_the_texts_of_shared_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert programs.run(edit, ["program", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "directional, pixels, sparse" in text
    assert "the flag may be repeated" in text
