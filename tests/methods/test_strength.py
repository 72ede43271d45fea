"""The search for strengths: what it reads off samples, reaches, drops and leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import latents, losses
from styleclip_jax.methods import strength
from styleclip_jax.methods.strength import Aim, Found, SearchConfig
from styleclip_jax.ops import norms
from tests import tiny

SPACE = latents.SPACES["w_plus"]
LATENT = tiny.w_plus(4)
TEXT = tiny.text_features(1)[0]
SIZE = len(TEXT)


@functools.cache
def compiled(config: SearchConfig) -> functools.partial:
    return jax.jit(
        lambda networks, step, aim: strength.search(
            networks, SPACE, LATENT, step, aim, config
        )
    )


@jax.jit
def seen(networks: losses.Networks, latent: jax.Array) -> jax.Array:
    return strength.features(networks, SPACE.synthesize(networks.generator, latent))


@pytest.fixture(scope="module")
def before(networks: losses.Networks) -> np.ndarray:
    """Similarity of the latents to the text."""
    return np.asarray(seen(networks, LATENT) @ TEXT)


@pytest.fixture(scope="module")
def step(networks: losses.Networks) -> jax.Array:
    """Step that has parts which help, and as many which do not."""

    def similarity(latent: jax.Array) -> jax.Array:
        return jnp.sum(seen(networks, latent) @ TEXT)

    slope = jax.jit(jax.grad(similarity))(LATENT)
    signs = np.random.RandomState(0).choice([-0.2, 1.0], slope.shape)
    return slope * signs / jnp.abs(slope).max()


def aim(typical: float, best: float, weight: float = 0.0) -> Aim:
    return Aim(TEXT, jnp.float32(typical), jnp.float32(best), weight * jnp.eye(SIZE))


def search(
    networks: losses.Networks, step: jax.Array, aim: Aim, **config: float
) -> Found:
    return compiled(SearchConfig(**config))(networks, step, aim)


def test_aim_is_read_off_samples() -> None:
    random = np.random.RandomState(1)
    samples = norms.unit(jnp.asarray(random.randn(400, SIZE) + 2.0, jnp.float32))
    found = strength.aim_at(samples, TEXT)
    similarity = np.sort(np.asarray(samples @ TEXT))
    np.testing.assert_allclose(found.typical, np.median(similarity), rtol=1e-5)
    np.testing.assert_allclose(found.best, similarity[-4:].mean(), rtol=1e-5)
    pairs = np.asarray((samples[::2] - samples[1::2]) @ found.elsewhere)
    # Of all directions but that of the text, and a little less for the ridge.
    typical = np.sqrt(np.square(pairs).sum(axis=1).mean())
    assert 0.8 < typical < 1
    # What goes along with the similarity in these samples is no change elsewhere.
    along = np.cov(np.asarray(samples).T) @ np.asarray(TEXT)
    other = np.asarray(samples[0] - samples[1])
    ends = [
        np.linalg.norm(x / np.linalg.norm(x) @ found.elsewhere) for x in (along, other)
    ]
    assert ends[0] < 0.3 * ends[1]


def test_fit_is_reached_by_the_parts_that_help(
    networks: losses.Networks, before: np.ndarray, step: jax.Array
) -> None:
    goal = aim(before.max() - 0.05, before.max() + 0.01)
    found = search(networks, step, goal, reach=1.0, budget=9.0)
    # One of the four begins far below the others, and comes nearer.
    assert (np.asarray(found.fit) >= 1).sum() == 3
    assert (np.asarray(found.strength) > 0).all()
    moved = np.asarray(found.latent - LATENT)
    by = np.asarray(found.strength)[:, None, None]
    kept = moved != 0
    np.testing.assert_allclose(moved[kept], (by * np.asarray(step))[kept], rtol=1e-3)
    np.testing.assert_allclose(found.kept, kept.mean(axis=(1, 2)), atol=1e-6)
    assert ((found.kept > 0.2) & (found.kept < 0.8)).all()
    # The image and the fit are those of the latents that are given.
    similarity = seen(networks, found.latent) @ TEXT
    fit = (similarity - goal.typical) / (goal.best - goal.typical)
    np.testing.assert_allclose(found.fit, fit, atol=1e-4)
    image = SPACE.synthesize(networks.generator, found.latent)
    np.testing.assert_allclose(found.image, image, atol=1e-4)


def test_latents_that_fit_stay_to_the_bit(
    networks: losses.Networks, before: np.ndarray, step: jax.Array
) -> None:
    order = np.argsort(before)
    between = before[order[1:3]].mean()
    found = search(networks, step, aim(between - 0.9, between + 0.1), budget=9.0)
    fits = before >= between
    np.testing.assert_array_equal(np.asarray(found.strength) == 0, fits)
    np.testing.assert_array_equal(found.latent[fits], LATENT[fits])
    assert (np.asarray(found.change)[fits] == 0).all()


def test_budget_bounds_the_change(
    networks: losses.Networks, before: np.ndarray, step: jax.Array
) -> None:
    far = aim(before.max() - 0.01, before.max() + 0.3, weight=0.2)
    changes = [
        np.asarray(search(networks, step, far, reach=1.0, budget=budget).change)
        for budget in (0.0, 0.06, 9.0)
    ]
    assert (changes[0] == 0).all()
    assert (changes[1] <= 0.06).all()
    assert changes[1].max() < changes[2].max()


def test_passes_are_twelve_at_most() -> None:
    assert strength.passes() <= 12
