"""The notebook: its cells run in order, with small settings."""

import json
import pathlib
from typing import Any

import pytest

from tests import programs

NOTEBOOK = programs.REPOSITORY / "notebooks" / "styleclip.ipynb"
# Of the first cell. Those of the README's Python in its test, so that what was compiled
# for one serves both.
SMALL = {"NUM_FACES": 4, "STEPS": 4, "NUM_SAMPLES": 2, "TRAIN_STEPS": 1}


def cells() -> list[str]:
    """Source of each cell of code."""
    document = json.loads(NOTEBOOK.read_text())
    return [
        "".join(cell["source"])
        for cell in document["cells"]
        if cell["cell_type"] == "code"
    ]


@pytest.mark.shown
@pytest.mark.slow
def test_cells_run_in_order(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {}
    settings, *others = cells()
    exec(compile(settings, NOTEBOOK.name, "exec"), variables)
    assert variables.keys() >= SMALL.keys()
    variables |= SMALL
    for source in others:
        exec(compile(source, NOTEBOOK.name, "exec"), variables)
    folder = tmp_path / variables["FOLDER"]
    for name in ("smile/grid.png", "mapper/model.safetensors", "many/edited.npz"):
        assert (folder / name).is_file(), name


def test_nothing_that_was_run_is_committed() -> None:
    document = json.loads(NOTEBOOK.read_text())
    assert not any(cell.get("outputs") for cell in document["cells"])
    assert all(cell.get("execution_count") is None for cell in document["cells"])
