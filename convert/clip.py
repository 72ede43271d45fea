"""CLIP by OpenAI, OpenCLIP or transformers' PyTorch classes → transformers' Flax.

The result is a folder in transformers' own format, which FlaxCLIPModel.from_pretrained
reads as well as we do. A SigLIP by transformers gets such a folder too, though
transformers has no Flax class for it.
"""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_configs, clip_files, files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import bpe, clip, param_trees

from . import clip_architecture, clip_resnet, rules, wrappers
from .clip_architecture import Described, Settings
from .rules import Conversion, Rule
from .wrappers import Layout, Part

LAYOUTS = (
    Layout(
        "OpenAI's or OpenCLIP's",
        (r"visual\.conv1\.weight", r"token_embedding\.weight"),
    ),
    Layout(
        "OpenCLIP's custom_text",
        (r"visual\.conv1\.weight", r"text\.token_embedding\.weight"),
    ),
    Layout(
        "transformers'",
        (
            r"vision_model\.embeddings\.patch_embedding\.weight",
            r"text_model\.embeddings\.token_embedding\.weight",
        ),
    ),
)
# What OpenAI's and OpenCLIP's own programs put around a state dict, which tells nothing
# of the two apart.
_OWN = ("", "module.", "state_dict.", "state_dict.module.")
# Classes of activations in whole modules.
_ACTIVATIONS = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
# Start of the names of the tower of texts in OpenCLIP's custom_text.
_CUSTOM_TEXT = "text."
# Tensor that SigLIP alone has.
_SIGLIP = "vision_model.head.probe"


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


@dataclasses.dataclass(frozen=True)
class ClipConversion(Conversion):
    """A converted CLIP.

    Attributes:
      tokenizer: files of the tokenizer to copy, or OpenAI's list of merges alone; none
        when the vocabulary is unknown.
    """

    tokenizer: Sequence[pathlib.Path] = ()


def recognize(file: TorchFile) -> Part | None:
    """The CLIP with both of its towers in a file."""
    return wrappers.find(file, LAYOUTS)


def convert(
    file: TorchFile, settings: Settings = clip_architecture.NOTHING
) -> ClipConversion:
    """Parameters of our CLIP out of one in PyTorch.

    Sizes are read off the tensors' shapes. What these leave open is said by the
    settings, the configuration beside the file, or marks of OpenAI's own files.

    Args:
      file: OpenAI's archive or state dict, OpenCLIP's state dict or checkpoint, or
        weights of transformers.
      settings: what the user says of the file; it counts before all else.

    Raises:
      UserError: a CLIP that leaves something open, or tensors are missing, surplus or
        misshapen.
    """
    part = wrappers.require(file, LAYOUTS, "a CLIP by OpenAI, OpenCLIP or transformers")
    read = _from_transformers if part.layout is LAYOUTS[-1] else _from_openai
    (config, notes), params = read(file, part, settings)
    tokenizer, note = _tokenizer(file, config)
    return ClipConversion(
        "clip", config, params, [*notes, *part.notes, note], tokenizer
    )


def write(conversion: ClipConversion, directory: files.Path) -> None:
    """Writes transformers' own directory format, whole or not at all.

    Args:
      conversion: result of `convert`.
      directory: folder to make, with config.json, model.safetensors (Flax),
        preprocessor_config.json and the tokenizer's files.

    Raises:
      UserError: the folder has something in it, or cannot be written.
    """
    params = param_trees.unflatten(conversion.tensors)
    with files.new_directory(directory) as temporary:
        clip_files.save(clip.Clip(params, conversion.config), temporary)
        for path in conversion.tokenizer:
            if path == bpe.OPENAI_MERGES:
                bpe.write(path, temporary)
            else:
                shutil.copyfile(path, temporary / path.name)


def _from_openai(
    file: TorchFile, part: Part, settings: Settings
) -> tuple[Described, dict[str, np.ndarray]]:
    """CLIP under OpenAI's names, which OpenCLIP uses too."""
    source = part.tensors
    shorter = {name.removeprefix(_CUSTOM_TEXT): x for name, x in source.items()}
    if "token_embedding.weight" not in source and len(shorter) == len(source):
        source = shorter
    table = _OPENAI_RESNET if clip_resnet.MARK in source else _OPENAI
    told = _of_modules(part)
    renamed = rules.rename_tensors(table, source, file=file.path)
    described = clip_architecture.describe(
        renamed.tensors,
        file.path,
        settings,
        archived="input_resolution" in source,
        mixed=part.path in _OWN[:2] and _is_mixed(source),
        tuned=part.path not in _OWN or told != clip_architecture.NOTHING,
        told=told,
    )
    shapes = clip.param_shapes(described.config)
    return described, rules.check_tensors(renamed, shapes, file=file.path)


