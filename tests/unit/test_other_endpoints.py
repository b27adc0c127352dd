"""Endpoints that Twisted opens: who connects becomes the data plane's, and what Tor is told."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from proxy import onion, other_endpoints
from proxy.config.other_endpoints import OnionEndpoint, TwistedEndpoint
from proxy.errors import CannotListen
from proxy.other_endpoints import OtherListener, open_endpoint
from proxy.plane import peer_text
from support.certificates import certificates
from support.process import wait_until

PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x7f\0\0\x01\x12\x67\0\x50"
KEY = "ED25519-V3:" + "a" * 86 + "=="
SERVICE = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwx"


class Plane:
    """Takes what it is given."""

    def __init__(self) -> None:
        self.adopted: list[tuple[socket.socket, int, bytes]] = []
        self.is_full = False

    def adopt(self, fd: int, number: int, address: bytes = b"") -> None:
        if self.is_full:
            raise OSError(errno.EMFILE, "too many")
        self.adopted.append((socket.socket(fileno=fd), number, address))


class Limits:
    handshake_timeout = 300  # ms


class Model:
    limits = Limits()


class Transport:
    """As much of a listening transport as an endpoint needs."""

    id = "transport007"
    number = 7
    model = Model()

    def __init__(self) -> None:
        self.plane = Plane()
        self.reactor = EPollReactor()
        self.controller = self

    def spin(self, condition: Callable[[], Any], what: str) -> None:
        """Let the reactor turn until something is the case."""

        def turned() -> bool:
            self.reactor.iterate(0.01)
            return bool(condition())

        wait_until(turned, what, 15.0, 0.0)

    def result(self, deferred: Deferred[Any]) -> Any:
        """What a Deferred comes to."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.spin(lambda: results, "the Deferred fires")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def open(self, **endpoint: Any) -> OtherListener:
        """Listen."""
        model: Any = TypeAdapter(OnionEndpoint if "port" in endpoint else TwistedEndpoint).validate_python(endpoint)
        listener: OtherListener = self.result(open_endpoint(self, model))  # type: ignore[arg-type]
        return listener

    def adopted(self) -> tuple[socket.socket, int, bytes]:
        """The next connection that the data plane got."""
        self.spin(lambda: self.plane.adopted, "a connection is adopted")
        return self.plane.adopted.pop(0)

    def read(self, end: socket.socket, count: int) -> bytes:
        """Octets from a non-blocking socket, while the reactor turns."""
        end.setblocking(False)
        data = bytearray()

        def readable() -> bool:
            try:
                chunk = end.recv(count - len(data))
            except BlockingIOError:
                return False
            data.extend(chunk)
            return not chunk or len(data) == count

        self.spin(readable, f"{count} octets arrive")
        return bytes(data)

    def close(self) -> None:
        """Nothing may be left that waits for anything."""
        for end, _, _ in self.plane.adopted:
            end.close()
        self.reactor.removeAll()
        self.reactor._poller.close()
        self.reactor.waker.connectionLost(None)  # type: ignore[attr-defined]


def descriptors() -> set[str]:
    """What this process has open, but for one that Twisted keeps for when there are no others."""
    links = (Path("/proc/self/fd") / number for number in os.listdir("/proc/self/fd"))
    found = {link.name: str(link.readlink()) for link in links if link.is_symlink()}
    return {f"{number} {target}" for number, target in found.items() if target != os.devnull}


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    """What Twisted's plugins open when they are first looked for stays open."""
    with suppress(ValueError):
        serverFromString(object(), "nosuch:80")


@pytest.fixture
def transport() -> Iterator[Transport]:
    before = descriptors()
    transport = Transport()
    yield transport
    pending = [call for call in transport.reactor.getDelayedCalls() if call.active()]
    transport.close()
    assert not pending
    left = descriptors() - before
    assert not left


def connect(listener: OtherListener) -> socket.socket:
    """A client."""
    kind, _, rest = listener.address.partition(":")
    if kind == "unix":
        client = socket.socket(socket.AF_UNIX)
        client.connect(rest)
        return client
    host, _, port = rest.rpartition(":")
    return socket.create_connection((host, int(port)), 10)


