"""Names that pickles of checkpoints hold, and the inert substitutes for them."""

import re
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from styleclip_jax.io.pickled import inert
from styleclip_jax.io.pickled.inert import Dtype, Global, Object, RefusedError, Storage

PERSISTENT_OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
TF_NETWORK = "dnnlib.tflib.network.Network"

# What to do about a name that is missing here.
REPORT = (
    "report the name and the program that wrote the file, or save its weights alone"
)


# Substitutes for the names in checkpoints; each takes the machine and the arguments.


def _rebuild_tensor(
    machine: Any, storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> np.ndarray:
    """A view of a storage; NumPy refuses offsets and strides that leave it."""
    count = inert.count(size)
    # Offset and strides have the same bounds as lengths.
    inert.count((offset,))
    inert.count(stride)
    if not isinstance(storage, Storage) or len(size) != len(stride):
        raise ValueError("a tensor without storage, or with a stride too few")
    itemsize = storage.dtype.itemsize
    machine.budget.view(count * itemsize)
    if count == 0:
        return np.zeros(size, storage.dtype)
    return np.ndarray(
        size,
        storage.dtype,
        storage.data,
        offset * itemsize,
        [step * itemsize for step in stride],
    )


def _load_from_bytes(machine: Any, data: bytes) -> Any:
    """The storage in a legacy stream of its own, as in NVIDIA's pickles."""
    return machine.read_storage(data)


def _rebuild_untyped(
    machine: Any, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> np.ndarray:
    """A view of a storage of bytes, whose type of elements is an argument."""
    _, _, dtype, *_ = rest
    typed = Storage(storage.data, np.dtype(dtype.dtype))
    return _rebuild_tensor(machine, typed, offset, size, stride)


def _rebuild_subclass(machine: Any, rebuild: Any, _: Any, args: Any, *__: Any) -> Any:
    """A tensor of a subclass, or one with attributes."""
    return machine.call(rebuild, args)


def _reconstructed(_: Any, cls: Any, *__: Any) -> Object:
    """An object as old protocols write it: its class, base and the base's value."""
    if not isinstance(cls, Global) or cls.make is None:
        raise TypeError("an object without a class")
    return Object(cls.name)


def _persistent_object(_: Any, meta: dict[str, Any]) -> Object:
    """A network in NVIDIA's pickles; the source code in `meta` is dropped."""
    name = meta["class_name"]
    if not isinstance(name, str):
        raise TypeError("a class name that is not text")
    return Object(name, (), meta["state"])


def _new_array(machine: Any, *_: Any) -> np.ndarray:
    array = np.empty(0, np.int8)
    machine.unfilled[id(array)] = array
    return array


def _array_from_buffer(
    machine: Any, data: bytes, dtype: Dtype, shape: Any, order: Any
) -> np.ndarray:
    array = _new_array(machine)
    machine.fill_array(array, 1, shape, dtype, order == "F", data)
    return array


def _scalar(machine: Any, dtype: Dtype, data: Any) -> Any:
    machine.budget.spend(len(data))
    raw = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype.resolve(), count=1)[0]


def _dtype(machine: Any, code: str, *_: Any) -> Dtype:
    if code == "O8" and machine.objects:
        return Dtype(code)
    if not re.fullmatch(r"[biufc]\d{1,2}", code):
        raise RefusedError(f"it holds a NumPy array of type {code[:80]!r}")
    return Dtype(code)


def _encode(machine: Any, text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("an encoding other than latin-1")
    machine.budget.spend(len(text))
    return text.encode("latin-1")


def _new_dict(machine: Any, *args: Any) -> dict[Any, Any]:
    # The argument is a mapping or pairs; a defaultdict's is its factory.
    pairs = [] if not args or isinstance(args[0], Global) else args[0]
    machine.budget.spend(len(pairs))
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return {inert.flat_key(key): value for key, value in items}


def _new_set(machine: Any, items: Any = ()) -> set[Any]:
    machine.budget.spend(len(items))
    return set(map(inert.flat_key, items))


def _bytes(machine: Any, data: Any = b"", encoding: Any = "latin1") -> bytes:
    if isinstance(data, str):
        return _encode(machine, data, encoding)
    if not isinstance(data, bytes):
        # bytes(n) would allocate whatever n says.
        raise TypeError(f"bytes of a {type(data).__name__}")
    return data


def _to_tuple(machine: Any, items: Any = ()) -> tuple[Any, ...]:
    machine.budget.spend(len(items))
    return tuple(items)


def _first_argument(_: Any, value: Any, *__: Any) -> Any:
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
    "Untyped": np.uint8,
    "Bool": np.bool_,
    "ComplexFloat": np.complex64,
    "ComplexDouble": np.complex128,
}

_TORCH_DTYPES = {
    **{f"float{n}": f"float{n}" for n in (16, 32, 64)},
    **{f"int{n}": f"int{n}" for n in (8, 16, 32, 64)},
    "uint8": "uint8",
    "bool": "bool",
    "bfloat16": ml_dtypes.bfloat16,
}

_CALLABLE: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_untyped,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch._utils._rebuild_device_tensor_from_numpy": _first_argument,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first_argument,
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
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
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
    **dict.fromkeys(("bool", "dict", "float", "int", "list", "object", "str", "tuple")),
}

