"""styleclip-app: its flags, its address, what it misses."""

import socket
import sys
from typing import Any

import pytest

import styleclip_jax.app
from styleclip_jax.cli import app, program
from styleclip_jax.errors import UserError
from styleclip_jax.models import bpe
from tests import programs, tiny


def test_room_of_flags_reads_their_files(models: dict[str, str]) -> None:
    values = _parse([f"--{name}={value}" for name, value in models.items()])
    session = app.open_room(values).session
    assert session.generator.config == tiny.GENERATOR
    assert session.identity is None
    assert isinstance(session.tokenizer, bpe.Tokenizer)
    with pytest.raises(UserError, match="absent"):
        app.open_room(_parse(["--mapper=absent"]))


def test_app_listens_to_this_machine_alone_unless_told() -> None:
    assert _parse([]).host == "127.0.0.1"


def test_a_taken_port_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = rf"--port: cannot listen at 127.0.0.1:{port} \(Address already in use\)"
        with pytest.raises(UserError, match=line):
            # Before it misses the generator.
            app.main(_parse([f"--port={port}", "--generator=absent"]))


def test_missing_gradio_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.forget(app.VALUES)
    for name in ("page", "handlers"):
        monkeypatch.delitem(sys.modules, f"styleclip_jax.app.{name}", raising=False)
        monkeypatch.delattr(styleclip_jax.app, name, raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as stop:
        program.run(app.main, app.VALUES, ["styleclip-app"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "pip install 'styleclip-jax[app]'" in error
    assert error.count("\n") == 1


def _parse(arguments: list[str]) -> Any:
    values = app.VALUES
    programs.forget(values)
    values(["styleclip-app", *arguments])
    return values
