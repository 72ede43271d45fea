"""The page of styleclip-app without a browser: it is served, and its events answer."""

import json
import pathlib
import signal
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.app.conftest import NUM_WAITING, App

pytest.importorskip("gradio", reason="needs gradio: the extra app")

pytestmark = pytest.mark.slow

_PATIENCE = 120


class Visitor:
    """A visitor who does what the page's own script does.

    Attributes:
      values: values of the components, by their elem_id or label.
    """

    def __init__(self, address: str) -> None:
        self._api, self._origin = f"{address}/gradio_api", address
        self._session = uuid.uuid4().hex
        about = urllib.request.urlopen(f"{address}/config", timeout=_PATIENCE)
        config = json.load(about)
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
            for kind, target in self._targets(x)
            if kind == event and name in (None, target)
        ]
        assert found, f"{name}: no {event}"
        for x in found:
            self._run(x)

    def ask(self, event: str, name: str, path: str = "queue/join") -> int:
        """Asks for an event without waiting for it; the status of the answer."""
        (found,) = (x for x in self._events if [event, name] in self._targets(x))
        try:
            self._post(path, json.dumps(self._request(found)).encode())
        except urllib.error.HTTPError as error:
            return error.code
        return 200

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

    def _targets(self, event: dict[str, Any]) -> list[list[Any]]:
        """What happens to which components."""
        return [[kind, self._names.get(x)] for x, kind in event["targets"]]

    def _request(self, event: dict[str, Any]) -> dict[str, Any]:
        return {
            "data": [self.values[self._names[x]] for x in event["inputs"]],
            "fn_index": event["id"],
            "session_hash": self._session,
        }

    def _run(self, event: dict[str, Any]) -> None:
        request = self._request(event)
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
            f"{self._api}/{path}",
            body,
            # As the page's own script, which is answered.
            {"Content-Type": kind, "Origin": self._origin},
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
    page = urllib.request.urlopen(address, timeout=_PATIENCE).read().decode()
    assert "<html" in page
    config = json.load(urllib.request.urlopen(f"{address}/config", timeout=_PATIENCE))
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
    visitor.values["upload"] = [visitor.upload(tmp_path / "me.png")]
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


def test_other_sites_get_nothing(address: str) -> None:
    foreign = {"Host": "evil.example"}, {"Origin": "http://evil.example"}
    for headers, status in zip(foreign, (421, 403), strict=True):
        for path, body in (("/config", None), ("/gradio_api/upload", b"x")):
            request = urllib.request.Request(address + path, body, headers)
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(request, timeout=_PATIENCE)
            assert error.value.code == status
            assert "Access-Control-Allow-Origin" not in error.value.headers
            assert "--allowed_hosts" in error.value.read().decode()
    page = urllib.request.urlopen(address, timeout=_PATIENCE)
    assert page.headers["Content-Security-Policy"] == "frame-ancestors 'self'"


def test_wrong_values_are_a_line_for_the_caller_and_one_in_the_log(
    visitor: Visitor, app: App, tmp_path: pathlib.Path
) -> None:
    before = len(app.log.read_text().splitlines())
    visitor.values["Steps"] = "many"
    with pytest.raises(AssertionError, match="Steps: expected a number from 10 to 500"):
        visitor.do("click", "optimize")
    # A file of the machine is no upload.
    meta = {"_type": "gradio.FileData"}
    visitor.values["upload"] = [{"path": __file__, "meta": meta}]
    with pytest.raises(AssertionError, match="Upload photos: expected an uploaded"):
        visitor.do("upload", "upload")
    (tmp_path / "large.png").write_bytes(bytes(3 * 2**20))
    with pytest.raises(urllib.error.HTTPError, match="413"):
        visitor.upload(tmp_path / "large.png")
    # An event that is none.
    request = urllib.request.Request(
        f"{app.address}/gradio_api/queue/join",
        b'{"data": [], "fn_index": 999, "session_hash": "a"}',
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError, match="500"):
        urllib.request.urlopen(request, timeout=_PATIENCE)
    # The line comes behind the answer.
    until = time.monotonic() + _PATIENCE
    while len(lines := app.log.read_text().splitlines()[before:]) < 3:
        assert time.monotonic() < until, lines
        time.sleep(0.05)
    assert [line.partition(":")[0] for line in lines] == [
        *("refused", "refused", "POST /gradio_api/queue/join")
    ]


def test_ctrl_c_ends_a_full_queue_in_a_line(visitor: Visitor, app: App) -> None:
    visitor.values["Steps"] = 500
    codes = [visitor.ask("click", "optimize") for _ in range(NUM_WAITING + 3)]
    assert codes[0] == 200
    assert codes[-1] == 503
    # Nor does a request go past the queue.
    assert visitor.ask("click", "optimize", "run/predict") == 404
    app.process.send_signal(signal.SIGINT)
    assert app.process.wait(5) == 130
    assert app.log.read_text().splitlines()[-1] == "interrupted"
