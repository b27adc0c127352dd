"""A data plane that only writes down what it is asked for, and a proxy on top of it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from proxy import _relay
from proxy.config import WorkerConfig
from proxy.controller import ProxyController
from proxy.entrances import Entrance
from proxy.messages import SER_CBOR, decode, encode
from proxy.plane import CLOSED_REFUSED, EV_CLOSED, EV_CONTROL, EV_MESSAGE, EV_OPEN, Owner

PEER = _relay.pack_sockaddr("192.0.2.7", 4711)
INTRO = bytes([len(PEER)]) + PEER + b"\0\0"
"""What the data plane says of a client that has connected without TLS, in front of an HTTP head."""
FRONT = 1_000_001
# Why a router's connection was closed: arg of EV_CLOSED.
REFUSED = CLOSED_REFUSED | 111 << 8  # ECONNREFUSED
HANDSHAKE_DROPPED = CLOSED_REFUSED | 1000 << 8
SERIALIZER_REFUSED = CLOSED_REFUSED | 1001 << 8
_TCP = {"type": "tcp", "interface": "127.0.0.1", "port": 0}
HELLO: list[Any] = [1, "realm1", {"roles": {"caller": {"features": {"call_canceling": True}}}, "agent": "tester"}]
WELCOME_DETAILS: dict[str, Any] = {
    "roles": {"broker": {"features": {"publisher_exclusion": True}}, "dealer": {}},
    "realm": "realm1",
    "authid": "joe",
    "authrole": "anonymous",
    "authmethod": "anonymous-proxy",
    "authprovider": "static",
    "authextra": {"x_cb_node": "node1", "transport": {"peer": "tcp4:192.0.2.7:4711"}, "proxy_authid": "joe"},
    "x_cb_pid": 17,
}


class FakePlane:
    """Records commands as tuples ``(name, *arguments)``, keywords (if any) as a dict behind the arguments."""

    threads = 2

    def __init__(self) -> None:
        self.owners: dict[int, Owner] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.params: list[dict[str, Any]] = []
        self.tls: list[dict[str, Any]] = []
        self.realms: list[str] = []
        self.spoken: dict[int, int] = {}  # by token: serializer of a router's connection
        self.on_idle: Callable[[], None] | None = None
        self._number = 0

    def add_owner(self, owner: Owner) -> int:
        self._number += 1
        self.owners[self._number] = owner
        return self._number

    def drop_owner(self, number: int) -> None:
        if self.owners.pop(number, None) is not None and not self.owners and self.on_idle is not None:
            self.on_idle()

    @property
    def is_idle(self) -> bool:
        return not self.owners

    def add_params(self, **options: Any) -> int:
        self.params.append(options)
        return len(self.params)

    def add_tls(self, **options: Any) -> int:
        self.tls.append(options)
        return len(self.tls)

    def stats(self, index: int) -> dict[str, int]:
        """Counters of a data thread; it has relayed nothing."""
        return {"connections": 0, "thread": index}

    def add_realm(self, name: str) -> int:
        """Numbers from 1, as the relay has them."""
        if name not in self.realms:
            self.realms.append(name)
        return self.realms.index(name) + 1

    def listen(self, fd: int, number: int, params: int, max_connections: int) -> None:
        """The data plane owns the socket from now on."""
        os.close(fd)
        self.calls.append(("listen", number, params, max_connections))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)

        def command(*arguments: Any, **keywords: Any) -> None:
            if name == "dial":
                self.spoken[arguments[1]] = arguments[3]
            self.calls.append((name, *arguments, keywords) if keywords else (name, *arguments))

        return command

    def take(self) -> list[tuple[Any, ...]]:
        """The commands since the last time."""
        calls, self.calls = self.calls, []
        return calls


class Rig:
    """A proxy with one RawSocket transport over a FakePlane, one client connection, and the routers' side by hand.

    :param connections: how many there are for realm1 and role anonymous, all in one route: ``one``, ``two``, ...
    :param websocket: the routers speak WebSocket instead of RawSocket.
    :param serializer: the clients'.
    :param session_ids: option of the transport.
    :param router: more keys of the backend transports.
    :param anonymous: the routers are joined as by an ordinary client.
    :param auth: of the transport.
    :param backend: more keys of the connections.
    """

    def __init__(
        self,
        connections: int = 1,
        *,
        websocket: bool = False,
        serializer: int = SER_CBOR,
        session_ids: str = "router",
        router: dict[str, Any] | None = None,
        anonymous: bool = False,
        auth: dict[str, Any] | None = None,
        backend: dict[str, Any] | None = None,
        **limits: int,
    ) -> None:
        ids = ["one", "two", "three"][:connections]
        endpoint = {"type": "unix", "path": "/run/router.sock"}
        unix: dict[str, Any] = {"transport": {"type": "rawsocket", "endpoint": endpoint}}
        if websocket:
            unix = {"transport": {"type": "websocket", "url": "ws://router:8080/ws", "endpoint": endpoint}}
        unix["transport"].update(router or {})
        if anonymous:
            unix["auth"] = {"anonymous": {}}
        unix.update(backend or {})
        self.serializer = serializer
        self.plane = FakePlane()
        self.clock = Clock()
        self.events: list[tuple[Any, ...]] = []
        self.controller = ProxyController(
            None, self.clock, plane=self.plane, worker_id="worker001", node_id="node7", public_key="ab" * 32
        )
        config: dict[str, Any] = {
            "connections": dict.fromkeys(ids, unix),
            "routes": {"realm1": {"anonymous": ids}, "other": {"backend": ids}},
            "transports": [
                {
                    "type": "rawsocket",
                    "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": 0},
                    "session_ids": session_ids,
                    "auth": auth,
                    "limits": limits,
                }
            ],
        }
        self.controller.boot(WorkerConfig.model_validate(config))
        self.transport = self.controller.transports["transport000"]
        self.plane.take()
        self.controller.carriers.append(self)

    @property
    def entrance(self) -> Entrance:
        """The way in at the transport."""
        assert self.transport.entrance is not None
        return self.transport.entrance

    def publish_event(self, topic: str, args: tuple[Any, ...], exclude: int | None, acknowledge: bool) -> None:
        """See :class:`proxy.management.session.Carrier`. Into ``events`` go the last part of the topic, and args."""
        self.events.append((topic.rpartition(".")[2], *args))

    def published(self, name: str) -> list[Any]:
        """First arguments of the events of this name."""
        return [args[0] for topic, *args in self.events if topic == name]

    # --- the client ---

    def open(self, conn: int = FRONT) -> None:
        """The client connects."""
        self.front(EV_OPEN, self.serializer, INTRO, conn=conn)

    def front(self, kind: int, arg: int = 0, data: bytes = b"", conn: int = FRONT) -> None:
        """An event of the client's connection."""
        self.transport.on_event(kind, conn, arg, data)

    def says(self, message: list[Any], kind: int = EV_MESSAGE, conn: int = FRONT) -> None:
        """A message of the client."""
        self.front(kind, message[0], encode(self.serializer, message), conn)

    def log_in(
        self, conn: int, back_sid: int, authid: str = "joe", authrole: str = "anonymous", realm: str = "realm1"
    ) -> int:
        """One more client connects and logs in; the token of the router's connection.

        :param back_sid: the session ID that the router gives.
        :param authid: what the router calls the client; ``authrole`` likewise.
        """
        self.open(conn)
        self.says([1, realm, HELLO[2]], conn=conn)
        token, _ = self.dialled()
        self.answers(token, [2, back_sid, {**WELCOME_DETAILS, "authid": authid, "authrole": authrole, "realm": realm}])
        self.plane.take()
        assert self.transport.sessions[conn].state.name == "ESTABLISHED"  # type: ignore[union-attr]
        return token

    @property
    def state(self) -> str:
        """The session's state; CLOSED once the transport has forgotten it."""
        session = self.transport.sessions.get(FRONT)
        return "CLOSED" if session is None else session.state.name  # type: ignore[union-attr]

    # --- the router ---

    def dialled(self) -> tuple[int, list[Any]]:
        """Token and HELLO of the one dial command since the last look."""
        dials = [call for call in self.plane.take() if call[0] == "dial"]
        assert len(dials) == 1
        return dials[0][2], decode(dials[0][4], dials[0][7])

    def back(self, token: int, kind: int, arg: int = 0, data: bytes = b"") -> None:
        """An event of a router's connection, whose number is made of its token."""
        self.plane.owners[token].on_event(kind, back_conn(token), arg, data)

    def answers(self, token: int, message: list[Any], kind: int = EV_MESSAGE) -> None:
        """A message of the router."""
        self.back(token, kind, message[0], encode(self.plane.spoken[token], message))

    def join(self) -> int:
        """Client and router go through the whole login; the token of the router's connection."""
        self.open()
        self.says(HELLO)
        token, _ = self.dialled()
        self.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
        self.plane.take()
        assert self.state == "ESTABLISHED"
        return token

    # --- what the proxy did ---

    def did(self) -> list[tuple[Any, ...]]:
        """Commands since the last look, with messages decoded."""
        return [
            (name, arguments[0], self.read(*arguments)) if name == "send" else (name, *arguments)
            for name, *arguments in self.plane.take()
        ]

    def read(self, conn: int, octets: bytes) -> list[Any]:
        """A message that was sent to a connection."""
        return decode(self.plane.spoken.get(conn - back_conn(0), self.serializer), octets)


