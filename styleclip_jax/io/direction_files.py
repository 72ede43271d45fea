"""Files of channel relevance and of directions: one `.safetensors` file each.

The metadata hold one JSON document: which generator and which CLIP the numbers belong
to, the layout of S, and how they were measured. A file is refused with another
generator or another CLIP.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from styleclip_jax import documents, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, tensor_files

# A single entry, since safetensors writes several in random order.
KEY = "styleclip_jax"
_RELEVANCE, _DIRECTION = "channel_relevance", "direction"


class Origin(NamedTuple):
    """Origin of numbers: the network that they belong to.

    Attributes:
      name: its name, for people.
      sha256: hash of its weights; None where it is not known, and then not compared.
    """

    name: str
    sha256: str | None

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12] if self.sha256 else 'unknown'})"


class RelevanceFile(NamedTuple):
    """Channel relevance as files hold it.

    Attributes:
      rows: [C, E] for the channels of `layers`, in order.
      mean: [S] flat.
      std: [S] flat.
      layers: indices of the layers that were measured.
      about: notes on the measurement: settings, convergence.
    """

    rows: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    layers: tuple[int, ...]
    about: dict[str, Any]


def write_relevance(
    path: files.Path,
    content: RelevanceFile,
    *,
    layout: Sequence[spaces.StyleLayer],
    generator: Origin,
    clip: Origin,
) -> None:
    """Writes channel relevance; equal content gives equal bytes.

    Raises:
      UserError: the file cannot be written.
    """
    tensors = {"relevance": content.rows, "mean": content.mean, "std": content.std}
    record = {
        "kind": _RELEVANCE,
        "generator": generator._asdict(),
        "clip": clip._asdict(),
        "layers": [layout[i].name for i in content.layers],
        "about": content.about,
    }
    _write(path, tensors, record, layout)


def read_relevance(
    path: files.Path,
    *,
    layout: Sequence[spaces.StyleLayer],
    generator: Origin,
    clip: Origin,
    embed_dim: int,
) -> RelevanceFile:
    """Reads channel relevance for a generator and a CLIP with features [embed_dim].

    Raises:
      UserError: no such file, a broken one, or one of another generator or CLIP.
    """
    tensors, record = _read(path, _RELEVANCE, layout, generator)
    expect_origin(path, "CLIP", record.get("clip"), clip)
    names = [layer.name for layer in layout]
    found = record.get("layers")
    if not isinstance(found, list) or not found or not set(found) <= set(names):
        raise UserError(f"{path}: expected names of layers, found {found!r}")
    layers = tuple(sorted(names.index(name) for name in found))
    total = sum(layer.channels for layer in layout)
    rows = sum(layout[i].channels for i in layers)
    relevance = _tensor(path, tensors, "relevance", (rows, embed_dim))
    mean, std = (_tensor(path, tensors, name, (total,)) for name in ("mean", "std"))
    return RelevanceFile(relevance, mean, std, layers, record.get("about", {}))


def write_direction(
    path: files.Path,
    delta: np.ndarray,
    *,
    layout: Sequence[spaces.StyleLayer],
    generator: Origin,
    about: Mapping[str, Any],
) -> None:
    """Writes one direction [S] with a note of what it is (texts, β, …).

    Raises:
      UserError: the file cannot be written.
    """
    record = {
        "kind": _DIRECTION,
        "generator": generator._asdict(),
        "about": dict(about),
    }
    _write(path, {"delta": delta}, record, layout)


def read_direction(
    path: files.Path, *, layout: Sequence[spaces.StyleLayer], generator: Origin
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads one direction [S] for a generator, and the note beside it.

    Raises:
      UserError: no such file, a broken one, or one of another generator.
    """
    tensors, record = _read(path, _DIRECTION, layout, generator)
    total = sum(layer.channels for layer in layout)
    return _tensor(path, tensors, "delta", (total,)), record.get("about", {})


def is_ours(path: files.Path) -> bool:
    """Whether a file is one of relevance or of a direction, whatever its generator.

    Raises:
      UserError: there is no such file, or it is a broken `.safetensors` file.
    """
    name = pathlib.Path(path)
    return name.suffix == ".safetensors" and KEY in tensor_files.read(path).metadata


def _write(
    path: files.Path,
    tensors: Mapping[str, np.ndarray],
    record: Mapping[str, Any],
    layout: Sequence[spaces.StyleLayer],
) -> None:
    channels = {layer.name: layer.channels for layer in layout}
    document = documents.dump({**record, "layout": channels}, sort_keys=True)
    arrays = {name: np.array(x, np.float32, order="C") for name, x in tensors.items()}
    for name, array in arrays.items():
        checkpoints.require_finite(path, name, array)
    # Its function for files leaves some under names of its own when it is killed.
    files.write_bytes(path, safetensors.numpy.save(arrays, {KEY: document}))


def record_of(
    path: files.Path, metadata: Mapping[str, str], kind: str
) -> dict[str, Any]:
    """Record of a file of ours, which its metadata hold.

    Raises:
      UserError: it is broken, or of another kind.
    """
    record = documents.parse(metadata.get(KEY, "null"), str(path))
    found = record.get("kind") if isinstance(record, dict) else None
    if found != kind:
        raise UserError(f"{path}: expected a file of {kind}, found {found!r}")
    return record


def _read(
    path: files.Path,
    kind: str,
    layout: Sequence[spaces.StyleLayer],
    generator: Origin,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    tensors, metadata = tensor_files.read(path)
    record = record_of(path, metadata, kind)
    # The hash first: it names the generator that the file is for.
    expect_origin(path, "generator", record.get("generator"), generator)
    channels = {layer.name: layer.channels for layer in layout}
    stored = record.get("layout")
    if stored != channels:
        size = sum(stored.values()) if isinstance(stored, dict) else 0
        raise UserError(
            f"{path}: expected style vectors of {len(channels)} layers and "
            f"{sum(channels.values())} channels for this generator, found "
            f"{len(stored or ())} layers and {size} channels"
        )
    return tensors, record


def expect_origin(
    path: files.Path,
    what: str,
    stored: Any,
    used: Origin,
    *,
    again: str = "measure it again",
) -> None:
    """Refuses a file that is not of a network.

    Args:
      path: the file.
      what: kind of the network, for people.
      stored: its origin as the file has it.
      used: origin of the network in use.
      again: how to make the file anew.

    Raises:
      UserError: the file does not say whose it is, or is of another network.
    """
    try:
        made_for = Origin(**stored)
    except TypeError:
        raise UserError(f"{path}: does not say which {what} it is for") from None
    if None not in (made_for.sha256, used.sha256) and made_for.sha256 != used.sha256:
        raise UserError(
            f"{path}: is for the {what} {made_for}, found {used}; {again} for "
            f"this {what}"
        )


def _tensor(
    path: files.Path,
    tensors: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int, ...],
) -> np.ndarray:
    found = tensors.get(name)
    if found is None or found.shape != shape:
        raise UserError(
            f"{path}: expected {name} of shape {list(shape)}, found "
            f"{'nothing' if found is None else list(found.shape)}"
        )
    checkpoints.require_finite(path, name, found)
    return found.astype(np.float32)
