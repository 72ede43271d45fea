"""The inert pickle machine: rebuilds what a checkpoint pickles, and runs nothing.

A pickle is a program that may import and call whatever it names. `Machine` therefore
interprets its opcodes itself: globals are never imported but looked up in a table of
inert substitutes, and only these can be called. Whatever a file claims (sizes,
strides, nesting) is checked against what it holds before memory or time is spent.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from styleclip_jax.io.pickled import inert, vocabulary
from styleclip_jax.io.pickled.inert import (
    Budget,
    Dtype,
    Global,
    Object,
    RefusedError,
    Storage,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
BIG_ENDIAN = "written on a big-endian machine, which is not supported"

_LEGACY_PROTOCOL = 1001
_MAX_ARGS = 64
_MAX_INT_BITS = 1024


class Machine:
    """Runs one pickle with inert substitutes for everything it names."""

    def __init__(
        self,
        budget: Budget,
        load_storage: Callable[[str, np.dtype, int], Storage] | None = None,
        *,
        inner: bool = False,
        objects: bool = False,
    ) -> None:
        self.budget = budget
        self.inner = inner
        # Whether arrays of objects are rebuilt, as .npy files hold dicts.
        self.objects = objects
        self.used: set[str] = set()
        self.unfilled: dict[int, np.ndarray] = {}
        self._load_storage = load_storage
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._place: int | None = None

    def run(self, stream: io.BytesIO) -> Any:
        """The object that the pickle at the stream's position builds."""
        for opcode, arg, self._place in pickletools.genops(stream):
            self.budget.step(_COSTS.get(opcode.name, 1))
            if opcode.name == "STOP":
                break
            if opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, arg)
            else:
                raise RefusedError(f"its pickle uses the opcode {opcode.name}")
        return self._stack.pop()

    def call(self, function: Any, args: Any) -> Any:
        """Our substitute for calling what a pickle named."""
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise TypeError(f"a call of a value of type {type(function).__name__}")
        if len(args) > _MAX_ARGS:
            raise ValueError(f"a call with {len(args)} arguments")
        if function.make is None:
            raise RefusedError(
                f"its pickle calls {function.name} at byte {self._place}, which no "
                f"known checkpoint needs; nothing was run; {vocabulary.REPORT}"
            )
        return function.make(self, *args)

    def _push(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > _MAX_INT_BITS:
            raise ValueError("an integer of absurd size")
        self._stack.append(value)

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _drop_mark(self, _: Any) -> None:
        self._pop_mark()

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        # On an empty stack, POP removes the mark.
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _tuple(self, _: Any) -> None:
        items = tuple(self._pop_mark())
        self._stack.append(items)

    def _short_tuple(self, length: int) -> None:
        items = tuple(self._stack[-length:])
        if len(items) != length:
            raise ValueError("too few values for a tuple")
        self._stack[-length:] = [items]

    def _list(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Object):
            # A subclass of list.
            start = len(target.items)
            target.items |= dict(enumerate(items, start))
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise TypeError(f"items for a {type(target).__name__}")

    def _dict(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._update(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _set_items(self, _: Any) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Object):
            # A subclass of dict.
            target = target.items
        if not isinstance(target, dict):
            raise TypeError(f"items for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[inert.flat_key(key)] = value

    def _add_items(self, _: Any) -> None:
        items = self._pop_mark()
        if not isinstance(self._stack[-1], set):
            raise TypeError(f"items for a {type(self._stack[-1]).__name__}")
        self._stack[-1].update(map(inert.flat_key, items))

    def _frozen_set(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(frozenset(map(inert.flat_key, items)))

    def _global(self, arg: str) -> None:
        self._stack.append(self._find(*arg.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._find(module, name))

    def _find(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is not text")
        if len(module) + len(name) > inert.MAX_NAME:
            raise RefusedError(
                f"it names something in {len(module) + len(name):,} characters"
            )
        full = f"{module}.{name}"
        self.budget.spend(len(full))
        self.used.add(full)
        found = vocabulary.find(full)
        if found is None:
            raise RefusedError(
                f"its pickle names {full} at byte {self._place}, which no known "
                f"checkpoint needs; nothing was run; {vocabulary.REPORT}"
            )
        return found

    def _reduce(self, _: Any) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self.call(function, args))

    def _new_object_ex(self, _: Any) -> None:
        kwargs = self._stack.pop()
        if kwargs != {}:
            raise ValueError("an object made with keyword arguments")
        self._reduce(None)

    def _inst(self, arg: str) -> None:
        args = tuple(self._pop_mark())
        self._stack.append(self.call(self._find(*arg.split(" ", 1)), args))

    def _obj(self, _: Any) -> None:
        function, *args = self._pop_mark()
        self._stack.append(self.call(function, tuple(args)))

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Object):
            target.state = state
        elif isinstance(target, Dtype):
            order = state[1]
            if order not in ("<", ">", "=", "|"):
                raise ValueError("an unknown byte order")
            target.order = order
        elif isinstance(target, np.ndarray):
            self.fill_array(target, *state)
        elif not isinstance(target, dict):
            # Attributes of dicts are of no use (OrderedDict's _metadata).
            raise TypeError(f"a state for a {type(target).__name__}")

    def fill_array(
        self, array: np.ndarray, _: Any, shape: Any, dtype: Any, fortran: Any, data: Any
    ) -> None:
        """Gives an array the state that its pickle has for it."""
        if self.unfilled.pop(id(array), None) is None:
            raise ValueError("a state for an array that has one")
        if isinstance(data, str):
            self.budget.spend(len(data))
            data = data.encode("latin-1")
        resolved = dtype.resolve()
        if isinstance(data, list) and self.objects and resolved.hasobject:
            size = inert.count(shape)
        elif isinstance(data, bytes) and not resolved.hasobject:
            size = inert.count(shape) * resolved.itemsize
        else:
            raise RefusedError("it holds a NumPy array of Python objects")
        if size != len(data):
            raise ValueError("an array whose data does not fit its shape")
        self.budget.spend(len(data))
        # In place, since the pickle's memo may already hold the array.
        state: Any = (1, shape, resolved, bool(fortran), data)
        array.__setstate__(state)

    def _persistent(self, _: Any) -> None:
        tag, kind, *rest = self._stack.pop()
        if tag == "module" and self._load_storage is not None:
            # The class of a whole module, with its source code, which is dropped.
            self._stack.append(kind)
            return
        key, _, size, *view = rest
        if tag != "storage" or self._load_storage is None or view not in ([], [None]):
            raise ValueError("an unknown reference to outside the pickle")
        if kind.dtype is None or not isinstance(key, str):
            raise ValueError("a storage without type or key")
        inert.count((size,))
        self._stack.append(self._load_storage(key, kind.dtype, size))

    def read_storage(self, data: bytes) -> Any:
        """The storage in a legacy stream of its own, as in NVIDIA's pickles."""
        if self.inner:
            raise ValueError("storages within storages")
        self.budget.spend(len(data))
        stream = io.BytesIO(data)
        if Machine(self.budget).run(stream) != LEGACY_MAGIC:
            raise ValueError("a storage that is not in the legacy format")
        return read_legacy(stream, self.budget, inner=True)


def read_legacy(stream: io.BytesIO, budget: Budget, inner: bool = False) -> Any:
    """Object in the format of torch.save before 1.6, after its magic number.

    The stream holds a protocol number, facts on the system, the object and the keys of
    the storages in order, each a pickle; then, per storage, its length (int64) and its
    bytes.

    Args:
      stream: at the protocol number.
      budget: of the whole file.
      inner: whether the stream is itself a value in a pickle.
    """
    if Machine(budget).run(stream) != _LEGACY_PROTOCOL:
        raise ValueError("an unknown version of the legacy format")
    if Machine(budget).run(stream).get("little_endian") is not True:
        raise RefusedError(BIG_ENDIAN)
    storages: dict[str, Storage] = {}

    def load(key: str, dtype: np.dtype, size: int) -> Storage:
        # The bytes come later in the stream; tensors are views of what is filled then.
        if key not in storages:
            budget.spend(size * dtype.itemsize)
            storages[key] = Storage(np.empty(size * dtype.itemsize, np.uint8), dtype)
        return storages[key]

    content = Machine(budget, load, inner=inner).run(stream)
    keys = Machine(budget).run(stream)
    if not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("the storages are not those that the tensors name")
    for key in keys:
        storage = storages[key]
        size = int.from_bytes(stream.read(8), "little") * storage.dtype.itemsize
        data = stream.read(storage.data.size)
        if len(data) != size or size != storage.data.size:
            raise ValueError(f"expected {storage.data.size} bytes of storage {key}")
        storage.data[:] = np.frombuffer(data, np.uint8)
    return content


# Opcodes that make what takes more than a list does.
_COSTS = dict.fromkeys(
    ("EMPTY_SET", "FROZENSET", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"), 4
)
_OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, arg: None),
    **dict.fromkeys(
        (
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
            *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
            *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
            *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        ),
        Machine._push,
    ),
    "NONE": lambda machine, arg: machine._push(None),
    "NEWTRUE": lambda machine, arg: machine._push(True),
    "NEWFALSE": lambda machine, arg: machine._push(False),
    "BYTEARRAY8": lambda machine, arg: machine._push(bytes(arg)),
    "EMPTY_TUPLE": lambda machine, arg: machine._push(()),
    "EMPTY_LIST": lambda machine, arg: machine._push([]),
    "EMPTY_DICT": lambda machine, arg: machine._push({}),
    "EMPTY_SET": lambda machine, arg: machine._push(set()),
    "TUPLE1": lambda machine, arg: machine._short_tuple(1),
    "TUPLE2": lambda machine, arg: machine._short_tuple(2),
    "TUPLE3": lambda machine, arg: machine._short_tuple(3),
    "TUPLE": Machine._tuple,
    "LIST": Machine._list,
    "DICT": Machine._dict,
    "FROZENSET": Machine._frozen_set,
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "ADDITEMS": Machine._add_items,
    "POP": Machine._pop,
    "POP_MARK": Machine._drop_mark,
    "DUP": Machine._duplicate,
    "MARK": Machine._mark,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine._put),
    "MEMOIZE": Machine._memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine._get),
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "INST": Machine._inst,
    "OBJ": Machine._obj,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine._reduce),
    "NEWOBJ_EX": Machine._new_object_ex,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}
