"""Optimizers and learning rates of StyleCLIP, as optax transformations."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

# Loss from which an optimization leads nowhere; those of any weights are far below.
_EXPLODED = 1e8


def ramped(
    learning_rate: float,
    num_steps: int,
    ramp_up: float = 0.05,
    ramp_down: float = 0.25,
) -> optax.Schedule:
    """Learning rate of the official optimization, over t = step / num_steps.

    Linear from 0 over the first `ramp_up` of the run, cosine to 0 over the last
    `ramp_down`; 0 leaves a ramp out:

      r(t) = min(1, (1 - t) / ramp_down)
      rate = learning_rate · (1 - cos(π r)) / 2 · min(1, t / ramp_up)

    Source: `get_lr` of the official optimization. Parity: step 0 has rate 0, so it
    feeds the optimizer's moments and moves nothing.
    """

    def schedule(step: jax.Array) -> jax.Array:
        t, rate = step / num_steps, jnp.asarray(learning_rate)
        if ramp_down:
            down = (1 - jnp.cos(jnp.pi * jnp.minimum(1, (1 - t) / ramp_down))) / 2
            rate = learning_rate * down
        return rate * jnp.minimum(1, t / ramp_up) if ramp_up else rate

    return schedule


def ranger(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.95,
    b2: float = 0.999,
    eps: float = 1e-5,
    threshold: float = 5.0,
    sync_period: int = 6,
    slow_step_size: float = 0.5,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Ranger: gradient centralization, rectified Adam and Lookahead.

    Args:
      learning_rate: a number or a schedule.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      threshold: length of the moving average from which on steps are rectified.
      sync_period: steps between moves of the slow weights of `lookahead`.
      slow_step_size: part of the way that the slow weights move.
      weight_decay: decoupled decay, times the learning rate.

    Source: the official mapper's `ranger.py`, whose defaults these are; its
    `training/coach.py` sets the learning rate alone.
    """
    parts = [centralize(), scale_by_rectified_adam(b1, b2, eps, threshold)]
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay))
    fast = optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))
    return lookahead(fast, sync_period, slow_step_size)


