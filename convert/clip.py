"""CLIP by OpenAI (`.pt`) or by transformers' PyTorch classes → transformers' Flax.

The result is a folder in transformers' own format, which FlaxCLIPModel.from_pretrained
reads as well as we do. A SigLIP by transformers gets such a folder too, though
transformers has no Flax class for it.
"""

import dataclasses
import functools
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_configs, clip_files, files
from styleclip_jax.models import bpe, clip, param_trees

from . import clip_resnet, rules
from .rules import Conversion, Rule
from .torch_files import TorchFile, tensors

_HEAD_WIDTH = 64
_MLP = "encoder/layers/0/mlp/fc1/kernel"


def _third(index: int) -> Callable[[np.ndarray], np.ndarray]:
    """Transform that cuts queries, keys or values out of a stack of the three."""

    def cut(x: np.ndarray) -> np.ndarray:
        return np.split(x, 3)[index]

    return cut


def _norm(source: str, target: str) -> list[Rule]:
    """Rules of one layer normalisation."""
    return [
        Rule(rf"{source}\.weight", rf"{target}/scale"),
        Rule(rf"{source}\.bias", rf"{target}/bias"),
    ]


def _dense(source: str, target: str) -> list[Rule]:
    """Rules of one dense layer."""
    return [
        Rule(rf"{source}\.weight", rf"{target}/kernel", rules.transpose),
        Rule(rf"{source}\.bias", rf"{target}/bias"),
    ]


def _openai_tower(source: str, target: str) -> list[Rule]:
    """Rules of the transformer of one tower."""
    block = rf"{source}transformer\.resblocks\.(\d+)\."
    layer = rf"{target}/encoder/layers/\1/"
    table = _norm(block + r"ln_(\d)", layer + r"layer_norm\2")
    for index, part in enumerate("qkv"):
        cut = _third(index)
        table += [
            Rule(
                block + r"attn\.in_proj_weight",
                layer + f"self_attn/{part}_proj/kernel",
                rules.chain(cut, rules.transpose),
            ),
            Rule(
                block + r"attn\.in_proj_bias",
                layer + f"self_attn/{part}_proj/bias",
                cut,
            ),
        ]
    for name, dense in (
        (r"attn\.out_proj", "self_attn/out_proj"),
        (r"mlp\.c_fc", "mlp/fc1"),
        (r"mlp\.c_proj", "mlp/fc2"),
    ):
        table += _dense(block + name, layer + dense)
    return table


_VISION, _TEXT = "vision_model/embeddings", "text_model/embeddings"
_OPENAI_TEXT = [
    Rule(r"token_embedding\.weight", f"{_TEXT}/token_embedding/embedding"),
    Rule(r"positional_embedding", f"{_TEXT}/position_embedding/embedding"),
    *_norm("ln_final", "text_model/final_layer_norm"),
    *_openai_tower("", "text_model"),
    Rule("text_projection", "text_projection/kernel"),
    Rule("logit_scale", "logit_scale"),
    # Numbers that the shapes tell as well.
    Rule("input_resolution|context_length|vocab_size", None),
]
_OPENAI_RESNET = [*clip_resnet.TABLE, *_OPENAI_TEXT]
_OPENAI = [
    Rule(r"visual\.class_embedding", f"{_VISION}/class_embedding"),
    Rule(
        r"visual\.conv1\.weight",
        f"{_VISION}/patch_embedding/kernel",
        rules.oihw_to_hwio,
    ),
    Rule(r"visual\.positional_embedding", f"{_VISION}/position_embedding/embedding"),
    # The misspelling is transformers'.
    *_norm(r"visual\.ln_pre", "vision_model/pre_layrnorm"),
    *_norm(r"visual\.ln_post", "vision_model/post_layernorm"),
    *_openai_tower(r"visual\.", "vision_model"),
    Rule(r"visual\.proj", "visual_projection/kernel"),
    *_OPENAI_TEXT,
]

