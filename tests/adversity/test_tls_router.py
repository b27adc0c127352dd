"""A router behind TLS that is slow, wrong or gone, in every phase: its client is told, and never something untrue."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import raw
from support.certificates import certificates
from support.endpoints import Endpoint, free_port
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, GOODBYE, WELCOME, Peer, Wire, encode, hello
from support.stub import StubRouter
from support.tls_wire import TlsWire
from support.witness import Witnessed

KINDS = ["websocket", "rawsocket"]


class Stage(Witnessed):
    """A proxy in front of a router with TLS that is played by hand, on TCP, and one session that must not notice."""

    def __init__(self, directory: Path) -> None:
        made = certificates(directory / "tls")
        self.stub = StubRouter(Endpoint("rawsocket", free_port()))
        transport = self.stub.endpoint.as_backend()
        transport["endpoint"]["tls"] = {"hostname": "localhost", "ca_certificates": [str(made.ca)]}
        # One serializer, so that each login dials once whatever goes wrong.
        item = {"transport": {**transport, "serializers": ["cbor"]}, "timeouts": {"dial": 400, "join": 400}}
        config = Config(directory).backend("stub", {**item, "auth": {"anonymous": {"type": "static"}}})
        self.fronts = {kind: config.listen(kind, limits={"close_timeout": 500}) for kind in KINDS}
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(made.server.chain, made.server.key)
        self.proxy = ProxyProcess(config)
        self.witness = self.session("websocket")

    def knock(self, kind: str) -> tuple[Peer, Wire]:
        """A client that wants in: it, and the plain connection to the router."""
        client = raw.dial(self.fronts[kind])
        client.send(hello())
        return client, self.stub.accept_wire()

    def shaken(self, wire: Wire) -> Peer:
        """The router's end after TLS and RawSocket."""
        tls = TlsWire(wire.sock, self.context, server=True)
        octets = tls.read(4)
        tls.write(octets)
        return raw.RawSocketPeer(tls, "cbor", server=True)

    def session(self, kind: str) -> tuple[Peer, Peer]:
        """A joined session: (client, router's end)."""
        client, wire = self.knock(kind)
        router = self.shaken(wire)
        router.recv_type(raw.HELLO)
        router.send([WELCOME, 123456789012345, {"roles": {"broker": {}, "dealer": {}}}])
        client.recv_type(WELCOME)
        self.check(client, router)
        return client, router


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here."""
    stage = Stage(tmp_path_factory.mktemp("tls_router"))
    yield stage
    stage.close()


@pytest.fixture(autouse=True)
def _leaves_nothing(stage: Stage) -> Iterator[None]:
    """After each test only the witness is left, and it is well."""
    yield
    stage.check_alone()
    # A router that could not be had is left alone for a while; the next test wants it.
    wait_until(lambda: _lets_in(stage), "the router is tried again", 40.0, 0.2)


def _lets_in(stage: Stage) -> bool:
    """Whether a client gets as far as the router."""
    client = raw.dial(stage.fronts["rawsocket"])
    client.send(hello())
    stage.stub.sock.settimeout(0.3)
    try:
        wire = stage.stub.accept_wire()
    except TimeoutError:
        return False
    finally:
        stage.stub.sock.settimeout(15.0)
        client.close()
    try:
        stage.shaken(wire)
    except (raw.PeerClosed, OSError):
        pass
    wire.close()
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "phase", ["silence", "close", "noise", "plain-rawsocket", "plain-http", "half-a-flight", "alert", "forged-flight"]
)
def test_instead_of_a_handshake(phase: str, kind: str, stage: Stage) -> None:
    """ABORT, by the deadline at the latest, which tells clients nothing of certificates and ciphers."""
    client, wire = stage.knock(kind)
    if phase == "close":
        wire.close()
    elif phase == "noise":
        wire.write(bytes(range(256)) * 8)
    elif phase == "plain-rawsocket":
        wire.write(b"\x7f\xf3\0\0")
    elif phase == "plain-http":
        wire.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    elif phase == "alert":
        wire.write(bytes([21, 3, 3, 0, 2, 2, 40]))
    elif phase != "silence":
        server = TlsWire(wire.sock, stage.context, server=True, shake=False)
        server.receive()
        flight = bytearray(server.flight()[1])
        if phase == "forged-flight":
            flight[-1] ^= 1
            server.write_raw(bytes(flight))
        else:
            server.write_raw(bytes(flight[: len(flight) // 2]))
    messages, _ = client.recv_end()
    assert [message[0] for message in messages] == [ABORT]
    assert messages[0][2] in ("wamp.error.network_failure", "wamp.error.unavailable", "wamp.error.timeout")
    told = str(messages[0]).lower()
    assert not [word for word in ("ssl", "certificate", "cipher", "openssl", "127.0.0.1") if word in told], told
    wire.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["truncated", "forged", "half-a-record", "noise"])
def test_in_the_session(how: str, kind: str, stage: Stage) -> None:
    """Whole messages before it are delivered; then the client learns that its router is lost, not that all is well."""
    client, router = stage.session(kind)
    wire = router.wire
    assert isinstance(wire, TlsWire)
    messages = [[raw.EVENT, 1, i, {}, ["x" * i]] for i in range(2, 20)]
    wire.write(b"".join(router.frame(encode("cbor", message)) for message in messages))
    for message in messages:
        assert client.recv() == message
    octets = bytearray(wire.encrypted(router.frame(encode("cbor", [raw.EVENT, 1, 99, {}]))))
    if how == "forged":
        octets[-1] ^= 1
        wire.write_raw(bytes(octets))
    elif how == "half-a-record":
        wire.write_raw(bytes(octets[:-3]))
    elif how == "noise":
        wire.write_raw(b"this is no record" * 4)
    if how in ("truncated", "half-a-record"):
        wire.close()
    received, _ = client.recv_end()
    assert [message[0] for message in received] == [GOODBYE]
    assert received[0][2] != "wamp.close.normal"
    wire.close()


def test_the_log_says_why(stage: Stage) -> None:
    """What clients are not told, the operator is."""
    client, wire = stage.knock("rawsocket")
    wire.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    client.recv_end()
    wire.close()
    lines = [line for line in stage.proxy.child.errors if "connection stub" in line]
    assert any("TLS" in line for line in lines), lines
