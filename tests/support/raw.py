"""A small blocking WAMP peer that sends exactly the octets a test asks for.

It is written against the specifications (RFC 6455, WAMP RawSocket), not against the proxy's own codecs, so that a
misreading there cannot hide. The same classes play the client in front of the proxy and the router behind it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cbor2
import msgpack

from support import rare
from support.endpoints import Endpoint

SERIALIZERS = {"json": 1, "msgpack": 2, "cbor": 3, **rare.SERIALIZERS}
OP_CONT, OP_TEXT, OP_BINARY, OP_CLOSE, OP_PING, OP_PONG = 0, 1, 2, 8, 9, 10
RS_MESSAGE, RS_PING, RS_PONG = 0, 1, 2
HELLO, WELCOME, ABORT, CHALLENGE, AUTHENTICATE, GOODBYE, ERROR = 1, 2, 3, 4, 5, 6, 8
PUBLISH, PUBLISHED, SUBSCRIBE, SUBSCRIBED, UNSUBSCRIBE, UNSUBSCRIBED, EVENT = 16, 17, 32, 33, 34, 35, 36
CALL, CANCEL, RESULT, REGISTER, REGISTERED, UNREGISTER, UNREGISTERED = 48, 49, 50, 64, 65, 66, 67
INVOCATION, INTERRUPT, YIELD = 68, 69, 70
WS_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TIMEOUT = 15.0

CLIENT_ROLES: dict[str, Any] = {
    "caller": {"features": {"caller_identification": True, "call_canceling": True, "progressive_call_results": True}},
    "callee": {"features": {"caller_identification": True, "call_canceling": True, "progressive_call_results": True}},
    "publisher": {"features": {"publisher_identification": True, "subscriber_blackwhite_listing": True}},
    "subscriber": {"features": {"publisher_identification": True}},
}


def encode(serializer: str, message: Any) -> bytes:
    """One value in the given serializer, as short as it goes."""
    if serializer == "json":
        return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    if serializer == "msgpack":
        return bytes(msgpack.packb(message, use_bin_type=True))
    if serializer in rare.SERIALIZERS:
        return rare.encode(serializer, message)
    return cbor2.dumps(message)


def decode(serializer: str, data: bytes) -> Any:
    """The value that ``data`` holds in the given serializer."""
    if serializer == "json":
        return json.loads(data)
    if serializer == "msgpack":
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    if serializer in rare.SERIALIZERS:
        return rare.decode(serializer, data)
    return cbor2.loads(data)


def hello(realm: str = "realm1", **details: Any) -> list[Any]:
    """A HELLO as an anonymous client sends it."""
    return [HELLO, realm, {"roles": CLIENT_ROLES, "authmethods": ["anonymous"], **details}]


class PeerClosed(Exception):
    """The other side ended the connection.

    :param how: ``eof``, ``reset`` or ``close`` (a WebSocket close frame came first).
    :param code: WebSocket close code or None.
    """

    def __init__(self, how: str, code: int | None = None, reason: str = "") -> None:
        super().__init__(f"{how} code={code} reason={reason!r}")
        self.how, self.code, self.reason = how, code, reason


class HandshakeRefused(Exception):
    """The handshake was answered by a refusal; ``answer`` holds its octets (HTTP response or RawSocket error)."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(repr(answer[:200]))
        self.answer = answer


