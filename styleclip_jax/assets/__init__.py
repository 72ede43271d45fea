"""The embedded models, and loading networks from a directory or from here."""

import pathlib
from types import ModuleType

import jax
import jax.numpy as jnp

from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files
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
    return clip.load(source), clip.load_tokenizer(source)


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
