"""StyleMC and essences: what a direction is learned from, and that it is approached."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import losses
from styleclip_jax.methods import essence, stylemc
from styleclip_jax.models import stylegan2
from tests import tiny

LAYOUT = tiny.GENERATOR.style_layout


@pytest.mark.slow
def test_loss_falls_for_all_faces(networks: losses.Networks) -> None:
    config = stylemc.StyleMCConfig(steps=8, l2_lambda=0.0, resolution=4)
    problem = stylemc.official(config, LAYOUT)
    styles = stylegan2.to_styles(networks.generator, tiny.w_plus(3))
    source = stylemc.describe(networks, styles, problem=problem)
    faces = stylemc.Faces(source, tiny.text_features(1)[0], None)
    step = jax.jit(functools.partial(stylemc.step, problem=problem))
    state = stylemc.start(problem=problem)
    for _ in range(problem.steps):
        state = step(networks, faces, state)
    history = state.history["clip"]
    assert history[-1] < history[0] - 0.01
    assert state.failed_at == -1


@pytest.mark.parametrize(
    ("size", "expected"), [(8, 8), (32, 32), (64, 32), (256, 64), (1024, 256)]
)
def test_resolution_is_a_quarter_but_not_below_32(size: int, expected: int) -> None:
    channels = (8,) * (size.bit_length() - 2)
    config = stylegan2.GeneratorConfig(resolution=size, channels=channels)
    layout = config.style_layout
    assert stylemc.official(stylemc.StyleMCConfig(), layout).resolution == expected


def test_consistency_is_of_steps_that_go_one_way() -> None:
    def distance(*steps: tuple[float, float]) -> np.ndarray:
        step = jnp.array(steps)
        return np.asarray(essence.inconsistency(step))

    np.testing.assert_allclose(distance((1, 0), (3, 0)), 0, atol=1e-6)
    np.testing.assert_allclose(distance((1, 0), (0, 2)), 1, atol=1e-6)
    np.testing.assert_allclose(distance((1, 0), (-1, 0), (1, 0)), [1, 2, 1], atol=1e-6)
    # Short steps count in proportion, and none at all is no number's end.
    np.testing.assert_allclose(distance((0.05, 0), (1, 0)), 0.5, atol=1e-6)
    gradient = jax.grad(lambda x: essence.inconsistency(x).sum())(jnp.zeros((2, 2)))
    assert np.isfinite(gradient).all()
