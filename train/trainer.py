"""Compiled work of a training, of any method, and the best networks so far."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from styleclip_jax import latents, losses, parallel
from styleclip_jax.methods.training import State

from .latent_data import Data


class Task(NamedTuple):
    """What is trained: M networks at once, as functions of a device's share of a batch.

    Attributes:
      networks: frozen networks.
      context: whatever else does not change, such as features of prompts.
      start: (PRNG key) → state before the first step, every leaf [M, …].
      step: (networks, context, state, latents, axis_name=) → state, and losses [M].
      evaluate: (networks, context, params, latents, axis_name=) → losses [M].
      edit: (networks, context, params, latents) → latents of each row of a sheet.
      space: the space of the latents.
    """

    networks: losses.Networks
    context: Any
    start: Callable[[jax.Array], State]
    step: Callable[..., tuple[State, dict[str, jax.Array]]]
    evaluate: Callable[..., dict[str, jax.Array]]
    edit: Callable[..., Sequence[Any]]
    space: latents.Space


class Trainer:
    """Compiled work of a training: step, validation, images."""

    def __init__(
        self,
        task: Task,
        data: Data,
        convert: Callable[..., Any],
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """Prepares everything; compilation happens at first use.

        Args:
          task: what is trained.
          data: latents.
          convert: (generator, batch, space=) → latents in the space of the task.
          devices: of this process, where there is one process; all if absent.
        """
        self.mesh = parallel.make_mesh(devices or jax.local_devices())
        self.data, self._task = data, task
        self._fixed = parallel.replicate((task.networks, task.context), self.mesh)

        def step(networks: Any, context: Any, state: Any, batch: Any) -> Any:
            latent = convert(networks.generator, batch, space=data.space)
            return task.step(networks, context, state, latent, axis_name=parallel.AXIS)

        def validate(networks: Any, context: Any, params: Any, batch: Any) -> Any:
            latent = convert(networks.generator, batch, space=data.validation.space)
            return task.evaluate(
                networks, context, params, latent, axis_name=parallel.AXIS
            )

        self._step = parallel.map_devices(step, 3, donated=[2], devices=devices)
        self._validate = parallel.map_devices(validate, 3, devices=devices)
        self._convert = jax.jit(functools.partial(convert, space=data.validation.space))
        self._synthesize = jax.jit(task.space.synthesize)
        self._edit = jax.jit(task.edit)

    def start(self, seed: int) -> State:
        """The state before the first step, every leaf [M, …], on the host."""
        return jax.device_get(self._task.start(jax.random.key(seed)))

    def batches(self, start: int) -> Any:
        """Batches of the steps from `start` on, on the devices ahead of time."""
        shares = (
            parallel.split(batch, self.mesh) for batch in self.data.batches(start)
        )
        return parallel.prefetch(shares, self.mesh)

    def step(self, state: Any, batch: Any) -> tuple[State, dict[str, Any]]:
        """One step of all networks; the state that goes in is used up."""
        return self._step(*self._fixed, state, batch)

    def validate(self, params: Any) -> dict[str, np.ndarray]:
        """Losses [M] over all latents held out."""
        found = [
            self._validate(*self._fixed, params, parallel.split(batch, self.mesh))
            for batch in self.data.validation_batches()
        ]
        return jax.tree.map(lambda *x: np.mean(np.stack(x), axis=0), *found)

    def render(self, params: Any, count: int) -> list[np.ndarray]:
        """Images of the rows of a sheet, of some latents held out."""
        generator = self._task.networks.generator
        batch = np.asarray(self.data.validation.array[:count], np.float32)
        rows = self._edit(*self._fixed, params, self._convert(generator, batch))
        return [np.asarray(self._synthesize(generator, row)) for row in rows]


class Best(NamedTuple):
    """Networks with the lowest validation loss.

    Attributes:
      loss: [M], infinite before the first validation.
      step: [M], number of steps done.
      params: their parameters, every leaf [M, …].
    """

    loss: np.ndarray
    step: np.ndarray
    params: Any


def no_best(state: State) -> Best:
    """Networks of a state that has not been validated."""
    step = np.asarray(state.step)
    loss = np.full(step.shape, np.inf, np.float32)
    return Best(loss, step, state.params)


def keep_best(
    best: Best, step: int, params: Any, found: dict[str, np.ndarray]
) -> tuple[Best, list[int]]:
    """The better of two sets of networks, and which of them are new."""
    better = np.asarray(found["total"]) < best.loss

    def choose(new: Any, old: Any) -> np.ndarray:
        new, old = np.asarray(new), np.asarray(old)
        return np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    kept = Best(
        choose(found["total"], best.loss),
        np.where(better, step, best.step).astype(best.step.dtype),
        jax.tree.map(choose, params, best.params),
    )
    return kept, np.flatnonzero(better).tolist()
