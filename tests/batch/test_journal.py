"""Journal of a run: what was written survives kills, full disks, vanished folders."""

import errno
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from styleclip_jax.batch import result_lines
from styleclip_jax.batch.journal import Journal
from styleclip_jax.io import files
from tests import programs
from tests.batch import fakes


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert fakes.stream_into(folder)[0]
    found = programs.hashes(folder)
    assert len(found) == 2 * fakes.COUNT + 3
    return found


def kill_at(
    position: int, outdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs until so many files were made durable; then nothing works any more."""

    def kill(call: int) -> None:
        if call >= position:
            raise fakes.Killed

    with monkeypatch.context() as patch:
        fakes.count_calls(patch, kill)
        with pytest.raises(fakes.Killed):
            fakes.stream_into(outdir)


# The last four are the files that the parts become, and their folder.
@pytest.mark.parametrize("position", [2, 9, 24, 39, 54, 69, 94, -4, -2, -1])
def test_run_killed_at_any_moment_ends_as_an_undisturbed_one(
    expected: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    position: int,
) -> None:
    # Two images, their folder, latents and lines, for each batch and variant.
    total = 2 * fakes.COUNT + 3 * 2 * -(-fakes.COUNT // fakes.SIZE) + 4
    kill_at(position % total, tmp_path / "killed", monkeypatch)
    # A signal would leave a line that has no end, and files under temporary names.
    for name in (
        "metrics.part0.jsonl",
        ".latents.part0",
        "images/.000007-0123abcd.jpg",
    ):
        if (tmp_path / "killed" / "images").is_dir() and not (
            tmp_path / "killed/metrics.jsonl"
        ).exists():
            with (tmp_path / "killed" / name).open("ab") as file:
                file.write(b'{"index": 3, "ro')
    complete, failures = fakes.stream_into(tmp_path / "killed", devices=2)
    assert complete
    assert not failures.count
    assert programs.hashes(tmp_path / "killed") == expected


def test_nothing_is_done_twice_but_the_batches_under_way(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(60, tmp_path / "out", monkeypatch)
    done = Journal(tmp_path / "out", 2 * fakes.COUNT, fakes.KEPT).done
    assert 8 <= done.sum() < 2 * fakes.COUNT
    written: list[str] = []
    write = files.write_several

    def remember(contents: dict[pathlib.Path, bytes]) -> dict[pathlib.Path, Any]:
        written.extend(path.stem for path in contents)
        return write(contents)

    monkeypatch.setattr(files, "write_several", remember)
    assert fakes.stream_into(tmp_path / "out")[0]
    assert sorted(map(int, written)) == np.flatnonzero(~done).tolist()


def test_full_disk_costs_what_could_not_be_written(
    expected: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fakes.count_calls(patch, fakes.fill_disk(range(30, 50)))
        complete, failures = fakes.stream_into(tmp_path / "full")
    assert not complete
    assert 1 <= failures.count <= 20
    assert "No space left on device" in failures.first[0]
    journal = Journal(tmp_path / "full", 2 * fakes.COUNT, fakes.KEPT)
    assert journal.done.sum() == 2 * fakes.COUNT - failures.count
    assert not (tmp_path / "full" / "edited.npy").exists()
    # Once there is space again.
    assert fakes.stream_into(tmp_path / "full")[0]
    assert programs.hashes(tmp_path / "full") == expected


def test_vanished_folder_is_reported_for_every_result(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    fakes.count_calls(monkeypatch, fakes.move_away(folder))
    complete, failures = fakes.stream_into(folder)
    assert not complete
    assert failures.count >= fakes.COUNT
    assert len(failures.first) <= 10
    assert not folder.exists()


def test_broken_latent_is_reported_and_the_rest_is_done(tmp_path: pathlib.Path) -> None:
    assert fakes.stream_into(tmp_path / "out", latents=fakes.source(broken=5))[0]
    opened = Journal(tmp_path / "out", 2 * fakes.COUNT, fakes.KEPT)
    assert [x["row"] for x in opened.lines() if "failed_at" in x] == [5, 5]
    assert "edit 10 of row 5" in result_lines.describe_failures(opened, "edit")[0]


DAMAGES = {
    "beyond": lambda text, _: text.replace(b'"index": 2,', b'"index": 9999,'),
    "negative": lambda text, _: text.replace(b'"index": 2,', b'"index": -1,'),
    "other edit": lambda text, _: text.replace(b'"index": 2,', b'"index": 5,'),
    "not text": lambda text, _: text.replace(b'"index": 2,', b'"ind\xff\x00x": 2,'),
    "no object": lambda text, _: b"[]\n" + text,
    "zeros": lambda text, _: text[:200] + bytes(300) + text[500:],
    "lost line": lambda text, lines: b"".join([lines[0], *lines[2:]]),
    "twice": lambda text, lines: b"".join([lines[0], *lines]),
    "empty line": lambda text, _: b"\n" + text,
    "cut": lambda text, _: text[:-30],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_the_journal_is_told_and_made_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    fakes.stream_into(tmp_path / "whole")
    kill_at(60, tmp_path / "out", monkeypatch)
    path = tmp_path / "out" / "metrics.part0.jsonl"
    text = path.read_bytes()
    assert b'"index": 2,' in text
    path.write_bytes(DAMAGES[damage](text, text.splitlines(keepends=True)))
    journal = fakes.open_journal(tmp_path / "out")
    told = [x for x in journal.notes if x.startswith(f"note: {path} is damaged from")]
    assert len(told) == (damage != "cut")
    complete, failures = fakes.stream_into(tmp_path / "out", devices=2)
    assert complete
    assert not failures.count
    assert programs.hashes(tmp_path / "out") == programs.hashes(tmp_path / "whole")


def test_latents_that_changed_are_made_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.stream_into(tmp_path / "whole")
    kill_at(60, tmp_path / "out", monkeypatch)
    path = tmp_path / "out" / ".latents.part0"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    assert not fakes.open_journal(tmp_path / "out").done.any()
    path.unlink()
    assert not fakes.open_journal(tmp_path / "out").done.any()
    assert fakes.stream_into(tmp_path / "out")[0]
    assert programs.hashes(tmp_path / "out") == programs.hashes(tmp_path / "whole")


def test_images_that_are_missing_or_empty_are_made_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.stream_into(tmp_path / "whole")
    kill_at(60, tmp_path / "out", monkeypatch)
    before = fakes.open_journal(tmp_path / "out").done
    assert before[[1, 3]].all()
    (tmp_path / "out" / "images" / "000001.jpg").unlink()
    (tmp_path / "out" / "images" / "000003.jpg").write_bytes(b"")
    journal = fakes.open_journal(tmp_path / "out")
    assert np.flatnonzero(before & ~journal.done).tolist() == [1, 3]
    assert "lacks 2 images" in journal.notes[-1]
    assert fakes.stream_into(tmp_path / "out")[0]
    assert programs.hashes(tmp_path / "out") == programs.hashes(tmp_path / "whole")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("finished")
    assert fakes.stream_into(folder)[0]
    return folder


def replace_line(number: int, line: bytes) -> Any:
    """Damage that puts another line in the place of one."""

    def damage(folder: pathlib.Path) -> None:
        path = folder / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:number], line, *lines[number + 1 :]]))

    return damage


def cut(name: str, length: int) -> Any:
    return lambda folder: os.truncate(folder / name, length)


FINISHED_DAMAGES = {
    "cut line": (cut("metrics.jsonl", 700), "metrics.jsonl is damaged"),
    "empty": (cut("metrics.jsonl", 0), "0 of 42 lines are whole"),
    "zeros": (replace_line(3, bytes(80) + b"\n"), "41 of 42 lines are whole"),
    "not text": (replace_line(3, b'{"ind\xff": 3}\n'), "41 of 42 lines are whole"),
    "no object": (replace_line(3, b"[]\n"), "41 of 42 lines are whole"),
    "lost": (replace_line(3, b""), "41 of 42 lines are whole"),
    "negative": (replace_line(3, b'{"index": -1, "row": 1}\n'), "41 of 42 lines"),
    "beyond": (replace_line(3, b'{"index": 9999, "row": 1}\n'), "41 of 42 lines"),
    "twice": (replace_line(3, b'{"index": 2, "row": 1}\n'), "40 of 42 lines"),
    "surplus": (replace_line(42, b"{}\n"), "42 of 42 lines are whole"),
    "latents": (cut("edited.npy", 999), "edited.npy: not a readable .npy"),
    "no latents": (
        lambda folder: (folder / "original.npy").unlink(),
        "original.npy: expected a file of latents",
    ),
    "other latents": (
        lambda folder: np.save(folder / "edited.npy", np.zeros((7, 4, 12))),
        "expected float32 of shape [42, 4, 12], found float64 of [7, 4, 12]",
    ),
    "no image": (
        lambda folder: (folder / "images/000007.jpg").unlink(),
        "images lacks 1 images of results that were done",
    ),
    "empty image": (cut("images/000007.jpg", 0), "images lacks 1 images"),
    "no images": (
        lambda folder: shutil.rmtree(folder / "images"),
        "images lacks 42 images",
    ),
}


@pytest.mark.parametrize("name", FINISHED_DAMAGES)
def test_damage_of_a_finished_run_is_told_and_made_again(
    finished: pathlib.Path, tmp_path: pathlib.Path, name: str
) -> None:
    damage, told = FINISHED_DAMAGES[name]
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    damage(folder)
    journal = fakes.open_journal(folder)
    assert told in "\n".join(journal.notes)
    assert not journal.finished
    # A kill at this moment loses nothing.
    assert fakes.stream_into(folder, devices=2)[0]
    assert programs.hashes(folder) == programs.hashes(finished)


def test_finished_run_without_damage_is_left_alone(finished: pathlib.Path) -> None:
    before = {x: x.stat().st_mtime_ns for x in finished.rglob("*") if x.is_file()}
    journal = fakes.open_journal(finished)
    assert journal.finished
    assert journal.done.all()
    assert not journal.notes
    assert {x: x.stat().st_mtime_ns for x in before} == before


def test_whole_results_of_a_damaged_finished_run_are_not_made_again(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    replace_line(3, b"\n")(folder)
    (folder / "images/000007.jpg").unlink()
    assert np.flatnonzero(~fakes.open_journal(folder).done).tolist() == [3, 7]


# Parts of metrics that a stranger wrote, with the index of their third line.
@pytest.mark.parametrize("third", [b"-1", b"9999", b"2\xff", b"2"])
def test_lines_without_latents_count_for_nothing(
    finished: pathlib.Path, tmp_path: pathlib.Path, third: bytes
) -> None:
    indices = enumerate([b"0", b"1", third, b"3", b"4", b"5"])
    lines = [b'{"index": %b, "seed": %d}\n' % (x, seed) for seed, x in indices]
    (tmp_path / "metrics.part0.jsonl").write_bytes(b"".join(lines))
    journal = fakes.open_journal(tmp_path)
    assert not journal.done.any()
    assert "is damaged from line 1 on" in journal.notes[0]
    assert fakes.stream_into(tmp_path)[0]
    assert programs.hashes(tmp_path) == programs.hashes(finished)


def test_disk_that_cannot_sync_folders_is_written_to(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse_folders(handle: int) -> None:
        if pathlib.Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    assert fakes.stream_into(tmp_path)[0]
    assert programs.hashes(tmp_path) == programs.hashes(finished)
