"""The embedded models, and loading networks from a directory or from here."""

import pathlib

import jax
import jax.numpy as jnp

from styleclip_jax.io import checkpoints
from styleclip_jax.models import bpe, clip, irse50, stylegan2
from styleclip_jax.models.network import Network

_HERE = pathlib.Path(__file__).parent


def load_generator(directory: str | pathlib.Path | None = None) -> Network:
    """A generator from a model directory; the embedded one without an argument.

    Raises:
      UserError: the directory holds no valid generator.
    """
    params, config = checkpoints.load_network(
        generator_directory(directory),
        kind="stylegan2",
        config_type=stylegan2.GeneratorConfig,
        param_shapes=stylegan2.param_shapes,
    )
    return Network(jax.tree.map(jnp.asarray, params), config)


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
    return clip.load(source), clip.load_tokenizer(source)


def clip_source(
    name_or_directory: str | pathlib.Path | None = None,
) -> str | pathlib.Path:
    """Where `load_clip` reads from."""
    return name_or_directory or _HERE / "clip"


def load_identity(directory: str | pathlib.Path) -> Network:
    """A face recognition network from a model directory.

    Raises:
      UserError: the directory holds no valid one.
    """
    params, config = checkpoints.load_network(
        directory,
        kind="irse50",
        config_type=irse50.IrseConfig,
        param_shapes=irse50.param_shapes,
    )
    return Network(jax.tree.map(jnp.asarray, params), config)
