"""Edits by the embedded models do what the prompt says."""

import jax
import numpy as np
import pytest

from styleclip_jax.editing.session import Session
from styleclip_jax.toy import attributes, judge


@pytest.mark.slow
def test_optimization_does_what_the_prompt_says_and_little_else():
    # Several simulated devices would each edit all of so few faces.
    network, session = judge.load(), Session(devices=jax.devices()[:1])
    z = jax.random.normal(jax.random.key(5), (4, session.generator.config.z_dim))
    faces = session.read(z, space="z")
    edit = session.optimize(
        faces, "a person wearing sunglasses", steps=80, l2_lambda=0.0045
    )
    images = [np.clip(found, -1, 1) for found in (faces.images, edit.images)]
    before, after = (jax.device_get(judge.predict(network, image)) for image in images)
    sunglasses = attributes.index("glasses", "sunglasses")
    assert np.mean(before["glasses"] == sunglasses) < 0.5
    assert np.mean(after["glasses"] == sunglasses) >= 0.9
    assert judge.kept(before, after, "glasses").mean() >= 0.85
