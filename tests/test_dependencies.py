"""Dependencies: ranges without a wall, pinned versions, licences, neighbours."""

import importlib
import importlib.metadata
import re
import subprocess
import tomllib

import pytest
from packaging import requirements as packaging_requirements

import requirements
from tests import programs

PYPROJECT = tomllib.loads((programs.REPOSITORY / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CONSTRAINTS = (programs.REPOSITORY / "constraints.txt").read_text()
OPTIONS, ENTRIES = requirements.parse(CONSTRAINTS)
PINNED = ("dependencies", "build-system", "dev", "docs", "package", "constraints")
FAMILIES = {"afl", "agpl", "apache", "bsd", "gpl", "isc", "lgpl", "mit", "mpl"}


def ranges(requirements: list[str]) -> dict[str, str]:
    """Ranges of packages by name."""
    parts = (re.fullmatch(r"([\w-]+)(?:\[.*\])?(.*)", x) for x in requirements)
    return {part[1]: part[2] for part in parts if part}


def licences() -> tuple[dict[str, str], dict[str, str]]:
    """Licences by package, of the two tables on all that the package needs."""
    text = (programs.REPOSITORY / "docs" / "licences.md").read_text()
    row = re.compile(r"^\| (?!package )([a-z][\w-]*) \| (.+?) \| .+ \|$", re.MULTILINE)
    pinned, newest = text.partition("## Extras")[0].split("In place of ")
    return dict(row.findall(pinned)), dict(row.findall(newest))


def version(entry: requirements.Entry) -> str:
    """Version of an entry of constraints.txt."""
    return re.search(r"==([\w.]+)", entry.text)[1]


def declared(found: importlib.metadata.Distribution) -> str:
    """Licence as older metadata have it: a line, where it is one, and classifiers."""
    line = found.metadata.get("License") or ""
    classifiers = found.metadata.get_all("Classifier") or []
    kept = [x for x in classifiers if x.startswith("License")]
    return " ".join([*kept, line if "\n" not in line else ""])


def families(licence: str) -> set[str]:
    """Families of licences that a text names."""
    words = re.findall(r"[a-z]+", licence.lower())
    return set(words) & FAMILIES


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


@pytest.mark.parametrize("name", PINNED)
def test_pinned_versions_lie_in_the_ranges_of_pyproject(name: str) -> None:
    for line in requirements.wanted(PYPROJECT, [name]):
        wanted = packaging_requirements.Requirement(line)
        chosen = requirements.select(ENTRIES, [line])
        found = [version(x) for x in chosen if x.name == wanted.name]
        assert found, line
        assert all(wanted.specifier.contains(x) for x in found), (line, found)


def test_each_pinned_version_has_hashes_and_no_address() -> None:
    line = r"[a-z0-9-]+(\[.*\])?==[\w.]+( ; [^\\]+)?"
    entry = re.compile(rf"{line}( \\\n    --hash=sha256:[0-9a-f]{{64}})+(\n    #.*)*\n")
    for x in ENTRIES:
        assert entry.fullmatch(x.text), x.text
    # Nothing is built on the way, and a mirror serves as well as an index.
    assert "--only-binary :all:" in OPTIONS.splitlines()
    assert "://" not in CONSTRAINTS


def test_selection_follows_what_packages_need() -> None:
    head, entries = requirements.parse(
        "--only-binary :all:\n\n"
        "a[x]==1 \\\n    --hash=sha256:0\n    # via us (pyproject.toml)\n"
        "b==1 ; python_version < '3.12' \\\n    --hash=sha256:0\n    # via a\n"
        "b==2 ; python_version >= '3.12' \\\n    --hash=sha256:0\n    # via a\n"
        "c==1 \\\n    --hash=sha256:0\n    # via\n    #   b\n    #   d\n"
        "d==1 \\\n    --hash=sha256:0\n    # via us (pyproject.toml)\n"
    )
    assert head == "--only-binary :all:\n\n"
    names = [x.name for x in requirements.select(entries, ["A[x]>=1"])]
    assert names == ["a", "b", "b", "c"]
    assert [x.name for x in requirements.select(entries, ["d"])] == ["c", "d"]
    for missing in ("e>=1", "a[y]"):
        with pytest.raises(ValueError, match="expected an entry of"):
            requirements.select(entries, [missing])


def test_demo_installs_nothing_of_tests_and_tools() -> None:
    base = requirements.wanted(PYPROJECT, ["dependencies", "build-system"])
    names = {x.name for x in requirements.select(ENTRIES, base)}
    assert {"jax", "numpy", "setuptools"} <= names
    assert not names & {"gradio", "pytest", "ruff", "twine", "mkdocs", "uv"}


def test_licences_of_all_that_the_package_needs_are_listed() -> None:
    pinned, _ = licences()
    chosen = requirements.select(ENTRIES, PROJECT["dependencies"])
    assert set(pinned) == {x.name for x in chosen}


def test_licences_are_those_of_the_metadata() -> None:
    # Another version may word it otherwise.
    versions = {(x.name, version(x)) for x in ENTRIES}
    pinned, newest = licences()
    compared = 0
    for name, licence in {**pinned, **newest}.items():
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if (name, found.version) not in versions:
            continue
        compared += 1
        expression = found.metadata.get("License-Expression")
        if expression:
            assert licence == expression, name
        else:
            assert families(licence) == families(declared(found)), name
    if not compared:
        pytest.skip("no package has the version of constraints.txt")
