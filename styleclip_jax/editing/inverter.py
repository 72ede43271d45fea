"""Inverter: batches of faces through encoder and optimization, with progress."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from styleclip_jax import losses
from styleclip_jax.editing import editors
from styleclip_jax.errors import UserError
from styleclip_jax.methods import encoding, inversion, optimization
from styleclip_jax.models.network import Network
from styleclip_jax.photos.crops import Crops
from styleclip_jax.progress import Pace, Report, ignore, take_steps
from styleclip_jax.settings.projection import ProjectionConfig

# What is quicker than an inversion, by names of fields.
QUICKER = "fewer w_steps and refine_steps, or an encoder"
# Steps of each phase that tell how long and how large all are.
_PROBED = 2


class Inverter(NamedTuple):
    """Inverter of batches of faces.

    Attributes:
      invert: (faces, report, largest number of steps of a phase or None) → result, of
        which the steps are reported.
      memory: (faces) → bytes on each device that an inversion takes, by the compiler.
    """

    invert: Callable[[Crops, Report, int | None], optimization.Result]
    memory: Callable[[Crops], int]

    def __call__(
        self, crops: Crops, report: Report, most: int | None = None
    ) -> optimization.Result:
        """Inverts faces, perhaps by some steps alone."""
        return self.invert(crops, report, most)

    def probe(self, crops: Crops) -> optimization.Result:
        """Steps of an inversion that take the memory of all."""
        return self(crops, ignore, _PROBED)


def count_steps(
    config: inversion.InversionConfig | ProjectionConfig, encoder: Network | None
) -> int:
    """Number of steps of the inversion of each face.

    Raises:
      UserError: there is neither an encoder nor a step, or the encoder cannot take as
        many passes as are asked for.
    """
    passes = config.encoder_iterations or 1
    if passes > 1 and not (encoder and encoder.config.refines):
        raise UserError(
            "encoder_iterations: expected 1 or none without an encoder that refines "
            f"its latent, such as ReStyle, found {passes}",
            field="encoder_iterations",
            also=["encoder"],
        )
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
    """Inverter of batches of faces, which compiles nothing yet.

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

    def invert(crops: Crops, report: Report, most: int | None) -> optimization.Result:
        def run(
            parts: optimization.Compiled, state: Any, steps: int, report: Report
        ) -> optimization.State:
            about: Any = {"stride": parts.stride, "pace": pace}
            if most is not None:
                steps = min(steps, most * parts.stride)
            return take_steps(parts.step, networks, state, steps, report, **about)

        if encoder is None:
            average = inversion.average(networks.generator)
            state = start_in_w(networks, crops.target, average)
            state = run(in_w, state, first.steps, report)
            state = widen(networks, state)
        else:
            w_plus = encoding.encode(
                networks.generator,
                encoder,
                crops.encoded,
                iterations=config.encoder_iterations,
            )
            state = start(networks, crops.target, w_plus)
        state = run(in_w_plus, state, second.steps, report)
        return in_w_plus.finish(networks, state)

    def memory(crops: Crops) -> int:
        average = inversion.average(networks.generator)
        if encoder is None:
            first: Any = (start_in_w, in_w, average)
        else:
            rows, dim = encoder.config.num_rows, encoder.config.w_dim
            shape = jax.ShapeDtypeStruct(
                (len(crops.encoded), rows, dim), jnp.float32, sharding=sharding
            )
            first = (start, in_w_plus, shape)
        begin, parts, latent = first
        return editors.bytes_of_steps(
            begin, parts, sharding, networks, crops.target, latent
        )

    return Inverter(invert, memory)
