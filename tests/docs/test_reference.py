"""The reference in docs/api: every public class has an example, and examples run.

Public are the classes that modules of the reference define, and those that a page names
by themselves; layers of networks are not. docs/api/index.md lists them all.
"""

import importlib
import inspect
import pathlib
import re
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import pytest

import styleclip_jax

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "api"
INDEX = (FOLDER / "index.md").read_text()
# In the order of the site.
PAGES = re.findall(r": api/(\w+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


class Part(NamedTuple):
    """Part of a page: the object that is described, and the examples below it.

    Attributes:
      name: full name of the object, empty for the start of a page and of a section.
      examples: code by the number of its first line.
    """

    name: str
    examples: dict[int, str]


def read(page: str) -> list[Part]:
    """Parts of a page in order."""
    found, code, start = [Part("", {})], None, 0
    lines = (FOLDER / f"{page}.md").read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line == "```" and code is not None:
            found[-1].examples[start] = "\n".join(code)
            code = None
        elif code is not None:
            code.append(line)
        elif line == "```python":
            code, start = [], number + 1
        elif line.startswith(("#", "::: ")):
            found.append(Part(line.partition("::: ")[2], {}))
    return found


def resolve(name: str) -> Any:
    """The object of a full name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def classes_of(module: ModuleType) -> set[type]:
    """Public classes that a module defines."""
    return {
        found
        for name, found in vars(module).items()
        if inspect.isclass(found)
        and found.__module__ == module.__name__
        and not name.startswith("_")
        and not issubclass(found, nn.Module)
    }


PARTS = [part for page in PAGES for part in read(page) if part.name]
OBJECTS = {part.name: resolve(part.name) for part in PARTS}
CLASSES = {name: found for name, found in OBJECTS.items() if inspect.isclass(found)}


def test_pages_are_those_of_the_site() -> None:
    assert {*PAGES, "index"} == {path.stem for path in FOLDER.glob("*.md")}
    assert set(re.findall(r"\((\w+)\.md\)", INDEX)) == {*PAGES}


def test_each_object_has_one_place() -> None:
    assert len(PARTS) == len(OBJECTS)


def test_index_lists_the_public_classes() -> None:
    listed = re.findall(r"\]\[([\w.]+)\]", INDEX)
    assert sorted(listed) == sorted(CLASSES)


def test_public_classes_are_on_the_pages() -> None:
    modules = [found for found in OBJECTS.values() if inspect.ismodule(found)]
    front_door = [getattr(styleclip_jax, name) for name in styleclip_jax.__all__]
    public = {found for found in front_door if inspect.isclass(found)}
    public = public.union(*map(classes_of, modules))
    missing = public - {*CLASSES.values()}
    assert not missing, f"no entry in docs/api: {missing}"


def test_public_classes_have_examples() -> None:
    missing = [
        part.name for part in PARTS if part.name in CLASSES and not part.examples
    ]
    assert not missing, f"no example in docs/api: {missing}"


@pytest.mark.shown
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_examples_run(
    page: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {}
    for part in read(page):
        for start, code in part.examples.items():
            # Empty lines, so that a traceback has the line of the page.
            text = "\n" * (start - 1) + code
            exec(compile(text, str(FOLDER / f"{page}.md"), "exec"), variables)
