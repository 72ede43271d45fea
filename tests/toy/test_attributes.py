"""Attributes of faces: vectors, frequencies, refusals, what hides what."""

import dataclasses

import numpy as np
import pytest

from styleclip_jax.toy import attributes
from tests.toy import faces


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


def test_unknown_values_are_refused(faces: list[attributes.Face]):
    with pytest.raises(ValueError, match="glasses must be one of none, glasses"):
        dataclasses.replace(faces[0], glasses="monocle")
    with pytest.raises(ValueError, match="expected 11 shapes and 8 tints"):
        dataclasses.replace(faces[0], shapes=(0.0,))


@pytest.mark.parametrize(
    ("attribute", "hiding", "value"),
    [("hair_color", "hair_style", "bald"), ("eyes", "glasses", "sunglasses")],
)
def test_attributes_are_shown_as_far_as_nothing_hides_them(
    attribute: str, hiding: str, value: str
):
    vectors = faces.to_vectors(faces.sample(3))
    part = attributes.SLICES[hiding]
    hides = attributes.index(hiding, value)
    other = (hides + 1) % len(attributes.ATTRIBUTES[hiding])
    for row, share in enumerate((0.0, 0.3, 1.0)):
        vectors[row, part] = 0
        vectors[row, part.start + hides] = share
        vectors[row, part.start + other] = 1 - share
    np.testing.assert_allclose(
        attributes.shown(vectors, attribute), [1, 0.7, 0], atol=1e-6
    )
    np.testing.assert_array_equal(attributes.visible(vectors, attribute), [1, 1, 0])
    np.testing.assert_array_equal(attributes.shown(vectors, "mouth"), 1)
