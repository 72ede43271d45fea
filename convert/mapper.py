"""Latent mappers from the official checkpoints, `best_model.pt` and the like.

Those embed the whole generator under `decoder.`; it becomes a model directory of its
own.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.methods import mapper

from . import rules, stylegan2, wrappers
from .rules import Conversion, Rule
from .wrappers import Layout, Part

KIND = mapper.KIND
# Folder of the decoder in that of the mapper.
DECODER = "generator"

# Names of our networks in W+; the official name of coarse is misspelt.
_NETWORKS = {
    "course_mapping": "coarse",
    "medium_mapping": "medium",
    "fine_mapping": "fine",
    "mapping": mapper.SINGLE,
}
# Before all names but in the state dict of a mapper alone.
_PREFIX = r"(?:mapper\.)?"
LAYOUTS = (
    Layout(
        "StyleCLIP's",
        (rf"{_PREFIX}(?:{'|'.join(_NETWORKS)}|mapper_\d+)\.mapping\.\d+\.weight",),
    ),
)


def _style_name(index: int) -> str:
    """Name of our network of a style vector: two convolutions, then a toRGB."""
    if index < 2:
        return ("b4_conv1", "b4_torgb")[index]
    resolution, layer = divmod(index - 2, 3)
    return f"b{8 << resolution}_{('conv0', 'conv1', 'torgb')[layer]}"


def _at(name_of: Callable[[str], str], leaf: str) -> Callable[[re.Match[str]], str]:
    """Target in the network that the first group names; its layer 0 normalises."""
    return lambda m: f"{name_of(m[1])}/fc{int(m[2]) - 1}/{leaf}"


_TABLE = [
    Rule(rf"{_PREFIX}{name}\.mapping\.([1-9])\.{leaf}", _at(name_of, target), transform)
    for name, name_of in (
        (f"({'|'.join(_NETWORKS)})", _NETWORKS.__getitem__),
        (r"mapper_(\d{1,2})", lambda index: _style_name(int(index))),
    )
    for leaf, target, transform in (
        ("weight", "kernel", rules.transpose),
        ("bias", "bias", rules.identity),
    )
]


def recognize(file: TorchFile) -> Part | None:
    """The mapper in a file."""
    return wrappers.find(file, LAYOUTS)


def convert(file: TorchFile) -> Conversion:
    """The mapper, and the decoder as a part if there is one.

    Raises:
      UserError: no mapper, another architecture, or missing or surplus tensors.
    """
    part = wrappers.require(file, LAYOUTS, "a latent mapper")
    state, options = part.tensors, part.options
    decoder = torch_files.pop_part(state, "decoder.")
    renamed = rules.rename_tensors(_TABLE, state, file=file.path)
    config = _infer_config(renamed.tensors, options, file.path)
    checked = rules.check_tensors(renamed, mapper.param_shapes(config), file=file.path)
    conversion = Conversion(KIND, config, checked, part.notes)
    if prompt := options.get("description"):
        conversion.notes.append(f"the prompt was: {prompt}")
    if decoder:
        conversion.parts[DECODER] = _convert_decoder(decoder, part, config, file)
    return conversion


def _infer_config(
    found: Mapping[str, np.ndarray], options: Mapping[str, Any], file: str
) -> mapper.MapperConfig:
    """Reads the architecture off names and shapes; options say which levels to expect.

    Several tensors tell each number, so that a missing one is reported as such later.
    """
    widths = {name.split("/")[0]: x.shape[-1] for name, x in found.items() if x.ndim}
    layers = [int(m[1]) for name in found if (m := re.search(r"/fc(\d+)/", name))]
    if not widths:
        raise UserError(f"{file}: expected weights and biases, found scalars alone")
    num_layers = max(layers) + 1
    levels: Iterable[str] = widths.keys() & {*mapper.LEVELS, mapper.SINGLE}
    try:
        if not levels:
            channels = _infer_channels(widths, file)
            torgb = any(name.endswith("_torgb") for name in widths)
            return mapper.MapperConfig(
                "s", torgb=torgb, channels=channels, num_layers=num_layers
            )
        # Other trainings keep other flags.
        told = any(f"no_{name}_mapper" in options for name in mapper.LEVELS)
        if told and mapper.SINGLE not in levels:
            levels = [n for n in mapper.LEVELS if not options.get(f"no_{n}_mapper")]
        ordered = [n for n in (*mapper.LEVELS, mapper.SINGLE) if n in levels]
        return mapper.MapperConfig(
            levels=tuple(ordered),
            w_dim=max(widths.values()),
            num_layers=num_layers,
        )
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


def _infer_channels(widths: Mapping[str, int], file: str) -> tuple[int, ...]:
    """Channels of the generator at 4², 8², …, of whose styles these are the widths."""
    matches = (re.match(r"b(\d+)_", name) for name in widths)
    resolution = max(int(m[1]) for m in matches if m)
    channels = []
    for index in range(resolution.bit_length() - 2):
        size = 4 << index
        # The first convolution of the next resolution has the same input.
        names = (f"b{size}_conv1", f"b{2 * size}_conv0")
        width = next((widths[name] for name in names if name in widths), None)
        if width is None:
            raise UserError(
                f"{file}: expected networks for the style vectors of every resolution "
                f"up to {resolution}², found none of {size}²"
            )
        channels.append(width)
    return tuple(channels)


def _convert_decoder(
    decoder: dict[str, Any], part: Part, config: mapper.MapperConfig, file: TorchFile
) -> Conversion:
    """The generator in the file, which must be one for the mapper."""
    average = part.value(wrappers.AVERAGE)
    if isinstance(average, np.ndarray) and average.ndim:
        # The average is one w for all rows, or a row each.
        rows = average.reshape(-1, average.shape[-1])
        if (rows == rows[0]).all():
            decoder[wrappers.AVERAGE] = rows[0]
    generator = stylegan2.convert(TorchFile(file.path, file.format, decoder))
    try:
        mapper.check_generator(config, generator.config)
    except ValueError as error:
        raise UserError(f"{file.path}: its decoder: {error}") from error
    return generator
