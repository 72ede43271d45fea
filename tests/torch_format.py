"""A writer of PyTorch's formats, without torch: pickles that name what is absent."""

import dataclasses
import io
import pathlib
import pickle
import zipfile
from typing import Any

import numpy as np

from styleclip_jax.io.pickled import machine


@dataclasses.dataclass
class Name:
    """A global."""

    module: str
    name: str


@dataclasses.dataclass
class Call:
    """A global, called."""

    function: Name
    args: tuple[Any, ...]


@dataclasses.dataclass
class Persistent:
    """A reference to outside the pickle."""

    value: tuple[Any, ...]


@dataclasses.dataclass
class Instance:
    """An object of a class, with its attributes."""

    type: Name
    state: Any


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """The standard library's, which also knows the classes above."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Name):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.REDUCE)
        elif isinstance(obj, Instance):
            self.save(obj.type)
            self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
            self.save(obj.state)
            self.write(pickle.BUILD)
        elif isinstance(obj, Persistent):
            self.save(obj.value)
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


def dumps(value: Any) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def storage(kind: str, key: str, size: int) -> Persistent:
    name = Name("torch", f"{kind}Storage")
    return Persistent(("storage", name, key, "cpu", size))


def legacy_storage(kind: str, key: str, size: int) -> Persistent:
    return Persistent((*storage(kind, key, size).value, None))


def tensor(
    storage: Any, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0
) -> Call:
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    hooks = Call(Name("collections", "OrderedDict"), ())
    return Call(rebuild, (storage, offset, shape, stride, False, hooks))


def write_zip(
    path: pathlib.Path,
    pickled: bytes,
    storages: dict[str, np.ndarray] | None = None,
    compression: int = zipfile.ZIP_STORED,
    **extra: bytes,
) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data.tobytes())
        for name, content in extra.items():
            archive.writestr(f"archive/{name}", content)
    return path


def legacy(pickled: bytes, storages: dict[str, np.ndarray] | None = None) -> bytes:
    storages = storages or {}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [dumps(machine.LEGACY_MAGIC), dumps(1001), dumps(system), pickled]
    parts.append(dumps(list(storages)))
    for data in storages.values():
        parts += [data.size.to_bytes(8, "little"), data.tobytes()]
    return b"".join(parts)


def save(path: pathlib.Path, *arrays: np.ndarray) -> pathlib.Path:
    """What torch.save makes of a float32 tensor, of several in a list."""
    return save_object(path, list(arrays) if len(arrays) > 1 else arrays[0])


def save_object(path: pathlib.Path, content: Any) -> pathlib.Path:
    """What torch.save makes of float32 tensors in dicts and lists."""
    storages: dict[str, np.ndarray] = {}

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: tensors(child) for name, child in value.items()}
        if isinstance(value, list):
            return [tensors(child) for child in value]
        if not isinstance(value, np.ndarray):
            return value
        array, key = np.ascontiguousarray(value, np.float32), str(len(storages))
        array = array.reshape(value.shape)
        storages[key] = array
        strides = tuple(stride // array.itemsize for stride in array.strides)
        return tensor(storage("Float", key, array.size), array.shape, strides)

    return write_zip(path, dumps(tensors(content)), storages)
