"""Files of tuned generators: what a tuning has changed, one `.safetensors` each.

They hold the difference to the generator's weights in bfloat16, two bytes a number, by
the names of the parameters that changed. The metadata hold one JSON document with the
generator that the difference is to; another one is refused.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, direction_files, files, tensor_files
from styleclip_jax.io.direction_files import Origin
from styleclip_jax.models import param_trees

_KIND = "tuned_generator"
# Largest header beside the numbers.
_MAX_HEADER = 1 << 20


def name(index: int) -> str:
    """Name of the file of a latent, by its number."""
    return f"{index:06d}.safetensors"


def write(
    path: files.Path,
    changes: Mapping[str, np.ndarray],
    *,
    generator: Origin,
    about: Mapping[str, Any],
) -> None:
    """Writes the changes of a generator; equal ones give equal bytes.

    Args:
      path: file to make.
      changes: difference of each parameter by its flat name; zeros are left out.
      generator: generator that the difference is to.
      about: notes on the tuning.

    Raises:
      UserError: the file cannot be written, or a number is not finite.
    """
    tensors = _stored(changes)
    _require_finite(path, tensors)
    files.write_bytes(path, _dump(tensors, generator, about))


def dump(
    changes: Mapping[str, np.ndarray], *, generator: Origin, about: Mapping[str, Any]
) -> bytes:
    """Content of a file; arguments as of `write`."""
    return _dump(_stored(changes), generator, about)


def _dump(
    tensors: Mapping[str, np.ndarray], generator: Origin, about: Mapping[str, Any]
) -> bytes:
    """Content of a file of differences that are as it has them."""
    record = {
        "kind": _KIND,
        "generator": generator._asdict(),
        "about": dict(about),
    }
    metadata = {direction_files.KEY: documents.dump(record, sort_keys=True)}
    return safetensors.numpy.save(dict(tensors), metadata)


def check(path: files.Path, *, shapes: param_trees.Shapes, generator: Origin) -> None:
    """Checks a file by its head, without reading its numbers.

    Args:
      path: file to check.
      shapes: shape of every parameter of the generator.
      generator: the generator.

    Raises:
      UserError: no such file, a broken one, or one of another generator.
    """
    file = pathlib.Path(path)
    most = 2 * sum(int(np.prod(shape)) for shape in shapes.values()) + _MAX_HEADER
    if file.is_file() and file.stat().st_size > most:
        raise UserError(
            f"{path}: expected at most {most:,} bytes, the changes of this generator, "
            f"found {file.stat().st_size:,}"
        )
    head = tensor_files.read_head(path)
    record = direction_files.record_of(path, head.metadata, _KIND)
    direction_files.expect_origin(
        path, "generator", record.get("generator"), generator, again="tune it again"
    )
    for key, (shape, dtype) in head.specs.items():
        if shape != shapes.get(key) or dtype != ml_dtypes.bfloat16:
            expected = f"{list(shapes[key])} in bfloat16" if key in shapes else "none"
            raise UserError(
                f"{path}: {key}: expected {expected}, found {list(shape)} in {dtype}"
            )


def read(
    path: files.Path, *, shapes: param_trees.Shapes, generator: Origin
) -> dict[str, np.ndarray]:
    """Reads the changes of a generator, in bfloat16 by flat name.

    Arguments are those of `check`.

    Raises:
      UserError: as of `check`, or a number is not finite.
    """
    check(path, shapes=shapes, generator=generator)
    tensors = tensor_files.read(path).tensors
    _require_finite(path, tensors)
    return tensors


def hash_file(path: files.Path) -> str:
    """SHA-256 of a file that was checked, hexadecimal.

    Raises:
      UserError: the file cannot be read, or a number is not finite.
    """
    found = files.hash_file(path)
    _require_finite(path, tensor_files.read(path).tensors)
    return found


def _stored(changes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Differences as files have them: in bfloat16, without those of zeros."""
    return {
        key: np.asarray(x, ml_dtypes.bfloat16, order="C")
        for key, x in changes.items()
        if np.any(x)
    }


def _require_finite(path: files.Path, tensors: Mapping[str, np.ndarray]) -> None:
    for key, x in tensors.items():
        checkpoints.require_finite(path, key, x.astype(np.float32))
