"""StyleGAN2 discriminators, which stand beside generators in NVIDIA's and rosinality's.

A generator's file is converted with its discriminator, a folder in that of the
generator, since trainings go on from both.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from styleclip_jax import loading
from styleclip_jax.errors import UserError
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import discriminator

from . import rules, stylegan2, wrappers
from .rules import Conversion, Rule
from .settings import GeneratorSettings
from .wrappers import Layout, Part

KIND = "discriminator"

LAYOUTS = (
    Layout("rosinality's", (r"convs\.0\.0\.weight", r"final_linear\.1\.weight")),
    Layout("NVIDIA's", (r"b\d+\.fromrgb\.weight", r"b4\.out\.weight")),
)

# Settings that every supported discriminator is built with, as for generators.
_NVIDIA_SETTINGS = (
    (r"b\d+", "architecture", "resnet"),
    (r"b\d+\.(fromrgb|conv[01]?|fc)", "activation", "lrelu"),
    (r"mapping\.fc\d+", "activation", "lrelu"),
    (r"mapping\.fc\d+", "bias_gain", 0.01),
)
_NVIDIA_CLAMPED = r"b\d+\.(fromrgb|conv[01]?)"


def _rows_of_map(x: np.ndarray) -> np.ndarray:
    """Dense weights [out, C·4·4] → [4·4·C, out]."""
    kernel = rules.transpose(x)
    return rules.chw_rows_to_hwc(kernel, len(kernel) // 16)


NVIDIA = (
    Rule(r"mapping\.(embed|fc\d+)\.weight", r"mapping/\1/kernel", rules.transpose),
    Rule(r"mapping\.(embed|fc\d+)\.bias", r"mapping/\1/bias"),
    Rule(
        r"(b\d+)\.(fromrgb|conv[01]?|skip)\.weight",
        r"\1/\2/kernel",
        rules.oihw_to_hwio,
    ),
    Rule(r"b4\.fc\.weight", "b4/fc/kernel", _rows_of_map),
    Rule(r"b4\.out\.weight", "b4/out/kernel", rules.transpose),
    Rule(r"(b\d+)\.(fromrgb|conv[01]?|fc|out)\.bias", r"\1/\2/bias"),
    # Checked by check_fir.
    Rule(r"b\d+\.((fromrgb|conv[01]?|skip)\.)?resample_filter", None),
)


def rosinality(resolution: int) -> tuple[Rule, ...]:
    """Rules for a resolution, from which blocks are counted downwards."""

    def block(leaf: str) -> Callable[[re.Match[str]], str]:
        return lambda match: f"b{resolution * 2 >> int(match[1])}/{leaf}"

    def kernel(name: str, leaf: str) -> Rule:
        target = block(f"{leaf}/kernel")
        return Rule(rf"convs\.(\d{{1,2}})\.{name}\.weight", target, rules.oihw_to_hwio)

    def bias(name: str, leaf: str) -> Rule:
        return Rule(rf"convs\.(\d{{1,2}})\.{name}\.bias", block(f"{leaf}/bias"))

    top = f"b{resolution}/fromrgb"
    return (
        Rule(r"convs\.0\.0\.weight", f"{top}/kernel", rules.oihw_to_hwio),
        Rule(r"convs\.0\.1\.bias", f"{top}/bias"),
        *(kernel(r"conv1\.0", "conv0"), bias(r"conv1\.1", "conv0")),
        # The FIR is the first of these.
        *(kernel(r"conv2\.1", "conv1"), bias(r"conv2\.2", "conv1")),
        kernel(r"skip\.1", "skip"),
        Rule(r"final_conv\.0\.weight", "b4/conv/kernel", rules.oihw_to_hwio),
        Rule(r"final_conv\.1\.bias", "b4/conv/bias"),
        Rule(r"final_linear\.0\.weight", "b4/fc/kernel", _rows_of_map),
        Rule(r"final_linear\.0\.bias", "b4/fc/bias"),
        Rule(r"final_linear\.1\.weight", "b4/out/kernel", rules.transpose),
        Rule(r"final_linear\.1\.bias", "b4/out/bias"),
        # Checked by check_fir.
        Rule(r"convs\.\d+\.(conv2|skip)\.0\.kernel", None),
    )


def convert_both(
    file: TorchFile,
    *settings: GeneratorSettings,
    generator: Callable[..., Conversion] = stylegan2.convert,
) -> Conversion:
    """The generator of a file, with the discriminator beside it as a part.

    One that does not fit is left out, with a note that says why: edits need none.

    Args:
      file: file of a generator.
      *settings: what the user says of the generator, if anything.
      generator: conversion of the generator.

    Raises:
      UserError: as for that conversion.
    """
    level = _level(file)
    if level is None:
        return generator(file, *settings)
    rest = {name: value for name, value in file.content.items() if name != level}
    conversion = generator(dataclasses.replace(file, content=rest), *settings)
    try:
        conversion.parts[loading.DISCRIMINATOR] = convert(file)
    except UserError as error:
        reason = str(error).removeprefix(f"{file.path}: ")
        conversion.notes.append(f"the discriminator is left out: {reason}")
    return conversion


def _level(file: TorchFile) -> str | None:
    """Name of the level of a file that is its only discriminator."""
    if file.part or not isinstance(file.content, dict):
        return None
    found = wrappers.find_all(file, LAYOUTS)
    level = found[0].path.rstrip(".") if len(found) == 1 else None
    return level if level in file.content else None


def recognize(file: TorchFile) -> Part | None:
    """The discriminator in a file."""
    return wrappers.find(file, LAYOUTS)


def convert(file: TorchFile) -> Conversion:
    """The discriminator of a file, and the architecture that its shapes tell.

    Args:
      file: file of rosinality's code or NVIDIA's, however wrapped.

    Raises:
      UserError: no discriminator, another architecture, or missing or surplus tensors.
    """
    part = wrappers.require(file, LAYOUTS, "a StyleGAN2 discriminator")
    source = part.tensors
    stylegan2.check_fir(source, gain=1, file=file.path)
    if part.layout.owner == "NVIDIA's":
        table: tuple[Rule, ...] = NVIDIA
    else:
        blocks = [
            int(m[1]) for name in source if (m := re.match(r"convs\.(\d+)", name))
        ]
        table = rosinality(4 << min(max(blocks), 16))
    renamed = rules.rename_tensors(table, source, file=file.path)
    config, notes = _infer_config(renamed.tensors, part, file.path)
    shapes = discriminator.param_shapes(config)
    checked = rules.check_tensors(renamed, shapes, file=file.path)
    return Conversion(KIND, config, checked, notes)


def _infer_config(
    found: Mapping[str, np.ndarray], part: Part, file: str
) -> tuple[discriminator.DiscriminatorConfig, list[str]]:
    """Architecture by shapes of renamed tensors and settings of modules, and notes."""
    blocks = {int(m[1]) for name in found if (m := re.match(r"b(\d+)/", name))}
    resolution, channels = max(blocks), []
    for index in range(max(0, resolution.bit_length() - 2)):
        block = f"b{4 << index}"
        layer = f"{block}/conv0" if index else f"{block}/conv"
        count = rules.length(found, 0, f"{layer}/bias")
        count = rules.length(found, 3, f"{layer}/kernel") if count is None else count
        if count is None:
            raise UserError(
                f"{file}: expected tensors of every resolution up to {resolution}², "
                f"found none of {4 << index}²"
            )
        channels.append(count)
    joined = rules.length(found, 2, "b4/conv/kernel")
    pixels, rest = divmod(rules.length(found, 0, "b4/fc/kernel") or 0, channels[0])
    if pixels and pixels != 16 and not rest:
        raise UserError(
            f"{file}: expected a discriminator of square images, found one that ends "
            f"in {pixels} pixels in place of 4×4 (generators may have another shape)"
        )
    maps = {m[1] for name in found if (m := re.match(r"mapping/fc(\d+)/", name))}
    group: int | None = 4
    clamp, notes = None, []
    if isinstance(part.node, Object):
        clamp = stylegan2.clamp_of_modules(
            part.node, _NVIDIA_SETTINGS, _NVIDIA_CLAMPED, file
        )
        group = _group_size(part.node, file)
    elif part.layout.owner == "NVIDIA's":
        notes.append("groups of 4 and no conv_clamp, which a state dict does not tell")
    classes: dict[str, Any] = {}
    if maps:
        # One of many tensors, whose absence is reported later.
        classes = {
            "c_dim": rules.length(found, 0, "mapping/embed/kernel") or 1,
            "cmap_dim": rules.length(found, 0, "b4/out/bias", "mapping/fc0/bias"),
            "num_mapping_layers": len(maps),
        }
    try:
        config = discriminator.DiscriminatorConfig(
            resolution=resolution,
            channels=tuple(channels),
            **classes,
            conv_clamp=clamp,
            group_size=group,
            num_deviation_channels=0 if joined is None else joined - channels[0],
        )
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    return config, notes


def _group_size(network: Object, file: str) -> int | None:
    """Size of the groups whose deviation is taken, None for the whole batch."""
    layer = dict(wrappers.modules(network)).get("b4.mbstd")
    size = None if layer is None else layer.state.get("group_size")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise UserError(f"{file}: expected a positive group_size, found {size!r}")
    return size
