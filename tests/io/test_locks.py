"""Locks of folders: the second writer is refused, and the dead refuse no one."""

import contextlib
import errno
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from styleclip_jax.io import files, locks
from styleclip_jax.progress import ignore
from tests import programs

HOLDER = """
import sys, time
from styleclip_jax.io import locks
with locks.only_writer(sys.argv[1], "outdir", print):
    print("has it", flush=True)
    time.sleep(60)
"""


def enter(folder: pathlib.Path, tell: Any = ignore) -> None:
    with locks.only_writer(folder, "outdir", tell):
        pass


def test_second_writer_is_told_who_writes_and_goes_on_after_a_kill(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "out"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=programs.REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        message = programs.refusal(enter, folder)
        assert message.startswith(f"outdir: another run, process {other.pid} on ")
        assert f" writes to {folder}; wait for its end" in message
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    assert (folder / locks.NAME).exists()
    enter(folder)
    assert not any(folder.iterdir())


def test_folder_is_left_as_it_was(tmp_path: pathlib.Path) -> None:
    enter(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    with locks.only_writer(tmp_path / "a" / "b", "outdir", ignore):
        (tmp_path / "a" / "b" / "result").touch()
    assert [x.name for x in (tmp_path / "a" / "b").iterdir()] == ["result"]


def test_folder_that_was_made_anew_meanwhile_is_told(tmp_path: pathlib.Path) -> None:
    def write(folder: pathlib.Path, removed: bool) -> None:
        with locks.only_writer(folder, "outdir", ignore):
            shutil.rmtree(folder)
            if not removed:
                folder.mkdir()

    message = programs.refusal(write, tmp_path / "out", False)
    assert "was removed and made anew while this run wrote to it" in message
    write(tmp_path / "work", True)


def test_lock_of_another_run_in_a_folder_made_anew_stays(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "out"
    with contextlib.ExitStack() as other:

        def write() -> None:
            with locks.only_writer(folder, "outdir", ignore):
                shutil.rmtree(folder)
                other.enter_context(locks.only_writer(folder, "outdir", ignore))

        assert "was removed and made anew" in programs.refusal(write)
        assert "another run" in programs.refusal(enter, folder)


def test_same_process_is_refused_too_and_its_lock_outlives_the_refusal(
    tmp_path: pathlib.Path,
) -> None:
    with locks.only_writer(tmp_path, "outdir", ignore):
        for _ in range(2):
            assert "another run" in programs.refusal(enter, tmp_path)
    enter(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_without_locks_is_noted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    told: list[str] = []
    enter(tmp_path, told.append)
    assert "has no locks" in told[0]
    assert not any(tmp_path.iterdir())


def test_link_in_place_of_the_lock_is_not_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "precious").write_text("words")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / locks.NAME).symlink_to(tmp_path / "precious")
    assert "cannot write" in programs.refusal(enter, tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "words"


def test_lock_of_a_file_that_was_removed_meanwhile_is_taken_anew(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = files.fcntl.flock

    def end_first(handle: int, flags: int) -> None:
        # The writer before ends between our opening and our locking.
        if not calls:
            (tmp_path / locks.NAME).unlink()
        calls.append(handle)
        real(handle, flags)

    monkeypatch.setattr(files.fcntl, "flock", end_first)
    with locks.only_writer(tmp_path, "outdir", ignore):
        assert len(calls) == 2
        monkeypatch.setattr(files.fcntl, "flock", real)
        assert "another run" in programs.refusal(enter, tmp_path)
