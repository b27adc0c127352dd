"""Octets as they should not come: one at a time, all at once, too many, or at random."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import raw
from support.census import assert_grown, rss
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import GOODBYE, WELCOME, Peer, PeerClosed, Wire, encode, hello, upgrade_request
from support.stub import StubRouter

KINDS = ["websocket", "rawsocket"]
SERIALIZERS = ["json", "msgpack", "cbor"]
MIB = 1 << 20


class Stage:
    """A proxy in front of a stub router."""

    def __init__(self, directory: Path) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(directory / "stub.sock")))
        config = Config(directory).stub("stub", self.stub.endpoint)
        self.fronts = {kind: config.listen(kind, limits={"close_timeout": 500}) for kind in KINDS}
        self.proxy = ProxyProcess(config)

    def session(self, kind: str, serializer: str) -> tuple[Peer, Peer]:
        """A joined session: (client, router's end)."""
        client = raw.dial(self.fronts[kind], serializer)
        client.send(hello())
        router, _ = self.stub.accept_session()
        client.recv_type(WELCOME)
        return client, router


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("octets"))
    yield stage
    stage.proxy.check_idle()
    stage.proxy.stop()
    stage.stub.close()


def drip(wire: Wire, data: bytes) -> None:
    """Send one octet at a time, each in a packet of its own."""
    for i in range(len(data)):
        wire.write(data[i : i + 1])
        if i % 16 == 0:
            time.sleep(0.0005)  # lets the proxy see some of them alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_one_octet_at_a_time(kind: str, serializer: str, stage: Stage) -> None:
    """Handshake, login, messages of both sides, GOODBYE: nothing depends on how octets arrive."""
    front = stage.fronts[kind]
    wire = Wire(front.connect())
    client: Peer
    if kind == "websocket":
        drip(wire, upgrade_request(front, "AAAAAAAAAAAAAAAAAAAAAA==", f"wamp.2.{serializer}"))
        assert wire.read_head().startswith(b"HTTP/1.1 101")
        client = raw.WebSocketPeer(wire, serializer)
    else:
        drip(wire, bytes([0x7F, 0xF0 | raw.SERIALIZERS[serializer], 0, 0]))
        wire.read(4)
        client = raw.RawSocketPeer(wire, serializer)
    drip(wire, client.frame(encode(serializer, hello())))
    router, _ = stage.stub.accept_hello()
    drip(router.wire, router.frame(encode(serializer, [WELCOME, 1, {"roles": {"broker": {}}}])))
    client.recv_type(WELCOME)
    up = [raw.CALL, 1, {}, "com.example", ["åß∂ƒ" * 40]]
    down = [raw.EVENT, 1, 2, {}, ["åß∂ƒ" * 40]]
    for _ in range(2):
        drip(wire, client.frame(encode(serializer, up)))
        drip(router.wire, router.frame(encode(serializer, down)))
        assert router.recv() == up
        assert client.recv() == down
    drip(wire, client.frame(encode(serializer, [GOODBYE, {}, "wamp.close.normal"])))
    router.recv_type(GOODBYE)
    drip(router.wire, router.frame(encode(serializer, [GOODBYE, {}, "wamp.close.goodbye_and_out"])))
    client.recv_type(GOODBYE)
    client.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_every_way_to_cut(kind: str, serializer: str, stage: Stage) -> None:
    """A stream of messages of all sizes, cut at random places, arrives octet for octet, both ways at once."""
    client, router = stage.session(kind, serializer)
    chance = random.Random(f"{kind}{serializer}")
    sizes = [0, 1, 50, 110, 120, 130, 1000, 4090, 16_000, 65_500, 65_600, 140_000, 300_000]
    texts = ["x" * (size + chance.randrange(40)) for size in sizes * 3 + [10] * 300]
    chance.shuffle(texts)
    up = [encode(serializer, [raw.PUBLISH, i + 1, {}, "com.example", [text]]) for i, text in enumerate(texts)]
    down = [encode(serializer, [raw.EVENT, 1, i + 1, {}, [text]]) for i, text in enumerate(reversed(texts))]
    streams = [(client, router, up), (router, client, down)]
    waiting = [bytearray(b"".join(sender.frame(payload) for payload in payloads)) for sender, _, payloads in streams]
    parsers = [Parser(receiver) for _, receiver, _ in streams]
    # Small pieces, read back at once, stay within the socket buffers: one thread can play all four ends.
    while any(waiting) or any(len(parser.payloads) < len(texts) for parser in parsers):
        for (sender, _, _), octets, parser in zip(streams, waiting, parsers, strict=True):
            piece = bytes(octets[: chance.choice((1, 3, 100, 5000, 70_000))])
            del octets[: len(piece)]
            if piece:
                sender.wire.write(piece)
            if len(parser.payloads) < len(texts):
                parser.pump(0 if any(waiting) else raw.TIMEOUT)
    assert parsers[0].payloads == up
    assert parsers[1].payloads == down
    client.close()


