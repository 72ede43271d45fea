"""The app with tiny networks: its room, and a process for tests of its page."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import pytest

from styleclip_jax import loading
from styleclip_jax.app.rooms import Room
from styleclip_jax.editing.session import Session
from styleclip_jax.methods import global_directions, mapper
from tests import programs, tiny

LAYOUT = tiny.GENERATOR.style_layout
# The program. A shell's background jobs ignore Ctrl-C, and so would those they start.
_MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from styleclip_jax.cli import app
app.entry()
"""
# Edits that may wait in the app.
NUM_WAITING = 2
MAPPER = mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)


@pytest.fixture(scope="module")
def room(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Room:
    """A room with tiny networks, and random relevance for all texts."""
    random = np.random.RandomState(0)
    layers = global_directions.select_layers(LAYOUT, "all")
    count = int(global_directions.channels_of(LAYOUT, layers).sum())
    rows = random.randn(count, tiny.CLIP.embed_dim)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    std = random.rand(sum(layer.channels for layer in LAYOUT)) + 0.5
    templates = tmp_path_factory.mktemp("templates") / "templates.txt"
    templates.write_text("a {}\nthe {}\n")
    names = loading.Models(**models, templates=str(templates))
    return Room(
        session=Session(names, devices=jax.local_devices()[:1]),
        mappers={"a cat": tiny.mapper_network(MAPPER)},
        relevance=global_directions.expand(rows, std, layers, LAYOUT),
    )


class App(NamedTuple):
    """The app as a process.

    Attributes:
      process: the process.
      address: where it is.
      log: file of its standard error.
    """

    process: subprocess.Popen[str]
    address: str
    log: pathlib.Path


@pytest.fixture(scope="module")
def app(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[App]:
    """The app with tiny networks, which a test may end."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "templates.txt").write_text("a {}\nthe {}\n")
    flags = {**models, "templates": folder / "templates.txt"}
    flags |= {"max_queue": NUM_WAITING, "max_upload_mb": 1}
    with programs.kept_port() as port, (folder / "log.txt").open("w") as log:
        flags["port"] = port
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN]
            + [f"--{name}={value}" for name, value in flags.items()],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)},
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("ready: "):
                break
        else:
            pytest.fail("".join(lines) + (folder / "log.txt").read_text())
        address = line.removeprefix("ready: ").strip()
        yield App(process, address, folder / "log.txt")
        if process.poll() is None:
            process.terminate()
            assert process.wait(60) == 143
    assert "Traceback" not in (folder / "log.txt").read_text()
    assert not list(folder.glob("styleclip-*"))


@pytest.fixture(scope="module")
def address(app: App) -> str:
    """Where the app with tiny networks is."""
    return app.address
