"""Programs as users run them, in this process or with other devices in another."""

import contextlib
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import pytest
from absl import flags

from styleclip_jax.cli import program
from styleclip_jax.errors import UserError

REPOSITORY = pathlib.Path(__file__).parent.parent
# (module, flags as keywords) → exit code, stdout, stderr.
Program = Callable[..., tuple[int, str, str]]


class Watch:
    """Time that passes as a test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def forget(values: flags.FlagValues) -> None:
    """Gives all flags their defaults again, before others are parsed."""
    values.unparse_flags()
    for name in values:
        values[name].unparse()


def run(module: Any, argv: list[str]) -> int:
    """Exit code of a program; argv begins with its name."""
    forget(module.VALUES)
    more = {"extend": module.extend} if hasattr(module, "extend") else {}
    with pytest.raises(SystemExit) as stop:
        program.run(module.main, module.VALUES, argv, **more)
    return stop.value.code


def run_on(devices: int, calls: Sequence[tuple[str, str, list[str]]]) -> None:
    """Runs programs in a process with so many simulated devices; all must succeed.

    Args:
      devices: number of devices.
      calls: folder to run in, module and argv of each program.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.run_programs"],
        input=json.dumps(calls),
        env=dict(os.environ) | {"XLA_FLAGS": _flags_of(devices)},
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def launch(
    name: str, options: dict[str, Any], cache: pathlib.Path, devices: int = 1
) -> subprocess.Popen[str]:
    """A program of `styleclip_jax.cli` as a process with so many devices."""
    environment = dict(os.environ) | {"XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    arguments = [f"--{flag}={value}" for flag, value in options.items()]
    module = f"styleclip_jax.cli.{name}"
    return launch_module([module, *arguments], devices, environment)


def launch_module(
    arguments: Sequence[str], devices: int, environment: Mapping[str, str] = os.environ
) -> subprocess.Popen[str]:
    """A module as a process with so many simulated devices, its output captured.

    Args:
      arguments: module and flags.
      devices: number of devices.
      environment: its environment but for the devices.
    """
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env=dict(environment) | {"XLA_FLAGS": _flags_of(devices)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _flags_of(devices: int) -> str:
    """XLA_FLAGS for so many simulated devices; the last flag counts."""
    return f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"


def kill_once(process: subprocess.Popen[str], part: pathlib.Path, lines: int) -> None:
    """Kills a program by SIGKILL as soon as a file of it has so many lines."""
    while not part.exists() or part.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def run_in_two(
    launch: Callable[[dict[str, Any]], subprocess.Popen[str]], timeout: int = 600
) -> list[str]:
    """Output of both processes of a program that shares its work; both must succeed.

    Args:
      launch: (flags that connect them) → a process whose output is captured.
      timeout: seconds that each may take.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"coordinator_address": f"localhost:{port}", "num_processes": 2}
    processes = [launch(shared | {"process_id": i}) for i in range(2)]
    try:
        printed = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [0, 0], (codes, printed)
    return printed


def refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The one-line message with which something is refused."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file, but for what names the devices."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Names of the functions that are compiled meanwhile, or read from the cache."""
    found: list[str] = []

    def remember(name: str, seconds: float, **options: Any) -> None:
        if "backend_compile" in name:
            found.append(str(options.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(remember)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(remember)
