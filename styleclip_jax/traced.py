"""Traced programs that one run keeps and the next reads.

JAX keeps compiled programs, and finds them by what tracing gives, so that each run
traces again. `keep` stores what tracing gives in the format of `jax.export`, which says
a program as StableHLO and holds nothing that Python would execute. A program is found
by all that decides it:

- the name of the function and its static values;
- shapes and dtypes of the arrays, and the trees that they are in;
- devices and settings of JAX;
- what the store says of itself: sources and versions of packages.

What cannot be said in such words, such as a function of a user's own, is traced.
"""

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax import export


class Store(Protocol):
    """Store of programs.

    Attributes:
      about: what all its programs depend on: sources of this package, versions of
        Python, JAX, NumPy, Flax and optax.
    """

    @property
    def about(self) -> str: ...

    def read(self, key: str) -> bytes | None:
        """What was written with a key; None if nothing, or nothing whole, is there."""

    def write(self, key: str, content: bytes) -> None:
        """Keeps it, where that is possible."""


_store: contextvars.ContextVar[Store | None] = contextvars.ContextVar(
    "store", default=None
)


# Packages whose sources or versions a store says.
_KNOWN = {"builtins", "numpy", "jax", "flax", "optax", "styleclip_jax"}


class _UnsaidError(TypeError):
    """A value that words do not say."""


@contextlib.contextmanager
def kept_in(store: Store | None) -> Iterator[None]:
    """Context in which functions of `keep` are kept in a store, or none is."""
    token = _store.set(store)
    try:
        yield
    finally:
        _store.reset(token)


def forget() -> None:
    """Keeps and reads nothing any more in this context.

    A module of a user's own may have changed anything.
    """
    _store.set(None)


