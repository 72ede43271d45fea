"""Path length against official code and the closed form of a linear generator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import stylegan2 as convert_stylegan2
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import path_length
from styleclip_jax.models import generators
from styleclip_jax.settings.measures import PathLengthConfig
from tests import golden_data, golden_networks, tiny

CASES = {
    "wend": {"epsilon": 1e-4},
    "wend_sharp": {},
    "wfull_sharp": {"sampling": "full"},
    "zend_sharp": {"space": "z"},
    "zfull_sharp": {"space": "z", "sampling": "full"},
    "wend_crop_sharp": {"crop": True},
    "wend_factor2_sharp": {"largest": 16},
}


@pytest.mark.parametrize("name", CASES)
def test_distances_are_the_official_ones(name) -> None:
    case = golden_data.Case("metrics/ppl")
    generator = golden_networks.converted(
        convert_stylegan2.convert, "metrics/ppl/network-snapshot-000000.pkl"
    )
    noise = {
        layer.name: case[f"noise.synthesis.{layer.name.replace('/', '.')}.noise_const"]
        for layer in generator.config.style_layout
        if not layer.is_torgb
    }
    draws = path_length.Draws(case["z0"], case["z1"], case["t_uniform"], noise)
    weight = golden_data.to_nhwc(case["feature_weight"][None])

    def features(image: jax.Array) -> jax.Array:
        height, width = image.shape[1:3]
        return (image * weight[:, :height, :width]).reshape(len(image), -1)

    config = PathLengthConfig(**{"epsilon": 0.01} | CASES[name])
    measure = functools.partial(
        path_length.path_length_distances, features=features, config=config
    )
    found = jax.jit(measure)(generator, draws=draws)
    case.check(f"dist_{name}", found)
    about = case.meta["arrays"][f"dist_{name}"]
    error = np.abs(found - case[f"dist_{name}__f64"]).max()
    assert error <= about["suggested_atol"]


def linear_generator(monkeypatch) -> jax.Array:
    """Makes images a matrix times w, of which it gives [w_dim, pixels]."""
    matrix = tiny.normal(4, 8, 8 * 8 * 3)

    def synthesize(generator, w_plus):
        return (w_plus[:, 0] @ matrix).reshape(-1, 8, 8, 3)

    monkeypatch.setattr(generators, "synthesize", synthesize)
    monkeypatch.setattr(generators, "map_latents", lambda generator, z, label: z)
    return matrix


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_a_linear_generator_changes_by_its_matrix(monkeypatch, sampling) -> None:
    matrix = linear_generator(monkeypatch)
    generator = tiny.generator()
    draws = path_length.draw(jax.random.key(0), generator.config, batch_size=5)
    found = path_length.path_length_distances(
        generator,
        lambda image: image.reshape(len(image), -1),
        draws,
        config=PathLengthConfig(epsilon=0.1, sampling=sampling),
    )
    step = 127.5 * (draws.end - draws.start) @ matrix
    np.testing.assert_allclose(found, jnp.sum(step**2, axis=1), rtol=1e-4)


def test_draws_come_from_the_key_and_noise_is_shared() -> None:
    config = tiny.generator().config
    first, again, other = (
        path_length.draw(jax.random.key(seed), config, batch_size=3)
        for seed in (0, 0, 1)
    )
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first, again)
    assert all(jax.tree.leaves(same))
    differs = jax.tree.map(lambda a, b: bool((a != b).all()), first, other)
    assert all(jax.tree.leaves(differs))
    assert first.noise.keys() == {
        layer.name for layer in config.style_layout if not layer.is_torgb
    }
    assert all(x.shape[0] == x.shape[1] for x in first.noise.values())


def test_runs_of_draws_are_vmapped() -> None:
    generator = tiny.generator()
    keys = jax.random.split(jax.random.key(0), 2)

    def measure(key: jax.Array) -> jax.Array:
        draws = path_length.draw(key, generator.config, batch_size=2)
        return path_length.path_length_distances(
            generator,
            lambda image: image.reshape(len(image), -1),
            draws,
            config=PathLengthConfig(epsilon=0.01),
        )

    together = jax.jit(jax.vmap(measure))(keys)
    apart = jnp.stack([jax.jit(measure)(key) for key in keys])
    np.testing.assert_allclose(together, apart, rtol=2e-3)


def test_settings_refuse_other_paths() -> None:
    with pytest.raises(UserError, match="space must be one of w, z"):
        PathLengthConfig(space="s")
    with pytest.raises(UserError, match="epsilon must be above 0"):
        PathLengthConfig(epsilon=0)