# --- plain sockets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_plain_socket_becomes_the_data_planes(kind: str, transport: Transport, tmp_path: Path) -> None:
    """The connection itself: Twisted has no part in it any more, and what is closed here is closed for the client."""
    place = {"tcp": "tcp:0:interface=127.0.0.1", "unix": f"unix:{tmp_path / 'a.sock'}"}[kind]
    listener = transport.open(server_string=place)
    with connect(listener) as client:
        client.sendall(b"early")
        end, number, address = transport.adopted()
        with end:
            assert (number, address) == (7, b"")
            assert not os.get_blocking(end.fileno())
            assert not end.get_inheritable()
            if kind == "tcp":
                assert end.getpeername() == client.getsockname()
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            for _ in range(5):
                transport.reactor.iterate(0)
            end.setblocking(True)
            assert end.recv(100) == b"early"
            end.sendall(b"answer")
            assert client.recv(100) == b"answer"
        assert client.recv(100) == b""
    transport.result(listener.stop())


def test_after_stop_nobody_comes_in_and_who_is_there_stays(transport: Transport) -> None:
    listener = transport.open(server_string="tcp:0:interface=127.0.0.1")
    with connect(listener) as client:
        end, _, _ = transport.adopted()
        transport.result(listener.stop())
        with pytest.raises(ConnectionRefusedError):
            connect(listener)
        with end:
            client.sendall(b"still here")
            assert transport.read(end, 10) == b"still here"


def test_before_the_transport_listens_nobody_is_let_in(transport: Transport) -> None:
    listener = transport.open(server_string="tcp:0:interface=127.0.0.1")
    transport.number = 0
    with connect(listener) as client:
        assert transport.read(client, 1) == b""
    assert not transport.plane.adopted
    transport.result(listener.stop())


