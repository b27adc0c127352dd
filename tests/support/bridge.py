"""A service of the HTTP bridge under a Twisted Site, in memory, with a service session whose router is the test."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from autobahn.wamp import message
from autobahn.wamp.role import RoleDealerFeatures
from pydantic import TypeAdapter
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Request, Site

from proxy.config.web import WebServiceConfig
from proxy.peers import Peer, TlsInfo
from proxy.service_attempts import ServiceSession
from proxy.web.services import SERVICES, create

KEY = "app1"
SECRET = "not to be told"


def signed(
    body: bytes, *, key: str = KEY, secret: str = SECRET, timestamp: str = "", seq: str = "1", nonce: str = ""
) -> str:
    """The query of a signed request, as Crossbar.io's clients make it."""
    timestamp = timestamp or datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    nonce = nonce or str(random.randint(0, 2**53))
    said = (key + timestamp + seq + nonce).encode() + body
    signature = base64.urlsafe_b64encode(hmac.new(secret.encode(), said, hashlib.sha256).digest()).decode()
    fields = {"timestamp": timestamp, "seq": seq, "key": key, "nonce": nonce, "signature": signature}
    return urlencode(fields)


@dataclass
class Response:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """The transport below a service session: writes down what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.error: Exception | None = None
        self.is_aborted = False

    def send(self, sent: Any) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(sent)

    def isOpen(self) -> bool:
        return True

    def abort(self) -> None:
        self.is_aborted = True


def make_session(*, cancels: bool = True) -> ServiceSession:
    """A joined service session over a Wire."""
    session = ServiceSession({}, lambda *_: None)  # type: ignore[arg-type]
    session._transport = Wire()
    session._session_id = 1
    session._router_roles = {"dealer": RoleDealerFeatures(call_canceling=cancels)}
    return session


class _Controller:
    """What the bridge needs of it; each who asks is given the first of ``sessions``, while there are others."""

    def __init__(self, sessions: list[Any]) -> None:
        self.sessions = sessions
        self.asked: list[tuple[str, str]] = []

    def get_service_session(self, realm: str, role: str) -> Deferred[Any]:
        self.asked.append((realm, role))
        given = self.sessions.pop(0) if len(self.sessions) > 1 else self.sessions[0]
        return succeed(given) if isinstance(given, ServiceSession) else given


@dataclass
class _Site:
    """What a service needs of its site."""

    controller: _Controller
    reactor: Clock
    label: str = 'transport "web1"'
    options: Any = None
    transport: Any = None


class _Request(Request):
    """Knows its peer, as those of a web transport do."""

    @property
    def peer(self) -> Peer:
        tls = TlsInfo("TLSv1.3", "", "", "", b"", b"", b"") if self.isSecure() else None
        return Peer(self.getClientAddress().host, 4711, tls=tls)

    def isSecure(self) -> bool:
        return isinstance(self.channel.transport, _Secure)


class _Secure(StringTransport):
    """Stands for TLS."""


@dataclass
class Bridge:
    """The service.

    :param type: of the service.
    :param options: of its item.
    :param sessions: what the controller hands out: sessions, or Deferreds.
    """

    type: str
    options: dict[str, Any] = field(default_factory=dict)
    sessions: list[Any] = field(default_factory=lambda: [make_session()])

    def __post_init__(self) -> None:
        item = {"type": self.type, "realm": "realm1", "role": "web", "options": self.options}
        config = TypeAdapter(WebServiceConfig).validate_python(item)
        assert self.type in SERVICES
        self.clock = Clock()
        self.controller = _Controller(self.sessions)
        self.service = create(_Site(self.controller, self.clock), "bridge", config)  # type: ignore[arg-type]
        self.site: Any = Site(self.service.resource, reactor=self.clock)  # type: ignore[arg-type]
        self.site.requestFactory = _Request

    @property
    def session(self) -> ServiceSession:
        return self.sessions[-1]

    @property
    def sent(self) -> list[Any]:
        """What the router got, since the last time."""
        wire = self.session._transport
        sent, wire.sent = wire.sent, []
        return sent

    def take(self, kind: type) -> Any:
        """The one message that the router got since the last time."""
        (said,) = self.sent
        assert isinstance(said, kind), said
        return said

    def ask(self, body: Any = b"", *, query: str = "", **keys: Any) -> Exchange:
        """Send a request; anything but octets goes as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Exchange(self, data, query, **keys)

    def answers(self, *args: Any, **keys: Any) -> Response:
        """Send a request, and expect the answer at once."""
        return self.ask(*args, **keys).response()


class Exchange:
    """A request, and its answer."""

    def __init__(
        self,
        bridge: Bridge,
        body: bytes,
        query: str,
        method: str = "POST",
        headers: dict[str, str | list[str]] | None = None,
        host: str = "192.0.2.7",
        path: str = "/bridge",
        *,
        is_secure: bool = False,
    ) -> None:
        self.bridge = bridge
        self.transport = (_Secure if is_secure else StringTransport)(peerAddress=IPv4Address("TCP", host, 4711))
        self.channel = bridge.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)
        lines = [f"{method} {path}{'?' if query else ''}{query} HTTP/1.1", "Host: example.com"]
        lines.append(f"Content-Length: {len(body)}")
        for name, value in (headers if headers is not None else {"Content-Type": "application/json"}).items():
            lines += [f"{name}: {item}" for item in (value if isinstance(value, list) else [value])]
        self.channel.dataReceived("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    @property
    def is_answered(self) -> bool:
        return bool(self.transport.value())

    def response(self) -> Response:
        """The answer, which must be there."""
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        assert head, "no answer yet"
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert len(body) == int(headers["content-length"])
        return Response(int(first.split()[1]), headers, body)

    def hang_up(self) -> None:
        """The client goes away."""
        self.channel.connectionLost(Failure(ConnectionDone()))


def result(session: ServiceSession, call: Any, *args: Any, **kwargs: Any) -> None:
    """The router answers a call."""
    session.onMessage(message.Result(call.request, args=list(args), kwargs=kwargs))


def error(session: ServiceSession, said: Any, uri: str, *args: Any, **kwargs: Any) -> None:
    """The router answers with an error."""
    session.onMessage(message.Error(said.MESSAGE_TYPE, said.request, uri, args=list(args), kwargs=kwargs))


__all__ = ["KEY", "SECRET", "Bridge", "Exchange", "Response", "error", "make_session", "result", "signed"]
