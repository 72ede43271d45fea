"""Documents in JSON: read within limits, and written without what JSON does not have.

A document may be a stranger's. Its size and the number of its values are bounded before
they are parsed, so that none takes more than some hundred megabytes.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NoReturn

from styleclip_jax.errors import UserError

# Largest size in bytes: a few times those of tokenizers, the largest that are usual.
MAX_BYTES = 48 << 20
# Largest numbers of lists and objects, and of commas, which bound that of all values.
_MAX_CONTAINERS, _MAX_COMMAS = 1_000_000, 4_000_000
_MAX_DEPTH = 100
# Digits of an integer that still is a floating-point number.
_MAX_DIGITS = 300


def read_bytes(path: str | os.PathLike[str], most: int = MAX_BYTES) -> bytes:
    """Content of a file of at most so many bytes.

    Raises:
      UserError: no such file, or it cannot be read or is larger.
    """
    try:
        with pathlib.Path(path).open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror or error})") from None
    if len(content) > most:
        raise UserError(f"{path}: expected at most {most >> 20} MB, found more")
    return content


def read(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON document.

    Raises:
      UserError: no such file, or not JSON.
    """
    return parse(read_bytes(path), str(path))


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON document that is an object.

    Raises:
      UserError: no such file, not JSON, or a document of another kind.
    """
    value = read(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def parse(content: str | bytes, name: str) -> Any:
    """Value of a JSON document.

    Args:
      content: the document; bytes are in UTF-8, or in UTF-16 or UTF-32.
      name: what it is from, for messages.

    Raises:
      UserError: it is no JSON, too large, or nested too deeply.
    """
    try:
        text = content
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        containers, commas = text.count("[") + text.count("{"), text.count(",")
        if containers > _MAX_CONTAINERS or commas > _MAX_COMMAS:
            raise ValueError(
                f"more than {_MAX_CONTAINERS:,} lists and objects, or "
                f"{_MAX_COMMAS:,} values"
            )
        value = json.loads(text, parse_constant=_refuse, parse_int=_integer)
        if containers > _MAX_DEPTH:
            _check_depth(value)
    except (ValueError, RecursionError, MemoryError) as error:
        reason = error if isinstance(error, ValueError) else "nested too deeply"
        raise UserError(f"{name}: expected JSON ({reason})") from None
    return value


def whole_number(line: bytes, name: str) -> int | None:
    """Whole number of this name in a line of JSON; None where there is none."""
    try:
        found = parse(line, "")[name]
    except (UserError, KeyError, TypeError):
        return None
    return found if type(found) is int else None


def dump(value: Any, **options: Any) -> str:
    """JSON of a value, in which numbers that are not finite are null.

    Args:
      value: lists, mappings and plain values.
      **options: as of `json.dumps`.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """Tree with None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse(token: str) -> NoReturn:
    raise ValueError(f"{token}, which is not in JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _check_depth(value: Any) -> None:
    """Refuses what functions that call themselves could not walk."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise RecursionError
        level = [
            child
            for outer in level
            for child in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(child, list | dict)
        ]
