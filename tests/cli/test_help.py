"""Help of all programs: sections, flags, examples."""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from typing import Any

import pytest
from absl import flags

from styleclip_jax.cli import help_page, program
from tests import programs

SCRIPTS = tomllib.loads((programs.REPOSITORY / "pyproject.toml").read_text())[
    "project"
]["scripts"]
NAMES = {x for x in vars(help_page) if x.isupper() and not x.startswith("_")}
SECTIONS = {getattr(help_page, name) for name in NAMES}


def module_of(script: str) -> Any:
    """Module of a console script, in a checkout the one that other tests import."""
    module = SCRIPTS[script].partition(":")[0]
    for folder in ("train", "convert"):
        module = module.replace(f"styleclip_jax.{folder}", folder)
    return importlib.import_module(module)


def values_of(script: str) -> flags.FlagValues:
    """Flags of a console script."""
    module = module_of(script)
    return module.VALUES if hasattr(module, "VALUES") else module._flags()


def page(script: str) -> str:
    """Help of a console script."""
    return help_page.render(module_of(script).__doc__, values_of(script))


def sections(text: str) -> dict[str, list[str]]:
    """Names of the flags by the section that they are in."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.removesuffix(":") in SECTIONS and line.endswith(":"):
            entries = found.setdefault(line.removesuffix(":"), [])
        elif flag := re.match(r"  --(?:\[no\])?(\w+)", line):
            entries.append(flag[1])
    return found


def examples(text: str) -> list[list[str]]:
    """Commands that the help shows, as a shell would read them."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [shlex.split(x) for x in lines if x.startswith("  styleclip-")]


def test_help_and_wrong_flags_wait_for_no_jax() -> None:
    code = """
        import importlib, sys
        from styleclip_jax.cli import help_page
        for name in sys.argv[1:]:
            module = importlib.import_module(name)
            values = getattr(module, "VALUES", None) or module._flags()
            help_page.render(module.__doc__, values)
        print(*{"jax", "jaxlib", "flax", "numpy", "PIL"} & sys.modules.keys())
    """
    names = [module_of(script).__name__ for script in SCRIPTS]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *names],
        cwd=programs.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_every_flag_in_one_section(script: str) -> None:
    found = sections(page(script))
    shown = [flag for entries in found.values() for flag in entries]
    assert sorted(shown) == sorted([*values_of(script), "help", "version", "flagfile"])
    order = [x for x in help_page._SECTIONS if x in found]
    assert list(found) == order


@pytest.mark.parametrize("script", SCRIPTS)
def test_examples_of_the_help_can_be_typed(script: str) -> None:
    text = page(script)
    assert max(map(len, text.splitlines())) <= 88
    commands = examples(text)
    assert script in {command[0] for command in commands}
    for command in commands:
        values = values_of(command[0])
        if hasattr(module_of(command[0]), "VALUES"):
            programs.forget(values)
        assert not [x for x in values(command, known_only=True)[1:] if x[0] == "-"]


def test_sections_are_those_that_people_know() -> None:
    found = sections(page("styleclip-edit"))
    assert list(found) == ["Models", "Latents", "Edit", "Output", "Devices", "Further"]
    assert {"generator", "clip", "identity"} <= set(found["Models"])
    assert {"seeds", "latents", "truncation_psi"} <= set(found["Latents"])
    assert {"method", "prompt", "alpha", "steps"} <= set(found["Edit"])
    assert {"outdir", "images", "export", "film_frames"} <= set(found["Output"])
    assert {"batch_size", "dtype", "profile"} <= set(found["Devices"])
    assert {"host", "port"} <= set(sections(page("styleclip-app"))["Page"])
    assert "workdir" in sections(page("styleclip-train-mapper"))["Output"]
    # Of a configuration by its base.
    for script in ("train-delta", "train-generator", "metrics"):
        assert "Edit" not in sections(page(f"styleclip-{script}"))


def test_defaults_are_as_they_are_typed() -> None:
    text = " ".join(page("styleclip-edit").split())
    assert "(default: optimization 300, stylemc 60, essence 100)" in text
    assert "(default: direction 4, stylemc 1, essence 1)" in text
    assert "['" not in text
    assert "Number of leading rows that are truncated; all if absent. --tuned=" in text


def test_version_and_flag_files(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = values_of("styleclip-generate")
    assert program.answer(["x", "--version"], "styleclip-generate: …", values)
    assert re.fullmatch(r"styleclip-generate \d+\.\d+\.\d+\n", capsys.readouterr().out)
    (tmp_path / "flags.txt").write_text("--seeds=3\n# a comment\n--grid=2\n")
    programs.forget(values)
    values(["styleclip-generate", f"--flagfile={tmp_path / 'flags.txt'}"])
    assert (values.seeds, values.grid) == ("3", 2)
