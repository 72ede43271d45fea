"""CLIP directories in the format of transformers: weights, configuration, tokenizer."""

import pathlib
from collections.abc import Mapping
from typing import Any

import flax.serialization
import numpy as np
import safetensors.numpy

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, clip_configs, files, hub, tensor_files
from styleclip_jax.models import bpe, clip, param_trees, pieces

TOKENIZER_FILES = ("vocab.json", "merges.txt")
# In place of both in newer folders, and of the first for SigLIP.
_TOKENIZER = "tokenizer.json"
# One of the first two is there.
SIGLIP_TOKENIZER_FILES = ("spiece.model", _TOKENIZER, "tokenizer_config.json")

_FLAX_WEIGHTS, _SAFE_WEIGHTS = "flax_model.msgpack", "model.safetensors"
_INDEX = "model.safetensors.index.json"
_OPEN_CLIP = "open_clip_config.json"


def load(name_or_directory: files.Path) -> clip.Clip:
    """Reads a CLIP in transformers' format, of Flax or PyTorch.

    Args:
      name_or_directory: folder with config.json and model.safetensors (or several of
        them with their index) or flax_model.msgpack, or the name of one on the Hugging
        Face hub, such as "openai/clip-vit-base-patch32".

    Returns:
      The network, float32 whatever type the file stores.

    Raises:
      UserError: no such model, broken files, or tensors that do not belong to the
        configuration.
    """
    found = hub.find(name_or_directory, clip_configs.CONFIG)
    if found is None and hub.find(name_or_directory, _OPEN_CLIP):
        raise UserError(
            f"{name_or_directory}: {_OPEN_CLIP} says that it is OpenCLIP's; convert it "
            "by `styleclip-convert FOLDER --output OUT`"
        )
    config_path = hub.require(name_or_directory, clip_configs.CONFIG)
    config = clip_configs.read(
        config_path,
        hub.find(name_or_directory, clip_configs.PREPROCESSOR),
    )
    shapes = checkpoints.shapes_of(config_path, config, clip.param_shapes)
    path, tensors = _read_weights(name_or_directory, shapes)
    return clip.Clip(checkpoints.as_params(path, tensors, shapes), config)


