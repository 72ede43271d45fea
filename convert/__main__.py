"""styleclip-convert: official weights and latents → files of ours.

  styleclip-convert stylegan2-ffhq-config-f.pt --output models/ffhq
  styleclip-convert ffhq.pkl ViT-B-32.pt --output models
  styleclip-convert train_faces.pt --output latents/train
  styleclip-convert epoch_32.pt --architecture=ViT-H-14 --output models/clip
  styleclip-convert --inspect checkpoint.pt

Says what each file holds, converts it, reads the result back and compares. One file
becomes the folder --output itself, several become folders in it with their names. A
folder of transformers or OpenCLIP counts as a file. Nothing in a file is executed.
--inspect says what files hold, and writes nothing.
"""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from styleclip_jax.cli import help_page, program, signals
from styleclip_jax.errors import UserError
from styleclip_jax.io import files

from .settings import KINDS, SETTINGS


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    # Files may stand before, between and after the flags.
    values.set_gnu_getopt(True)
    options: dict[str, Any] = {"flag_values": values, "module_name": help_page.FILES}
    flags.DEFINE_string("output", None, "Folder to write.", **options)
    flags.DEFINE_enum(
        "kind",
        None,
        KINDS,
        "Kind of the files; told by their content if absent.",
        **options,
    )
    flags.DEFINE_string(
        "part",
        "",
        "Level of the names in a file to convert, such as g or state_dict.student, "
        "where it holds several networks.",
        **options,
    )
    flags.DEFINE_bool(
        "inspect",
        False,
        "Whether to say what the files hold and what they lack, and write nothing.",
        **options,
    )
    for settings in SETTINGS.values():
        program.define(settings, values)
    return values


@signals.end_in_a_line()
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
        if not paths:
            raise UserError("expected files to convert, found none; see --help")
        # Imported late, since it takes JAX.
        from . import kinds

        given: dict[str, Any] = {
            name: program.build(kind.settings, values)
            for name, kind in kinds.KINDS.items()
            if kind.settings is not None
        }
        if values["inspect"].value:
            for path in paths:
                kinds.inspect(path, given)
            return 0
        directories = _directories(paths, values["output"].value)
        kind, part = values["kind"].value, values["part"].value or ""
        jobs = [kinds.convert(path, kind, part, given) for path in paths]
        for (file, conversion), directory in zip(jobs, directories, strict=True):
            kinds.write(file, conversion, directory)
        for note in files.describe_lacks(directories[0]):
            kinds.tell(note)
    except (UserError, flags.Error) as error:
        print(program.describe(error), file=sys.stderr)
        return program.EXIT_USER_ERROR
    return 0


def _directories(
    paths: Sequence[pathlib.Path], output: str | None
) -> list[pathlib.Path]:
    """The model directory of each file; none of them may hold anything yet."""
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


def entry() -> None:
    """The console script."""
    # A conversion needs no accelerator, nor the memory of one.
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    entry()
