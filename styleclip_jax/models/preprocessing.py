"""Preprocessing of a CLIP: how the images of its training were made."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.errors import UserError

INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "squash", "longest")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of images: resized, cropped and normalised; OpenAI's by default.

    Attributes:
      mean: mean of red, green and blue in [0, 1], which is taken off.
      std: standard deviation of these, which the rest is divided by.
      interpolation: filter of the resize, one of INTERPOLATIONS.
      resize_mode: shortest resizes the shorter side to the network's size, and crops
        the centre; squash resizes both sides to it; longest resizes the longer side,
        and pads.
      resized: size that shortest resizes the shorter side to before it crops, None for
        the network's.
      fill: value of padded pixels, 0 to 255.
    """

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    resized: int | None = None
    fill: int = 0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(-10 < value < 10 for value in values):
                raise UserError(
                    f"{name} must be three numbers for pixels in [0, 1], found "
                    f"{list(values)}",
                    field=name,
                )
        if min(self.std) <= 0:
            raise UserError(f"std must be above 0, found {list(self.std)}", field="std")
        checks.one_of(self, interpolation=INTERPOLATIONS, resize_mode=RESIZE_MODES)


OPENAI = Preprocessing()
