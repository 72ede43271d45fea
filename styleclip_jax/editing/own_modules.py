"""Values of a user's own modules, by name: my_module:NAME."""

import importlib
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from styleclip_jax.errors import UserError
from styleclip_jax.io import files


def load(name: str, *, field: str) -> Any:
    """Value of a module that can be imported.

    Args:
      name: name of the module and of the value, with a colon between.
      field: field that the name is given by.

    Raises:
      UserError: the module cannot be imported, or has no such value.
    """
    # It may change anything before a program is traced.
    from styleclip_jax import traced

    traced.forget()
    module, _, value = name.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        # A traceback would be of the importing; the last place is where the user looks.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f" at {place.filename}:{place.lineno}"
        if isinstance(error, ModuleNotFoundError | ValueError):
            where = ""
        raise UserError(
            f"{field}: {name} cannot be imported, {type(error).__name__}: "
            f"{error}{where}",
            field=field,
        ) from error
    if not hasattr(found, value):
        raise UserError(
            f"{field}: expected a name of {module}, found {value!r}", field=field
        )
    return getattr(found, value)


def find(name: str, table: Mapping[str, Any], *, field: str, what: str) -> Any:
    """Value of a table by its name, or of a user's own module.

    Args:
      name: name in the table, or of a module and of a value in it, see `load`.
      table: values by name.
      field: field that the name is given by.
      what: what a module may have, such as "a function".

    Raises:
      UserError: there is no such name, or as in `load`.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise UserError(
            f"{field}: expected {', '.join(table)}, or {what} of your own as "
            f"module:NAME, found {name!r}",
            field=field,
        )
    return load(name, field=field)


def fingerprint(name: str) -> str:
    """SHA-256 of the source of the module that a loaded value was named by."""
    path = sys.modules[name.partition(":")[0]].__file__
    if path is None:
        raise UserError(f"{name}: expected a module with a file, found none")
    return files.hash_file(path)
