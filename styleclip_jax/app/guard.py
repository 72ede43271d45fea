"""Guard of the page: an ASGI application that refuses what other sites ask for.

A browser carries requests of any site that it shows, also to a program that listens to
this machine alone. Two headers tell whose they are:

- Host is the name that the visitor's browser has for the page. A site may let its own
  name point at this machine (DNS rebinding), and is then the page's own site to the
  browser; its name in Host gives it away.
- Origin is the site that asks, Sec-Fetch-Site how it is related to the page.
"""

import dataclasses
import ipaddress
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

from styleclip_jax import errors
from styleclip_jax.app import storage
from styleclip_jax.errors import UserError

# Types of an ASGI application.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
# Bytes of a request beside its file.
_ENVELOPE = 2**20
# Refusals of what the page's own visitors send, and bytes of it that are read at most.
_TOO_MUCH, _DROPPED = (413, 507), 2**30
# Letters of what a visitor sent that are shown.
_LONGEST = 100


def bracketed(host: str) -> str:
    """Host as an address of the web has it: with brackets around one of IPv6."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


class _Authority(NamedTuple):
    """Name or address of a server, and its port; None for the scheme's own."""

    name: str
    port: int | None

    def is_at(self, other: "_Authority", scheme: str) -> bool:
        """Whether it is another one, where a port that is absent is the scheme's."""
        own, others = (x.port or _PORTS[scheme] for x in (self, other))
        return self.name == other.name and own == others


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Hosts that the page may be opened by.

    Loopback names are always among them. Where the program listens to other machines,
    so are the machine's name and all addresses, since rebinding needs a name.

    Attributes:
      host: name or address that the program listens at.
      allowed_hosts: further names, such as those of a proxy, each alone or with a port;
        a dot before a name stands for all names that end so.
    """

    host: str
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Each is read, and refused if it is no name.
        list(self._added())

    def has(self, host: str) -> bool:
        """Whether the header Host has a name of the page."""
        found = _parse(host)
        if found is None:
            return False
        if _is_loopback(found.name) or self._is_added(found):
            return True
        own = _parse(bracketed(self.host))
        if own is not None and own.name == found.name:
            return True
        if own is not None and _is_loopback(own.name):
            return False
        return (
            _address(found.name) is not None
            or found.name == socket.gethostname().lower()
        )

    def trusts(self, origin: str, host: str) -> bool:
        """Whether the header Origin is the page's own site, or that of an added name.

        Args:
          origin: the header Origin.
          host: the header Host of the same request.
        """
        scheme, _, rest = origin.partition("://")
        found, own = _parse(rest), _parse(host)
        if scheme not in _PORTS or found is None or own is None:
            return False
        return found.is_at(own, scheme) or self._is_added(found)

    @property
    def sources(self) -> str:
        """Sites that may frame the page, as Content-Security-Policy has them."""
        found = ["'self'"]
        for is_below, (name, port) in self._added():
            names = (name, f"*.{name}") if is_below else (name,)
            port_text = "*" if port is None else port
            found += [f"{s}://{x}:{port_text}" for s in _PORTS for x in names]
        return " ".join(found)

    def _is_added(self, found: _Authority) -> bool:
        return any(
            added.port in (None, found.port)
            and (
                found.name == added.name
                or (is_below and found.name.endswith(f".{added.name}"))
            )
            for is_below, added in self._added()
        )

    def _added(self) -> Iterator[tuple[bool, _Authority]]:
        """Added names, and whether each stands for those that end so too."""
        for entry in self.allowed_hosts:
            added = _parse(entry.removeprefix("."))
            if added is None:
                raise UserError(
                    "allowed_hosts: expected names such as example.org or "
                    f"example.org:8080, found {entry!r}",
                    field="allowed_hosts",
                )
            yield entry.startswith("."), added


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of what visitors ask for.

    Attributes:
      max_upload_mb: Size of the largest photo that is taken, in MB.
      max_queue: Number of edits that may wait; who comes later is told so.
      max_disk_mb: Size of all uploads and pictures on the disk, in MB. They are removed
        after an hour, and sooner where they fill the disk.
      max_tuned_mb: Size of all generators tuned to photos that are kept in memory, in
        MB; those used longest ago go first. One of 1024² takes 60.
    """

    max_upload_mb: int = dataclasses.field(default=20, metadata={"lower_bound": 1})
    max_queue: int = dataclasses.field(default=20, metadata={"lower_bound": 1})
    max_disk_mb: int = dataclasses.field(default=2000, metadata={"lower_bound": 1})
    max_tuned_mb: int = dataclasses.field(default=1000, metadata={"lower_bound": 1})

    @property
    def max_upload(self) -> int:
        """Bytes of the largest photo that is taken."""
        return self.max_upload_mb * 2**20

    @property
    def max_disk(self) -> int:
        """Bytes of all uploads and pictures on the disk."""
        return self.max_disk_mb * 2**20

    @property
    def max_tuned(self) -> int:
        """Bytes of all tuned generators that are kept."""
        return self.max_tuned_mb * 2**20


