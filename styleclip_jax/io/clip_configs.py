"""Configurations of CLIPs: transformers' config.json and preprocessor_config.json.

CLIPs that transformers does not have are written with the fields of our configuration.

transformers leaves out what has its default value, and takes seconds to import; its
defaults are those of `ClipConfig` (OpenAI's ViT-B/32) and `SiglipConfig`.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files
from styleclip_jax.models import clip, clip_vit, runtime
from styleclip_jax.models.preprocessing import Preprocessing

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

Document = Mapping[str, Any]

# PIL's numbers of filters.
_RESAMPLE = {3: "bicubic", 2: "bilinear"}


def read(config_path: pathlib.Path, preprocessor_path: pathlib.Path | None) -> Any:
    """Configuration of a CLIP of any family.

    Args:
      config_path: config.json; its model_type names the family.
      preprocessor_path: preprocessor_config.json; without it images are preprocessed as
        is usual in the family.

    Raises:
      UserError: no such file, or not of a CLIP that we can build.
    """
    document = documents.read_object(config_path)
    if document.get("model_type") == "siglip2":
        raise UserError(
            f"{config_path}: model_type 'siglip2' is NaFlex, which takes images of any "
            "shape: expected a SigLIP 2 of a fixed size, such as "
            "google/siglip2-base-patch16-224"
        )
    family = document.get("model_type")
    build = _FAMILIES.get(family) if isinstance(family, str) else None
    if build is None:
        raise UserError(
            f"{config_path}: expected model_type {', '.join(map(repr, _FAMILIES))}, "
            f"found {document.get('model_type')!r}"
        )
    try:
        config = build(document)
    except checkpoints.INVALID as error:
        raise UserError(
            f"{config_path}: not a valid CLIP configuration ({error})"
        ) from None
    if preprocessor_path is None:
        return config
    document = documents.read_object(preprocessor_path)
    try:
        found = _preprocessing(document, config)
        return dataclasses.replace(config, preprocessing=found)
    except checkpoints.INVALID as error:
        raise UserError(
            f"{preprocessor_path}: not a preprocessing of a CLIP ({error})"
        ) from None


def write(config: Any, directory: pathlib.Path) -> None:
    """Writes config.json and preprocessor_config.json of a CLIP."""
    document = _DOCUMENTS[type(config)](config)
    files.write_json(directory / CONFIG, document)
    files.write_json(directory / PREPROCESSOR, _preprocessor(config))


# Names of transformers' configurations of a tower by our fields.
_TOWER = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "act": "hidden_act",
    "eps": "layer_norm_eps",
}
_TOWERS = {
    tower: own | {f"{tower}_{field}": name for field, name in _TOWER.items()}
    for tower, own in (
        (
            "text",
            {"vocab_size": "vocab_size", "context_length": "max_position_embeddings"},
        ),
        ("vision", {"image_size": "image_size", "patch_size": "patch_size"}),
    )
}


def _fields(document: Document) -> dict[str, Any]:
    """Fields that a config.json states of both towers."""
    return {
        field: part[name]
        for tower, names in _TOWERS.items()
        for part in (_part(document, tower),)
        for field, name in names.items()
        if name in part
    }


def _clip(document: Document) -> clip.ClipConfig:
    """Configuration of transformers' CLIPModel."""
    fields, text = _fields(document), _part(document, "text")
    if "eos_token_id" in text:
        fields["eos_token_id"] = text["eos_token_id"]
    if "projection_dim" in document:
        fields["embed_dim"] = document["projection_dim"]
    return clip.ClipConfig(**fields)


def _siglip(document: Document) -> clip.SiglipConfig:
    """Configuration of transformers' SiglipModel."""
    config = clip.SiglipConfig(**_fields(document))
    text, vision = (_part(document, name) for name in ("text", "vision"))
    if not vision.get("vision_use_head", True):
        raise ValueError("vision_use_head: expected true, found false")
    length = text.get("projection_size") or config.text_width
    if length != config.embed_dim:
        raise ValueError(
            f"projection_size: expected the {config.embed_dim} features of an image, "
            f"found {length}"
        )
    return config


def _siglip_document(config: clip.SiglipConfig) -> dict[str, Any]:
    """Document of transformers' SiglipConfig."""
    parts: dict[str, dict[str, Any]] = {
        f"{tower}_config": {"model_type": f"siglip_{tower}_model"}
        | {name: getattr(config, field) for field, name in names.items()}
        for tower, names in _TOWERS.items()
    }
    parts["text_config"]["projection_size"] = config.embed_dim
    parts["vision_config"]["vision_use_head"] = True
    return {"architectures": ["SiglipModel"], "model_type": "siglip", **parts}


