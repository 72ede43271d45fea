"""Dependencies: ranges without a wall, and neighbours in one process."""

import importlib
import re
import subprocess
import tomllib

import pytest

from tests import programs

PROJECT = tomllib.loads((programs.REPOSITORY / "pyproject.toml").read_text())["project"]


def ranges(requirements: list[str]) -> dict[str, str]:
    """Ranges of packages by name."""
    parts = (re.fullmatch(r"([\w-]+)(?:\[.*\])?(.*)", x) for x in requirements)
    return {part[1]: part[2] for part in parts if part}


@pytest.mark.parametrize("name", ["huggingface-hub", "tokenizers", "transformers"])
def test_packages_of_other_work_have_no_upper_bound(name: str) -> None:
    assert re.fullmatch(r">=[\d.]+", ranges(PROJECT["dependencies"])[name])


def test_tests_have_the_transformers_with_flax_clip() -> None:
    found = ranges(PROJECT["optional-dependencies"]["dev"])["transformers"]
    assert found == ranges(PROJECT["dependencies"])["transformers"] + ",<5"


@pytest.mark.slow
def test_neighbours_are_imported_in_one_process() -> None:
    for name in ("datasets", "diffusers"):
        pytest.importorskip(name, reason=f"needs {name}: the extra dev-newest")
    # pip check knows what packages ask for, not whether they work.
    for name in ("gradio", "huggingface_hub", "sentencepiece", "transformers"):
        importlib.import_module(name)


def test_source_distribution_is_a_whole_checkout() -> None:
    listed = subprocess.run(
        ["git", "ls-files"],
        cwd=programs.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("needs a checkout of git")
    manifest = (programs.REPOSITORY / "MANIFEST.in").read_text()
    lines = [x.split() for x in manifest.splitlines() if not x.startswith("#")]
    named = {name for _, *names in lines for name in names}
    # setuptools adds these by itself.
    named |= {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "styleclip_jax"}
    found = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert found - named == {".gitignore"}
