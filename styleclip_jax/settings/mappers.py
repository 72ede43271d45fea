"""Settings of mappers and of their training."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.settings.edits import PREPROCESSINGS
from styleclip_jax.settings.latents import EDIT_SPACES

# What the input of a mapper is normalised over.
NORMS = ("rows", "features")
OPTIMIZERS = ("ranger", "adam")


@dataclasses.dataclass(frozen=True)
class ArchitectureSettings:
    """Architecture of the mappers; the generator gives the rest of it.

    Attributes:
      space: Space to edit in.
      levels: In W+: levels to move, of coarse,medium,fine, or single for one network
        that moves all rows; every level that the generator has if absent.
      normalize_over: In W+: what the mapper's input is normalised over. Over rows, as
        the official one is, latents of equal rows lose all but their signs.
      torgb: In S, whether toRGB vectors move as well.
      strength: Factor of the mapper's step.
    """

    space: str = dataclasses.field(default="w_plus", metadata={"choices": EDIT_SPACES})
    levels: tuple[str, ...] | None = None
    normalize_over: str = dataclasses.field(default="rows", metadata={"choices": NORMS})
    torgb: bool = False
    strength: float = 0.1


@dataclasses.dataclass(frozen=True)
class TrainingConfig(checks.Config):
    """Settings of a mapper's training; the defaults are the official script's.

    Attributes:
      optimizer: optimizer, ranger or adam.
      learning_rate: learning rate, constant.
      clip_lambda: weight of the CLIP distance to the prompt.
      id_lambda: weight of the identity distance to the source image; needs an identity
        network.
      latent_l2_lambda: weight of the mean squared distance to the source latent.
      clip_preprocess: input of CLIP: styleclip (official, not normalised) or clip (as
        CLIP was trained).
    """

    optimizer: str = "ranger"
    learning_rate: float = 0.5
    clip_lambda: float = 1.0
    id_lambda: float = 0.1
    latent_l2_lambda: float = 0.8
    clip_preprocess: str = "styleclip"

    def __post_init__(self) -> None:
        checks.one_of(self, optimizer=OPTIMIZERS, clip_preprocess=PREPROCESSINGS)
        weights = ("clip_lambda", "id_lambda", "latent_l2_lambda")
        checks.at_least(self, 0, "learning_rate", *weights)