def _clip_resnet(document: Document) -> clip.ResnetClipConfig:
    """Configuration of a CLIP with a ResNet, whose lists are tuples."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in document.items()
        if name != "model_type"
    }
    return clip.ResnetClipConfig(**values)


def _resnet_document(config: clip.ResnetClipConfig) -> dict[str, Any]:
    """Document of a CLIP with a ResNet: what is neither preprocessing nor run time."""
    elsewhere = {"preprocessing"} | {
        field.name for field in dataclasses.fields(runtime.Runtime)
    }
    fields = dataclasses.asdict(config)
    return {"model_type": "clip_resnet"} | {
        name: value for name, value in fields.items() if name not in elsewhere
    }


# Builder of a configuration by transformers' model_type.
_FAMILIES: dict[Any, Callable[[Document], Any]] = {
    "clip": _clip,
    "siglip": _siglip,
    "clip_resnet": _clip_resnet,
}
# Maker of a config.json by our configuration.
_DOCUMENTS: dict[type, Callable[[Any], Document]] = {
    clip.ClipConfig: clip_vit.transformers_config,
    clip.SiglipConfig: _siglip_document,
    clip.ResnetClipConfig: _resnet_document,
}


def _part(document: Document, tower: str) -> Document:
    """Part of a config.json on a tower.

    Old files have it twice, and transformers takes the one of this name.
    """
    twin = document.get(f"{tower}_config_dict")
    return (document.get(f"{tower}_config") or {}) if twin is None else twin


def _preprocessing(document: Document, config: Any) -> Preprocessing:
    """Preprocessing that a preprocessor_config.json describes."""
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if not document.get(name, True):
            raise ValueError(f"{name}: expected true, found {document[name]!r}")
    if document.get("resample", 3) not in _RESAMPLE:
        raise ValueError(
            f"resample: expected {', '.join(map(str, _RESAMPLE))}, found "
            f"{document['resample']!r}"
        )
    if abs(document.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ValueError(
            f"rescale_factor: expected 1/255, found {document['rescale_factor']}"
        )
    cropped = document.get("do_center_crop", True)
    size = document.get("size", config.image_size)
    crop = document.get("crop_size", config.image_size)
    if isinstance(crop, dict):
        crop = crop["height"] if crop["height"] == crop["width"] else list(crop.items())
    common = {
        "mean": tuple(document.get("image_mean", config.preprocessing.mean)),
        "std": tuple(document.get("image_std", config.preprocessing.std)),
        "interpolation": _RESAMPLE[document.get("resample", 3)],
        "fill": document.get("fill_color", 0),
    }
    if "resize_mode" in document:
        # A field of ours, for what transformers does not have.
        return Preprocessing(resize_mode=document["resize_mode"], **common)
    if isinstance(size, dict) and "shortest_edge" not in size:
        if {size["height"], size["width"]} != {config.image_size}:
            raise ValueError(f"size: expected {config.image_size}, found {size}")
        if cropped and crop != config.image_size:
            raise ValueError(f"crop_size: expected {config.image_size}, found {crop}")
        return Preprocessing(resize_mode="squash", **common)
    shortest = size["shortest_edge"] if isinstance(size, dict) else size
    if not cropped:
        raise ValueError("do_center_crop: expected true with shortest_edge")
    if crop != config.image_size or shortest < crop:
        raise ValueError(
            f"crop_size: expected {config.image_size}, and size no smaller, found "
            f"{crop} and {shortest}"
        )
    return Preprocessing(resized=None if shortest == crop else shortest, **common)


def _preprocessor(config: Any) -> dict[str, Any]:
    """Document of preprocessor_config.json, as transformers reads it."""
    preprocessing, out = config.preprocessing, config.image_size
    numbers = {name: number for number, name in _RESAMPLE.items()}
    square = {"height": out, "width": out}
    family = "Siglip" if isinstance(config, clip.SiglipConfig) else "CLIP"
    document = {
        "image_processor_type": f"{family}ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": square,
        "resample": numbers[preprocessing.interpolation],
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    if preprocessing.resize_mode == "shortest":
        document |= {
            "size": {"shortest_edge": preprocessing.resized or out},
            "do_center_crop": True,
            "crop_size": square,
        }
    elif preprocessing.resize_mode == "longest":
        document |= {"resize_mode": "longest", "fill_color": preprocessing.fill}
    return document