class Wire:
    """A socket with a receive buffer and a deadline for every read."""

    def __init__(self, sock: socket.socket, timeout: float = TIMEOUT) -> None:
        self.sock = sock
        self.buffer = bytearray()
        sock.settimeout(timeout)

    def fill(self) -> None:
        """Read once; raises PeerClosed at the end of the stream, TimeoutError when nothing comes."""
        try:
            data = self.sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise PeerClosed("reset") from error
        if not data:
            raise PeerClosed("eof")
        self.buffer += data

    def read(self, count: int) -> bytes:
        """Exactly ``count`` octets."""
        while len(self.buffer) < count:
            self.fill()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def read_head(self) -> bytes:
        """An HTTP head including its empty line."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self.fill()
        return self.read(end + 4)

    def read_all(self) -> bytes:
        """Everything until the peer ends the connection."""
        try:
            while True:
                self.fill()
        except PeerClosed:
            data = bytes(self.buffer)
            self.buffer.clear()
            return data

    def write(self, data: bytes) -> None:
        """Send all of ``data``; raises PeerClosed when the peer is gone."""
        try:
            self.sock.sendall(data)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise PeerClosed("reset") from error

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def reset(self) -> None:
        """Close with RST instead of FIN (TCP only)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Peer:
    """One WAMP endpoint over a handshaken connection; see the subclasses for the framing."""

    kind = ""

    def __init__(self, wire: Wire, serializer: str, server: bool = False) -> None:
        self.wire, self.serializer, self.server = wire, serializer, server
        self.session = 0
        self.welcome: list[Any] = []
        self.recorded: list[list[Any]] | None = None
        self._request = 0

    # --- framing, by the subclasses ---
    def frame(self, payload: bytes) -> bytes:
        """The octets of one message frame."""
        raise NotImplementedError

    def ping_frame(self, payload: bytes) -> bytes:
        """The octets of a ping."""
        raise NotImplementedError

    def recv_payload(self) -> bytes:
        """The next message's payload; pings are answered on the way."""
        raise NotImplementedError

    # --- messages ---
    def send_raw(self, payload: bytes) -> None:
        """Send ``payload`` as one message, whatever it holds."""
        self.wire.write(self.frame(payload))

    def send(self, *messages: Any) -> None:
        """Send messages, all in one write."""
        self.wire.write(b"".join(self.frame(encode(self.serializer, message)) for message in messages))

    def recv(self) -> list[Any]:
        """The next WAMP message."""
        message: list[Any] = decode(self.serializer, self.recv_payload())
        if self.recorded is not None:
            self.recorded.append(message)
        return message

    def recv_type(self, *types: int) -> list[Any]:
        """The next WAMP message, which must be of one of ``types``."""
        message = self.recv()
        assert message[0] in types, f"expected message type {types}, got {message!r}"
        return message

    def recv_end(self) -> tuple[list[list[Any]], PeerClosed]:
        """All messages until the connection ends, and how it ended; our end is closed then, too."""
        messages = []
        try:
            while True:
                messages.append(self.recv())
        except PeerClosed as closed:
            return messages, closed
        finally:
            self.close()

    # --- WAMP as a client ---
    def join(self, realm: str = "realm1", **details: Any) -> Peer:
        """HELLO, WELCOME; raises AssertionError when anything else is answered."""
        self.send(hello(realm, **details))
        self.welcome = self.recv_type(WELCOME)
        self.session = self.welcome[1]
        self._request = 0
        return self

    def request(self) -> int:
        """The next request ID of this session."""
        self._request += 1
        return self._request

    def call(self, procedure: str, *args: Any, **kwargs: Any) -> Any:
        """CALL and the first result; an ERROR raises AssertionError."""
        request = self.request()
        self.send([CALL, request, {}, procedure, list(args), kwargs])
        result = self.recv_type(RESULT)
        assert result[1] == request
        return result[3][0] if len(result) > 3 and result[3] else None

    def register(self, procedure: str, **options: Any) -> int:
        """REGISTER; the registration's ID."""
        self.send([REGISTER, self.request(), options, procedure])
        return int(self.recv_type(REGISTERED)[2])

    def subscribe(self, topic: str, **options: Any) -> int:
        """SUBSCRIBE; the subscription's ID."""
        self.send([SUBSCRIBE, self.request(), options, topic])
        return int(self.recv_type(SUBSCRIBED)[2])

    def goodbye(self, reason: str = "wamp.close.close_realm") -> list[Any]:
        """GOODBYE and its answer; whatever comes before the answer is dropped."""
        self.send([GOODBYE, {}, reason])
        while (message := self.recv())[0] != GOODBYE:
            assert message[0] != ABORT, f"GOODBYE was answered with {message!r}"
        return message

    def leave(self) -> None:
        """GOODBYE handshake, then close the connection in order."""
        self.goodbye()
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.wire.close()

    def expect_silence(self, seconds: float) -> None:
        """Assert that nothing arrives and the connection stays open."""
        self.wire.sock.settimeout(seconds)
        try:
            raise AssertionError(f"expected silence, got {self.recv()!r}")
        except TimeoutError:
            pass
        finally:
            self.wire.sock.settimeout(TIMEOUT)