def keep(name: str, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    """A function that is traced once, and read by later runs.

    It is for the whole of a `jax.jit`: what is read has no derivative and no batch
    axis to be added. Its results have strong types, and are tied to their devices.

    Args:
      name: name of the program, of which there is no other.
      function: function of arrays in trees. What else decides it is in `static`, or
        among the arguments, or in the sources of this package.
      *static: values that decide it: texts, numbers, dataclasses of these.
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        store = _store.get()
        if store is None or jax.process_count() > 1:
            return function(*args, **options)
        leaves, tree = jax.tree.flatten((args, options))
        arrays = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
        fixed = [None if i in arrays else leaf for i, leaf in enumerate(leaves)]
        shapes = [_shape(leaves[i]) for i in arrays]
        try:
            said = [name, *_say((static, fixed)), *_say_tree(tree), *map(str, shapes)]
        except _UnsaidError:
            return function(*args, **options)
        key = _hash("\n".join([store.about, *_surroundings(), *said]))

        def flat(*arrays_: Any) -> Any:
            full = list(fixed)
            for i, array in zip(arrays, arrays_, strict=True):
                full[i] = array
            args, options = jax.tree.unflatten(tree, full)
            return function(*args, **options)

        program, outline = _read(store, key) or _trace(store, key, flat, shapes)
        return _fill(outline, iter(program.call(*(leaves[i] for i in arrays))))

    return call


def recall(name: str, function: Callable[..., Any], *static: Any) -> Any:
    """Value of function(*static) as JSON has it, computed once and read by later runs.

    Args:
      name: name of the value, as in `keep`.
      function: function of the values, whose value is of texts, numbers, lists, dicts.
      *static: values, as in `keep`.
    """
    store = _store.get()
    try:
        said = _say(static)
    except _UnsaidError:
        store = None
    if store is None:
        return function(*static)
    key = _hash("\n".join([store.about, "value", name, *said]))
    found = store.read(key)
    if found is None:
        found = json.dumps(function(*static)).encode()
        store.write(key, found)
    return json.loads(found)


def _read(store: Store, key: str) -> tuple[export.Exported, Any] | None:
    """Program of a key and the outline of its results, if they are kept."""
    content = store.read(key)
    if content is None:
        return None
    outline, _, program = content.partition(b"\n")
    return _load(bytearray(program)), json.loads(outline)


def _trace(
    store: Store,
    key: str,
    function: Callable[..., Any],
    shapes: Sequence[jax.ShapeDtypeStruct],
) -> tuple[export.Exported, Any]:
    """The same, traced, and kept from now on."""
    outlines = []

    def flat(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        made = function(*arrays)
        outlines.append(_outline(made))
        return tuple(jax.tree.leaves(made))

    program = export.export(jax.jit(flat))(*shapes).serialize()
    outline = json.dumps(outlines[0]).encode()
    store.write(key, outline + b"\n" + program)
    # As it will be read, so that all runs compile the same.
    return _load(program), json.loads(outline)


def _load(content: bytearray) -> export.Exported:
    """Program of a file, which is for the devices of this process."""
    program = export.deserialize(content)
    if b"lapack" in program.mlir_module_serialized:
        return program
    # For programs of a CPU JAX imports SciPy, which takes a third of a second, and only
    # those with functions of LAPACK need it. The key has the kind of the devices.
    return dataclasses.replace(
        program,
        platforms=("here",),
        disabled_safety_checks=(export.DisabledSafetyCheck.platform(),),
    )


def _outline(tree: Any) -> Any:
    """Outline of results in words: what holds arrays in which order.

    Raises:
      TypeError: something but tuples, lists and dicts holds them.
    """
    if tree is None or isinstance(tree, jax.Array):
        return None if tree is None else "array"
    if isinstance(tree, dict):
        return {"dict": {name: _outline(tree[name]) for name in sorted(tree)}}
    if not isinstance(tree, tuple | list):
        raise TypeError(f"expected results in tuples, lists and dicts, found {tree!r}")
    kind: Any = type(tree).__name__
    if hasattr(tree, "_fields"):
        kind = [type(tree).__module__, type(tree).__qualname__]
    return {"kind": kind, "parts": [_outline(part) for part in tree]}


def _fill(outline: Any, arrays: Iterator[jax.Array]) -> Any:
    """Results by their outline."""
    if outline is None or outline == "array":
        return None if outline is None else next(arrays)
    if "dict" in outline:
        return {name: _fill(part, arrays) for name, part in outline["dict"].items()}
    parts = [_fill(part, arrays) for part in outline["parts"]]
    if isinstance(outline["kind"], str):
        return tuple(parts) if outline["kind"] == "tuple" else parts
    module, name = outline["kind"]
    # Modules that are there already: a file makes Python import nothing.
    found = getattr(sys.modules[module], name)
    if not (isinstance(found, type) and issubclass(found, tuple)):
        raise ValueError(f"expected the type of a tuple, found {module}.{name}")
    return found(*parts)


def _shape(array: jax.Array) -> jax.ShapeDtypeStruct:
    weak = getattr(array, "weak_type", False)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, weak_type=weak)


def _say(value: Any) -> list[str]:
    """Words that say a value, no two the same.

    Raises:
      _UnsaidError: it is neither text or number, nor made of these.
    """
    kind = _say_type(type(value))
    if value is None or isinstance(value, bool | int | float | str | np.dtype):
        return [f"{kind} {value!r}"]
    if isinstance(value, tuple | list):
        parts = list(value)
    elif isinstance(value, dict):
        parts = [part for pair in value.items() for part in pair]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        raise _UnsaidError(kind)
    return [f"{kind} {len(parts)}", *(word for part in parts for word in _say(part))]


def _say_tree(tree: jax.tree_util.PyTreeDef) -> list[str]:
    """Words that say a structure, no two the same; raises as `_say`."""
    node = tree.node_data()
    if node is None:
        return ["leaf" if tree.num_leaves else "nothing"]
    kind, static = node
    children = tree.children()
    words = [f"{_say_type(kind)} {len(children)}", *_say(static)]
    return [*words, *(word for child in children for word in _say_tree(child))]


def _say_type(kind: type) -> str:
    """Name of a type whose sources or versions the store knows; raises as `_say`."""
    if kind.__module__.partition(".")[0] not in _KNOWN:
        raise _UnsaidError(f"{kind!r}")
    return f"{kind.__module__}.{kind.__qualname__}"


def _surroundings() -> list[str]:
    """Devices and settings of JAX, as this context has them."""
    device = jax.local_devices()[0]
    settings = {
        name: getattr(jax.config, name, value)
        for name, value in sorted(jax.config.values.items())
    }
    return [
        f"{jax.process_count()} {jax.device_count()} {device.device_kind}",
        f"{jax.default_backend()} {settings}",
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
