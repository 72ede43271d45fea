"""Journal of a run: what was written survives kills, full disks, vanished folders."""

import pathlib
from typing import Any

import numpy as np
import pytest

from styleclip_jax.batch import journal
from styleclip_jax.batch.journal import Journal
from styleclip_jax.io import images
from tests import programs, tiny
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
    done = Journal(tmp_path / "out", 2 * fakes.COUNT, "w_plus", tiny.GENERATOR).done
    assert 8 <= done.sum() < 2 * fakes.COUNT
    written: list[str] = []
    write = images.write

    def remember(path: pathlib.Path, *arguments: Any, **options: Any) -> None:
        written.append(path.stem)
        write(path, *arguments, **options)

    monkeypatch.setattr(images, "write", remember)
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
    journal = Journal(tmp_path / "full", 2 * fakes.COUNT, "w_plus", tiny.GENERATOR)
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
    opened = Journal(tmp_path / "out", 2 * fakes.COUNT, "w_plus", tiny.GENERATOR)
    assert [x["row"] for x in opened.lines() if "failed_at" in x] == [5, 5]
    assert "edit 10 of row 5" in journal.describe_failures(opened, "edit")[0]


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
