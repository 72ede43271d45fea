"""CLIP directories in the format of transformers: weights, configuration, tokenizer."""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, tensor_files
from styleclip_jax.models import bpe, clip, param_trees

TOKENIZER_FILES = ("vocab.json", "merges.txt")

_FLAX_WEIGHTS, _SAFE_WEIGHTS = "flax_model.msgpack", "model.safetensors"
_CONVERT = "PyTorch weights are converted by `styleclip-convert {} --output OUT`"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def load(name_or_directory: str | pathlib.Path) -> clip.Clip:
    """Reads a CLIP in transformers' Flax format.

    Args:
      name_or_directory: folder with config.json and model.safetensors (Flax) or
        flax_model.msgpack, or the name of one on the Hugging Face hub, such as
        "openai/clip-vit-base-patch32".

    Returns:
      The network, float32 whatever type the file stores.

    Raises:
      UserError: no such model, PyTorch weights, broken files, or tensors that do not
        belong to the configuration.
    """
    config_path = _require(name_or_directory, "config.json")
    config = read_config(config_path)
    path = _find(name_or_directory, _FLAX_WEIGHTS)
    if path is not None:
        tensors = _read_msgpack(path)
    else:
        path = _find(name_or_directory, _SAFE_WEIGHTS)
        if path is None:
            raise UserError(
                f"{name_or_directory}: expected {_SAFE_WEIGHTS} or {_FLAX_WEIGHTS}, "
                "found neither; " + _CONVERT.format("FILE")
            )
        tensors = _read_safetensors(path)
    checkpoints.check_tensors(path, tensors, clip.param_shapes(config))
    params = {
        name: jnp.asarray(tensor, jnp.float32) for name, tensor in tensors.items()
    }
    return clip.Clip(param_trees.unflatten(params), config)


def save(
    network: clip.Clip, directory: str | pathlib.Path, *, dtype: str = "float32"
) -> None:
    """Writes a CLIP in transformers' Flax format, without a tokenizer.

    Args:
      network: the CLIP.
      directory: folder to write into, made if need be.
      dtype: type to store parameters in; float16 halves the size.
    """
    import transformers

    config = clip.transformers_config(network.config)
    size = network.config.image_size
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), network.params)
    with _quiet_transformers():
        model = transformers.FlaxCLIPModel(config, _do_init=False)
        model.save_pretrained(directory, params=params, safe_serialization=True)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )
        processor.save_pretrained(directory)


def read_config(path: pathlib.Path) -> clip.ClipConfig:
    """Architecture that transformers' config.json describes.

    Raises:
      UserError: no such file, or not of a CLIP that we can build.
    """
    import transformers

    document = files.read_json(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected a JSON object")
    if document.get("model_type") != "clip":
        raise UserError(
            f"{path}: expected model_type 'clip', found {document.get('model_type')!r}"
        )
    try:
        with _quiet_transformers():
            config: Any = transformers.CLIPConfig.from_dict(document)
        text, vision = config.text_config, config.vision_config
        for name in ("hidden_act", "layer_norm_eps"):
            if getattr(text, name) != getattr(vision, name):
                raise ValueError(f"{name} differs between text and vision")
        return clip.ClipConfig(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            vision_width=vision.hidden_size,
            vision_layers=vision.num_hidden_layers,
            vision_heads=vision.num_attention_heads,
            vision_mlp_width=vision.intermediate_size,
            vocab_size=text.vocab_size,
            context_length=text.max_position_embeddings,
            eos_token_id=text.eos_token_id,
            text_width=text.hidden_size,
            text_layers=text.num_hidden_layers,
            text_heads=text.num_attention_heads,
            text_mlp_width=text.intermediate_size,
            embed_dim=config.projection_dim,
            hidden_act=text.hidden_act,
            layer_norm_eps=text.layer_norm_eps,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a valid CLIP configuration ({error})") from None


def load_tokenizer(name_or_directory: str | pathlib.Path) -> bpe.Tokenizer:
    """Reads vocab.json and merges.txt of a CLIP, of any number of merges.

    Args:
      name_or_directory: as for `load`.

    Returns:
      The tokenizer.

    Raises:
      UserError: no such files, broken ones, or more tokens than config.json says.
    """
    vocab_path, merges_path = (
        _require(name_or_directory, name) for name in TOKENIZER_FILES
    )
    tokenizer = bpe.read(vocab_path, merges_path)
    size = read_config(_require(name_or_directory, "config.json")).vocab_size
    if tokenizer.num_tokens > size:
        raise UserError(
            f"{vocab_path}: has {tokenizer.num_tokens} tokens, but vocab_size in "
            f"config.json is {size}: these files belong to different models"
        )
    return tokenizer


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hides warnings, such as that Flax classes will be removed from version 5."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def _read_msgpack(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return param_trees.flatten(
            flax.serialization.msgpack_restore(path.read_bytes())
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{path}: not a readable msgpack file ({error})") from None


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    tensors, metadata = tensor_files.read(path)
    found = metadata.get("format")
    if found != "flax":
        raise UserError(
            f"{path}: expected weights in Flax format, found {found!r}; "
            + _CONVERT.format(path)
        )
    return {name.replace(".", "/"): tensor for name, tensor in tensors.items()}


def _require(name_or_directory: str | pathlib.Path, filename: str) -> pathlib.Path:
    path = _find(name_or_directory, filename)
    if path is None:
        raise UserError(f"{name_or_directory}: has no {filename}")
    return path


def _find(name_or_directory: str | pathlib.Path, filename: str) -> pathlib.Path | None:
    """Path of a model's file, from the hub if need be; None if it has no such file."""
    directory, name = pathlib.Path(name_or_directory), str(name_or_directory)
    if directory.is_dir():
        path = directory / filename
        return path if path.is_file() else None
    if directory.exists():
        raise UserError(
            f"{name}: expected a CLIP directory, found a file; " + _CONVERT.format(name)
        )
    # A first part that is a folder here tells a mistyped path from a hub name.
    if not _HUB_NAME.fullmatch(name) or directory.parent.is_dir():
        raise UserError(f"{name}: no such CLIP directory")
    import huggingface_hub
    import huggingface_hub.errors

    verbosity = huggingface_hub.logging.get_verbosity()
    # It reports every failed attempt to connect.
    huggingface_hub.logging.set_verbosity_error()
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(name, filename))
    except huggingface_hub.errors.LocalEntryNotFoundError:
        raise UserError(
            f"{name}: no such directory, and the Hugging Face hub cannot be reached "
            f"for {filename}"
        ) from None
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise UserError(
            f"{name}: no such directory, and no such model on the Hugging Face hub"
        ) from None
    except huggingface_hub.errors.EntryNotFoundError:
        return None
    except OSError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: cannot download {filename} ({reason})") from None
    finally:
        huggingface_hub.logging.set_verbosity(verbosity)
