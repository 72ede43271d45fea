"""Sets of images: folders and archives of any mode, their classes, what is wrong."""

import io
import json
import os
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from styleclip_jax.photos import image_sets
from styleclip_jax.photos.image_sets import Mirrored, StoredImages
from styleclip_jax.progress import SILENT
from tests import programs

SIZE = 16


def make(mode: str = "RGB", seed: int = 0, size: int = SIZE) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of four images of different modes, two of them in a folder."""
    folder = tmp_path / "set"
    (folder / "00000").mkdir(parents=True)
    make().save(folder / "a.png")
    make("L", 1).save(folder / "00000" / "b.png")
    make("P", 2).save(folder / "00000" / "c.gif")
    make("RGBA", 3).save(folder / "d.PNG")
    (folder / "notes.txt").write_text("none")
    make().save(folder / ".hidden.png")
    return folder


def pack(folder: pathlib.Path, path: pathlib.Path, **more: Any) -> pathlib.Path:
    """A zip of a folder."""
    with zipfile.ZipFile(path, "w", **more) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_a_folder_and_its_zip_are_the_same_images(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    stored = StoredImages(folder)
    packed = StoredImages(
        pack(folder, tmp_path / "set.zip", compression=zipfile.ZIP_DEFLATED)
    )
    found = stored.load(np.arange(4))
    assert len(stored) == len(packed) == 4
    assert found.shape == (4, SIZE, SIZE, 3)
    assert found.dtype == np.uint8
    # In the order of names: 00000/b.png, 00000/c.gif, a.png, d.PNG.
    np.testing.assert_array_equal(found[2], np.asarray(make()))
    np.testing.assert_array_equal(found[0], np.asarray(make("L", 1).convert("RGB")))
    np.testing.assert_array_equal(found, packed.load(np.arange(4)))
    stored.check(SIZE, SILENT)
    packed.check(SIZE, SILENT)


def test_what_changes_is_another_set(folder: pathlib.Path, tmp_path) -> None:
    before = StoredImages(folder).identity
    archive = StoredImages(pack(folder, tmp_path / "one.zip")).identity
    assert StoredImages(folder).identity == before
    (folder / "notes.txt").write_text("other")
    assert StoredImages(folder).identity == before
    assert StoredImages(pack(folder, tmp_path / "two.zip")).identity == archive
    make(seed=9).save(folder / "a.png")
    os.utime(folder / "a.png", ns=(0, 10**18))
    assert StoredImages(folder).identity != before
    assert StoredImages(pack(folder, tmp_path / "three.zip")).identity != archive


def test_mirrored_images_follow_all_others(folder: pathlib.Path) -> None:
    stored = StoredImages(folder)
    both = Mirrored(stored)
    assert len(both) == 8
    found, plain = both.load(np.array([1, 5])), stored.load(np.array([1]))
    np.testing.assert_array_equal(found[0], plain[0])
    np.testing.assert_array_equal(found[1], plain[0, :, ::-1])
    assert both.identity != stored.identity


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, None),
        ([0, 2, 1, 2], np.array([0, 2, 1, 2])),
        ([[0.5, 1]] * 4, np.full((4, 2), [0.5, 1], np.float32)),
    ],
)
def test_classes_are_those_of_dataset_json(
    folder: pathlib.Path, labels: Any, expected: Any
) -> None:
    names = ["00000/b.png", "00000\\c.gif", "a.png", "d.PNG"]
    pairs = labels and list(zip(names, labels, strict=True))
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    found = StoredImages(folder).labels
    if expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)
        assert len(Mirrored(StoredImages(folder)).labels) == 8


def test_sets_that_are_none_are_refused(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def refusal(path: pathlib.Path) -> str:
        return programs.refusal(StoredImages, path)

    assert "found none" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "expected images (.png" in refusal(tmp_path / "empty")
    (tmp_path / "text.zip").write_text("no archive")
    assert "found another file" in refusal(tmp_path / "text.zip")
    (folder / "dataset.json").write_text('{"labels": [["a.png", 1]]}')
    stored = StoredImages(folder)
    assert "no label of 00000/b.png" in programs.refusal(lambda: stored.labels)
    (folder / "dataset.json").write_text('{"labels": [["a.png"]]}')
    assert "expected a list of [name, class]" in programs.refusal(
        lambda: StoredImages(folder).labels
    )


def test_images_of_another_size_and_damaged_ones_are_named(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    stored = StoredImages(folder)
    found = programs.refusal(stored.check, 32, SILENT)
    assert "expected images of 32×32 as the generator draws them, found 16×16" in found
    found = programs.refusal(stored.check, (32, 16), SILENT)
    assert "expected images of 16×32 as the generator draws them" in found
    make(size=24).save(folder / "a.png")
    assert "24×24 in a.png" in programs.refusal(stored.check, SIZE, SILENT)
    content = io.BytesIO()
    make(size=64).save(content, "PNG")
    (folder / "a.png").write_bytes(content.getvalue()[:300])
    assert "a.png" in programs.refusal(stored.load, np.arange(4))
    (folder / "a.png").write_bytes(b"nothing")
    assert "a.png" in programs.refusal(stored.check, SIZE, SILENT)
    # A member that inflates to far more than an image.
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1 << 20))
    found = StoredImages(bomb)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_sets, "_MAX_IMAGE", 1 << 10)
        assert "expected at most" in programs.refusal(found.load, np.arange(1))
