"""Channel relevance of StyleCLIP's global directions: `fs3.npy` and `S_mean_std`.

`fs3.npy` holds a unit vector per channel, `S_mean_std`, a pickle beside it, mean and
deviation of every channel as a list of one array per layer. The lengths of these tell
the layout of S.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, files, torch_files
from styleclip_jax.io.torch_files import TorchFile

from .rules import Conversion

KIND = "global_directions"
# Name of the result in its folder.
FILE = "relevance.safetensors"

_STATISTICS = "S_mean_std"
# The official torch script measures layers up to this resolution, the TensorFlow
# scripts all of them.
_TORCH_RESOLUTION = 128
_GENERATOR = direction_files.Origin("unknown", None)
_CLIP = direction_files.Origin("openai/clip-vit-base-patch32", None)


@dataclasses.dataclass(frozen=True)
class RelevanceInfo:
    """Shapes of relevance.

    Attributes:
      resolution: of the generator.
      channels: feature channels of the generator at 4², 8², …
      layers: number of layers with relevance.
      embed_dim: length of a CLIP feature.
    """

    resolution: int
    channels: tuple[int, ...]
    layers: int
    embed_dim: int

    @property
    def layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S."""
        return spaces.style_layout(self.channels)


def recognize(file: TorchFile) -> bool:
    """Whether the file is an array of vectors with statistics of S beside it."""
    return (
        file.format == "npy"
        and isinstance(file.content, np.ndarray)
        and file.content.ndim == 2
        and _statistics_path(file).is_file()
    )


def convert(file: TorchFile) -> Conversion:
    """Relevance with the statistics of S.

    Raises:
      UserError: a file is missing or holds something else, or the rows are not those
        of the generator that the statistics are of.
    """
    array = file.content
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        raise UserError(
            f"{file.path}: expected relevance as an array [channels, features], found "
            f"{torch_files.summarize(array)}"
        )
    path = _statistics_path(file)
    if not path.is_file():
        raise UserError(f"{file.path}: expected {_STATISTICS} beside it, found none")
    mean, std = _statistics(torch_files.read(path))
    channels = channels_of([len(x) for x in std], path)
    layout = spaces.style_layout(channels)
    measured = _measured(len(array), layout, file)
    relevance = np.array(array, np.float32)
    dead = ~np.isfinite(relevance).all(axis=1)
    relevance[dead] = 0
    notes = ["which generator it is of is not known; any with these layers takes it"]
    if dead.any():
        notes.append(f"{dead.sum()} channels without effect (not a number) set to 0")
    info = RelevanceInfo(
        2 << len(channels), channels, len(measured), relevance.shape[1]
    )
    tensors = {
        "relevance": relevance,
        "mean": np.concatenate(mean),
        "std": np.concatenate(std),
    }
    return Conversion(KIND, info, tensors, notes)


def write(conversion: Conversion, file: TorchFile, directory: pathlib.Path) -> None:
    """Writes the folder, whole or not at all."""
    info, tensors = conversion.config, conversion.tensors
    content = direction_files.RelevanceFile(
        tensors["relevance"],
        tensors["mean"],
        tensors["std"],
        _usable(info.layout)[: info.layers],
        {"file": pathlib.Path(file.path).name, "notes": conversion.notes},
    )
    with files.new_directory(directory) as temporary:
        direction_files.write_relevance(
            temporary / FILE,
            content,
            layout=info.layout,
            generator=_GENERATOR,
            clip=_CLIP,
        )


def read(
    conversion: Conversion, directory: pathlib.Path
) -> tuple[dict[str, Any], RelevanceInfo]:
    """Tensors and shapes that `write` wrote."""
    info = conversion.config
    found = direction_files.read_relevance(
        directory / FILE,
        layout=info.layout,
        generator=_GENERATOR,
        clip=_CLIP,
        embed_dim=info.embed_dim,
    )
    tensors = {"relevance": found.rows, "mean": found.mean, "std": found.std}
    return tensors, dataclasses.replace(info, layers=len(found.layers))


def _statistics_path(file: TorchFile) -> pathlib.Path:
    return pathlib.Path(file.path).with_name(_STATISTICS)


def _statistics(file: TorchFile) -> list[list[np.ndarray]]:
    """Means and deviations of each layer, flat float32."""
    content = file.content
    fits = isinstance(content, list | tuple) and len(content) == 2
    if not fits or not all(
        isinstance(part, list | tuple)
        and len(part) == len(content[0]) > 0
        and all(isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in part)
        for part in content
    ):
        raise UserError(
            f"{file.path}: expected lists of means and deviations per layer, found "
            f"{torch_files.summarize(content)}"
        )
    flat = [[np.array(x, np.float32).ravel() for x in part] for part in content]
    for mean, std in zip(*flat, strict=True):
        if len(mean) != len(std) or not np.isfinite([mean, std]).all():
            raise UserError(
                f"{file.path}: expected finite means and deviations of equal length"
            )
    return flat


def channels_of(lengths: list[int], path: pathlib.Path) -> tuple[int, ...]:
    """Feature channels of the generator with style vectors of these lengths."""
    channels = spaces.channels_of(lengths)
    if channels is None:
        raise UserError(
            f"{path}: expected style vectors of StyleGAN2 (conv, toRGB, then conv, "
            f"conv, toRGB per resolution), found lengths {lengths}"
        )
    return channels


def _usable(layout: tuple[spaces.StyleLayer, ...]) -> tuple[int, ...]:
    """Layers that have relevance: all but toRGB."""
    return tuple(i for i, layer in enumerate(layout) if not layer.is_torgb)


def _measured(
    num_rows: int, layout: tuple[spaces.StyleLayer, ...], file: TorchFile
) -> tuple[int, ...]:
    """Layers that have so many rows: all, or those that the torch script takes."""
    every = _usable(layout)
    first = tuple(i for i in every if layout[i].resolution <= _TORCH_RESOLUTION)
    counts = {sum(layout[i].channels for i in part): part for part in (first, every)}
    if num_rows not in counts:
        expected = " or ".join(str(count) for count in counts)
        raise UserError(
            f"{file.path}: expected {expected} rows for the generator that "
            f"{_STATISTICS} is of, found {num_rows}"
        )
    return counts[num_rows]
