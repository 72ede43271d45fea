"""The embedded identity network tells persons apart; ArcFace."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import loading
from styleclip_jax.toy import attributes
from train.demo import (
    identity_stage,
)


@pytest.mark.slow
def test_the_identity_network_tells_persons_apart(tmp_path: pathlib.Path):
    network = loading.load_identity()
    images = identity_stage.persons(tmp_path, 120, 3, seed=77)
    scores = identity_stage.verification(network.params, images, network.config)
    assert scores["accuracy"] > 0.9, scores


def test_a_person_keeps_face_skin_and_hair_style(faces: list[attributes.Face]):
    rng = np.random.default_rng(0)
    person, others = (
        faces[0],
        [identity_stage.another_picture(faces[0], rng) for _ in range(50)],
    )
    for name in ("skin", "hair_style", "eyes"):
        assert {getattr(face, name) for face in others} == {getattr(person, name)}
    for name in ("mouth", "glasses", "background", "hair_color"):
        assert len({getattr(face, name) for face in others}) > 1
    width = attributes.SHAPES.index("face_width")
    yaw = attributes.SHAPES.index("yaw")
    assert {face.shapes[width] for face in others} == {person.shapes[width]}
    assert len({face.shapes[yaw] for face in others}) > 40


def test_arcface_adds_its_margin_to_the_right_angle():
    angles = np.array([[0.3, 1.2, 2.9], [2.0, 3.1, 0.4]])
    feature = np.array([[1.0, 0.0]])
    for row, label in zip(angles, (0, 1), strict=True):
        centers = 5 * np.stack([np.cos(row), np.sin(row)], axis=1)
        widened = np.cos(row)
        widened[label] = np.cos(min(row[label] + 0.2, np.pi))
        logits = 10 * widened
        expected = np.log(np.exp(logits).sum()) - logits[label]
        found = identity_stage.arcface(
            jnp.asarray(feature),
            jnp.asarray(centers),
            jnp.array([label]),
            scale=10,
            margin=0.2,
        )
        np.testing.assert_allclose(found, [expected], rtol=1e-4)
