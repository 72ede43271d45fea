"""The embedded generator: varied samples, codes of faces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.editing.session import Session
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.toy import attributes, judge
from tests import tiny
from train.demo import generator_stage


@pytest.mark.slow
def test_samples_are_as_varied_as_drawings():
    network, session = judge.load(), Session()
    z = jax.random.normal(jax.random.key(0), (300, session.generator.config.z_dim))
    faces = session.read(z, space="z", truncation_psi=1.0)
    images = np.clip(faces.images, -1, 1)
    scores = judge.logits(network, images)
    sunglasses = attributes.index("glasses", "sunglasses")
    seen = {"eyes": np.argmax(scores["glasses"], axis=1) != sunglasses}
    for name, score in scores.items():
        one_hot = np.eye(score.shape[1])[np.argmax(score, axis=1)]
        found = one_hot[seen.get(name, slice(None))].mean(axis=0)
        wanted = list(attributes.ATTRIBUTES[name].values())
        np.testing.assert_allclose(found, wanted, atol=0.1, err_msg=name)


def test_the_mapping_network_makes_the_codes_of_faces():
    config = generator_stage.GeneratorTraining().network
    params = {"mapping": generator_stage.mapping_params(config)}
    params = jax.tree.map(jnp.asarray, params)
    z = tiny.normal(0, 500, config.z_dim)
    w = stylegan2.map_latents(Network(params, config), z)
    vectors = np.asarray(w - params["mapping"]["w_avg"]) @ np.linalg.pinv(
        generator_stage.embedding(config.w_dim)
    )
    vectors += generator_stage.mean_vector()
    codes = vectors[:, : attributes.NUM_VALUES]
    # All but the few latents on a ramp have one value of each attribute.
    assert np.mean(np.minimum(abs(codes), abs(1 - codes)) < 1e-2) > 0.99
    np.testing.assert_allclose(
        w, params["mapping"]["w_avg"] + generator_stage.to_w(vectors, 128), atol=1e-3
    )
