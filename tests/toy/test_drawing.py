"""Drawing of faces: anti-aliased, alike at any size, different for any attribute."""

import dataclasses

import numpy as np
import pytest

from styleclip_jax.toy import attributes, drawing


@pytest.mark.parametrize("size", [32, 64, 128])
def test_pictures_are_anti_aliased_colour_images(
    faces: list[attributes.Face], size: int
):
    picture = drawing.draw(faces[0], size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    # A drawing without anti-aliasing has a few dozen colours.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_resolutions_show_the_same_face(faces: list[attributes.Face]):
    for face in faces[:5]:
        large = drawing.draw(face, 128).reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(large - drawing.draw(face, 64)).mean() < 3


def test_every_attribute_changes_the_picture(faces: list[attributes.Face]):
    face = dataclasses.replace(faces[0], hair_style="short", glasses="none")
    picture = drawing.draw(face, 64).astype(int)
    for name, table in attributes.ATTRIBUTES.items():
        for value in set(table) - {getattr(face, name)}:
            changed = drawing.draw(dataclasses.replace(face, **{name: value}), 64)
            assert np.abs(changed - picture).max() > 20, (name, value)
