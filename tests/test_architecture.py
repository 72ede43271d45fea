"""The rules of the house: imports point downwards, and each thing has one place."""

import ast
import collections
import graphlib
import pathlib
import re
import tomllib
from collections.abc import Iterator

import pytest

from tests import programs

ROOT = programs.REPOSITORY
PACKAGES = ("styleclip_jax", "train", "convert")
FRONT_DOOR = "styleclip_jax"

# The floors of the house, lowest first: files and folders of styleclip_jax, and the two
# packages on top. A module imports from floors below its own, and from its own folder.
FLOORS = (
    {"errors", "version"},
    {"checks", "documents"},
    {"settings"},
    {"progress"},
    {"spaces", "optimizers"},
    {"parallel", "traced"},
    {"ops"},
    {"models"},
    {"losses", "latents", "blends"},
    {"methods"},
    {"computation"},
    {"io"},
    {"places"},
    {"loading"},
    {"photos"},
    {"toy"},
    {"batch"},
    {"editing"},
    {"evaluation"},
    {"app"},
    {"cli"},
    {"train", "convert"},
)
# Floors that may see less than all below them.
NARROW = {
    "io": {
        "errors",
        "checks",
        "documents",
        "settings",
        "progress",
        "spaces",
        "ops",
        "models",
    }
}
# Floors of arithmetic, without files, flags, pictures and bars.
PURE = {
    "spaces",
    "optimizers",
    "parallel",
    "traced",
    "ops",
    "models",
    "losses",
    "latents",
}
PURE |= {"blends", "methods"}
IMPURE = {"absl", "PIL", "orbax", "os", "tqdm"}
HIGHEST = FLOORS[-1]
# Where programs are, the only users of absl.
PROGRAMS = {"cli", "train", "convert"}

MAX_LINES = 500


