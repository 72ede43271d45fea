"""Latents of a training: from files, or sampled.

Whatever varies is a function of the seed and the number of the step, so that a run that
was interrupted goes on as if it had not been.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from styleclip_jax import latents, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files
from styleclip_jax.models import generators
from styleclip_jax.models.network import Network
from styleclip_jax.settings.latents import DataRequest

# Streams of random numbers of one seed.
_TRAINING, _VALIDATION, _STATISTICS = 0, 1, 2


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

    def samples(self, count: int) -> np.ndarray:
        """Latents [N, …] like those of the training: so many, or all of a file."""
        if self.training is None:
            rng = np.random.default_rng((self.seed, _STATISTICS))
            return rng.standard_normal((count, self.z_dim), np.float32)
        array = self.training.array
        rows = np.linspace(0, len(array) - 1, min(count, len(array))).astype(int)
        return np.asarray(array[rows], np.float32)


def open_data(
    request: DataRequest,
    generator: generators.GeneratorConfig,
    *,
    to: str,
    num_validation: int,
    batch_size: int,
    seed: int,
) -> Data:
    """Latents from files, or sampled.

    Args:
      request: which latents; without a file of those that are held out, they are the
        last ones of the others, or sampled.
      generator: that the latents are for.
      to: space that they are edited in.
      num_validation: how many to hold out without a file of them.
      batch_size: latents per step.
      seed: of shuffling and drawing.

    Raises:
      UserError: a file that cannot be read, does not fit the generator or the space,
        or has fewer latents to train on than a batch.
    """
    training = None
    if request.latents is not None:
        training = latent_files.read(request.latents, generator, None)
    if request.validation_latents is not None:
        validation = latent_files.read(request.validation_latents, generator, None)
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
    data = Data(training, validation, generator.z_dim, batch_size, seed)
    if "s" in (data.space, validation.space) and to != "s":
        raise UserError(
            "latents: the file is in s, expected space=s with it",
            field="latents",
            also=["space"],
        )
    return data


def convert(
    generator: Network,
    batch: jax.Array,
    *,
    space: str,
    truncation_psi: float,
    to: str,
    label: jax.Array | None,
) -> Any:
    """A batch from files or sampling in the space of the mapper."""
    latent: Any = batch
    if space == "s":
        latent = spaces.unflatten_styles(batch, generator.config.style_layout)
    return latents.convert(
        generator,
        latent,
        space=space,
        truncation_psi=truncation_psi,
        cutoff=None,
        to=to,
        label=label,
    )