def test_a_full_data_plane_drops_the_connection(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    listener = transport.open(server_string="tcp:0:interface=127.0.0.1")
    transport.plane.is_full = True
    with connect(listener) as client:
        assert transport.read(client, 1) == b""
    assert "transport007: a connection is dropped: [Errno 24] too many" in caplog.text
    transport.result(listener.stop())


# --- more than a socket ------------------------------------------------------------------------------------------


def test_a_proxy_header_that_twisted_reads_names_the_client(transport: Transport) -> None:
    listener = transport.open(server_string="haproxy:tcp:0:interface=127.0.0.1")
    with connect(listener) as client:
        client.sendall(b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 80\r\n")
        for _ in range(5):
            transport.reactor.iterate(0.01)
        assert not transport.plane.adopted
        client.sendall(b"GET / HTTP/1.1\r\n")
        end, _, address = transport.adopted()
        with end:
            assert peer_text(address) == "tcp4:198.51.100.7:4711"
            assert transport.read(end, 16) == b"GET / HTTP/1.1\r\n"
            end.sendall(b"HTTP/1.1 200 OK")
            assert transport.read(client, 15) == b"HTTP/1.1 200 OK"
        assert transport.read(client, 1) == b""
    transport.result(listener.stop())
    transport.spin(lambda: not transport.reactor.getDelayedCalls(), "no deadline is left")


def test_out_of_descriptors_a_connection_is_dropped_and_no_more(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Twisted needs one more than the pair of sockets."""

    def full(*_: Any) -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(transport.reactor, "adoptStreamConnection", full)
    failures: list[Any] = []
    monkeypatch.setattr("twisted.python.log.err", lambda *args, **_: failures.append(args))
    listener = transport.open(server_string="haproxy:tcp:0:interface=127.0.0.1")
    with connect(listener) as client:
        client.sendall(b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 80\r\nx")
        assert transport.read(client, 1) == b""
    end, _, _ = transport.adopted()
    with end:
        assert end.recv(1) == b"", "the data plane sees the end as well"
    assert "a connection is dropped: [Errno 24]" in caplog.text
    transport.result(listener.stop())
    transport.spin(lambda: not transport.reactor.getDelayedCalls(), "no deadline is left")
    assert failures == []


def test_who_never_says_who_it_is_is_cut_off(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_endpoints, "NAMELESS_MAX", 1)
    listener = transport.open(server_string="haproxy:tcp:0:interface=127.0.0.1")
    with connect(listener) as first:
        transport.spin(transport.reactor.getDelayedCalls, "it waits")
        with connect(listener) as second, pytest.raises(ConnectionResetError):
            transport.read(second, 1)
        with pytest.raises(ConnectionResetError):
            transport.read(first, 1)
    with connect(listener) as third:  # there is room again
        third.sendall(PROXY_V2 + b"x")
        end, _, address = transport.adopted()
        end.close()
        assert peer_text(address) == "tcp4:198.51.100.7:4711"
        assert transport.read(third, 1) == b""
    transport.result(listener.stop())
    transport.spin(lambda: not transport.reactor.getDelayedCalls(), "no deadline is left")


def test_tls_that_twisted_ends(transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Octets both ways, in their order, and more than any buffer holds: whoever does not read stops the other one."""
    monkeypatch.setattr("twisted.internet.reactor", transport.reactor, raising=False)  # Twisted's TLS asks no further
    made = certificates(tmp_path)
    parts = f"privateKey={made.server.key}:certKey={made.server.certificate}"
    listener = transport.open(server_string=f"ssl:0:interface=127.0.0.1:{parts}")
    context = ssl.create_default_context(cafile=str(made.ca))
    context.check_hostname = False
    with connect(listener) as plain:
        plain.setblocking(False)
        client = context.wrap_socket(plain, do_handshake_on_connect=False)

        def shaken() -> bool:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                return False
            return True

        transport.spin(shaken, "the handshake is done")
        end, _, address = transport.adopted()
        with end, client:
            assert peer_text(address).startswith("tcp4:127.0.0.1:")
            sent = _flood(transport, end)
            assert sent < 16 << 20, "nobody reads and it is taken nevertheless"
            data = bytearray()

            def readable() -> bool:
                with suppress(ssl.SSLWantReadError):
                    while len(data) < sent:
                        data.extend(client.recv(1 << 16))
                return len(data) == sent

            transport.spin(readable, "all of it arrives")
            assert data == bytes(sent)
            client.sendall(b"up")
            assert transport.read(end, 2) == b"up"
        transport.spin(lambda: not transport.reactor.getDelayedCalls(), "the connection is over")
    transport.result(listener.stop())


def _flood(transport: Transport, end: socket.socket) -> int:
    """Write until nothing is taken any more; how much it was."""
    end.setblocking(False)
    sent = refused = 0
    while refused < 20:
        try:
            sent += end.send(bytes(1 << 16))
            refused = 0
        except BlockingIOError:
            refused += 1
        transport.reactor.iterate(0.01)
        if sent >= 64 << 20:
            break
    return sent


# --- what cannot be opened ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server_string", "text"),
    [
        ("nosuch:80:password=secret", "cannot use Twisted's endpoint 'nosuch': ValueError"),
        ("tcp:port=secret", "cannot use Twisted's endpoint 'tcp': ValueError"),
        ("tcp:8080:interface=192.0.2.1", "cannot listen on Twisted's endpoint 'tcp': CannotListenError"),
        ("ssl:0:privateKey=/nowhere/key.pem", "cannot use Twisted's endpoint 'ssl': FileNotFoundError"),
    ],
)
def test_a_server_string_that_cannot_be_used(server_string: str, text: str, transport: Transport) -> None:
    with pytest.raises(CannotListen, match="transport007: ") as caught:
        transport.open(server_string=server_string)
    assert text in caught.value.message


@pytest.mark.parametrize("value", ["", "tcp", "tcp:", ":80", "tcp:80\0", 80, None])
def test_what_is_no_server_string(value: Any) -> None:
    with pytest.raises(ValidationError):
        TwistedEndpoint.model_validate({"server_string": value})


# --- Tor ---------------------------------------------------------------------------------------------------------


class FakeTor(LineOnlyReceiver):
    """The control port of a Tor that has no network."""

    factory: FakeTorFactory

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.factory.connections.remove(self)

    def say(self, *lines: str) -> None:
        self.sendLine("\r\n".join(lines).encode())

    def lineReceived(self, line: bytes) -> None:
        text = line.decode()
        self.factory.lines.append(text)
        command = text.split()[0]
        if command in self.factory.answers:
            self.say(*self.factory.answers[command])
        elif command == "PROTOCOLINFO":
            self.say("250-PROTOCOLINFO 1", "250-AUTH METHODS=NULL", '250-VERSION Tor="0.4.8.9"', "250 OK")
        elif command == "GETINFO":
            names = {"version": "0.4.8.9", "events/names": "HS_DESC CIRC", "signal/names": "RELOAD"}
            name = text.split()[1]
            self.say(f"250-{name}={names[name]}", "250 OK")
        elif command == "ADD_ONION":
            key = [f"250-PrivateKey={KEY}"] if "NEW:" in text else []
            self.say(f"250-ServiceID={SERVICE}", *key, "250 OK")
        else:
            self.say("250 OK")


class FakeTorFactory(Factory):
    """What a FakeTor was asked, and what it answers."""

    protocol = FakeTor
    noisy = False

    def __init__(self) -> None:
        self.connections: list[FakeTor] = []
        self.lines: list[str] = []
        self.answers: dict[str, list[str]] = {}

    def asked(self) -> list[str]:
        """Its ADD_ONION commands."""
        return [line for line in self.lines if line.startswith("ADD_ONION")]


class Tor:
    """A FakeTor that listens."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.factory = FakeTorFactory()
        endpoint = TCP4ServerEndpoint(transport.reactor, 0, interface="127.0.0.1")
        self.port = transport.result(endpoint.listen(self.factory))
        self.number = self.port.getHost().port

    def endpoint(self, folder: Path, **keys: Any) -> dict[str, Any]:
        """Configuration of an onion endpoint."""
        control = {"type": "tcp", "host": "127.0.0.1", "port": self.number, "timeout": 5}
        return {"port": 80, "private_key_file": str(folder / "onion.key"), "tor_control_endpoint": control, **keys}

    def stop(self) -> None:
        """Close it."""
        self.transport.result(self.port.stopListening())
        for connection in list(self.factory.connections):
            connection.transport.abortConnection()  # type: ignore[union-attr]
        self.transport.spin(lambda: not self.factory.connections, "Tor's connections are closed")


@pytest.fixture
def tor(transport: Transport) -> Iterator[Tor]:
    pytest.importorskip("txtorcon")
    tor = Tor(transport)
    yield tor
    tor.stop()


def local_port(command: str) -> int:
    """Where an ADD_ONION leads."""
    words = command.split()
    target = next(word for word in words if word.startswith("Port=80,127.0.0.1:"))
    return int(target.rpartition(":")[2])


def test_an_onion_service_leads_to_the_data_plane(tor: Tor, transport: Transport, tmp_path: Path) -> None:
    listener = transport.open(**tor.endpoint(tmp_path))
    assert listener.address == f"onion:{SERVICE}.onion:80"
    (command,) = tor.factory.asked()
    assert command.startswith("ADD_ONION NEW:ED25519-V3 ")
    with socket.create_connection(("127.0.0.1", local_port(command)), 10) as client:
        end, number, _ = transport.adopted()
        with end:
            assert number == 7
            client.sendall(b"hello")
            assert transport.read(end, 5) == b"hello"
    assert len(tor.factory.connections) == 1, "the service lives as long as the connection"
    transport.result(listener.stop())
    transport.spin(lambda: not tor.factory.connections, "the control connection is closed")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", local_port(command)), 10)


def test_the_key_is_kept_for_its_owner_and_used_again(tor: Tor, transport: Transport, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        first = transport.open(**tor.endpoint(tmp_path))
    finally:
        os.umask(before)
    transport.result(first.stop())
    path = tmp_path / "onion.key"
    assert path.read_text() == f"{KEY}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = transport.open(**tor.endpoint(tmp_path))
    assert tor.factory.asked()[1].startswith(f"ADD_ONION {KEY} ")
    assert second.address == first.address
    transport.result(second.stop())


def test_when_tor_comes_back_so_does_the_service(
    tor: Tor, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onion, "RETRY_SECONDS", (0.01, 0.04))
    listener = transport.open(**tor.endpoint(tmp_path))
    tor.factory.answers["PROTOCOLINFO"] = ["551 not yet"]
    tor.factory.connections[0].transport.abortConnection()  # type: ignore[union-attr]
    transport.spin(lambda: "551 not yet" in caplog.text, "it is tried again")
    del tor.factory.answers["PROTOCOLINFO"]
    transport.spin(lambda: "is set up again" in caplog.text.rpartition("551 not yet")[2], "the service is back")
    first, again = tor.factory.asked()
    assert local_port(first) == local_port(again)
    assert KEY not in caplog.text
    transport.result(listener.stop())
    transport.spin(lambda: not tor.factory.connections, "the control connection is closed")


def test_stop_ends_the_attempts(
    tor: Tor, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits for the next attempt, and in the middle of one."""
    monkeypatch.setattr(onion, "RETRY_SECONDS", (0.01, 60.0))
    for silent in (False, True):
        listener = transport.open(**tor.endpoint(tmp_path))
        tor.factory.lines.clear()
        tor.factory.answers["PROTOCOLINFO"] = [] if silent else ["551 not yet"]
        tor.factory.connections[0].transport.abortConnection()  # type: ignore[union-attr]
        transport.spin(lambda: tor.factory.lines, "it is tried again")
        transport.result(listener.stop())
        transport.spin(lambda: not tor.factory.connections, "the control connection is closed")
        tor.factory.answers.clear()
    assert not transport.reactor.getDelayedCalls()


@pytest.mark.parametrize(
    ("command", "answer", "text"),
    [
        ("ADD_ONION", ["512 Bad arguments"], "512 Bad arguments"),
        ("ADD_ONION", ["250 OK"], "it does not tell the name of the service"),
        ("ADD_ONION", [f"250-ServiceID={SERVICE}", "250 OK"], "does not tell the key"),
        ("AUTHENTICATE", ["515 Authentication failed"], "515 Authentication failed"),
        ("PROTOCOLINFO", ["250-PROTOCOLINFO 1", "250-AUTH METHODS=HASHEDPASSWORD", "250 OK"], "No password"),
    ],
)
def test_what_tor_refuses(
    command: str, answer: list[str], text: str, tor: Tor, transport: Transport, tmp_path: Path
) -> None:
    tor.factory.answers[command] = answer
    with pytest.raises(CannotListen, match=r"transport007: |onion service") as caught:
        transport.open(**tor.endpoint(tmp_path))
    assert text in caught.value.message
    transport.spin(lambda: not tor.factory.connections, "the control connection is closed")


def test_a_silent_tor_is_given_up(
    tor: Tor, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onion, "TOR_SECONDS", 0.05)
    tor.factory.answers["PROTOCOLINFO"] = []
    with pytest.raises(CannotListen, match="sets up no onion service"):
        transport.open(**tor.endpoint(tmp_path))
    transport.spin(lambda: not tor.factory.connections, "the control connection is closed")


def test_without_tor(transport: Transport, tmp_path: Path) -> None:
    pytest.importorskip("txtorcon")
    control = {"type": "unix", "path": str(tmp_path / "control"), "timeout": 5}
    keys = {"port": 80, "private_key_file": str(tmp_path / "key"), "tor_control_endpoint": control}
    with pytest.raises(CannotListen, match=f"Tor at unix:{tmp_path}/control sets up no onion service"):
        transport.open(**keys)
    assert not (tmp_path / "key").exists()


def test_a_key_file_that_holds_something_else_is_left_alone(tor: Tor, transport: Transport, tmp_path: Path) -> None:
    path = tmp_path / "onion.key"
    path.write_text("something of great value")
    with pytest.raises(CannotListen, match="expected the key of an onion service in") as caught:
        transport.open(**tor.endpoint(tmp_path))
    assert "great value" not in caught.value.message
    assert path.read_text() == "something of great value"
    assert not tor.factory.lines


def test_a_key_that_cannot_be_kept(tor: Tor, transport: Transport, tmp_path: Path) -> None:
    """Else the service would be somewhere else after the next start."""
    with pytest.raises(CannotListen, match=r"cannot keep the key of the onion service in .*: No such file"):
        transport.open(**tor.endpoint(tmp_path, private_key_file=str(tmp_path / "none" / "key")))
    transport.spin(lambda: not tor.factory.connections, "the control connection is closed")


def test_half_a_key_is_not_kept(
    tor: Tor, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be in the way of each start from then on."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotListen, match=r"cannot keep the key of the onion service in .*: No space left"):
        transport.open(**tor.endpoint(tmp_path))
    assert not list(tmp_path.iterdir())
    transport.spin(lambda: not tor.factory.connections, "the control connection is closed")


def test_without_its_package(transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "txtorcon", None)
    control = {"type": "tcp", "host": "localhost", "port": 9051}
    keys = {"port": 80, "private_key_file": str(tmp_path / "key"), "tor_control_endpoint": control}
    with pytest.raises(CannotListen, match=r"pip install wamp-proxy\[onion\]"):
        transport.open(**keys)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"version": 2}, "expected 3: version 2 is dead"),
        ({"version": 4}, "expected 3"),
        ({"port": 0}, "expected an integer from 1 to 65535"),
        ({"private_key_file": ""}, "expected the path of a file"),
        ({"tor_control_endpoint": {"type": "tcp", "host": "h", "port": 1, "tls": {}}}, "speaks no TLS"),
        ({"tor_control_endpoint": {"type": "twisted"}}, "tor_control_endpoint"),
    ],
)
def test_onion_endpoints_that_make_no_sense(keys: dict[str, Any], text: str) -> None:
    control = {"type": "tcp", "host": "localhost", "port": 9051}
    item = {"type": "onion", "port": 80, "private_key_file": "key", "tor_control_endpoint": control}
    assert OnionEndpoint.model_validate(item).version == 3
    with pytest.raises(ValidationError, match=text):
        OnionEndpoint.model_validate({**item, **keys})
