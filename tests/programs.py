"""Programs as users run them, in this process or with other devices in another."""

import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import pytest
from absl import flags

from styleclip_jax.cli import program
from styleclip_jax.errors import UserError

REPOSITORY = pathlib.Path(__file__).parent.parent
# (module, flags as keywords) → exit code, stdout, stderr.
Program = Callable[..., tuple[int, str, str]]


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
    # The last flag counts.
    flags = (
        f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.run_programs"],
        input=json.dumps(calls),
        env=dict(os.environ) | {"XLA_FLAGS": flags},
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


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
