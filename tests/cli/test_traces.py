"""Store of traced programs: files beside the compiled programs."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from styleclip_jax.cli import traces
from tests import programs


def test_damaged_files_are_none(tmp_path: pathlib.Path) -> None:
    store = traces.Folder(tmp_path / "folder")
    assert store.read("a") is None
    store.write("a", b"content")
    assert store.read("a") == b"content"
    path = tmp_path / "folder" / "a"
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:-1],
        whole + b"x",
        whole.replace(b"content", b"c0ntent"),
    ):
        path.write_bytes(damaged)
        assert store.read("a") is None
    store.write("a", b"content")
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    store = traces.Folder(tmp_path / "file" / "traced")
    store.write("a", b"content")
    assert store.read("a") is None


def test_stores_are_beside_compiled_programs_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert traces.folder() is None
    monkeypatch.delenv(traces.SWITCH)
    assert traces.folder() is not None
    before = jax.config.jax_compilation_cache_dir
    try:
        for folder in (None, "gs://bucket/cache"):
            jax.config.update("jax_compilation_cache_dir", folder)
            assert traces.folder() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_second_run_reads_what_the_first_kept(
    models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    cache, found = tmp_path / "cache", []
    for run, switch in enumerate("011"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "styleclip_jax.cli.edit"),
                *(f"--{name}={value}" for name, value in models.items()),
                *("--prompt=cat", "--steps=2", "--seeds=0", "--grid=0"),
                f"--outdir={tmp_path / str(run)}",
                f"--compilation_cache={cache}",
            ],
            env=dict(os.environ) | {traces.SWITCH: switch},
            cwd=programs.REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        kept = {x.name: x.stat().st_mtime_ns for x in cache.glob("traced/*")}
        found.append((kept, programs.hashes(tmp_path / str(run))))
    assert not found[0][0]
    # The parts of the optimization, latents of seeds and features of texts; and shapes.
    assert len(found[1][0]) >= 5
    assert found[1][0] == found[2][0]
    times = {"metrics.jsonl"}
    images = [{k: x for k, x in kept.items() if k not in times} for _, kept in found]
    assert images[0] == images[1] == images[2]
