"""Latent optimization: what moves, what stays, and variants as arguments."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from styleclip_jax import losses
from styleclip_jax.methods import optimization
from styleclip_jax.models import stylegan2
from tests import tiny

STEPS = 12


# Latents of most runs, which share their programs.
COUNT = 4


def official(**options: Any) -> optimization.Problem:
    options = {"steps": STEPS, "learning_rate": 0.05, "film_frames": 5, **options}
    return optimization.official(optimization.OptimizationConfig(**options))


def program(problem: optimization.Problem) -> Any:
    """(networks, latents, texts) → result, compiled."""
    one = functools.partial(optimization.optimize, problem=problem)
    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))


@functools.cache
def official_program(**options: Any) -> Any:
    return program(official(**options))


def test_loss_falls_and_prompts_differ(networks: losses.Networks) -> None:
    text = tiny.text_features(COUNT)
    same = jnp.repeat(tiny.w_plus(1), COUNT, axis=0)
    result = official_program(l2_lambda=0.0)(networks, same, text)
    assert (result.terms["clip"] < result.history["clip"][:, 0]).all()
    assert jnp.abs(result.latent[0] - result.latent[1]).max() > 1e-3


@pytest.mark.slow
def test_result_is_the_same_alone_and_in_any_batch(networks: losses.Networks) -> None:
    w_plus, text = tiny.w_plus(COUNT), tiny.text_features(COUNT)
    batch = official_program()(networks, w_plus, text)
    part = official_program()(networks, w_plus[:1], text[:1])
    np.testing.assert_allclose(part.latent, batch.latent[:1], atol=1e-4)
    np.testing.assert_allclose(part.image, batch.image[:1], atol=1e-4)


@pytest.mark.slow
def test_single_steps_equal_the_whole_loop(networks: losses.Networks) -> None:
    latent, text = tiny.w_plus(1), tiny.text_features(1)
    whole = official_program()(networks, latent, text)
    start, step, finish = (
        jax.jit(functools.partial(function, problem=official()))
        for function in (optimization.start, optimization.step, optimization.finish)
    )
    state = start(networks, latent[0], text[0])
    for _ in range(STEPS):
        state = step(networks, state)
    parts = finish(networks, state)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a[0], b, atol=1e-5)
    assert step._cache_size() == 1


@pytest.mark.slow
def test_several_steps_in_a_call_equal_single_ones(networks: losses.Networks) -> None:
    """States are used up, not copied, and one program takes all steps and batches."""
    problem = official(keep_best=True, steps=16)
    results = []
    for stride in (1, 8):
        parts = optimization.compiled(problem, sharding=None, stride=stride)
        for seed in range(2):
            latent, text = tiny.w_plus(COUNT) + seed, tiny.text_features(1)[0]
            state = parts.start(networks, latent, text)
            for _ in range(problem.steps // stride):
                used, state = state, parts.step(networks, state)
                assert all(leaf.is_deleted() for leaf in jax.tree.leaves(used))
        assert parts.step._cache_size() == 1
        results.append(parts.finish(networks, state))
    for one, eight in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-6, atol=1e-5)
    assert np.ptp(results[1].history["total"], axis=1).min() > 1e-3
    with pytest.raises(ValueError, match="expected a divisor of 16 steps, found 3"):
        optimization.compiled(problem, sharding=None, stride=3)


@pytest.mark.slow
def test_torgb_vectors_stay_in_s(networks: losses.Networks) -> None:
    generator = networks.generator
    styles = stylegan2.to_styles(generator, tiny.w_plus(2))
    # An optimizer that also moves leaves without a gradient must not move these.
    problem = official(space="s")._replace(
        optimizer=optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))
    )
    result = program(problem)(networks, styles, tiny.text_features(2))
    for layer, before, after in zip(
        generator.config.style_layout, styles, result.latent, strict=True
    ):
        if layer.is_torgb:
            np.testing.assert_array_equal(before, after)
        else:
            assert jnp.abs(before - after).max() > 1e-3


@pytest.mark.slow
def test_l2_holds_the_latent_back(networks: losses.Networks) -> None:
    w_plus, text = tiny.w_plus(COUNT), tiny.text_features(COUNT)
    free = official_program(l2_lambda=0.0)(networks, w_plus, text).terms
    held = official_program(l2_lambda=10.0)(networks, w_plus, text)
    assert "l2" in free
    assert (held.terms["l2"] < 0.5 * free["l2"]).all()
    distance = jnp.sum((held.latent - w_plus) ** 2, axis=(1, 2))
    np.testing.assert_allclose(held.terms["l2"], distance, rtol=1e-5)
    total = held.terms["clip"] + 10 * held.terms["l2"]
    np.testing.assert_allclose(held.terms["total"], total, rtol=1e-5)


def test_free_generation_follows_the_text_alone() -> None:
    assert list(official(mode="free_generation").objective) == ["clip"]


def test_a_variant_is_a_function(networks: losses.Networks) -> None:
    def darkness(networks: losses.Networks, edit: losses.Edit) -> jax.Array:
        return jnp.mean(edit.image, axis=(1, 2, 3))

    problem = official()._replace(
        objective={"dark": (1.0, darkness)}, optimizer=optax.sgd(1.0)
    )
    result = program(problem)(networks, tiny.w_plus(2), tiny.text_features(2))
    assert (result.terms["dark"] < result.history["dark"][:, 0]).all()
    assert set(result.terms) == {"dark", "total"}


@pytest.mark.slow
def test_broken_latents_leave_the_others_alone(networks: losses.Networks) -> None:
    def fuse(networks: losses.Networks, edit: losses.Edit) -> jax.Array:
        """Breaks latents whose source has 7 as a mark, or 8 as soon as they move."""
        moved = jnp.abs(edit.latent - edit.source.latent).max(axis=(1, 2)) > 0
        mark = edit.source.latent[:, 0, 0]
        return jnp.where((mark == 7) | ((mark == 8) & moved), jnp.nan, 0.0)

    w_plus = tiny.w_plus(COUNT).at[1, 0, 0].set(7).at[2, 0, 0].set(8)
    text, problem = tiny.text_features(COUNT), official()
    healthy = official_program()(networks, w_plus, text)
    objective = {**problem.objective, "fuse": (1.0, fuse)}
    result = program(problem._replace(objective=objective))(networks, w_plus, text)
    for i in (0, 3):
        np.testing.assert_allclose(result.latent[i], healthy.latent[i], atol=1e-5)
    # Rate 0 at step 0 moves nothing, so the fuse blows at step 2 at the earliest.
    np.testing.assert_array_equal(result.failed_at, [-1, 0, 2, -1])
    assert jnp.isfinite(result.latent).all()


@pytest.mark.slow
def test_nan_latent_is_reported(networks: losses.Networks) -> None:
    w_plus = tiny.w_plus(COUNT).at[0].set(jnp.nan)
    result = official_program()(networks, w_plus, tiny.text_features(COUNT))
    np.testing.assert_array_equal(result.failed_at, [0, -1, -1, -1])
    assert jnp.isfinite(result.latent[1:]).all()


@pytest.mark.slow
def test_keep_best_returns_the_lowest_loss(networks: losses.Networks) -> None:
    w_plus, text = tiny.w_plus(2), tiny.text_features(2)
    wild = optax.sgd(lambda step: -3.0 * (step > 6))
    problem = official(keep_best=True)._replace(optimizer=wild)
    best = program(problem)(networks, w_plus, text)
    last = program(problem._replace(keep_best=False))(networks, w_plus, text)
    np.testing.assert_allclose(
        best.terms["total"],
        jnp.minimum(best.history["total"].min(axis=1), last.terms["total"]),
        rtol=1e-4,
    )
    assert (best.terms["total"] < last.terms["total"]).any()


@pytest.mark.slow
def test_film_ends_with_the_last_latent(networks: losses.Networks) -> None:
    w_plus, text = tiny.w_plus(COUNT), tiny.text_features(COUNT)
    result = official_program()(networks, w_plus, text)
    assert result.film.shape == (COUNT, 5, *result.latent.shape[1:])
    np.testing.assert_array_equal(result.film[:, -1], result.latent)
    assert jnp.abs(result.film[:, 0] - result.film[:, 2]).max() > 1e-4


@pytest.mark.parametrize(
    "change",
    [
        {"space": "z"},
        {"mode": "dream"},
        {"steps": 0},
        {"film_frames": 99},
        {"learning_rate": -1.0},
        {"l2_lambda": float("nan")},
        {"clip_preprocess": "none"},
    ],
)
def test_configurations_are_checked(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=f"^{name} must be .*found"):
        official(**change)


@pytest.mark.parametrize("space", ["w_plus", "s"])
def test_optimizers_that_search_along_their_step_get_the_loss(
    networks: losses.Networks, space: str
) -> None:
    config = optimization.OptimizationConfig(space=space, steps=3, l2_lambda=0.01)
    problem = optimization.official(config)._replace(optimizer=optax.lbfgs())
    latent: Any = tiny.w_plus(1)
    if space == "s":
        latent = stylegan2.to_styles(networks.generator, latent)
    latent = jax.tree.map(lambda x: x[0], latent)
    run = jax.jit(functools.partial(optimization.optimize, problem=problem))
    found = run(networks, latent, tiny.text_features(1)[0])
    total = np.asarray(found.history["total"])
    # The search takes no step that does not lower the loss.
    assert found.failed_at == -1
    assert found.terms["total"] < total[2] < total[1] < total[0]


def test_latents_in_float64_are_optimized(networks: losses.Networks) -> None:
    problem = optimization.official(optimization.OptimizationConfig(steps=2))
    text = np.asarray(tiny.text_features(1)[0])
    single = np.asarray(tiny.w_plus(1)[0])
    run = jax.jit(functools.partial(optimization.optimize, problem=problem))
    expected = run(networks, single, text)
    with jax.enable_x64(True):
        found = run(networks, jnp.asarray(single, jnp.float64), text)
        assert found.latent.dtype == jnp.float64
        assert found.terms["total"].dtype == jnp.float32
        np.testing.assert_allclose(found.latent, expected.latent, atol=1e-5)