def back_conn(token: int) -> int:
    """Number of the connection that was dialled under a token."""
    return 2_000_000 + token


def connection_of(rig: Rig, token: int) -> str:
    """ID of the connection that was dialled under a token."""
    connection_id: str = rig.plane.owners[token].connection.id  # type: ignore[attr-defined]
    return connection_id


def abort_of(rig: Rig) -> tuple[str, str]:
    """Reason and message of the ABORT that the client got."""
    (_, conn, (code, details, reason)), close = rig.did()
    assert (conn, code, close) == (FRONT, 3, ("close", FRONT, 1000))
    return reason, details["message"]


def upgrade_response(request: bytes, subprotocol: str) -> bytes:
    """What a router answers to the upgrade request (RFC 6455 4.2.2), behind the octet that EV_HEAD begins with."""
    match = re.search(rb"(?i)sec-websocket-key: (\S+)", request)
    assert match is not None
    accept = base64.b64encode(hashlib.sha1(match[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += f"Sec-WebSocket-Protocol: {subprotocol}\r\nSec-WebSocket-Accept: {accept.decode()}\r\n\r\n"
    return b"\0" + head.encode()


__all__ = [
    "EV_CLOSED",
    "EV_CONTROL",
    "FRONT",
    "HANDSHAKE_DROPPED",
    "HELLO",
    "INTRO",
    "PEER",
    "REFUSED",
    "SERIALIZER_REFUSED",
    "WELCOME_DETAILS",
    "FakePlane",
    "Rig",
    "abort_of",
    "back_conn",
    "connection_of",
    "upgrade_response",
]
