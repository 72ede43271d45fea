"""The app as a process, for tests that look at its page."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def address(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where the app with tiny networks is."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "templates.txt").write_text("a {}\nthe {}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = {**models, "templates": folder / "templates.txt", "port": port}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "styleclip_jax.cli.app"]
            + [f"--{name}={value}" for name, value in flags.items()],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("ready: "):
                break
        else:
            pytest.fail("".join(lines) + (folder / "log.txt").read_text())
        yield line.removeprefix("ready: ").strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert "Traceback" not in (folder / "log.txt").read_text()
