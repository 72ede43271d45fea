"""Losses: their values on small edits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import losses
from styleclip_jax.errors import UserError
from tests import tiny


def edit(**parts: Any) -> losses.Edit:
    """An edit of which a loss sees these parts alone."""
    nothing: Any = None
    source = losses.Source(parts.pop("source", nothing), nothing, nothing)
    return losses.Edit(nothing, nothing, source, nothing)._replace(**parts)


def test_l1_costs_as_l2_where_entries_move_by_a_fifth() -> None:
    networks: Any = None
    source = (jnp.ones((2, 3)), jnp.zeros((2, 5)))
    for step, sign in ((0.01, 1), (0.2, 0), (-0.2, 0), (1.0, -1)):
        moved = edit(
            latent=jax.tree.map(lambda x, d=step: x + d, source), source=source
        )
        found = losses.latent_l1(networks, moved)
        np.testing.assert_allclose(found, 0.2 * 8 * abs(step), rtol=1e-4)
        more = found - losses.latent_l2(networks, moved)
        np.testing.assert_array_equal(np.sign(np.round(more, 6)), [sign, sign])


def test_weighted_texts_are_one_text_to_the_distance(
    networks: losses.Networks,
) -> None:
    texts, weights = tiny.text_features(3), jnp.array([1, 0.5, -2.0])
    image = tiny.image(2, 8)

    @jax.jit
    def distance(networks: losses.Networks, image: Any, text: Any) -> jax.Array:
        return losses.clip_distance(networks, edit(image=image, text=text))

    def weighted(image: jax.Array) -> jax.Array:
        each = [distance(networks, image, text) for text in texts]
        return sum(w * x for w, x in zip(weights, each, strict=True))

    together = distance(networks, image, weights @ texts)
    difference = together - weighted(image)
    # Up to a constant, whatever the image is.
    np.testing.assert_allclose(difference[0], difference[1], atol=1e-4)


def test_steps_have_a_direction_from_a_length_on() -> None:
    text = jnp.array([0.0, 3.0])
    steps = jnp.array([[0, 2.0], [1.0, 1.0], [0, 0.05], [0, 0], [0, -1]])
    found = losses.step_similarity(steps, text, min_length=0.1)
    np.testing.assert_allclose(found, [1, 0.5**0.5, 0.5, 0, -1], atol=1e-6)


def test_a_loss_that_returns_one_number_is_named() -> None:
    def brightness(networks: Any, edit: losses.Edit) -> jax.Array:
        return jnp.mean(edit.image)

    networks: Any = None
    objective = {"bright": (1.0, brightness)}
    for count in (1, 2):
        seen = edit(image=tiny.image(count, 8))
        with pytest.raises(UserError, match="the loss bright, an array of shape") as e:
            losses.evaluate(objective, networks, seen)
        assert "found shape ();" in str(e.value)
