"""Optimization of latents: edit one latent by descending an objective.

Written for a single latent; `jax.vmap` makes the batch:

  run = functools.partial(optimize, problem=official(config))
  result = jax.jit(jax.vmap(run, in_axes=(None, 0, 0)))(networks, latents, texts)

`optimize` is `start`, `step` in a loop, and `finish`, all in one program. Whoever wants
to report progress calls the three, which `compiled` prepares for batches; the result is
the same, and comes as soon.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from styleclip_jax import latents, losses, optimizers, traced
from styleclip_jax.models import clip_input
from styleclip_jax.settings.edits import OptimizationConfig

PREPROCESSINGS = {
    "styleclip": clip_input.preprocess_styleclip,
    "clip": clip_input.preprocess_clip,
}


class Problem(NamedTuple):
    """Problem to optimize. A variant is `official(config)._replace(...)`.

    Attributes:
      space: space that the latent moves in.
      objective: {name: (weight, loss)}.
      optimizer: any optax transformation.
      steps: number of steps.
      keep_best: return the iterate of the lowest loss instead of the last one.
      film_frames: number of intermediate latents to keep.
    """

    space: latents.Space
    objective: losses.Objective
    optimizer: optax.GradientTransformation
    steps: int
    keep_best: bool = False
    film_frames: int = 0


def official(config: OptimizationConfig) -> Problem:
    """Official problem: the objective, and Adam with the official learning rate."""
    objective: dict[str, tuple[float, losses.Loss]] = {
        "clip": (
            1.0,
            functools.partial(
                losses.clip_distance, preprocess=PREPROCESSINGS[config.clip_preprocess]
            ),
        )
    }
    if config.mode == "edit":
        objective["l2"] = (config.l2_lambda, losses.latent_l2)
        if config.id_lambda:
            objective["identity"] = (config.id_lambda, losses.identity_distance)
    return Problem(
        space=latents.SPACES[config.space],
        objective=objective,
        optimizer=optax.adam(optimizers.ramped(config.learning_rate, config.steps)),
        steps=config.steps,
        keep_best=config.keep_best,
        film_frames=config.film_frames,
    )


class State(NamedTuple):
    """State of an optimization; every leaf has a leading batch axis under vmap.

    Attributes:
      step: number of steps done.
      latent: current latent.
      optimizer: state of the optimizer.
      source: start of the edit.
      text: [E] normalised CLIP features of the prompt.
      neutral: [E] features of the neutral text, None where no loss needs them.
      best_loss: lowest total loss seen.
      best_latent: the latent that had it.
      film: latents kept on the way, with a leading axis of `film_frames`.
      history: {term: [steps]}, the value before each step; "total" is the weighted
        sum.
      failed_at: first step whose loss or gradient was not finite, -1 for none. From
        then on the latent stays where it was.
    """

    step: jax.Array
    latent: Any
    optimizer: Any
    source: losses.Source
    text: jax.Array
    neutral: jax.Array | None
    best_loss: jax.Array
    best_latent: Any
    film: Any
    history: dict[str, jax.Array]
    failed_at: jax.Array


class Result(NamedTuple):
    """Result of an optimization.

    Attributes:
      latent: the edited latent, of the source's shape.
      image: [H, W, 3] its image.
      terms: {term: []}, its losses; "total" is the weighted sum.
      source: start of the edit.
      film: intermediate latents with a leading axis of `film_frames`.
      history: {term: [steps]}, the value before each step.
      failed_at: first step with a loss or gradient that was not finite, or -1.
    """

    latent: Any
    image: jax.Array
    terms: dict[str, jax.Array]
    source: losses.Source
    film: Any
    history: dict[str, jax.Array]
    failed_at: jax.Array


def optimize(
    networks: losses.Networks,
    latent: Any,
    text: jax.Array,
    neutral: jax.Array | None = None,
    *,
    problem: Problem,
) -> Result:
    """Edited latent with its image and losses.

    Args:
      networks: generator, CLIP, and whatever else the objective asks for.
      latent: the source, of the problem's space: [L, D] W+, or for S a tuple of [C]
        (`generators.to_styles` makes it from W+).
      text: [E] normalised CLIP features of the prompt.
      neutral: [E] features of the neutral text, for losses that read them.
      problem: objective, optimizer and number of steps.

    Returns:
      The result, of one latent.

    Source: the paper's eq. 1; official `optimization/run_optimization.py`. The image
    is that of the returned latent, the official script's the one before the last
    update.
    """
    state = start(networks, latent, text, neutral, problem=problem)
    state = jax.lax.fori_loop(
        0, problem.steps, lambda _, s: step(networks, s, problem=problem), state
    )
    return finish(networks, state, problem=problem)


def start(
    networks: losses.Networks,
    latent: Any,
    text: jax.Array,
    neutral: jax.Array | None = None,
    *,
    problem: Problem,
) -> State:
    """State before the first step; arguments as of `optimize`."""
    batch = _batch(latent)
    image = problem.space.synthesize(networks.generator, batch)
    source = losses.describe_source(networks, batch, image)
    return State(
        step=jnp.zeros((), jnp.int32),
        latent=latent,
        optimizer=problem.optimizer.init(latent),
        source=_first(source),
        text=text,
        neutral=neutral,
        best_loss=jnp.full((), jnp.inf, jnp.float32),
        best_latent=latent,
        film=jax.tree.map(
            lambda x: jnp.zeros((problem.film_frames, *x.shape), x.dtype), latent
        ),
        history={
            name: jnp.full((problem.steps,), jnp.nan, jnp.float32)
            for name in ("total", *problem.objective)
        },
        failed_at=jnp.full((), -1, jnp.int32),
    )


def step(networks: losses.Networks, state: State, *, problem: Problem) -> State:
    """State after one more step."""
    # Whether a leaf may move decides what is compiled, so it must not be traced.
    movable = problem.space.movable(networks.generator)

    def only_movable(tree: Any) -> Any:
        return jax.tree.map(lambda x, m: x if m else jnp.zeros_like(x), tree, movable)

    (loss, (terms, _)), gradient = jax.value_and_grad(_loss, has_aux=True)(
        state.latent, networks, state, problem
    )
    gradient = only_movable(gradient)
    failed_at = optimizers.first_failure(state.failed_at, state.step, gradient, loss)
    alive = failed_at < 0

    updates, optimizer = optimizers.update(
        problem.optimizer,
        gradient,
        state.optimizer,
        state.latent,
        value=loss,
        value_fn=lambda latent: _loss(latent, networks, state, problem)[0],
    )
    moved = optax.apply_updates(state.latent, only_movable(updates))
    latent = _where(alive, moved, state.latent)
    better = loss < state.best_loss
    return state._replace(
        step=state.step + 1,
        latent=latent,
        optimizer=optimizer,
        best_loss=jnp.where(better, loss, state.best_loss),
        best_latent=_where(better, state.latent, state.best_latent),
        film=_keep_frame(state.film, latent, state.step, problem),
        history=optimizers.record(state.history, state.step, terms),
        failed_at=failed_at,
    )


def finish(networks: losses.Networks, state: State, *, problem: Problem) -> Result:
    """Result of a state that has taken all its steps."""
    latent = state.latent
    _, (terms, image) = _loss(latent, networks, state, problem)
    if problem.keep_best:
        # The last iterate has not been compared yet.
        latent = _where(terms["total"] <= state.best_loss, latent, state.best_latent)
        _, (terms, image) = _loss(latent, networks, state, problem)
    return Result(
        latent=latent,
        image=image,
        terms=terms,
        source=state.source,
        film=state.film,
        history=state.history,
        failed_at=state.failed_at,
    )


class Compiled(NamedTuple):
    """`start`, `step` and `finish` over a batch of latents, jitted.

    Attributes:
      start: (networks, latents, text, neutral or nothing) → state; the texts are those
        of all latents.
      step: (networks, state) → state after `stride` steps; the state that goes in is
        used up.
      finish: (networks, state) → result.
      stride: number of steps of a call.
    """

    start: Callable[..., State]
    step: Callable[[losses.Networks, State], State]
    finish: Callable[[losses.Networks, State], Result]
    stride: int


def compiled(
    problem: Problem,
    *,
    sharding: jax.sharding.Sharding | None,
    stride: int = 1,
    said: Any = None,
) -> Compiled:
    """Parts of `optimize` for batches, jitted.

    Args:
      problem: objective, optimizer and number of steps.
      sharding: sharding of the state, None to leave it to jax. It is the same
        throughout, since another one would compile the step again.
      stride: number of steps of a call of `step`, which divides the number of steps,
        so that one program takes them all.
      said: what says all of the problem in words, as `traced.keep` takes it; None for
        a problem that is traced in each run.

    Raises:
      ValueError: the stride does not divide the number of steps.
    """
    if problem.steps % stride:
        raise ValueError(
            f"stride: expected a divisor of {problem.steps} steps, found {stride}"
        )
    start_one = functools.partial(start, problem=problem)
    step_all = jax.vmap(functools.partial(step, problem=problem), in_axes=(None, 0))
    finish_one = functools.partial(finish, problem=problem)

    def start_all(
        networks: losses.Networks, latent: Any, text: Any, neutral: Any = None
    ) -> State:
        in_axes = (None, 0, None, None)
        return jax.vmap(start_one, in_axes)(networks, latent, text, neutral)

    def steps(networks: losses.Networks, state: State) -> State:
        if stride == 1:
            return step_all(networks, state)
        return jax.lax.fori_loop(0, stride, lambda _, s: step_all(networks, s), state)

    def keep(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if said is None:
            return function
        return traced.keep(f"optimization.{name}", function, said, stride)

    finish_all = jax.vmap(finish_one, in_axes=(None, 0))
    return Compiled(
        start=jax.jit(keep("start", start_all), out_shardings=sharding),
        step=jax.jit(keep("step", steps), donate_argnums=1, out_shardings=sharding),
        finish=jax.jit(keep("finish", finish_all)),
        stride=stride,
    )


def _loss(
    latent: Any, networks: losses.Networks, state: State, problem: Problem
) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
    """Total loss of a latent, then each term (with "total") and the image."""
    batch = _batch(latent)
    image = problem.space.synthesize(networks.generator, batch)
    edit = losses.Edit(
        image, batch, _batch(state.source), state.text[None], _batch(state.neutral)
    )
    total, terms = losses.evaluate(problem.objective, networks, edit)
    return total[0], (_first({"total": total, **terms}), image[0])


def _keep_frame(film: Any, latent: Any, step: jax.Array, problem: Problem) -> Any:
    """Film with the latent after a step in the frame of its part of the run."""
    if not problem.film_frames:
        return film
    # Frame i is overwritten until the step that ends its share of the run, so the
    # last frame is the last latent.
    index = step * problem.film_frames // problem.steps
    return jax.tree.map(lambda frames, x: frames.at[index].set(x), film, latent)


def _where(condition: jax.Array, tree: Any, other: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree, other)


def _batch(tree: Any) -> Any:
    """The tree with the batch axis that networks and losses expect."""
    return jax.tree.map(lambda x: x[None], tree)


def _first(tree: Any) -> Any:
    """The tree without its batch axis of one."""
    return jax.tree.map(lambda x: x[0], tree)
