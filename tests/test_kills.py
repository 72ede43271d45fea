"""Programs whose every call to the disk may be their last; `make kills` kills more."""

import importlib
import pathlib
import random

import pytest

from convert import __main__ as convert
from tests import kills, programs
from tests.batch import fakes


@pytest.fixture
def inputs(models: dict[str, str], tmp_path: pathlib.Path) -> pathlib.Path:
    """Folder of what the programs read."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name, path in models.items():
        (folder / name).symlink_to(path)
    (folder / "texts.txt").write_text("cat\ndog\n")
    (folder / "templates.txt").write_text("a {}\n")
    return folder


def start(name: str, inputs: pathlib.Path, folder: pathlib.Path) -> int:
    """Exit code of a program in this process."""
    asked = kills.PROGRAMS[name]
    argv = [name, *(flag.format(inputs, folder) for flag in asked.flags)]
    folder.mkdir(exist_ok=True)
    if name == "convert":
        return convert.main(argv)
    return programs.run(importlib.import_module(asked.module), argv)


@pytest.mark.parametrize("name", ["convert", "find", "measure"])
def test_killed_at_any_call_a_program_goes_on_to_the_same_files(
    name: str,
    inputs: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[int] = []
    with monkeypatch.context() as patch:
        # Others, such as the cache of compiled programs, make calls once alone.
        inside = str(tmp_path / "whole")
        fakes.count_calls(patch, calls.append, kills.CALLS, inside)
        assert start(name, inputs, tmp_path / "whole") == 0
    expected = kills.snapshot(tmp_path / "whole")
    number = 3 if name == "convert" else 2
    for position in random.Random(0).sample(range(len(calls)), number):

        def kill(call: int, position: int = position) -> None:
            # Nothing works any more, so that what is left is what a signal leaves.
            if call >= position:
                raise fakes.Killed

        folder = tmp_path / f"killed{position}"
        with monkeypatch.context() as patch:
            fakes.count_calls(patch, kill, kills.CALLS, str(folder))
            with pytest.raises(fakes.Killed):
                start(name, inputs, folder)
        capsys.readouterr()
        code, refusal = start(name, inputs, folder), kills.PROGRAMS[name].refusal
        if code and refusal:
            assert refusal in capsys.readouterr().err
        else:
            assert code == 0, capsys.readouterr().err
        assert kills.snapshot(folder) == expected, position
