"""Settings of pivotal tuning: how a generator is tuned for a photo."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TuningConfig(checks.Config):
    """Settings of pivotal tuning.

    The official ones are tune_rate=3e-4 throughout, tune_ramp_up=0, tune_ramp_down=0,
    tune_noise_rate=0, tune_l1_lambda=0, and lpips.

    Attributes:
      tune_steps: steps of tuning the generator to each photo, 0 for none; 350 are the
        official number.
      tune_rate: peak learning rate of the tuning; if absent 5e-4 with the embedded
        generator, and 3e-4 with others.
      tune_noise_rate: peak learning rate of the maps of noise, which move beside the
        weights; 0 leaves them as they are. If absent 5e-3 with the embedded
        generator, and 0 with others.
      tune_ramp_up: share of the steps in which the rate rises from 0; 0 for none.
      tune_ramp_down: share of the steps in which it falls to 0 at last; 0 for none.
      tune_l1_lambda: weight of the mean absolute distance of pixels; if absent none
        with lpips, and 0.5 without.
      tune_l2_lambda: weight of the mean squared distance of pixels.
      tune_lpips_lambda: weight of the perceptual distance, that of lpips, or without
        it a stand-in of pixels and the identity network.
      tune_threshold: perceptual distance at which the tuning of a photo ends; if absent
        0.06 with lpips, and none without.
      tune_seed: seed of the codes of the locality regularization.
      locality_lambda: weight of the locality regularization, which keeps images near
        the pivot as they were; 0 for none, and 0.1 is the official one.
      locality_alpha: distance from the pivot at which it looks.
      locality_interval: steps from one such look to the next.
      locality_samples: number of images of a look.
    """

    tune_steps: int = 0
    tune_rate: float | None = None
    tune_noise_rate: float | None = None
    tune_ramp_up: float = 0.1
    tune_ramp_down: float = 0.5
    tune_l1_lambda: float | None = None
    tune_l2_lambda: float = 1.0
    tune_lpips_lambda: float = 1.0
    tune_threshold: float | None = None
    tune_seed: int = 0
    locality_lambda: float = 0.0
    locality_alpha: float = 30.0
    locality_interval: int = dataclasses.field(default=1, metadata={"lower_bound": 1})
    locality_samples: int = dataclasses.field(default=1, metadata={"lower_bound": 1})

    def __post_init__(self) -> None:
        checks.at_least(self, 0, *checks.given(self))
        for name in ("tune_ramp_up", "tune_ramp_down"):
            if getattr(self, name) > 1:
                raise UserError(
                    f"{name}: expected 0 to 1, found {getattr(self, name):g}",
                    field=name,
                )
        checks.at_least(self, 1, "locality_interval", "locality_samples")
