"""The guard: whose requests are answered, and what others are told."""

import asyncio
import socket
from typing import Any

import pytest

from styleclip_jax.app.guard import Guard, Hosts
from styleclip_jax.errors import UserError

OWN = "127.0.0.1:7860"
MB = 2**20


class Asked:
    """A request to a guarded application, and the answer.

    Attributes:
      log: lines of the log.
    """

    def __init__(
        self,
        headers: dict[str, str] | list[tuple[str, str]],
        *,
        method: str = "GET",
        path: str = "/",
        kind: str = "http",
        hosts: Hosts | None = None,
        has_room: bool = True,
        fails: bool = False,
    ) -> None:
        self.log: list[str] = []
        self.parts = 0
        self._sent: list[Any] = []
        pairs = headers.items() if isinstance(headers, dict) else headers

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            if fails:
                raise KeyError("9\x1b[2J")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a page"})

        async def receive() -> Any:
            # What was read, the last of two parts ends the body.
            self.parts += 1
            return {"type": "http.request", "body": b"a", "more_body": self.parts < 2}

        async def send(message: Any) -> None:
            self._sent.append(message)

        guard = Guard(
            answer,
            hosts or Hosts("127.0.0.1"),
            max_upload=MB,
            has_room=lambda size: has_room,
            advice="name it",
            tell=self.log.append,
        )
        scope = {
            "type": kind,
            "method": method,
            "path": path,
            "headers": [(k.lower().encode(), v.encode()) for k, v in pairs],
        }
        asyncio.run(guard(scope, receive, send))

    @property
    def status(self) -> int:
        return self._sent[0].get("status", self._sent[0].get("code"))

    @property
    def text(self) -> str:
        return self._sent[1]["body"].decode()

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self._sent[0]["headers"])


@pytest.mark.parametrize(
    "host", [OWN, "localhost", "LOCALHOST.:80", "[::1]:7860", "127.0.0.2"]
)
def test_loopback_names_open_a_page_of_this_machine_alone(host: str) -> None:
    # Any port, since tunnels have their own.
    assert Asked({"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:7860", "localhost.evil.example", "192.168.1.5"),
        *("", "127.0.0.1@evil.example", "127.0.0.1:7860:1", "0.0.0.0", "[::1", "a b"),
    ],
)
def test_other_names_are_refused(host: str) -> None:
    asked = Asked({"Host": host})
    assert asked.status == 421
    assert asked.text.count("\n") == 1
    assert "name it" in asked.text
    assert b"access-control-allow-origin" not in asked.headers


def test_one_host_is_named_once() -> None:
    assert Asked({}).status == 421
    assert Asked([("Host", OWN), ("Host", "evil.example")]).status == 421


def test_names_of_visitors_reach_no_terminal() -> None:
    text = Asked({"Host": "evil\x1b[2J" + 500 * "x"}).text
    assert "\x1b" not in text
    assert len(text) < 300


def test_a_page_for_others_goes_by_addresses_and_its_own_name() -> None:
    for listens in ("0.0.0.0", "::", "192.168.1.5"):
        hosts = Hosts(listens)
        own = socket.gethostname()
        for host in ("10.1.2.3:7860", "[fe80::1]", "localhost", own, f"{own}:7860"):
            assert hosts.has(host), (listens, host)
        assert not hosts.has("evil.example")
    assert Hosts("gpu-box").has("gpu-box:7860")


def test_added_names_open_the_page_and_may_frame_it() -> None:
    hosts = Hosts("127.0.0.1", ("hub.example", ".tunnel.example", "x.example:81"))
    for host in ("hub.example", "hub.example:9", "a.b.tunnel.example", "x.example:81"):
        assert hosts.has(host), host
    for host in ("a.hub.example", "eviltunnel.example", "x.example", "x.example:8"):
        assert not hosts.has(host), host
    # A proxy may keep its own name from the page.
    assert hosts.trusts("https://hub.example", OWN)
    assert not hosts.trusts("https://x.example", OWN)
    policy = Asked({"Host": OWN}, hosts=hosts).headers[b"content-security-policy"]
    assert policy.startswith(b"frame-ancestors 'self' http://hub.example:* https://hub")
    assert b" https://*.tunnel.example:* " in policy
    assert policy.endswith(b" https://x.example:81")


@pytest.mark.parametrize("name", ["https://hub.example", "", ".", "a b", "*", "x:y"])
def test_names_that_are_none_are_refused_at_the_start(name: str) -> None:
    with pytest.raises(UserError, match="allowed_hosts: expected names such as"):
        Hosts("127.0.0.1", (name,))


def test_nobody_else_may_frame_the_page() -> None:
    headers = Asked({"Host": OWN}).headers
    assert headers[b"content-security-policy"] == b"frame-ancestors 'self'"
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "http://127.0.0.1:3000", "file://", ""),
        *("http://localhost:7860", "http://127.0.0.1", f"ftp://{OWN}", OWN),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_sites_are_refused(origin: str, method: str) -> None:
    asked = Asked({"Host": OWN, "Origin": origin}, method=method, path="/upload")
    assert asked.status == 403
    assert "name it" in asked.text


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (OWN, f"http://{OWN}"),
        ("localhost:8080", "http://localhost:8080"),
        ("localhost", "http://localhost"),
        ("localhost:443", "https://localhost"),
        ("[::1]:7860", "http://[::1]:7860"),
    ],
)
def test_the_page_itself_is_answered(host: str, origin: str) -> None:
    headers = {"Host": host, "Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert Asked(headers, method="POST").status == 200


def test_other_sites_may_link_to_the_page_and_nothing_else() -> None:
    foreign = {"Host": OWN, "Sec-Fetch-Site": "cross-site"}
    link = foreign | {"Sec-Fetch-Mode": "navigate"}
    assert Asked(link).status == 200
    assert Asked(link, method="POST").status == 403
    assert Asked(foreign | {"Sec-Fetch-Mode": "no-cors"}).status == 403
    assert Asked({"Host": OWN, "Sec-Fetch-Site": "same-site"}).status == 403
    assert Asked({"Host": OWN, "Sec-Fetch-Site": "none"}).status == 200
    # A program that is no browser.
    assert Asked({"Host": OWN}, method="POST").status == 200


def test_connections_of_other_sites_are_closed_before_they_are_open() -> None:
    headers = {"Host": OWN, "Origin": "http://evil.example"}
    assert Asked(headers, kind="websocket").status == 1008
    assert Asked({"Host": "evil.example"}, kind="websocket").status == 1008


@pytest.mark.parametrize(
    ("headers", "has_room", "status"),
    [
        ({"Content-Length": str(MB)}, True, 200),
        ({"Content-Length": str(3 * MB)}, True, 413),
        ({"Content-Length": str(MB)}, False, 507),
        ({"Transfer-Encoding": "chunked"}, True, 411),
        ({"Content-Length": "-1"}, True, 411),
    ],
)
def test_uploads_have_limits(
    headers: dict[str, str], has_room: bool, status: int
) -> None:
    asked = Asked(
        {"Host": OWN} | headers, method="POST", path="/api/upload", has_room=has_room
    )
    assert asked.status == status
    assert asked.text.count("\n") <= 1
    # A browser sees the answer once it has sent all; what has no length has no end.
    assert asked.parts == (2 if status in (413, 507) else 0)


def test_what_cannot_be_answered_is_a_line_of_the_log() -> None:
    asked = Asked({"Host": OWN}, path="/x", fails=True)
    assert asked.status == 500
    assert asked.log == [r"GET /x: KeyError: '9\x1b[2J'"]