def _of_modules(part: Part) -> Settings:
    """What a whole pickled module tells: its activation and heads."""
    told: dict[str, Any] = {}
    for path, module in wrappers.modules(part.node):
        name = module.type.rpartition(".")[2]
        if path.startswith("transformer.") and name in _ACTIVATIONS:
            told["activation"] = _ACTIVATIONS[name]
        heads = module.state.get("num_heads")
        tower = re.match(r"(visual\.)?(transformer|attnpool)\b", path)
        if tower and isinstance(heads, int):
            told["vision_heads" if tower[1] else "text_heads"] = heads
    return Settings(**told)


def _is_mixed(source: Mapping[str, np.ndarray]) -> bool:
    """Whether weights are float16 and norms float32, as OpenAI stores them."""
    types = {
        name: source[name].dtype.name
        for name in ("visual.conv1.weight", "text_projection", "ln_final.weight")
        if name in source
    }
    return list(types.values()) == ["float16", "float16", "float32"]


def _from_transformers(
    file: TorchFile, part: Part, settings: Settings
) -> tuple[Described, dict[str, np.ndarray]]:
    """CLIP under the names of transformers' PyTorch classes."""
    folder = pathlib.Path(file.path).parent
    config_path = folder / clip_configs.CONFIG
    if _SIGLIP in part.tensors and settings.architecture:
        raise UserError(
            f"architecture: expected none for {file.path}, which is a SigLIP",
            field="architecture",
        )
    if _SIGLIP in part.tensors and not config_path.is_file():
        raise UserError(
            f"{file.path}: expected {config_path.name} beside this SigLIP, found none"
        )
    if config_path.is_file() and settings.architecture is None:
        preprocessor = folder / clip_configs.PREPROCESSOR
        found = preprocessor if preprocessor.is_file() else None
        config = clip_configs.read(config_path, found)
        by = f"by {preprocessor.name} beside" if found else "the family's, none beside"
        notes = [
            f"architecture: by {config_path.name} beside the file",
            f"mean and deviation: {by} the file",
        ]
        described = Described(config, notes)
        described = clip_architecture.apply(settings, described, file.path)
    else:
        # Names do not depend on widths.
        names = [name.replace(".", "/") for name in part.tensors]
        layers: dict[str, Any] = {
            f"{tower}_layers": rules.count_parts(
                names, f"{tower}_model/encoder/layers/"
            )
            for tower in ("vision", "text")
        }
        shapes = clip.param_shapes(clip.ClipConfig(**layers))
        named = clip_files.by_flax_names(part.tensors, shapes)
        described = clip_architecture.describe(named, file.path, settings)
    shapes = clip.param_shapes(described.config)
    params = {
        name: np.ascontiguousarray(x, np.float32).reshape(x.shape)
        for name, x in clip_files.by_flax_names(part.tensors, shapes).items()
    }
    origins = {name: name.replace("/", ".") for name in params}
    renamed = rules.Renamed(params, origins, [])
    return described, rules.check_tensors(renamed, shapes, file=file.path)


def _tokenizer(file: TorchFile, config: Any) -> tuple[Sequence[pathlib.Path], str]:
    """Files of the tokenizer to write, or OpenAI's merges; and where it is from."""
    folder = pathlib.Path(file.path).parent
    if isinstance(config, clip.SiglipConfig):
        names = clip_files.SIGLIP_TOKENIZER_FILES
        beside = [folder / name for name in names if (folder / name).is_file()]
        if any(path.name in names[:2] for path in beside):
            return beside, _beside(beside)
        return (), f"no tokenizer: put {names[0]} or {names[1]} beside the result"
    beside = clip_files.tokenizer_files(folder) if folder.is_dir() else []
    if beside:
        return beside, _beside(beside)
    if config.vocab_size == bpe.NUM_TOKENS_BESIDE_MERGES + bpe.NUM_MERGES:
        return (bpe.OPENAI_MERGES,), (
            f"tokenizer: OpenAI's, which has {config.vocab_size} tokens too"
        )
    return (), (
        f"no tokenizer: a vocabulary of {config.vocab_size} tokens is not "
        f"OpenAI's; put {' and '.join(clip_files.TOKENIZER_FILES)} beside the result"
    )


def _beside(paths: Sequence[pathlib.Path]) -> str:
    return f"tokenizer: {' and '.join(path.name for path in paths)} beside the file"
