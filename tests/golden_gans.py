"""Golden trainings of StyleGAN2: data, problems, and how far networks came."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from convert import discriminator as convert_discriminator
from convert import generator_names
from convert import stylegan2 as convert_stylegan2
from convert.rules import Rule
from styleclip_jax.io import torch_files
from styleclip_jax.methods import gan_training
from styleclip_jax.methods.gan_draws import Fakes, Reals
from styleclip_jax.methods.gan_training import Figures, Problem, State
from styleclip_jax.models import param_trees
from styleclip_jax.settings.gan_training import GanTrainingConfig
from tests import golden_data, golden_networks
from tests.golden_data import to_nhwc

# Transforms of ADA in the order of their draws.
ORDER = (
    *("xflip", "rotate90", "xint", "scale", "rotate_before", "aniso", "rotate_after"),
    *("xfrac", "brightness", "contrast", "lumaflip", "hue", "saturation"),
)
# Draws are stored times this.
SCALE = 32.0


@dataclasses.dataclass(frozen=True)
class Golden:
    """A golden run: its data, its problem and state, and tables of official names."""

    case: golden_data.Case
    problem: Problem
    state: State
    tables: Mapping[str, Sequence[Rule]]

    def draws(self, prefix: str, count: int) -> Fakes:
        """Draws of a phase of NVIDIA's loop, of its first images."""
        value = self.value
        layers = self.problem.generator.noise_shapes
        names = {x: f"{prefix}.noise_{x[1:].replace('/', '_')}" for x in layers}
        return Fakes(
            value(f"{prefix}.z")[:count],
            value(f"{prefix}.z_mix")[:count],
            self.case[f"{prefix}.cutoff"],
            {layer: value(name)[:count, 0] for layer, name in names.items()},
        )

    def draws_of_rosinality(self, prefix: str) -> Fakes:
        """Draws of a phase of rosinality's loop."""
        z = self.value(f"{prefix}.z")
        layers = self.problem.generator.noise_shapes
        return Fakes(
            z[0],
            z[-1],
            np.asarray(self.case[f"{prefix}.inject_index"]),
            {
                layer: self.value(f"{prefix}.noise_{i}")[:, 0]
                for i, layer in enumerate(layers)
            },
        )

    def value(self, name: str) -> np.ndarray:
        return self.case[name].astype(np.float32) / SCALE

    def direction(self, prefix: str) -> np.ndarray:
        return to_nhwc(self.value(f"{prefix}.pl_noise_raw"))

    def reals(self, step: int) -> Reals:
        index = self.case["traj.real_index"][step]
        return Reals(to_nhwc(self.case["real"][index]))


@functools.cache
def load(name: str) -> Golden:
    case = golden_data.Case(f"stylegan2_losses/{name}")
    file = torch_files.read(case.folder / case.meta["checkpoint"])
    given = case.meta["config"]

    def network(convert: Callable[..., Any], part: str) -> Any:
        found = convert(dataclasses.replace(file, part=part))
        return golden_networks.network_of(found)

    of_nvidia = name != "rosinality"
    names = ("G", "G_ema", "D") if of_nvidia else ("g", "g_ema", "d")
    generator, averaged = (network(convert_stylegan2.convert, x) for x in names[:2])
    judge = network(convert_discriminator.convert, names[2])
    if of_nvidia:
        settings = GanTrainingConfig(
            learning_rate=given["lr"],
            r1_gamma=given["r1_gamma"],
            path_weight=given["pl_weight"],
            path_decay=given["pl_decay"],
            path_batch_shrink=given["pl_batch_shrink"],
            r1_interval=given["D_reg_interval"],
            path_interval=given["G_reg_interval"],
            ema_images=given["ema_kimg"] * 1000,
            ema_ramp_up=given["ema_rampup"],
        )
        tables = (generator_names.NVIDIA, convert_discriminator.NVIDIA)
    else:
        settings = GanTrainingConfig(
            recipe="rosinality",
            learning_rate=given["lr"],
            r1_gamma=given["r1"],
            path_weight=given["path_regularize"],
            path_batch_shrink=given["path_batch_shrink"],
            r1_interval=given["d_reg_every"],
            path_interval=given["g_reg_every"],
        )
        resolution = judge.config.resolution
        of_d = convert_discriminator.rosinality(resolution)
        tables = (generator_names.ROSINALITY, of_d)
    problem = gan_training.official(generator.config, judge.config, settings)
    start = jax.jit(functools.partial(gan_training.start, problem=problem))
    state = start(generator.params, judge.params)
    state = state._replace(averaged=averaged.params)
    return Golden(
        case, problem, state, dict(zip(names, (tables[0], *tables), strict=True))
    )


def difference(before: Any, after: Any) -> Any:
    return jax.tree.map(lambda x, y: np.asarray(x) - y, before, after)


def check_change(golden: Golden, network: str, start: Any, end: Any) -> None:
    """Compares how far the parameters came, by all stored ones together."""
    case, table = golden.case, golden.tables[network]
    first, last = param_trees.flatten(start), param_trees.flatten(end)
    error = length = 0.0
    for name in case.arrays:
        _, _, official = name.partition(f"traj.final.{network}.")
        rule, target = golden_networks.target_of(table, official)
        if not official or rule is None or target is None or "w_avg" in target:
            continue
        expected = rule.transform(case[name])
        error += np.sum((np.asarray(last[target]) - expected) ** 2)
        length += np.sum((expected - np.asarray(first[target])) ** 2)
    assert length
    allowed = case.meta["suggested_change_rel_l2"]
    limit = allowed.get(network, allowed[network[0]])
    assert (error / length) ** 0.5 <= limit
    names = case.meta["parameter_order"][network[0]]
    moved = golden_networks.in_order(table, difference(end, start), names)
    case.check(f"traj.change_norms.{network}", [np.linalg.norm(x) for x in moved])


def values(figures: list[Figures], name: str) -> np.ndarray:
    return np.array([x[name] for x in figures])


def check_nvidia_run(
    golden: Golden, end: State, found: Mapping[str, list[Figures]]
) -> None:
    """Compares the losses of a run of NVIDIA's, and how far its networks came."""
    for name, phase, figure in (
        ("Loss_G_loss", gan_training.GENERATOR, "loss"),
        ("Loss_pl_penalty", gan_training.PATHS, "path_penalty"),
        ("Loss_D_loss", gan_training.DISCRIMINATOR, "loss"),
        ("Loss_r1_penalty", gan_training.R1, "r1_penalty"),
    ):
        golden.case.check(f"traj.{name}", values(found[phase], figure))
    check_changes(golden, end, ("G", "G_ema", "D"))


def check_changes(golden: Golden, end: State, names: Sequence[str]) -> None:
    """Compares how far G, its average and D came, which have these names."""
    start = golden.state
    for network, before, after in zip(
        names,
        (start.generator, start.averaged, start.discriminator),
        (end.generator, end.averaged, end.discriminator),
        strict=True,
    ):
        check_change(golden, network, before, after)
