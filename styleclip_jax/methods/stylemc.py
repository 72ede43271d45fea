"""StyleMC: one direction Δs in S for all faces, learned from a few at low resolution.

  Δs = argmin  mean over faces of  Σ λ_term · term(G(s + Δs), s)

The terms are those of the optimization, where one face has a latent of its own. Only
layers up to the resolution move and run, so a step costs a fraction of an edit's, and
the terms see the image that the generator has there. Whoever learns calls `start` once
and `step` for each step; `global_directions.edit` then moves any face.

Source: Kocasari et al. 2021 (StyleMC).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from styleclip_jax import losses, optimizers, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.methods import global_directions, optimization
from styleclip_jax.methods.global_directions import Direction
from styleclip_jax.models import generators
from styleclip_jax.settings.edits import StyleMCConfig

# Least resolution that is chosen where none is given.
_LEAST = 32


class Problem(NamedTuple):
    """Problem to learn a direction for. A variant is `problem._replace(...)`.

    Attributes:
      objective: {name: (weight, loss)}; losses see all faces as one batch.
      optimizer: any optax transformation.
      steps: number of steps.
      layout: layout of S.
      stop: number of layers that run; the last one is a toRGB layer.
    """

    objective: losses.Objective
    optimizer: optax.GradientTransformation
    steps: int
    layout: tuple[spaces.StyleLayer, ...]
    stop: int

    @property
    def resolution(self) -> int:
        """Resolution of the images that the direction is learned from."""
        return self.layout[self.stop - 1].resolution


def official(config: StyleMCConfig, layout: tuple[spaces.StyleLayer, ...]) -> Problem:
    """Problem with the paper's objective: CLIP, length, and identity where it counts.

    Raises:
      UserError: the generator has no such resolution.
    """
    known = sorted(layer.resolution for layer in layout if layer.is_torgb)
    chosen = config.resolution
    if chosen is None:
        least = min(max(_LEAST, known[-1] // 4), known[-1])
        chosen = min(size for size in known if size >= least)
    if chosen not in known:
        raise UserError(
            f"resolution: expected one of {', '.join(map(str, known))}, found {chosen}",
            field="resolution",
        )
    # The terms of an optimization with the same weights.
    same = optimization.OptimizationConfig(
        space="s",
        l2_lambda=config.l2_lambda,
        id_lambda=config.id_lambda,
        clip_preprocess=config.clip_preprocess,
    )
    return Problem(
        objective=optimization.official(same).objective,
        optimizer=optax.adam(config.learning_rate),
        steps=config.steps,
        layout=layout,
        stop=sum(layer.resolution <= chosen for layer in layout),
    )


class Faces(NamedTuple):
    """Faces that a direction is learned from, and what it is learned for.

    Attributes:
      source: styles, images at the resolution, and identities of the faces.
      text: [E] CLIP feature to move towards.
      neutral: [E] feature of the neutral text, None where no loss needs it.
    """

    source: losses.Source
    text: jax.Array
    neutral: jax.Array | None


class State(NamedTuple):
    """State of learning.

    Attributes:
      step: number of steps done.
      direction: current direction.
      optimizer: state of the optimizer.
      history: {term: [steps]}, the mean over faces before each step.
      failed_at: first step whose loss or gradient was not finite, -1 for none.
    """

    step: jax.Array
    direction: Direction
    optimizer: Any
    history: dict[str, jax.Array]
    failed_at: jax.Array


def describe(
    networks: losses.Networks, styles: spaces.Styles, *, problem: Problem
) -> losses.Source:
    """Source of faces: their images at the problem's resolution and their identities.

    Args:
      networks: generator, CLIP, and whatever else the objective asks for.
      styles: tuple of [B, C].
      problem: objective and layers.
    """
    image = _synthesize(networks, styles, problem)
    return losses.describe_source(networks, styles, image)


def start(*, problem: Problem) -> State:
    """State before the first step: no direction."""
    channels = sum(layer.channels for layer in problem.layout)
    direction = Direction(jnp.zeros(channels), problem.layout)
    return State(
        step=jnp.zeros((), jnp.int32),
        direction=direction,
        optimizer=problem.optimizer.init(direction),
        history={
            name: jnp.full((problem.steps,), jnp.nan, jnp.float32)
            for name in ("total", *problem.objective)
        },
        failed_at=jnp.full((), -1, jnp.int32),
    )


def step(
    networks: losses.Networks, faces: Faces, state: State, *, problem: Problem
) -> State:
    """State after one more step.

    Args:
      networks: generator, CLIP, and whatever else the objective asks for.
      faces: faces with their sources, [B, …].
      state: state before the step.
      problem: objective, optimizer and layers.
    """
    moved = [i for i, x in enumerate(problem.layout[: problem.stop]) if x.moves]

    def loss(direction: Direction) -> tuple[jax.Array, dict[str, jax.Array]]:
        # Layers that stay have no gradient, and no share in the length.
        direction = global_directions.mask(direction, moved)
        styles = global_directions.edit(faces.source.latent, direction, 1.0)
        image = _synthesize(networks, styles, problem)

        def repeat(feature: jax.Array) -> jax.Array:
            return jnp.broadcast_to(feature, (len(image), *feature.shape))

        text, neutral = jax.tree.map(repeat, (faces.text, faces.neutral))
        edit = losses.Edit(image, styles, faces.source, text, neutral)
        total, terms = losses.evaluate(problem.objective, networks, edit)
        means = {name: jnp.mean(x) for name, x in {"total": total, **terms}.items()}
        return means["total"], means

    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.direction)
    failed_at = optimizers.first_failure(state.failed_at, state.step, gradient, value)
    change, optimizer = optimizers.update(
        problem.optimizer,
        gradient,
        state.optimizer,
        state.direction,
        value=value,
        value_fn=lambda direction: loss(direction)[0],
    )
    return State(
        step=state.step + 1,
        direction=state.direction + change,
        optimizer=optimizer,
        history=optimizers.record(state.history, state.step, terms),
        failed_at=failed_at,
    )


def _synthesize(
    networks: losses.Networks, styles: spaces.Styles, problem: Problem
) -> spaces.Image:
    """Images of the layers that run."""
    stop = problem.stop
    made = generators.synthesize_layers(networks.generator, styles, stop=stop)
    assert made.rgb is not None  # the last layer is a toRGB layer
    return networks.generator.config.show(made.rgb)
