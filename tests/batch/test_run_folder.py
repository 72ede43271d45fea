"""Folders of runs say what made them."""

import json
import pathlib

import pytest

from styleclip_jax.batch import run_folder


def test_a_package_that_is_not_there_has_no_version(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_PACKAGES", ("jax", "no-such-package"))
    folder = run_folder.begin(tmp_path, program="p", settings={}, inputs={})
    versions = json.loads((folder / "run.json").read_text())["versions"]
    assert versions["jax"]
    assert versions["no-such-package"] is None
