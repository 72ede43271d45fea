"""The inert pickle machine: rebuilds what a checkpoint pickles, and runs nothing.

A pickle is a program that may import and call whatever it names. `Machine` therefore
interprets its opcodes itself: globals are never imported but looked up in a table of
inert substitutes, and only these can be called. Whatever a file claims (sizes,
strides, nesting) is checked against what it holds before memory or time is spent.
"""

import dataclasses
import io
import pickletools
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
PERSISTENT_OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
TF_NETWORK = "dnnlib.tflib.network.Network"
BIG_ENDIAN = "written on a big-endian machine, which is not supported"

_LEGACY_PROTOCOL = 1001
_MAX_ARGS = 64
_MAX_INT_BITS = 1024
_MAX_EXPANDED = 1 << 26


class RefusedError(Exception):
    """The file is whole, but holds something that is not accepted."""


@dataclasses.dataclass(eq=False)
class Object:
    """An instance of a class that was not imported.

    Attributes:
      type: full name of its class.
      args: what it was constructed from.
      state: its attributes, usually a dict by name.
    """

    type: str
    args: tuple[Any, ...] = ()
    state: Any = dataclasses.field(default_factory=dict)


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
class _Dtype:
    """A NumPy dtype under construction."""

    code: str
    order: str = "="

    def resolve(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class Machine:
    """Runs one pickle with inert substitutes for everything it names."""

    def __init__(
        self,
        budget: Budget,
        load_storage: Callable[[str, np.dtype, int], Storage] | None = None,
        *,
        inner: bool = False,
    ) -> None:
        self.budget = budget
        self.inner = inner
        self.used: set[str] = set()
        self.unfilled: dict[int, np.ndarray] = {}
        self._load_storage = load_storage
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """The object that the pickle at the stream's position builds."""
        for opcode, arg, _ in pickletools.genops(stream):
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
            raise RefusedError(f"its pickle calls {function.name}")
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
        if not isinstance(target, list):
            raise TypeError(f"items for a {type(target).__name__}")
        target.extend(items)

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
        if not isinstance(target, dict):
            raise TypeError(f"items for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _add_items(self, _: Any) -> None:
        items = self._pop_mark()
        if not isinstance(self._stack[-1], set):
            raise TypeError(f"items for a {type(self._stack[-1]).__name__}")
        self._stack[-1].update(map(_key, items))

    def _frozen_set(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(frozenset(map(_key, items)))

    def _global(self, arg: str) -> None:
        self._stack.append(self._find(*arg.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._find(module, name))

    def _find(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is not text")
        full = f"{module}.{name}"
        self.used.add(full)
        if full.startswith("__torch__."):
            return _object_global(full)
        if full not in _GLOBALS:
            raise RefusedError(
                f"its pickle names {full}, which no known checkpoint needs; "
                "nothing was run"
            )
        return _GLOBALS[full]

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
        elif isinstance(target, _Dtype):
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
            data = data.encode("latin-1")
        if not isinstance(data, bytes):
            raise RefusedError("it holds a NumPy array of Python objects")
        resolved = dtype.resolve()
        if _count(shape) * resolved.itemsize != len(data):
            raise ValueError("an array whose data does not fit its shape")
        self.budget.spend(len(data))
        # In place, since the pickle's memo may already hold the array.
        state: Any = (1, shape, resolved, bool(fortran), data)
        array.__setstate__(state)

    def _persistent(self, _: Any) -> None:
        tag, kind, key, _, size, *view = self._stack.pop()
        if tag != "storage" or self._load_storage is None or view not in ([], [None]):
            raise ValueError("an unknown reference to outside the pickle")
        if kind.dtype is None or not isinstance(key, str):
            raise ValueError("a storage without type or key")
        _count((size,))
        self._stack.append(self._load_storage(key, kind.dtype, size))


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


def _key(value: Any) -> Any:
    """A key of a dict or set: flat, since hashing nested tuples takes forever."""
    if not isinstance(value, str | bytes | int | float | np.generic | None):
        is_flat = isinstance(value, tuple) and all(
            isinstance(item, str | int | float | None) for item in value
        )
        if not is_flat:
            raise ValueError(f"a key of type {type(value).__name__}")
    return value


def _count(shape: Any) -> int:
    """Number of elements; refuses what is not a shape."""
    total = 1
    if not isinstance(shape, tuple) or len(shape) > 32:
        raise ValueError("a shape that is not a tuple of a few integers")
    for length in shape:
        if not isinstance(length, int) or not 0 <= length < 1 << 48:
            raise ValueError("a length that is not a sensible integer")
        total *= length
    return total


# Substitutes for the names in checkpoints; each takes the machine and the arguments.


def _rebuild_tensor(
    machine: Machine, storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> np.ndarray:
    """A view of a storage; NumPy refuses offsets and strides that leave it."""
    count = _count(size)
    # Offset and strides have the same bounds as lengths.
    _count((offset,))
    _count(stride)
    if not isinstance(storage, Storage) or len(size) != len(stride):
        raise ValueError("a tensor without storage, or with a stride too few")
    itemsize = storage.dtype.itemsize
    if count > max(storage.data.size // itemsize, _MAX_EXPANDED):
        raise ValueError("a tensor far larger than its storage")
    if count == 0:
        return np.zeros(size, storage.dtype)
    return np.ndarray(
        size,
        storage.dtype,
        storage.data,
        offset * itemsize,
        [step * itemsize for step in stride],
    )


def _load_from_bytes(machine: Machine, data: bytes) -> Any:
    """The storage in a legacy stream of its own, as in NVIDIA's pickles."""
    if machine.inner:
        raise ValueError("storages within storages")
    machine.budget.spend(len(data))
    stream = io.BytesIO(data)
    if Machine(machine.budget).run(stream) != LEGACY_MAGIC:
        raise ValueError("a storage that is not in the legacy format")
    return read_legacy(stream, machine.budget, inner=True)


def _persistent_object(_: Machine, meta: dict[str, Any]) -> Object:
    """A network in NVIDIA's pickles; the source code in `meta` is dropped."""
    name = meta["class_name"]
    if not isinstance(name, str):
        raise TypeError("a class name that is not text")
    return Object(name, (), meta["state"])


def _new_array(machine: Machine, *_: Any) -> np.ndarray:
    array = np.empty(0, np.int8)
    machine.unfilled[id(array)] = array
    return array


def _array_from_buffer(
    machine: Machine, data: bytes, dtype: _Dtype, shape: Any, order: Any
) -> np.ndarray:
    array = _new_array(machine)
    machine.fill_array(array, 1, shape, dtype, order == "F", data)
    return array


def _scalar(_: Machine, dtype: _Dtype, data: Any) -> Any:
    raw = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype.resolve(), count=1)[0]


def _dtype(_: Machine, code: str, *__: Any) -> _Dtype:
    if not re.fullmatch(r"[biufc]\d{1,2}", code):
        raise RefusedError(f"it holds a NumPy array of type {code!r}")
    return _Dtype(code)


def _encode(machine: Machine, text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("an encoding other than latin-1")
    machine.budget.spend(len(text))
    return text.encode("latin-1")


def _new_dict(machine: Machine, *args: Any) -> dict[Any, Any]:
    # The argument is a mapping or pairs; a defaultdict's is its factory.
    pairs = [] if not args or isinstance(args[0], Global) else args[0]
    machine.budget.spend(len(pairs))
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return {_key(key): value for key, value in items}


def _new_set(machine: Machine, items: Any = ()) -> set[Any]:
    machine.budget.spend(len(items))
    return set(map(_key, items))


def _bytes(machine: Machine, data: Any = b"", encoding: Any = "latin1") -> bytes:
    if isinstance(data, str):
        return _encode(machine, data, encoding)
    if not isinstance(data, bytes):
        # bytes(n) would allocate whatever n says.
        raise TypeError(f"bytes of a {type(data).__name__}")
    return data


def _to_tuple(machine: Machine, items: Any = ()) -> tuple[Any, ...]:
    machine.budget.spend(len(items))
    return tuple(items)


def _first_argument(_: Machine, value: Any, *__: Any) -> Any:
    return value


def _object_global(name: str) -> Global:
    return Global(name, lambda _, *args: Object(name, args))


_STORAGE_DTYPES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "ComplexFloat": np.complex64,
    "ComplexDouble": np.complex128,
}

_CALLABLE: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _first_argument,
    "torch._utils._rebuild_parameter_with_state": _first_argument,
    "torch.storage._load_from_bytes": _load_from_bytes,
    "torch.Size": _to_tuple,
    "torch.jit._pickle.build_intlist": _first_argument,
    "torch.jit._pickle.build_doublelist": _first_argument,
    "torch.jit._pickle.build_boollist": _first_argument,
    "torch.jit._pickle.build_tensorlist": _first_argument,
    "torch.jit._pickle.restore_type_tag": _first_argument,
    PERSISTENT_OBJECT: _persistent_object,
    "collections.OrderedDict": _new_dict,
    "collections.defaultdict": _new_dict,
    "collections.Counter": _new_dict,
    "dnnlib.EasyDict": _new_dict,
    "dnnlib.util.EasyDict": _new_dict,
    "easydict.EasyDict": _new_dict,
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", _new_array),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _array_from_buffer),
        )
    },
}

_BUILTINS: dict[str, Callable[..., Any] | None] = {
    "set": _new_set,
    "frozenset": _new_set,
    "bytes": _bytes,
    "bytearray": _bytes,
    "dict": None,
    "float": None,
    "int": None,
    "list": None,
    "object": None,
    "str": None,
}

_OBJECTS = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "torch.device",
    TF_NETWORK,
)

_GLOBALS: dict[str, Global] = {
    **{name: Global(name, make) for name, make in _CALLABLE.items()},
    **{
        f"{module}.{name}": Global(f"{module}.{name}", make)
        for module in ("builtins", "__builtin__")
        for name, make in _BUILTINS.items()
    },
    **{name: _object_global(name) for name in _OBJECTS},
    **{
        f"torch.{name}Storage": Global(f"torch.{name}Storage", dtype=np.dtype(dtype))
        for name, dtype in _STORAGE_DTYPES.items()
    },
    **{
        name: Global(name)
        for name in (
            "numpy.ndarray",
            "torch.float16",
            "torch.float32",
            "torch.float64",
            "torch.int64",
            "torch.contiguous_format",
            "torch.channels_last",
        )
    },
}

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
