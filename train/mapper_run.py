"""Parts of a training of mappers: latents, compiled work, the best so far.

Whatever varies is a function of the seed and the number of the step, so that a run that
was interrupted goes on as if it had not been.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from styleclip_jax import losses, parallel
from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files
from styleclip_jax.methods import mapper, mapper_training
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network

# Streams of random numbers of one seed.
_TRAINING, _VALIDATION = 0, 1


class Data(NamedTuple):
    """Latents to train on and latents held out.

    Attributes:
      training: from a file, or None to draw z anew for each step.
      validation: latents held out.
      z_dim: length of z.
      batch_size: latents per step, B.
      seed: of shuffling and drawing.
    """

    training: latent_files.Latents | None
    validation: latent_files.Latents
    z_dim: int
    batch_size: int
    seed: int

    @property
    def space(self) -> str:
        """Space of the training latents."""
        return "z" if self.training is None else self.training.space

    @property
    def notes(self) -> list[str]:
        """What ambiguous files were taken for, as lines for people."""
        files = [found for found in (self.training, self.validation) if found]
        return list(dict.fromkeys(note for found in files for note in found.notes))

    def batches(self, start: int) -> Iterator[np.ndarray]:
        """Batches [B, …] of the steps from `start` on, without end.

        Latents of a file are shuffled anew in each epoch; those that fill no batch wait
        for the next one.
        """
        step = start
        order, order_of = np.empty(0, int), -1
        while True:
            if self.training is None:
                rng = np.random.default_rng((self.seed, _TRAINING, step))
                shape = (self.batch_size, self.z_dim)
                yield rng.standard_normal(shape, np.float32)
            else:
                count = len(self.training.array)
                epoch, index = divmod(step, count // self.batch_size)
                if epoch != order_of:
                    rng = np.random.default_rng((self.seed, _TRAINING, epoch))
                    order, order_of = rng.permutation(count), epoch
                rows = order[index * self.batch_size :][: self.batch_size]
                yield np.asarray(self.training.array[rows], np.float32)
            step += 1

    def validation_batches(self) -> Iterator[np.ndarray]:
        """Batches [B, …] of the latents held out, the incomplete last one left out.

        Fewer latents than a batch come as often as each other until batches are full.
        """
        array, size = self.validation.array, self.batch_size
        count = len(array) if len(array) >= size else math.lcm(len(array), size)
        for start in range(0, count - size + 1, size):
            rows = np.arange(start, start + size) % len(array)
            yield np.asarray(array[rows], np.float32)


def open_data(
    path: str | None,
    validation_path: str | None,
    generator: stylegan2.GeneratorConfig,
    *,
    num_validation: int,
    batch_size: int,
    seed: int,
) -> Data:
    """Latents from files, or sampled.

    Args:
      path: file of latents to train on, None to sample them.
      validation_path: file of latents held out, None to take the last ones of `path`,
        or to sample them.
      generator: that the latents are for.
      num_validation: how many to hold out without a file of them.
      batch_size: latents per step.
      seed: of shuffling and drawing.

    Raises:
      UserError: a file that cannot be read, does not fit the generator, or has fewer
        latents to train on than a batch.
    """
    training = None if path is None else latent_files.read(path, generator, None)
    if validation_path is not None:
        validation = latent_files.read(validation_path, generator, None)
    elif training is not None:
        array = training.array
        first = len(array) - min(num_validation, len(array))
        validation = training._replace(array=array[first:], names=())
        training = training._replace(array=array[:first], names=())
    else:
        rng = np.random.default_rng((seed, _VALIDATION))
        z = rng.standard_normal((num_validation, generator.z_dim), np.float32)
        validation = latent_files.Latents(z, "z")
    for name, found, least in (
        ("training", training, batch_size),
        ("validation", validation, 1),
    ):
        if found is not None and len(found.array) < least:
            raise UserError(
                f"batch_size: expected at most the number of latents for {name}, "
                f"{len(found.array)}, found {batch_size}",
                field="batch_size",
            )
    return Data(training, validation, generator.z_dim, batch_size, seed)


class Trainer:
    """Compiled work of a training: step, validation, images."""

    def __init__(
        self,
        networks: losses.Networks,
        text: jax.Array,
        problem: mapper_training.Problem,
        data: Data,
        convert: Callable[..., Any],
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """Prepares everything; compilation happens at first use.

        Args:
          networks: generator, CLIP and identity.
          text: [M, E] normalised CLIP features of the prompts.
          problem: architecture, objective and optimizer.
          data: latents.
          convert: (generator, batch, space=) → latents in the space of the problem.
          devices: of this process, where there is one process; all if absent.
        """
        self.mesh = parallel.make_mesh(devices or jax.local_devices())
        self.data, self.problem = data, problem
        self._networks, self._text = parallel.replicate((networks, text), self.mesh)
        options: Any = {"problem": problem, "axis_name": parallel.AXIS}

        def step(networks: Any, text: Any, state: Any, batch: Any) -> Any:
            latent = convert(networks.generator, batch, space=data.space)
            return mapper_training.train_together(
                networks, state, latent, text, **options
            )

        def validate(networks: Any, text: Any, params: Any, batch: Any) -> Any:
            latent = convert(networks.generator, batch, space=data.validation.space)
            return mapper_training.evaluate_together(
                networks, params, latent, text, **options
            )

        self._step = parallel.map_devices(step, 3, donated=[2], devices=devices)
        self._validate = parallel.map_devices(validate, 3, devices=devices)
        self._convert = jax.jit(functools.partial(convert, space=data.validation.space))
        self._synthesize = jax.jit(problem.space.synthesize)
        self._edit = jax.jit(
            lambda params, latent: mapper.edit(Network(params, problem.config), latent)
        )

    def start(self, seed: int) -> mapper_training.State:
        """The first state, every leaf [M, …]; all mappers start from the same weights.

        A mapper thus becomes the same whether others are trained beside it or not.
        """
        params = jax.jit(mapper.init, static_argnums=1)(
            jax.random.key(seed), self.problem.config
        )
        state = mapper_training.start(params, problem=self.problem)
        count = len(self._text)
        return jax.tree.map(lambda x: np.stack([np.asarray(x)] * count), state)

    def batches(self, start: int) -> Any:
        """Batches of the steps from `start` on, on the devices ahead of time."""
        shares = (
            parallel.split(batch, self.mesh) for batch in self.data.batches(start)
        )
        return parallel.prefetch(shares, self.mesh)

    def step(
        self, state: Any, batch: Any
    ) -> tuple[mapper_training.State, dict[str, Any]]:
        """One step of all mappers; the state that goes in is used up."""
        return self._step(self._networks, self._text, state, batch)

    def validate(self, params: Any) -> dict[str, np.ndarray]:
        """Losses [M] over all latents held out."""
        found = [
            self._validate(
                self._networks, self._text, params, parallel.split(batch, self.mesh)
            )
            for batch in self.data.validation_batches()
        ]
        return jax.tree.map(lambda *x: np.mean(np.stack(x), axis=0), *found)

    def render(self, params: Any, count: int) -> list[np.ndarray]:
        """Images of some latents held out, then of their edits by each mapper."""
        generator = self._networks.generator
        batch = np.asarray(self.data.validation.array[:count], np.float32)
        latent = self._convert(generator, batch)
        edits = [
            self._edit(jax.tree.map(lambda x, i=i: x[i], params), latent)
            for i in range(len(self._text))
        ]
        return [np.asarray(self._synthesize(generator, x)) for x in (latent, *edits)]


class Best(NamedTuple):
    """Mappers with the lowest validation loss.

    Attributes:
      loss: [M], infinite before the first validation.
      step: [M], number of steps done.
      params: their parameters, every leaf [M, …].
    """

    loss: np.ndarray
    step: np.ndarray
    params: Any


def no_best(state: mapper_training.State) -> Best:
    """The mappers of a state that has not been validated."""
    step = np.asarray(state.step)
    loss = np.full(step.shape, np.inf, np.float32)
    return Best(loss, step, state.params)


def keep_best(
    best: Best, step: int, params: Any, found: dict[str, np.ndarray]
) -> tuple[Best, list[int]]:
    """The better of two sets of mappers, and which of them are new."""
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
