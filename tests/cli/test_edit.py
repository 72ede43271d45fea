"""styleclip-edit by optimization: results, resuming, refusals."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from styleclip_jax.cli import edit
from tests import tiny
from tests.programs import Program


@pytest.mark.parametrize("space", ["w_plus", pytest.param("s", marks=pytest.mark.slow)])
def test_edit_writes_everything_that_it_promises(
    run: Program, tmp_path, space: str
) -> None:
    code, out, _ = run(edit, seeds="3-8", space=space, film_frames=2)
    assert code == 0
    folder = tmp_path / "out"
    assert str(folder / "grid.png") in out
    suffix = "npz" if space == "s" else "npy"
    arrays = []
    for name in ("original", "edited"):
        array = np.load(folder / f"{name}.{suffix}")
        arrays.append(array["styles"] if space == "s" else array)
    assert arrays[0].shape == arrays[1].shape
    assert len(arrays[0]) == 6
    assert np.abs(arrays[0] - arrays[1]).max() > 1e-4
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [line["seed"] for line in lines] == list(range(3, 9))
    assert all({"clip", "l2", "total"} <= line.keys() for line in lines)
    assert len(list((folder / "images").iterdir())) == 6
    assert Image.open(folder / "films" / "000005.gif").n_frames >= 2
    record = json.loads((folder / "run.json").read_text())
    assert record["flags"]["prompt"] == "cat"
    assert record["versions"]["jax"]
    assert len(record["inputs"]["generator"]) == 64
    assert not list(folder.rglob(".*"))
    # Edits in S can be edited again.
    if space == "s":
        code, *_ = run(
            edit, latents=folder / "edited.npz", space="s", outdir=tmp_path / "next"
        )
        assert code == 0


@pytest.mark.slow
def test_other_flags_are_refused_by_name(run: Program) -> None:
    assert run(edit, seeds="0-1")[0] == 0
    code, _, err = run(edit, seeds="0-1", l2_lambda=0.5)
    assert code == 2
    assert "--l2_lambda=0.008, found 0.5" in err
    # Only the speed differs.
    assert run(edit, seeds="0-1", batch_size=1)[0] == 0


@pytest.mark.slow
def test_nan_latent_is_reported_and_the_rest_is_done(run: Program, tmp_path) -> None:
    w_plus = np.array(tiny.w_plus(3))
    w_plus[1] = np.nan
    np.save(tmp_path / "latents.npy", w_plus)
    code, out, _ = run(edit, latents=tmp_path / "latents.npy")
    assert code == 1
    assert "edit 1 of row 1" in out
    assert "1 of 3 edits" in out
    edited = np.load(tmp_path / "out" / "edited.npy")
    assert np.isfinite(edited[[0, 2]]).all()
    assert (tmp_path / "out" / "grid.png").exists()


@pytest.mark.slow
def test_free_generation_starts_at_the_average(run: Program, tmp_path) -> None:
    code, *_ = run(edit, mode="free_generation")
    assert code == 0
    original = np.load(tmp_path / "out" / "original.npy")
    w_avg = tiny.generator().params["mapping"]["w_avg"]
    np.testing.assert_allclose(original, np.broadcast_to(w_avg, (1, 4, 12)))


LONG = "a very " * 40 + "long text"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"prompt": None}, "--prompt"),
        ({"prompt": "  "}, "--prompt"),
        ({"prompt": LONG}, "at most 12 tokens"),
        ({"seeds": "5-1"}, "--seeds"),
        ({"seeds": "x"}, "--seeds"),
        ({"seeds": "0", "latents": "x.npy"}, "--seeds and --latents"),
        ({"latents": "absent.npy"}, "absent.npy"),
        ({"latents": "full"}, "in this folder, found none"),
        ({"latents": "wide.npy"}, "expected [N, 4, 12]"),
        ({"latents": "corrupt.npy"}, "corrupt.npy"),
        ({"latents": "styles.npy"}, "--space=s"),
        ({"generator": "absent"}, "absent"),
        ({"generator": "corrupt.npy"}, "found a file"),
        ({"generator": "wrong_kind"}, "expected a stylegan2 network"),
        ({"generator": "truncated"}, "model.safetensors"),
        ({"clip": "absent/one/two"}, "absent/one/two"),
        ({"space": "z"}, "--space"),
        ({"method": "magic"}, "--method"),
        ({"images": "tiff"}, "--images"),
        ({"steps": 0}, "--steps"),
        ({"steps": "many"}, "--steps"),
        ({"learning_rate": "nan"}, "--learning_rate"),
        ({"batch_size": 0}, "--batch_size"),
        ({"film_frames": 4}, "--film_frames"),
        ({"truncation_psi": "nan"}, "--truncation_psi"),
        ({"class": 1}, "--class"),
        ({"colour": "red"}, "colour"),
        ({"outdir": "corrupt.npy"}, "--outdir"),
        ({"outdir": "corrupt.npy/below"}, "corrupt.npy/below"),
        ({"outdir": "full"}, "--outdir"),
        ({"mode": "free_generation", "seeds": "0"}, "--mode"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Program,
    models: dict[str, str],
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("wide.npy", np.zeros((2, 4, 13), np.float32))
    np.save("styles.npy", np.zeros((2, 46), np.float32))
    pathlib.Path("corrupt.npy").write_text("nothing")
    pathlib.Path("full").mkdir()
    pathlib.Path("full/thesis.txt").write_text("years of work")
    pathlib.Path("wrong_kind").mkdir()
    pathlib.Path("wrong_kind/config.json").write_text('{"kind": "mapper"}')
    pathlib.Path("truncated").mkdir()
    for name in ("config.json", "model.safetensors"):
        content = (pathlib.Path(models["generator"]) / name).read_bytes()
        cut = len(content) // 2 if name.startswith("model") else None
        pathlib.Path("truncated", name).write_bytes(content[:cut])
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run(edit, **options)
    message = err.strip().split("\n")
    assert code == 2
    assert len(message) == 1, err
    assert message[0].startswith("error: ")
    assert expected in message[0]
    assert sorted(tmp_path.rglob("*")) == before