_TOWER = r"(vision|text)_model\."
_LAYER, _LAYER_TARGET = (
    _TOWER + r"encoder\.layers\.(\d+)\.",
    r"\1_model/encoder/layers/\2/",
)
_TRANSFORMERS = [
    Rule(r"vision_model\.embeddings\.class_embedding", f"{_VISION}/class_embedding"),
    Rule(
        r"vision_model\.embeddings\.patch_embedding\.weight",
        f"{_VISION}/patch_embedding/kernel",
        rules.oihw_to_hwio,
    ),
    Rule(
        _TOWER + r"embeddings\.(token|position)_embedding\.weight",
        r"\1_model/embeddings/\2_embedding/embedding",
    ),
    Rule(_TOWER + r"embeddings\.position_ids", None),
    *_norm(_TOWER + "(pre_layrnorm|post_layernorm|final_layer_norm)", r"\1_model/\2"),
    *_norm(_LAYER + r"layer_norm(\d)", _LAYER_TARGET + r"layer_norm\3"),
    *_dense(_LAYER + r"(self_attn|mlp)\.(\w+)", _LAYER_TARGET + r"\3/\4"),
    Rule(r"(visual|text)_projection\.weight", r"\1_projection/kernel", rules.transpose),
    Rule("logit_scale", "logit_scale"),
]


@dataclasses.dataclass(frozen=True)
class ClipConversion(Conversion):
    """A converted CLIP.

    Attributes:
      tokenizer: folder with the files of a tokenizer, or OpenAI's list of merges, or
        None when the vocabulary is unknown.
    """

    tokenizer: pathlib.Path | None = None


def recognize(file: TorchFile) -> bool:
    """Whether a file holds a CLIP with both of its towers."""
    return _table(tensors(file.content)) is not None


def convert(file: TorchFile) -> ClipConversion:
    """Parameters of FlaxCLIPModel out of a CLIP in PyTorch.

    The architecture is read off the tensors' shapes, as OpenAI's loader does; but
    transformers' config.json counts where it stands beside the file.

    Raises:
      UserError: tensors are missing, surplus or misshapen.
    """
    source = tensors(file.content)
    table = _table(source)
    if table is None:
        raise UserError(f"{file.path}: expected a CLIP by OpenAI or transformers")
    if "vision_model.head.probe" in source:
        return _convert_siglip(file.path, source)
    renamed = rules.rename_tensors(table, source, file=file.path)
    folder = pathlib.Path(file.path).parent
    described = table is _TRANSFORMERS and (folder / "config.json").is_file()
    notes = []
    if described:
        preprocessor = folder / clip_configs.PREPROCESSOR
        config = clip_configs.read(
            folder / clip_configs.CONFIG,
            preprocessor if preprocessor.is_file() else None,
        )
    else:
        config = _infer_config(renamed.tensors, file.path)
        if table is _TRANSFORMERS:
            notes.append(
                "no config.json beside the file: assumed OpenAI's activation "
                f"(quick_gelu) and attention heads of {_HEAD_WIDTH} features"
            )
    params = rules.check_tensors(renamed, clip.param_shapes(config), file=file.path)
    tokenizer = None
    if described and all(
        (folder / name).is_file() for name in clip_files.TOKENIZER_FILES
    ):
        tokenizer = folder
    elif config.vocab_size == bpe.NUM_TOKENS_BESIDE_MERGES + bpe.NUM_MERGES:
        tokenizer = bpe.OPENAI_MERGES
    else:
        names = " and ".join(clip_files.TOKENIZER_FILES)
        notes.append(
            f"no tokenizer: a vocabulary of {config.vocab_size} tokens is not "
            f"OpenAI's; put {names} beside the result"
        )
    return ClipConversion("clip", config, params, notes, tokenizer)


def write(conversion: ClipConversion, directory: files.Path) -> None:
    """Writes transformers' own directory format, whole or not at all.

    Args:
      conversion: result of `convert`.
      directory: folder to make, with config.json, model.safetensors (Flax),
        preprocessor_config.json and the files of the tokenizer.

    Raises:
      UserError: the folder has something in it, or cannot be written.
    """
    params = param_trees.unflatten(conversion.tensors)
    with files.new_directory(directory) as temporary:
        clip_files.save(clip.Clip(params, conversion.config), temporary)
        source = conversion.tokenizer
        if source is None:
            return
        if source.is_dir():
            for name in _tokenizer_files(conversion.config):
                if (source / name).is_file():
                    shutil.copyfile(source / name, temporary / name)
        else:
            bpe.write(source, temporary)


