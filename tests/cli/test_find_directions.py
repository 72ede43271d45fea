"""styleclip-find-directions writes directions with names, which move what they say."""

import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import styleclip_jax as sc
from styleclip_jax.batch import run_folder
from styleclip_jax.cli import find_directions
from styleclip_jax.methods import global_directions, latent_directions
from styleclip_jax.models import stylegan2
from tests import programs, tiny
from tests.programs import Program

LAYOUT = tiny.GENERATOR.style_layout


@pytest.fixture
def options(models: dict[str, str], tmp_path: pathlib.Path) -> dict[str, Any]:
    """Flags of a short run."""
    (tmp_path / "texts.txt").write_text("cat\ndog\na bird\nred fish\n")
    (tmp_path / "templates.txt").write_text("a {}\nthe {}\n")
    return {
        "clip": models["clip"],
        "texts": tmp_path / "texts.txt",
        "templates": tmp_path / "templates.txt",
        "num_components": 3,
        "layers": "b8",
        "seeds": "0-4",
    }


def test_directions_are_written_and_named(
    run: Program,
    options: dict[str, Any],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, out, _ = run(find_directions, **options)
    assert code == 0
    folder = tmp_path / "out"
    hashes = programs.hashes(folder)
    names = [f"sefa-{i:02}.safetensors" for i in range(3)]
    assert {*hashes} == {*names, "directions.json", "directions.md", "grid.png"}
    table = json.loads((folder / "directions.json").read_text())["directions"]
    assert [entry["file"] for entry in table] == names
    values = [entry["eigenvalue"] for entry in table]
    assert values == sorted(values, reverse=True)
    for entry in table:
        assert entry["plus"][0]["text"] != entry["minus"][0]["text"]
        assert entry["plus"][0]["score"] >= entry["plus"][1]["score"]
    assert (folder / "directions.md").read_text() in out
    # Three faces at both ends and as they are.
    assert Image.open(folder / "grid.png").width > 9 * 128
    monkeypatch.setattr(run_folder, "__version__", "99.1")
    code, out, _ = run(find_directions, **options)
    assert code == 0
    assert ", now 99.1; " in out
    assert programs.hashes(folder) == hashes
    code, _, err = run(find_directions, **(options | {"layers": "all"}))
    assert code == 2
    assert "is of a run with --layers=b8, found all" in err


def test_a_direction_is_the_factor_of_its_layers(
    run: Program,
    options: dict[str, Any],
    models: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    assert run(find_directions, **options)[0] == 0
    session = sc.load(generator=models["generator"], quiet=True)
    path = tmp_path / "out/sefa-01.safetensors"
    found = np.asarray(session.read_direction(path).delta)
    layers = global_directions.select_layers(LAYOUT, "b8")
    step = latent_directions.factorize(session.generator, layers).step[1]
    rows = latent_directions.in_layers(step, LAYOUT, layers)
    unit = np.asarray(latent_directions.to_direction(session.generator, rows).delta)
    scale = found @ unit / (unit @ unit)
    np.testing.assert_allclose(found, scale * unit, atol=1e-5)
    # In standard deviations of w.
    z = np.random.RandomState(1).randn(2000, tiny.GENERATOR.z_dim)
    w = stylegan2.map_latents(session.generator, jnp.float32(z))
    assert scale == pytest.approx(float(jnp.std(w @ step)), rel=0.1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_components": 13}, "--num_components: expected at most 12"),
        ({"layers": "b32"}, "--layers: expected all, resolutions"),
        ({"alpha": 0}, "--alpha: expected more than 0, found 0"),
        ({"texts": "absent"}, "absent: expected a text file of texts"),
        ({"texts": "one.txt"}, "one.txt: expected two texts or more, found 1"),
        ({"seeds": "x"}, "--seeds"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Program,
    options: dict[str, Any],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.txt").write_text("cat\n")
    code, _, err = run(find_directions, **(options | changes))
    assert (code, err.count("\n")) == (2, 1), err
    assert expected in err
    assert not (tmp_path / "out").exists()
