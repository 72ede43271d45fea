"""Training of networks: the state, and one step of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from styleclip_jax import optimizers

# Losses of parameters, averaged over a batch: the sum that counts, and each by name.
Losses = Callable[[Any], tuple[jax.Array, dict[str, jax.Array]]]


class State(NamedTuple):
    """State of a network under training.

    Attributes:
      step: number of steps done.
      params: parameters of the network.
      optimizer: state of the optimizer.
      failed_at: first step whose loss or gradient was not finite, -1 for none. From
        then on the parameters stay as they were.
    """

    step: jax.Array
    params: Any
    optimizer: Any
    failed_at: jax.Array


def start(params: Any, optimizer: optax.GradientTransformation) -> State:
    """State before the first step."""
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=optimizer.init(params),
        failed_at=jnp.full((), -1, jnp.int32),
    )


def descend(
    losses: Losses,
    state: State,
    optimizer: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """State after one more step, and the losses before it.

    Args:
      losses: parameters → the weighted sum, and each term with the sum as "total".
      state: state before the step.
      optimizer: any optax transformation.
      axis_name: mapped axis of the devices to average over, None for one device.
    """
    gradient, terms = jax.grad(losses, has_aux=True)(state.params)
    if axis_name is not None:
        gradient, terms = lax.pmean((gradient, terms), axis_name)
    failed_at = optimizers.first_failure(
        state.failed_at, state.step, gradient, terms["total"]
    )

    def value_of(params: Any) -> jax.Array:
        value = losses(params)[0]
        return value if axis_name is None else lax.pmean(value, axis_name)

    updates, moments = optimizers.update(
        optimizer,
        gradient,
        state.optimizer,
        state.params,
        value=terms["total"],
        value_fn=value_of,
    )
    params = jax.tree.map(
        lambda moved, p: jnp.where(failed_at < 0, moved, p),
        optax.apply_updates(state.params, updates),
        state.params,
    )
    return State(state.step + 1, params, moments, failed_at), terms
