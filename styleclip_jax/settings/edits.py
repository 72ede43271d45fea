"""Settings of edits: prompts, and what each method has of its own."""

import dataclasses
from typing import Any

from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.settings.latents import EDIT_SPACES

# Strength, or threshold, that is found.
AUTO = "auto"
# Inputs of CLIP: the official one, and the one that it was trained with.
PREPROCESSINGS = ("styleclip", "clip")


def repeated() -> Any:
    """Field of texts that may hold commas, whose flag is repeated instead."""
    return dataclasses.field(default=None, metadata={"repeated": True})


@dataclasses.dataclass(frozen=True)
class PromptRequest:
    """Request for prompts: one text, or a file of texts, and others beside each.

    Attributes:
      prompt: Text to edit towards.
      prompts_file: File of prompts, one a line, # for comments; each latent is edited
        towards every one of them.
      also: Further text to edit towards at the same time, TEXT or TEXT=WEIGHT; the
        flag may be repeated.
      avoid: Text to edit away from at the same time, TEXT or TEXT=WEIGHT; the flag may
        be repeated.
    """

    prompt: str | None = None
    prompts_file: str | None = None
    also: tuple[str, ...] | None = repeated()
    avoid: tuple[str, ...] | None = repeated()


@dataclasses.dataclass(frozen=True)
class SearchConfig(checks.Config):
    """Settings of the search for strengths.

    Attributes:
      reach: fit that an edit has to reach; 1 is that of the best samples.
      budget: largest change elsewhere; 1 is as much as between two random samples.
    """

    reach: float = 1.0
    budget: float = 0.45

    def __post_init__(self) -> None:
        checks.at_least(self, 0, "reach", "budget")


@dataclasses.dataclass(frozen=True)
class Searched(checks.Config):
    """Settings of a method whose steps have a strength.

    Attributes:
      strength: Factor of the method's steps; auto, the least that makes the text fit,
        is found for each latent.
      budget: Largest change that the text does not ask for, with a strength that is
        found; 1 is as much as between two random samples.
    """

    strength: str | None = None
    budget: float = dataclasses.field(
        default=SearchConfig.budget, metadata={"lower_bound": 0}
    )

    @property
    def factor(self) -> float | None:
        """Strength as a number; None where there is none, or it is to be found."""
        if self.strength in (None, AUTO):
            return None
        return checks.numbers("strength", [self.strength])[0]


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(checks.Config):
    """Settings of further terms of an objective.

    Attributes:
      objective: Terms beside those that have flags of their own, NAME or NAME=WEIGHT
        with commas between: directional, pixels, sparse, clip for another weight than
        1, or functions of your own as module:NAME.
      neutral: Neutral text, which a direction and the term directional lead away from.
    """

    objective: tuple[str, ...] | None = None
    neutral: str = "a face"


MODES = ("edit", "free_generation")


@dataclasses.dataclass(frozen=True)
class OptimizationConfig(checks.Config):
    """Settings of an optimization; the defaults are the official script's.

    Attributes:
      space: latent space to move in, w_plus or s (style space without toRGB).
      mode: kind of optimization: edit stays near the source; free_generation starts
        at the average latent and follows the text alone.
      steps: number of steps.
      learning_rate: peak learning rate.
      l2_lambda: weight of the squared distance to the source latent.
      id_lambda: weight of the identity distance to the source image; needs an
        identity network.
      clip_preprocess: input of CLIP: styleclip (official, not normalised) or clip (as
        CLIP was trained).
      keep_best: return the iterate of the lowest loss instead of the last one.
      film_frames: number of intermediate latents to keep, evenly spaced.
    """

    space: str = "w_plus"
    mode: str = "edit"
    steps: int = 300
    learning_rate: float = 0.1
    l2_lambda: float = 0.008
    id_lambda: float = 0.0
    clip_preprocess: str = "styleclip"
    keep_best: bool = False
    film_frames: int = 0

    def __post_init__(self) -> None:
        checks.one_of(
            self, space=EDIT_SPACES, mode=MODES, clip_preprocess=PREPROCESSINGS
        )
        checks.at_least(self, 1, "steps")
        if not 0 <= self.film_frames <= self.steps:
            raise UserError(
                f"film_frames must be from 0 to steps ({self.steps}), "
                f"found {self.film_frames}",
                field="film_frames",
            )
        checks.at_least(self, 0, "learning_rate", "l2_lambda", "id_lambda")


@dataclasses.dataclass(frozen=True)
class OptimizationSettings(OptimizationConfig, ObjectiveConfig, Searched):
    """Settings of an optimization, of further terms and of the search for strengths."""


