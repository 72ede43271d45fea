"""Programs in odd environments: right results, or one line that says what is wrong."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags

from styleclip_jax.cli import environment, generate, program
from tests import golden_data, programs


def start(
    module: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A program as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=programs.REPOSITORY,
        env=dict(os.environ) | environment,
        text=True,
        capture_output=True,
        timeout=300,
    )


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_here_is_one_line(
    models: dict[str, str], tmp_path: pathlib.Path, platform: str
) -> None:
    made = start(
        "styleclip_jax.cli.generate",
        f"--generator={models['generator']}",
        f"--outdir={tmp_path / 'out'}",
        JAX_PLATFORMS=platform,
    )
    assert made.returncode == 2
    last = made.stderr.splitlines()[-1]
    assert last.startswith(f"error: JAX_PLATFORMS={platform}: expected a platform")
    assert "Traceback" not in made.stderr


def test_conversions_need_no_platform(tmp_path: pathlib.Path) -> None:
    file = golden_data.ROOT / "wrapped" / "data_parallel" / "030000.pt"
    made = start("convert", file, "--output", tmp_path / "out", JAX_PLATFORMS="cuda")
    assert made.returncode == 0, made.stderr


def test_settings_of_jax_in_the_environment_change_nothing(
    models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "templates.txt").write_text("{}")
    shared = (
        f"--generator={models['generator']}",
        f"--clip={models['clip']}",
        "--method=direction",
        "--num_samples=2",
        f"--templates={tmp_path / 'templates.txt'}",
        "--neutral=dog",
        "--num_channels=3",
        "--prompt=cat",
        "--seeds=0",
        "--grid=0",
        "--images=none",
    )
    found = []
    for name, variables in (
        ("plain", {}),
        (
            "odd",
            {
                "JAX_ENABLE_X64": "1",
                "JAX_NUMPY_RANK_PROMOTION": "raise",
                "JAX_NUMPY_DTYPE_PROMOTION": "strict",
                "JAX_DEBUG_NANS": "1",
            },
        ),
    ):
        outdir = tmp_path / name
        made = start(
            "styleclip_jax.cli.edit", *shared, f"--outdir={outdir}", **variables
        )
        assert made.returncode == 0, made.stderr
        found.append(np.load(outdir / "edited.npz")["styles"])
    np.testing.assert_array_equal(*found)


def test_a_device_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> int:
        raise RuntimeError("CUDA driver version is insufficient\nfor the runtime")

    monkeypatch.setattr(jax, "local_devices", fail)
    with pytest.raises(SystemExit) as stop:
        program.run(fail, generate.VALUES, ["program"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "(CUDA driver version is insufficient for the runtime)" in err


def test_a_value_that_jax_debugs_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(values: flags.FlagValues) -> int:
        raise FloatingPointError("invalid value (nan)\nencountered in log")

    with pytest.raises(SystemExit) as stop:
        program.run(fail, generate.VALUES, ["program"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: JAX_DEBUG_NANS: invalid value (nan) encountered in log\n"
    )


@pytest.mark.parametrize("case", ["no home", "read-only", "a file"])
def test_no_cache_is_kept_where_none_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, case: str
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home() -> pathlib.Path:
        raise RuntimeError("Could not determine home directory.")

    if case == "no home":
        monkeypatch.setattr(pathlib.Path, "home", home)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if case == "read-only":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    if case == "a file":
        (tmp_path / "cache").touch()
    assert environment._default_cache() is None
