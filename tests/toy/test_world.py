"""The embedded world: drawing, vectors, captions."""

import dataclasses

import numpy as np
import pytest

from styleclip_jax.toy import attributes, captioning, drawing


@pytest.fixture(scope="module")
def faces() -> list[attributes.Face]:
    rng = np.random.default_rng(0)
    return [attributes.sample_face(rng) for _ in range(300)]


def test_a_seed_decides_faces_pictures_and_captions():
    def make() -> tuple[attributes.Face, np.ndarray, captioning.Caption]:
        rng = np.random.default_rng(7)
        face = attributes.sample_face(rng)
        return face, drawing.draw(face, 64), captioning.caption(face, rng)

    (face, picture, caption), (other, other_picture, other_caption) = make(), make()
    assert face == other
    assert caption == other_caption
    np.testing.assert_array_equal(picture, other_picture)


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


def test_faces_survive_vectors(faces: list[attributes.Face]):
    for face in faces:
        vector = attributes.to_vector(face)
        again = attributes.from_vector(vector)
        np.testing.assert_array_equal(attributes.to_vector(again), vector)
        for name in attributes.ATTRIBUTES:
            assert getattr(again, name) == getattr(face, name)


def test_values_come_at_their_frequencies():
    rng = np.random.default_rng(1)
    vectors = np.stack(
        [attributes.to_vector(attributes.sample_face(rng)) for _ in range(4000)]
    )
    for name, table in attributes.ATTRIBUTES.items():
        found = vectors[:, attributes.SLICES[name]].mean(axis=0)
        np.testing.assert_allclose(found, list(table.values()), atol=0.03)


def test_every_attribute_changes_the_picture(faces: list[attributes.Face]):
    face = dataclasses.replace(faces[0], hair_style="short", glasses="none")
    picture = drawing.draw(face, 64).astype(int)
    for name, table in attributes.ATTRIBUTES.items():
        for value in set(table) - {getattr(face, name)}:
            changed = drawing.draw(dataclasses.replace(face, **{name: value}), 64)
            assert np.abs(changed - picture).max() > 20, (name, value)


def test_unknown_values_are_refused(faces: list[attributes.Face]):
    with pytest.raises(ValueError, match="glasses must be one of none, glasses"):
        dataclasses.replace(faces[0], glasses="monocle")
    with pytest.raises(ValueError, match="expected 11 shapes and 8 tints"):
        dataclasses.replace(faces[0], shapes=(0.0,))


def test_captions_are_true_of_their_face(faces: list[attributes.Face]):
    rng = np.random.default_rng(2)
    captions = [captioning.caption(face, rng) for face in faces]
    vectors = np.stack([attributes.to_vector(face) for face in faces])
    wrong = vectors[:, : attributes.NUM_VALUES] @ captioning.contradictions(captions).T
    assert np.all(np.diag(wrong) == 0)
    # They are also false of most other faces, and in many different words.
    assert np.mean(wrong > 0) > 0.5
    assert len({caption.text for caption in captions}) > 250


def test_captions_name_what_they_say(faces: list[attributes.Face]):
    rng = np.random.default_rng(3)
    for face in faces:
        caption = captioning.caption(face, rng)
        words = caption.text.replace(".", "").split()
        if "sunglasses" in words:
            assert caption.allowed["glasses"] == ("sunglasses",)
        if "bearded" in words:
            assert caption.allowed["facial_hair"] == ("beard",)
        if "smiling" in words:
            assert caption.allowed["mouth"] == ("smile",)
        if "blonde" in words:
            assert caption.allowed["hair_color"] == ("blonde",)
            assert "bald" not in caption.allowed["hair_style"]
