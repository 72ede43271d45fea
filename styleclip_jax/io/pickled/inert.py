"""Inert values that a pickle is rebuilt of: what it names, and what bounds them."""

import dataclasses
import sys
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


# Largest number of characters of a name, and of parts of a key.
MAX_NAME, _MAX_PARTS = 2000, 16
# Opcodes of the pickles of a file; what they make takes some hundred bytes at most.
_MAX_OPCODES = 2_000_000


class Budget:
    """Bounds copies, allocations and tensors by the size of the file, and its opcodes.

    All pickles of a file share one.
    """

    def __init__(self, file_size: int) -> None:
        self._bytes = 4 * file_size + (1 << 16)
        # Tensors may share a storage, as tied weights do, and repeat it, as W does in
        # all rows of W+; once copied, they take what they claim together.
        self._viewed = 20 * file_size + (1 << 24)
        self._opcodes = _MAX_OPCODES

    def spend(self, size: int) -> None:
        """Counts bytes, characters or elements, before they are allocated."""
        self._bytes -= size
        if size < 0 or self._bytes < 0:
            raise ValueError("it claims more data than it holds")

    def view(self, size: int) -> None:
        """Counts the bytes of a tensor, which are those of a storage."""
        self._viewed -= size
        if self._viewed < 0:
            raise RefusedError(
                "its tensors claim far more data than it holds, as the same bytes are "
                "in several, or many times in one"
            )

    def step(self, cost: int) -> None:
        """Counts an opcode, the more the larger what it makes is."""
        self._opcodes -= cost
        if self._opcodes < 0:
            raise RefusedError(f"its pickle takes more than {_MAX_OPCODES:,} steps")


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
    """A key of a dict or set: flat, since hashing nested tuples takes forever.

    Integers are below what they are hashed modulo, since many keys of one hash take
    forever as well. What becomes a text for a name is short.
    """
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
    if isinstance(value, tuple) and len(value) > _MAX_PARTS:
        raise RefusedError(f"it has a key of {len(value):,} parts")
    for part in value if isinstance(value, tuple) else (value,):
        is_text = isinstance(part, bytes) or (
            isinstance(part, str) and part is not value
        )
        if is_text and len(part) > MAX_NAME:
            raise RefusedError(f"it has a key of {len(part):,} characters")
        if isinstance(part, int) and abs(part) >= sys.hash_info.modulus:
            raise ValueError("a key that is an integer of absurd size")
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