class Parser:
    """Takes whole messages out of what has arrived so far."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.payloads: list[bytes] = []

    def pump(self, timeout: float) -> None:
        """Read once, waiting for at most ``timeout`` seconds, and parse."""
        wire = self.peer.wire
        wire.sock.settimeout(timeout)
        try:
            wire.fill()
        except (BlockingIOError, TimeoutError):
            return
        finally:
            wire.sock.settimeout(raw.TIMEOUT)
        while (size := whole(self.peer, wire.buffer)) and len(wire.buffer) >= size:
            self.payloads.append(self.peer.recv_payload())


def whole(peer: Peer, data: bytearray) -> int:
    """Octets of the frame that ``data`` begins with, 0 while its header is not complete (unmasked in WebSocket)."""
    if peer.kind == "rawsocket":
        return 4 + int.from_bytes(data[1:4], "big") if len(data) >= 4 else 0
    if len(data) < 2:
        return 0
    size = {126: 2, 127: 8}.get(data[1] & 127, 0)
    if len(data) < 2 + size:
        return 0
    return 2 + size + (int.from_bytes(data[2 : 2 + size], "big") if size else data[1] & 127)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage(kind: str, stage: Stage) -> None:
    """Random octets on every port end in a refusal or a closed connection, whatever they look like."""
    chance = random.Random(kind)
    starts = [b"", b"\x7f", b"\x7f\xf3\0\0", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\x10", b"\0\0\0\0", b"\r\n"]
    for _ in range(80):
        wire = Wire(stage.fronts[kind].connect(), 12.0)
        junk = chance.choice(starts) + chance.randbytes(chance.choice((1, 10, 300, 5000)))
        with contextlib.suppress(PeerClosed, OSError):
            wire.write(junk)
            wire.sock.shutdown(socket.SHUT_WR)
        wire.read_all()  # a TimeoutError means that the connection is left open
        wire.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_garbage_in_the_session(kind: str, serializer: str, stage: Stage) -> None:
    """Random octets as messages end the session; what reaches the router before is nothing but whole legal messages."""
    chance = random.Random(f"{kind}{serializer}")
    good = encode(serializer, [raw.PUBLISH, 1, {"a": [1, 2.5, None, {"b": "c"}]}, "com.example", ["text", 1, 2, 3]])
    for _ in range(15):
        client, router = stage.session(kind, serializer)
        junk = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            junk[chance.randrange(len(junk))] = chance.randrange(256)
        junk = junk[: chance.randrange(1, len(junk) + 1)]
        try:
            client.send_raw(bytes(junk))
            client.wire.write(chance.randbytes(64))
            client.wire.sock.shutdown(socket.SHUT_WR)
        except (PeerClosed, OSError):
            pass
        received, _ = router.recv_end()
        assert [message[0] for message in received if message[0] != raw.PUBLISH] == [GOODBYE]
        client.wire.read_all()
        client.close()


def test_announced_but_never_sent(stage: Stage) -> None:
    """A large message that is only announced costs no memory: it grows with what really arrives."""
    before = rss(stage.proxy.pid)
    clients = []
    for number in range(40):
        client, _ = stage.session(KINDS[number % 2], "cbor")
        if number % 2:
            client.wire.write(struct.pack(">I", 0xFFFFFF) + b"\x94")
        else:
            client.wire.write(b"\x82\xff" + struct.pack(">Q", 15 * MIB) + b"\0\0\0\0\x94")
        clients.append(client)
    stage.session("rawsocket", "cbor")[0].close()
    assert_grown(stage.proxy.pid, before, 40 * MIB, "40 announced messages of 15 MiB")
    for client in clients:
        client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_too_large(kind: str, stage: Stage) -> None:
    """A message over the limit ends its session and nothing else."""
    client, router = stage.session(kind, "cbor")
    if kind == "websocket":
        client.wire.write(b"\x82\xff" + struct.pack(">Q", 16 * MIB + 1) + b"\0\0\0\0")
    else:
        client.wire.write(struct.pack(">I", 0x08000001))
    client.recv_end()
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


def test_length_with_the_top_bit(stage: Stage) -> None:
    """RFC 6455 5.2: the most significant bit of a 64-bit length is 0."""
    client, router = stage.session("websocket", "cbor")
    client.wire.write(b"\x82\xff" + struct.pack(">Q", 1 << 63 | 5) + b"\0\0\0\0hello")
    messages, closed = client.recv_end()
    assert messages == []
    assert closed.code in (1002, 1009)
    router.recv_end()


def test_flood_of_pings(stage: Stage) -> None:
    """A client that pings without reading its pongs is slowed down or cut off; memory stays bounded."""
    client, router = stage.session("websocket", "cbor")
    assert isinstance(client, raw.WebSocketPeer)
    before = rss(stage.proxy.pid)
    pings = client.ws_frame(raw.OP_PING, b"x" * 125) * 500
    client.wire.sock.settimeout(0.5)
    try:
        for _ in range(800):
            client.wire.write(pings)
    except (TimeoutError, PeerClosed, OSError):
        pass
    assert_grown(stage.proxy.pid, before, 8 * MIB, "a flood of pings")
    client.wire.reset()
    router.recv_end()


def test_deep_nesting(stage: Stage) -> None:
    """Nesting that would overrun a decoder's stack is refused here."""
    for serializer, opened, closed in (("json", b"[", b"]"), ("cbor", b"\x81", b""), ("msgpack", b"\x91", b"")):
        client, router = stage.session("rawsocket", serializer)
        head = encode(serializer, [raw.PUBLISH, 1, {}, "com.example", []])
        # the last element, the empty list of arguments, is replaced
        end = 3 if serializer == "json" else 1
        payload = head[:-end] + opened * 100_000 + (closed * 100_000 + b"]" if serializer == "json" else b"\x01")
        client.send_raw(payload)
        messages, _ = client.recv_end()
        assert [message[0] for message in messages] == [raw.ABORT]
        assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]