def save(network: clip.Clip, directory: files.Path, *, dtype: str = "float32") -> None:
    """Writes a CLIP in transformers' Flax format, without a tokenizer.

    Args:
      network: the CLIP.
      directory: folder to write into, made if need be.
      dtype: type to store parameters in; float16 halves the size.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    clip_configs.write(network.config, directory)
    tensors = {
        name.replace("/", "."): np.array(leaf, dtype, order="C")
        for name, leaf in param_trees.flatten(network.params).items()
    }
    path = directory / _SAFE_WEIGHTS
    safetensors.numpy.save_file(tensors, path, {"format": "flax"})


def by_flax_names(
    tensors: Mapping[str, np.ndarray], shapes: param_trees.Shapes
) -> dict[str, np.ndarray]:
    """Tensors of transformers' files under the names of their parameters in Flax.

    Args:
      tensors: tensors by their names in a file, in PyTorch or in Flax.
      shapes: shape of every parameter by its name in Flax.

    Returns:
      Tensors by their names in Flax, kernels transposed from PyTorch. Those that the
      table of shapes does not have keep their own names, with "/" for ".".
    """
    rest = {
        name: tensor
        for name, tensor in tensors.items()
        # Numbers 0, 1, 2, …, which older versions of transformers wrote down.
        if not name.endswith("embeddings.position_ids")
    }
    found = {}
    for name in shapes:
        source = _pytorch_name(name)
        if source not in rest:
            continue
        tensor = rest.pop(source)
        if name.endswith("/kernel"):
            tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
        found[name] = tensor
    return found | {name.replace(".", "/"): tensor for name, tensor in rest.items()}


def load_tokenizer(name_or_directory: files.Path) -> clip.Tokenizer:
    """Reads the tokenizer of a CLIP.

    Args:
      name_or_directory: as for `load`, with vocab.json and merges.txt of any number of
        merges, or for a SigLIP spiece.model; or else with tokenizer.json.

    Returns:
      The tokenizer, for `clip.tokenize`.

    Raises:
      UserError: no such files, broken ones, or more tokens than config.json says.
    """
    config_path = hub.require(name_or_directory, clip_configs.CONFIG)
    config = clip_configs.read(config_path, None)
    is_siglip = isinstance(config, clip.SiglipConfig)
    read = _read_pieces if is_siglip else _read_merges
    path, tokenizer = read(name_or_directory)
    if tokenizer.num_tokens > config.vocab_size:
        raise UserError(
            f"{path}: has {tokenizer.num_tokens} tokens, but vocab_size in "
            f"config.json is {config.vocab_size}: these files belong to different "
            "models"
        )
    return tokenizer


def _read_merges(name_or_directory: files.Path) -> tuple[pathlib.Path, bpe.Tokenizer]:
    """Main file of a tokenizer of CLIP, and the tokenizer."""
    paths = tokenizer_files(name_or_directory)
    if not paths:
        raise UserError(
            f"{name_or_directory}: has no {' and '.join(TOKENIZER_FILES)}, nor "
            f"{_TOKENIZER}"
        )
    return paths[0], bpe.read_json(*paths) if len(paths) == 1 else bpe.read(*paths)


def _read_pieces(
    name_or_directory: files.Path,
) -> tuple[pathlib.Path, pieces.Tokenizer]:
    """Main file of a tokenizer of SigLIP, and the tokenizer."""
    model, document, settings = SIGLIP_TOKENIZER_FILES
    special = _special_tokens(hub.find(name_or_directory, settings))
    path = hub.find(name_or_directory, model)
    if path is not None:
        return path, pieces.read_sentencepiece(path, **special)
    path = hub.find(name_or_directory, document)
    if path is not None:
        return path, pieces.read_json(path, **special)
    raise UserError(
        f"{name_or_directory}: expected {model} or {document}, found neither"
    )


def _special_tokens(path: pathlib.Path | None) -> dict[str, str]:
    """Tokens that end and pad a text by a tokenizer_config.json, where it says so."""
    if path is None:
        return {}
    document = documents.read_object(path)
    found = {}
    for key, name in (("end", "eos_token"), ("padding", "pad_token")):
        token = document.get(name)
        # Older files tell more of a token.
        token = token.get("content") if isinstance(token, dict) else token
        if not isinstance(token, str | None):
            raise UserError(f"{path}: expected text as {name}, found {token!r}")
        if token:
            found[key] = token
    return found


def tokenizer_files(name_or_directory: files.Path) -> list[pathlib.Path]:
    """Files of a tokenizer by merges: two, one, or none where there are none."""
    for names in (TOKENIZER_FILES, (_TOKENIZER,)):
        paths = [hub.find(name_or_directory, name) for name in names]
        found = [path for path in paths if path is not None]
        if len(found) == len(names):
            return found
    return []


def fingerprint(directory: files.Path) -> str | None:
    """SHA-256 of the weights that `load` reads; None for a name on the hub.

    Raises:
      UserError: the folder has no weights, or they cannot be read.
    """
    if not pathlib.Path(directory).is_dir():
        return None
    path = _weights(directory)
    if path.name != _INDEX:
        return files.hash_file(path)
    hashes = [files.hash_file(path.parent / name) for name in parts_of(path)]
    return files.hash_bytes("".join(hashes).encode())


def parts_of(index_path: pathlib.Path) -> list[str]:
    """Names of the files that an index lists, all of them beside it.

    Raises:
      UserError: not an index of tensors.
    """
    index = documents.read(index_path)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if (
        not isinstance(names, dict)
        or not names
        or not all(
            isinstance(name, str) and pathlib.PurePath(name).name == name
            for name in names.values()
        )
    ):
        raise UserError(f"{index_path}: expected weight_map, the file of each tensor")
    return sorted(set(names.values()))


def _weights(name_or_directory: files.Path) -> pathlib.Path:
    """File of weights, or index of its parts."""
    path = hub.first(name_or_directory, (_SAFE_WEIGHTS, _INDEX, _FLAX_WEIGHTS))
    if path is None:
        raise UserError(
            f"{name_or_directory}: expected {_SAFE_WEIGHTS} or {_FLAX_WEIGHTS}, found "
            "neither; others, such as pytorch_model.bin, are converted by "
            "`styleclip-convert FOLDER --output OUT`"
        )
    return path


def _read_weights(
    name_or_directory: files.Path, shapes: param_trees.Shapes
) -> tuple[pathlib.Path, dict[str, Any]]:
    """File of weights and its tensors by their names in Flax."""
    path = _weights(name_or_directory)
    if path.name == _FLAX_WEIGHTS:
        return path, _read_msgpack(path)
    tensors: dict[str, np.ndarray] = {}
    if path.name == _INDEX:
        for name in parts_of(path):
            part = hub.require(name_or_directory, name)
            tensors |= tensor_files.read(part).tensors
    else:
        tensors = tensor_files.read(path).tensors
    return path, by_flax_names(tensors, shapes)


def _pytorch_name(name: str) -> str:
    """Name in PyTorch of a parameter in Flax."""
    parents, _, leaf = name.rpartition("/")
    weights = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    return f"{parents}/{weights.get(leaf, leaf)}".lstrip("/").replace("/", ".")


def _read_msgpack(path: pathlib.Path) -> dict[str, Any]:
    try:
        return param_trees.flatten(
            flax.serialization.msgpack_restore(path.read_bytes())
        )
    except Exception as error:  # Its extensions raise errors of many kinds.
        raise UserError(f"{path}: not a readable msgpack file ({error})") from None
