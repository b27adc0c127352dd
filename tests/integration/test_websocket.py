"""WebSocket in a session: fragments, control frames in between, pings, close codes, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import raw
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import OP_BINARY, OP_CLOSE, OP_CONT, OP_PING, OP_PONG, OP_TEXT, WebSocketPeer, Wire, hello, upgrade
from support.stub import StubRouter


class Fronts:
    """Endpoints of one proxy, by what is configured for them."""

    def __init__(self, directory: Path) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(directory / "stub.sock")))
        config = Config(directory).stub("stub", self.stub.endpoint)
        self.plain = config.listen("websocket")
        self.small = config.listen("websocket", options={"max_message_size": 4096, "max_frame_size": 2048})
        self.pinged = config.listen("websocket", options={"auto_ping_interval": 1000, "auto_ping_timeout": 1000})
        self.cut = config.listen("websocket", options={"auto_fragment_size": 1000})
        self.proxy = ProxyProcess(config)

    def session(self, front: Endpoint, serializer: str = "json") -> tuple[WebSocketPeer, raw.Peer]:
        """A joined session: (client, router's end)."""
        client = raw.dial(front, serializer)
        client.send(hello())
        router, _ = self.stub.accept_session()
        client.recv_type(raw.WELCOME)
        assert isinstance(client, WebSocketPeer)
        return client, router


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    """One proxy for all tests here; idle and clean at the end."""
    fronts = Fronts(tmp_path_factory.mktemp("websocket"))
    yield fronts
    fronts.proxy.check_idle()
    fronts.proxy.stop()
    fronts.stub.close()


CALL = [raw.CALL, 1, {}, "com.example.åß∂ƒ", ["text " * 50]]


@pytest.mark.parametrize("serializer", ["json", "cbor"])
def test_fragments_with_pings_between(serializer: str, fronts: Fronts) -> None:
    """Fragments arrive as one message; pings between them are answered at once and in order."""
    client, router = fronts.session(fronts.plain, serializer)
    payload = raw.encode(serializer, CALL)
    pieces = [payload[i : i + 7] for i in range(0, len(payload), 7)]
    opcode = OP_TEXT if serializer == "json" else OP_BINARY
    for number, piece in enumerate(pieces):
        first, last = number == 0, number == len(pieces) - 1
        client.wire.write(
            client.ws_frame(opcode if first else OP_CONT, piece, fin=last)
            + client.ws_frame(OP_PING, b"%d" % number)
            + (b"" if last else client.ws_frame(OP_CONT, b"", fin=False))
        )
    for number in range(len(pieces)):
        assert client.recv_frame() == (OP_PONG, True, b"%d" % number)
    assert router.recv_payload() == payload
    client.close()


def test_unasked_pong_is_ignored(fronts: Fronts) -> None:
    """RFC 6455 5.5.3."""
    client, router = fronts.session(fronts.plain)
    client.wire.write(client.ws_frame(OP_PONG, b"hello"))
    client.send(CALL)
    assert router.recv() == CALL
    client.close()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("unmasked", 1002),
        ("reserved-bit", 1002),
        ("reserved-opcode", 1002),
        ("lone-continuation", 1002),
        ("new-message-in-fragments", 1002),
        ("long-ping", 1002),
        ("cut-ping", 1002),
        ("close-with-one-octet", 1002),
        ("close-with-bad-code", 1002),
        ("bad-utf8", 1007),
        ("binary-for-json", 1003),
        ("non-minimal-length", 1002),
    ],
)
def test_broken_framing(name: str, code: int, fronts: Fronts) -> None:
    """The close code says what was wrong; the router's session ends."""
    client, router = fronts.session(fronts.plain)
    frame = client.ws_frame
    client.wire.write(
        {
            "unmasked": frame(OP_TEXT, b"[]", masked=False),
            "reserved-bit": frame(OP_TEXT, b"[]", rsv=4),
            "reserved-opcode": frame(3, b"[]"),
            "lone-continuation": frame(OP_CONT, b"[]"),
            "new-message-in-fragments": frame(OP_TEXT, b"[", fin=False) + frame(OP_TEXT, b"]"),
            "long-ping": frame(OP_PING, b"x" * 126),
            "cut-ping": frame(OP_PING, b"x", fin=False),
            "close-with-one-octet": frame(OP_CLOSE, b"x"),
            "close-with-bad-code": frame(OP_CLOSE, (1005).to_bytes(2, "big")),
            "bad-utf8": frame(OP_TEXT, b'["\xc3\x28"]'),
            "binary-for-json": frame(OP_BINARY, b"[]"),
            "non-minimal-length": b"\x81\xfe\x00\x02" + bytes(4) + b"[]",
        }[name]
    )
    messages, closed = client.recv_end()
    assert closed.code == code
    assert [message[0] for message in messages] in ([], [raw.ABORT])
    assert [message[0] for message in router.recv_end()[0]] == [raw.GOODBYE]
    client.close()


