"""Settings of delta networks and of their training."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.settings.latents import EDIT_SPACES


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Architecture of the network; the generator gives the rest of it.

    Attributes:
      space: Space to edit in.
      width: Length of the hidden features.
      num_layers: Number of dense layers.
    """

    space: str = dataclasses.field(default="s", metadata={"choices": EDIT_SPACES})
    width: int = 256
    num_layers: int = 4


@dataclasses.dataclass(frozen=True)
class TrainingConfig(checks.Config):
    """Settings of a delta network's training.

    Attributes:
      learning_rate: learning rate of Adam, constant.
      noise: length of the noise that is added to differences of length 1.
      num_pairs: latents that each latent of a batch is paired with in a step, all
        others of the batch at most.
    """

    learning_rate: float = 1e-3
    noise: float = 0.5
    num_pairs: int = 16

    def __post_init__(self) -> None:
        checks.at_least(self, 0, "learning_rate", "noise")
        checks.at_least(self, 1, "num_pairs")
