"""Compiled work of an adversarial training: each phase on all devices."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax import parallel
from styleclip_jax.methods import augmentation, gan_draws, gan_training
from styleclip_jax.methods.gan_draws import Fakes, Reals
from styleclip_jax.methods.gan_training import DISCRIMINATOR, GENERATOR, PATHS, R1
from styleclip_jax.ops import pixels
from styleclip_jax.settings.augmentation import AdaptationConfig, AugmentationConfig

from .image_data import Batch, RealImages, rows_of_device

# Steps from one move of ADA's probability to the next.
_ADJUST_EVERY = 4
# Figures of each phase.
_FIGURES = {
    GENERATOR: ("loss", "fake_logit"),
    PATHS: ("path_penalty", "path_length"),
    DISCRIMINATOR: ("loss", "fake_logit", "real_logit", "real_sign"),
    R1: ("r1_penalty", "real_logit", "real_sign"),
}


class State(NamedTuple):
    """State of a training.

    Attributes:
      gan: state of both networks.
      probability: probability p of augmentation.
      signs: [2] sum of the signs of logits of real images since p moved, and number.
      figures: sum and number of each figure since they were last looked at, [2], by
        "phase/name".
    """

    gan: gan_training.State
    probability: jax.Array
    signs: jax.Array
    figures: dict[str, jax.Array]

    @property
    def means(self) -> dict[str, float]:
        """Means of the figures since they were last looked at; none for a phase that
        had no turn."""
        sums = {name: np.asarray(x) for name, x in self.figures.items()}
        return {name: float(x[0] / x[1]) for name, x in sums.items() if x[1]}

    def counting(self, phase: str, found: Mapping[str, jax.Array]) -> "State":
        """The same, with what a phase has found added to the figures."""
        added = {
            f"{phase}/{name}": self.figures[f"{phase}/{name}"] + jnp.stack([x, 1.0])
            for name, x in found.items()
        }
        return self._replace(figures=self.figures | added)


class Augmentation(NamedTuple):
    """Augmentation of what the discriminator sees.

    Attributes:
      config: transforms; None for no augmentation.
      adaptation: rule by which p moves; None for a fixed p.
      start: first p.
    """

    config: AugmentationConfig | None
    adaptation: AdaptationConfig | None
    start: float


class GanTrainer:
    """Compiled work of a training: the phases of its steps."""

    def __init__(
        self,
        problem: gan_training.Problem,
        augmenting: Augmentation,
        data: RealImages,
        batch_size: int,
        seed: int,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """Prepares everything; compilation happens at first use.

        Args:
          problem: what is trained for.
          augmenting: what the discriminator sees.
          data: real images.
          batch_size: images per step, over all devices.
          seed: seed of all draws.
          devices: of this process, where there is one process; all if absent.
        """
        self.mesh = parallel.make_mesh(devices or jax.local_devices())
        self.problem, self._augmentation = problem, augmenting
        self.data, self._size = data, batch_size
        labels = data.labels
        fixed = (jax.random.key(seed), None if labels is None else jnp.asarray(labels))
        self._fixed = parallel.replicate(fixed, self.mesh)
        self._each = batch_size // (self.mesh.size * jax.process_count())
        phases = {
            GENERATOR: self._train_generator,
            PATHS: self._regularize_generator,
            DISCRIMINATOR: self._train_discriminator,
            R1: self._regularize_discriminator,
        }
        self._phases = {
            name: parallel.map_devices(phase, 4, donated=[2], devices=devices)
            for name, phase in phases.items()
        }
        self._end = jax.jit(self._end_step, donate_argnums=0)

    def start(self, generator: Any, discriminator: Any) -> State:
        """State before the first step, of first parameters, on the host."""
        gan = gan_training.start(generator, discriminator, problem=self.problem)
        probability = jnp.asarray(self._augmentation.start)
        state = State(gan, probability, jnp.zeros(2), _no_figures())
        # On a device averages and weights would be one buffer, which is used up.
        return jax.device_get(state)

    def without_figures(self, state: State) -> State:
        """The same state, with no figures yet, on the devices as it was."""
        return state._replace(figures=parallel.replicate(_no_figures(), self.mesh))

    def batches(self, start: int, stop: int) -> Any:
        """Batches of the steps from `start` on, on the devices ahead of time."""
        shares = self.data.batches(self._size, start, stop, self.mesh)
        return parallel.prefetch(shares, self.mesh)

    def step(self, state: State, number: int, batch: Batch) -> State:
        """State after one more step, whose number counts from 0; the old is used up."""
        index = np.uint32(number)
        for name in gan_training.schedule(number, problem=self.problem):
            state = self._phases[name](*self._fixed, state, index, batch)
        return self._end(state, (number + 1) % _ADJUST_EVERY == 0)

    def _train_generator(
        self, key: Any, labels: Any, state: State, number: Any, batch: Batch
    ) -> State:
        keys = self._keys(key, number, 0, self._each)
        gan, figures = gan_training.train_generator(
            state.gan,
            self._fakes(keys, labels),
            problem=self.problem,
            augment=self._augment(state),
            axis_name=parallel.AXIS,
        )
        return state._replace(gan=gan).counting(GENERATOR, figures)

    def _regularize_generator(
        self, key: Any, labels: Any, state: State, number: Any, batch: Batch
    ) -> State:
        count = gan_training.path_batch(self._each, problem=self.problem)
        keys = self._keys(key, number, 1, count)
        shape = batch.image.shape[1:]
        of_direction = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        direction = jax.vmap(lambda key: jax.random.normal(key, shape))(of_direction)
        gan, figures = gan_training.regularize_generator(
            state.gan,
            self._fakes(keys, labels),
            direction,
            problem=self.problem,
            axis_name=parallel.AXIS,
        )
        return state._replace(gan=gan).counting(PATHS, figures)

    def _train_discriminator(
        self, key: Any, labels: Any, state: State, number: Any, batch: Batch
    ) -> State:
        gan, figures = gan_training.train_discriminator(
            state.gan,
            self._reals(self._keys(key, number, 2, self._each), batch),
            self._fakes(self._keys(key, number, 3, self._each), labels),
            problem=self.problem,
            augment=self._augment(state),
            axis_name=parallel.AXIS,
        )
        return self._with_signs(state._replace(gan=gan), DISCRIMINATOR, figures)

    def _regularize_discriminator(
        self, key: Any, labels: Any, state: State, number: Any, batch: Batch
    ) -> State:
        gan, figures = gan_training.regularize_discriminator(
            state.gan,
            self._reals(self._keys(key, number, 4, self._each), batch),
            problem=self.problem,
            augment=self._augment(state),
            axis_name=parallel.AXIS,
        )
        return self._with_signs(state._replace(gan=gan), R1, figures)

    def _keys(self, key: Any, number: Any, phase: int, count: int) -> jax.Array:
        """Keys of a device's rows [B], of a step and a phase of it.

        A row has the same key on any number of devices.
        """
        key = jax.random.fold_in(jax.random.fold_in(key, number), phase)
        rows = lax.axis_index(parallel.AXIS) * count + rows_of_device(count)
        return jax.vmap(functools.partial(jax.random.fold_in, key))(rows)

    def _fakes(self, keys: jax.Array, labels: Any) -> Fakes:
        """Draws of generated images, one for each key."""
        config, settings = self.problem.generator, self.problem.settings

        def draw(key: jax.Array) -> Fakes:
            label = None
            if labels is not None:
                of_label = jax.random.fold_in(key, 2)
                label = labels[jax.random.randint(of_label, (), 0, len(labels))]
                if labels.ndim == 1:
                    label = jax.nn.one_hot(label, config.c_dim)
                label = label[None]
            mixing = settings.style_mixing
            found = gan_draws.draw_fakes(
                key, config, 1, style_mixing=mixing, label=label
            )
            own = jax.tree.map(lambda x: x[0], found._replace(augment=None))
            return own._replace(augment=found.augment)

        return jax.vmap(draw)(keys)

    def _reals(self, keys: jax.Array, batch: Any) -> Reals:
        return Reals(pixels.to_float(batch.image), batch.label, keys)

    def _augment(self, state: State) -> Any:
        """(images, keys) → augmented images; None for no augmentation."""
        config = self._augmentation.config
        if config is None:
            return None

        def apply(image: jax.Array, keys: jax.Array) -> jax.Array:
            draws = jax.vmap(functools.partial(augmentation.draw, batch=1))(keys)
            draws = jax.tree.map(lambda x: x[:, 0], draws)
            return augmentation.augment(image, state.probability, draws, config=config)

        return apply

    def _with_signs(self, state: State, phase: str, figures: Any) -> State:
        """State with the figures of a phase, whose signs move p."""
        found = jnp.stack([figures["real_sign"], 1.0]) * self._size
        state = state._replace(signs=state.signs + found)
        return state.counting(phase, figures)

    def _end_step(self, state: State, moves: Any) -> State:
        """State at the end of a step, whose averages and p have moved."""
        gan = gan_training.average(state.gan, self._size, problem=self.problem)
        state = state._replace(gan=gan)
        rule = self._augmentation.adaptation
        if rule is None:
            return state
        images = self._size * _ADJUST_EVERY
        moved = augmentation.adjust(state.probability, state.signs, images, config=rule)
        return state._replace(
            probability=jnp.where(moves, moved, state.probability),
            signs=jnp.where(moves, 0, state.signs),
        )


def _no_figures() -> dict[str, jax.Array]:
    return {
        f"{phase}/{name}": jnp.zeros(2)
        for phase, names in _FIGURES.items()
        for name in names
    }
