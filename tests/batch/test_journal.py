"""Journal of a run: kills, full disks and vanished folders cost nothing that was written."""

import errno
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import parallel
from styleclip_jax.batch import journal as batch_journal
from styleclip_jax.batch import source as batch_source
from styleclip_jax.batch import stream
from styleclip_jax.io import images
from tests import tiny

COUNT, SIZE = 21, 2


class Killed(BaseException):
    """Ends everything, as a signal does."""


def hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file, but for what names the devices."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


# The stream by itself, with a task that costs nothing.


def fake_task(variants: int = 2) -> stream.Task:
    @jax.jit
    def compute(latent: jax.Array, variant: jax.Array) -> stream.Outcome:
        mean = latent.mean(axis=(1, 2))
        image = jnp.tanh(mean)[:, None, None, None] * jnp.ones((8, 8, 3))
        failed_at = jnp.where(jnp.isfinite(mean), -1, 0)
        packed = {"original": latent, "edited": latent + variant}
        return stream.Outcome(image, packed, {"mean": mean}, failed_at)

    return stream.Task(
        variants=variants,
        prepare=lambda batch: batch,
        compute=lambda latent, rows, variant, report: compute(latent, variant),
        describe=lambda row, variant: {"row": row, "variant": variant},
        image_format="jpg",
        probe=lambda latent, rows: compute(latent, 0),
    )


def fake_source(broken: int | None = None) -> batch_source.Source:
    array = np.random.RandomState(0).randn(COUNT, 4, 12).astype(np.float32)
    if broken is not None:
        array[broken] = np.nan
    config = tiny.GENERATOR
    layout = config.style_layout
    return batch_source.Source("w_plus", range(COUNT), array, layout, config.z_dim)


def stream_into(
    outdir: pathlib.Path, devices: int = 1, source: batch_source.Source | None = None
) -> tuple[bool, stream.Failures]:
    outdir.mkdir(exist_ok=True)
    task, source = fake_task(), source or fake_source()
    count = len(source) * task.variants
    journal = batch_journal.Journal(outdir, count, "w_plus", tiny.GENERATOR)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    failures = stream.run(task, source, journal, SIZE, mesh, lambda count: None)
    return stream.finish(journal), failures


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert stream_into(folder)[0]
    found = hashes(folder)
    assert len(found) == 2 * COUNT + 3
    return found


def count_calls(monkeypatch: pytest.MonkeyPatch, fail: Callable[[int], None]) -> None:
    """Calls `fail` with the number of each fsync before it happens."""
    fsync, calls = os.fsync, iter(range(10**9))

    def counted(handle: int) -> None:
        fail(next(calls))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", counted)


def kill_at(
    position: int, outdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs until so many files were made durable; then nothing works any more."""

    def kill(call: int) -> None:
        if call >= position:
            raise Killed

    with monkeypatch.context() as patch:
        count_calls(patch, kill)
        with pytest.raises(Killed):
            stream_into(outdir)


# The last four are the files that the parts become, and their folder.
@pytest.mark.parametrize("position", [2, 9, 24, 39, 54, 69, 94, -4, -2, -1])
def test_run_killed_at_any_moment_ends_as_an_undisturbed_one(
    expected: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    position: int,
) -> None:
    # Two images, their folder, latents and lines, for each batch and variant.
    total = 2 * COUNT + 3 * 2 * -(-COUNT // SIZE) + 4
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
    complete, failures = stream_into(tmp_path / "killed", devices=2)
    assert complete
    assert not failures.count
    assert hashes(tmp_path / "killed") == expected


def test_nothing_is_done_twice_but_the_batches_under_way(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(60, tmp_path / "out", monkeypatch)
    done = batch_journal.Journal(
        tmp_path / "out", 2 * COUNT, "w_plus", tiny.GENERATOR
    ).done
    assert 8 <= done.sum() < 2 * COUNT
    written: list[str] = []
    write = images.write

    def remember(path: pathlib.Path, *arguments: Any, **options: Any) -> None:
        written.append(path.stem)
        write(path, *arguments, **options)

    monkeypatch.setattr(images, "write", remember)
    assert stream_into(tmp_path / "out")[0]
    assert sorted(map(int, written)) == np.flatnonzero(~done).tolist()


def test_full_disk_costs_what_could_not_be_written(
    expected: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(call: int) -> None:
        if 30 <= call < 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        count_calls(patch, fail)
        complete, failures = stream_into(tmp_path / "full")
    assert not complete
    assert 1 <= failures.count <= 20
    assert "No space left on device" in failures.first[0]
    journal = batch_journal.Journal(
        tmp_path / "full", 2 * COUNT, "w_plus", tiny.GENERATOR
    )
    assert journal.done.sum() == 2 * COUNT - failures.count
    assert not (tmp_path / "full" / "edited.npy").exists()
    # Once there is space again.
    assert stream_into(tmp_path / "full")[0]
    assert hashes(tmp_path / "full") == expected


def test_vanished_folder_is_reported_for_every_result(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"

    def vanish(call: int) -> None:
        if call == 30:
            folder.rename(tmp_path / "elsewhere")

    count_calls(monkeypatch, vanish)
    complete, failures = stream_into(folder)
    assert not complete
    assert failures.count >= COUNT
    assert len(failures.first) <= 10
    assert not folder.exists()


def test_broken_latent_is_reported_and_the_rest_is_done(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream_into(tmp_path / "out", source=fake_source(broken=5))[0]
    journal = batch_journal.Journal(
        tmp_path / "out", 2 * COUNT, "w_plus", tiny.GENERATOR
    )
    assert [x["row"] for x in journal.lines() if "failed_at" in x] == [5, 5]
    assert batch_journal.report_failures(journal, "edit", shown=True) == 1
    assert "edit 10 of row 5" in capsys.readouterr().out
