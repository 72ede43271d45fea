"""Places of models: embedded, in folders, or by name on the hub."""

import os
import pathlib

from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, hub

# Name of embedded models, for people, and of the CLIP among several.
EMBEDDED = "embedded"

ASSETS = pathlib.Path(__file__).parent / "assets"


def find(kind: str, name_or_directory: files.Path | None = None) -> pathlib.Path:
    """Model directory of a network but CLIP.

    Args:
      kind: generator, identity, encoder, vgg16 or inception.
      name_or_directory: directory or hub name; the embedded one if absent, of the first
        two alone.

    Raises:
      UserError: there is no such model on the hub, or it is no model directory.
    """
    return hub.directory(name_or_directory or ASSETS / kind, checkpoints.FILES)


def name_of(directory: files.Path) -> str:
    """Name of a model directory for people: its path, or embedded."""
    path = pathlib.Path(directory)
    return EMBEDDED if path.is_relative_to(ASSETS) else str(path)


def user_cache() -> pathlib.Path | None:
    """Folder of this package in the user's cache; None where there is no home."""
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    except RuntimeError:
        return None
    return pathlib.Path(cache) / "styleclip_jax"


def clip_source(name_or_directory: files.Path | None = None) -> str | pathlib.Path:
    """Directory or hub name that a CLIP is read from."""
    if not name_or_directory or str(name_or_directory) == EMBEDDED:
        return ASSETS / "clip"
    return str(name_or_directory)


def clip_names(names: str | None) -> list[str]:
    """Names of CLIPs in one text, with commas between them.

    Raises:
      UserError: a name is empty.
    """
    found = [name.strip() for name in (names or EMBEDDED).split(",")]
    if not all(found):
        raise UserError(
            f"clip: expected names with commas between, found {names!r}", field="clip"
        )
    return found
