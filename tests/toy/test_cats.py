"""Drawing of cats: the same by seed, different for any attribute, data to train on."""

import dataclasses
import json
import pathlib
from collections import Counter

import numpy as np
import pytest

from examples.drawings import __main__ as drawings
from styleclip_jax.errors import UserError
from styleclip_jax.photos import image_sets
from styleclip_jax.progress import SILENT
from styleclip_jax.toy import cats
from tests import programs


def sample(seed: int) -> cats.Cat:
    return cats.sample(np.random.default_rng(seed))


def test_every_attribute_changes_the_picture() -> None:
    for coat in ("white", "black"):
        cat = dataclasses.replace(sample(0), coat=coat, collar="red")
        picture = cats.draw(cat, 32).astype(int)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
        for name, table in cats.ATTRIBUTES.items():
            for value in set(table) - {getattr(cat, name)}:
                changed = cats.draw(dataclasses.replace(cat, **{name: value}), 32)
                assert np.abs(changed - picture).max() > 20, (name, value)


def test_cats_have_the_frequencies_of_their_attributes() -> None:
    random = np.random.default_rng(0)
    found = [cats.sample(random) for _ in range(600)]
    for name, table in cats.ATTRIBUTES.items():
        counts = Counter(getattr(cat, name) for cat in found)
        for value, share in table.items():
            assert counts[value] / len(found) == pytest.approx(share, abs=0.07)
    with pytest.raises(UserError, match="coat"):
        dataclasses.replace(found[0], coat="purple")


def test_a_folder_of_drawings_is_data_that_says_what_it_shows(
    tmp_path: pathlib.Path,
) -> None:
    for kind in drawings.KINDS:
        folder = tmp_path / kind
        argv = ["drawings", f"--kind={kind}", "--num=3", f"--output_dir={folder}"]
        assert not programs.run(drawings, argv)
        data = image_sets.open_several(str(folder))
        data.check(32, SILENT)
        lines = [json.loads(line) for line in (folder / "attributes.jsonl").open()]
        assert [line["image"] for line in lines] == [f"{i:05d}.png" for i in range(3)]
        again = [drawings.KINDS[kind][0](np.random.default_rng((0, i))) for i in (0, 2)]
        pictures = [drawings.KINDS[kind][1](one, 32) for one in again]
        np.testing.assert_array_equal(data.load(np.array([0, 2])), pictures)
        assert lines[2]["background"] == again[1].background
        # A folder that has something in it stays.
        assert programs.run(drawings, argv) == 2
