"""Settings of projections: photos become latents and noise as in NVIDIA's projector."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.errors import UserError

# What the optimization of an inversion minimizes, and the fields of the second.
OBJECTIVES = ("pixel", "projector")
FIELDS = (
    *("perceptual_lambda", "mse_lambda", "noise_lambda"),
    *("w_jitter", "jitter_ramp", "jitter_seed"),
)


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
    """Choice of what the optimization of an inversion minimizes.

    Attributes:
      objective: pixel for a distance of pixels and of CLIP's features; projector for
        that of NVIDIA's projector, a perceptual distance with noise that moves.
    """

    objective: str = dataclasses.field(
        default="pixel", metadata={"choices": OBJECTIVES}
    )


@dataclasses.dataclass(frozen=True)
class ProjectionConfig(checks.Config):
    """Settings of a projection; its weights and jitter are the official ones.

    NVIDIA's projector has w_steps=1000 and refine_steps=0.

    Attributes:
      w_steps: steps in W from the average of w; none where an encoder gives the start.
      refine_steps: steps in W+ after that.
      encoder_iterations: passes of an encoder that refines its latent (ReStyle); as
        its file says if absent.
      learning_rate: peak learning rate of both phases.
      perceptual_lambda: weight of the perceptual distance to the photo, that of lpips,
        or without it a stand-in of pixels and the identity network.
      mse_lambda: weight of the mean squared distance of pixels.
      noise_lambda: weight of the term that holds the noise white, which moves as well;
        with 0 the noise stays that of the generator.
      w_jitter: deviation of the noise on w at first, as a share of that of w; it fades.
      jitter_ramp: share of a phase after which there is no noise on w.
      jitter_seed: seed of the noise on w, and of the noise at the start.
    """

    w_steps: int = 50
    refine_steps: int = 100
    encoder_iterations: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 1}
    )
    learning_rate: float = 0.1
    perceptual_lambda: float = 1.0
    mse_lambda: float = 0.0
    noise_lambda: float = 1e5
    w_jitter: float = 0.05
    jitter_ramp: float = 0.75
    jitter_seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(self, 0, *checks.given(self))
        if not 0 < self.jitter_ramp <= 1:
            raise UserError(
                "jitter_ramp: expected above 0 and at most 1, found "
                f"{self.jitter_ramp:g}",
                field="jitter_ramp",
            )
        if not (self.perceptual_lambda or self.mse_lambda):
            raise UserError(
                "mse_lambda must be above 0 where perceptual_lambda is 0, found 0",
                field="mse_lambda",
            )
