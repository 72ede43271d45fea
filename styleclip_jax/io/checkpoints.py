"""Model directories: `config.json` and `model.safetensors`.

`config.json` holds the kind of network, its configuration and where the weights came
from; the tensors are named by their path in the parameter tree, joined with "/".
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import safetensors.numpy

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, tensor_files
from styleclip_jax.models import param_trees, runtime
from styleclip_jax.models.network import Network

Config = TypeVar("Config")

# Files of a model directory.
_CONFIG, _WEIGHTS = FILES = ("config.json", "model.safetensors")
# Errors that building a network raises where its configuration is none.
INVALID = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# Largest number of a configuration, such as of tokens, and of layers or the like, which
# decide how long it takes to build.
_MAX_NUMBER, _MAX_COUNT = 1 << 20, 128
_COUNTS = ("layers", "blocks", "rows")


def save_network(
    directory: files.Path,
    *,
    kind: str,
    params: Mapping[str, Any],
    config: Any,
    source: Mapping[str, Any],
    dtype: str = "float32",
    overwrite: bool = False,
) -> None:
    """Writes a model directory, whole or not at all.

    Args:
      directory: folder to make.
      kind: kind of the network, such as "stylegan2".
      params: parameter tree, nested or flat with "/" in its names.
      config: frozen dataclass that rebuilds the architecture.
      source: origin of the weights, for people.
      dtype: type to store tensors in; float16 halves the size.
      overwrite: whether a folder with something in it may be replaced.

    Raises:
      UserError: the folder exists, or cannot be written.
    """
    with files.new_directory(directory, overwrite=overwrite) as temporary:
        fill_directory(
            temporary,
            kind=kind,
            params=params,
            config=config,
            source=source,
            dtype=dtype,
        )


def fill_directory(
    directory: pathlib.Path,
    *,
    kind: str,
    params: Mapping[str, Any],
    config: Any,
    source: Mapping[str, Any],
    dtype: str = "float32",
) -> None:
    """Writes a network into a folder that is there; arguments as of `save_network`."""
    tensors = {
        name: np.array(leaf, dtype, order="C")
        for name, leaf in param_trees.flatten(params).items()
    }
    files.write_json(
        directory / _CONFIG,
        {"kind": kind, "config": runtime.stored(config), "source": source},
    )
    safetensors.numpy.save_file(tensors, directory / _WEIGHTS)


def load_network(
    directory: files.Path,
    *,
    kind: str,
    config_type: type[Config],
    param_shapes: Callable[[Config], param_trees.Shapes],
) -> Network[Config]:
    """Reads a model directory.

    Args:
      directory: folder written by `save_network`.
      kind: the kind of network expected.
      config_type: dataclass of its configuration.
      param_shapes: shape of every parameter by flat name, given the configuration.

    Returns:
      The network, with float32 parameters on the default device.

    Raises:
      UserError: no such folder, another kind, a broken file, or tensors that do not
        belong to the configuration.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise UserError(
            f"{directory}: expected a model directory, found {found} "
            "(official weights are converted by styleclip-convert)"
        )
    config = read_config(directory, kind, config_type)
    path = directory / _WEIGHTS
    tensors = tensor_files.read(path).tensors
    shapes = shapes_of(directory / _CONFIG, config, param_shapes)
    return Network(as_params(path, tensors, shapes), config)


def kind_of(directory: files.Path) -> str | None:
    """Kind of the network of a model directory, None if it is no such directory."""
    path = pathlib.Path(directory) / _CONFIG
    kind = documents.read_object(path).get("kind") if path.is_file() else None
    return kind if isinstance(kind, str) else None


def fingerprint(directory: files.Path) -> str:
    """SHA-256 of the weights of a model directory, hexadecimal."""
    return files.hash_file(pathlib.Path(directory) / _WEIGHTS)


def source(directory: files.Path) -> Mapping[str, Any]:
    """Origin of a network, as far as its model directory says so."""
    document = documents.read_object(pathlib.Path(directory) / _CONFIG)
    found = document.get("source")
    return found if isinstance(found, dict) else {}


def shapes_of(
    path: pathlib.Path, config: Any, param_shapes: Callable[[Any], param_trees.Shapes]
) -> param_trees.Shapes:
    """Shapes of the parameters of a configuration, whose numbers are sensible.

    Args:
      path: file that it is from, for the message.
      config: the configuration.
      param_shapes: shape of every parameter by flat name, given the configuration.

    Raises:
      UserError: a number is not finite or too large, or no network is of that kind.
    """
    try:
        for name, value in dataclasses.asdict(config).items():
            _check_numbers(name, value)
        return param_shapes(config)
    except INVALID as error:
        raise UserError(f"{path}: not a valid configuration ({error})") from None


def as_params(
    path: pathlib.Path, tensors: Mapping[str, Any], shapes: param_trees.Shapes
) -> Any:
    """Parameter tree of the tensors of a file, float32 on the default device.

    Raises:
      UserError: they are not those of the architecture, or not finite.
    """
    check_tensors(path, tensors, shapes)
    params = {}
    for name, tensor in tensors.items():
        with np.errstate(over="ignore"):
            array = np.array(tensor, np.float32)
        require_finite(path, name, array)
        # Unlike `jnp.asarray`, without a program for each shape.
        params[name] = jax.device_put(array)
    return param_trees.unflatten(params)


def require_finite(path: files.Path, name: str, tensor: np.ndarray) -> None:
    """Refuses weights that are not finite, which would spoil whatever they touch.

    Raises:
      UserError: names the tensor of the file.
    """
    # The extremes are not finite either, and take no array beside the tensor.
    if tensor.size and not np.isfinite((tensor.min(), tensor.max())).all():
        raise UserError(f"{path}: tensor {name} has values that are not finite")


def check_tensors(
    path: files.Path, tensors: Mapping[str, Any], shapes: param_trees.Shapes
) -> None:
    """Refuses tensors that are not exactly those of an architecture.

    Args:
      path: file that they are from, for the message.
      tensors: by flat name.
      shapes: of every parameter.

    Raises:
      UserError: tensors are missing, surplus or of another shape.
    """
    missing, surplus, misshapen = param_trees.differences(tensors, shapes)
    faults = [f"missing {name}" for name in missing]
    faults += [f"surplus {name}" for name in surplus]
    faults += [
        f"{name}: expected {list(shapes[name])}, found {list(np.shape(tensors[name]))}"
        for name in misshapen
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(f"{path}: {'; '.join(faults[:3])}{more}")


def read_config(directory: files.Path, kind: str, config_type: type[Config]) -> Config:
    """Configuration of a model directory, whose lists are tuples.

    Raises:
      UserError: there is none, or one of another kind.
    """
    path = pathlib.Path(directory) / _CONFIG
    document = documents.read_object(path)
    found = document.get("kind")
    if found != kind:
        raise UserError(f"{path}: expected a {kind} network, found {found!r}")
    try:
        values = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document["config"].items()
        }
        return config_type(**values)
    except INVALID as error:
        raise UserError(f"{path}: not a valid configuration ({error})") from None


def _check_numbers(name: str, value: Any) -> None:
    """Refuses numbers of a field that no network has."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_numbers(str(key), part)
    elif isinstance(value, list | tuple):
        if len(value) > _MAX_COUNT:
            raise ValueError(f"{name}: {len(value)} values")
        for part in value:
            _check_numbers(name, part)
    elif isinstance(value, int | float):
        most = _MAX_COUNT if name.endswith(_COUNTS) else _MAX_NUMBER
        if not math.isfinite(value) or abs(value) > most:
            raise ValueError(f"{name}: expected at most {most}, found {value}")