# Classes of the standard library that are data, in their homes of every Python.
_DATA = {
    "argparse": "Namespace",
    **dict.fromkeys(
        ("builtins", "__builtin__"),
        "complex range xrange slice type Ellipsis NotImplemented",
    ),
    "collections": "deque ChainMap UserDict UserList",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "functools": "partial",
    "http": "HTTPMethod HTTPStatus",
    "inspect": "Parameter Signature _empty _ParameterKind",
    "re": "_compile",
    "signal": "Signals",
    "time": "struct_time",
    "types": "NoneType SimpleNamespace",
    "uuid": "UUID SafeUUID",
    "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
    **dict.fromkeys(
        ("pathlib", "pathlib._local"),
        "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    ),
    "typing": "Any Dict List Optional Tuple Union",
    "torch": "device",
}
_PYTHON_2 = {"__builtin__", "copy_reg", "commands", "exceptions", "cPickle", "urllib2"}
# Parts of torch and NumPy whose classes are modules of networks, records of their
# training, and states of random numbers. What rebuilds tensors lies elsewhere.
_CLASSES = (
    *(f"torch.{x}." for x in ("nn", "optim", "amp", "cuda.amp", "utils.data")),
    *(f"torch.{x}." for x in ("distributed", "distributions")),
    "numpy.random.",
)

_GLOBALS: dict[str, Global] = {
    **{name: Global(name, make) for name, make in _CALLABLE.items()},
    **{
        f"{module}.{name}": Global(f"{module}.{name}", make)
        for module in ("builtins", "__builtin__")
        for name, make in _BUILTINS.items()
    },
    **{
        f"{module}.{name}": _object_global(f"{module}.{name}")
        for module, names in _DATA.items()
        for name in names.split()
    },
    **{
        name: Global(name, dtype=np.dtype(dtype))
        for kind, dtype in _STORAGE_DTYPES.items()
        for name in (f"torch.{kind}Storage", f"torch.storage.{kind}Storage")
    },
    **{
        f"torch.{name}": Global(f"torch.{name}", dtype=np.dtype(dtype))
        for name, dtype in _TORCH_DTYPES.items()
    },
}


def find(name: str) -> Global | None:
    """Inert substitute for a name in a pickle, None for one that is refused.

    A class of a package that is neither Python's, nor NumPy's, nor PyTorch's becomes an
    object with its attributes: so whole networks are read without their code.
    """
    if name in _GLOBALS:
        return _GLOBALS[name]
    package = name.split(".")[0]
    if package in sys.stdlib_module_names | _PYTHON_2:
        return None
    if package in ("numpy", "torch") and not name.startswith(_CLASSES):
        # A mere name, such as that of a type; what would call it is refused.
        return Global(name)
    return _object_global(name)
