"""The web of a transport without sockets: requests go in as octets, answers come out as octets, time is a Clock's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock, Cooperator
from twisted.internet.testing import StringTransport

from proxy.config import Limits, checked
from proxy.config.web import WebOptions, WebServiceConfig
from proxy.peers import Peer
from proxy.web.site import WebSite

PIECES_MAX = 20
CLIENT = Peer("192.0.2.7", 40001)


@dataclass
class Answer:
    """An HTTP answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes
    repeated: list[tuple[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode("utf-8")


class RecordedPlane:
    """Takes what the web orders of the data plane."""

    def __init__(self) -> None:
        self.tunnels: list[tuple[int, int]] = []
        self.replies: list[tuple[int, bytes]] = []

    def tunnel(self, conn: int, fd: int) -> None:
        """See the data plane."""
        self.tunnels.append((conn, fd))

    def reply(self, conn: int, data: bytes) -> None:
        """See the data plane."""
        self.replies.append((conn, data))


class Channel(StringTransport):
    """What a channel of Twisted's is connected to: a peer of ours, and whether it was closed."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer = peer
        self.is_half_closed = False

    def loseWriteConnection(self) -> None:
        """See ITransport's half-closing."""
        self.is_half_closed = True


class Web:
    """A web site under test.

    :param paths: items of the configuration.
    :param options: likewise.
    :param folder: relative paths are relative to it.
    :param clock: instead of a plain one.
    :param keys: more attributes of the transport's model.
    """

    def __init__(
        self,
        paths: dict[str, Any],
        options: dict[str, Any] | None = None,
        folder: Path = Path(),
        clock: Any = None,
        **keys: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.plane = RecordedPlane()
        self.controller = SimpleNamespace(reactor=self.clock, cbdir=folder)
        self.transport: Any = SimpleNamespace(
            id="web1",
            label='transport "web1"',
            plane=self.plane,
            controller=self.controller,
            address="http://127.0.0.1:8080",
            websocket_at=lambda path: None,
            model=SimpleNamespace(limits=Limits(), endpoint=SimpleNamespace(), **keys),
        )
        models = {path: checked(WebServiceConfig, item, folder)[0] for path, item in paths.items()}
        self.site = WebSite(self.transport, models, WebOptions.model_validate(options or {}))
        self.failure: Any = None
        self.site.start().addErrback(lambda failure: setattr(self, "failure", failure))
        if self.failure is not None:
            self.failure.raiseException()

    def connect(self, peer: Peer = CLIENT) -> tuple[Any, Channel]:
        """A client: the channel that serves it, and its transport."""
        channel = self.site.http.buildProtocol(None)
        transport = Channel(peer)
        channel.makeConnection(transport)
        return channel, transport

    def send(self, data: bytes, peer: Peer = CLIENT) -> bytes:
        """What a client gets that sends these octets."""
        channel, transport = self.connect(peer)
        with self.cooperation():
            channel.dataReceived(data)
            for _ in range(PIECES_MAX):
                self.clock.advance(0)  # files go out piece by piece
        octets: bytes = transport.value()
        return octets

    def cooperation(self) -> Any:
        """While it lasts, Twisted's pull producers are asked by the clock, not by a reactor."""
        cooperator = Cooperator(scheduler=lambda work: self.clock.callLater(0, work))
        return patch("twisted.internet._producer_helpers.cooperate", cooperator.cooperate)

    def ask(
        self,
        path: str = "/",
        method: str = "GET",
        body: bytes = b"",
        peer: Peer = CLIENT,
        **headers: str,
    ) -> Answer:
        """Send a request; underlines in names of headers are dashes."""
        lines = [f"{method} {path} HTTP/1.1", "host: example.com"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"content-length: {len(body)}")
        data = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
        return parse(self.send(data, peer), method)


def parse(data: bytes, method: str = "GET") -> Answer:
    """Take one answer apart; nothing may follow it."""
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, data
    status_line, *lines = head.decode("latin-1").split("\r\n")
    repeated = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = dict(repeated)
    status = int(status_line.split()[1])
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunk(body)
    elif method != "HEAD" and status not in (204, 304):
        assert len(body) == int(headers["content-length"]), data
    else:
        assert not body, data
    return Answer(status, headers, body, repeated)


def _unchunk(data: bytes) -> bytes:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            assert data == b"\r\n"
            return body
        body += data[:length]
        data = data[length + 2 :]
