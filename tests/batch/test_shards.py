"""Shards of a run: what tarfile writes, whoever made them and whatever went wrong."""

import io
import json
import os
import pathlib
import shutil
import tarfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from styleclip_jax import parallel
from styleclip_jax.batch import runs, shards, stream
from styleclip_jax.io import tars
from tests import programs
from tests.batch import fakes

# Every call that changes a disk for good.
DISK = ("fsync", "replace", "unlink")
COUNT = 2 * fakes.COUNT
TASK = fakes.task(image_format="tar")


@pytest.fixture(autouse=True)
def size(monkeypatch: pytest.MonkeyPatch) -> int:
    """Shards of five results, and one of two."""
    monkeypatch.setattr(shards, "SIZE", 5)
    return 5


@pytest.fixture
def expected(tmp_path: pathlib.Path) -> dict[str, str]:
    """Files of an undisturbed run."""
    folder = tmp_path / "undisturbed"
    assert fakes.stream_into(folder, work=TASK)[0]
    found = programs.hashes(folder)
    assert len(found) == 9 + 3
    return found


# With two results per latent they come in another order than they stand in.
@pytest.mark.parametrize("variants", [1, 2])
@pytest.mark.parametrize(
    ("image_format", "suffix"), [("tar", "png"), ("tar-jpg", "jpg")]
)
def test_shards_are_what_tarfile_writes_of_the_single_files(
    tmp_path: pathlib.Path, variants: int, image_format: str, suffix: str, size: int
) -> None:
    for kind in (image_format, suffix):
        work = fakes.task(variants, kind)
        assert fakes.stream_into(tmp_path / kind, work=work)[0]
    lines = (tmp_path / image_format / "metrics.jsonl").read_bytes().splitlines()
    assert lines == (tmp_path / suffix / "metrics.jsonl").read_bytes().splitlines()
    found = sorted((tmp_path / image_format / "images").iterdir())
    assert [path.name for path in found] == [
        f"{i:06d}.tar" for i in range(-(-len(lines) // size))
    ]
    for number, path in enumerate(found):
        content = io.BytesIO()
        with tarfile.open(
            fileobj=content, mode="w", format=tarfile.USTAR_FORMAT
        ) as tar:
            for index in range(len(lines))[number * size : (number + 1) * size]:
                picture = f"{index:06d}.{suffix}"
                for name, part in {
                    picture: (tmp_path / suffix / "images" / picture).read_bytes(),
                    f"{index:06d}.json": lines[index],
                }.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(part)
                    tar.addfile(info, io.BytesIO(part))
        assert path.read_bytes() == content.getvalue()


def test_pictures_and_lines_of_a_key_are_read_back(tmp_path: pathlib.Path) -> None:
    fakes.stream_into(tmp_path / "out", work=TASK)
    keys = []
    for path in sorted((tmp_path / "out/images").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for picture, line in zip(members[::2], members[1::2], strict=True):
                key, suffix = picture.name.split(".")
                assert (suffix, line.name) == ("png", f"{key}.json")
                assert json.load(tar.extractfile(line))["index"] == int(key)
                assert Image.open(tar.extractfile(picture)).size == (8, 8)
                assert not picture.mtime + picture.uid + picture.gid
                keys.append(int(key))
    assert keys == list(range(COUNT))


def test_run_killed_at_any_moment_ends_as_an_undisturbed_one(
    expected: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    with monkeypatch.context() as patch:
        fakes.count_calls(patch, calls.append, DISK)
        fakes.stream_into(tmp_path / "counted", work=TASK)
    for position in range(2, len(calls), 9):

        def kill(call: int, position: int = position) -> None:
            if call >= position:
                raise fakes.Killed

        folder = tmp_path / f"killed{position}"
        with monkeypatch.context() as patch:
            fakes.count_calls(patch, kill, DISK)
            with pytest.raises(fakes.Killed):
                fakes.stream_into(folder, work=TASK)
        # A signal would leave half of a picture, and files under temporary names.
        for part in [
            *folder.glob("images/.*.part0"),
            folder / "images/.000002-0123abcd.tar",
        ]:
            if not (folder / "metrics.jsonl").exists():
                with part.open("ab") as file:
                    file.write(b"000003.png\0half of a header")
        complete, failures = fakes.stream_into(folder, devices=2, work=TASK)
        assert complete, position
        assert not failures.count
        assert programs.hashes(folder) == expected, position


def test_kill_costs_the_batches_under_way_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(call: int) -> None:
        if call >= 60:
            raise fakes.Killed

    work, folder = fakes.task(1, "tar"), tmp_path / "out"
    with monkeypatch.context() as patch:
        fakes.count_calls(patch, kill, DISK)
        with pytest.raises(fakes.Killed):
            fakes.stream_into(folder, work=work)
    done = fakes.open_journal(folder, work).done
    assert 8 <= done.sum() < fakes.COUNT
    # What was appended and is not done is cut off, so that a shard needs no copy.
    with monkeypatch.context() as patch:
        patch.delattr(shards, "_copy_in_order")
        assert fakes.stream_into(folder, work=work)[0]


def test_processes_make_the_shards_of_one(
    expected: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mesh = tmp_path / "shared", parallel.make_mesh()
    folder.mkdir()
    monkeypatch.setattr("jax.process_count", lambda: 3)
    for index in (2, 1, 0):
        monkeypatch.setattr("jax.process_index", lambda index=index: index)
        journal = fakes.open_journal(folder, TASK, index)
        arguments = (fakes.source(), journal, fakes.SIZE, mesh, lambda count: None)
        assert not stream.run(TASK, *arguments).count
    # Those that two have a share in wait for the end.
    assert len(list(folder.glob("images/*.tar"))) == 9 - 2
    assert len(list(folder.glob("images/.*.part*"))) == 2 * 2
    assert journal.finish()
    assert programs.hashes(folder) == expected


def test_full_disk_costs_what_could_not_be_written(
    expected: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fakes.count_calls(patch, fakes.fill_disk(range(30, 60)))
        complete, failures = fakes.stream_into(tmp_path / "full", work=TASK)
    assert not complete
    assert failures.count
    assert "No space left on device" in failures.first[0]
    assert "\n" not in failures.first[0]
    assert 0 < fakes.open_journal(tmp_path / "full", TASK).done.sum() < COUNT
    # Once there is space again.
    assert fakes.stream_into(tmp_path / "full", work=TASK)[0]
    assert programs.hashes(tmp_path / "full") == expected


def test_vanished_folder_is_reported_for_every_result(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    fakes.count_calls(monkeypatch, fakes.move_away(folder))
    complete, failures = fakes.stream_into(folder, work=TASK)
    assert not complete
    assert failures.count >= fakes.COUNT
    assert all("cannot write" in line for line in failures.first)
    assert not folder.exists()


def test_shard_that_is_gone_is_made_again(
    expected: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(stream, "finish", lambda journal: False)
        fakes.stream_into(folder, work=TASK)
    (folder / "images/000003.tar").unlink()
    done = fakes.open_journal(folder, TASK).done
    assert np.flatnonzero(~done).tolist() == [15, 16, 17, 18, 19]
    assert fakes.stream_into(folder, work=TASK)[0]
    assert programs.hashes(folder) == expected


def overwrite(start: int, content: bytes) -> Any:
    """Damage of a shard from a byte on."""

    def damage(path: pathlib.Path) -> None:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(content)

    return damage


# The picture of the first result begins at byte 512 and is shorter than a block.
SHARD_DAMAGES = {
    "picture": overwrite(560, bytes(4)),
    "header": overwrite(2048, bytes(512)),
    "line": overwrite(1536, b'{"index": 7'),
    "foreign": overwrite(0, tars.member("photo.png", b"x")),
    "cut": lambda path: os.truncate(path, 5000),
    "no end": lambda path: os.truncate(path, path.stat().st_size - 512),
    "empty": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize("is_finished", [True, False])
def test_damage_within_a_shard_is_told_and_made_again(
    expected: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    is_finished: bool,
) -> None:
    with monkeypatch.context() as patch:
        if not is_finished:
            patch.setattr(stream, "finish", lambda journal: False)
        fakes.stream_into(tmp_path / "whole", work=TASK)
    for name, damage in SHARD_DAMAGES.items():
        folder = tmp_path / name
        shutil.copytree(tmp_path / "whole", folder)
        path = folder / "images/000002.tar"
        damage(path)
        journal = fakes.open_journal(folder, TASK)
        told = f"note: {path} is damaged and made again from there on"
        assert journal.notes[0] == told, name
        assert (~journal.done).sum() <= 5, name
        assert fakes.stream_into(folder, work=TASK)[0], name
        assert programs.hashes(folder) == expected, name


def test_unknown_format_is_refused() -> None:
    message = programs.refusal(runs.Output, images="tar.gz")
    assert message == (
        "images: expected png, jpg, npy, none, tar, tar-jpg, found 'tar.gz'"
    )