class _Refusal(NamedTuple):
    """Refusal of a request: its status, and a sentence for people."""

    status: int
    text: str


class Guard:
    """Guard in front of an application.

    What the application raises is one line in the log and the status 500.
    """

    def __init__(
        self,
        application: Application,
        hosts: Hosts,
        *,
        max_upload: int,
        has_room: Callable[[int], bool],
        advice: str,
        tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        """Puts a guard before an application.

        Args:
          application: what answers requests that are not refused.
          hosts: hosts of the page.
          max_upload: number of bytes of an upload, of all its files.
          has_room: whether so many more bytes fit on the disk.
          advice: what to do to let another name in, for people.
          tell: takes lines of the log.
        """
        self._application, self._hosts = application, hosts
        self._max_upload, self._has_room = max_upload, has_room
        self._advice, self._tell = advice, tell
        self._headers = [
            (b"content-security-policy", f"frame-ancestors {hosts.sources}".encode()),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        refusal = self._judge(scope)
        if refusal is not None:
            if refusal.status in _TOO_MUCH:
                await _drop(receive)
            await self._refuse(scope, send, refusal)
            return
        is_begun = False

        async def send_safely(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        try:
            await self._application(scope, receive, send_safely)
        except Exception as error:
            about = f"{type(error).__name__}: {error}"
            line = f"{scope.get('method', 'websocket')} {scope['path']}: {about}"
            self._tell(_shown(line, 5 * _LONGEST))
            if not is_begun:
                await self._refuse(
                    scope, send, _Refusal(500, "This request could not be answered.")
                )

    def _judge(self, scope: Scope) -> _Refusal | None:
        """Refusal of a request; None for one that is answered."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(
                value.decode("latin-1")
            )
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._hosts.has(hosts[0]):
            found = _shown(", ".join(hosts)) or "no name"
            return _Refusal(
                421,
                f"This page does not go by the name {found}. Open it by its own "
                f"address; or, to let this name in, {self._advice}.",
            )
        origins = headers.get("origin", [])
        is_trusted = [self._hosts.trusts(x, hosts[0]) for x in origins]
        if not all(is_trusted):
            return _Refusal(
                403,
                f"The site {_shown(', '.join(origins))} may not use this page; to let "
                f"it in, {self._advice}.",
            )
        if not is_trusted and not _is_own_or_link(scope, headers):
            return _Refusal(
                403,
                "Another site asked for this. Open the page by its own address; or, "
                f"to let that site in, {self._advice}.",
            )
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            return self._weigh(scope, headers)
        return None

    def _weigh(self, scope: Scope, headers: dict[str, list[str]]) -> _Refusal | None:
        """Refusal of a request whose body is too large for the page or the disk."""
        length = "".join(headers.get("content-length", ["0"]))
        if "transfer-encoding" in headers or not length.isdecimal():
            return _Refusal(411, "This request does not say how long it is.")
        if int(length) > self._max_upload + _ENVELOPE:
            return _Refusal(
                413,
                "This upload is too large: the page takes up to "
                f"{self._max_upload // 2**20} MB.",
            )
        if scope["path"].rstrip("/").endswith("/upload") and not self._has_room(
            int(length)
        ):
            return _Refusal(507, f"{storage.FULL}.")
        return None

    async def _refuse(self, scope: Scope, send: Send, refusal: _Refusal) -> None:
        if scope["type"] == "websocket":
            # A server answers 403 to a connection that is closed before it is open.
            await send({"type": "websocket.close", "code": 1008})
            return
        body = f"{refusal.text}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            # What is left of the body is not read.
            (b"connection", b"close"),
            *self._headers,
        ]
        start = {"type": "http.response.start", "status": refusal.status}
        await send(start | {"headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _drop(receive: Receive) -> None:
    """Reads a body for nothing: browsers see no answer before they have sent it."""
    left, more = _DROPPED, True
    while more and left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        more = message.get("more_body", False)


def _is_own_or_link(scope: Scope, headers: dict[str, list[str]]) -> bool:
    """Whether a request without Origin is the page's own, or follows a link to it.

    Programs that are no browsers send no Sec-Fetch-Site.
    """
    if set(headers.get("sec-fetch-site", [])) <= {"same-origin", "none"}:
        return True
    is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return is_read and headers.get("sec-fetch-mode") == ["navigate"]


def _parse(text: str) -> _Authority | None:
    """Authority of "name" or "name:port"; None for something else."""
    found = _AUTHORITY.fullmatch(text.strip().lower())
    if found is None:
        return None
    name, port = found.groups()
    return _Authority(name.removesuffix("."), None if port is None else int(port))


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Address of its text, in which one of IPv6 has brackets; None for a name."""
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    """Whether a name leads to this machine in every browser."""
    address = _address(name)
    return name == "localhost" if address is None else address.is_loopback


def _shown(text: str, longest: int = _LONGEST) -> str:
    """Text of a visitor for people: short, and without control characters."""
    return errors.cut(errors.printable(text), longest)
