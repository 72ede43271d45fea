"""Adversarial training equals the official ones, phase by phase and in a run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.methods import gan_training
from styleclip_jax.methods.gan_draws import Fakes, Reals
from styleclip_jax.methods.gan_training import Figures, State
from styleclip_jax.models import param_trees
from tests import gan_runs, golden_data, golden_networks
from tests.golden_data import to_nhwc
from tests.golden_gans import Golden, check_changes, check_nvidia_run, load, values

pytestmark = pytest.mark.slow


def check_phase(golden: Golden, phase: str, network: str, gradient: Any) -> None:
    """Compares gradients of a phase alone."""
    case, prefix = golden.case, f"static.{phase}."
    table = golden.tables[network]
    golden_networks.check_tensors(case, table, gradient, f"{prefix}grad.")
    names = case.meta["parameter_order"][network]
    ordered = golden_networks.in_order(table, gradient, names)
    case.check(f"{prefix}grad_sums", [x.sum() for x in ordered])
    case.check(f"{prefix}grad_norms", [np.linalg.norm(x) for x in ordered])


def test_phases_alone_have_the_official_gradients() -> None:
    golden = load("nvidia")
    case, size = golden.case, golden.case.meta["config"]["batch"]
    given = jnp.float32(case.meta["config"]["pl_mean_start_static"])
    state = golden.state._replace(path_mean=given)
    problem, start = gan_runs.recording(golden.problem, state)
    fakes = golden.draws("static.Gmain", size)
    state, figures = gan_runs.jitted(gan_training.train_generator, problem)(
        start, fakes
    )
    check_phase(golden, "Gmain", "G", state.generator_optimizer.gradient)
    near(case, "static.Gmain.Loss_G_loss", figures["loss"])
    case.check("static.Gmain.w_avg_after", state.generator["mapping"]["w_avg"])

    fakes = golden.draws("static.Greg", size // 2)
    direction = golden.direction("static.Greg")
    regularize = gan_runs.jitted(gan_training.regularize_generator, problem)
    state, figures = regularize(start, fakes, direction)
    # A lazy phase counts for all steps that do without it.
    gradient = times(1 / problem.settings.path_interval, state.generator_optimizer)
    check_phase(golden, "Greg", "G", gradient)
    near(case, "static.Greg.Loss_pl_penalty", figures["path_penalty"])
    case.check("static.Greg.pl_mean_after", state.path_mean)

    reals = Reals(to_nhwc(case["real"][:size]))
    fakes = golden.draws("static.Dmain", size)
    train = gan_runs.jitted(gan_training.train_discriminator, problem)
    state, figures = train(start, reals, fakes)
    check_phase(golden, "Dmain", "D", state.discriminator_optimizer.gradient)
    near(case, "static.Dmain.Loss_D_loss", figures["loss"])
    near(case, "static.Dmain.Loss_scores_real", figures["real_logit"])
    near(case, "static.Dmain.Loss_scores_fake", figures["fake_logit"])

    regularize = gan_runs.jitted(gan_training.regularize_discriminator, problem)
    state, figures = regularize(start, reals)
    gradient = times(1 / problem.settings.r1_interval, state.discriminator_optimizer)
    check_phase(golden, "Dreg", "D", gradient)
    near(case, "static.Dreg.Loss_r1_penalty", figures["r1_penalty"])


def times(factor: float, recorded: gan_runs.Recorded) -> Any:
    return jax.tree.map(lambda x: factor * np.asarray(x), recorded.gradient)


def near(case: golden_data.Case, name: str, found: Any) -> None:
    """Compares the mean over a batch."""
    tolerance = case.meta["arrays"][name]["suggested_atol"]
    np.testing.assert_allclose(found, case[name].mean(), atol=tolerance)


def run(golden: Golden) -> tuple[State, dict[str, list[Figures]], list[Any]]:
    """Ten steps of a golden run: the last state, figures by phase, path means."""
    problem, state = gan_runs.recording(golden.problem, golden.state)
    given = golden.case.meta["config"]
    of_nvidia = problem.settings.recipe == "nvidia"
    phases = gan_training.PHASES
    steps = {name: gan_runs.jitted(phase, problem) for name, phase in phases.items()}
    average = gan_runs.jitted(gan_training.average, problem)
    means = []
    found: dict[str, list[Figures]] = {name: [] for name in phases}
    paths = gan_training.path_batch(given["batch"], problem=problem)

    def draws(step: int, phase: str) -> Fakes:
        if of_nvidia:
            count = paths if phase == gan_training.PATHS else given["batch"]
            name = {"generator": "Gmain", "paths": "Greg", "discriminator": "Dmain"}
            return golden.draws(f"traj.s{step:02}.{name[phase]}", count)
        name = {"generator": "G", "paths": "PL", "discriminator": "D"}
        return golden.draws_of_rosinality(f"traj.s{step:02}.{name[phase]}")

    for step in range(given["steps"]):
        reals = golden.reals(step)
        for phase in gan_training.schedule(step, problem=problem):
            batch: tuple[Any, ...] = ()
            if phase in (gan_training.DISCRIMINATOR, gan_training.R1):
                batch += (reals,)
            if phase != gan_training.R1:
                batch += (draws(step, phase),)
            if phase == gan_training.PATHS:
                part = "Greg" if of_nvidia else "PL"
                batch += (golden.direction(f"traj.s{step:02}.{part}"),)
            state, figures = steps[phase](state, *batch)
            found[phase].append(figures)
            if phase == gan_training.PATHS:
                means.append(state.path_mean)
        state = average(state, given["batch"])
    return state, found, means


def test_ten_steps_end_where_nvidia_s_do() -> None:
    golden = load("nvidia")
    case = golden.case
    state, found, means = run(golden)
    check_nvidia_run(golden, state, found)
    case.check("traj.pl_mean", means)
    case.check("traj.final.G.mapping.w_avg", state.generator["mapping"]["w_avg"])
    case.check("traj.final.G_ema.mapping.w_avg", state.averaged["mapping"]["w_avg"])
    batch = case.meta["config"]["batch"]
    decays = [golden.problem.ema_decay(jnp.int32(batch * i), batch) for i in range(10)]
    case.check("traj.ema_beta", decays)


def test_ten_steps_end_where_rosinality_s_do() -> None:
    golden = load("rosinality")
    case, start = golden.case, golden.state
    state, found, means = run(golden)
    case.check("traj.g", values(found[gan_training.GENERATOR], "loss"))
    case.check("traj.d", values(found[gan_training.DISCRIMINATOR], "loss"))
    for name in ("real", "fake"):
        logits = values(found[gan_training.DISCRIMINATOR], f"{name}_logit")
        case.check(f"traj.{name}_score", logits)
    # The official code tells the last value again until there is another.
    r1 = values(found[gan_training.R1], "r1_penalty")
    case.check("traj.r1", r1[np.arange(10) // 4])
    case.check("traj.mean_path_length", means)
    check_changes(golden, state, ("g", "g_ema", "d"))
    # Noise is not copied into the average.
    noise = "synthesis/b8/conv0/noise_const"
    kept = param_trees.flatten(state.averaged)[noise]
    np.testing.assert_array_equal(kept, param_trees.flatten(start.averaged)[noise])