def mask(payload: bytes, key: bytes) -> bytes:
    """RFC 6455 5.3, by way of two big integers."""
    count = len(payload)
    pad = (key * (count // 4 + 1))[:count]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(count, "big")


class WebSocketPeer(Peer):
    """RFC 6455 without extensions."""

    kind = "websocket"
    auto_pong = True
    last_rsv = 0
    """The reserved bits of the last data frame that was received."""

    def ws_frame(
        self, opcode: int, payload: bytes, fin: bool = True, masked: bool | None = None, rsv: int = 0
    ) -> bytes:
        """One frame; clients mask unless told otherwise."""
        masked = not self.server if masked is None else masked
        head = bytes([fin << 7 | rsv << 4 | opcode])
        bit = masked << 7
        if len(payload) < 126:
            head += bytes([bit | len(payload)])
        elif len(payload) < 65536:
            head += struct.pack(">BH", bit | 126, len(payload))
        else:
            head += struct.pack(">BQ", bit | 127, len(payload))
        if not masked:
            return head + payload
        key = os.urandom(4)
        return head + key + mask(payload, key)

    def frame(self, payload: bytes) -> bytes:
        """The octets of one message frame."""
        return self.ws_frame(OP_TEXT if self.serializer == "json" else OP_BINARY, payload)

    def ping_frame(self, payload: bytes) -> bytes:
        """The octets of a ping."""
        return self.ws_frame(OP_PING, payload)

    def recv_frame(self) -> tuple[int, bool, bytes]:
        """(opcode, fin, payload) of the next frame; checks the masking rule."""
        first, second = self.wire.read(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack(">H", self.wire.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.wire.read(8))
        masked = bool(second & 128)
        assert masked == self.server, f"frame {first:#x}: masked={masked}, we are server={self.server}"
        key = self.wire.read(4) if masked else b""
        payload = self.wire.read(length)
        if not first & 8:
            self.last_rsv = first >> 4 & 7
        else:
            assert not first & 0x70, f"control frame with reserved bits: {first:#x}"
        return first & 15, bool(first & 128), mask(payload, key) if masked else payload

    def recv_payload(self) -> bytes:
        """The next message's payload; pings are answered, a close frame is answered and raises PeerClosed."""
        message = self.recv_data()
        assert not self.last_rsv, "reserved bits without an extension"
        return message

    def recv_data(self) -> bytes:
        """The same, whatever the reserved bits are; ``last_rsv`` holds those of the first frame."""
        message, rsv = b"", 0
        while True:
            opcode, fin, payload = self.recv_frame()
            if opcode == OP_PING:
                if self.auto_pong:
                    self.wire.write(self.ws_frame(OP_PONG, payload))
            elif opcode == OP_CLOSE:
                self.end(payload)
            elif opcode != OP_PONG:
                expected = OP_TEXT if self.serializer == "json" else OP_BINARY
                assert opcode in (OP_CONT, expected), f"opcode {opcode} for {self.serializer}"
                message += payload
                rsv |= self.last_rsv
                assert opcode != OP_CONT or not self.last_rsv, "reserved bits in a continuation"
                if fin:
                    self.last_rsv = rsv
                    return message

    def end(self, payload: bytes) -> None:
        """Answer a close frame, wait for the end of the stream, raise PeerClosed with its code."""
        code = int.from_bytes(payload[:2], "big") if payload else None
        try:
            self.wire.write(self.ws_frame(OP_CLOSE, payload[:2]))
            self.wire.read_all()
        except PeerClosed:
            pass
        raise PeerClosed("close", code, payload[2:].decode())


class RawSocketPeer(Peer):
    """WAMP RawSocket framing."""

    kind = "rawsocket"
    max_out = 1 << 24

    def rs_frame(self, kind: int, payload: bytes) -> bytes:
        """One frame; a 16 MiB payload uses the 25th length bit."""
        count = len(payload)
        return struct.pack(">I", kind << 24 | (count >> 24 & 1) << 27 | count & 0xFFFFFF) + payload

    def frame(self, payload: bytes) -> bytes:
        """The octets of one message frame."""
        return self.rs_frame(RS_MESSAGE, payload)

    def ping_frame(self, payload: bytes) -> bytes:
        """The octets of a ping."""
        return self.rs_frame(RS_PING, payload)

    def recv_frame(self) -> tuple[int, bytes]:
        """(kind, payload) of the next frame."""
        (head,) = struct.unpack(">I", self.wire.read(4))
        length = 1 << 24 if head & 1 << 27 else head & 0xFFFFFF
        return head >> 24 & 7, self.wire.read(length)

    def recv_payload(self) -> bytes:
        """The next message's payload; pings are answered on the way."""
        while True:
            kind, payload = self.recv_frame()
            if kind == RS_PING:
                self.wire.write(self.rs_frame(RS_PONG, payload))
            elif kind == RS_MESSAGE:
                return payload


def upgrade_request(endpoint: Endpoint, key: str, protocols: str, **headers: str) -> bytes:
    """The head of a WebSocket opening handshake; ``headers`` adds to or (None) takes from it, '_' stands for '-'."""
    fields: dict[str, str | None] = {
        "Host": endpoint.authority,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": protocols,
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"GET {endpoint.resource} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items() if v is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def accept_key(key: str) -> str:
    """RFC 6455 4.2.2, point 5."""
    return base64.b64encode(hashlib.sha1(key.encode() + WS_GUID).digest()).decode()


def upgrade(wire: Wire, endpoint: Endpoint, protocols: str, **headers: str) -> tuple[str, bytes]:
    """Client side of the opening handshake: (subprotocol, head of the response); raises HandshakeRefused."""
    key = base64.b64encode(os.urandom(16)).decode()
    wire.write(upgrade_request(endpoint, key, protocols, **headers))
    head = wire.read_head()
    if not head.startswith(b"HTTP/1.1 101"):
        raise HandshakeRefused(head + wire.read_all())
    lines = head.decode().split("\r\n")[1:-2]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert fields["sec-websocket-accept"] == accept_key(key)
    return fields.get("sec-websocket-protocol", ""), head


def dial(endpoint: Endpoint, serializer: str = "cbor", *, sock: socket.socket | None = None, **headers: str) -> Peer:
    """Connect and shake hands as a client; raises HandshakeRefused, PeerClosed, OSError."""
    wire = Wire(sock or endpoint.connect())
    try:
        if endpoint.kind == "websocket":
            protocol, _ = upgrade(wire, endpoint, f"wamp.2.{serializer}", **headers)
            assert protocol == f"wamp.2.{serializer}"
            return WebSocketPeer(wire, serializer)
        wire.write(bytes([0x7F, 0xF0 | SERIALIZERS[serializer], 0, 0]))
        answer = wire.read(4)
        if answer[0] != 0x7F or not answer[1] & 15:
            raise HandshakeRefused(answer)
        assert answer[1] & 15 == SERIALIZERS[serializer]
        assert answer[2:] == b"\0\0"
        peer = RawSocketPeer(wire, serializer)
        peer.max_out = 1 << (9 + (answer[1] >> 4))
        return peer
    except BaseException:
        wire.close()
        raise


@contextmanager
def joined(endpoint: Endpoint, serializer: str = "cbor", realm: str = "realm1", **details: Any) -> Iterator[Peer]:
    """A joined client; its connection is closed at the end whatever happened."""
    peer = dial(endpoint, serializer)
    try:
        yield peer.join(realm, **details)
    finally:
        peer.close()
