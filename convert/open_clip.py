"""OpenCLIP: its architectures by name, and configurations in open_clip_config.json.

Its files have OpenAI's tensor names, and say nothing of activation, heads, mean and
deviation.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.models.clip_resnet import ResnetClipConfig
from styleclip_jax.models.clip_vit import ClipConfig
from styleclip_jax.models.preprocessing import OPENAI, Preprocessing

from .clip_resnet import POOLED

CONFIG = "open_clip_config.json"

# Token at which the feature of a text is taken: the largest, as OpenCLIP does.
ARGMAX = 2

# Width, layers, heads and hidden features of towers of images.
_VISION = {
    "S": (384, 12, 6, 1536),
    "M": (512, 12, 8, 2048),
    "B": (768, 12, 12, 3072),
    "B+": (896, 12, 14, 3584),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
    "bigG": (1664, 48, 16, 8192),
    "e": (1792, 56, 16, 15360),
}


def _vit(vision: str, patch: int, size: int, text: int, layers: int) -> ClipConfig:
    """An architecture: tower, patch and image size; width and layers of the text."""
    vision_width, vision_layers, vision_heads, mlp_width = _VISION[vision]
    return ClipConfig(
        image_size=size,
        patch_size=patch,
        vision_width=vision_width,
        vision_layers=vision_layers,
        vision_heads=vision_heads,
        vision_mlp_width=mlp_width,
        vision_act="gelu",
        eos_token_id=ARGMAX,
        text_width=text,
        text_layers=layers,
        text_heads=text // 64,
        text_mlp_width=4 * text,
        text_act="gelu",
        embed_dim=text,
    )


def _resnet(
    layers: tuple[int, ...], width: int, size: int, text: int, embed_dim: int
) -> ResnetClipConfig:
    """An architecture with a ResNet: its blocks and image size; width of the text."""
    return ResnetClipConfig(
        image_size=size,
        vision_width=width,
        vision_layers=layers,
        vision_heads=POOLED * width // 64,
        eos_token_id=ARGMAX,
        text_width=text,
        text_heads=text // 64,
        text_mlp_width=4 * text,
        text_act="gelu",
        embed_dim=embed_dim,
    )


_RESNETS = {
    "RN50": _resnet((3, 4, 6, 3), 64, 224, 512, 1024),
    "RN101": _resnet((3, 4, 23, 3), 64, 224, 512, 512),
    "RN50x4": _resnet((4, 6, 10, 6), 80, 288, 640, 640),
    "RN50x16": _resnet((6, 8, 18, 8), 96, 384, 768, 768),
    "RN50x64": _resnet((3, 15, 36, 10), 128, 448, 1024, 1024),
}
_GELU = {
    "ViT-S-32": _vit("S", 32, 224, 384, 12),
    "ViT-S-32-alt": _vit("S", 32, 224, 256, 10),
    "ViT-S-16": _vit("S", 16, 224, 384, 12),
    "ViT-S-16-alt": _vit("S", 16, 224, 256, 10),
    "ViT-M-32": _vit("M", 32, 224, 512, 12),
    "ViT-M-32-alt": _vit("M", 32, 224, 384, 12),
    "ViT-M-16": _vit("M", 16, 224, 512, 12),
    "ViT-B-32": _vit("B", 32, 224, 512, 12),
    "ViT-B-32-256": _vit("B", 32, 256, 512, 12),
    "ViT-B-32-plus-256": _vit("B+", 32, 256, 640, 12),
    "ViT-B-16": _vit("B", 16, 224, 512, 12),
    "ViT-B-16-plus": _vit("B+", 16, 224, 640, 12),
    "ViT-B-16-plus-240": _vit("B+", 16, 240, 640, 12),
    "ViT-L-16": _vit("L", 16, 224, 768, 12),
    "ViT-L-16-320": _vit("L", 16, 320, 768, 12),
    "ViT-L-14": _vit("L", 14, 224, 768, 12),
    "ViT-L-14-280": _vit("L", 14, 280, 768, 12),
    "ViT-L-14-336": _vit("L", 14, 336, 768, 12),
    "ViT-H-16": _vit("H", 16, 224, 1024, 24),
    "ViT-H-14": _vit("H", 14, 224, 1024, 24),
    "ViT-H-14-378": _vit("H", 14, 378, 1024, 24),
    "ViT-g-14": _vit("g", 14, 224, 1024, 24),
    "ViT-bigG-14": _vit("bigG", 14, 224, 1280, 32),
    "ViT-e-14": _vit("e", 14, 224, 1280, 36),
}
# Of these there are weights with OpenAI's activation too.
_QUICK_GELU = (
    "ViT-B-32",
    "ViT-B-16",
    "ViT-L-14",
    "ViT-L-14-336",
    "ViT-H-14",
    "ViT-H-14-378",
    "ViT-bigG-14",
)
ARCHITECTURES: Mapping[str, ClipConfig | ResnetClipConfig] = {
    **_GELU,
    **{
        f"{name}-quickgelu": dataclasses.replace(
            _GELU[name], vision_act="quick_gelu", text_act="quick_gelu"
        )
        for name in _QUICK_GELU
    },
    **_RESNETS,
    **{
        f"{name}-quickgelu": dataclasses.replace(config, text_act="quick_gelu")
        for name, config in _RESNETS.items()
    },
}


# Fields that a tower of ours has no twin of, with the values that leave it plain.
_CUSTOM_BLOCKS: dict[str, tuple[Any, ...]] = {
    "ls_init_value": (None,),
    "block_type": (None, "default"),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
    "scale_heads": (False,),
    "scale_attn_inner": (False,),
    "scale_attn": (False,),
    "scale_fc": (False,),
}
_VISION_PLAIN = _CUSTOM_BLOCKS | {
    "timm_model_name": (None, ""),
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok",),
    "image_seq_len": (None,),
}
_TEXT_PLAIN = _CUSTOM_BLOCKS | {
    "hf_model_name": (None, ""),
    "hf_tokenizer_name": (None, ""),
    "tokenizer_type": ("",),
    "tokenizer_mode": (None,),
    "tokenizer_kwargs": (None, {}),
    "text_arch": ("clip",),
    "variable_text": (False,),
    "embed_cls": (False,),
    "no_causal_mask": (False,),
    "pool_type": ("argmax",),
    "proj_bias": (False,),
    "proj_type": ("linear",),
}
_MODEL_PLAIN: dict[str, tuple[Any, ...]] = {
    "init_logit_bias": (None,),
    "nonscalar_logit_scale": (False,),
}
# Fields of training, or of variants that the ones above turn on. A norm after the
# pooling of one token is the norm before it.
_HARMLESS = {
    "vision_cfg": {
        "patch_dropout",
        "attn_pooler_queries",
        "attn_pooler_heads",
        "output_tokens",
        "final_ln_after_pool",
        "timm_model_pretrained",
        "timm_pool",
        "timm_proj",
        "timm_proj_bias",
        "timm_drop",
        "timm_drop_path",
        "timm_model_kwargs",
    },
    "text_cfg": {
        "output_tokens",
        "final_ln_after_pool",
        "pad_id",
        "bos_id",
        "eos_id",
        "tiktoken_name",
        "hf_model_pretrained",
        "hf_proj_type",
        "hf_pooler_type",
        "hf_model_config",
    },
    # With custom_text names of the tensors differ, and nothing else.
    "model_cfg": {"init_logit_scale", "cast_dtype", "output_dict", "custom_text"},
}
_TOWER = {"layers", "width", "mlp_ratio", "act_kwargs", "norm_kwargs"}
_READ = {
    "vision_cfg": _TOWER | {"image_size", "patch_size", "head_width"},
    "text_cfg": _TOWER | {"context_length", "vocab_size", "heads"},
    "document": {"model_cfg", "preprocess_cfg"},
    "model_cfg": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"},
    "preprocess_cfg": {
        "size",
        "mode",
        "mean",
        "std",
        "interpolation",
        "resize_mode",
        "fill_color",
    },
}


def read_config(
    path: pathlib.Path,
) -> tuple[ClipConfig | ResnetClipConfig, list[str]]:
    """Configuration of an open_clip_config.json, and notes on what it leaves out.

    Raises:
      UserError: no such file, or it names what we do not build.
    """
    document = documents.read_object(path)
    try:
        _check("document", document, {})
        preprocess = document.get("preprocess_cfg") or {}
        config = _build(document["model_cfg"], preprocess)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        what = f"no {error}" if isinstance(error, LookupError) else error
        raise UserError(f"{path}: not a CLIP that can be built ({what})") from None
    names = ("mean", "std", "interpolation", "resize_mode")
    absent = [name for name in names if not preprocess.get(name)]
    notes = [f"{', '.join(absent)}: OpenAI's, as {path.name} names none"]
    return config, notes if absent else []


def _build(
    model: Mapping[str, Any], preprocess: Mapping[str, Any]
) -> ClipConfig | ResnetClipConfig:
    """Configuration of the two parts of a document; defaults are OpenCLIP's."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    _check("model_cfg", model, _MODEL_PLAIN)
    _check("vision_cfg", vision, _VISION_PLAIN)
    _check("text_cfg", text, _TEXT_PLAIN)
    _check("preprocess_cfg", preprocess, {"mode": ("RGB",)})
    quick = model.get("quick_gelu", False)
    layers, width = vision.get("layers", 12), vision.get("width", 768)
    head_width, text_width = vision.get("head_width", 64), text.get("width", 512)
    image_size = vision.get("image_size", 224)
    if isinstance(image_size, list):
        raise ValueError(f"vision_cfg.image_size: expected one, found {image_size}")
    common: dict[str, Any] = {
        "image_size": image_size,
        "vision_width": width,
        "vocab_size": text.get("vocab_size", 49408),
        "context_length": text.get("context_length", 77),
        "eos_token_id": ARGMAX,
        "text_width": text_width,
        "text_layers": text.get("layers", 12),
        "text_heads": text.get("heads", 8),
        "text_mlp_width": int(text_width * text.get("mlp_ratio", 4.0)),
        "text_act": _activation("text_cfg", text, quick),
        "text_eps": _epsilon("text_cfg", text),
        "embed_dim": model["embed_dim"],
        "preprocessing": _preprocessing(preprocess),
    }
    if isinstance(layers, list):
        return ResnetClipConfig(
            vision_layers=tuple(layers),
            vision_heads=POOLED * width // head_width,
            **common,
        )
    return ClipConfig(
        patch_size=vision.get("patch_size", 16),
        vision_layers=layers,
        vision_heads=width // head_width,
        vision_mlp_width=int(width * vision.get("mlp_ratio", 4.0)),
        vision_act=_activation("vision_cfg", vision, quick),
        vision_eps=_epsilon("vision_cfg", vision),
        **common,
    )


