"""styleclip-convert: official weights and latents → files of ours.

  styleclip-convert stylegan2-ffhq-config-f.pt --output models/ffhq
  styleclip-convert ffhq.pkl ViT-B-32.pt --output models
  styleclip-convert train_faces.pt --output latents/train
  styleclip-convert epoch_32.pt --architecture=ViT-H-14 --output models/clip

Says what each file holds, converts it, reads the result back and compares. One file
becomes the folder --output itself, several become folders in it with their names. A
folder of transformers or OpenCLIP counts as a file. Nothing in a file is executed.
"""

import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from styleclip_jax.cli import program
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, clip_files
from styleclip_jax.models import param_trees, runtime

from . import (
    clip,
    clip_architecture,
    e4e,
    folders,
    global_directions,
    irse50,
    latents,
    mapper,
    rules,
    stylegan2,
    torch_files,
)
from .rules import Conversion
from .torch_files import TorchFile


class Kind(NamedTuple):
    """Kind of file: how it is recognized, converted, written and read back.

    Attributes:
      recognize: whether a file is of this kind.
      convert: tensors and configuration by its table.
      write: makes a model directory of a conversion, whole or not at all.
      read: flat tensors and the configuration of that directory.
    """

    recognize: Callable[[TorchFile], bool]
    convert: Callable[[TorchFile], Any]
    write: Callable[[Any, TorchFile, pathlib.Path], None]
    read: Callable[[Any, pathlib.Path], tuple[Mapping[str, Any], Any]]


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


KINDS = {
    "stylegan2": Kind(
        stylegan2.recognize, stylegan2.convert, _write_network, _read_network
    ),
    "clip": Kind(clip.recognize, clip.convert, _write_clip, _read_clip),
    "irse50": Kind(irse50.recognize, irse50.convert, _write_network, _read_network),
    "e4e": Kind(e4e.recognize, e4e.convert, _write_network, _read_network),
    "mapper": Kind(mapper.recognize, mapper.convert, _write_network, _read_network),
    "global_directions": Kind(
        global_directions.recognize,
        global_directions.convert,
        global_directions.write,
        global_directions.read,
    ),
    "latents": Kind(latents.recognize, latents.convert, latents.write, latents.read),
}


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    # Files may stand before, between and after the flags.
    values.set_gnu_getopt(True)
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    flags.DEFINE_enum(
        "kind",
        None,
        list(KINDS),
        "Kind of the files; told by their content if absent.",
        flag_values=values,
    )
    program.define(clip_architecture.Settings, values)
    return values


@program.end_if_unread()
def main(argv: Sequence[str]) -> int:
    """Runs the program.

    Args:
      argv: command line, the program's name first.

    Returns:
      The exit code: 0, or 2 after one line on stderr that says what is wrong.
    """
    values = _flags()
    if program.answer(argv, __doc__ or "", values):
        return 0
    try:
        paths = [pathlib.Path(path) for path in values(list(argv))[1:]]
        directories = _directories(paths, values["output"].value)
        settings = program.build(clip_architecture.Settings, values)
        jobs = [_convert(path, values["kind"].value, settings) for path in paths]
        for (file, conversion), directory in zip(jobs, directories, strict=True):
            _write(file, conversion, directory)
    except (UserError, flags.Error) as error:
        print(program.describe(error), file=sys.stderr)
        return program.EXIT_USER_ERROR
    return 0


def _directories(
    paths: Sequence[pathlib.Path], output: str | None
) -> list[pathlib.Path]:
    """The model directory of each file; none of them may hold anything yet."""
    if not paths:
        raise UserError("expected files to convert, found none; see --help")
    if not output:
        raise UserError("--output: expected the folder to write, found nothing")
    root = pathlib.Path(output)
    directories = [root] if len(paths) == 1 else [root / path.stem for path in paths]
    for path, directory in zip(paths, directories, strict=True):
        if directories.count(directory) > 1:
            raise UserError(
                f"{path}: expected files of different names, found {path.stem} twice; "
                "convert them one by one"
            )
        if directory.is_dir() and any(directory.iterdir()):
            raise UserError(
                f"{directory}: the folder already exists and is not empty; "
                "remove it or give another --output"
            )
        if directory.exists() and not directory.is_dir():
            raise UserError(f"{directory}: expected a folder to write, found a file")
    return directories


def _convert(
    path: pathlib.Path, kind: str | None, settings: clip_architecture.Settings
) -> tuple[TorchFile, Conversion]:
    file = folders.read(path)
    if kind is None:
        kind = _detect(file)
    if kind == "clip":
        conversion: Conversion = clip.convert(file, settings)
    elif given := settings.given():
        name = next(iter(given))
        raise UserError(f"{name}: expected with a CLIP, {path} is {kind}", field=name)
    else:
        conversion = KINDS[kind].convert(file)
    print(f"{path}: {file.format} file, {kind}")
    _describe(conversion, "  ")
    return file, conversion


def _describe(conversion: Conversion, indent: str) -> None:
    """Prints the inferred configuration, and those of further networks of the file."""
    for name, value in runtime.stored(conversion.config).items():
        parts = value if isinstance(value, dict) else {name: value}
        for part, text in parts.items():
            print(f"{indent}{part}: {text}")
    for note in conversion.notes:
        print(f"{indent}note: {note}")
    for name, network in conversion.parts.items():
        print(f"{indent}{name}: {network.kind}")
        _describe(network, f"{indent}  ")


def _detect(file: TorchFile) -> str:
    for name, kind in KINDS.items():
        if kind.recognize(file):
            return name
    raise UserError(
        f"{file.path}: expected one of {', '.join(KINDS)}, found a {file.format} file "
        f"that holds {torch_files.summarize(file.content)}"
    )


def _write(file: TorchFile, conversion: Conversion, directory: pathlib.Path) -> None:
    kind = KINDS[conversion.kind]
    kind.write(conversion, file, directory)
    try:
        _verify(conversion, *kind.read(conversion, directory), directory)
        size = sum(tensor.size for tensor in conversion.tensors.values())
        print(f"{directory}: {size:,} numbers written, read back and compared")
        for name, part in conversion.parts.items():
            _write(file, part, directory / name)
    except UserError:
        shutil.rmtree(directory)
        raise


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


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    entry()
