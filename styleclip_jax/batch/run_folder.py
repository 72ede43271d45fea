"""Folder of a run: a record of the run, which is compared when the run is resumed."""

import importlib.metadata
import pathlib
import platform
from collections.abc import Mapping
from typing import Any, Final

import jax

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.version import __version__

_PACKAGES = ("jax", "flax", "optax", "transformers", "numpy")

# Value of a setting that has no bearing on a run, and stands in older records of it.
UNUSED: Final = object()


def begin(
    folder: files.Path,
    *,
    program: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    field: str = "outdir",
    chosen: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Opens the folder of a run: writes run.json, or checks the one that is there.

    Args:
      folder: new or empty folder, or that of the same run.
      program: name of the program.
      settings: settings that decide the results, by the names of the flags;
        `UNUSED` for one without bearing on them.
      inputs: hash (or name) of each input.
      field: name of the setting that names the folder.
      chosen: further entries of a new record, which a run that goes on reads.

    Returns:
      The folder.

    Raises:
      UserError: the folder holds another run, or files and no run, or cannot be
        written.
    """
    folder = pathlib.Path(folder)
    unused = {name for name, value in settings.items() if value is UNUSED}
    flags = {name: _plain(settings[name]) for name in sorted(settings.keys() - unused)}
    record = {"program": program, "flags": flags, "inputs": dict(inputs)}
    path = folder / files.RECORD
    if path.exists():
        found = documents.read_object(path)
        for name in unused:
            found.get("flags", {}).pop(name, None)
        _refuse_differences(field, path, found, record)
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{field}: expected a new or empty folder, or that of a run, found "
            f"{folder} with other contents",
            field=field,
        )
    versions = {name: _version(name) for name in _PACKAGES} | {
        "styleclip_jax": __version__,
        "python": platform.python_version(),
    }
    device = jax.devices()[0]
    devices = f"{jax.device_count()} × {device.device_kind}"
    about = {"versions": versions, "devices": devices, **(chosen or {})}
    files.write_json(path, record | about)
    return folder


def _version(package: str) -> str | None:
    """Version of a package; None without it, as most runs need no transformers."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def difference(before: Any, now: Any, name: str = "") -> tuple[str, str] | None:
    """First difference of two records, as its name and "2, found 3"; None if equal.

    What both have is compared first.

    Args:
      before, now: records, trees of dicts.
      name: name of the two records.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        both = before.keys() & now.keys()
        for key in (*sorted(both), *sorted(before.keys() ^ now.keys())):
            found = difference(before.get(key), now.get(key), key)
            if found:
                return found
        return None
    return None if before == now else (name, f"{before}, found {now}")


def _refuse_differences(
    field: str, path: pathlib.Path, found: dict[str, Any], record: dict[str, Any]
) -> None:
    if found.get("program") != record["program"]:
        raise UserError(
            f"{field}: {path} is of {found.get('program')}, expected another folder "
            f"for {record['program']}",
            field=field,
        )
    for part in ("flags", "inputs"):
        changed = difference(found.get(part, {}), record[part])
        if changed:
            name, values = changed
            raise UserError(
                f"{field}: {path} is of a run with {name}={values}; use the same flags "
                "to go on with it, or another folder",
                field=field,
                also=[name] if part == "flags" else [],
            )


def _plain(value: Any) -> Any:
    """Setting as JSON holds it: a tuple as a list."""
    return list(value) if isinstance(value, tuple) else value
