"""The judge sees what is drawn."""

import numpy as np
import pytest

from styleclip_jax.toy import attributes, drawing, judge
from tests.toy import faces as toy_faces
from train.demo import (
    judge_stage,
)


@pytest.fixture(scope="module")
def pictures(faces: list[attributes.Face]) -> list[np.ndarray]:
    return [drawing.draw(face, 64) / 127.5 - 1 for face in faces]


@pytest.mark.parametrize(
    ("attribute", "value"), judge.CHECKS, ids=lambda x: x.replace("_", "-")
)
def test_checks_see_what_is_drawn(
    faces: list[attributes.Face], pictures: list[np.ndarray], attribute: str, value: str
):
    vectors = np.stack([attributes.to_vector(face) for face in faces])
    seen = attributes.visible(vectors, attribute)
    found = np.array([judge.CHECKS[attribute, value](x) for x in pictures])
    drawn = np.array([getattr(face, attribute) == value for face in faces])
    assert np.mean(found[drawn & seen]) > 0.9
    assert np.mean(found[~drawn & seen]) < 0.1


def test_the_judge_recognises_drawings():
    network = judge.load()
    shares = judge_stage.accuracies(
        network.params, *toy_faces.held_out(600), network.config
    )
    assert min(shares.values()) > 0.97, shares
