"""Inert values that a pickle is rebuilt of: what it names, and what bounds them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


class RefusedError(Exception):
    """The file is whole, but holds something that is not accepted."""


@dataclasses.dataclass(eq=False, repr=False)
class Object:
    """An instance of a class that was not imported.

    Attributes:
      type: full name of its class.
      args: what it was constructed from.
      state: its attributes, usually a dict by name.
      items: its items by key or number, if its class is one of dicts or lists.
    """

    type: str
    args: tuple[Any, ...] = ()
    state: Any = dataclasses.field(default_factory=dict)
    items: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        # Also its name where it is a key; what it holds may be of any size.
        return self.type


@dataclasses.dataclass(frozen=True, eq=False)
class Global:
    """A class or function that a pickle names; a value without behaviour.

    Attributes:
      name: full name.
      make: our substitute for calling it, given the machine and the arguments.
      dtype: element type, of storage classes alone.
    """

    name: str
    make: Callable[..., Any] | None = None
    dtype: Any = None


class Budget:
    """Bounds copies and allocations by the size of the file."""

    def __init__(self, file_size: int) -> None:
        self._left = 4 * file_size + (1 << 16)

    def spend(self, size: int) -> None:
        """Counts bytes or elements, before they are allocated."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise ValueError("it claims more data than it holds")


@dataclasses.dataclass(eq=False)
class Storage:
    """Memory of tensors: bytes, and the type of their elements."""

    data: np.ndarray
    dtype: np.dtype


@dataclasses.dataclass(eq=False)
class Dtype:
    """A NumPy dtype under construction."""

    code: str
    order: str = "="

    def resolve(self) -> np.dtype:
        return np.dtype(self.order + self.code)


def flat_key(value: Any) -> Any:
    """A key of a dict or set: flat, since hashing nested tuples takes forever."""
    if isinstance(value, np.ndarray):
        # Optimizers keep their state by tensor, each of which is a key of its own.
        return Object("tensor")
    if isinstance(value, Object):
        return value
    if not isinstance(value, str | bytes | int | float | np.generic | None):
        is_flat = isinstance(value, tuple) and all(
            isinstance(item, str | int | float | None) for item in value
        )
        if not is_flat:
            raise ValueError(f"a key of type {type(value).__name__}")
    return value


def count(shape: Any) -> int:
    """Number of elements; refuses what is not a shape."""
    total = 1
    if not isinstance(shape, tuple) or len(shape) > 32:
        raise ValueError("a shape that is not a tuple of a few integers")
    for length in shape:
        if not isinstance(length, int) or not 0 <= length < 1 << 48:
            raise ValueError("a length that is not a sensible integer")
        total *= length
    return total
