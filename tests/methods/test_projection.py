"""Projection of photos: steps equal a plain double of NVIDIA's projector."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.methods import projection
from styleclip_jax.methods.perception import Perception
from styleclip_jax.models import generators, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.settings.projection import ProjectionConfig

GENERATOR = stylegan2.GeneratorConfig(
    resolution=16, z_dim=8, w_dim=12, channels=(8, 6, 4), num_mapping_layers=2
)
STEPS = 6
CONFIG = ProjectionConfig(w_steps=STEPS, refine_steps=0, mse_lambda=0.3)


def look(network: Network, image: jax.Array) -> jax.Array:
    """Perception that is quick to compile."""
    return jnp.tanh(image.reshape(len(image), -1) @ network.params)


@functools.cache
def networks() -> projection.Networks:
    params = stylegan2.init(jax.random.key(1), GENERATOR)
    for name, block in params["synthesis"].items():
        for layer in block if name != "const" else ():
            if layer.startswith("conv"):
                block[layer]["noise_strength"] = jnp.array(0.2)
    matrix = Network(0.1 * jax.random.normal(jax.random.key(2), (16 * 16 * 3, 20)), 0)
    return projection.Networks(Network(params, GENERATOR), Perception(matrix, look))


@functools.cache
def photo() -> jax.Array:
    generator = networks().generator
    w = generators.map_latents(generator, jax.random.normal(jax.random.key(3), (1, 8)))
    w_plus = jnp.repeat(w[:, None], GENERATOR.num_rows, axis=1)
    return generators.synthesize(generator, w_plus, noise="none")[0]


def plain_correlation(noise: np.ndarray) -> float:
    """The regularization, pixel by pixel."""
    total = 0.0
    while True:
        height, width = noise.shape
        across = [
            noise[y, x] * noise[y, x - 1] for y in range(height) for x in range(width)
        ]
        down = [
            noise[y, x] * noise[y - 1, x] for y in range(height) for x in range(width)
        ]
        total += np.mean(across) ** 2 + np.mean(down) ** 2
        if height <= 8:
            return float(total)
        noise = sum(noise[a::2, b::2] for a in (0, 1) for b in (0, 1)) / 4


def plain(steps: int) -> dict[str, Any]:
    """NVIDIA's loop as its paper has it: Adam by hand on w and each map of noise."""
    found, photo_ = networks(), photo()
    known = projection.statistics(found.generator)
    state = projection.start(
        found, photo_, jax.random.key(5), known, known.mean, config=CONFIG, steps=STEPS
    )
    target = look(found.perception.network, photo_[None])
    moving = {"w": known.mean, **state.moving.noise}
    first = {name: np.zeros(x.shape) for name, x in moving.items()}
    second = {name: np.zeros(x.shape) for name, x in moving.items()}

    @jax.jit
    @jax.value_and_grad
    def loss(moving: dict[str, Any], jitter: Any) -> Any:
        noise = {name: x for name, x in moving.items() if name != "w"}
        generator = generators.with_noise(found.generator, noise)
        w_plus = jnp.tile(moving["w"] + jitter, (1, GENERATOR.num_rows, 1))
        image = generators.synthesize(generator, w_plus, noise="moving")
        vector = look(found.perception.network, image)
        distance = jnp.sum((vector - target) ** 2)
        mse = jnp.mean((image[0] - photo_) ** 2)
        white = sum(projection.correlation(x) for x in noise.values())
        return distance + CONFIG.mse_lambda * mse + CONFIG.noise_lambda * white

    losses = []
    for i in range(steps):
        t = i / STEPS
        ramp = 0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / 0.25))
        rate = 0.1 * ramp * min(1, t / 0.05)
        scale = float(known.spread) * 0.05 * max(0, 1 - t / 0.75) ** 2
        key = jax.random.fold_in(state.target.key, i)
        jitter = scale * jax.random.normal(key, known.mean.shape)
        value, gradient = loss(moving, jitter)
        losses.append(float(value))
        for name, g in gradient.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            m = first[name] / (1 - 0.9 ** (i + 1))
            v = second[name] / (1 - 0.999 ** (i + 1))
            x = moving[name] - rate * m / (np.sqrt(v) + 1e-8)
            if name != "w":
                x = x - x.mean()
                x = x / np.sqrt((x**2).mean())
            moving[name] = x
    return moving | {"losses": losses}


