"""Writing of files: whole or not at all, on whatever disk, and who may read them."""

import contextlib
import errno
import os
import pathlib
import resource
import shutil
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from tests import programs


def test_append_makes_no_file_and_cuts_off_what_follows(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        files.append(tmp_path / "absent", 0, b"x")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_bytes(b"0123456789")
    files.append(tmp_path / "file", 4, b"ab")
    assert (tmp_path / "file").read_bytes() == b"0123ab"


def test_new_file_is_readable_by_whom_others_are(tmp_path: pathlib.Path) -> None:
    path, ordinary = tmp_path / "x.safetensors", tmp_path / "ordinary"
    with files.new_file(path) as temporary:
        # It puts a file of its own there, which only the owner can read.
        safetensors.numpy.save_file({"x": np.zeros(1)}, temporary)
    ordinary.write_bytes(b"")
    assert path.stat().st_mode == ordinary.stat().st_mode


def fail_with(code: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_disk_that_cannot_sync_or_set_modes_is_written_to(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(code))
    monkeypatch.setattr(os, "chmod", fail_with(errno.EPERM))
    files.write_json(tmp_path / "new.json", 1)
    files.write_bytes(tmp_path / "bytes", b"0")
    files.append(tmp_path / "bytes", 1, b"1")
    with files.new_directory(tmp_path / "folder") as temporary:
        (temporary / "x").touch()
    assert not files.sync_folder(tmp_path)
    names = ["bytes", "folder", "new.json"]
    assert sorted(x.name for x in tmp_path.iterdir()) == names


def test_disk_that_fails_to_sync_counts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
    with pytest.raises(UserError, match="cannot write"):
        files.write_bytes(tmp_path / "bytes", b"0")
    assert not any(tmp_path.iterdir())


def test_files_are_whole_where_the_system_takes_parts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is nearly full takes a part, and refuses the next one."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, rest: write(handle, rest[:3]))
    files.write_bytes(tmp_path / "one", b"0123456789")
    assert files.write_several({tmp_path / "two": b"0123456789"}) == {}
    for name in ("one", "two"):
        assert (tmp_path / name).read_bytes() == b"0123456789"


def test_of_several_files_those_that_cannot_be_written_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_bytes(b"before")
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    names = ("old", "absent/x", "taken", "new")
    contents = {tmp_path / name: name.encode() for name in names}
    order: list[str] = []
    for name in ("write", "fsync", "replace"):
        function = getattr(os, name)

        def noted(*arguments: Any, name: str = name, function: Any = function) -> Any:
            order.append(name)
            return function(*arguments)

        monkeypatch.setattr(os, name, noted)
    failed = files.write_several(contents)
    assert sorted(failed) == [tmp_path / "absent/x", tmp_path / "taken"]
    assert all("cannot write" in str(error) for error in failed.values())
    # All have their content before the first is durable, and all are so before names.
    assert order == ["write"] * 3 + ["fsync"] * 3 + ["replace"] * 3
    # What could not get its name leaves nothing.
    assert sorted(x.name for x in tmp_path.iterdir()) == ["new", "old", "taken"]
    assert (tmp_path / "old").read_bytes() == b"old"
    assert (tmp_path / "new").read_bytes() == b"new"


def test_several_files_leave_nothing_when_they_are_killed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        files.write_several({tmp_path / name: b"x" for name in "ab"})
    assert not any(tmp_path.iterdir())


def test_safetensors_that_find_no_space_are_a_line(tmp_path: pathlib.Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(UserError) as caught,
            files.new_directory(tmp_path / "m") as m,
        ):
            safetensors.numpy.save_file({"x": np.zeros(999)}, m / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    reason = os.strerror(errno.EFBIG)
    assert str(caught.value) == f"{tmp_path / 'm'}: cannot write ({reason})"
    assert not any(tmp_path.iterdir())


def test_only_temporary_files_are_removed(tmp_path: pathlib.Path) -> None:
    inside, outside = tmp_path / "out" / "images", tmp_path / "elsewhere"
    for folder in (inside, outside, tmp_path / "out" / ".a-01234567"):
        folder.mkdir(parents=True)
    (tmp_path / "out" / "link").symlink_to(outside)
    kept = [tmp_path / "out" / x for x in (".my-notes", ".git-keep", "x-01234567.png")]
    kept += [outside / ".x-01234567.png", inside / "000000.png"]
    removed = [tmp_path / "out" / ".run-89abcdef.json", inside / ".000001-01234567.png"]
    removed += [inside / ".plain-01234567"]
    for path in (*kept, *removed):
        path.touch()
    (inside / ".x-fedcba98.png").symlink_to(kept[0])
    files.remove_unfinished(tmp_path / "out")
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in removed)
    assert (inside / ".x-fedcba98.png").is_symlink()
    assert (tmp_path / "out" / ".a-01234567").is_dir()


def test_folders_of_dead_makers_alone_are_removed(tmp_path: pathlib.Path) -> None:
    for name in (".m-01234567", ".m-notes", ".other-01234567"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    (tmp_path / ".m-89abcdef").symlink_to(tmp_path / ".other-01234567")
    with files.new_directory(tmp_path / "m") as alive:
        assert not (tmp_path / ".m-01234567").exists()
        with contextlib.suppress(ValueError), files.new_directory(tmp_path / "m"):
            assert alive.is_dir()
            raise ValueError("stopped")
        (alive / "y").touch()
    assert [x.name for x in (tmp_path / "m").iterdir()] == ["y"]
    found = sorted(x.name for x in tmp_path.iterdir())
    assert found == [".m-89abcdef", ".m-notes", ".other-01234567", "m"]
    assert (tmp_path / ".other-01234567" / "x").exists()


def test_folder_that_was_filled_meanwhile_stays(tmp_path: pathlib.Path) -> None:
    def fill() -> None:
        with files.new_directory(tmp_path / "m"):
            (tmp_path / "m").mkdir()
            (tmp_path / "m" / "theirs").touch()

    assert "cannot write" in programs.refusal(fill)
    assert [x.name for x in tmp_path.rglob("*")] == ["m", "theirs"]


def test_folder_that_vanishes_is_a_line(tmp_path: pathlib.Path) -> None:
    with (
        pytest.raises(UserError, match="cannot write"),
        files.new_directory(tmp_path / "a" / "m") as temporary,
    ):
        shutil.rmtree(temporary)


def test_files_of_dead_writers_alone_are_removed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "relevance.safetensors"
    dead = tmp_path / ".relevance-0123abcd.safetensors"
    kept = [
        tmp_path / name
        for name in (
            *(".relevance-notes.safetensors", ".relevance-0123abcd.txt"),
            *(".other-0123abcd.safetensors", "relevance-0123abcd.safetensors"),
        )
    ]
    (tmp_path / ".relevance-00000000.safetensors").mkdir()
    (tmp_path / ".relevance-11111111.safetensors").symlink_to(kept[0])
    os.mkfifo(tmp_path / ".relevance-22222222.safetensors")
    before = {dead, *kept}
    for each in before:
        each.touch()
    before = set(tmp_path.iterdir())
    with files.new_file(path) as alive:
        assert not dead.exists()
        files.write_bytes(path, b"other")
        assert alive.exists()
        alive.write_bytes(b"this")
    assert set(tmp_path.iterdir()) == before - {dead} | {path}
    assert path.read_bytes() == b"this"


def test_folder_is_durable_before_it_has_its_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.rename

    def note_sync(handle: int) -> None:
        done.append(("sync", pathlib.Path(f"/proc/self/fd/{handle}").resolve().name))
        sync(handle)

    def note_rename(source: Any, target: Any, **options: Any) -> None:
        done.append(("rename", pathlib.Path(target).name))
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", note_sync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, note_rename)
    with files.new_directory(tmp_path / "m") as temporary:
        (temporary / "part").mkdir()
        (temporary / "part" / "a").touch()
        (temporary / "b").touch()
    place = done.index(("rename", "m"))
    names = {"a", "b", "part", temporary.name}
    assert {name for kind, name in done[:place] if kind == "sync"} == names
    assert done[place + 1 :] == [("sync", tmp_path.name)]


def test_lacks_of_a_file_system_are_described(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not files.describe_lacks(tmp_path)
    monkeypatch.setattr(os, "fsync", fail_with(errno.EINVAL))
    monkeypatch.setattr(os, "chmod", fail_with(errno.EPERM))
    modes, folders = files.describe_lacks(tmp_path)
    assert "keeps no permissions" in modes
    assert "cannot sync folders" in folders


def test_error_inside_a_folder_names_it_as_people_know_it(
    tmp_path: pathlib.Path,
) -> None:
    def fail() -> None:
        with files.new_directory(tmp_path / "m") as temporary:
            raise UserError(f"{temporary / 'config.json'}: cannot write (why)")

    name = tmp_path / "m" / "config.json"
    assert programs.refusal(fail) == f"{name}: cannot write (why)"
