"""Requirements of an environment: the part of constraints.txt that it needs.

`python requirements.py --constraints=constraints.txt dependencies dev` prints what the
package and its extra `dev` need, with versions and hashes; without a file, it prints
the ranges of pyproject.toml. `build-system` is a name like `dependencies`. The program
needs nothing but Python, since environments begin with it.
"""

import argparse
import pathlib
import re
import tomllib
from collections.abc import Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent

_BEGIN = re.compile(r"([\w.-]+)(?:\[([^]]*)\])?")
# "# via flax", or "# via" and a line for each: "#   flax". Our own name has a file
# beside it and is left out: pyproject.toml knows more, namely which extra asks.
_PARENT = re.compile(r"^ +#(?: via)? +(?!via$)([\w.-]+)$", re.MULTILINE)


class Entry(NamedTuple):
    """An entry of constraints.txt: a package in one version, and who asks for it."""

    name: str
    extras: frozenset[str]
    parents: frozenset[str]
    text: str


def parse(text: str) -> tuple[str, list[Entry]]:
    """Options at the top of a constraints file, and its entries."""
    head, *blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
    entries = [
        Entry(*_begin(block), frozenset(_PARENT.findall(block)), block)
        for block in blocks
    ]
    return head, entries


def wanted(project: dict, names: Sequence[str]) -> list[str]:
    """Requirements of pyproject.toml, by `dependencies`, `build-system` or extra.

    Args:
      project: pyproject.toml as a dict.
      names: what is wanted.

    Raises:
      ValueError: a name is none of them.
    """
    groups = {
        "build-system": project["build-system"]["requires"],
        "dependencies": project["project"]["dependencies"],
        **project["project"]["optional-dependencies"],
    }
    unknown = sorted(set(names) - set(groups))
    if unknown:
        raise ValueError(f"names: expected some of {sorted(groups)}, found {unknown}")
    return [requirement for name in names for requirement in groups[name]]


def select(entries: Sequence[Entry], requirements: Sequence[str]) -> list[Entry]:
    """Entries of requirements and of all that these need, in the order of the file.

    Args:
      entries: entries of constraints.txt.
      requirements: requirements with or without a range, such as `jax>=0.10`.

    Raises:
      ValueError: a requirement has no entry, or one without its extras.
    """
    chosen = set()
    for requirement in requirements:
        name, extras = _begin(requirement)
        if not any(x.name == name and x.extras >= extras for x in entries):
            raise ValueError(
                f"constraints: expected an entry of {requirement}, found none; "
                "run `make constraints UPGRADE=`"
            )
        chosen.add(name)
    added = True
    while added:
        added = {x.name for x in entries if x.parents & chosen} - chosen
        chosen |= added
    return [x for x in entries if x.name in chosen]


def main() -> None:
    """Prints the requirements that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--constraints", type=pathlib.Path, help="versions and hashes")
    parser.add_argument("names", nargs="+", help="dependencies, build-system, an extra")
    args = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    try:
        requirements = wanted(project, args.names)
        if args.constraints is None:
            print(*requirements, sep="\n")
        else:
            head, entries = parse(args.constraints.read_text())
            chosen = select(entries, requirements)
            print(head + "".join(x.text for x in chosen), end="")
    except ValueError as error:
        parser.error(str(error))


def _begin(requirement: str) -> tuple[str, frozenset[str]]:
    """Name and extras at the beginning of a requirement."""
    found = _BEGIN.match(requirement)
    if found is None:
        raise ValueError(f"requirement: expected a name, found {requirement!r}")
    name, extras = found.groups()
    parts = frozenset(x.strip() for x in extras.split(",")) if extras else frozenset()
    return re.sub(r"[-_.]+", "-", name).lower(), parts


if __name__ == "__main__":
    main()
