"""Programs as processes: entry points, exit codes, help."""

import os
import subprocess
import sys

import jax
import pytest
from absl import flags

from styleclip_jax.cli import generate, program


@pytest.mark.slow
def test_program_runs_from_the_command_line(models: dict[str, str], tmp_path) -> None:
    """Once as a process: the entry point, the exit code and nothing but our words."""

    def start(*flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "styleclip_jax.cli.generate", *flags],
            capture_output=True,
            text=True,
            env=os.environ | {"XLA_FLAGS": ""},
            check=False,
        )

    generator = f"--generator={models['generator']}"
    done = start(generator, "--seeds=0-1", f"--outdir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "grid.png").exists()
    wrong = start(generator, "--noise=loud")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    help_text = start("--help")
    assert help_text.returncode == 0
    assert "--truncation_psi" in help_text.stdout


def test_help_ends_quietly_when_nobody_reads_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        with pytest.raises(SystemExit) as stop:
            program.run(generate.main, generate.VALUES, ["program", "--help"])
    assert stop.value.code == program.EXIT_UNREAD
    assert capfd.readouterr().err == ""


def test_a_full_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fill(values: flags.FlagValues) -> int:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\n  at …")

    def fail(values: flags.FlagValues) -> int:
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes")

    with pytest.raises(SystemExit) as stop:
        program.run(fill, generate.VALUES, ["program"])
    assert stop.value.code == program.EXIT_USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith("error: --batch_size: the memory of a device is full")
    assert err.count("\n") == 1
    with pytest.raises(jax.errors.JaxRuntimeError, match="shapes"):
        program.run(fail, generate.VALUES, ["program"])
