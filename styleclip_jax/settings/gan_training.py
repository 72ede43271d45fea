"""Settings of adversarial trainings of generators."""

import dataclasses

from styleclip_jax import checks

RECIPES = ("nvidia", "rosinality")


@dataclasses.dataclass(frozen=True)
class GanTrainingConfig(checks.Config):
    """Settings of an adversarial training; the defaults are StyleGAN2's config F.

    Attributes:
      recipe: Whose loop it is: nvidia trains the generator first, keeps an average of
        w, and lets the average of the weights ramp up; rosinality does none of these.
      learning_rate: Learning rate of both networks, before that of a lazy network is
        lowered.
      r1_gamma: Weight γ of R1, γ/2 times the squared gradient by the images.
      path_weight: Weight of the path lengths' penalty; 0 for none.
      path_decay: Share of a batch's mean in the running mean of path lengths.
      path_batch_shrink: Batch divided by that of the path lengths.
      r1_interval: Steps between two of R1, whose gradient counts as often.
      path_interval: Steps between two of the path lengths, likewise.
      style_mixing: Probability that late rows of W+ take another w.
      ema_images: Half-life of the average of the generator's weights, in images.
      ema_ramp_up: Bound on this half-life, as a share of the images so far; none if
        absent.
      w_avg_decay: Share that the average of w keeps from batch to batch.
    """

    recipe: str = dataclasses.field(default="nvidia", metadata={"choices": RECIPES})
    learning_rate: float = 0.002
    r1_gamma: float = 10.0
    path_weight: float = 2.0
    path_decay: float = 0.01
    path_batch_shrink: int = 2
    r1_interval: int = 16
    path_interval: int = 4
    style_mixing: float = 0.9
    ema_images: float = 10_000.0
    ema_ramp_up: float | None = None
    w_avg_decay: float = 0.995

    def __post_init__(self) -> None:
        checks.one_of(self, recipe=RECIPES)
        zero = ("learning_rate", "r1_gamma", "path_weight", "path_decay")
        checks.at_least(self, 0, *zero, "style_mixing", "ema_images", "w_avg_decay")
        checks.at_least(self, 1, "path_batch_shrink", "r1_interval", "path_interval")
        if self.ema_ramp_up is not None:
            checks.at_least(self, 0, "ema_ramp_up")
