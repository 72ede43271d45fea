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
    name: str,
    options: dict[str, Any],
    cache: pathlib.Path,
    devices: int = 1,
    wrap: Callable[[list[str]], list[str]] = list,
) -> subprocess.Popen[str]:
    """A program of `styleclip_jax.cli` as a process with so many devices.

    Args:
      name: its name.
      options: its flags.
      cache: folder of the user's cache.
      devices: number of devices.
      wrap: what runs its module and flags, such as `ended`.
    """
    environment = dict(os.environ) | {"XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    arguments = [f"--{flag}={value}" for flag, value in options.items()]
    module = f"styleclip_jax.cli.{name}"
    return launch_module(wrap([module, *arguments]), devices, environment)


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


def ended(
    arguments: Sequence[str],
    part: pathlib.Path,
    lines: int,
    number: signal.Signals = signal.SIGKILL,
) -> list[str]:
    """Module and flags of a program that a signal ends once a file has so many lines.

    Args:
      arguments: module and flags of the program.
      part: file that the program appends to.
      lines: number of its lines.
      number: the signal.
    """
    return ["tests.run_ended", str(int(number)), str(part), str(lines), *arguments]


def expect_kill(process: subprocess.Popen[str]) -> None:
    """Waits until a program has been killed."""
    printed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, printed


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A free port of this machine that nobody is given before it is listened at.

    A socket that is bound and does not listen keeps it from those who ask for any. Who
    asks for this one may have it beside, as servers set SO_REUSEADDR. Elsewhere than on
    Linux they may not, and the port is free only.
    """
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        if not sys.platform.startswith("linux"):
            kept.close()
        yield port


def run_in_two(
    launch: Callable[[dict[str, Any]], subprocess.Popen[str]], timeout: int = 600
) -> list[str]:
    """Output of both processes of a program that shares its work; both must succeed.

    Args:
      launch: (flags that connect them) → a process whose output is captured.
      timeout: seconds that each may take.
    """
    with kept_port() as port:
        shared = {"coordinator_address": f"127.0.0.1:{port}", "num_processes": 2}
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
