"""Pivotal tuning: ten steps of the official code, and its ends."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import generator_names
from convert import stylegan2 as convert_stylegan2
from styleclip_jax.io import torch_files
from styleclip_jax.methods import pivotal_tuning
from styleclip_jax.methods.perception import Perception
from styleclip_jax.methods.projection import Networks
from styleclip_jax.models import generators, lpips, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.settings.tuning import TuningConfig
from tests import golden_data, golden_networks, tiny
from tests.golden_data import to_nhwc

CASE = golden_data.Case("pti")
# The official rate; the official runs take all their steps.
CONFIG = TuningConfig(tune_steps=10, tune_rate=3e-4, tune_ramp_up=0, tune_ramp_down=0)
LOCALITY = CONFIG.replace(locality_lambda=0.1)
PHOTO = to_nhwc(CASE["target"])[0]


def generator_of(name: str) -> Network:
    file = torch_files.read(CASE.folder / name)
    return golden_networks.network_of(convert_stylegan2.convert(file))


@functools.cache
def networks() -> Networks:
    generator = generator_of("network-snapshot-tiny.pkl")
    return Networks(generator, Perception(golden_networks.alexnet(), lpips.features))


@jax.jit
def advance(state: pivotal_tuning.State, z: jax.Array) -> pivotal_tuning.State:
    """State after a step."""
    return pivotal_tuning.step(networks(), state, z, config=LOCALITY)


@functools.cache
def tiny_networks() -> Networks:
    """Networks without a perception."""
    return Networks(tiny.generator(), None)


@functools.cache
def trajectory(name: str) -> tuple[Any, pivotal_tuning.State]:
    """Gradient of the first step, and the state after the last one."""
    pivot = CASE["w_pivot_plus" if name == "locality_wplus" else "w_pivot"][0]
    run = jax.jit(functools.partial(pivotal_tuning.start, config=LOCALITY))
    state, first = run(networks(), PHOTO, pivot, jax.random.key(0)), None
    for z in CASE["z_samples"]:
        state = advance(state, z)
        # Adam's moment holds a tenth of the first gradient.
        first = first or jax.tree.map(lambda x: 10 * x, state.optimizer[0].mu)
    return first, state


@pytest.mark.slow
@pytest.mark.parametrize("name", ["locality", "locality_wplus"])
def test_ten_steps_are_the_official_ones(name: str) -> None:
    gradient, state = trajectory(name)
    terms = ("l2", "lpips", "locality", "total")
    CASE.check(f"{name}.losses", np.stack([state.history[x] for x in terms], axis=1))
    table = generator_names.NVIDIA
    golden_networks.check_tensors(
        CASE, table, {"synthesis": gradient}, f"{name}.grad_step0."
    )
    CASE.check(
        f"{name}.image_final",
        pivotal_tuning.finish(networks(), state).image[None],
        to_nhwc,
    )
    before = param_trees.flatten(networks().generator.params)
    after = param_trees.flatten({"synthesis": state.weights})
    allowed = CASE.meta["trajectory_tolerances"][name]["suggested_change_rel_l2"]
    error = size = 0.0
    for official in CASE.arrays:
        if not official.startswith(f"{name}.final."):
            continue
        short = official.removeprefix(f"{name}.final.")
        rule, target = golden_networks.target_of(table, short)
        assert rule is not None
        expected = rule.transform(CASE[official] - CASE[f"start.{short}"])
        error += float(np.sum((after[target] - before[target] - expected) ** 2))
        size += float(np.sum(expected**2))
    assert size > 0
    assert (error / size) ** 0.5 <= allowed
    assert (state.step, state.failed_at) == (10, -1)


@pytest.mark.slow
def test_a_run_with_locality_ends_at_the_file_that_pti_saved() -> None:
    _, state = trajectory("locality")
    saved = generator_of("model_TINY_image.pt")
    before = param_trees.flatten(networks().generator.params)
    after = param_trees.flatten({"synthesis": state.weights})
    for name, expected in param_trees.flatten(saved.params).items():
        moved = np.abs(after.get(name, before[name]) - before[name]).max()
        np.testing.assert_allclose(
            after.get(name, before[name]), expected, atol=max(0.05 * moved, 1e-7)
        )


@pytest.mark.slow
def test_tuning_ends_before_the_step_whose_image_is_near_enough() -> None:
    about = CASE.meta["threshold_case"]
    config = CONFIG.replace(tune_threshold=about["LPIPS_value_threshold"])
    run = functools.partial(pivotal_tuning.tune, config=config)
    found = jax.jit(run)(networks(), PHOTO, CASE["w_pivot"][0], jax.random.key(0))
    taken = about["steps_taken"]
    assert found.num_steps == taken
    expected = about["lpips"][: taken + 1] + [np.nan] * (9 - taken)
    np.testing.assert_allclose(found.history["lpips"], expected, rtol=2e-4)
    losses = CASE["l2_lpips.losses"][: taken + 1, 0]
    np.testing.assert_allclose(found.history["l2"][: taken + 1], losses, rtol=1e-4)


def known() -> tuple[jax.Array, jax.Array]:
    """Two photos, and pivots that are not theirs."""
    w_plus = tiny.w_plus(4)
    return tiny.render(w_plus[:2]), w_plus[2:]


@pytest.mark.slow
def test_tuned_generators_make_their_photos() -> None:
    config = LOCALITY.replace(tune_steps=60, tune_rate=3e-3)
    photos, pivots = known()
    run = jax.vmap(
        functools.partial(pivotal_tuning.tune, config=config),
        in_axes=(None, 0, 0, None),
    )
    found = jax.jit(run)(tiny_networks(), photos, pivots, jax.random.key(0))
    before, after = (
        jnp.abs(x - photos).mean((1, 2, 3)) for x in (tiny.render(pivots), found.image)
    )
    assert (after < 0.4 * before).all()
    weights = jax.tree.map(lambda x: x[1], found.weights)
    tuned = pivotal_tuning.with_synthesis(tiny.generator(), weights)
    image = generators.synthesize(tuned, pivots[1:])
    np.testing.assert_allclose(found.image[1:], image, atol=1e-5)
    noise = param_trees.flatten(tiny.generator().params["synthesis"])
    for name, x in param_trees.flatten(weights).items():
        assert ("noise_const" in name) == np.array_equal(x, noise[name]), name


def test_maps_of_noise_take_up_what_the_weights_cannot_draw() -> None:
    params = param_trees.flatten(tiny.generator().params)
    params["synthesis/b8/conv1/noise_strength"] = jnp.zeros(())
    generator = Network(param_trees.unflatten(params), tiny.GENERATOR)
    photo, pivot = (x[0] for x in known())
    # Nothing but the maps moves.
    config = CONFIG.replace(tune_rate=0, tune_noise_rate=0.1)
    run = functools.partial(pivotal_tuning.tune, config=config)
    found = jax.jit(run)(Networks(generator, None), photo, pivot, jax.random.key(0))
    before = generators.synthesize(generator, pivot[None])[0]
    # A map that had no strength begins as zeros, and the image as it was.
    np.testing.assert_allclose(
        found.history["l2"][0], jnp.mean(jnp.square(before - photo)), rtol=1e-5
    )
    assert found.history["l2"][-1] < 0.9 * found.history["l2"][0]
    after = param_trees.flatten({"synthesis": found.weights})
    moved = {n for n, x in after.items() if not np.array_equal(x, params[n])}
    maps = {n for n in after if n.endswith("noise_const")}
    assert moved == {*maps, "synthesis/b8/conv1/noise_strength"}


def test_looks_at_the_locality_come_at_intervals() -> None:
    config = LOCALITY.replace(locality_interval=3, tune_steps=6)
    run = functools.partial(pivotal_tuning.tune, config=config)
    photos, pivots = known()
    found = jax.jit(run)(tiny_networks(), photos[0], pivots[0], jax.random.key(0))
    # At the first step the tuned generator is still the original.
    looked = np.flatnonzero(np.asarray(found.history["locality"]) > 1e-7)
    assert looked.tolist() == [1, 4]


def test_weights_stay_from_a_failure_on() -> None:
    photos, pivots = known()
    run = functools.partial(pivotal_tuning.tune, config=CONFIG.replace(tune_steps=2))
    broken = jnp.full_like(photos[0], jnp.nan)
    found = jax.jit(run)(tiny_networks(), broken, pivots[0], jax.random.key(0))
    assert (found.failed_at, found.num_steps) == (0, 0)
    before = tiny.generator().params["synthesis"]
    jax.tree.map(np.testing.assert_array_equal, found.weights, before)


def test_photos_of_another_size_are_refused() -> None:
    photo, pivot, key = jnp.zeros((4, 4, 3)), known()[1][0], jax.random.key(0)
    with pytest.raises(ValueError, match=r"\[8, 8, 3\], found \[4, 4, 3\]"):
        pivotal_tuning.start(tiny_networks(), photo, pivot, key, config=CONFIG)
