"""The embedded world: drawing, captions, and the checks that judge pictures."""

import dataclasses

import numpy as np
import pytest

from styleclip_jax.assets import judge, world


@pytest.fixture(scope="module")
def faces() -> list[world.Face]:
    rng = np.random.default_rng(0)
    return [world.sample_face(rng) for _ in range(300)]


@pytest.fixture(scope="module")
def pictures(faces: list[world.Face]) -> list[np.ndarray]:
    return [world.draw(face, 64) / 127.5 - 1 for face in faces]


def test_a_seed_decides_faces_pictures_and_captions():
    def make() -> tuple[world.Face, np.ndarray, world.Caption]:
        rng = np.random.default_rng(7)
        face = world.sample_face(rng)
        return face, world.draw(face, 64), world.caption(face, rng)

    (face, picture, caption), (other, other_picture, other_caption) = make(), make()
    assert face == other
    assert caption == other_caption
    np.testing.assert_array_equal(picture, other_picture)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_pictures_are_anti_aliased_colour_images(faces: list[world.Face], size: int):
    picture = world.draw(faces[0], size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    # A drawing without anti-aliasing has a few dozen colours.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_resolutions_show_the_same_face(faces: list[world.Face]):
    for face in faces[:5]:
        large = world.draw(face, 128).reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(large - world.draw(face, 64)).mean() < 3


def test_faces_survive_vectors(faces: list[world.Face]):
    for face in faces:
        vector = world.to_vector(face)
        again = world.from_vector(vector)
        np.testing.assert_array_equal(world.to_vector(again), vector)
        for name in world.ATTRIBUTES:
            assert getattr(again, name) == getattr(face, name)


def test_values_come_at_their_frequencies():
    rng = np.random.default_rng(1)
    vectors = np.stack([world.to_vector(world.sample_face(rng)) for _ in range(4000)])
    for name, table in world.ATTRIBUTES.items():
        found = vectors[:, world.SLICES[name]].mean(axis=0)
        np.testing.assert_allclose(found, list(table.values()), atol=0.03)


def test_every_attribute_changes_the_picture(faces: list[world.Face]):
    face = dataclasses.replace(faces[0], hair_style="short", glasses="none")
    picture = world.draw(face, 64).astype(int)
    for name, table in world.ATTRIBUTES.items():
        for value in set(table) - {getattr(face, name)}:
            changed = world.draw(dataclasses.replace(face, **{name: value}), 64)
            assert np.abs(changed - picture).max() > 20, (name, value)


def test_unknown_values_are_refused(faces: list[world.Face]):
    with pytest.raises(ValueError, match="glasses must be one of none, glasses"):
        dataclasses.replace(faces[0], glasses="monocle")
    with pytest.raises(ValueError, match="expected 11 shapes and 8 tints"):
        dataclasses.replace(faces[0], shapes=(0.0,))


def test_captions_are_true_of_their_face(faces: list[world.Face]):
    rng = np.random.default_rng(2)
    captions = [world.caption(face, rng) for face in faces]
    vectors = np.stack([world.to_vector(face) for face in faces])
    wrong = vectors[:, : world.NUM_VALUES] @ world.contradictions(captions).T
    assert np.all(np.diag(wrong) == 0)
    # They are also false of most other faces, and in many different words.
    assert np.mean(wrong > 0) > 0.5
    assert len({caption.text for caption in captions}) > 250


def test_captions_name_what_they_say(faces: list[world.Face]):
    rng = np.random.default_rng(3)
    for face in faces:
        caption = world.caption(face, rng)
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


@pytest.mark.parametrize(
    ("attribute", "value"), judge.CHECKS, ids=lambda x: x.replace("_", "-")
)
def test_checks_see_what_is_drawn(
    faces: list[world.Face], pictures: list[np.ndarray], attribute: str, value: str
):
    vectors = np.stack([world.to_vector(face) for face in faces])
    seen = world.visible(vectors, attribute)
    found = np.array([judge.CHECKS[attribute, value](x) for x in pictures])
    drawn = np.array([getattr(face, attribute) == value for face in faces])
    assert np.mean(found[drawn & seen]) > 0.9
    assert np.mean(found[~drawn & seen]) < 0.1