def _convert_siglip(file: str, source: Mapping[str, np.ndarray]) -> ClipConversion:
    """Parameters of a SigLIP; shapes do not tell its heads, config.json does."""
    folder = pathlib.Path(file).parent
    config_path, preprocessor = (
        folder / name for name in (clip_configs.CONFIG, clip_configs.PREPROCESSOR)
    )
    if not config_path.is_file():
        raise UserError(
            f"{file}: expected {clip_configs.CONFIG} beside this SigLIP, found none"
        )
    config = clip_configs.read(
        config_path, preprocessor if preprocessor.is_file() else None
    )
    shapes = clip.param_shapes(config)
    tensors = {
        name: np.ascontiguousarray(tensor, np.float32)
        for name, tensor in clip_files.by_flax_names(source, shapes).items()
    }
    renamed = rules.Renamed(tensors, {name: name for name in tensors}, [])
    params = rules.check_tensors(renamed, shapes, file=file)
    names = _tokenizer_files(config)
    if any((folder / name).is_file() for name in names[:2]):
        return ClipConversion("clip", config, params, [], folder)
    notes = [f"no tokenizer: put {names[0]} or {names[1]} beside the result"]
    return ClipConversion("clip", config, params, notes)


def _tokenizer_files(config: Any) -> tuple[str, ...]:
    """Names of the files that a tokenizer may have."""
    if isinstance(config, clip.SiglipConfig):
        return clip_files.SIGLIP_TOKENIZER_FILES
    return clip_files.TOKENIZER_FILES


def _table(source: Mapping[str, np.ndarray]) -> list[Rule] | None:
    """Table for the names of a state dict, None if they are no CLIP's."""
    if {"visual.conv1.weight", "token_embedding.weight"} <= source.keys():
        return _OPENAI_RESNET if clip_resnet.MARK in source else _OPENAI
    embeddings = {
        "vision_model.embeddings.patch_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
    }
    return _TRANSFORMERS if embeddings <= source.keys() else None


def _infer_config(
    params: Mapping[str, np.ndarray], file: str
) -> clip.ClipConfig | clip.ResnetClipConfig:
    """Architecture of parameters with their target names."""
    resnet = clip_resnet.FIRST in params
    infer_vision = clip_resnet.infer_vision if resnet else _infer_vision
    fields = infer_vision(params, file) | _infer_text(params, file)
    try:
        return (clip.ResnetClipConfig if resnet else clip.ClipConfig)(**fields)
    except ValueError as error:
        raise UserError(f"{file}: not a CLIP that can be built ({error})") from None


def _infer_vision(params: Mapping[str, np.ndarray], file: str) -> dict[str, Any]:
    """Fields of `ClipConfig` on the tower of images."""
    shape = functools.partial(rules.shape_of, params, file=file)
    patch_size, _, _, width = shape(f"{_VISION}/patch_embedding/kernel")
    num_patches = shape(f"{_VISION}/position_embedding/embedding")[0] - 1
    side = math.isqrt(num_patches)
    if side**2 != num_patches:
        raise UserError(
            f"{file}: expected a square number of patches, found {num_patches}"
        )
    return {
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "vision_width": width,
        "vision_layers": rules.count_parts(params, "vision_model/encoder/layers/"),
        "vision_heads": width // _HEAD_WIDTH,
        "vision_mlp_width": shape(f"vision_model/{_MLP}")[1],
    }


def _infer_text(params: Mapping[str, np.ndarray], file: str) -> dict[str, Any]:
    """Fields of a configuration on the tower of texts."""
    shape = functools.partial(rules.shape_of, params, file=file)
    vocab_size, width = shape(f"{_TEXT}/token_embedding/embedding")
    return {
        "vocab_size": vocab_size,
        "context_length": shape(f"{_TEXT}/position_embedding/embedding")[0],
        # The end token is the last of the vocabulary, as in OpenAI's.
        "eos_token_id": vocab_size - 1,
        "text_width": width,
        "text_layers": rules.count_parts(params, "text_model/encoder/layers/"),
        "text_heads": width // _HEAD_WIDTH,
        "text_mlp_width": shape(f"text_model/{_MLP}")[1],
        "embed_dim": shape("text_projection/kernel")[1],
    }
