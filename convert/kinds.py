"""Kinds of files: how each is recognized, converted, written and read back."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax import errors
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, clip_files, files, torch_files
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import param_trees, runtime

from . import (
    alexnet,
    clip,
    clip_architecture,
    discriminator,
    e4e,
    folders,
    global_directions,
    inception,
    inspection,
    irse50,
    latents,
    mapper,
    rules,
    stylegan2,
    stylegan3,
    vgg16,
    wrappers,
)
from .rules import Conversion
from .settings import (
    AlexNetSettings,
    EncoderSettings,
    GeneratorSettings,
    Vgg16Settings,
)
from .wrappers import Part


class Kind(NamedTuple):
    """Kind of file: how it is recognized, converted, written and read back.

    Attributes:
      recognize: the part of a file that is of this kind, or whether all of it is.
      convert: tensors and configuration by its table.
      write: makes a model directory of a conversion, whole or not at all.
      read: flat tensors and the configuration of that directory.
      lacks: what a file that is not of this kind lacks, for people.
      settings: what a user may say of such a file, given to `convert`.
    """

    recognize: Callable[[TorchFile], Any]
    convert: Callable[..., Any]
    write: Callable[[Any, TorchFile, pathlib.Path], None]
    read: Callable[[Any, pathlib.Path], tuple[Mapping[str, Any], Any]]
    lacks: Callable[[TorchFile], list[str]]
    settings: type | None = None


def _write_network(
    conversion: Conversion, file: TorchFile, directory: pathlib.Path
) -> None:
    """Writes a directory of `checkpoints`, as most kinds are kept."""
    source = {
        "file": pathlib.Path(file.path).name,
        "format": file.format,
        "notes": conversion.notes,
    }
    checkpoints.save_network(
        directory,
        kind=conversion.kind,
        params=conversion.tensors,
        config=conversion.config,
        source=source,
    )


def _read_network(
    conversion: Conversion, directory: pathlib.Path
) -> tuple[Mapping[str, Any], Any]:
    shapes = {name: tensor.shape for name, tensor in conversion.tensors.items()}
    network = checkpoints.load_network(
        directory,
        kind=conversion.kind,
        config_type=type(conversion.config),
        param_shapes=lambda _: shapes,
    )
    return param_trees.flatten(network.params), network.config


def _write_clip(
    conversion: clip.ClipConversion, _: TorchFile, directory: pathlib.Path
) -> None:
    clip.write(conversion, directory)


def _read_clip(
    _: clip.ClipConversion, directory: pathlib.Path
) -> tuple[Mapping[str, Any], Any]:
    network = clip_files.load(directory)
    return param_trees.flatten(network.params), network.config


def _network(module: Any, settings: type | None = None) -> Kind:
    """Kind of the networks of a table module that directories of ours hold."""
    return Kind(
        module.recognize,
        module.convert,
        _write_network,
        _read_network,
        functools.partial(wrappers.lacks, layouts=module.LAYOUTS),
        settings,
    )


KINDS = {
    "stylegan2": _network(stylegan2, GeneratorSettings)._replace(
        convert=discriminator.convert_both
    ),
    "stylegan3": _network(stylegan3)._replace(
        convert=functools.partial(
            discriminator.convert_both, generator=stylegan3.convert
        )
    ),
    "clip": Kind(
        clip.recognize,
        clip.convert,
        _write_clip,
        _read_clip,
        functools.partial(wrappers.lacks, layouts=clip.LAYOUTS),
        clip_architecture.Settings,
    ),
    "irse50": _network(irse50),
    "e4e": _network(e4e, EncoderSettings),
    "mapper": _network(mapper),
    "vgg16": _network(vgg16, Vgg16Settings),
    "alexnet": _network(alexnet, AlexNetSettings),
    "inception": _network(inception),
    "global_directions": Kind(
        global_directions.recognize,
        global_directions.convert,
        global_directions.write,
        global_directions.read,
        lambda _: ["a .npy of two axes, with S_mean_std beside it"],
    ),
    "latents": Kind(
        latents.recognize,
        latents.convert,
        latents.write,
        latents.read,
        lambda _: ["latents alone, in a list, or by the names of photos"],
    ),
}
# Kinds that are parts of files of others alone.
_PARTS = {discriminator.KIND: _network(discriminator)}
_NOUNS = {
    "stylegan2": "a generator",
    "clip": "a CLIP",
    "e4e": "an encoder",
    "vgg16": "a VGG16",
    "alexnet": "an AlexNet",
}


def convert(
    path: pathlib.Path, kind: str | None, part: str, given: Mapping[str, Any]
) -> tuple[TorchFile, Conversion]:
    """Content of a file and its conversion, which is told."""
    file = dataclasses.replace(folders.read(path), part=part)
    kind = kind or _detect(file)
    for name, settings in given.items():
        if name != kind and (fields := _given(settings)):
            raise UserError(
                f"{fields[0]}: expected with {_NOUNS[name]}, {path} is {kind}",
                field=fields[0],
            )
    arguments = (given[kind],) if kind in given else ()
    conversion: Conversion = KINDS[kind].convert(file, *arguments)
    tell(f"{path}: {file.format} file, {kind}")
    _describe(conversion, "  ")
    return file, conversion


def _given(settings: Any) -> list[str]:
    """Names of the settings that are given."""
    values = dataclasses.asdict(settings)
    return [name for name, value in values.items() if value is not None]


def _describe(conversion: Conversion, indent: str) -> None:
    """Prints the inferred configuration, and those of further networks of the file."""
    for name, value in runtime.stored(conversion.config).items():
        parts = value if isinstance(value, dict) else {name: value}
        for part, text in parts.items():
            tell(f"{indent}{part}: {text}")
    for note in conversion.notes:
        tell(f"{indent}note: {note}")
    for name, network in conversion.parts.items():
        tell(f"{indent}{name}: {network.kind}")
        _describe(network, f"{indent}  ")


def _detect(file: TorchFile) -> str:
    """Kind of a file: of all that fit, what has the fewest levels around it.

    A decoder lies deeper than the encoder or mapper that it belongs to, and is not
    taken for the whole where that is of no kind.

    Raises:
      UserError: none fits, or several that lie side by side.
    """
    depths, decoder = {}, None
    for name, kind in KINDS.items():
        found = kind.recognize(file)
        path = found.path.split(".") if isinstance(found, Part) else [""]
        if "decoder" in path and not file.part:
            decoder = name
        elif found:
            depths[name] = len(path)
    least = min(depths.values(), default=0)
    fitting = [name for name, depth in depths.items() if depth == least]
    if len(fitting) > 1:
        raise UserError(
            f"{file.path}: expected one network, found {' and '.join(fitting)}; give "
            "one as --kind",
            field="kind",
        )
    if fitting:
        return fitting[0]
    what = wrappers.explain(file)
    if what == "none":
        what = f"a {file.format} file that holds {torch_files.summarize(file.content)}"
        names = list(torch_files.tensors(file.content))
        if names and isinstance(file.content, dict | Object):
            what += f"; its tensors are {rules.list_names(names)}"
    if decoder:
        what += f"; --kind={decoder} converts its decoder alone"
    raise UserError(f"{file.path}: expected one of {', '.join(KINDS)}, found {what}")


def inspect(path: pathlib.Path, given: Mapping[str, Any]) -> None:
    """Prints what a file holds, what it is taken for, or what every kind lacks."""
    file = folders.read(path)
    for line in inspection.describe(file, path):
        tell(line)
    try:
        kind = _detect(file)
    except UserError as error:
        tell(f"  no kind: {str(error).removeprefix(f'{path}: ')}")
        for name, known in KINDS.items():
            tell(f"  {name} lacks: {'; or '.join(known.lacks(file))}")
        return
    tell(f"  recognized as: {kind}")
    arguments = (given[kind],) if kind in given else ()
    try:
        _describe(KINDS[kind].convert(file, *arguments), "    ")
    except UserError as error:
        tell(f"    not to be converted: {str(error).removeprefix(f'{path}: ')}")


def tell(line: str) -> None:
    """Prints a line, in which names of a file cannot move a terminal's cursor."""
    print(errors.printable(line))


