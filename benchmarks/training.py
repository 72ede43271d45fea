"""How long would StyleGAN2's training take, and how much memory, on 8 accelerators?

  python -m benchmarks.training --sizes=256,1024

Nothing runs and nothing is compiled: the phases of a step are traced at full width and
lowered for CUDA, whose operations are counted. A step's are those of its phases by how
often each has its turn. Memory is what the state takes, and what a phase holds at most
if its program runs as it is written, with nothing fused or computed twice: an upper
bound.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from styleclip_jax.methods import gan_draws, gan_training
from styleclip_jax.models import discriminator, stylegan2
from styleclip_jax.settings.generator_training import RecipeSettings
from train import generator_recipes

SIZES = flags.DEFINE_list("sizes", ["256", "1024"], "Widths of images.")
CONFIG = flags.DEFINE_enum("config", "auto", ["auto", "f", "e"], "Recipe.")
PER_DEVICE = flags.DEFINE_integer("per_device", 4, "Images per device.")

DEVICES = 8
# Operations per second of an H100: a tenth and a fifth of what it does in bfloat16.
RATES = {"100 TFLOP/s": 100e12, "200 TFLOP/s": 200e12}


class Cost(NamedTuple):
    """Cost of a training on each device.

    Attributes:
      flops: operations of a step by phase, in each step that has it.
      turns: share of steps that have it.
      state: bytes of weights, averages and moments.
      peak: bytes that a phase holds beside them at most, by phase.
    """

    flops: dict[str, float]
    turns: dict[str, float]
    state: int
    peak: dict[str, int]

    @property
    def per_step(self) -> float:
        """Operations of a mean step."""
        return sum(self.flops[name] * self.turns[name] for name in self.flops)


def cost_of(problem: gan_training.Problem, batch: int) -> Cost:
    """Cost of a training by so many images on a device."""
    size = problem.generator.resolution

    def inputs() -> Any:
        key = jax.random.key(0)
        networks = (
            stylegan2.init(key, problem.generator),
            discriminator.init(key, problem.discriminator),
        )
        count = gan_training.path_batch(batch, problem=problem)
        fakes = [
            gan_draws.draw_fakes(key, problem.generator, n, style_mixing=0.9)
            for n in (batch, count)
        ]
        images = [jnp.zeros((n, size, size, 3)) for n in (batch, count)]
        return gan_training.start(*networks, problem=problem), *fakes, *images

    state, fakes, few, image, direction = jax.eval_shape(inputs)
    reals = gan_draws.Reals(image)
    batches: dict[str, Any] = {
        gan_training.GENERATOR: (fakes,),
        gan_training.PATHS: (few, direction),
        gan_training.DISCRIMINATOR: (reals, fakes),
        gan_training.R1: (reals,),
    }
    settings = problem.settings
    every = {
        gan_training.PATHS: settings.path_interval,
        gan_training.R1: settings.r1_interval,
    }
    flops, peak = {}, {}
    for name, given in batches.items():
        step = functools.partial(gan_training.PHASES[name], problem=problem)
        traced = jax.jit(step).trace(state, *given)
        lowered = traced.lower(lowering_platforms=("cuda",))
        flops[name] = lowered.cost_analysis()["flops"]
        peak[name] = held(traced.jaxpr.jaxpr) - size_of(state)
    turns = {name: 1 / every.get(name, 1) for name in batches}
    return Cost(flops, turns, size_of(state), peak)


def size_of(tree: Any) -> int:
    """Bytes of arrays."""
    return sum(_bytes(x) for x in jax.tree.leaves(tree))


def _bytes(value: Any) -> int:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
        return 8 * value.size
    return int(np.prod(value.shape)) * np.dtype(value.dtype).itemsize


def held(jaxpr: Any) -> int:
    """Bytes that a program holds at most, each value up to its last use."""
    last: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        last |= dict.fromkeys(_variables(equation.invars), index)
    last |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    ends: dict[int, list[Any]] = {}
    for var, index in last.items():
        ends.setdefault(index, []).append(var)
    now = sum(_bytes(var.aval) for var in (*jaxpr.invars, *jaxpr.constvars))
    most = now
    for index, equation in enumerate(jaxpr.eqns):
        within = max((_extra(inner) for inner in _programs(equation)), default=0)
        made = sum(_bytes(var.aval) for var in equation.outvars if var in last)
        most = max(most, now + max(within, made))
        now += made - sum(_bytes(var.aval) for var in ends.get(index, ()))
    return most


def _extra(jaxpr: Any) -> int:
    """Bytes that a program holds beside its arguments."""
    return held(jaxpr) - sum(_bytes(var.aval) for var in jaxpr.invars)


def _variables(atoms: Any) -> Iterator[Any]:
    return (x for x in atoms if isinstance(x, jax.extend.core.Var))


def _programs(equation: Any) -> Iterator[Any]:
    """Programs within an equation."""
    for value in jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
    ):
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner


def problem_of(config: str, resolution: int, per_device: int) -> gan_training.Problem:
    """Problem of a recipe, whose weights are nothing but shapes."""
    found = []

    def make() -> Any:
        recipe = generator_recipes.make(
            RecipeSettings(config=config),
            resolution=resolution,
            c_dim=0,
            batch_size=DEVICES * per_device,
            per_device=per_device,
            seed=0,
        )
        found.append(recipe.problem)
        return recipe.generator

    jax.eval_shape(make)
    return found[0]


def main(_: list[str]) -> None:
    """Prints a row for each resolution."""
    columns = ["size", "images per device", "GFLOP per image", *RATES]
    columns += ["state GB", "phase GB at most"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for resolution in map(int, SIZES.value):
        each = PER_DEVICE.value
        cost = cost_of(problem_of(CONFIG.value, resolution, each), each)
        per_image = cost.per_step / each
        cells = [f"{resolution}²", str(each), f"{per_image / 1e9:.0f}"]
        cells += [f"{DEVICES * rate / per_image:.0f}" for rate in RATES.values()]
        cells += [f"{cost.state / 1e9:.2f}", f"{max(cost.peak.values()) / 1e9:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
