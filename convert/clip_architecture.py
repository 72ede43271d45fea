"""Architecture of a CLIP: what its tensors say, and who says what they leave open.

Shapes say all sizes. Activation, heads, mean and deviation are said by the user, by a
configuration beside the file, or by marks of OpenAI's own files. Nothing is guessed.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.models.clip_resnet import ResnetClipConfig
from styleclip_jax.models.clip_vit import ClipConfig

from . import clip_resnet, open_clip, rules
from .settings import ClipSettings

OPENAI = "openai"
ARCHITECTURES = (OPENAI, *open_clip.ARCHITECTURES)

_HEAD_WIDTH = 64
_VISION, _TEXT = "vision_model/embeddings", "text_model/embeddings"
_MLP = "encoder/layers/0/mlp/fc1/kernel"


@dataclasses.dataclass(frozen=True)
class Settings(ClipSettings):
    """What a user says of a CLIP, checked."""

    def __post_init__(self) -> None:
        if self.architecture is not None:
            checks.one_of(self, architecture=ARCHITECTURES)

    def given(self) -> dict[str, Any]:
        """Settings that are given, by name."""
        values = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in values if value is not None}


NOTHING = Settings()

# Settings without which a file that says nothing is refused.
_NEEDED = ("activation", "vision_heads", "text_heads", "pixel_mean", "pixel_std")


_OPENCLIP_PIXELS = (
    "mean and deviation: OpenAI's, as of most of OpenCLIP's weights; --pixel_mean and "
    "--pixel_std give others"
)
# OpenCLIP's names of the sizes that OpenAI has published.
_OPENAI_SIZES = {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"}
_OPENAI_SIZES |= {"RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"}

_ASSUMED = (
    "a fine-tuned CLIP is taken for one of OpenAI's (quick_gelu, heads of "
    f"{_HEAD_WIDTH}); --architecture, or --activation, --vision_heads and "
    "--text_heads, give others"
)


class Described(NamedTuple):
    """A configuration and where it is from, as lines for the user."""

    config: Any
    notes: list[str]


def sizes(params: Mapping[str, np.ndarray], file: str) -> dict[str, Any]:
    """Sizes of a CLIP, as fields of its configuration.

    Args:
      params: parameters by our names.
      file: path to name in errors.

    Raises:
      UserError: a tensor that tells a size is missing or misshapen.
    """
    resnet = clip_resnet.FIRST in params
    vision = (clip_resnet.infer_vision if resnet else _vision_sizes)(params, file)
    vocab_size, text_width = _shape(params, f"{_TEXT}/token_embedding/embedding", file)
    return vision | {
        "vocab_size": vocab_size,
        "context_length": _shape(params, f"{_TEXT}/position_embedding/embedding", file)[
            0
        ],
        "text_width": text_width,
        "text_layers": rules.count_parts(params, "text_model/encoder/layers/"),
        "text_mlp_width": _shape(params, f"text_model/{_MLP}", file)[1],
        "embed_dim": _shape(params, "text_projection/kernel", file)[1],
    }


def _vision_sizes(params: Mapping[str, np.ndarray], file: str) -> dict[str, Any]:
    """Sizes of the tower of images of a vision transformer."""
    name = f"{_VISION}/patch_embedding/kernel"
    patch_size, _, _, width = _shape(params, name, file, 4)
    places, _ = _shape(params, f"{_VISION}/position_embedding/embedding", file)
    side = rules.square_side(places - 1, "patches", file=file)
    return {
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "vision_width": width,
        "vision_layers": rules.count_parts(params, "vision_model/encoder/layers/"),
        "vision_mlp_width": _shape(params, f"vision_model/{_MLP}", file)[1],
    }


def _shape(
    params: Mapping[str, np.ndarray], name: str, file: str, rank: int = 2
) -> tuple[int, ...]:
    found = rules.shape_of(params, name, file=file)
    if len(found) != rank:
        raise UserError(f"{file}: {name}: expected {rank} axes, found {list(found)}")
    return found


def describe(
    params: Mapping[str, np.ndarray],
    file: str,
    settings: Settings,
    *,
    archived: bool = False,
    mixed: bool = False,
    tuned: bool = False,
    told: Settings = NOTHING,
) -> Described:
    """Configuration of a CLIP of OpenAI's or OpenCLIP's kind.

    Args:
      params: its parameters by our names.
      file: path of its file; open_clip_config.json may stand beside.
      settings: what the user says of it.
      archived: whether OpenAI's input_resolution is among its tensors.
      mixed: whether its types are OpenAI's mix of float16 and float32.
      tuned: whether it lies in a checkpoint of somebody's fine-tuning; that is of
        OpenAI's, unless somebody says otherwise, and a note tells so.
      told: what the modules of a file with whole modules say of it.

    Raises:
      UserError: something is left open, or who says it speaks of another CLIP.
    """
    beside = pathlib.Path(file).parent / open_clip.CONFIG
    stated, notes = None, list[str]()
    if beside.is_file() and not archived and not settings.architecture:
        stated, notes = open_clip.read_config(beside)
    found = sizes(params, file)
    both = dataclasses.replace(told, **settings.given())
    fitting = [
        name
        for name, config in open_clip.ARCHITECTURES.items()
        if not _differences(config, found)
    ]
    if settings.architecture == OPENAI:
        config, origin = _openai(found, file, both), "architecture openai, as given"
    elif settings.architecture:
        config = open_clip.ARCHITECTURES[settings.architecture]
        origin = f"architecture {settings.architecture}, as given"
        notes = [_OPENCLIP_PIXELS]
    elif archived:
        config, origin = (
            _openai(found, file, both),
            "OpenAI's input_resolution in the file",
        )
    elif stated:
        config, origin = stated, f"{beside.name} beside the file"
    elif mixed:
        config = _openai(found, file, both)
        origin = "OpenAI's mix of float16 weights and float32 norms in the file"
    elif len(fitting) == 1:
        config = open_clip.ARCHITECTURES[fitting[0]]
        origin = f"OpenCLIP's {fitting[0]}, the only one with these sizes"
        notes = [_OPENCLIP_PIXELS]
    elif tuned and (not fitting or not _OPENAI_SIZES.isdisjoint(fitting)):
        config = _openai(found, file, both)
        origin = "assumption: OpenAI's, which the file does not tell from OpenCLIP's"
        notes = [_ASSUMED]
    else:
        missing = [name for name in _NEEDED if name not in both.given()]
        if missing:
            raise UserError(_open_question(file, fitting, missing))
        config = dataclasses.replace(
            _openai(found, file, both), eos_token_id=open_clip.ARGMAX
        )
        origin = "settings, as given"
    if different := _differences(config, found):
        name = different[0]
        expected = getattr(config, name, None)
        raise UserError(
            f"{file}: {name}: expected {expected} by {origin}, found {found[name]}"
        )
    notes = [
        f"activation, heads, mean and deviation: by {origin}",
        "sizes: by the shapes of the tensors",
        *notes,
    ]
    described = apply(told, Described(config, notes), file, "by the file's modules")
    return apply(settings, described, file)


def apply(
    settings: Settings, described: Described, file: str, origin: str = "as given"
) -> Described:
    """A configuration with what the user, or another origin, says of it.

    Raises:
      UserError: no such CLIP can be built.
    """
    given = settings.given()
    given.pop("architecture", None)
    if not given:
        return described
    own = {
        ours: given[theirs]
        for ours, theirs in (
            ("mean", "pixel_mean"),
            ("std", "pixel_std"),
            ("interpolation", "interpolation"),
            ("resize_mode", "resize_mode"),
        )
        if theirs in given
    }
    config = described.config
    changes: dict[str, Any] = {
        name: given[name] for name in ("vision_heads", "text_heads") if name in given
    }
    if "activation" in given:
        # A ResNet has its own.
        acts = [name for name in ("vision_act", "text_act") if hasattr(config, name)]
        changes |= dict.fromkeys(acts, given["activation"])
    try:
        changes["preprocessing"] = dataclasses.replace(config.preprocessing, **own)
        config = dataclasses.replace(config, **changes)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: not a CLIP that can be built ({error})") from None
    return Described(config, [*described.notes, f"{', '.join(given)}: {origin}"])


def _openai(found: Mapping[str, Any], file: str, settings: Settings) -> Any:
    """Configuration by the rules of OpenAI's loader, but for heads that are given."""
    resnet = "patch_size" not in found
    # The attention pool sees the last feature map.
    width = found["vision_width"] * (clip_resnet.POOLED if resnet else 1)
    try:
        return (ResnetClipConfig if resnet else ClipConfig)(
            **found,
            vision_heads=settings.vision_heads or width // _HEAD_WIDTH,
            text_heads=settings.text_heads or found["text_width"] // _HEAD_WIDTH,
            # The end token is the last of the vocabulary.
            eos_token_id=found["vocab_size"] - 1,
        )
    except ValueError as error:
        raise UserError(f"{file}: not a CLIP that can be built ({error})") from None


def _differences(config: Any, found: Mapping[str, Any]) -> list[str]:
    """Names of sizes that a configuration does not have as found."""
    return [name for name, size in found.items() if getattr(config, name, None) != size]


def _open_question(file: str, fitting: list[str], missing: list[str]) -> str:
    flags = ", ".join(f"--{name}" for name in missing)
    if fitting:
        names = " or ".join(f"--architecture={name}" for name in fitting)
        flags = f"{names}, or {flags}"
    else:
        flags = f"{flags}, or --architecture=openai if it has OpenAI's"
    return (
        f"{file}: activation, heads, mean and deviation are left open by its tensors, "
        f"and no configuration stands beside it; give {flags}"
    )
