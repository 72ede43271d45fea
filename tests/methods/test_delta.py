"""Delta networks: what their steps are, and what training makes of them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import latents, losses
from styleclip_jax.errors import UserError
from styleclip_jax.methods import delta, delta_training
from tests import tiny

EMBED_DIM = tiny.CLIP.embed_dim


def network_for(space: str) -> delta.Delta:
    """A small network."""
    config = delta.of_generator(
        tiny.GENERATOR, embed_dim=EMBED_DIM, space=space, width=8
    )
    return tiny.delta_network(config)


def in_space(w_plus: Any, space: str) -> Any:
    options: dict[str, Any] = {"truncation_psi": 1.0, "cutoff": None, "to": space}
    return latents.convert(tiny.generator(), w_plus, space="w_plus", **options)


def latent_in(space: str, count: int = 3) -> Any:
    return in_space(tiny.w_plus(count), space)


@pytest.mark.parametrize("space", latents.SPACES)
def test_steps_are_zero_without_a_difference_and_grow_with_strength(space: str) -> None:
    network, latent = network_for(space), latent_in(space)
    edit = functools.partial(delta.edit, network, latent)
    same = edit(jnp.zeros(EMBED_DIM))
    np.testing.assert_array_equal(latents.flatten(same), latents.flatten(latent))
    direction = tiny.text_features(1)[0]
    once, twice = (
        jax.tree.map(jnp.subtract, edit(direction, strength=s), latent) for s in (1, 2)
    )
    for one, two in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        assert one.shape == two.shape
        assert np.abs(one).max() > 0.01
        np.testing.assert_allclose(2 * one, two, atol=1e-5)


def test_a_new_network_leaves_latents_and_knows_their_statistics() -> None:
    config = delta.of_generator(tiny.GENERATOR, embed_dim=EMBED_DIM)
    latent = latent_in("s", 5)
    params = delta.with_statistics(delta.init(jax.random.key(0), config), latent)
    flat = latents.flatten(latent)
    np.testing.assert_allclose(params["mean"], flat.mean(0), atol=1e-6)
    np.testing.assert_allclose(params["std"], np.maximum(flat.std(0), 1e-3), atol=1e-6)
    edited = delta.edit(delta.Delta(params, config), latent, tiny.text_features(1)[0])
    np.testing.assert_array_equal(latents.flatten(edited), flat)
    shapes = delta.param_shapes(config)
    assert shapes["fc0/kernel"] == (config.size + EMBED_DIM, config.width)
    assert shapes["fc3/kernel"] == (config.width, config.size)


@pytest.mark.parametrize("space", latents.SPACES)
def test_latents_of_another_kind_are_refused(space: str) -> None:
    other = "s" if space == "w_plus" else "w_plus"
    with pytest.raises(ValueError, match=r"latent: expected .* numbers each in"):
        delta.edit(network_for(space), latent_in(other), jnp.zeros(EMBED_DIM))
    wide = dataclasses.replace(tiny.GENERATOR, w_dim=13, channels=(10, 9))
    with pytest.raises(UserError, match="expected a delta network for"):
        delta.check_generator(network_for(space).config, wide)
    with pytest.raises(UserError, match="channels must be those of the generator"):
        delta.DeltaConfig(embed_dim=4, space=space)


def test_training_learns_the_way_between_latents(networks: losses.Networks) -> None:
    config = delta.of_generator(tiny.GENERATOR, embed_dim=EMBED_DIM, width=32)
    settings = delta_training.TrainingConfig(learning_rate=3e-3, noise=0.1)
    problem = delta_training.official(config, settings)
    # Random networks see little of a latent, so that few directions vary.
    basis = np.random.default_rng(0).standard_normal((2, 4, 12))

    def draw(step: int) -> Any:
        rng = np.random.default_rng(step)
        w_plus = np.tensordot(rng.standard_normal((8, 2)), basis, 1)
        return in_space(np.float32(w_plus), "s")

    params = delta.init(jax.random.key(0), config)
    state = delta_training.start(
        delta.with_statistics(params, draw(10**6)), problem=problem
    )
    step = jax.jit(functools.partial(delta_training.train_step, problem=problem))
    curve = []
    for index in range(80):
        state, terms = step(networks, state, draw(index))
        curve.append(float(terms["total"]))
    assert curve[0] > 1
    assert np.mean(curve[-10:]) < 0.6 * np.mean(curve[:3])
    assert (int(state.step), int(state.failed_at)) == (80, -1)
    # Statistics are no part of what is learned.
    np.testing.assert_array_equal(
        state.params["std"], delta.with_statistics(params, draw(10**6))["std"]
    )
    held_out = draw(10**7)
    found, again = (
        delta_training.evaluate(networks, state.params, held_out, problem=problem)
        for _ in range(2)
    )
    assert float(found["total"]) == float(again["total"]) < 1.5


def test_a_loss_that_is_not_finite_keeps_the_parameters(
    networks: losses.Networks,
) -> None:
    config = delta.of_generator(tiny.GENERATOR, embed_dim=EMBED_DIM, width=4)
    problem = delta_training.official(config, delta_training.TrainingConfig())
    state = delta_training.start(tiny.delta_network(config).params, problem=problem)
    bad = tuple(s.at[0].set(jnp.nan) for s in latent_in("s", 4))
    step = jax.jit(functools.partial(delta_training.train_step, problem=problem))
    later, _ = step(networks, state, bad)
    assert int(later.failed_at) == 0
    np.testing.assert_array_equal(
        later.params["fc0"]["kernel"], state.params["fc0"]["kernel"]
    )


@pytest.mark.parametrize(
    "change", [{"noise": -1.0}, {"num_pairs": 0}, {"learning_rate": -1.0}]
)
def test_wrong_settings_are_refused(change: dict[str, float]) -> None:
    (name,) = change
    with pytest.raises(UserError, match=name):
        delta_training.TrainingConfig(**change)