@functools.cache
def result() -> projection.Result:
    run = functools.partial(projection.project, config=CONFIG)
    return jax.jit(run)(networks(), photo(), jax.random.key(5))


def test_steps_equal_those_of_a_plain_double() -> None:
    found, expected = result(), plain(STEPS)
    np.testing.assert_allclose(found.history["total"], expected["losses"], rtol=2e-4)
    w = found.latent[0]
    np.testing.assert_array_equal(found.latent, jnp.tile(w, (GENERATOR.num_rows, 1)))
    np.testing.assert_allclose(w, expected["w"], atol=2e-4)
    for layer, noise in found.noise.items():
        np.testing.assert_allclose(noise, expected[layer], atol=2e-3)


@pytest.mark.parametrize("size", [4, 8, 32])
def test_correlation_is_that_of_neighbours_at_all_sizes(size: int) -> None:
    noise = np.random.default_rng(0).normal(size=(size, size)).cumsum(0)
    noise /= noise.std()
    found = projection.correlation(jnp.asarray(noise, jnp.float32))
    np.testing.assert_allclose(found, plain_correlation(noise), rtol=1e-4)


def test_spread_of_w_adds_squares_over_features() -> None:
    generator = networks().generator
    z = np.random.RandomState(123).randn(10_000, 8).astype(np.float32)
    w = np.asarray(generators.map_latents(generator, z))
    found = projection.statistics(generator)
    np.testing.assert_allclose(found.mean, w.mean(0), atol=1e-5)
    expected = math.sqrt(((w - w.mean(0)) ** 2).sum() / 10_000)
    np.testing.assert_allclose(found.spread, expected, rtol=1e-4)


def test_noise_ends_white_and_the_image_is_that_of_latent_and_noise() -> None:
    found = result()
    for noise in found.noise.values():
        np.testing.assert_allclose(noise.mean(), 0, atol=1e-6)
        np.testing.assert_allclose(jnp.square(noise).mean(), 1, rtol=1e-4)
    generator = generators.with_noise(networks().generator, found.noise)
    image = generators.synthesize(generator, found.latent[None])[0]
    np.testing.assert_allclose(found.image, image, atol=1e-5)


def test_photos_are_independent_under_vmap_and_go_on_in_w_plus() -> None:
    config = ProjectionConfig(w_steps=2, refine_steps=3, noise_lambda=0)
    run = functools.partial(projection.project, config=config)
    photos = jnp.stack([photo(), jnp.flip(photo(), 1)])
    batch = jax.jit(jax.vmap(run, in_axes=(None, 0, None)))
    found = batch(networks(), photos, jax.random.key(0))
    assert not found.noise
    assert (jnp.ptp(found.latent, axis=1) > 0).any()
    other = batch(networks(), photos[::-1], jax.random.key(0))
    np.testing.assert_allclose(found.latent[1], other.latent[0], atol=1e-4)
    assert found.history["total"].shape == (2, 3)
    assert (found.failed_at == -1).all()


def test_photos_and_networks_that_do_not_fit_are_refused() -> None:
    run = functools.partial(projection.project, config=CONFIG)
    with pytest.raises(ValueError, match=r"\[16, 16, 3\], found \[8, 8, 3\]"):
        run(networks(), jnp.zeros((8, 8, 3)), jax.random.key(0))
    blind = networks().replace(perception=None)
    with pytest.raises(ValueError, match="perceptual_lambda needs a perceptual"):
        jax.eval_shape(run, blind, photo(), jax.random.key(0))


def test_images_are_shrunk_before_they_are_looked_at() -> None:
    seen = Perception(networks().generator, lambda _, x: x.reshape(len(x), -1), 4)
    image = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    blocks = image.reshape(2, 4, 2, 4, 2, 3).mean((2, 4)).reshape(2, -1)
    np.testing.assert_allclose(seen(image), blocks, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"perceptual_lambda": 0}, "mse_lambda must be above 0 where perceptual_lamb"),
        ({"jitter_ramp": 0}, "jitter_ramp: expected above 0 and at most 1, found 0"),
        ({"noise_lambda": -1}, "noise_lambda must be at least 0, found -1"),
    ],
)
def test_configurations_are_checked(fields: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        ProjectionConfig(**fields)
