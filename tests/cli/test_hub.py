"""Networks by their names on the hub, which a server on this machine stands for."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests import programs

COMMIT, EARLIER = "a" * 40, "b" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for the files of one model.

    Attributes:
      files: contents by name.
      asked: lines of the requests.
    """

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def do_GET(self) -> None:
        self._answer(whole=True)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""

    def _answer(self, *, whole: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        owner, name, *rest = self.path.strip("/").split("/")
        if (owner, name) != ("somebody", "faces"):
            return self._refuse("RepoNotFound")
        if rest[:1] != ["resolve"]:
            return self._refuse("EntryNotFound")
        revisions = {"main": COMMIT, COMMIT: COMMIT, EARLIER: EARLIER}
        if rest[1] not in revisions:
            return self._refuse("RevisionNotFound")
        content = self.files.get("/".join(rest[2:]))
        if content is None:
            return self._refuse("EntryNotFound", revisions[rest[1]])
        self.send_response(200)
        self.send_header("X-Repo-Commit", revisions[rest[1]])
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if whole:
            self.wfile.write(content)

    def _refuse(self, reason: str, commit: str | None = None) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", reason)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(models: dict[str, str]) -> Iterator[tuple[str, type[Hub]]]:
    """Address and state of a hub that holds the tiny generator."""
    folder = pathlib.Path(models["generator"])
    state = type("State", (Hub,), {"asked": []})
    state.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), state)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        yield f"http://127.0.0.1:{server.server_port}", state


def generate(
    address: str, home: pathlib.Path, name: str, outdir: str
) -> subprocess.CompletedProcess[str]:
    """styleclip-generate with a generator of the hub, as a process of its own."""
    flags = (f"--generator={name}", f"--outdir={home / outdir}", "--seeds=0-1")
    environment = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
    # Each of these is a user's own way to say where the cache is.
    environment |= {"HF_HOME": str(home / "cache")}
    environment |= {"HF_HUB_CACHE": str(home / "cache" / "hub")}
    environment |= {"PYTHONPATH": str(programs.REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "styleclip_jax.cli.generate", *flags, "--grid=0"],
        cwd=home,
        env=dict(os.environ) | environment,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )


def test_generators_are_read_from_the_hub(
    hub: tuple[str, type[Hub]], models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    address, state = hub
    done = generate(address, tmp_path, "somebody/faces", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("generator: somebody/faces, ")
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["flags"]["generator"] == "somebody/faces"
    assert record["inputs"]["generator_commit"] == COMMIT
    weights = pathlib.Path(models["generator"]) / "model.safetensors"
    sha = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["inputs"]["generator"] == sha
    # Images are those of the same directory.
    local = generate(address, tmp_path, models["generator"], "local")
    assert local.returncode == 0, local.stderr
    assert programs.hashes(tmp_path / "out") == programs.hashes(tmp_path / "local")
    # Each file is fetched once, and a second run needs no hub.
    gets = [line for line in state.asked if line.startswith("GET")]
    assert len(gets) == len(set(gets)) == 2
    again = generate("http://127.0.0.1:9", tmp_path, "somebody/faces", "out")
    assert again.returncode == 0, again.stderr
    earlier = generate(address, tmp_path, f"somebody/faces@{EARLIER}", "earlier")
    assert earlier.returncode == 0, earlier.stderr
    record = json.loads((tmp_path / "earlier/run.json").read_text())
    assert record["inputs"]["generator_commit"] == EARLIER


@pytest.mark.parametrize(
    ("name", "missing", "expected"),
    [
        ("somebody/else", (), "no such model on the Hugging Face hub"),
        ("somebody/faces@nowhere", (), "no commit, branch or tag nowhere"),
        ("somebody/faces", ("model.safetensors",), "found no model.safetensors there"),
    ],
)
def test_what_the_hub_has_not_is_one_line(
    hub: tuple[str, type[Hub]],
    tmp_path: pathlib.Path,
    name: str,
    missing: tuple[str, ...],
    expected: str,
) -> None:
    address, state = hub
    for file in missing:
        del state.files[file]
    done = generate(address, tmp_path, name, "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert expected in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: pathlib.Path) -> None:
    done = generate("http://127.0.0.1:9", tmp_path, "somebody/faces", "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "the Hugging Face hub cannot be reached" in done.stderr