def lazy_adam(
    learning_rate: float,
    interval: int,
    *,
    b1: float = 0.0,
    b2: float = 0.99,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam of a network that gets a step more, its regularization, every k steps.

    With c = k / (k + 1), learning rate and decays are c · rate, b1ᶜ and b2ᶜ, so that k
    steps with the one more are as k steps were.

    Args:
      learning_rate: learning rate without regularization.
      interval: steps k from one regularization to the next.
      b1: decay of the first moment without regularization.
      b2: decay of the second moment without regularization.
      eps: added to the root of the second moment.

    Source: Karras et al. 2020, appendix B, "lazy regularization".
    """
    share = interval / (interval + 1)
    return optax.adam(share * learning_rate, b1=b1**share, b2=b2**share, eps=eps)


def update(
    optimizer: optax.GradientTransformation,
    gradient: Any,
    state: Any,
    params: Any,
    *,
    value: jax.Array,
    value_fn: Callable[[Any], jax.Array],
) -> tuple[Any, Any]:
    """Updates of an optimizer, and its next state.

    Args:
      optimizer: any optax transformation. One that searches along its step, such as
        optax.lbfgs, is given the loss.
      gradient: gradient of the loss.
      state: state of the optimizer.
      params: where the gradient was taken.
      value: loss there.
      value_fn: (parameters) → loss.
    """
    return optax.with_extra_args_support(optimizer).update(
        gradient, state, params, value=value, grad=gradient, value_fn=value_fn
    )


def centralize() -> optax.GradientTransformation:
    """Gradients of kernels minus their mean over all axes but the last.

    `optax.centralize` keeps the first axis instead, where PyTorch has the outputs; our
    kernels have them last. Vectors stay as they are.

    Source: Yong et al. 2020, "Gradient Centralization".
    """

    def subtract_mean(gradient: jax.Array) -> jax.Array:
        if gradient.ndim < 2:
            return gradient
        axes = tuple(range(gradient.ndim - 1))
        return gradient - jnp.mean(gradient, axes, keepdims=True)

    return optax.stateless_with_tree_map(lambda gradient, _: subtract_mean(gradient))


def scale_by_rectified_adam(
    b1: float, b2: float, eps: float, threshold: float
) -> optax.GradientTransformation:
    """RAdam with the official places of ε and of the bias corrections.

    With moments m and v after step t, and the length of the approximated moving average

      ρ_max = 2 / (1 - b2) - 1,   ρ = ρ_max - 2 t b2ᵗ / (1 - b2ᵗ)

    the update is, where ρ > threshold,

      r · √(1 - b2ᵗ) · m / (1 - b1ᵗ) / (√v + ε),
      r² = (ρ - 4) (ρ - 2) ρ_max / ((ρ_max - 4) (ρ_max - 2) ρ)

    and m / (1 - b1ᵗ) before that.

    Parity: `optax.scale_by_radam` corrects v before it adds ε. The gradients of a
    mapper's weights are smaller than ε, so that this changes the step many times over.

    Source: Liu et al. 2020, "On the Variance of the Adaptive Learning Rate and Beyond".
    """
    rho_max = 2 / (1 - b2) - 1

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        count = optax.safe_increment(state.count)
        t = count.astype(jnp.float32)
        # expm1, since 1 - b2ᵗ loses most of its digits while t is small.
        correction1, correction2 = (-jnp.expm1(t * math.log(b)) for b in (b1, b2))
        rho = rho_max - 2 * t * b2**t / correction2
        rectified = rho > threshold
        # Some number above 4 for the steps whose root is not used.
        rho = jnp.where(rectified, rho, 5.0)
        r = jnp.sqrt(
            correction2
            * ((rho - 4) / (rho_max - 4))
            * ((rho - 2) / rho)
            * (rho_max / (rho_max - 2))
        )

        def scale(m: jax.Array, v: jax.Array) -> jax.Array:
            adaptive = r * m / (jnp.sqrt(v) + eps)
            return jnp.where(rectified, adaptive, m) / correction1

        return jax.tree.map(scale, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    return optax.GradientTransformation(init, update)


class LookaheadState(NamedTuple):
    """State of `lookahead`.

    Attributes:
      fast: state of the optimizer inside.
      slow: the slow weights.
      step: number of steps done.
    """

    fast: Any
    slow: Any
    step: jax.Array


def lookahead(
    fast: optax.GradientTransformation, sync_period: int, slow_step_size: float
) -> optax.GradientTransformation:
    """Lookahead: slow weights that follow the fast ones every `sync_period` steps.

      slow ← slow + slow_step_size · (fast - slow),   fast ← slow

    `optax.lookahead` does the same with parameters that are a pair of both; here the
    slow ones are state, so that it takes the place of any other optimizer. They start
    as the parameters given to `init`.

    Source: Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back".
    """

    def update(updates: Any, state: LookaheadState, params: Any) -> tuple[Any, Any]:
        updates, inner = fast.update(updates, state.fast, params)
        step = optax.safe_increment(state.step)
        sync = step % sync_period == 0

        def move(slow: jax.Array, p: jax.Array, u: jax.Array) -> jax.Array:
            return jnp.where(sync, slow + slow_step_size * (p + u - slow), slow)

        slow = jax.tree.map(move, state.slow, params, updates)
        updates = jax.tree.map(
            lambda u, s, p: jnp.where(sync, s - p, u), updates, slow, params
        )
        return updates, LookaheadState(inner, slow, step)

    def init(params: Any) -> LookaheadState:
        return LookaheadState(fast.init(params), params, jnp.zeros([], jnp.int32))

    return optax.GradientTransformation(init, update)


def record(
    history: Mapping[str, jax.Array], step: jax.Array, terms: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """History {term: [steps]} with the terms of a step, those that it has."""
    return {name: history[name].at[step].set(value) for name, value in terms.items()}


def first_failure(
    failed_at: jax.Array, step: jax.Array, gradient: Any, loss: jax.Array
) -> jax.Array:
    """First step whose loss exploded or gradient was not finite, -1 for none; [].

    Args:
      failed_at: the same for the steps before, [].
      step: index of this step, [].
      gradient: tree of this step's gradients.
      loss: of this step, [].
    """
    finite = jnp.isfinite(optax.tree.norm(gradient) + loss)
    failed = ~(finite & (jnp.abs(loss) < _EXPLODED))
    return jnp.where((failed_at < 0) & failed, step, failed_at)
