"""Exported edits run by themselves, with their weights inside or beside."""

import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from styleclip_jax.cli import edit
from styleclip_jax.io import latent_files
from tests import programs, tiny
from tests.programs import Program

README = (programs.REPOSITORY / "README.md").read_text()


def edited_by_program(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Latents and images of a run of three edits."""
    (path,) = folder.glob("edited.np*")
    pictures = [np.load(folder / f"images/{i:06d}.npy") for i in range(3)]
    return np.array(latent_files.read_array(path)), np.stack(pictures)


@pytest.mark.slow
def test_exported_edit_runs_by_itself(
    run: Program,
    direction: dict[str, Any],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("w_plus.npy", np.asarray(tiny.w_plus(3)))
    changed = {"latents": "w_plus.npy", "alpha": "2", "images": "npy", "steps": None}
    options = direction | changed
    assert run(edit, **options)[0] == 0
    code, out, err = run(edit, **options, export="edit.jax", outdir="none")
    assert code == 0, err
    assert "edit.jax" in out
    assert not pathlib.Path("none").exists()
    # As the README loads it.
    (loader,) = re.findall(r"```py\n(.*?)```", README, re.DOTALL)
    check = "import sys; assert not {'styleclip_jax', 'flax'} & set(sys.modules)"
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", f"{loader}\n{check}"]
    subprocess.run(command, env=environment, check=True)
    latent, image = edited_by_program(tmp_path / "out")
    with np.load("edited.npz") as found:
        np.testing.assert_allclose(found["latent"], latent, rtol=0, atol=2e-5)
        np.testing.assert_allclose(found["image"], image, rtol=0, atol=1e-4)
    code, _, err = run(edit, **(options | {"alpha": "1,2", "export": "x.jax"}))
    assert code == 2
    assert "--export: expected one edit" in err


@pytest.mark.parametrize(
    "method", [pytest.param("optimization", marks=pytest.mark.slow), "mapper"]
)
def test_exported_edit_takes_its_weights_from_beside(
    run: Program,
    tmp_path: pathlib.Path,
    mappers: list[str],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    w_plus = np.asarray(tiny.w_plus(3))
    np.save("w_plus.npy", w_plus)
    options: dict[str, Any] = {"latents": "w_plus.npy", "images": "npy"}
    if method == "mapper":
        options |= {"method": method, "mapper": mappers[0], "steps": None}
    assert run(edit, **options)[0] == 0
    code, *_ = run(edit, **options, export="edit.jax", export_weights="beside")
    assert code == 0
    program = jax.export.deserialize(bytearray(pathlib.Path("edit.jax").read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    with np.load("edit.jax.npz") as archive:
        weights = dict(archive)
    assert weights
    assert not any("text_" in name for name in weights)
    result = program.call(weights, w_plus)
    latent, image = edited_by_program(tmp_path / "out")
    np.testing.assert_allclose(result["latent"], latent, rtol=0, atol=2e-5)
    np.testing.assert_allclose(result["image"], image, rtol=0, atol=1e-4)
