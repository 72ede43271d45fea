"""Configurations: their base, and one wording for what several of them refuse."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any, Self

from styleclip_jax.errors import UserError


class Config:
    """Base of configurations, which are frozen dataclasses."""

    def replace(self, **changes: Any) -> Self:
        """The same with other values of some fields, checked again.

        Raises:
          UserError: there is no such field, or it refuses the value.
        """
        assert dataclasses.is_dataclass(self)
        names = [field.name for field in dataclasses.fields(self)]
        for name in changes.keys() - {*names}:
            raise UserError(
                f"{name}: expected a field of {type(self).__name__}, one of "
                f"{', '.join(names)}",
                field=name,
            )
        return dataclasses.replace(self, **changes)


def one_of(config: Any, /, **choices: Collection[str]) -> None:
    """Refuses a configuration with a field that is none of its choices.

    Args:
      config: the configuration.
      choices: choices of each field to check, by its name.

    Raises:
      UserError: names the first such field.
    """
    for field, allowed in choices.items():
        found = getattr(config, field)
        if found not in allowed:
            raise UserError(
                f"{field} must be one of {', '.join(allowed)}, found {found!r}",
                field=field,
            )


def some_of(config: Any, /, **choices: Collection[str]) -> None:
    """Refuses a configuration with a field that is empty or lists more than choices.

    Args:
      config: the configuration.
      choices: choices of each field to check, by its name; None there is no list.

    Raises:
      UserError: names the first such field.
    """
    for field, allowed in choices.items():
        found = getattr(config, field)
        unknown = [name for name in found or () if name not in allowed]
        if unknown or (found is not None and not found):
            raise UserError(
                f"{field}: expected some of {', '.join(allowed)}, found "
                f"{', '.join(unknown) or 'none'}",
                field=field,
            )


def given(config: Any) -> list[str]:
    """Names of the fields of a configuration that are not None."""
    names = [field.name for field in dataclasses.fields(config)]
    return [name for name in names if getattr(config, name) is not None]


def at_least(config: Any, least: float, *fields: str) -> None:
    """Refuses a configuration with a number below a bound, or one that is not finite.

    Args:
      config: the configuration.
      least: smallest allowed number.
      fields: names of the fields to check.

    Raises:
      UserError: names the first such field.
    """
    for field in fields:
        found = getattr(config, field)
        if not least <= found < math.inf:
            raise UserError(
                f"{field} must be at least {least}, found {found}", field=field
            )


def numbers(field: str, values: Sequence[str | float]) -> list[float]:
    """Parses texts or numbers as finite numbers.

    Raises:
      UserError: a value is no finite number.
    """
    found = []
    for value in values:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{field}: expected numbers, found {value!r}", field=field)
        found.append(number)
    return found
