"""TLS as it should not come, in every phase: whoever does it is cut off in time, and others notice nothing."""

from __future__ import annotations

import random
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support import raw
from support.census import Peak, cpu_seconds
from support.certificates import certificates
from support.endpoints import Endpoint
from support.flood import Flood
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import GOODBYE, WELCOME, HandshakeRefused, Peer, PeerClosed, Wire, encode, hello, upgrade_request
from support.stub import StubRouter
from support.tls import client_context, listen
from support.tls_wire import TlsWire
from support.witness import Witnessed

KINDS = ["websocket", "rawsocket"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
MIB = 1 << 20
HANDSHAKE, ALERT, DATA, CHANGE = 22, 21, 23, 20
RECORD_MAX = 1 << 14

# A whole HTTP or RawSocket handshake may take this long, its TLS included.
DEADLINE_MS = 1500


class Stage(Witnessed):
    """A proxy in front of a stub router, with one session over TLS that must not notice anything."""

    def __init__(self, directory: Path) -> None:
        self.certificates = certificates(directory / "tls")
        self.stub = StubRouter(Endpoint("rawsocket", path=str(directory / "stub.sock")))
        config = Config(directory).stub("stub", self.stub.endpoint)
        limits = {
            "handshake_timeout": DEADLINE_MS,
            "hello_timeout": DEADLINE_MS,
            "close_timeout": 500,
            "stall_timeout": 60_000,
            "high_water": 128 * 1024,
            "low_water": 32 * 1024,
        }
        server = self.certificates.server
        self.fronts = {kind: listen(config, kind, kind, server, limits=limits) for kind in KINDS}
        self.plain = config.listen("websocket", "plain", limits=limits)
        self.proxy = ProxyProcess(config)
        self.witness = self.session("websocket")

    def context(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """A client that speaks one version."""
        return client_context(self.certificates.ca, low=version, high=version)

    def connect(self, kind: str = "websocket") -> socket.socket:
        """A plain connection to a port with TLS."""
        return self.fronts[kind].connect()

    def wire(self, kind: str = "websocket", version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> TlsWire:
        """A connection with TLS, and nothing on it."""
        return TlsWire(self.connect(kind), self.context(version))

    def shaken(self, kind: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, serializer: str = "cbor") -> Peer:
        """A client before its HELLO."""
        wire = self.wire(kind, version)
        if kind == "websocket":
            raw.upgrade(wire, self.fronts[kind], f"wamp.2.{serializer}")
            return raw.WebSocketPeer(wire, serializer)
        wire.write(bytes([0x7F, 0xF0 | raw.SERIALIZERS[serializer], 0, 0]))
        assert wire.read(4)[0] == 0x7F
        return raw.RawSocketPeer(wire, serializer)

    def session(self, kind: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[Peer, Peer]:
        """A joined session: (client, router's end)."""
        client = self.shaken(kind, version)
        client.send(hello())
        router, _ = self.stub.accept_session()
        client.recv_type(WELCOME)
        self.check(client, router)
        return client, router


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here."""
    stage = Stage(tmp_path_factory.mktemp("tls"))
    yield stage
    stage.close()


@pytest.fixture(autouse=True)
def _leaves_nothing(stage: Stage) -> Iterator[None]:
    """After each test only the witness is left, and it is well."""
    yield
    stage.check_alone()


def tls_of(peer: Peer) -> TlsWire:
    """The wire of a client of this stage."""
    assert isinstance(peer.wire, TlsWire)
    return peer.wire


def hello_octets(stage: Stage) -> bytes:
    """A whole ClientHello."""
    left, right = socket.socketpair()
    with left, right:
        return TlsWire(left, stage.context(), shake=False).flight()[1]


def cut_off(wire: Wire) -> bytes:
    """What comes until the connection ends."""
    try:
        return wire.read_all()
    finally:
        wire.close()


# --- instead of a handshake --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_noise(seed: int, kind: str, stage: Stage) -> None:
    """Octets at random, and a ClientHello in which some are wrong."""
    source = random.Random(seed)
    noise = source.randbytes(source.choice([1, 5, 100, 20_000]))
    if seed % 2:
        noise = bytearray(hello_octets(stage))
        for _ in range(source.randrange(1, 30)):
            noise[source.randrange(len(noise))] = source.randrange(256)
    wire = Wire(stage.connect(kind))
    with suppress(PeerClosed):
        wire.write(bytes(noise))
    cut_off(wire)


def test_plain_text_on_a_port_with_tls(stage: Stage) -> None:
    """HTTP is told so, in HTTP; nothing of it is ever taken for a request."""
    wire = Wire(stage.connect())
    wire.write(upgrade_request(stage.fronts["websocket"], KEY, "wamp.2.cbor"))
    answer = cut_off(wire)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"101" not in answer
    with pytest.raises((PeerClosed, HandshakeRefused)):
        raw.dial(stage.fronts["rawsocket"])


def test_tls_on_a_plain_port(stage: Stage) -> None:
    wire = Wire(stage.plain.connect())
    wire.write(hello_octets(stage))
    assert b" 101 " not in cut_off(wire)


@pytest.mark.parametrize(
    "octets",
    [
        bytes([HANDSHAKE, 3, 1, 0xFF, 0xFF]) + bytes(100),
        bytes([HANDSHAKE, 3, 1, 0, 0]) * 2000,
        bytes([ALERT, 3, 1, 0, 2, 1, 0]) * 2000,
        bytes([CHANGE, 3, 3, 0, 1, 1]) * 2000,
        bytes([DATA, 3, 3, 0, 16]) + bytes(16),
        b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10" + bytes(40),
        bytes([HANDSHAKE, 3, 1, 0x40, 0, 1, 0xFF, 0xFF, 0xFF]) + bytes(RECORD_MAX - 4),
        bytes([HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0]),
    ],
    ids=["too-long", "empty", "alerts", "change-cipher-spec", "data", "ssl2", "huge-hello", "server-hello"],
)
def test_records_that_do_not_belong_there(octets: bytes, stage: Stage) -> None:
    """Too long, empty, of another kind, out of order, one after the other: they end it, by the deadline at the last."""
    used = cpu_seconds(stage.proxy.pid)
    wire = Wire(stage.connect())
    with suppress(PeerClosed):
        wire.write(octets)
    cut_off(wire)
    assert cpu_seconds(stage.proxy.pid) - used < 1.0


def test_a_hello_that_never_ends(stage: Stage) -> None:
    """16 MiB are announced and sent: memory does not grow with them."""
    peak = Peak(stage.proxy.pid)
    wire = Wire(stage.connect())
    record = bytes([HANDSHAKE, 3, 1, 0x40, 0])
    octets = record + bytes([1, 0xFF, 0xFF, 0xFF]) + bytes(RECORD_MAX - 4) + (record + bytes(RECORD_MAX)) * 1024
    with suppress(PeerClosed):
        wire.write(octets)
    cut_off(wire)
    peak.check(4 * MIB, "an endless ClientHello")


# --- half a handshake --------------------------------------------------------------------------------------------

Stop = Callable[[Wire], object]
STOPS: dict[str, Stop] = {
    "silence": lambda wire: wire.read_all(),
    "close": lambda wire: wire.close(),
    "half-close": lambda wire: (wire.sock.shutdown(socket.SHUT_WR), wire.read_all()),
    "reset": lambda wire: wire.reset(),
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["nothing", "some-octets", "half-a-hello", "hello", "half-of-the-end"])
def test_half_a_handshake(part: str, kind: str, stop: str, stage: Stage) -> None:
    """Whoever stops in the middle is let go: at once where the connection ends, else by the deadline."""
    sock = stage.connect(kind)
    client = TlsWire(sock, stage.context(), shake=False)
    _, octets = client.flight()
    if part == "half-of-the-end":
        client.write_raw(octets)
        done = False
        while not done:
            client.receive()
            done, octets = client.flight()
        client.write_raw(octets[:-7])
    else:
        client.write_raw(octets[: {"nothing": 0, "some-octets": 3, "half-a-hello": len(octets) // 2}.get(part)])
    wire = Wire(sock)
    STOPS[stop](wire)
    wire.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_octet_by_octet(kind: str, version: ssl.TLSVersion, stage: Stage) -> None:
    """Nothing depends on how octets arrive: the handshake, HELLO, messages."""
    client = TlsWire(stage.connect(kind), stage.context(version), shake=False)
    done = False
    while not done:
        done, octets = client.flight()
        for i in range(len(octets)):
            client.write_raw(octets[i : i + 1])
        if not done:
            client.receive()
    peer: Peer
    if kind == "websocket":
        raw.upgrade(client, stage.fronts[kind], "wamp.2.cbor")
        peer = raw.WebSocketPeer(client, "cbor")
    else:
        client.write(b"\x7f\xf3\0\0")
        client.read(4)
        peer = raw.RawSocketPeer(client, "cbor")
    octets = client.encrypted(peer.frame(encode("cbor", hello())))
    for i in range(len(octets)):
        client.write_raw(octets[i : i + 1])
    router, _ = stage.stub.accept_session()
    peer.recv_type(WELCOME)
    stage.check(peer, router)
    peer.close()
    router.recv_end()


def test_one_octet_of_data_in_a_record(stage: Stage) -> None:
    """Twenty-two octets around each one: it is slow, and it works."""
    client, router = stage.session("rawsocket")
    wire = tls_of(client)
    frame = client.frame(encode("cbor", [raw.PUBLISH, 7, {}, "com.example", ["x" * 3000]]))
    records = b"".join(wire.encrypted(frame[i : i + 1]) for i in range(len(frame)))
    wire.write_raw(records)
    assert router.recv()[1] == 7
    client.close()
    router.recv_end()


@pytest.mark.slow
def test_many_who_do_not_finish(stage: Stage) -> None:
    """Hundreds wait in the middle of a handshake: clients get in meanwhile, and memory is a few records for each."""
    count = 400
    octets = hello_octets(stage)
    peak = Peak(stage.proxy.pid)
    waiting = [stage.connect() for _ in range(count)]
    for sock in waiting:
        sock.sendall(octets)
    client, router = stage.session("websocket")
    peak.check(count * 128 * 1024, "half handshakes")
    for sock in waiting:
        sock.close()
    stage.check(client, router)
    client.close()
    router.recv_end()


def test_slow_loris(stage: Stage) -> None:
    """An octet now and then keeps nobody beyond the deadline: neither in the handshake nor in the request behind it."""
    octets = hello_octets(stage)
    early = stage.connect()
    late = stage.wire()
    request = upgrade_request(stage.fronts["websocket"], KEY, "wamp.2.cbor")
    ended = {"early": False, "late": False}
    deadline = time.monotonic() + 20 * DEADLINE_MS / 1000
    for i in range(min(len(octets), len(request)) - 1):
        for name, send in (
            ("early", lambda i=i: early.sendall(octets[i : i + 1])),
            ("late", lambda i=i: late.write(request[i : i + 1])),
        ):
            try:
                send()
            except (OSError, PeerClosed):
                ended[name] = True
        if all(ended.values()):
            break
        assert time.monotonic() < deadline, f"somebody is still there: {ended}"
        time.sleep(0.1)
    assert all(ended.values())
    early.close()
    late.close()


@pytest.mark.parametrize("kind", KINDS)
def test_silence_after_the_handshake(kind: str, stage: Stage) -> None:
    """The deadline of the handshake counts for what follows on TLS, too."""
    wire = stage.wire(kind)
    assert wire.read_last() in ("close_notify", "eof", "reset")
    wire.close()


# --- in the session ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", ["shaken", "joined"])
def test_a_forged_record(phase: str, kind: str, version: ssl.TLSVersion, stage: Stage) -> None:
    """One wrong bit ends the connection, with an alert; nothing of the record is believed, and the router is told."""
    client, router = stage.session(kind, version) if phase == "joined" else (stage.shaken(kind, version), None)
    wire = tls_of(client)
    message = [raw.PUBLISH, 9, {}, "com.example.forged"] if phase == "joined" else hello()
    octets = bytearray(wire.encrypted(client.frame(encode("cbor", message))))
    octets[-1] ^= 1
    wire.write_raw(bytes(octets))
    assert "bad record mac" in wire.read_last().lower().replace("_", " ")
    wire.close()
    if router is not None:
        assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "octets", [b"not a record", bytes([DATA, 3, 3, 0xFF, 0xFF]), bytes([HANDSHAKE, 3, 3, 0, 1, 0])]
)
def test_noise_in_the_session(octets: bytes, kind: str, version: ssl.TLSVersion, stage: Stage) -> None:
    client, router = stage.session(kind, version)
    wire = tls_of(client)
    wire.write_raw(octets)
    wire.sock.shutdown(socket.SHUT_WR)
    wire.read_last()
    wire.close()
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["eof", "reset", "half-a-record"])
def test_truncation(how: str, kind: str, stage: Stage) -> None:
    """An end without close_notify: whole messages before it count, half a record does not, and the router is told."""
    client, router = stage.session(kind)
    wire = tls_of(client)
    client.send([raw.PUBLISH, 8, {}, "com.example"])
    assert router.recv()[1] == 8
    if how == "half-a-record":
        octets = wire.encrypted(client.frame(encode("cbor", [raw.PUBLISH, 9, {}, "com.example.truncated"])))
        wire.write_raw(octets[:-1])
    if how == "reset":
        wire.reset()
    else:
        wire.close()
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_record_and_the_rest_later(kind: str, stage: Stage) -> None:
    client, router = stage.session(kind)
    wire = tls_of(client)
    octets = wire.encrypted(client.frame(encode("cbor", [raw.PUBLISH, 9, {}, "com.example"])))
    wire.write_raw(octets[:-1])
    stage.check(*stage.witness)
    router.expect_silence(0.1)
    wire.write_raw(octets[-1:])
    assert router.recv()[1] == 9
    client.close()
    router.recv_end()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_end_is_said(kind: str, version: ssl.TLSVersion, stage: Stage) -> None:
    """Both ways: who is sent away gets a close_notify, and who says it gets one back."""
    client = stage.shaken(kind, version)
    client.send([raw.CALL, 1, {}, "com.example"])  # before the login
    client.recv_end()
    assert tls_of(client).has_notified
    client, router = stage.session(kind, version)
    wire = tls_of(client)
    wire.write_raw(wire.notify())
    received, _ = router.recv_end()
    assert [message[0] for message in received] == [GOODBYE]
    assert wire.read_last() in ("close_notify", "eof", "APPLICATION_DATA_AFTER_CLOSE_NOTIFY")
    wire.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_does_not_read(kind: str, stage: Stage) -> None:
    """Its router is slowed down, memory is bounded, and all of it arrives once it reads."""
    client, router = stage.session(kind)
    message = [raw.EVENT, 1, 2, {}, ["x" * 8000]]
    peak = Peak(stage.proxy.pid)
    flood = Flood.of(router, message)
    taken = flood.settle()
    assert taken < 16 * MIB
    peak.check(6 * MIB, "a client that does not read")
    stage.check(*stage.witness)
    payload, count = encode("cbor", message), 0
    while count * len(payload) < taken + 4 * MIB:
        assert client.recv_payload() == payload
        count += 1
    flood.stop()
    client.close()
    router.close()


# --- what OpenSSL's own client can be told to do -----------------------------------------------------------------


class OpenSsl:
    """``openssl s_client`` at a prompt of ours.

    :param stage: to whose WebSocket port it connects.
    :param options: more of its command line.
    """

    def __init__(self, stage: Stage, *options: str) -> None:
        program = shutil.which("openssl")
        if program is None:
            pytest.skip("there is no openssl")
        address = f"127.0.0.1:{stage.fronts['websocket'].port}"
        ca = str(stage.certificates.ca)
        command = [program, "s_client", "-connect", address, "-CAfile", ca, *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while data := self.process.stdout.read(1):
            self.output += data

    def say(self, text: str) -> None:
        """Type a line; one letter is a command."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(text)
            self.process.stdin.flush()

    def wait(self, pattern: str) -> None:
        """Wait for something in what it prints."""
        wait_until(lambda: re.search(pattern, self.output), f"openssl prints {pattern}\n{self.output}")

    def close(self) -> int:
        """End it; its exit status."""
        assert self.process.stdin is not None
        try:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            assert self.process.stdout is not None
            self.process.stdout.close()


def test_renegotiation_is_refused(stage: Stage) -> None:
    """Handshakes are dear, and one connection gets one."""
    client = OpenSsl(stage, "-tls1_2")
    client.wait(r"Verify return code: 0")
    client.say("R\n")
    client.wait("RENEGOTIATING")
    client.wait("no renegotiation")
    client.close()


def test_new_keys_in_the_middle(stage: Stage) -> None:
    """TLS 1.3's replacement of it (RFC 8446 section 4.6.3) costs little and works, as often as anybody likes."""
    client = OpenSsl(stage, "-tls1_3")
    client.wait(r"Verify return code: 0")
    for number in range(1, 21):
        client.say("K\n")  # one command is taken from each piece that it reads
        client.wait(rf"(?s)(KEYUPDATE.*){{{number}}}")
    client.say("GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.wait(r"HTTP/1.1 \d\d\d")
    client.close()


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_old_versions(option: str, stage: Stage) -> None:
    client = OpenSsl(stage, option, "-cipher", "ALL:@SECLEVEL=0")
    client.wait(r"(?i)alert protocol version|unsupported protocol|no protocols available|wrong version")
    assert client.close() != 0
