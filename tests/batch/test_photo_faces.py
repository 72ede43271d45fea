"""Faces of many photos: found once, whatever is killed, and read by the batch."""

import pathlib
import time
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from styleclip_jax.batch import photo_faces
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align, crops
from styleclip_jax.photos.finding import Finder
from styleclip_jax.progress import SILENT
from tests import processes
from tests.batch import fakes

COUNT = 40
SQUARES = (
    [[2.0, 2.0], [2.0, 10.0], [10.0, 10.0], [10.0, 2.0]],
    [[5.0, 5.0], [5.0, 13.0], [13.0, 13.0], [13.0, 5.0]],
)


def save(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """Square photos, of which every seventh is none."""
    paths = []
    for i in range(count):
        values = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        paths.append(folder / f"{i}.png")
        Image.fromarray(values).save(paths[-1])
        if i % 7 == 3:
            paths[-1].write_bytes(b"\x89PNG")
    return paths


def find(outdir: pathlib.Path, paths: list[pathlib.Path]) -> dict[str, list]:
    with photo_faces.readers() as readers:
        finder = Finder(is_aligned=True)
        return photo_faces.find(outdir, paths, finder, readers, SILENT)


def opened(
    faces: list[dict], size: int, readers: object, *, is_aligned: bool = True
) -> photo_faces.FaceSource:
    return photo_faces.FaceSource(
        faces,
        resolution=size,
        encoded_size=None,
        is_aligned=is_aligned,
        readers=readers,
    )


def test_a_process_that_comes_late_forgets_no_other(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, outdir = save(tmp_path, 9), tmp_path / "out"
    outdir.mkdir()
    opening = photo_faces.Journal

    def late(*arguments: Any) -> Any:
        until = time.monotonic() + 0.5
        while jax.process_index() == 2 and time.monotonic() < until:
            if (outdir / ".found/.ended1").exists():
                break
        return opening(*arguments)

    monkeypatch.setattr(photo_faces, "Journal", late)
    records = processes.run(monkeypatch, 3, lambda index: find(outdir, paths))
    assert [len(x["faces"]) for x in records] == [8] * 3
    assert [x.name for x in outdir.iterdir()] == ["aligned.json"]


def test_finding_goes_on_in_the_order_of_the_photos(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, seen = save(tmp_path, COUNT), []
    outdir = tmp_path / "out"
    outdir.mkdir()
    look = Finder.find

    def die_at(self: Finder, path: pathlib.Path, tell: object) -> list[dict]:
        if path == paths[30]:
            raise fakes.Killed
        return look(self, path)

    def watch(self: Finder, path: pathlib.Path, tell: object) -> list[dict]:
        seen.append(path)
        return look(self, path)

    monkeypatch.setattr(Finder, "find", die_at)
    with pytest.raises(fakes.Killed):
        find(outdir, paths)
    kept = (outdir / ".found/metrics.part0.jsonl").read_bytes().count(b"\n")
    assert kept == 16
    monkeypatch.setattr(Finder, "find", watch)
    for number in (COUNT - kept, 0):
        found = find(outdir, paths)
        assert len(seen) == number
        seen.clear()
    expected = [str(x) for i, x in enumerate(paths) if i % 7 != 3]
    assert [face["file"] for face in found["faces"]] == expected
    skipped = [line.split(": ")[0] for line in found["skipped"]]
    assert skipped == list(map(str, paths[3::7]))
    assert [x.name for x in outdir.iterdir()] == ["aligned.json"]


def test_a_run_without_faces_leaves_nothing(tmp_path: pathlib.Path) -> None:
    outdir = tmp_path / "out"
    outdir.mkdir()
    (outdir / files.RECORD).touch()
    with pytest.raises(UserError, match="expected faces, found none in 1 photos"):
        find(outdir, [tmp_path / "gone.png"])
    assert not list(outdir.iterdir())


def test_a_photo_of_several_faces_is_read_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, quads = save(tmp_path, 2), [np.array(x) for x in SQUARES]
    faces = [{"file": str(p), "quad": q.tolist()} for p in paths for q in quads]
    reads, read = [], crops.read
    monkeypatch.setattr(crops, "read", lambda face: reads.append(1) or read(face))
    with photo_faces.readers() as readers:
        source = opened(faces, 8, readers, is_aligned=False)
        # Rows of padding are those of others.
        found = source.load(np.array([0, 1, 2, 3, 3, 3]))
    assert len(reads) == len(paths)
    expected = [
        align.crop(np.asarray(Image.open(path)), quad, 8)
        for path in paths
        for quad in quads
    ]
    expected += expected[-1:] * 2
    np.testing.assert_array_equal(found.target, pixels.to_float(np.stack(expected)))


def test_a_photo_that_is_gone_fails_alone(tmp_path: pathlib.Path) -> None:
    paths = save(tmp_path, 3)
    with photo_faces.readers() as readers:
        faces = find(tmp_path, paths)["faces"]
        paths[1].unlink()
        source = opened(faces, 8, readers)
        found = source.load(np.arange(3)).target
    assert np.isnan(found).all((1, 2, 3)).tolist() == [False, True, False]
    assert source.describe(0) == {"file": str(paths[0])}
    assert "no such file" in source.describe(1)["error"]
