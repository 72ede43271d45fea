"""Folders of runs say what made them."""

import json
import pathlib
import time

import pytest

from styleclip_jax.batch import run_folder
from styleclip_jax.errors import UserError
from styleclip_jax.progress import ignore
from tests import processes, programs


def test_a_package_that_is_not_there_has_no_version(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_PACKAGES", ("jax", "no-such-package"))
    folder = run_folder.begin(tmp_path, program="p", settings={}, inputs={})
    versions = json.loads((folder / "run.json").read_text())["versions"]
    assert versions["jax"]
    assert versions["no-such-package"] is None


def begin(folder: pathlib.Path, told: list[str]) -> None:
    settings = {"steps": 3}
    run_folder.begin(
        folder, program="p", settings=settings, inputs={}, tell=told.append
    )


def test_other_versions_are_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    for _ in range(2):
        begin(tmp_path, told)
    assert not told
    monkeypatch.setattr(run_folder, "__version__", "99.1")
    begin(tmp_path, told)
    (note,) = told
    assert note.startswith("note: the run began with styleclip_jax ")
    assert ", now 99.1; " in note


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"flags": []}', "\xff", ""])
def test_damaged_record_is_refused_in_a_line(
    tmp_path: pathlib.Path, content: str
) -> None:
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    assert "run.json" in programs.refusal(begin, tmp_path, [])


@pytest.mark.parametrize("fails", [False, True])
def test_no_process_leaves_before_the_first_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    left: list[int] = []

    def work(index: int) -> None:
        try:
            with run_folder.only_run(tmp_path, ignore):
                if index == 0:
                    time.sleep(0.1)
                    left.append(index)
                    if fails:
                        raise UserError("own")
        finally:
            left.append(index)

    found = processes.run(monkeypatch, 2, work)
    assert left[0] == 0
    assert [str(x) for x in found] == ["own" if fails else "None", "None"]