@pytest.mark.parametrize(("payload", "echoed"), [(b"", None), ((1000).to_bytes(2, "big") + b"bye", 1000)])
def test_client_closes(payload: bytes, echoed: int | None, fronts: Fronts) -> None:
    """A close frame is answered by one, and the router's session ends."""
    client, router = fronts.session(fronts.plain)
    client.wire.write(client.ws_frame(OP_CLOSE, payload))
    messages, closed = client.recv_end()
    assert messages == []
    assert closed.code in (echoed, 1000)
    assert [message[0] for message in router.recv_end()[0]] == [raw.GOODBYE]
    client.close()


def test_frame_over_the_limit(fronts: Fronts) -> None:
    """1009 when the header is there, before any payload."""
    client, router = fronts.session(fronts.small)
    client.wire.write(b"\x81\xfe" + (2049).to_bytes(2, "big"))
    assert client.recv_end()[1].code == 1009
    router.recv_end()
    client.close()


def test_message_over_the_limit(fronts: Fronts) -> None:
    """1009 for fragments that are small, but too many."""
    client, router = fronts.session(fronts.small)
    client.wire.write(client.ws_frame(OP_TEXT, b"[" + b" " * 2000, fin=False) * 1)
    client.wire.write(client.ws_frame(OP_CONT, b" " * 2000, fin=False) * 2)
    assert client.recv_end()[1].code == 1009
    router.recv_end()
    client.close()


@pytest.mark.parametrize("size", [124, 125, 126, 127, 65_534, 65_535, 65_536, 65_537, 300_000])
def test_lengths_around_the_header_forms(size: int, fronts: Fronts) -> None:
    """Payloads on both sides of each length form pass in both directions."""
    client, router = fronts.session(fronts.plain)
    up = b'[48,1,{},"a"' + b" " * (size - 13) + b"]"
    down = b"[17,1,2" + b" " * (size - 8) + b"]"
    client.send_raw(up)
    assert router.recv_payload() == up
    router.send_raw(down)
    assert client.recv_payload() == down
    client.close()


def test_auto_fragment(fronts: Fronts) -> None:
    """auto_fragment_size cuts what goes to the client."""
    client, router = fronts.session(fronts.cut)
    payload = raw.encode("json", [raw.EVENT, 1, 2, {}, ["x" * 5000]])
    router.send_raw(payload)
    frames = [client.recv_frame()]
    while not frames[-1][1]:
        frames.append(client.recv_frame())
    assert [frame[0] for frame in frames] == [OP_TEXT] + [OP_CONT] * (len(frames) - 1)
    assert all(len(frame[2]) <= 1000 for frame in frames)
    assert b"".join(frame[2] for frame in frames) == payload
    client.close()


@pytest.mark.slow
def test_client_that_answers_pings_stays(fronts: Fronts) -> None:
    """Pings come by themselves; whoever answers is not closed."""
    client, router = fronts.session(fronts.pinged)
    for _ in range(3):
        opcode, _, payload = client.recv_frame()
        assert opcode == OP_PING
        assert len(payload) >= 12
        client.wire.write(client.ws_frame(OP_PONG, payload))
    client.send(CALL)
    assert router.recv() == CALL
    client.close()


@pytest.mark.slow
def test_client_that_does_not_answer_pings_is_closed(fronts: Fronts) -> None:
    """A silent peer is gone after auto_ping_interval + auto_ping_timeout, and so is its router session."""
    client, router = fronts.session(fronts.pinged)
    client.auto_pong = False
    client.recv_end()
    assert [message[0] for message in router.recv_end()[0]] == [raw.GOODBYE]
    client.close()


def test_silent_before_hello_with_pings(fronts: Fronts) -> None:
    """The upgrade alone opens nothing at the router."""
    wire = Wire(fronts.pinged.connect())
    upgrade(wire, fronts.pinged, "wamp.2.json")
    wire.close()
    fronts.stub.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        fronts.stub.accept_wire()
    fronts.stub.sock.settimeout(15.0)
