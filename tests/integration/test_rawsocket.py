"""RawSocket negotiation: serializers, lengths both ways, error octets, PING and PONG, the 16 MiB frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import raw
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import HandshakeRefused, RawSocketPeer, Wire, hello
from support.stub import StubRouter

MIB = 1 << 20


class Fronts:
    """Endpoints of one proxy, by what is configured for them."""

    def __init__(self, directory: Path) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(directory / "stub.sock")))
        config = Config(directory).stub("stub", self.stub.endpoint)
        self.plain = config.listen()
        self.cbor = config.listen(
            serializers=["cbor"], options={"max_message_size": 5000}, limits={"close_timeout": 500}
        )
        self.proxy = ProxyProcess(config)

    def session(self, front: Endpoint, serializer: str = "cbor") -> tuple[RawSocketPeer, RawSocketPeer]:
        """A joined session: (client, router's end)."""
        client = raw.dial(front, serializer)
        client.send(hello())
        router, _ = self.stub.accept_session()
        client.recv_type(raw.WELCOME)
        assert isinstance(client, RawSocketPeer)
        assert isinstance(router, RawSocketPeer)
        return client, router


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    """One proxy for all tests here; idle and clean at the end."""
    fronts = Fronts(tmp_path_factory.mktemp("rawsocket"))
    yield fronts
    fronts.proxy.check_idle()
    fronts.proxy.stop()
    fronts.stub.close()


@pytest.mark.parametrize(("octets", "answer"), [("7ff40000", "7f10"), ("7ff00000", "7f10"), ("7ff30100", "7f30")])
def test_refused_handshake(octets: str, answer: str, fronts: Fronts) -> None:
    """Unknown serializer: error 1; reserved bits: error 3; then the connection is closed."""
    wire = Wire(fronts.plain.connect())
    wire.write(bytes.fromhex(octets))
    assert wire.read_all() == bytes.fromhex(answer + "0000")
    wire.close()


def test_serializer_that_is_off(fronts: Fronts) -> None:
    """Error 1 for a serializer that the transport does not speak."""
    with pytest.raises(HandshakeRefused) as refused:
        raw.dial(fronts.cbor, "json")
    assert refused.value.answer == b"\x7f\x10\0\0"


def test_something_else(fronts: Fronts) -> None:
    """HTTP on a RawSocket port is not answered in RawSocket."""
    wire = Wire(fronts.plain.connect())
    wire.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not wire.read_all().startswith(b"\x7f")
    wire.close()


def test_announced_length(fronts: Fronts) -> None:
    """max_message_size rounded up to a power of two."""
    for front, length in ((fronts.plain, 1 << 24), (fronts.cbor, 8192)):
        peer = raw.dial(front)
        assert isinstance(peer, RawSocketPeer)
        assert peer.max_out == length
        peer.close()


@pytest.mark.parametrize("size", [0, 1, 125, 4096])
def test_ping(size: int, fronts: Fronts) -> None:
    """A PING is answered by one PONG with the same payload: before the login, and in a session between messages."""
    client = raw.dial(fronts.plain)
    assert isinstance(client, RawSocketPeer)
    payload = bytes(range(256)) * 16
    client.wire.write(client.ping_frame(payload[:size]))
    assert client.recv_frame() == (raw.RS_PONG, payload[:size])
    client.close()
    client, router = fronts.session(fronts.plain)
    call = raw.encode("cbor", [raw.CALL, 1, {}, "com.example"])
    client.wire.write(client.frame(call) + client.ping_frame(payload[:size]) + client.frame(call))
    assert client.recv_frame() == (raw.RS_PONG, payload[:size])
    assert router.recv_payload() == router.recv_payload() == call
    router.wire.write(router.ping_frame(b"from behind"))
    assert router.recv_frame() == (raw.RS_PONG, b"from behind")
    client.close()


def test_reserved_frame_type(fronts: Fronts) -> None:
    """Frame types 3 to 7 end the connection."""
    client, router = fronts.session(fronts.plain)
    client.wire.write(client.rs_frame(3, b""))
    client.recv_end()
    router.recv_end()
    client.close()


@pytest.mark.slow
def test_largest_frame(fronts: Fronts) -> None:
    """A message of exactly 16 MiB takes the 25th length bit, in both directions."""
    client, router = fronts.session(fronts.plain)
    message = raw.encode("cbor", [raw.CALL, 1, {}, "com.example", [b""]])
    filler = (1 << 24) - len(message) - 4
    payload = raw.encode("cbor", [raw.CALL, 1, {}, "com.example", [b"x" * filler]])
    assert len(payload) == 1 << 24
    client.send_raw(payload)
    assert router.recv_payload() == payload
    event = raw.encode("cbor", [raw.EVENT, 1, 2, {}, [b""]])
    payload = raw.encode("cbor", [raw.EVENT, 1, 2, {}, [b"y" * ((1 << 24) - len(event) - 4)]])
    router.send_raw(payload)
    assert client.recv_payload() == payload
    client.close()


def test_over_what_the_proxy_takes(fronts: Fronts) -> None:
    """The size is refused when the header is there, before any payload."""
    client, router = fronts.session(fronts.cbor)
    client.wire.write(struct.pack(">I", 8193))
    messages, _ = client.recv_end()
    assert [message[0] for message in messages] in ([], [raw.ABORT])
    router.recv_end()
    client.close()


def test_over_what_the_client_takes(fronts: Fronts) -> None:
    """A message larger than the client announced is not sent to it; it hears of it, and its session goes on."""
    wire = Wire(fronts.plain.connect())
    wire.write(b"\x7f\x03\0\0")  # 512 octets
    assert wire.read(4)[0] == 0x7F
    client = RawSocketPeer(wire, "cbor")
    client.send(hello())
    small = {"broker": {}}
    router, _ = fronts.stub.accept_hello()
    router.send([raw.WELCOME, 9, {"roles": small}])
    client.recv_type(raw.WELCOME)
    router.send(
        [raw.EVENT, 1, 1, {}, ["x" * 200]],
        [raw.EVENT, 1, 2, {"topic": "com.example"}, ["x" * 600]],
        [raw.RESULT, 3, {}, ["x" * 600]],
        [raw.INVOCATION, 4, 1, {}, ["x" * 600]],
        [raw.EVENT, 1, 5, {}],
    )
    payloads = [client.recv_payload() for _ in range(4)]
    assert max(map(len, payloads)) <= 512
    messages = [raw.decode("cbor", payload) for payload in payloads]
    assert messages[0][2] == 1
    assert messages[1] == [raw.EVENT, 1, 2, {"topic": "com.example", "payload_limit_exceeded": True}]
    assert messages[2][:5] == [raw.ERROR, raw.CALL, 3, {}, "wamp.error.payload_size_exceeded"]
    assert messages[3][2] == 5
    assert router.recv()[:5] == [raw.ERROR, raw.INVOCATION, 4, {}, "wamp.error.payload_size_exceeded"]
    client.close()
    router.recv_end()


def test_over_what_the_router_takes(fronts: Fronts) -> None:
    """A message larger than the router announced does not reach it, and the client is not left waiting."""
    client = raw.dial(fronts.plain)
    client.send(hello())
    wire = fronts.stub.accept_wire()
    assert wire.read(4)[0] == 0x7F
    wire.write(b"\x7f\x13\0\0")  # 1,024 octets
    router = RawSocketPeer(wire, "cbor", server=True)
    router.recv_type(raw.HELLO)
    router.send([raw.WELCOME, 9, {"roles": {"broker": {}}}])
    client.recv_type(raw.WELCOME)
    client.send([raw.CALL, 1, {}, "com.example", ["x" * 2000]], [raw.CALL, 2, {}, "com.example"])
    error = client.recv()
    assert error[:5] == [raw.ERROR, raw.CALL, 1, {}, "wamp.error.payload_size_exceeded"]
    assert "2021 octets" in error[5][0]
    assert router.recv() == [raw.CALL, 2, {}, "com.example"]
    client.close()
    router.recv_end()
