"""The app with tiny networks: its room, and a process for tests of its page."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from styleclip_jax import loading
from styleclip_jax.app.rooms import Room
from styleclip_jax.editing.session import Session
from styleclip_jax.methods import global_directions, mapper
from tests import tiny

LAYOUT = tiny.GENERATOR.style_layout
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
        assert process.wait(10) == 130
    assert "Traceback" not in (folder / "log.txt").read_text()
