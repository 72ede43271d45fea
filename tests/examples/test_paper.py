"""The paper's tables and figures, with tiny networks."""

import pathlib
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import styleclip_jax as sc
from examples.paper import __main__, paper_tables
from styleclip_jax import loading
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import mapper
from tests import programs, tiny
from tests.programs import Program


@pytest.fixture(scope="module")
def options(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Flags of a short run with a mapper for one of two prompts."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "templates.txt").write_text("a {}\n")
    network = tiny.mapper_network(
        mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)
    )
    loading.save_mapper(
        folder / "mapper",
        network.params,
        network.config,
        prompt="dog",
        generator=checkpoints.fingerprint(models["generator"]),
        clip="",
        training={},
    )
    return models | {
        "templates": str(folder / "templates.txt"),
        "mapper": str(folder / "mapper"),
        "prompts": "cat,dog",
        "neutral": "a",
        "far": "car",
        "l2_lambda": "0.01,0.02",
        "steps": "2",
        "seeds": "0-1",
        "alphas": "-2,2",
        "num_channels": "3,6",
    }


@pytest.fixture
def run(
    options: dict[str, Any], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> Program:
    """Runs the program; returns its exit code, stdout and stderr."""

    def call(**changes: Any) -> tuple[int, str, str]:
        given = options | {"outdir": tmp_path / "out"} | changes
        argv = ["examples.paper", *(f"--{n}={x}" for n, x in given.items())]
        code = programs.run(__main__, argv)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.shown
@pytest.mark.slow
def test_all_tables_and_figures_are_made_and_kept(run: Program, tmp_path) -> None:
    code, out, err = run()
    assert code == 0, err
    folder = tmp_path / "out"
    names = [
        f"{n}{'.md' if n.startswith('table') else '.jpg'}" for n in __main__.DEFAULTS
    ]
    assert out.split() == [str(folder / name) for name in names]
    sizes = {n: Image.open(folder / n).size for n in names if n.endswith(".jpg")}
    step = 128 + 8
    # Two prompts; original and edits; faces side by side; near and far.
    assert sizes["figure3.jpg"][0] > 2 * step
    assert sizes["figure6.jpg"][0] > 3 * step
    assert sizes["figure6.jpg"][1] > 2 * step
    assert sizes["figure9.jpg"][0] > 8 * step
    assert sizes["figure24.jpg"][1] > 2 * step
    rows = (folder / "table1.md").read_text().splitlines()
    for method in ("optimization", "mapper", "direction"):
        (row,) = (x for x in rows if x.startswith(f"| {method} |"))
        assert any(unit in row for unit in (" ms ", " s ", " min ")), row
    assert paper_tables.describe_device() in (folder / "table1.md").read_text()
    # One face's edit of the other prompt has no mapper.
    table2 = (folder / "table2.md").read_text()
    assert "| dog | " in table2
    assert "| cat |" not in table2
    before = {name: (folder / name).stat().st_mtime_ns for name in names}
    (folder / "figure6.jpg").unlink()
    code, out, _ = run(figures="figure3,figure6")
    assert code == 0
    assert f"kept: {folder / 'figure3.jpg'}" in out
    assert (folder / "figure6.jpg").exists()
    del before["figure6.jpg"]
    for name, time in before.items():
        assert (folder / name).stat().st_mtime_ns == time


@pytest.mark.shown
@pytest.mark.slow
def test_similarity_is_that_of_the_steps(
    models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    config = mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)
    network = tiny.mapper_network(config)
    session = sc.load(**models, quiet=True)
    loading.save_mapper(
        tmp_path / "dog",
        network.params,
        config,
        prompt="dog",
        **session.models.fingerprints("generator", "clip"),
        training={},
    )
    faces = session.read(np.asarray(tiny.w_plus(3)))
    found: Any = SimpleNamespace(
        session=session, faces=faces, mappers={"dog": session.mapping(tmp_path / "dog")}
    )
    row = paper_tables.table2(found).splitlines()[-1]
    flat = np.asarray(mapper.apply(network, tiny.w_plus(3))).reshape(3, -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    cosines = (flat @ flat.T)[np.triu_indices(3, k=1)]
    assert row == f"| dog | {cosines.mean():.3f} | {cosines.std():.3f} |"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"figures": "figure7"}, "--figures: expected some of"),
        ({"l2_lambda": "1,2,3"}, "--l2_lambda: expected one number"),
        ({"id_lambda": "0.1"}, "--id_lambda: needs --identity"),
        ({"alphas": "-1"}, "--alphas: expected one above 0"),
        ({"num_channels": "0"}, "--num_channels: expected whole numbers from 1"),
        ({"num_channels": "1.5"}, "found 1.5"),
        ({"prompts": "a,,b"}, "--prompts: expected texts"),
        ({"ablations": "without_luck"}, "--ablations: expected some of full, without_"),
        pytest.param(
            {"num_channels": "1000", "figures": "figure6"},
            "figure6: num_channels",
            marks=[pytest.mark.shown, pytest.mark.slow],
        ),
    ],
)
def test_bad_input_gets_one_line(run: Program, changes, expected, tmp_path) -> None:
    code, _, err = run(**changes)
    assert code == 2
    assert expected in err.splitlines()[-1]
    assert not list(tmp_path.glob("out/*.jpg"))


@pytest.mark.slow
def test_stylegan2s_table_has_a_row_for_each_generator(
    run: Program, tmp_path: pathlib.Path
) -> None:
    config = tiny.GENERATOR.replace(resolution=32, channels=(8, 8, 6, 4))
    network, names = tiny.generator(config), []
    for name, scale in (("one", 1.0), ("two", 0.5)):
        names.append(str(tmp_path / name))
        checkpoints.save_network(
            names[-1],
            kind="stylegan2",
            params=jax.tree.map(lambda x, scale=scale: scale * x, network.params),
            config=config,
            source={},
        )
    code, _, err = run(
        figures="stylegan2_table", generators=",".join(names), num_samples=8
    )
    assert code == 0, err
    header, _, *rows = (tmp_path / "out/stylegan2_table.md").read_text().splitlines()
    assert header.startswith("| generator | fd_judge | kd_judge | pr_judge_precision |")
    first, second = (row.split(" | ") for row in rows)
    assert [first[0], second[0]] == [f"| {name}" for name in names]
    assert first[1:] != second[1:]


@pytest.mark.shown
@pytest.mark.slow
def test_ablations_of_a_training_have_a_row_each(
    run: Program, tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("grain")
    flags = {"figures": "training_ablations", "kimg": 0.064, "num_samples": 8}
    code, _, err = run(**flags, ablations="without_paths")
    assert code == 0, err
    table = (tmp_path / "out/training_ablations.md").read_text()
    assert "32², 0.064 thousand images each, seed 0" in table
    header, _, row = table.splitlines()[2:]
    assert header == "| training | fd_judge | images/s |"
    _, name, distance, rate, _ = map(str.strip, row.split("|"))
    assert name == "without_paths"
    assert float(distance) > 0
    assert float(rate) > 0
