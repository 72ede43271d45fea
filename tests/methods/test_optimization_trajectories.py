"""Latent optimization takes the official code's steps, from the same start."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from styleclip_jax import losses, spaces
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip, stylegan2
from styleclip_jax.ops import norms
from tests import golden_data, golden_networks

CASES = ["wplus_edit_from_z", "free_generation", "wplus_edit", "stylespace_edit"]
encode_text = jax.jit(clip.encode_text)
map_latents = jax.jit(stylegan2.map_latents)


class Run:
    """One recorded run: its start, our problem, and how to compare latents."""

    def __init__(self, name: str) -> None:
        self.case = golden_data.Case(f"optimization_trajectory/{name}")
        config = self.case.meta["config"]
        self.in_s = config["work_in_stylespace"]
        self.problem = optimization.official(
            optimization.OptimizationConfig(
                space="s" if self.in_s else "w_plus",
                mode=config["mode"],
                steps=config["step"],
                learning_rate=config["lr"],
                l2_lambda=config["l2_lambda"],
                id_lambda=config["id_lambda"],
            )
        )
        text = encode_text(golden_networks.of_trajectories().clip, self.case["tokens"])
        self.text = norms.unit(text)[0]
        generator = golden_networks.of_trajectories().generator.config
        self.rows, self.layout = generator.num_rows, generator.style_layout

    def latent(self, name: str) -> Any:
        """A recorded latent, gradient or moment."""
        array = self.case[name]
        if self.in_s:
            return spaces.unflatten_styles(jnp.asarray(array), self.layout)
        # In free generation the script makes 18 rows for any generator.
        return jnp.asarray(array[0, : self.rows])

    def check(self, name: str, found: Any) -> None:
        expected = self.latent(name)
        tolerance = self.case.meta["arrays"][name]["suggested_atol"]
        error = np.concatenate(
            [
                np.abs(a - b).ravel()
                for a, b in zip(
                    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
                )
            ]
        )
        # Adam turns a gradient near zero into a full step either way, so a few
        # entries may differ by more.
        outliers = np.mean(error > tolerance)
        assert outliers <= 0.003, f"{name}: {outliers:.2%} of entries differ"
        assert error.max() <= max(1e-2, tolerance), f"{name}: {error.max():.2g}"

    def start(self) -> Any:
        case, generator = self.case, golden_networks.of_trajectories().generator
        if "z" in case:
            w_plus = spaces.broadcast_w(map_latents(generator, case["z"]), self.rows)
            return spaces.truncate(w_plus, case["mean_latent"][0], 0.7)[0]
        return self.latent("latent_init")

    @functools.cached_property
    def networks(self) -> losses.Networks:
        """What the objective asks for: the face network takes long to compile."""
        used = "identity" in self.problem.objective
        networks = golden_networks.of_trajectories()
        return networks if used else networks.replace(identity=None)

    @functools.cached_property
    def beginning(self) -> optimization.State:
        start = jax.jit(functools.partial(optimization.start, problem=self.problem))
        return start(self.networks, self.start(), self.text)

    def step(self, state: optimization.State) -> optimization.State:
        return self._step(self.networks, state)

    @functools.cached_property
    def _step(self) -> Any:
        return jax.jit(functools.partial(optimization.step, problem=self.problem))


@functools.cache
def run_of(name: str) -> Run:
    return Run(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_losses_of_all_steps_and_the_last_latent(name: str) -> None:
    """Step by step, which equals `optimize` and compiles what the next test needs."""
    run = run_of(name)
    case, problem = run.case, run.problem
    state = run.beginning
    run.check("latent_init", state.latent)
    last = problem.steps - 1
    checked = {n for n in case.meta["arrays"] if n.startswith("latent_after_step_")}
    assert f"latent_after_step_{last:02d}" in checked
    for index in range(problem.steps):
        state = run.step(state)
        if (label := f"latent_after_step_{index:02d}") in checked:
            run.check(label, state.latent)
    terms = {"clip": "c_loss", "l2": "l2_loss", "identity": "id_loss", "total": "loss"}
    # Within 1e-3 of the largest value. Where the official run itself, once in
    # float32 and once in float64, differs by more, the tolerance is its own: in S,
    # and for the identity distance, whose small weight lets it drift.
    for term in state.history:
        expected = case[terms[term]]
        error = np.abs(state.history[term] - expected).max()
        own = case.meta["arrays"][terms[term]]["suggested_atol"]
        own = own if run.in_s or term == "identity" else 0
        assert error <= max(1e-3 * np.abs(expected).max(), own), term


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_single_steps_from_recorded_states(name: str) -> None:
    """Late steps too, where a whole run would have gathered rounding errors."""
    run = run_of(name)
    case, problem, beginning = run.case, run.problem, run.beginning
    # The gradient of a step is ten times the first moment of an empty Adam.
    empty = problem.optimizer.init(beginning.latent)

    names = [n for n in case.meta["arrays"] if n.startswith("forced_losses_step_")]
    assert names
    for name in names:
        index = int(name[-2:])
        recorded = f"before_step_{index:02d}"
        latent = run.latent(f"state_latent_{recorded}")
        moments = optax.ScaleByAdamState(
            count=jnp.asarray(index, jnp.int32),
            mu=run.latent(f"state_exp_avg_{recorded}"),
            nu=run.latent(f"state_exp_avg_sq_{recorded}"),
        )
        _, schedule = beginning.optimizer
        state = beginning._replace(
            step=jnp.asarray(index, jnp.int32),
            latent=latent,
            optimizer=(moments, schedule._replace(count=moments.count)),
        )
        after = run.step(state)
        clip_loss, _, l2_loss, total, _ = case[name]
        atol = case.meta["arrays"][name]["suggested_atol"]
        np.testing.assert_allclose(after.history["clip"][index], clip_loss, atol=atol)
        np.testing.assert_allclose(after.history["total"][index], total, atol=atol)
        if "l2" in problem.objective:
            np.testing.assert_allclose(after.history["l2"][index], l2_loss, rtol=1e-3)

        run.check(f"forced_latent_after_step_{index:02d}", after.latent)

        fresh = state._replace(optimizer=(empty[0], state.optimizer[1]))
        gradient = jax.tree.map(lambda mu: 10 * mu, run.step(fresh).optimizer[0].mu)
        run_gradient = f"forced_grad_step_{index:02d}"
        expected = run.latent(run_gradient)
        difference = optax.tree.norm(optax.tree.sub(gradient, expected))
        assert difference <= 1e-3 * optax.tree.norm(expected), run_gradient
