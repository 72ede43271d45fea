"""Settings of trainings: their length and rhythm."""

import dataclasses

from styleclip_jax import checks

# Fields of `RunConfig` that say how long and how often, not what.
NEUTRAL_FIELDS = (
    "train_steps",
    "log_interval",
    "image_interval",
    "save_interval",
    "sheet_size",
)


@dataclasses.dataclass(frozen=True)
class RunConfig(checks.Config):
    """Length and rhythm of a training; the defaults are those of official mappers.

    Attributes:
      train_steps: number of steps; a larger one goes on with a run.
      batch_size: latents per step over all devices, rounded up to a multiple of their
        number.
      num_validation: latents held out where validation_latents names none.
      log_interval: steps between lines of metrics.
      val_interval: steps between validations; the best network is chosen by them.
      image_interval: steps between sheets.
      save_interval: steps between checkpoints.
      sheet_size: latents on a sheet.
      seed: of the initial weights, of shuffling and of sampled latents.
    """

    train_steps: int = 50_000
    batch_size: int = 2
    num_validation: int = 64
    log_interval: int = 50
    val_interval: int = 2000
    image_interval: int = 2000
    save_interval: int = 2000
    sheet_size: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (x.name for x in dataclasses.fields(self) if x.name != "seed")
        checks.at_least(self, 1, *counts)
        checks.at_least(self, 0, "seed")


@dataclasses.dataclass(frozen=True)
class DeltaRunConfig(RunConfig):
    """Length and rhythm of the training of a delta network.

    Attributes:
      seed: of the initial weights, of pairs, noise, shuffling and sampled latents.
    """

    train_steps: int = 2000
    batch_size: int = 32
    val_interval: int = 200
    image_interval: int = 400
    save_interval: int = 200
