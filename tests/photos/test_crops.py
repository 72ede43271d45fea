"""Crops of photos become inputs of networks."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.ops import pixels
from styleclip_jax.photos import crops
from styleclip_jax.photos.finding import Finder
from tests import golden_data
from tests.golden_data import to_nchw

CASE = golden_data.Case("e4e_encoder")


def test_photos_are_resized_as_officially() -> None:
    photo = crops.resize(CASE["pil_image"], 256, Image.Resampling.BILINEAR)
    image = to_nchw(pixels.to_float(photo)[None])
    np.testing.assert_allclose(
        image[0, :, ::8, ::8], CASE["pil_preprocessed"], atol=1e-6
    )


def test_whole_photos_fill_what_the_generator_shows(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (36, 30)).save(path)

    def corners(resolution: spaces.Size, encoded_size: spaces.Size | None) -> list:
        sizes = {"resolution": resolution, "encoded_size": encoded_size}
        (face,) = Finder(is_aligned=True, **sizes).find(path)
        (left, top), _, (right, bottom), _ = np.array(face["quad"]) + 0.5
        return [left, top, right, bottom]

    # An encoder of 3:4 and a generator of squares, which has bars, or of 3:4.
    np.testing.assert_allclose(corners(32, (12, 16)), [0, -5, 36, 35])
    np.testing.assert_allclose(corners((24, 32), (12, 16)), [0, 0, 36, 30])
    # Without such an encoder the photo has the generator's shape.
    np.testing.assert_allclose(corners((25, 30), None), [0, 0, 36, 30])
    for size, expected in ((32, "a square crop"), ((24, 32), "of the shape 32×24")):
        with pytest.raises(UserError, match=expected):
            corners(size, None)


def test_landmarks_fit_photos_that_were_shrunk(tmp_path: pathlib.Path) -> None:
    photo = golden_data.ROOT / "photo" / "face.jpg"
    path = tmp_path / photo.name
    Image.open(photo).save(path, quality=95)
    width, height = Image.open(path).size
    landmarks = str(photo.with_name("landmarks.json"))
    (whole,) = Finder(is_aligned=False, landmarks_file=landmarks).find(path)
    assert whole.keys() == {"file", "quad", "outline"}
    limit = -(-width // 2) * -(-height // 2)
    finder = Finder(is_aligned=False, landmarks_file=landmarks, max_pixels=limit)
    (shrunk,) = finder.find(path)
    assert shrunk["max_pixels"] == limit
    expected = (np.array(whole["quad"]) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(shrunk["quad"], expected)
    assert crops.read(shrunk).shape[:2] == (-(-height // 2), -(-width // 2))
    a, b = (
        crops.crop([x], resolution=32, encoded_size=None, is_aligned=False).target
        for x in (whole, shrunk)
    )
    # The same face, of fewer pixels.
    assert np.abs(a - b).mean() < 0.05