class Module:
    """A file of ours.

    Attributes:
      path: relative to the repository.
      name: as it is imported in a checkout.
      floor: the part of the house that it belongs to.
      tree: its syntax.
      num_lines: its length.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path.relative_to(ROOT))
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.floor = floor_of(self.name)
        text = path.read_text()
        self.tree = ast.parse(text)
        self.num_lines = len(text.splitlines())

    def imports(self, node: ast.AST | None = None) -> Iterator[tuple[str, str | None]]:
        """Full name and alias of everything that is imported, inside functions too.

        What is imported for type checkers alone does not count.
        """
        for child in ast.iter_child_nodes(node or self.tree):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, alias.asname) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                source = self._absolute(child)
                yield from ((f"{source}.{a.name}", a.asname) for a in child.names)
            else:
                yield from self.imports(child)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        above = self.name.split(".") + ["__init__"] * self.is_package
        return ".".join([*above[: -node.level], *filter(None, [node.module])])


def floor_of(name: str) -> str:
    """The part of the house that a name of ours belongs to."""
    parts = name.split(".")
    return parts[1] if parts[0] == "styleclip_jax" and len(parts) > 1 else parts[0]


MODULES = {
    module.name: module
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    for module in [Module(path)]
}
HEIGHT = {name: i for i, names in enumerate(FLOORS) for name in names}


def imported_modules(module: Module) -> set[str]:
    """Modules of ours that a module imports or takes names from, by name."""
    found = set()
    for name, _ in module.imports():
        owner = name if name in MODULES else name.rpartition(".")[0]
        if owner in MODULES:
            found.add(owner)
    return found - {module.name}


def importers_of(library: str) -> set[str]:
    """Paths of the modules that import a library or a part of it."""
    return {
        module.path
        for module in MODULES.values()
        if any(name.split(".")[0] == library for name, _ in module.imports())
    }


def test_every_part_has_a_floor() -> None:
    parts = {module.floor for module in MODULES.values()} - {FRONT_DOOR}
    assert parts == HEIGHT.keys()


def test_imports_point_downwards() -> None:
    wrong = []
    for module in MODULES.values():
        allowed = NARROW.get(module.floor, HEIGHT.keys())
        for name in sorted(imported_modules(module) - {FRONT_DOOR}):
            floor = floor_of(name)
            if module.name == FRONT_DOOR or floor == module.floor:
                continue
            if HEIGHT[floor] >= HEIGHT[module.floor] or floor not in allowed:
                wrong.append(f"{module.path} imports {name}")
    assert not wrong


def test_arithmetic_knows_no_files_and_flags() -> None:
    pure = {module.path for module in MODULES.values() if module.floor in PURE}
    assert not {name: found for name in IMPURE if (found := pure & importers_of(name))}


def test_no_circle_of_imports() -> None:
    graph = {name: imported_modules(module) for name, module in MODULES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_own_modules_need_no_alias() -> None:
    wrong = [
        f"{module.path}: {name} as {alias}"
        for module in MODULES.values()
        for name, alias in module.imports()
        if alias and name.split(".")[0] in PACKAGES
    ]
    assert not wrong


def test_imports_are_relative_in_train_and_convert_alone() -> None:
    """These two are also installed, as parts of styleclip_jax."""
    wrong = []
    for module in MODULES.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = ["." if node.level else node.module or ""]
            else:
                continue
            roots = {name.split(".")[0] for name in names}
            # The first part of a relative name is empty.
            if roots & ({"train", "convert"} if module.floor in HIGHEST else {""}):
                wrong.append(f"{module.path}:{node.lineno}")
    assert not wrong


def test_absl_is_known_to_programs_alone() -> None:
    others = {x.path for x in MODULES.values() if x.floor not in PROGRAMS}
    assert not importers_of("absl") & others
    wrong = [
        f"{module.path}:{node.lineno}"
        for module in MODULES.values()
        if module.path in others
        for node in ast.walk(module.tree)
        if "FlagValues" in (getattr(node, "attr", ""), getattr(node, "id", ""))
    ]
    assert not wrong


def test_messages_below_the_programs_name_no_flag() -> None:
    wrong = [
        f"{module.path}:{node.lineno} {flag}"
        for module in MODULES.values()
        if module.floor not in PROGRAMS
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        # In the command that a message tells to run, and of XLA, they are no settings.
        if "styleclip-convert" not in node.value and node.value != " --output "
        for flag in re.findall(r"(?<![\w-])--(?!xla)[a-z]\w*", node.value)
    ]
    assert not wrong


def test_one_module_imports_transformers() -> None:
    expected = {"styleclip_jax/models/clip_vit.py"}
    assert importers_of("transformers") == expected


def test_nothing_imports_torch() -> None:
    assert not importers_of("torch")


def test_one_module_calls_pmap() -> None:
    callers = {
        module.path
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if "pmap" in (getattr(node, "attr", ""), getattr(node, "id", ""))
    }
    assert callers == {"styleclip_jax/parallel.py"}


def test_files_are_short() -> None:
    lengths = {module.path: module.num_lines for module in MODULES.values()}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        lengths[str(path.relative_to(ROOT))] = len(path.read_text().splitlines())
    assert not {path for path, length in lengths.items() if length > MAX_LINES}


def test_no_folder_holds_a_sixth_of_the_code() -> None:
    lengths = collections.Counter()
    for module in MODULES.values():
        lengths[str(pathlib.Path(module.path).parent)] += module.num_lines
    (largest, length), total = lengths.most_common(1)[0], lengths.total()
    assert length < total / 6, f"{largest}: {length} of {total} lines"


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    folders = setuptools.get("package-dir", {})
    listed = {
        str(pathlib.PurePath(folders.get(name, name.replace(".", "/"))))
        for name in setuptools["packages"]
    }
    packages = {
        str(pathlib.Path(module.path).parent)
        for module in MODULES.values()
        if module.is_package
    }
    # It makes the embedded models.
    assert listed == packages - {"train/demo"}


def test_tests_mirror_the_house() -> None:
    folders = {
        str(pathlib.Path(module.path).parent).removeprefix("styleclip_jax/")
        for module in MODULES.values()
    } - {"styleclip_jax"}
    missing = [x for x in folders if not list((ROOT / "tests" / x).glob("test_*.py"))]
    assert not missing


def test_no_test_takes_from_another() -> None:
    """What tests share lies in conftest.py or in a module beside them."""
    taken = re.compile(r"^(from tests\S*\.test_|from tests.* import .*\btest_)", re.M)
    paths = (ROOT / "tests").rglob("*.py")
    assert not [str(path) for path in paths if taken.search(path.read_text())]
