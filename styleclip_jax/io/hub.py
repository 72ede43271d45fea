"""Files of a model: in a folder, or by the model's name on the Hugging Face hub."""

import functools
import pathlib
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# The same with a branch, tag or commit behind it.
_REVISED = re.compile(rf"({_NAME.pattern})(?:@([\w.-]+))?")
# Seconds for the hub to take a connection.
_PATIENCE = 5
# Folder of the local cache whose folders are commits.
_SNAPSHOTS = "snapshots"


def directory(name_or_directory: files.Path, filenames: Sequence[str]) -> pathlib.Path:
    """Folder with files of a model, which of a name on the hub is in the local cache.

    All files are of one commit. A path stays as it is, whether it is there or not.

    Args:
      name_or_directory: folder, or name on the hub, with @REVISION for another commit
        than the newest.
      filenames: names of the files.

    Raises:
      UserError: there is no such model, or it lacks a file.
    """
    path, name = pathlib.Path(name_or_directory), str(name_or_directory)
    # A first part that is a folder here tells a mistyped path from a hub name.
    if path.exists() or path.parent.is_dir() or not _REVISED.fullmatch(name):
        return path
    return _download(name, tuple(filenames))


@functools.cache
def _download(revised: str, filenames: tuple[str, ...]) -> pathlib.Path:
    """Folder of a commit; the hub is asked once, so that a program has one commit."""
    match = _REVISED.fullmatch(revised)
    assert match
    name, revision = match.groups()
    folder = None
    for filename in filenames:
        path = find(name, filename, revision)
        if path is None:
            raise UserError(
                f"{revised}: expected a model directory on the Hugging Face hub, found "
                f"no {filename} there (official weights are converted by "
                "styleclip-convert)"
            )
        folder = path.parent
        revision = commit(folder) or revision
    assert folder is not None
    return folder


def _is_there() -> bool:
    """Whether the hub takes connections; behind a proxy it is supposed to.

    Where it does not, its own client tries for half a minute, for each file.
    """
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    url = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    if not url.hostname:
        return True
    # NO_PROXY alone, which names who is reached without one, is no proxy.
    proxies = urllib.request.getproxies().keys() & {url.scheme, "all"}
    if proxies and not urllib.request.proxy_bypass(url.hostname):
        return True
    port = url.port or {"http": 80}.get(url.scheme, 443)
    try:
        socket.create_connection((url.hostname, port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def commit(folder: pathlib.Path) -> str | None:
    """Commit of a folder in the local cache; None for any other folder."""
    return folder.name if folder.parent.name == _SNAPSHOTS else None


def require(name_or_directory: files.Path, filename: str) -> pathlib.Path:
    """Path of a file of a model.

    Args:
      name_or_directory: folder, or name on the hub, such as
        "openai/clip-vit-base-patch32", whose files are downloaded once.
      filename: name of the file in it.

    Raises:
      UserError: there is no such model, or it has no such file.
    """
    path = find(name_or_directory, filename)
    if path is None:
        raise UserError(f"{name_or_directory}: has no {filename}")
    return path


def first(
    name_or_directory: files.Path, filenames: Sequence[str]
) -> pathlib.Path | None:
    """Path of the first of several files that a model has; None if it has none.

    Without a connection, one that is here counts before those that may not exist.

    Raises:
      UserError: as `find`.
    """
    trouble = None
    for filename in filenames:
        try:
            path = find(name_or_directory, filename)
        except UserError as error:
            trouble = trouble or error
            continue
        if path is not None:
            return path
    if trouble:
        raise trouble
    return None


def find(
    name_or_directory: files.Path, filename: str, revision: str | None = None
) -> pathlib.Path | None:
    """Path of a file as `require` gives it; None if the model has no such file.

    Args:
      name_or_directory: folder or name, as of `require`.
      filename: name of the file in it.
      revision: branch, tag or commit on the hub; the newest if absent.

    Raises:
      UserError: there is no such model, or the hub cannot be reached for a file that is
        neither here nor known to be absent.
    """
    directory, name = pathlib.Path(name_or_directory), str(name_or_directory)
    if directory.is_dir():
        path = directory / filename
        return path if path.is_file() else None
    if directory.exists():
        raise UserError(
            f"{name}: expected a CLIP directory, found a file; styleclip-convert makes "
            "one of it"
        )
    # A first part that is a folder here tells a mistyped path from a hub name.
    if not _NAME.fullmatch(name) or directory.parent.is_dir():
        raise UserError(f"{name}: no such CLIP directory")
    import huggingface_hub
    import huggingface_hub.errors

    which: dict[str, Any] = {} if revision is None else {"revision": revision}
    verbosity = huggingface_hub.logging.get_verbosity()
    # It reports every failed attempt to connect.
    huggingface_hub.logging.set_verbosity_error()
    try:
        return pathlib.Path(
            huggingface_hub.hf_hub_download(
                name, filename, local_files_only=not _is_there(), **which
            )
        )
    except huggingface_hub.errors.LocalEntryNotFoundError:
        # An earlier answer of the hub, kept beside the downloads.
        known = huggingface_hub.try_to_load_from_cache(name, filename, **which)
        if known is huggingface_hub._CACHED_NO_EXIST:
            return None
        raise UserError(
            f"{name}: no such directory, and the Hugging Face hub cannot be reached "
            f"for {filename}"
        ) from None
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise UserError(
            f"{name}: no such directory, and no such model on the Hugging Face hub"
        ) from None
    except huggingface_hub.errors.RevisionNotFoundError:
        raise UserError(
            f"{name}: no commit, branch or tag {revision} on the Hugging Face hub"
        ) from None
    except huggingface_hub.errors.EntryNotFoundError:
        return None
    except OSError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: cannot download {filename} ({reason})") from None
    finally:
        huggingface_hub.logging.set_verbosity(verbosity)
