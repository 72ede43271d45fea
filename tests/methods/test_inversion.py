"""Inversion: photos become latents whose images they are, alone and in batches."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import losses, spaces
from styleclip_jax.methods import inversion, optimization
from styleclip_jax.models import clip, clip_input, irse50
from styleclip_jax.ops import norms
from tests import tiny

CONFIG = inversion.InversionConfig(w_steps=15, refine_steps=30)


@functools.cache
def known(count: int = 4) -> tuple[jax.Array, jax.Array]:
    """Latents not far from the average, and their images as photos."""
    network = tiny.generator()
    w_avg = network.params["mapping"]["w_avg"]
    w_plus = w_avg + 0.5 * tiny.w_plus(count)
    return w_plus, tiny.render(w_plus)


@functools.cache
def result() -> optimization.Result:
    """The inversion of a batch."""
    networks = losses.Networks(tiny.generator(), tiny.clip_network())
    run = functools.partial(inversion.invert, config=CONFIG)
    return jax.jit(jax.vmap(run, in_axes=(None, 0)))(networks, known()[1])


@pytest.mark.slow
def test_photos_are_approached_and_each_gets_its_own_latent() -> None:
    found = result()
    _, photos = known()
    np.testing.assert_array_equal(found.source.image, photos)
    np.testing.assert_allclose(
        found.image, tiny.render(found.latent), atol=1e-5, err_msg="image of the latent"
    )
    average = tiny.generator().params["mapping"]["w_avg"]
    average = spaces.broadcast_w(average, tiny.GENERATOR.num_rows)[None]
    before = jnp.abs(tiny.render(average) - photos).mean((1, 2, 3))
    after = jnp.abs(found.image - photos).mean((1, 2, 3))
    assert (after < 0.5 * before).all()
    assert jnp.abs(found.latent[0] - found.latent[1]).max() > 0.1


@pytest.mark.slow
def test_terms_are_what_they_say(networks: losses.Networks) -> None:
    found, (_, photos) = result(), known()
    difference = np.abs(found.image - photos)
    pixel = (difference + difference**2).mean((1, 2, 3))
    np.testing.assert_allclose(found.terms["pixel"], pixel, rtol=1e-4)
    network = networks.clip

    @jax.jit
    def encode(image: jax.Array) -> jax.Array:
        seen = clip_input.preprocess_clip(network, image)
        return norms.unit(clip.encode_image(network, seen))

    features = [encode(image) for image in (found.image, photos)]
    scale = np.exp(network.params["logit_scale"]) / 100
    distance = 1 - scale * jnp.sum(features[0] * features[1], -1)
    np.testing.assert_allclose(found.terms["clip"], distance, atol=1e-5)
    moved = jnp.square(found.latent - found.source.latent).mean((1, 2))
    np.testing.assert_allclose(found.terms["l2"], moved, rtol=1e-4)
    total = pixel + CONFIG.clip_lambda * distance + CONFIG.l2_lambda * moved
    np.testing.assert_allclose(found.terms["total"], total, rtol=1e-4)


@pytest.mark.slow
def test_single_steps_of_one_photo_equal_the_batch(networks: losses.Networks) -> None:
    first, second = inversion.phases(CONFIG)
    photo = known()[1][0]

    def jitted(function: Any, problem: optimization.Problem) -> Any:
        return jax.jit(functools.partial(function, problem=problem))

    average = inversion.average(networks.generator)
    state = jitted(inversion.start, first)(networks, photo, average)
    assert state.latent.shape == (12,)
    step = jitted(optimization.step, first)
    for _ in range(first.steps):
        state = step(networks, state)
    w = state.latent
    assert state.history["pixel"][-1] < state.history["pixel"][0]
    state = jitted(inversion.widen, second)(networks, state)
    np.testing.assert_array_equal(state.latent, jnp.tile(w, (4, 1)))
    np.testing.assert_array_equal(state.source.latent, state.latent)
    step = jitted(optimization.step, second)
    for _ in range(second.steps):
        state = step(networks, state)
    found = jitted(optimization.finish, second)(networks, state)
    np.testing.assert_allclose(found.latent, result().latent[0], atol=1e-3)


def test_a_given_latent_is_where_it_starts(networks: losses.Networks) -> None:
    w_plus, photos = known()
    config = inversion.InversionConfig(refine_steps=0)
    run = jax.jit(functools.partial(inversion.invert, config=config))
    found = run(networks, photos[0], w_plus[0])
    np.testing.assert_array_equal(found.latent, w_plus[0])
    assert found.terms["pixel"] < 1e-5
    assert found.failed_at == -1


def test_weights_decide_what_is_computed() -> None:
    config = inversion.InversionConfig(clip_lambda=0, id_lambda=0.5, l2_lambda=3)
    for problem in inversion.phases(config):
        assert problem.objective == {
            "pixel": (1.0, losses.pixel_distance),
            "identity": (0.5, losses.identity_distance),
            "l2": (3, losses.latent_mean_squares),
        }


@pytest.mark.slow
def test_identity_is_compared_with_the_photo(networks: losses.Networks) -> None:
    w_plus, photos = known()
    config = inversion.InversionConfig(refine_steps=0, clip_lambda=0, id_lambda=0.5)
    run = functools.partial(inversion.invert, config=config)
    with pytest.raises(ValueError, match="identity network"):
        jax.eval_shape(run, networks, photos[0], w_plus[0])
    identity = tiny.identity_network()
    found = jax.jit(run)(networks.replace(identity=identity), photos[0], w_plus[1])
    features = jax.jit(irse50.features)(identity, jnp.stack([photos[0], found.image]))
    expected = 1 - jnp.sum(features[0] * features[1])
    np.testing.assert_allclose(found.terms["identity"], expected, atol=1e-5)
    assert expected > 1e-4


def test_photos_of_another_size_are_refused(networks: losses.Networks) -> None:
    with pytest.raises(ValueError, match=r"\[8, 8, 3\], found \[16, 16, 3\]"):
        inversion.invert(networks, jnp.zeros((16, 16, 3)), config=CONFIG)


@pytest.mark.parametrize("name", ["w_steps", "pixel_lambda", "learning_rate"])
def test_configurations_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0, found -1"):
        inversion.InversionConfig(**{name: -1})


def test_something_must_tie_the_latent_to_the_photo() -> None:
    with pytest.raises(ValueError, match="pixel_lambda must be above 0"):
        inversion.InversionConfig(pixel_lambda=0, clip_lambda=0)
