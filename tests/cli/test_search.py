"""styleclip-edit with strengths that are found for each latent."""

import json
import pathlib

import numpy as np
import pytest

from styleclip_jax.cli import edit
from styleclip_jax.editing import searching
from styleclip_jax.methods import strength
from tests.programs import Program

DIRECTION = {"method": "direction", "steps": None, "alpha": "auto", "seeds": "0-2"}


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_NUM_SAMPLES", 16)


def lines(folder: pathlib.Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def test_directions_are_as_strong_as_each_latent_needs(
    run: Program,
    relevance: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Untrained networks change elsewhere more than they come to fit.
    monkeypatch.setattr(strength, "_CHOOSING", 0.0)
    (tmp_path / "templates.txt").write_text("a {}\n")
    options = {**DIRECTION, "directions": relevance, "beta": "0.1,0.2", "budget": 9}
    options["templates"] = tmp_path / "templates.txt"
    code, out, err = run(edit, **options)
    assert code == 0, err
    assert out.count("strength auto: random samples have similarity") == 1
    found = lines(tmp_path / "out")
    assert len(found) == 6
    steps = [
        np.load(tmp_path / "out" / f"{x}.npz")["styles"] for x in ("edited", "original")
    ]
    for line, moved in zip(found, steps[0] - steps[1], strict=True):
        assert (line["strength"] > 0) == bool(np.any(moved))
        assert "alpha" not in line
        assert {"fit", "kept", "beta"} <= line.keys()
    assert len({line["strength"] for line in found}) > 1
    assert "3 of 3 latents are done" in run(edit, **options)[1]


def test_optimization_and_mappers_are_searched_too(
    run: Program, mappers: list[str], tmp_path: pathlib.Path
) -> None:
    code, _, err = run(edit, strength="auto", seeds="0-1", budget=0)
    assert code == 0, err
    assert [line["strength"] for line in lines(tmp_path / "out")] == [0, 0]
    edited, original = (
        np.load(tmp_path / "out" / f"{x}.npy") for x in ("edited", "original")
    )
    np.testing.assert_array_equal(edited, original)
    options = {"method": "mapper", "mapper": ",".join(mappers), "strength": "auto"}
    options |= {"prompt": None, "steps": None, "outdir": tmp_path / "mapped"}
    code, _, err = run(edit, seeds="0-1", **options)
    assert code == 0, err
    found = lines(tmp_path / "mapped")
    assert [line["index"] for line in found] == [0, 1, 2, 3]
    assert all(line["change"] <= 0.45 for line in found)


def test_steps_that_fail_are_no_latents_that_stay(
    run: Program, tmp_path: pathlib.Path
) -> None:
    code, _, err = run(edit, strength="auto", seeds="0-1", learning_rate=1e30)
    assert code == 1, err
    assert all(line["failed_at"] >= 0 for line in lines(tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({**DIRECTION, "alpha": "auto,3"}, "--alpha: expected auto alone"),
        (
            {**DIRECTION, "channel": "0:1", "prompt": None, "clip": None},
            "--alpha: auto needs a prompt",
        ),
        (
            {**DIRECTION, "alpha": "3", "budget": 1},
            "--budget: is of use with --alpha=auto alone",
        ),
        ({"budget": 1}, "--budget: is of use with --strength=auto alone"),
        ({"strength": "2"}, "--strength: expected auto, found '2'"),
        (
            {"strength": "auto", "budget": -1},
            "--budget=-1: -1.0 is not a non-negative number",
        ),
    ],
)
def test_wrong_settings_are_refused(
    run: Program, options: dict[str, str], expected: str
) -> None:
    code, _, err = run(edit, **options)
    assert (code, err.count("\n")) == (2, 1)
    assert expected in err
