"""The data plane alone, driven by hand: a Relay with its threads, and the sockets at both of its ends.

``Plane`` plays the control plane: it reads the events, remembers all of them, and checks on each what must always hold.
``End`` is a client or a router: it speaks the framing, knows nothing of WAMP and never reads unless it is asked to.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cbor2

from proxy import _relay as R

TIMEOUT = 20.0
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1 = 0x40
RS_OPCODES = {BINARY: 0, TEXT: 0, PING: 1, PONG: 2}
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"
KINDS = {"rs": R.CODEC_RS, "ws": R.CODEC_WS}
HELLO = cbor2.dumps([1, "realm1", {}])
WELCOME = cbor2.dumps([2, 1234, {"roles": {}}])
GOODBYE = cbor2.dumps([6, {}, "wamp.close.normal"])
CLOSED = {getattr(R, name): name for name in dir(R) if name.startswith("CLOSED_")}


def call(size: int = 0, request: int = 1, fill: bytes = b"z") -> bytes:
    """A CALL whose argument is ``size`` octets."""
    return cbor2.dumps([48, request, {}, "x", [fill * size]])


def call_of(total: int, request: int = 1) -> bytes:
    """A CALL of exactly ``total`` octets in all."""
    # A longer URI fills the gaps where the argument's own length takes more octets.
    for uri in ("x", "xy", "xyz", "xyz0", "xyz01"):
        rest = cbor2.dumps([48, request, {}, uri, [b""]])
        for width in (0, 1, 2, 4):
            size = total - len(rest) - width
            message = cbor2.dumps([48, request, {}, uri, [b"z" * size]]) if size >= 0 else b""
            if len(message) == total:
                return message
    raise AssertionError(total)


def result(size: int = 0, request: int = 1) -> bytes:
    """A RESULT whose argument is ``size`` octets."""
    return cbor2.dumps([50, request, {}, [b"r" * size]])


def xor(data: bytes, key: bytes) -> bytes:
    """RFC 6455 5.3."""
    size = len(data)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")


class Gone(Exception):
    """The other side ended: "eof" or "reset"."""


class End:
    """One end of a connection, client or router.

    :param kind: "rs" or "ws".
    :param client: masks what it sends (WebSocket).
    """

    def __init__(self, sock: socket.socket, kind: str, client: bool) -> None:
        sock.settimeout(TIMEOUT)
        self.sock, self.kind, self.client = sock, kind, client
        self.buffer = bytearray()
        self.controls: list[tuple[int, bytes]] = []

    # --- octets ---

    def fill(self) -> None:
        """Read once."""
        try:
            data = self.sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Gone("reset") from error
        if not data:
            raise Gone("eof")
        self.buffer += data

    def read(self, count: int) -> bytes:
        """Exactly ``count`` octets."""
        while len(self.buffer) < count:
            self.fill()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def read_head(self) -> bytes:
        """An HTTP head."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self.fill()
        return self.read(end + 4)

    def read_end(self) -> str:
        """Read and drop everything; how it ended."""
        try:
            while True:
                self.buffer.clear()
                self.fill()
        except Gone as gone:
            return str(gone)

    def write(self, data: bytes) -> None:
        """Send raw octets."""
        try:
            self.sock.sendall(data)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Gone("reset") from error

    def half_close(self) -> None:
        """End our side only."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End in order."""
        self.sock.close()

    def reset(self) -> None:
        """End with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # --- frames ---

    def frame(self, payload: bytes, opcode: int = BINARY, fin: bool = True) -> bytes:
        """The octets of one frame; RSV1 may be added to the opcode."""
        size = len(payload)
        if self.kind == "rs":
            return struct.pack("!I", RS_OPCODES[opcode] << 24 | (size & 0xFFFFFF) | (size >> 24) << 27) + payload
        mask = 0x80 if self.client else 0
        head = bytes([opcode | (0x80 if fin else 0)])
        if size < 126:
            head += bytes([mask | size])
        elif size < 65536:
            head += struct.pack("!BH", mask | 126, size)
        else:
            head += struct.pack("!BQ", mask | 127, size)
        if not self.client:
            return head + payload
        key = os.urandom(4)
        return head + key + xor(payload, key)

    def fragments(self, payload: bytes, sizes: Iterable[int], opcode: int = BINARY) -> list[bytes]:
        """The frames of one message cut into pieces of ``sizes``; the rest is the last piece."""
        pieces, at = [], 0
        for size in sizes:
            pieces.append(payload[at : at + size])
            at += size
        pieces.append(payload[at:])
        last = len(pieces) - 1
        return [self.frame(piece, CONT if i else opcode, i == last) for i, piece in enumerate(pieces)]

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send one message."""
        self.write(self.frame(payload, opcode))

    def next_frame(self) -> tuple[int, bool, bytes]:
        """(opcode, FIN, payload) of the next frame."""
        if self.kind == "rs":
            first = struct.unpack("!I", self.read(4))[0]
            size = (first & 0xFFFFFF) | (first >> 27 & 1) << 24
            return {0: BINARY, 1: PING, 2: PONG}[first >> 24 & 7], True, self.read(size)
        b0, b1 = self.read(2)
        size = b1 & 0x7F
        if size == 126:
            size = struct.unpack("!H", self.read(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self.read(8))[0]
        assert bool(b1 & 0x80) != self.client, "masked by the wrong side"
        key = self.read(4) if b1 & 0x80 else b"\0\0\0\0"
        return b0 & 0x4F, bool(b0 & 0x80), xor(self.read(size), key)

    def recv(self) -> bytes:
        """The next whole message; control frames on the way are kept in ``controls``."""
        opcode, payload = self.recv_message()
        assert not opcode & RSV1, "compressed"
        return payload

    def recv_message(self) -> tuple[int, bytes]:
        """(opcode with RSV1, payload) of the next whole message."""
        whole: list[bytes] = []
        first = 0
        while True:
            opcode, fin, payload = self.next_frame()
            if opcode & 8:
                self.controls.append((opcode, payload))
                continue
            first = first or opcode
            whole.append(payload)
            if fin:
                return first, b"".join(whole)

    def recv_control(self) -> tuple[int, bytes]:
        """The next frame, which is a control frame."""
        opcode, _, payload = self.next_frame()
        assert opcode & 8
        return opcode, payload


class Event(NamedTuple):
    """One event of the data plane."""

    kind: int
    conn: int
    owner: int
    arg: int
    data: bytes

    @property
    def reason(self) -> str:
        """EV_CLOSED: the reason by name."""
        return CLOSED[self.arg & 0xFF]

    @property
    def errno(self) -> int:
        """EV_CLOSED: errno."""
        return self.arg >> 8 & 0xFFFF

    @property
    def code(self) -> int:
        """EV_CLOSED: WebSocket close code."""
        return self.arg >> 24


@dataclass
class Listener:
    """A listener of the data plane."""

    number: int
    kind: str
    address: Any
    params: int

    def connect(self) -> End:
        """A raw connection to it."""
        sock = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        sock.settimeout(TIMEOUT)
        sock.connect(self.address)
        return End(sock, self.kind, client=True)


class Router:
    """A listening socket that plays the router."""

    def __init__(self, kind: str, path: str | None = None, backlog: int = 50) -> None:
        self.kind = kind
        if path is None:
            self.sock = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            self.address = R.pack_sockaddr(*self.sock.getsockname())
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(path)
            self.sock.listen(backlog)
            self.address = R.pack_unix(path)
        self.sock.settimeout(TIMEOUT)

    def accept(self) -> End:
        """The next connection, as it comes."""
        return End(self.sock.accept()[0], self.kind, client=False)


@dataclass
class Session:
    """A client and a router that are linked."""

    client: End
    router: End
    front: int
    back: int
    token: int


class Plane:
    """A Relay, its threads, and the control plane's end of it."""

    patience = TIMEOUT  # seconds that pump() sleeps at most when nothing comes

    def __init__(self, threads: int = 1) -> None:
        self.relay = R.Relay(threads)
        self.threads = [threading.Thread(target=self.relay.run, args=(i,), name=f"relay-{i}") for i in range(threads)]
        for thread in self.threads:
            thread.start()
        self.log: list[Event] = []  # everything, in order
        self.fresh: list[Event] = []  # what no wait() has taken
        self.ends: list[End] = []
        self.routers: list[Router] = []
        self.ended: dict[int, Event] = {}  # by connection
        self.named: set[int] = set()
        self.tokens = 1000
        self.ending = False  # whoever appears now was accepted late, and is sent away
        self.stopped = False
        self.probe_params = self.relay.add_params(kind=R.CODEC_RS, client=True)

    # --- events ---

    def pump(self, seconds: float) -> None:
        """Take what events there are, waiting for the first up to ``seconds``."""
        select.select([self.relay.event_fd], [], [], seconds)
        for event in map(Event._make, self.relay.drain()):
            self.log.append(event)
            self.fresh.append(event)
            if event.conn and self.ending:
                self.relay.abort(event.conn)
            if event.conn:
                assert event.conn not in self.ended, f"{event} after {self.ended[event.conn]}"
                self.named.add(event.conn)
            if event.kind == R.EV_CLOSED and event.conn:
                self.ended[event.conn] = event

    def wait(
        self, kind: int, *, conn: int | None = None, owner: int | None = None, arg: int | None = None
    ) -> Event:
        """Take the first fresh event that fits; of ``arg`` only the lowest octet is looked at."""
        end = time.monotonic() + TIMEOUT
        while True:
            for event in self.fresh:
                if event.kind == kind and conn in (None, event.conn) and owner in (None, event.owner):
                    if arg not in (None, event.arg & 0xFF):
                        continue
                    self.fresh.remove(event)
                    return event
            left = end - time.monotonic()
            assert left > 0, f"no event {kind} of connection {conn}, owner {owner}; fresh: {self.fresh}"
            self.pump(min(left, self.patience))

    def closed(self, conn: int) -> Event:
        """Wait for the end of a connection."""
        return self.wait(R.EV_CLOSED, conn=conn)

    def barrier(self) -> None:
        """Wait until loop 0 has done all commands so far and run what became ready by them, and take the events."""
        for _ in range(2):
            token = self.token()
            nobody = R.pack_unix("\0nobody listens here")
            self.relay.dial(0, token, self.probe_params, R.SER_CBOR, nobody, b"", b"", 1000, 1000)
            self.log.remove(self.wait(R.EV_CLOSED, owner=token))

    def token(self) -> int:
        """A number never used before."""
        self.tokens += 1
        return self.tokens

    # --- both ends ---

    def listen(
        self, kind: str = "rs", *, path: str | None = None, max_connections: int = 0, backlog: int = 128, **params: Any
    ) -> Listener:
        """A new listener."""
        address: Any
        if path is None:
            sock = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            address = sock.getsockname()
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
            sock.listen(backlog)
            address = path
        sock.setblocking(False)
        number = self.token()
        registered = self.relay.add_params(kind=KINDS[kind], **{"serializers": 0b1110, **params})
        self.relay.listen(sock.detach(), number, registered, max_connections)
        return Listener(number, kind, address, registered)

    def connect(self, listener: Listener) -> End:
        """A raw connection that is closed with the plane."""
        end = listener.connect()
        self.ends.append(end)
        return end

    def join(
        self, listener: Listener, serializer: int = R.SER_CBOR, size: int = 15, **upgrade: Any
    ) -> tuple[End, int]:
        """A client in the JOIN phase: its end and its number.

        :param size: the exponent of the longest message that a RawSocket client takes, less 9.
        :param upgrade: what a WebSocket client agreed upon (batches, compression).
        """
        end = self.connect(listener)
        if listener.kind == "rs":
            end.write(bytes([0x7F, size << 4 | serializer, 0, 0]))
            assert end.read(4)[:1] == b"\x7f"
            return end, self.wait(R.EV_OPEN, owner=listener.number).conn
        end.write(REQUEST)
        conn = self.wait(R.EV_HEAD, owner=listener.number).conn
        self.relay.upgrade(conn, UPGRADED, serializer, **upgrade)
        assert end.read_head() == UPGRADED
        return end, conn

    def router(self, kind: str = "rs", **options: Any) -> Router:
        """A new router socket."""
        router = Router(kind, **options)
        self.routers.append(router)
        return router

    def dial(
        self,
        front: int,
        router: Router,
        *,
        serializer: int = R.SER_CBOR,
        hello: bytes = HELLO,
        timeout_ms: int = 20000,
        join_ms: int = 20000,
        address: bytes | None = None,
        realm: int = 0,
        front_sid: int = 0,
        **params: Any,
    ) -> int:
        """Begin a backend connection; its token."""
        token = self.token()
        registered = self.relay.add_params(kind=KINDS[router.kind], client=True, **params)
        request = REQUEST if router.kind == "ws" else b""
        self.relay.dial(
            front, token, registered, serializer, address or router.address, request, hello, timeout_ms, join_ms,
            realm, front_sid,
        )
        return token

    def accept(self, router: Router) -> End:
        """The router's end of a dialled connection, before the handshake."""
        end = router.accept()
        self.ends.append(end)
        return end

    def accept_join(
        self, router: Router, token: int, size: int = 15, *, welcome: bytes = WELCOME
    ) -> tuple[End, int]:
        """The router's end after handshake, HELLO and WELCOME: its end and the number of our side."""
        end = self.accept(router)
        if router.kind == "rs":
            serializer = end.read(4)[1] & 15
            end.write(bytes([0x7F, size << 4 | serializer, 0, 0]))
        else:
            assert end.read_head() == REQUEST
            end.write(UPGRADED)
            self.relay.upgrade(self.wait(R.EV_HEAD, owner=token).conn, b"", R.SER_CBOR)
        end.recv()
        end.send(welcome)
        event = self.wait(R.EV_MESSAGE, owner=token)
        assert event.data == welcome
        return end, event.conn

    def back(self, front: int, router: Router, **options: Any) -> tuple[End, int, int]:
        """Dial and join: router's end, number, token."""
        token = self.dial(front, router, **options)
        end, conn = self.accept_join(router, token)
        return end, conn, token

    def session(
        self, front_kind: str = "rs", back_kind: str = "rs", *, listener: Listener | None = None,
        router: Router | None = None, front: dict[str, Any] | None = None, back: dict[str, Any] | None = None,
    ) -> Session:
        """A client that is linked to a router.

        :param front: parameters of the listener.
        :param back: parameters of the dialled connection.
        """
        listener = listener or self.listen(front_kind, **(front or {}))
        router = router or self.router(back_kind)
        client, conn = self.join(listener)
        client.send(HELLO)
        assert self.wait(R.EV_MESSAGE, conn=conn).data == HELLO
        end, back_conn, token = self.back(conn, router, **(back or {}))
        self.relay.link(conn, back_conn, WELCOME)
        assert client.recv() == WELCOME
        return Session(client, end, conn, back_conn, token)

    def finish(self, session: Session) -> None:
        """End a session from the client's side."""
        session.client.close()
        self.closed(session.front)
        self.relay.abort(session.back)
        session.router.close()
        self.closed(session.back)

    # --- census ---

    def stats(self, name: str) -> int:
        """One counter, all loops together."""
        return sum(self.relay.stats(i)[name] for i in range(self.relay.threads))

    def settle(self, **expected: int) -> None:
        """Wait until the counters named are what they are expected to be."""
        end = time.monotonic() + TIMEOUT
        while (found := {name: self.stats(name) for name in expected}) != expected:
            assert time.monotonic() < end, f"{found}, expected {expected}"
            self.pump(0.005)

    def idle(self) -> None:
        """Wait until the data plane holds nothing: no connection, link, timer, entry, and no buffer but scratch."""
        self.settle(
            connections=0, links=0, timers=0, buffers=self.relay.threads, command_ring=0, event_ring=0, event_overflow=0
        )

    def hang_up(self) -> None:
        """Close every socket of this side."""
        for end in self.ends:
            end.close()
        for router in self.routers:
            router.sock.close()

    def close(self, *, hang_up: bool = True) -> None:
        """End the test: everybody hangs up (or stop() cuts them all off), and nothing is left."""
        if self.stopped:
            return
        self.stopped = True
        if hang_up:
            self.ending = True
            self.hang_up()
            for conn in list(self.named):
                self.relay.abort(conn)
            self.idle()
        self.relay.stop()
        for thread in self.threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "a loop did not end"
        while self._drain_rest():
            pass
        for index in range(self.relay.threads):
            stats = self.relay.stats(index)
            left = {name: stats[name] for name in ("connections", "links", "timers", "buffers")}
            assert left == {"connections": 0, "links": 0, "timers": 0, "buffers": 1}
        self.hang_up()
        self.relay.release()
        assert self.named == set(self.ended), "connections without an end"

    def _drain_rest(self) -> bool:
        before = len(self.log)
        self.pump(0)
        return len(self.log) > before

    def kill(self) -> None:
        """After a failed test: leave nothing behind, check nothing."""
        self.relay.stop()
        for thread in self.threads:
            thread.join(TIMEOUT)
        self.hang_up()
        self.relay.release()
