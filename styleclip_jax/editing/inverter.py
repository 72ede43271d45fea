"""Inverter: batches of faces through encoder and optimization, with progress."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from styleclip_jax import losses
from styleclip_jax.editing import editors
from styleclip_jax.errors import UserError
from styleclip_jax.methods import inversion, optimization
from styleclip_jax.models import e4e
from styleclip_jax.models.network import Network
from styleclip_jax.photos.crops import Crops
from styleclip_jax.progress import Pace, Report, take_steps

# Inverter of a batch of faces, which reports the steps that it has taken.
Inverter = Callable[[Crops, Report], optimization.Result]

# What is quicker than an inversion, by names of fields.
QUICKER = "fewer w_steps and refine_steps, or an encoder"


def count_steps(config: inversion.InversionConfig, encoder: Network | None) -> int:
    """Number of steps of the inversion of each face.

    Raises:
      UserError: there is neither an encoder nor a step.
    """
    steps = config.refine_steps + (0 if encoder else config.w_steps)
    if encoder is None and not steps:
        raise UserError(
            "refine_steps: expected steps where no encoder is given, found 0 and "
            "w_steps=0",
            field="refine_steps",
            also=["encoder", "w_steps"],
        )
    return steps


def inverter(
    networks: losses.Networks,
    encoder: Network | None,
    config: inversion.InversionConfig,
    sharding: jax.sharding.NamedSharding,
) -> Inverter:
    """Inverter of batches of faces, which reports its steps.

    Args:
      networks: generator and CLIP, and the identity network where it has a weight.
      encoder: encoder of the latents to start at; None to start at the average latent
        and go through W before W+.
      config: settings of the inversion.
      sharding: sharding of a batch.
    """
    first, second = inversion.phases(config)
    in_w, in_w_plus = (
        editors.compile_steps(problem, sharding) for problem in (first, second)
    )
    pace = Pace()

    def over_batch(function: Any, problem: Any, *axes: int | None) -> Any:
        one = functools.partial(function, problem=problem)
        return jax.jit(jax.vmap(one, in_axes=axes), out_shardings=sharding)

    start_in_w = over_batch(inversion.start, first, None, 0, None)
    widen = over_batch(inversion.widen, second, None, 0)
    start = over_batch(inversion.start, second, None, 0, 0)
    encode = jax.jit(e4e.encode, out_shardings=sharding)

    def run(
        parts: optimization.Compiled, state: Any, steps: int, report: Report
    ) -> optimization.State:
        about: Any = {"stride": parts.stride, "pace": pace}
        return take_steps(parts.step, networks, state, steps, report, **about)

    def invert(crops: Crops, report: Report) -> optimization.Result:
        if encoder is None:
            average = inversion.average(networks.generator)
            state = start_in_w(networks, crops.target, average)
            state = run(in_w, state, first.steps, report)
            state = widen(networks, state)
        else:
            w_plus = encode(encoder, crops.encoded)
            state = start(networks, crops.target, w_plus)
        state = run(in_w_plus, state, second.steps, report)
        return in_w_plus.finish(networks, state)

    return invert
