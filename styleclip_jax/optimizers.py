"""Optimizers and learning rates of StyleCLIP, as optax transformations."""

import jax
import jax.numpy as jnp
import optax


def ramped(
    learning_rate: float,
    num_steps: int,
    ramp_up: float = 0.05,
    ramp_down: float = 0.25,
) -> optax.Schedule:
    """Learning rate of the official optimization, over t = step / num_steps.

    Linear from 0 over the first `ramp_up` of the run, cosine to 0 over the last
    `ramp_down`:

      r(t) = min(1, (1 - t) / ramp_down)
      rate = learning_rate · (1 - cos(π r)) / 2 · min(1, t / ramp_up)

    Source: `get_lr` of the official optimization. Parity: step 0 has rate 0, so it
    feeds the optimizer's moments and moves nothing.
    """

    def schedule(step: jax.Array) -> jax.Array:
        t = step / num_steps
        down = (1 - jnp.cos(jnp.pi * jnp.minimum(1, (1 - t) / ramp_down))) / 2
        return learning_rate * down * jnp.minimum(1, t / ramp_up)

    return schedule
