"""Directions are drawn at both ends, and texts scored by the movement between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import losses
from styleclip_jax.methods import direction_names, latent_directions
from styleclip_jax.models import clip, clip_input, stylegan2
from tests import tiny

GENERATOR = tiny.generator()


def test_ends_are_the_images_of_both_signs_and_the_step_of_features_between() -> None:
    model = tiny.clip_network()
    networks = losses.Networks(GENERATOR, model)
    w_plus = tiny.w_plus(2)
    delta = tiny.normal(5, *w_plus.shape[1:])

    @jax.jit
    def seen_at(latent: jax.Array) -> tuple[jax.Array, jax.Array]:
        image = stylegan2.synthesize(GENERATOR, latent)
        seen = clip_input.preprocess_clip(model, image)
        feature = clip.encode_image(model, seen)
        return image, feature / jnp.linalg.norm(feature, axis=1, keepdims=True)

    styles = stylegan2.to_styles(GENERATOR, w_plus)
    along = latent_directions.to_direction(GENERATOR, delta)
    ends = jax.jit(direction_names.ends)
    *images, movement = ends(networks, styles, along, 0.5)
    features = []
    for found, sign in zip(images, (-1, 1), strict=True):
        image, feature = seen_at(w_plus + sign * 0.5 * delta)
        largest = float(jnp.abs(image).max())
        np.testing.assert_allclose(found, image, atol=2e-5 * largest)
        features.append(feature)
    step = features[1] - features[0]
    expected = step / jnp.linalg.norm(step, axis=1, keepdims=True)
    np.testing.assert_allclose(movement, expected, atol=1e-3)


def test_scores_find_the_text_that_a_movement_leads_to() -> None:
    text = tiny.text_features(5)
    apart = text - text.mean(0)
    movement = jnp.stack([apart[3] + 0.01, apart[3] - 0.01])
    movement /= jnp.linalg.norm(movement, axis=1, keepdims=True)
    score = np.asarray(direction_names.scores(movement, text))
    assert score.argmax() == 3
    assert score[3] == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(
        direction_names.scores(-movement, text), -score, atol=1e-6
    )