@dataclasses.dataclass(frozen=True)
class MappingConfig(Searched):
    """Settings of edits by mappers.

    Attributes:
      mapper: Model directory of a mapper, or several with commas between.
      strength: Factor of a mapper's step, any number; that of its training if absent;
        or auto, the least that makes its text fit, found for each latent.
      levels: Levels that a mapper may move, of coarse, medium and fine; all if absent.
    """

    mapper: tuple[str, ...] | None = None
    levels: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class DirectionSettings(checks.Config):
    """Settings of edits along global directions.

    Attributes:
      neutral: Neutral text, which a direction leads away from.
      directions: File of channel relevance (styleclip-measure-directions makes it); if
        absent, relevance for the prompt is estimated on the spot.
      num_samples: Number of samples that relevance is estimated from, without a file
        of it.
      direction: Direction in place of texts: a file, or several with numbers, +, -, *
        and parentheses, such as "smile.safetensors - 0.5*age.npy@4-7 + pca.npz[3]".
      channel: Channel of one layer in place of texts, such as 6:501 or b16/conv1:501;
        alpha counts its standard deviations.
      alpha: Strength of a direction, one or several with commas between; or auto, the
        least that makes the text fit, found for each latent.
      beta: Least relevance of a channel, one or several with commas between; or auto,
        the largest of 0.10 to 0.29 that keeps more than 20 channels. With alpha=auto,
        it keeps 40% of the channels, of which each latent keeps those that help.
      num_channels: Number of channels that a direction keeps, in place of beta.
      budget: Largest change that the text does not ask for, with a strength that is
        found; 1 is as much as between two random samples.
    """

    neutral: str = "a face"
    directions: str | None = None
    num_samples: int = dataclasses.field(default=16, metadata={"lower_bound": 1})
    direction: str | None = None
    channel: str | None = None
    alpha: tuple[str, ...] = ("4",)
    beta: tuple[str, ...] = (AUTO,)
    num_channels: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 1}
    )
    budget: float = dataclasses.field(
        default=SearchConfig.budget, metadata={"lower_bound": 0}
    )

    def __post_init__(self) -> None:
        if self.searches and len(self.alpha) > 1:
            raise UserError(
                f"alpha: expected {AUTO} alone, found {','.join(self.alpha)}",
                field="alpha",
            )
        if self.searches and not reads_texts(self):
            raise UserError(
                f"alpha: {AUTO} needs a prompt to fit, expected a number", field="alpha"
            )
        if self.direction is not None and self.channel is not None:
            raise UserError(
                "direction and channel: expected one, found both",
                field="direction",
                also=["channel"],
            )

    @property
    def searches(self) -> bool:
        """Whether α is found for each latent."""
        return AUTO in self.alpha


def reads_texts(config: DirectionSettings) -> bool:
    """Whether directions are made of texts, and not read."""
    return config.direction is None and config.channel is None


@dataclasses.dataclass(frozen=True)
class DeltaSettings(Searched):
    """Settings of edits by a delta network.

    Attributes:
      delta: Model directory of a delta network, which styleclip-train-delta makes.
      neutral: Neutral text, which an edit leads away from.
      strength: Factor of a network's step, any number; 1 if absent; or auto, the least
        that makes the text fit, found for each latent.
    """

    delta: str | None = None
    neutral: str = "a face"


@dataclasses.dataclass(frozen=True)
class Learned:
    """Settings of edits along directions that are learned before.

    Attributes:
      alpha: Strength of a direction, one or several with commas between.
      save_direction: .safetensors file to write a learned direction to, which the
        setting direction takes later.
    """

    alpha: tuple[str, ...] = ("1",)
    save_direction: str | None = None


@dataclasses.dataclass(frozen=True)
class StyleMCConfig(checks.Config):
    """Settings of a direction that is learned from a few faces.

    Attributes:
      resolution: resolution that a direction is learned at and moves layers up to; if
        absent, a quarter of the generator's, and 32 or more.
      steps: number of steps.
      learning_rate: learning rate of Adam, constant.
      num_samples: number of random faces that a direction is learned from.
      seed: seed of these faces.
      l2_lambda: weight of the squared length of the direction.
      id_lambda: weight of the identity distance to the source image; needs an
        identity network.
      clip_preprocess: input of CLIP: styleclip (official, not normalised) or clip (as
        CLIP was trained).
    """

    resolution: int | None = None
    steps: int = 60
    learning_rate: float = 0.05
    num_samples: int = dataclasses.field(default=8, metadata={"lower_bound": 1})
    seed: int = dataclasses.field(default=0, metadata={"lower_bound": 0})
    l2_lambda: float = 0.003
    id_lambda: float = 0.0
    clip_preprocess: str = "styleclip"

    def __post_init__(self) -> None:
        checks.one_of(self, clip_preprocess=PREPROCESSINGS)
        checks.at_least(self, 1, "steps", "num_samples")
        checks.at_least(self, 0, "seed", "learning_rate", "l2_lambda", "id_lambda")


@dataclasses.dataclass(frozen=True)
class StyleMCSettings(StyleMCConfig, ObjectiveConfig, Learned):
    """Settings of StyleMC and of the edits along its directions."""

    objective: tuple[str, ...] | None = ("directional=0.3",)


@dataclasses.dataclass(frozen=True)
class EssenceConfig(StyleMCConfig):
    """Settings of the essence of an image.

    Attributes:
      directional_lambda: weight of the difference between the faces' steps in CLIP's
        space and the step from their average to the image.
      consistency_lambda: weight of the difference between the faces' steps in CLIP's
        space.
    """

    steps: int = 100
    l2_lambda: float = 0.001
    directional_lambda: float = 1.0
    consistency_lambda: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, 0, "directional_lambda", "consistency_lambda")
        checks.at_least(self, 2, "num_samples")


@dataclasses.dataclass(frozen=True)
class EssenceSettings(EssenceConfig, Learned):
    """Settings of the essence of an image and of the edits along it.

    Attributes:
      target: Image whose essence faces take on: a square photo, or a row of a file of
        latents as FILE:ROW, row 0 if only FILE is given.
      align_target: Cut the largest face out of a photo, as FFHQ's are; needs the extra
        align.
    """

    target: str | None = None
    align_target: bool = False
