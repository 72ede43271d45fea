"""Several CLIPs in one edit, and CLIPs that score it: from the command line."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

import styleclip_jax as sc
from styleclip_jax.cli import edit, evaluate
from styleclip_jax.io import clip_files
from styleclip_jax.models import bpe
from tests import programs, tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Directories of two CLIPs of other sizes."""
    folder, made = tmp_path_factory.mktemp("clips"), []
    for name, config, merges in (("a", tiny.CLIP, 100), ("b", tiny.CLIP_32, 500)):
        clip_files.save(tiny.clip_network(config), folder / name)
        bpe.write(bpe.OPENAI_MERGES, folder / name, merges)
        made.append(str(folder / name))
    return made


def flags(models: dict[str, str], two: list[str], **others: Any) -> list[str]:
    options = {
        "generator": models["generator"],
        "clip": ",".join(two),
        "clip_weights": "2,1",
        "prompt": "a cat",
        "seeds": "0-1",
    } | others
    return [f"--{name}={value}" for name, value in options.items()]


def test_all_methods_take_several(
    models: dict[str, str], two: list[str], tmp_path: pathlib.Path, capsys
) -> None:
    (tmp_path / "templates.txt").write_text("a {}\n")
    direction = {
        "method": "direction",
        "num_samples": 3,
        "num_channels": 5,
        "templates": tmp_path / "templates.txt",
    }
    for name, options in (("optimization", {"steps": 3}), ("direction", direction)):
        argv = flags(models, two, outdir=tmp_path / name, **options)
        assert programs.run(edit, ["styleclip-edit", *argv]) == 0
        out = capsys.readouterr().out
        assert f"clip: {two[0]}, 8² and {two[1]}, 32²" in out
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["flags"]["clip_weights"] == ["2", "1"]
        assert record["inputs"]["clip"].count(",") == 1
        # Nothing is left to do.
        assert programs.run(edit, ["styleclip-edit", *argv]) == 0
        assert "resumed: 2 of 2" in capsys.readouterr().out


def test_session_edits_as_the_program(
    models: dict[str, str], two: list[str], tmp_path: pathlib.Path
) -> None:
    argv = flags(models, two, outdir=tmp_path / "out", steps=3)
    assert programs.run(edit, ["styleclip-edit", *argv]) == 0
    session = sc.load(
        generator=models["generator"], clip=two, clip_weights=[2, 1], quiet=True
    )
    made = session.optimize(session.sample([0, 1]), "a cat", steps=3)
    np.testing.assert_array_equal(
        made.after.latent, np.load(tmp_path / "out/edited.npy")
    )
    alone = sc.load(generator=models["generator"], clip=two[0], quiet=True)
    other = alone.optimize(alone.sample([0, 1]), "a cat", steps=3)
    assert np.abs(other.after.latent - made.after.latent).max() > 1e-4


def test_clips_that_score_have_a_row_each(
    models: dict[str, str], two: list[str], tmp_path: pathlib.Path, capsys
) -> None:
    argv = flags(models, two[:1], clip_weights=1, outdir=tmp_path / "e", steps=2)
    assert programs.run(edit, ["styleclip-edit", *argv]) == 0
    argv = [f"--edits={tmp_path / 'e'}", f"--outdir={tmp_path / 'table'}"]
    argv.append(f"--eval_clip={','.join(two)}")
    assert programs.run(evaluate, ["styleclip-evaluate", *argv]) == 0
    rows = json.loads((tmp_path / "table/edits.json").read_text())["rows"]
    assert [row["clip"] for row in rows] == two
    assert [row["clip_was_optimized"] for row in rows] == [True, False]
    scores = [row["metrics"]["clip_score"]["mean"] for row in rows]
    assert abs(scores[0] - scores[1]) > 1e-3
    assert "| clip |" in capsys.readouterr().out


def test_wrong_clips_are_refused(
    models: dict[str, str], two: list[str], tmp_path: pathlib.Path, capsys
) -> None:
    for options, message in (
        ({"clip_weights": "1"}, "--clip_weights: expected 2 numbers above 0"),
        ({"clip_weights": "1,x"}, "--clip_weights: expected numbers, found 'x'"),
        ({"clip": f"{two[0]},"}, "--clip: expected names with commas between"),
        ({"clip": f"{two[0]},nowhere"}, "nowhere: no such CLIP directory"),
    ):
        argv = flags(models, two, outdir=tmp_path / "out", steps=2, **options)
        assert programs.run(edit, ["styleclip-edit", *argv]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()
