"""The storage of the page: files go when they are old, and new ones must fit."""

import os
import pathlib
import time

import pytest

from styleclip_jax.app import storage
from styleclip_jax.app.storage import Storage
from styleclip_jax.errors import UserError


def write(path: pathlib.Path, size: int, age: float = 0) -> pathlib.Path:
    """Writes a file that is so many seconds old, in a folder of its own age."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    then = time.time() - age
    os.utime(path, (then, then))
    os.utime(path.parent, (then, then))
    return path


def test_old_files_are_removed_and_their_folders_later(tmp_path: pathlib.Path) -> None:
    kept = Storage(tmp_path, 2**30)
    old = write(tmp_path / "a" / "old.png", 5, age=storage.KEPT + 9)
    new = write(tmp_path / "b" / "new.png", 5)
    kept.tidy()
    assert not old.exists()
    assert new.exists()
    os.utime(old.parent, (0, 0))
    kept.tidy()
    assert not old.parent.exists()
    assert tmp_path.exists()


def test_links_are_removed_and_not_followed(tmp_path: pathlib.Path) -> None:
    other = write(tmp_path / "other" / "mine.txt", 5, age=10**6)
    (tmp_path / "page").mkdir()
    link = tmp_path / "page" / "link"
    link.symlink_to(other.parent)
    Storage(tmp_path / "page", 2**30).tidy(-9)
    assert other.exists()


def test_room_is_made_of_files_that_are_not_new(tmp_path: pathlib.Path) -> None:
    kept = Storage(tmp_path, 100)
    assert kept.has_room(100)
    new = write(tmp_path / "a" / "new.png", 40)
    older = write(tmp_path / "b" / "older.png", 40, age=storage.KEPT_IF_FULL + 9)
    assert kept.has_room(20)
    assert older.exists()
    assert kept.has_room(60)
    assert not older.exists()
    assert not kept.has_room(61)
    with pytest.raises(UserError, match="disk of this page is full: try again"):
        kept.check(61)
    assert new.exists()


def test_a_full_disk_has_no_room(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Storage(tmp_path, 2**40)
    assert kept.has_room(1)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert not kept.has_room(free)
