"""A router that a test plays by hand: it listens, and the test says what each connection does.

Real routers show that the proxy works; this one shows what the proxy does when a router is slow, silent, wrong or dead.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from support.endpoints import Endpoint
from support.raw import SERIALIZERS, WELCOME, Peer, RawSocketPeer, WebSocketPeer, Wire, accept_key

ROUTER_ROLES: dict[str, Any] = {
    "broker": {"features": {"publisher_exclusion": True, "x_test_feature": True}},
    "dealer": {"features": {"progressive_call_results": True}},
}


class RefusedSerializer(Exception):
    """The stub has refused the serializer named."""


class StubRouter:
    """Listens on a Unix or TCP socket; every accept_*() call handles one connection of the proxy.

    :param endpoint: where to listen.
    :param backlog: 0 for a router that is up but does not take connections any more.
    :param speaks: serializers that it takes; others it refuses.
    :param takes: octets of the longest message that it announces over RawSocket, a power of two from 512.
    """

    def __init__(
        self, endpoint: Endpoint, backlog: int = 128, speaks: Sequence[str] = tuple(SERIALIZERS), takes: int = 1 << 24
    ) -> None:
        self.endpoint, self.speaks, self.takes = endpoint, speaks, takes
        family = socket.AF_UNIX if endpoint.path else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if not endpoint.path:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(endpoint.path or (endpoint.host, endpoint.port))
        self.sock.listen(backlog)
        self.sock.settimeout(15.0)
        self.last_head = b""
        self._open: list[socket.socket] = []

    def accept_wire(self) -> Wire:
        """Take a connection and do nothing with it."""
        sock, _ = self.sock.accept()
        self._open.append(sock)
        return Wire(sock)

    def accept(self) -> Peer:
        """Take a connection and shake hands as a router; the HELLO is not read yet."""
        wire = self.accept_wire()
        if self.endpoint.kind == "rawsocket":
            octets = wire.read(4)
            assert octets[0] == 0x7F, octets
            assert octets[2:] == b"\0\0", octets
            names = {number: name for name, number in SERIALIZERS.items()}
            name = names[octets[1] & 15]
            if name not in self.speaks:
                wire.write(b"\x7f\x10\0\0")
                wire.close()
                raise RefusedSerializer(name)
            wire.write(bytes([0x7F, (self.takes.bit_length() - 10) << 4 | octets[1] & 15, 0, 0]))
            return RawSocketPeer(wire, name, server=True)
        self.last_head = wire.read_head()
        fields = dict(line.split(": ", 1) for line in self.last_head.decode().split("\r\n")[1:-2])
        fields = {name.lower(): value for name, value in fields.items()}
        offered = [part.strip() for part in fields["sec-websocket-protocol"].split(",")]
        spoken = [name for name in offered if name.removeprefix("wamp.2.") in self.speaks]
        if not spoken:
            wire.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            wire.close()
            raise RefusedSerializer(offered[0].removeprefix("wamp.2."))
        protocol = spoken[0]
        wire.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_key(fields['sec-websocket-key'])}\r\n"
            f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n".encode()
        )
        return WebSocketPeer(wire, protocol.removeprefix("wamp.2."), server=True)

    def accept_hello(self) -> tuple[Peer, list[Any]]:
        """Take a connection, shake hands, read its HELLO."""
        peer = self.accept()
        return peer, peer.recv_type(1)

    def accept_session(self, session: int = 123456789012345, **details: Any) -> tuple[Peer, list[Any]]:
        """Take a connection and welcome it: (the router's end, the HELLO)."""
        peer, hello = self.accept_hello()
        welcome = {"roles": ROUTER_ROLES, "realm": hello[1], "authid": "stub", "authrole": "anonymous", **details}
        peer.send([WELCOME, session, welcome])
        peer.session = session
        return peer, hello

    def close(self) -> None:
        """Stop listening and drop every connection."""
        self.sock.close()
        for sock in self._open:
            sock.close()

    def __enter__(self) -> StubRouter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
