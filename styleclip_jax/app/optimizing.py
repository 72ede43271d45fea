"""Optimization for the page: of one face with pictures on the way, or of several."""

import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from styleclip_jax import losses, optimizers
from styleclip_jax.app import rooms, steps
from styleclip_jax.app.rooms import Room
from styleclip_jax.app.steps import Step
from styleclip_jax.editing import editors
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.methods import optimization
from styleclip_jax.methods.optimization import OptimizationConfig
from styleclip_jax.progress import Report

MAX_STEPS = 1000

# Seconds between two pictures of an optimization.
_SHOW_EVERY = 0.5


class Settings(NamedTuple):
    """Settings of an optimization; other values compile nothing new.

    Attributes:
      steps: number of steps, 1 to `MAX_STEPS`.
      learning_rate: peak learning rate.
      l2_lambda: weight of the squared distance to the source latent.
      id_lambda: weight of the identity distance to the source image.
    """

    steps: int = OptimizationConfig.steps
    learning_rate: float = OptimizationConfig.learning_rate
    l2_lambda: float = OptimizationConfig.l2_lambda
    id_lambda: float = OptimizationConfig.id_lambda


def advised(room: Room) -> Settings:
    """Settings that are advised: the official ones, or those for drawn faces."""
    return Settings(steps=80, l2_lambda=0.0045) if room.is_embedded else Settings()


def optimize(
    room: Room,
    latent: Any,
    prompt: str,
    settings: Settings,
    tuned: int | None = None,
) -> Iterator[tuple[int, Step]]:
    """Optimizes a face towards a text: in W+, or in S where it is not in W+.

    Args:
      room: networks.
      latent: latent [1, …] of the face.
      prompt: text to edit towards.
      settings: settings of the optimization.
      tuned: number of the tuned generator of the face, as of `Face`.

    Returns:
      Iterator over the number of steps done and the step so far, about twice a second
      and at the end. It raises a UserError where the loss is not finite.

    Raises:
      UserError: a setting is wrong.
    """
    text, settings = _check(room, prompt, settings)
    (feature,) = room.session.encode(text)
    return _steps(room, latent, text, feature, settings, tuned)


def _check(room: Room, prompt: str, settings: Settings) -> tuple[str, Settings]:
    """Text and settings that an optimization can work with."""
    text = room.check_text(rooms.PROMPT, prompt)
    names = (rooms.STEPS, rooms.RATE, rooms.STAY, rooms.IDENTITY)
    for name, value in zip(names, settings, strict=True):
        if not (np.isfinite(value) and value >= 0):
            raise UserError(f"{name}: expected a number of at least 0, found {value:g}")
    number = settings.steps
    if not 1 <= number <= MAX_STEPS or number != int(number):
        raise UserError(
            f"{rooms.STEPS}: expected a whole number from 1 to {MAX_STEPS}, "
            f"found {number:g}"
        )
    if settings.id_lambda and room.session.identity is None:
        raise UserError(
            f"{rooms.IDENTITY}: expected 0, since the program was started without a "
            "network that tells people apart"
        )
    return text, settings._replace(steps=int(number))


def _steps(
    room: Room,
    latent: Any,
    text: str,
    feature: jax.Array,
    settings: Settings,
    tuned: int | None,
) -> Iterator[tuple[int, Step]]:
    """Steps of `optimize`, after its settings were checked."""
    session = room.session
    start = jax.tree.map(lambda x: jnp.asarray(x[0]), latent)
    networks = session.networks(identity=session.identity is not None)
    networks = dataclasses.replace(networks, generator=room.generator_of(tuned))
    space = "s" if isinstance(latent, tuple) else "w_plus"
    static = {"space": space, "use_identity": settings.id_lambda > 0}
    state = _start(networks, start, feature, settings, **static)
    shown = time.monotonic()
    for done in range(1, settings.steps + 1):
        state = _step(networks, state, settings, **static)
        # Without waiting, steps would be queued sooner than pictures are due.
        jax.block_until_ready(state)
        last = done == settings.steps
        if not last and time.monotonic() - shown < _SHOW_EVERY:
            continue
        if int(state.failed_at) >= 0:
            raise UserError(f"The loss was not finite at step {int(state.failed_at)}")
        total = float(state.history["total"][done - 1])
        end = jax.tree.map(lambda x: np.asarray(x)[None], state.latent)
        about = f"{done} steps, loss {total:.4f}"
        step = _step_to(room, latent, end, text, settings, about)
        yield done, step._replace(tuned=tuned)
        shown = time.monotonic()


def _step_to(
    room: Room, start: Any, end: Any, text: str, settings: Settings, about: str
) -> Step:
    """Step from latents to what an optimization has made of them."""
    start = jax.tree.map(np.asarray, start)
    delta = jax.tree.map(np.subtract, end, start)
    count = len(jax.tree.leaves(start)[0])
    return Step(
        method=steps.OPTIMIZATION,
        text=text,
        start=start,
        delta=delta,
        whole=delta,
        unit=1.0,
        first=1.0,
        strength=np.ones(count),
        about=about,
        again=lambda other, report: several(room, other, text, settings, report),
    )


def several(
    room: Room, latent: Any, prompt: str, settings: Settings, report: Report
) -> Step:
    """Step of several faces to what an optimization of each makes of them.

    Args:
      room: networks.
      latent: latents [B, …] in W+ or S.
      prompt: text to edit towards.
      settings: settings of the optimization.
      report: is told of steps, `settings.steps` in all.

    Raises:
      UserError: a setting is wrong, or a loss is not finite.
    """
    text, settings = _check(room, prompt, settings)
    space = "s" if isinstance(latent, tuple) else "w_plus"
    config = editors.OptimizationSettings(space=space, **settings._asdict())
    editor = editors.optimize(room.session.loaded, Prompts((text,)), config)
    made = editor.edit(jax.tree.map(jnp.asarray, latent), 0, report)
    if (np.asarray(made.failed_at) >= 0).any():
        raise UserError("The loss of a face was not finite")
    end = jax.tree.map(np.asarray, made.latent["edited"])
    return _step_to(room, latent, end, text, settings, f"{settings.steps} steps")


def _problem(
    space: str, settings: Settings, use_identity: bool
) -> optimization.Problem:
    """Official problem with settings that may be traced."""
    problem = optimization.official(optimization.OptimizationConfig(space=space))
    objective = {**problem.objective, "l2": (settings.l2_lambda, losses.latent_l2)}
    if use_identity:
        objective["identity"] = (settings.id_lambda, losses.identity_distance)
    rate = optimizers.ramped(settings.learning_rate, settings.steps)
    return problem._replace(
        objective=objective, optimizer=optax.adam(rate), steps=MAX_STEPS
    )


@functools.partial(jax.jit, static_argnames=("space", "use_identity"))
def _start(
    networks: losses.Networks,
    latent: Any,
    text: jax.Array,
    settings: Settings,
    *,
    space: str,
    use_identity: bool,
) -> optimization.State:
    problem = _problem(space, settings, use_identity)
    return optimization.start(networks, latent, text, problem=problem)


@functools.partial(
    jax.jit, static_argnames=("space", "use_identity"), donate_argnames="state"
)
def _step(
    networks: losses.Networks,
    state: optimization.State,
    settings: Settings,
    *,
    space: str,
    use_identity: bool,
) -> optimization.State:
    problem = _problem(space, settings, use_identity)
    return optimization.step(networks, state, problem=problem)
