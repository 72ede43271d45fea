"""Settings of adaptive discriminator augmentation (ADA)."""

import dataclasses

from styleclip_jax import checks

_BLIT = ("xflip", "rotate90", "xint")
_GEOM = ("scale", "rotate", "aniso", "xfrac")
_COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(checks.Config):
    """Transforms of ADA, each with a strength that multiplies the probability.

    Attributes:
      xflip: mirror images.
      rotate90: quarter turns, 0 to 3.
      xint: shifts by whole pixels.
      scale: scaling.
      rotate: rotations before and after the anisotropic scaling.
      aniso: scaling that widens as it lowers, at constant area.
      xfrac: shifts by fractions of pixels.
      brightness: a number added to all channels.
      contrast: a factor of all channels.
      lumaflip: reflection of the luma, with chroma as it is.
      hue: rotation of the chroma.
      saturation: a factor of the chroma.
      xint_max: largest shift by whole pixels, as a share of the side.
      scale_std: deviation of the scaling's logarithm to base 2.
      rotate_max: largest rotation, as a share of half a turn.
      aniso_std: deviation of the anisotropic scaling's logarithm to base 2.
      xfrac_std: deviation of the fractional shift, as a share of the side.
      brightness_std: deviation of what is added, for images in [-1, 1].
      contrast_std: deviation of the factor's logarithm to base 2.
      hue_max: largest rotation of the chroma, as a share of half a turn.
      saturation_std: deviation of the factor's logarithm to base 2.
    """

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    xint_max: float = 0.125
    scale_std: float = 0.2
    rotate_max: float = 1.0
    aniso_std: float = 0.2
    xfrac_std: float = 0.125
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1.0
    saturation_std: float = 1.0

    def __post_init__(self) -> None:
        checks.at_least(self, 0, *(field.name for field in dataclasses.fields(self)))

    @property
    def moves_pixels(self) -> bool:
        """Whether a transform of the geometry is on."""
        return any(getattr(self, name) for name in (*_BLIT, *_GEOM))

    @property
    def changes_colors(self) -> bool:
        """Whether a transform of the colours is on."""
        return any(getattr(self, name) for name in _COLOR)


def _all_of(*names: str) -> AugmentationConfig:
    return AugmentationConfig(**dict.fromkeys(names, 1.0))


# Pipelines of the official code by name, the parameter --augpipe.
PIPELINES = {
    "blit": _all_of(*_BLIT),
    "geom": _all_of(*_GEOM),
    "color": _all_of(*_COLOR),
    "bg": _all_of(*_BLIT, *_GEOM),
    "bgc": _all_of(*_BLIT, *_GEOM, *_COLOR),
}

RULES = ("nvidia", "rosinality")


@dataclasses.dataclass(frozen=True)
class AdaptationConfig(checks.Config):
    """Rule by which ADA moves the probability.

    Attributes:
      target: mean sign of the logits of real images that the probability is moved to.
      length: number of images in which the probability moves by 1.
      rule: nvidia for StyleGAN2-ADA's, where p has no upper bound and stays at the
        target; rosinality for the PyTorch port's, where p is at most 1 and sinks there.
    """

    target: float = 0.6
    length: int = 500_000
    rule: str = dataclasses.field(default="nvidia", metadata={"choices": RULES})

    def __post_init__(self) -> None:
        checks.one_of(self, rule=RULES)
        checks.at_least(self, -1, "target")
        checks.at_least(self, 1, "length")
