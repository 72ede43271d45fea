"""The layers of the package: dependencies point one way."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(
    path
    for folder in ("styleclip_jax", "train", "convert")
    for path in (ROOT / folder).rglob("*.py")
)
# What each layer may import of ours; spaces ← models ← losses ← methods ← cli.
ALLOWED = {
    "errors": set(),
    "spaces": set(),
    "models": {"spaces", "models", "errors"},
    "optimizers": set(),
    "parallel": set(),
    "losses": {"spaces", "models"},
    "metrics": {"models"},
    "methods": {"spaces", "models", "losses", "optimizers", "methods"},
    "io": {"spaces", "errors", "io"},
    "assets": {"spaces", "models", "errors", "io", "assets"},
}
PURE = ("spaces", "models", "optimizers", "parallel", "losses", "metrics", "methods")
IMPURE = ("absl", "PIL", "orbax", "os", "tqdm")


def layer_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "styleclip_jax" and len(parts) > 1 else parts[0]


def imports_of(path: pathlib.Path) -> set[str]:
    """Full names of everything a module imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_dependencies_point_one_way(path: pathlib.Path) -> None:
    layer, names = layer_of(path), imports_of(path)
    ours = {n.split(".")[1] for n in names if n.startswith("styleclip_jax.")}
    if layer in ALLOWED:
        assert ours <= ALLOWED[layer], f"{layer} imports {ours - ALLOWED[layer]}"
        roots = {n.split(".")[0] for n in names}
        assert not roots & {"train", "convert"}
    if layer in PURE:
        assert not {n.split(".")[0] for n in names} & set(IMPURE)
    if layer != "cli" and path.relative_to(ROOT).parts[0] == "styleclip_jax":
        assert "cli" not in ours


def test_one_module_imports_transformers() -> None:
    importers = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name.split(".")[0] == "transformers" for name in imports_of(path))
    }
    assert importers == {"styleclip_jax/models/clip.py"}


def test_nothing_imports_torch() -> None:
    for path in MODULES:
        assert not any(n.split(".")[0] == "torch" for n in imports_of(path)), path


def test_one_module_calls_pmap() -> None:
    for path in MODULES:
        if path.name != "parallel.py":
            assert "pmap(" not in path.read_text(), path
