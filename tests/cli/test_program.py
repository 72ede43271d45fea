"""Programs as processes: entry points, exit codes, help."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from absl import flags

from styleclip_jax import progress
from styleclip_jax.cli import environment, generate, profiling, program
from tests import programs


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


def use_plugin(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Lets a plugin of JAX be installed."""
    plugins = [types.SimpleNamespace(name=name)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: plugins)


@pytest.mark.parametrize("plugin", ["xla_cuda13", "xla_rocm7", "tpu"])
def test_equal_bits_are_asked_of_gpus_alone(
    monkeypatch: pytest.MonkeyPatch, plugin: str
) -> None:
    use_plugin(monkeypatch, plugin)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    seen: list[str] = []

    def main(values: flags.FlagValues) -> int:
        seen.append(os.environ["XLA_FLAGS"])
        assert "deterministic" not in program.settings(values)
        return 0

    def start() -> int:
        programs.forget(generate.VALUES)
        with pytest.raises(SystemExit) as stop:
            program.run(main, generate.VALUES, ["program", "--deterministic"])
        return stop.value.code

    for _ in range(2):
        assert start() == 0
    flag = "" if plugin == "tpu" else " --xla_gpu_deterministic_ops=true"
    assert seen == [f"--xla_dump_to=x{flag}"] * 2


@pytest.mark.slow
def test_installed_xla_knows_the_flag_of_equal_bits() -> None:
    """XLA ends a process whose flags it does not know."""
    for flag, code in ((environment._EQUAL_BITS, 0), ("--xla_gpu_unknown=true", None)):
        done = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=os.environ | {"XLA_FLAGS": flag},
            capture_output=True,
            check=False,
        )
        assert done.returncode == code if code is not None else done.returncode


def profile(folder: pathlib.Path, shown: bool = True) -> progress.Listener:
    values = flags.FlagValues()
    program.define_profile(values)
    values(["program", f"--profile={folder}"])
    return profiling.listener(values, shown=shown)


def test_profile_is_a_trace_of_a_few_steps(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "trace"
    step = jax.jit(lambda networks, state: jnp.tanh(state @ networks))
    inputs: Any = (jnp.eye(64), jnp.ones((64, 64)))
    with profile(folder).bar(100, "step") as report:
        progress.take_steps(step, *inputs, 100, report)
    out = capsys.readouterr().out.splitlines()
    # The first call, which compiles, is left out. Then there are two, four and eight.
    assert out[-1].startswith(f"profile: {folder}, step 2 to ")
    assert int(out[-1].split(" to ")[1].split(";")[0]) < 50
    assert f"xprof --logdir={folder}" in out[-1]
    (trace,) = folder.rglob("*.xplane.pb")
    # It holds the programs of the process, of which tests have many.
    assert 1000 < trace.stat().st_size < 2**28
    assert b"jit(<lambda>)" in trace.read_bytes() or b"tanh" in trace.read_bytes()


def test_profile_of_one_step_says_that_there_is_none(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with profile(tmp_path).bar(1, "edit") as report:
        report(1)
    assert "profile: none, there was no further edit" in capsys.readouterr().out
    # Work that fails ends the trace, so that another one can be taken.

    def fail() -> None:
        with profile(tmp_path).bar(9, "edit") as report:
            report(1)
            report(1 // 0)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
    assert profile(tmp_path, shown=False) is progress.SILENT
    (tmp_path / "file").write_text("")
    assert "profile: expected a folder" in programs.refusal(profile, tmp_path / "file")
