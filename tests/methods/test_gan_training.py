"""Adversarial training: lazy phases, averages, devices, draws."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import parallel
from styleclip_jax.errors import UserError
from styleclip_jax.methods import gan_draws, gan_training
from styleclip_jax.methods.gan_training import State
from styleclip_jax.models import param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.settings.gan_training import GanTrainingConfig
from tests import gan_runs, golden_data

# Settings of regularizations that are not lazy.
EACH_STEP = {"r1_interval": 1, "path_interval": 1}


@pytest.mark.slow
def test_lazy_regularization_equals_the_full_one_in_expectation() -> None:
    """Of k steps one has it, k times over; so the mean of k steps has it once."""
    problem, state, reals, fakes, direction = gan_runs.small()
    once, start = gan_runs.recording(problem, state, **EACH_STEP)
    # 16 and 4 steps.
    lazy, _ = gan_runs.recording(problem, state)
    for phase, batch, name, interval in (
        (gan_training.regularize_generator, (fakes, direction), "paths", 4),
        (gan_training.regularize_discriminator, (reals,), "r1", 16),
    ):
        schedules = [gan_training.schedule(i, problem=lazy) for i in range(interval)]
        assert [name in x for x in schedules] == [True] + [False] * (interval - 1)
        assert name in gan_training.schedule(interval, problem=lazy)
        full, _ = gan_runs.jitted(phase, once)(start, *batch)
        rare, _ = gan_runs.jitted(phase, lazy)(start, *batch)
        for field in ("generator_optimizer", "discriminator_optimizer"):
            gradient = getattr(rare, field).gradient
            mean = jax.tree.map(lambda x, k=interval: np.asarray(x) / k, gradient)
            expected = jax.tree.leaves(getattr(full, field).gradient)
            for a, b in zip(jax.tree.leaves(mean), expected, strict=True):
                golden_data.assert_near(a, b, 1e-5)


def test_weights_zero_leave_their_phases_out() -> None:
    problem = gan_runs.small().problem
    settings = problem.settings.replace(r1_gamma=0.0, path_weight=0.0)
    problem = problem._replace(settings=settings)
    assert gan_training.schedule(0, problem=problem) == ("generator", "discriminator")


def test_averaged_weights_have_their_closed_form() -> None:
    """With constant latest weights p, all that is left of the start is Πβ."""
    problem, start = gan_runs.small()[:2]
    settings = problem.settings.replace(ema_images=40.0, ema_ramp_up=None)
    problem = gan_training.official(problem.generator, problem.discriminator, settings)
    other = jax.tree.map(lambda x: np.asarray(x) + 1, start.generator)
    state = start = start._replace(averaged=other)
    for _ in range(5):
        state = gan_runs.jitted(gan_training.average, problem)(state, 16)
    assert state.images == 80
    # 80 images are two half-lives.
    name = "synthesis/b8/conv0/kernel"
    latest, first, found = (
        param_trees.flatten(x)[name]
        for x in (state.generator, start.averaged, state.averaged)
    )
    golden_data.assert_near(found, latest + (first - latest) / 4)
    noise = "synthesis/b8/conv0/noise_const"
    np.testing.assert_array_equal(
        param_trees.flatten(state.averaged)[noise],
        param_trees.flatten(state.generator)[noise],
    )
    ramped = settings.replace(ema_ramp_up=0.05)
    decay = gan_training.ema_decay(jnp.int32(320), 16, settings=ramped)
    np.testing.assert_allclose(decay, 0.5, rtol=1e-6)


@pytest.mark.slow
def test_devices_give_the_losses_of_one() -> None:
    """For the same batch, whose groups of two are each within a device.

    Two devices give those of four, see train/test_stylegan2.py.
    """
    problem, state, *batch = gan_runs.small()
    problem, start = gan_runs.recording(problem, state, **EACH_STEP)
    count = 4

    def step(prepare: Callable[..., Any], state: State, batch: Any) -> Any:
        reals, fakes, direction = batch
        found = []
        for phase, inputs in (
            (gan_training.train_generator, (fakes,)),
            (gan_training.regularize_generator, (fakes, direction)),
            (gan_training.train_discriminator, (reals, fakes)),
            (gan_training.regularize_discriminator, (reals,)),
        ):
            state, figures = prepare(phase, problem)(state, *inputs)
            found.append(figures)
        return state, found

    # Two of these programs are those of the test of lazy phases.
    alone, expected = step(gan_runs.jitted, start, batch)

    def split(x: jax.Array) -> np.ndarray:
        # The members m and m + 4 of a group go to the same device.
        found = np.asarray(x).reshape(2, count, -1, *x.shape[1:]).swapaxes(0, 1)
        return found.reshape(count, -1, *x.shape[1:])

    def sharing(phase: Callable[..., Any], problem: Any) -> Callable[..., Any]:
        return functools.partial(phase, problem=problem, axis_name=parallel.AXIS)

    mapped = parallel.map_devices(
        functools.partial(step, sharing), 1, devices=jax.devices()[:count]
    )
    shared, found = mapped(start, jax.tree.map(split, batch))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(shared.path_mean, alone.path_mean, rtol=1e-4)
    w_avg = shared.generator["mapping"]["w_avg"]
    np.testing.assert_allclose(w_avg, alone.generator["mapping"]["w_avg"], atol=1e-5)


def test_images_are_augmented_before_the_discriminator_sees_them() -> None:
    """A factor of 2 before it is one of 2 in gradients by images, 4 in R1."""
    problem, state, reals, _, _ = gan_runs.small()
    problem, start = gan_runs.recording(problem, state)
    double = functools.partial(
        gan_training.regularize_discriminator,
        augment=lambda image, factor: image * factor,
    )
    half = reals._replace(image=reals.image / 2, augment=jnp.float32(2))
    _, plain = gan_runs.jitted(gan_training.regularize_discriminator, problem)(
        start, reals
    )
    _, found = gan_runs.jitted(double, problem)(start, half)
    np.testing.assert_allclose(found["real_logit"], plain["real_logit"], rtol=1e-5)
    expected = 4 * plain["r1_penalty"]
    np.testing.assert_allclose(found["r1_penalty"], expected, rtol=1e-4)


def test_draws_mix_late_rows_as_often_as_asked() -> None:
    config = gan_runs.small().problem.generator
    generator = Network(gan_runs.small().state.generator, config)
    keys = jax.random.split(jax.random.key(0), 400)
    draw = functools.partial(gan_draws.draw_fakes, config=config, count=2)
    mixes = functools.partial(draw, style_mixing=0.9)
    cutoffs = jax.jit(jax.vmap(lambda key: mixes(key).cutoff[0]))(keys)
    cutoffs = np.asarray(cutoffs)
    share = np.mean(cutoffs < config.num_rows)
    assert share == pytest.approx(0.9, abs=0.06)
    assert set(cutoffs.tolist()) == set(range(1, config.num_rows + 1))

    fakes = jax.jit(mixes)(keys[0])._replace(cutoff=np.array([2, config.num_rows]))
    w_plus, mean_w = map(np.asarray, jax.jit(gan_draws.map_fakes)(generator, fakes))
    same = np.all(w_plus == w_plus[:, :1], axis=2)
    expected = np.array([[True] * 2 + [False] * 2, [True] * 4])
    np.testing.assert_array_equal(same, expected)
    np.testing.assert_allclose(mean_w, np.mean(w_plus[:, 0], axis=0), rtol=1e-5)
    shapes = {name: x.shape for name, x in fakes.noise.items()}
    assert shapes["b4/conv1"] == (2, 4, 4)
    assert shapes["b8/conv0"] == (2, 8, 8)


def test_gradients_that_are_not_finite_move_nothing_far() -> None:
    problem, state, reals, _, _ = gan_runs.small()
    problem, start = gan_runs.recording(problem, state)
    broken = reals._replace(image=jnp.full_like(reals.image, jnp.nan))
    phase = gan_runs.jitted(gan_training.regularize_discriminator, problem)
    state, figures = phase(start, broken)
    assert not jnp.isfinite(figures["r1_penalty"])
    for a, b in zip(
        jax.tree.leaves(state.discriminator),
        jax.tree.leaves(start.discriminator),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "mine"}, "recipe must be one of nvidia, rosinality"),
        ({"r1_interval": 0}, "r1_interval must be at least 1"),
        ({"ema_ramp_up": -1.0}, "ema_ramp_up must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        GanTrainingConfig(**change)
