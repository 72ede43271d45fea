"""What the README shows works."""

import pathlib
import re
import shlex
from typing import Any

import pytest

from convert import __main__ as convert
from styleclip_jax.cli import edit, evaluate, generate, invert
from train import global_directions, mapper

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
PROGRAMS = {
    "styleclip-edit": edit,
    "styleclip-evaluate": evaluate,
    "styleclip-generate": generate,
    "styleclip-invert": invert,
    "train.global_directions": global_directions,
    "train.mapper": mapper,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [
    line
    for block in blocks("sh")
    for line in block.replace("\\\n", " ")
    .replace("python -m ", "")
    .strip()
    .splitlines()
    if line.split()[0] in PROGRAMS
]


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_of_the_commands_exist(command: str) -> None:
    name, *arguments = shlex.split(command)
    values = PROGRAMS[name].VALUES
    values.unparse_flags()
    assert values([name, *arguments]) == [name]


def test_every_kind_of_file_in_the_readme_is_known() -> None:
    files = re.findall(r"python -m convert (\S+) --output", README)
    assert len(files) == len(convert.KINDS)


def test_python_example_runs() -> None:
    (code,) = blocks("python")
    variables: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), variables)
    result = variables["result"]
    assert result.image.shape == (4, 64, 64, 3)
    assert (result.terms["total"] < result.history["total"][:, 0]).all()
