"""Folder of a run: one run at a time, whose record is compared when it is resumed."""

import contextlib
import importlib.metadata
import pathlib
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import jax

from styleclip_jax import documents, parallel
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, locks
from styleclip_jax.progress import ignore
from styleclip_jax.version import __version__

_PACKAGES = ("jax", "flax", "optax", "transformers", "numpy")

# Value of a setting that has no bearing on a run, and stands in older records of it.
UNUSED: Final = object()


@contextlib.contextmanager
def only_run(
    folder: files.Path, tell: Callable[[str], None], *, field: str = "outdir"
) -> Iterator[None]:
    """Context in which no other run writes to the folder; its processes share it.

    The others wait for process 0 in the end, which JAX would end some minutes after the
    first of them has.

    Args:
      folder: folder of the run.
      tell: takes a note if the file system has no locks.
      field: name of the setting that names the folder.

    Raises:
      UserError: another run has it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with parallel.first_alone():
            if jax.process_index() == 0:
                stack.enter_context(locks.only_writer(folder, field, tell))
        yield
    if jax.process_index():
        parallel.wait_while((pathlib.Path(folder) / locks.NAME).exists)


def begin(
    folder: files.Path,
    *,
    program: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    field: str = "outdir",
    chosen: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = ignore,
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
      tell: takes a note if the run began under other versions.

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
        found = read(path, field)
        for name in unused:
            found["flags"].pop(name, None)
        _refuse_differences(field, path, found, record)
        tell_other_versions(found, tell)
        return folder
    files.remove_abandoned(path)
    if folder.exists() and (
        not folder.is_dir() or any(x.name != locks.NAME for x in folder.iterdir())
    ):
        raise UserError(
            f"{field}: expected a new or empty folder, or that of a run, found "
            f"{folder} with other contents",
            field=field,
        )
    about_packages = versions() | {"python": platform.python_version()}
    device = jax.devices()[0]
    devices = f"{jax.device_count()} × {device.device_kind}"
    about = {"versions": about_packages, "devices": devices, **(chosen or {})}
    files.write_json(path, record | about)
    return folder


def read(path: pathlib.Path, field: str) -> dict[str, Any]:
    """Reads the record of a run.

    Args:
      path: file of the record.
      field: name of the setting that names the folder.

    Raises:
      UserError: it is something else.
    """
    found = documents.read_object(path)
    if not all(isinstance(found.get(part), dict) for part in ("flags", "inputs")):
        raise UserError(
            f"{field}: expected the record of a run in {path}, found something else",
            field=field,
        )
    return found


def versions() -> dict[str, str | None]:
    """Versions of the packages that results depend on."""
    found = {name: _version(name) for name in _PACKAGES}
    return found | {"styleclip_jax": __version__}


def tell_other_versions(found: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Tells which packages of a run that goes on have another version now.

    Args:
      found: record of the run.
      tell: takes the line.
    """
    now, before = versions(), found.get("versions")
    if not isinstance(before, dict):
        return
    changed = [
        f"{name} {before[name]}, now {now[name]}"
        for name in ("styleclip_jax", "jax")
        if name in before and before[name] != now[name]
    ]
    if changed:
        tell(
            f"note: the run began with {' and '.join(changed)}; what is made from here "
            "on may differ in the last digits"
        )


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
