"""The client or the router is lost, in every phase: the other side is told, nothing is left behind, others go on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, GOODBYE, WELCOME, Peer, PeerClosed, Wire, encode, hello, upgrade_request
from support.stub import StubRouter
from support.witness import Witnessed

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
ENDS = ["close", "half-close", "reset"]


class Stage(Witnessed):
    """A proxy in front of a stub router, with one session that must not notice anything."""

    def __init__(self, directory: Path) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(directory / "stub.sock")))
        timeouts = {"dial": 400, "join": 400, "goodbye": 400}
        # One serializer, so that each login dials once whatever goes wrong.
        item = {"transport": {**self.stub.endpoint.as_backend(), "serializers": ["cbor"]}, "timeouts": timeouts}
        config = Config(directory).backend("stub", {**item, "auth": {"anonymous": {"type": "static"}}})
        self.fronts = {kind: config.listen(kind, limits={"close_timeout": 500}) for kind in ("websocket", "rawsocket")}
        self.proxy = ProxyProcess(config)
        self.witness = self.session("websocket")

    def session(self, kind: str, serializer: str = "cbor") -> tuple[Peer, Peer]:
        """A joined session: (client, router's end)."""
        client = raw.dial(self.fronts[kind], serializer)
        client.send(hello())
        router, _ = self.stub.accept_session()
        client.recv_type(WELCOME)
        self.check(client, router)
        return client, router


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here."""
    stage = Stage(tmp_path_factory.mktemp("loss"))
    yield stage
    stage.close()


@pytest.fixture(autouse=True)
def _leaves_nothing(stage: Stage) -> Iterator[None]:
    """After each test only the witness is left."""
    yield
    stage.check_alone()


def end(wire: Wire, how: str) -> None:
    """End a client's connection."""
    if how == "close":
        wire.close()
    elif how == "reset":
        wire.reset()
    else:
        wire.sock.shutdown(socket.SHUT_WR)


def part_of_handshake(kind: str, whole: bool) -> bytes:
    """Octets of a handshake, some or all."""
    if kind == "rawsocket":
        return b"\x7f\xf3\0\0" if whole else b"\x7f\xf3"
    head = upgrade_request(Endpoint("websocket", 1), KEY, "wamp.2.cbor")
    return head if whole else head[:60]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize("phase", ["connected", "mid-handshake", "shaken", "mid-hello"])
def test_client_lost_before_the_login(phase: str, kind: str, how: str, stage: Stage) -> None:
    """No router is bothered; the connection is gone, also when only its sending side was closed."""
    wire = Wire(stage.fronts[kind].connect())
    if phase != "connected":
        wire.write(part_of_handshake(kind, phase != "mid-handshake"))
    if phase == "mid-hello":
        peer = raw.WebSocketPeer(wire, "cbor") if kind == "websocket" else raw.RawSocketPeer(wire, "cbor")
        wire.write(peer.frame(encode("cbor", hello()))[:40])
    end(wire, how)
    if how == "half-close":
        wire.read_all()
        wire.close()
    stage.stub.sock.settimeout(0.02)
    with pytest.raises(TimeoutError):
        stage.stub.accept_wire()
    stage.stub.sock.settimeout(15.0)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize("phase", ["dialled", "hello-sent"])
def test_client_lost_while_joining(phase: str, kind: str, how: str, stage: Stage) -> None:
    """The router's connection is closed; a router that welcomes late welcomes nobody."""
    client = raw.dial(stage.fronts[kind])
    client.send(hello())
    router = stage.stub.accept_wire() if phase == "dialled" else stage.stub.accept_hello()[0].wire
    end(client.wire, how)
    router.read_all()
    router.close()
    if how == "half-close":
        client.recv_end()
    client.close()


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize("unfinished", [b"", b"half a message"])
def test_client_lost_in_the_session(unfinished: bytes, kind: str, how: str, stage: Stage) -> None:
    """Whole messages before the end are delivered, half a message is not; the router's session is left."""
    client, router = stage.session(kind)
    messages = [[raw.PUBLISH, i, {}, "com.example", ["x" * i]] for i in range(2, 30)]
    whole = b"".join(client.frame(encode("cbor", message)) for message in messages)
    client.wire.write(whole + (client.frame(unfinished * 10)[:50] if unfinished else b""))
    if how == "reset":  # what a reset overtakes is lost, by the rules of TCP
        for message in messages:
            assert router.recv() == message
        messages = []
    end(client.wire, how)
    received, _ = router.recv_end()
    assert received[: len(messages)] == messages
    assert [message[0] for message in received[len(messages) :]] == [GOODBYE]
    if how == "half-close":
        client.recv_end()
    client.close()


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize("phase", ["accepts-only", "half-a-handshake", "silent-after-hello"])
def test_silent_router(phase: str, kind: str, stage: Stage) -> None:
    """A router that takes the connection and says nothing: ABORT after the deadline, not an endless wait."""
    client = raw.dial(stage.fronts[kind])
    client.send(hello())
    router = stage.stub.accept_wire()
    if phase == "half-a-handshake":
        router.write(router.read(4)[:2])
    elif phase == "silent-after-hello":
        router.write(router.read(4))
        router.read(10)
    messages, closed = client.recv_end()
    assert [message[0] for message in messages] == [ABORT]
    assert messages[0][2] in ("wamp.error.network_failure", "wamp.error.unavailable", "wamp.error.timeout")
    assert closed.how in ("eof", "close")
    router.read_all()
    router.close()


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize(
    "phase", ["at-once", "half-a-handshake", "after-handshake", "half-a-welcome", "not-wamp", "not-rawsocket", "event"]
)
def test_router_lost_while_joining(phase: str, kind: str, stage: Stage) -> None:
    """A router that drops the connection or talks nonsense before WELCOME: ABORT."""
    client = raw.dial(stage.fronts[kind])
    client.send(hello())
    router = stage.stub.accept_wire()
    if phase == "half-a-handshake":
        router.write(router.read(4)[:2])
    elif phase == "not-rawsocket":
        router.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    elif phase != "at-once":
        peer = raw.RawSocketPeer(router, "cbor", server=True)
        router.write(router.read(4))
        peer.recv()
        if phase == "half-a-welcome":
            router.write(peer.frame(encode("cbor", [WELCOME, 1, {"roles": {}}]))[:9])
        elif phase == "not-wamp":
            peer.send_raw(b"\xff\xff\xff")
        elif phase == "event":
            peer.send([raw.EVENT, 1, 2, {}])
    if phase in ("not-wamp", "not-rawsocket", "event"):
        router.read_all()
    router.close()
    messages, closed = client.recv_end()
    assert [message[0] for message in messages] == [ABORT]
    assert messages[0][2] != "wamp.error.authentication_failed"
    assert closed.how in ("eof", "close")


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize("how", ["close", "half-close", "half-a-message"])
def test_router_lost_in_the_session(how: str, kind: str, stage: Stage) -> None:
    """Whole messages before the end are delivered; then the client learns that its router is lost."""
    client, router = stage.session(kind)
    messages = [[raw.EVENT, 1, i, {}, ["x" * i]] for i in range(2, 30)]
    router.wire.write(b"".join(router.frame(encode("cbor", message)) for message in messages))
    if how == "half-a-message":
        router.wire.write(router.frame(b"x" * 100)[:50])
    if how == "half-close":
        router.wire.sock.shutdown(socket.SHUT_WR)
    else:
        router.close()
    received, _ = client.recv_end()
    assert received[:-1] == messages
    assert received[-1][0] == GOODBYE
    assert received[-1][2] != "wamp.close.normal"
    router.close()


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
def test_both_lost_at_once(kind: str, stage: Stage) -> None:
    """Many sessions whose two ends vanish in the same moment."""
    sessions = [stage.session(kind) for _ in range(20)]
    for number, (client, router) in enumerate(sessions):
        ends: list[Callable[[], Any]] = [client.wire.reset if number % 3 else client.wire.close, router.wire.close]
        for finish in ends if number % 2 else ends[::-1]:
            finish()


def test_login_storm_of_quitters(stage: Stage) -> None:
    """Clients that give up right after HELLO, many at once, while the router takes its time."""
    clients = [raw.dial(stage.fronts["rawsocket"]) for _ in range(50)]
    for client in clients:
        client.send(hello())
    for client in clients:
        client.wire.reset()
    stage.stub.sock.settimeout(0.5)
    try:
        while True:
            wire = stage.stub.accept_wire()
            wire.read_all()
            wire.close()
    except (TimeoutError, PeerClosed):
        pass
    stage.stub.sock.settimeout(15.0)