def write(file: TorchFile, conversion: Conversion, directory: pathlib.Path) -> None:
    """Writes a model directory with its parts, whole or not at all, and says so."""
    with files.new_directory(directory) as temporary:
        whole = temporary / "whole"
        try:
            sizes = _fill(file, conversion, whole)
        except UserError as error:
            # People know the folder by the name that it is to have.
            raise UserError(str(error).replace(str(whole), str(directory))) from error
        for path in list(whole.iterdir()):
            path.rename(temporary / path.name)
        whole.rmdir()
    for name, size in sizes.items():
        path = directory / name
        print(f"{path}: {size:,} numbers written, read back and compared")


def _fill(
    file: TorchFile, conversion: Conversion, directory: pathlib.Path
) -> dict[str, int]:
    """Writes a conversion and its parts, and compares them as they are read back.

    Returns:
      Count of the numbers of each, by the path of its folder inside `directory`.
    """
    kind = (KINDS | _PARTS)[conversion.kind]
    kind.write(conversion, file, directory)
    _verify(conversion, *kind.read(conversion, directory), directory)
    sizes = {"": sum(tensor.size for tensor in conversion.tensors.values())}
    for name, part in conversion.parts.items():
        inside = _fill(file, part, directory / name)
        sizes |= {f"{name}/{path}".rstrip("/"): size for path, size in inside.items()}
    return sizes


def _verify(
    conversion: Conversion,
    tensors: Mapping[str, Any],
    config: Any,
    directory: pathlib.Path,
) -> None:
    """Compares tensors that were read back with those of the conversion, bit for bit.

    Raises:
      UserError: they differ, or the configurations do.
    """
    different = [
        name
        for name in conversion.tensors.keys() | tensors.keys()
        if name not in tensors
        or name not in conversion.tensors
        or not np.array_equal(
            np.asarray(tensors[name]), conversion.tensors[name], equal_nan=True
        )
    ]
    if different or config != conversion.config:
        what = rules.list_names(sorted(different)) or "the configuration"
        raise UserError(
            f"{directory}: what was read back differs from what was written ({what})"
        )
