"""Programs that write into a folder refuse the one that another run writes to."""

import pathlib
from typing import Any

import pytest
from PIL import Image

from styleclip_jax.cli import edit, evaluate, find_directions, generate, invert
from styleclip_jax.io import locks
from styleclip_jax.progress import ignore
from tests.programs import Program
from train import delta, global_directions, mapper


@pytest.mark.parametrize(
    ("module", "name", "more"),
    [
        (generate, "outdir", {"seeds": "0-1"}),
        (edit, "outdir", {"seeds": "0-1", "method": "optimization"}),
        (invert, "outdir", {"photos": "photos"}),
        (evaluate, "outdir", {"images": "photos", "zero_shot": "labels.txt"}),
        (find_directions, "outdir", {}),
        (mapper, "workdir", {"prompts_file": "labels.txt"}),
        (delta, "workdir", {}),
        (global_directions, "output", {}),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_second_run_is_refused_in_a_line(
    run: Program,
    models: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    more: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "labels.txt").write_text("a cat\na dog\n")
    target = {"outdir": "out", "workdir": "out", "output": "out.safetensors"}[name]
    folder = f"{target}.partial" if name == "output" else target
    options = {"outdir": None, name: target, **more}
    if module not in (generate, evaluate):
        options["clip"] = models["clip"]
    if module is evaluate:
        options["generator"] = None
    with locks.only_writer(folder, name, ignore):
        before = sorted(tmp_path.rglob("*"))
        code, _, err = run(module, **options)
        assert code == 2, err
        (line,) = err.splitlines()[-1:]
        assert line.startswith(f"error: --{name}: another run, process ")
        assert sorted(tmp_path.rglob("*")) == before
