"""Model directories of mappers: which prompt and which generator they are for."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files
from styleclip_jax.methods import mapper
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network


def save(
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


def load(
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
    trained_on = _source(directory).get("generator")
    found = checkpoints.fingerprint(generator_directory)
    if trained_on not in (None, found):
        raise UserError(
            f"{directory}: expected --generator to be the one that this mapper was "
            f"trained on (SHA-256 {trained_on[:12]}…), found {generator_directory} "
            f"({found[:12]}…)"
        )
    return Network(jax.tree.map(jnp.asarray, params), config)


def prompt_of(directory: files.Path) -> str | None:
    """The prompt that a mapper was trained for, None if it does not say."""
    return _source(directory).get("prompt")


def _source(directory: files.Path) -> dict[str, Any]:
    document = files.read_json(pathlib.Path(directory) / "config.json")
    source = document.get("source")
    return source if isinstance(source, dict) else {}
