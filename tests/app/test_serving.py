"""The page of styleclip-app without a browser: it is served, and its events answer."""

import json
import pathlib
import urllib.request
import uuid
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs gradio: the extra app")

pytestmark = pytest.mark.slow

_PATIENCE = 120


class Visitor:
    """A visitor who does what the page's own script does.

    Attributes:
      values: values of the components, by their elem_id or label.
    """

    def __init__(self, address: str) -> None:
        self._api = f"{address}/gradio_api"
        self._session = uuid.uuid4().hex
        config = json.load(urllib.request.urlopen(f"{address}/config", timeout=9))
        self._events = config["dependencies"]
        self._names = {
            x["id"]: x["props"].get("elem_id") or x["props"].get("label") or x["id"]
            for x in config["components"]
        }
        self.values: dict[Any, Any] = {
            self._names[x["id"]]: x["props"].get("value") for x in config["components"]
        }

    def do(self, event: str, name: str | None = None) -> None:
        """Lets an event of a component happen, or of the page, with what follows."""
        found = [
            x
            for x in self._events
            for target, kind in x["targets"]
            if kind == event and name in (None, self._names.get(target))
        ]
        assert found, f"{name}: no {event}"
        for x in found:
            self._run(x)

    def upload(self, path: pathlib.Path) -> dict[str, Any]:
        """Uploads a file; the value of a component that has it."""
        boundary = self._session
        body = (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="files"; filename="{path.name}"\r\n\r\n'
        ).encode()
        body += path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        (found,) = self._post("upload", body, kind)
        meta = {"_type": "gradio.FileData"}
        return {"path": found, "orig_name": path.name, "meta": meta}

    def _run(self, event: dict[str, Any]) -> None:
        request = {
            "data": [self.values[self._names[x]] for x in event["inputs"]],
            "fn_index": event["id"],
            "session_hash": self._session,
        }
        if event["queue"]:
            self._post("queue/join", json.dumps(request).encode())
            output = self._wait()
        else:
            output = self._post("run/predict", json.dumps(request).encode())
        for component, value in zip(event["outputs"], output["data"], strict=True):
            if isinstance(value, dict) and value.get("__type__") == "update":
                if "value" not in value:
                    continue
                value = value["value"]
            self.values[self._names[component]] = value
        for then in self._events:
            if then["trigger_after"] == event["id"]:
                self._run(then)

    def _post(self, path: str, body: bytes, kind: str = "application/json") -> Any:
        request = urllib.request.Request(
            f"{self._api}/{path}", body, {"Content-Type": kind}
        )
        return json.load(urllib.request.urlopen(request, timeout=_PATIENCE))

    def _wait(self) -> dict[str, Any]:
        """The last output of the queue's event."""
        address = f"{self._api}/queue/data?session_hash={self._session}"
        for line in urllib.request.urlopen(address, timeout=_PATIENCE):
            if line.startswith(b"data:"):
                message = json.loads(line.removeprefix(b"data:"))
                if message["msg"] == "process_completed":
                    assert message["success"], message["output"]
                    return message["output"]
        raise AssertionError("the queue ended without an output")


@pytest.fixture
def visitor(address: str) -> Visitor:
    """A visitor who sees the first face."""
    visitor = Visitor(address)
    visitor.do("load")
    return visitor


def test_page_is_served_and_keeps_no_history(address: str) -> None:
    page = urllib.request.urlopen(address, timeout=9).read().decode()
    assert "<html" in page
    config = json.load(urllib.request.urlopen(f"{address}/config", timeout=9))
    assert config["title"] == "StyleCLIP"
    assert not config["analytics_enabled"]
    # gradio knows it since 6.24.
    assert not config.get("run_history")


def test_seeds_directions_and_photos_change_the_picture(
    visitor: Visitor, tmp_path: pathlib.Path
) -> None:
    first = visitor.values["before"]
    assert "data:image/png;base64," in first
    visitor.values["seed"] = 7
    visitor.do("input", "seed")
    assert visitor.values["before"] != first
    visitor.do("click", "direct")
    assert "a smiling face" in visitor.values["status"]
    moved = visitor.values["after"]
    visitor.values["strength"] = -3
    visitor.do("input", "strength")
    assert visitor.values["after"] != moved
    assert visitor.values["auto"] is False
    random = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(random).save(tmp_path / "me.png")
    seen = visitor.values["before"]
    visitor.values["upload"] = visitor.upload(tmp_path / "me.png")
    visitor.do("upload", "upload")
    assert visitor.values["before"] != seen
    # The note on the photo stays when the face is edited.
    assert "me.png: " in visitor.values["note"]
    visitor.do("click", "direct")
    assert "me.png: " in visitor.values["note"]


def test_optimization_ends_with_an_edit_that_is_saved(visitor: Visitor) -> None:
    visitor.values["Steps"] = 10
    visitor.do("click", "optimize")
    assert visitor.values["after"] != visitor.values["before"]
    visitor.do("click", "save")
    assert visitor.values["files"]["orig_name"] == "edit.zip"