def _check(
    part: str, found: Mapping[str, Any], plain: Mapping[str, tuple[Any, ...]]
) -> None:
    """Refuses fields that are unknown, or that turn a variant on."""
    known = _READ[part] | _HARMLESS.get(part, set())
    for name, value in found.items():
        if name in plain:
            if value not in plain[name]:
                allowed = " or ".join(map(repr, plain[name]))
                raise ValueError(f"{part}.{name}: expected {allowed}, found {value!r}")
        elif name not in known:
            raise ValueError(f"{part}.{name} is not known, found {value!r}")


def _activation(part: str, tower: Mapping[str, Any], quick: bool) -> str:
    settings = tower.get("act_kwargs") or {}
    if not settings:
        return "quick_gelu" if quick else "gelu"
    if settings == {"approximate": "tanh"} and not quick:
        return "gelu_pytorch_tanh"
    raise ValueError(f"{part}.act_kwargs: expected none, found {settings}")


def _epsilon(part: str, tower: Mapping[str, Any]) -> float:
    settings = tower.get("norm_kwargs") or {}
    if settings.keys() - {"eps"}:
        raise ValueError(f"{part}.norm_kwargs: expected eps alone, found {settings}")
    return float(settings.get("eps", 1e-5))


def _preprocessing(found: Mapping[str, Any]) -> Preprocessing:
    """Preprocessing of a preprocess_cfg; what it leaves out is OpenAI's."""

    def three(name: str) -> tuple[float, float, float]:
        value = found.get(name) or getattr(OPENAI, name)
        value = value if isinstance(value, list | tuple) else [value] * 3
        red, green, blue = map(float, value)
        return red, green, blue

    mode = found.get("resize_mode") or "shortest"
    interpolation = found.get("interpolation") or "bicubic"
    return Preprocessing(
        three("mean"),
        three("std"),
        # Random it is in training alone.
        "bicubic" if interpolation == "random" else interpolation,
        mode,
        fill=(found.get("fill_color") or 0) if mode == "longest" else 0,
    )
