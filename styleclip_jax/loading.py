"""The embedded models, and loading networks from a directory or from here."""

import pathlib
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from styleclip_jax import loading, losses
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, clip_files, direction_files, files
from styleclip_jax.methods import global_directions, mapper
from styleclip_jax.models import bpe, clip, e4e, irse50, stylegan2
from styleclip_jax.models.network import Network

# Folder of the generator that an encoder was trained for, in that of the encoder.
DECODER = "generator"

_HERE = pathlib.Path(__file__).parent


def load_generator(directory: str | pathlib.Path | None = None) -> Network:
    """A generator from a model directory; the embedded one without an argument.

    Raises:
      UserError: the directory holds no valid generator.
    """
    directory = generator_directory(directory)
    return _load(directory, "stylegan2", stylegan2.GeneratorConfig, stylegan2)


def generator_directory(directory: str | pathlib.Path | None = None) -> pathlib.Path:
    """Where `load_generator` reads from."""
    return pathlib.Path(directory or _HERE / "generator")


def load_clip(
    name_or_directory: str | pathlib.Path | None = None,
) -> tuple[clip.Clip, bpe.Tokenizer]:
    """A CLIP and its tokenizer, by directory or hub name; by default the embedded one.

    Raises:
      UserError: no valid CLIP is found there.
    """
    source = clip_source(name_or_directory)
    return clip_files.load(source), clip_files.load_tokenizer(source)


def clip_source(
    name_or_directory: str | pathlib.Path | None = None,
) -> str | pathlib.Path:
    """Where `load_clip` reads from."""
    return name_or_directory or _HERE / "clip"


def clip_fingerprint(name_or_directory: str | pathlib.Path | None = None) -> str | None:
    """SHA-256 of the weights that `load_clip` reads; None for one from the hub."""
    weights = pathlib.Path(clip_source(name_or_directory)) / "model.safetensors"
    return files.hash_file(weights) if weights.is_file() else None


def load_identity(directory: str | pathlib.Path | None = None) -> Network:
    """A face recognition network from a model directory, or the embedded one.

    Raises:
      UserError: the directory holds no valid one.
    """
    directory = identity_directory(directory)
    return _load(directory, "irse50", irse50.IrseConfig, irse50)


def identity_directory(directory: str | pathlib.Path | None = None) -> pathlib.Path:
    """Where `load_identity` reads from."""
    return pathlib.Path(directory or _HERE / "identity")


def load_encoder(directory: str | pathlib.Path) -> Network:
    """An encoder of photos from a model directory.

    Raises:
      UserError: the directory holds no valid one.
    """
    return _load(directory, "e4e", e4e.E4eConfig, e4e)


def load_templates(path: str | pathlib.Path | None = None) -> list[str]:
    """Prompt templates, one a line with {} for the text; by default the official 79.

    Raises:
      UserError: no such file, no template in it, or a line without {}.
    """
    path = pathlib.Path(path or _HERE / "templates.txt")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: expected a text file of templates ({error})"
        ) from None
    templates = [line.strip() for line in lines if line.strip()]
    wrong = [line for line in templates if line.count("{}") != 1]
    if wrong or not templates:
        found = repr(wrong[0]) if wrong else "none"
        raise UserError(
            f"{path}: expected templates such as 'a photo of a {{}}.', found {found}"
        )
    return templates


def _load(
    directory: str | pathlib.Path, kind: str, config_type: type, module: ModuleType
) -> Network:
    """A network of a kind, whose module knows the shapes of its parameters."""
    params, config = checkpoints.load_network(
        directory,
        kind=kind,
        config_type=config_type,
        param_shapes=module.param_shapes,
    )
    return Network(jax.tree.map(jnp.asarray, params), config)


def origins(
    generator: str | None, clip: str | None
) -> tuple[direction_files.Origin, direction_files.Origin]:
    """Which generator and CLIP the flags --generator and --clip name."""
    return (
        generator_origin(generator),
        direction_files.Origin(
            # A name on the hub, or the last part of a path.
            ("/".join(str(clip).rsplit("/", 2)[-2:]) if clip else "embedded"),
            loading.clip_fingerprint(clip),
        ),
    )


def generator_origin(generator: str | None) -> direction_files.Origin:
    """Which generator the flag --generator names."""
    directory = loading.generator_directory(generator)
    return direction_files.Origin(
        directory.resolve().name if generator else "embedded",
        checkpoints.fingerprint(directory),
    )


def read_relevance(
    path: files.Path,
    networks: losses.Networks,
    generator: direction_files.Origin,
    clip: direction_files.Origin,
) -> tuple[global_directions.Relevance, dict[str, Any]]:
    """Channel relevance from a file, and how it was measured.

    Raises:
      UserError: no such file, a broken one, or one of other networks.
    """
    layout = networks.generator.config.style_layout
    found = direction_files.read_relevance(
        path,
        layout=layout,
        generator=generator,
        clip=clip,
        embed_dim=networks.clip.config.embed_dim,
    )
    relevance = global_directions.expand(found.rows, found.std, found.layers, layout)
    return relevance, found.about


def save_mapper(
    directory: files.Path,
    params: Any,
    config: mapper.MapperConfig,
    *,
    prompt: str,
    generator: str,
    clip: str,
    training: dict[str, Any],
) -> None:
    """Writes a mapper; one that is there already is replaced.

    Args:
      directory: folder to make.
      params: parameters of the mapper.
      config: its architecture.
      prompt: text that it was trained for.
      generator: fingerprint of the generator.
      clip: fingerprint or name of the CLIP.
      training: steps, losses and the like, for people.
    """
    checkpoints.save_network(
        directory,
        kind=mapper.KIND,
        params=jax.device_get(params),
        config=config,
        source={
            "prompt": prompt,
            "generator": generator,
            "clip": clip,
            "training": training,
        },
        overwrite=True,
    )


def load_mapper(
    directory: files.Path,
    generator_directory: files.Path,
    generator: stylegan2.GeneratorConfig,
) -> Network[mapper.MapperConfig]:
    """Reads a mapper for a generator.

    Args:
      directory: written by `save`, or converted from an official checkpoint.
      generator_directory: of the generator to use it with.
      generator: its configuration.

    Raises:
      UserError: no mapper, or one of another generator. One that was converted does
        not say of which it is, so that its shapes alone are checked.
    """
    params, config = checkpoints.load_network(
        directory,
        kind=mapper.KIND,
        config_type=mapper.MapperConfig,
        param_shapes=mapper.param_shapes,
    )
    try:
        mapper.check_generator(config, generator)
    except ValueError as error:
        raise UserError(f"{directory}: {error}") from None
    trained_on = _mapper_source(directory).get("generator")
    found = checkpoints.fingerprint(generator_directory)
    if trained_on not in (None, found):
        raise UserError(
            f"{directory}: expected --generator to be the one that this mapper was "
            f"trained on (SHA-256 {trained_on[:12]}…), found {generator_directory} "
            f"({found[:12]}…)"
        )
    return Network(jax.tree.map(jnp.asarray, params), config)


def mapper_prompt(directory: files.Path) -> str | None:
    """The prompt that a mapper was trained for, None if it does not say."""
    return _mapper_source(directory).get("prompt")


def _mapper_source(directory: files.Path) -> dict[str, Any]:
    document = files.read_json(pathlib.Path(directory) / "config.json")
    source = document.get("source")
    return source if isinstance(source, dict) else {}
