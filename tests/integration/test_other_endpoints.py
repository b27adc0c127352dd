"""Endpoints that Twisted opens, in a real process: sessions, limits and the end are as with any other endpoint."""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.certificates import certificates
from support.endpoints import Endpoint, free_port
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import GOODBYE, Peer, PeerClosed
from support.stub import StubRouter

SERVICE = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwx"
KEY = "ED25519-V3:" + "a" * 86 + "=="


class Stage:
    """A stub router and a proxy with one transport.

    :param folder: for everything.
    :param endpoint: of the transport.
    """

    def __init__(self, folder: Path, endpoint: dict[str, Any], **keys: Any) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(folder / "stub.sock")))
        self.config = Config(folder).stub("stub", self.stub.endpoint)
        self.config.listen("websocket", "front", **keys)
        self.config.transports[0]["endpoint"] = endpoint
        self.proxy = ProxyProcess(self.config)

    def session(self, port: int, sock: socket.socket | None = None) -> tuple[Peer, Peer]:
        """A joined session: (client, router's end)."""
        client = raw.dial(Endpoint("websocket", port), sock=sock)
        client.send(raw.hello())
        router, _ = self.stub.accept_session()
        client.recv_type(raw.WELCOME)
        self.check(client, router)
        return client, router

    def check(self, client: Peer, router: Peer) -> None:
        """One message each way."""
        client.send([raw.PUBLISH, 1, {}, "com.example", ["x" * 100_000]])
        assert router.recv()[4] == ["x" * 100_000]
        router.send([raw.EVENT, 1, 2, {}, ["y" * 100_000]])
        assert client.recv()[4] == ["y" * 100_000]

    def reload(self) -> None:
        """Have the proxy read the configuration again."""
        (self.config.directory / "proxy.json").write_text(json.dumps(self.config.as_dict()))
        count = self.proxy.child.output.count("configuration")
        self.proxy.child.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.proxy.child.output.count("configuration") > count, "it is read again")

    def close(self) -> None:
        """Assert that nothing is left."""
        self.proxy.check_idle()
        self.proxy.stop()
        self.stub.close()


def test_a_plain_endpoint(tmp_path: Path) -> None:
    port = free_port()
    endpoint = {"type": "twisted", "server_string": f"tcp:{port}:interface=127.0.0.1"}
    stage = Stage(tmp_path, endpoint, max_connections=2)
    assert f"ws://127.0.0.1:{port}" in stage.proxy.child.output
    sessions = [stage.session(port) for _ in range(2)]
    with pytest.raises((PeerClosed, OSError)):  # there are as many as there may be
        raw.dial(Endpoint("websocket", port))
    assert f"tcp4:127.0.0.1:{sessions[0][0].wire.sock.getsockname()[1]}" in stage.proxy.child.output
    for client, router in sessions:
        client.close()
        assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]
    stage.close()


def test_what_twisted_keeps(tmp_path: Path) -> None:
    """TLS that it ends itself."""
    made = certificates(tmp_path / "tls")
    port = free_port()
    parts = f"privateKey={made.server.key}:certKey={made.server.certificate}"
    stage = Stage(tmp_path, {"type": "twisted", "server_string": f"ssl:{port}:interface=127.0.0.1:{parts}"})
    context = ssl.create_default_context(cafile=str(made.ca))
    plain = socket.create_connection(("127.0.0.1", port), 10)
    client, router = stage.session(port, context.wrap_socket(plain, server_hostname="localhost"))
    stage.check(client, router)
    router.send([GOODBYE, {}, "wamp.close.normal"])
    assert client.recv_type(GOODBYE)[2] == "wamp.close.normal"
    router.close()
    client.close()
    stage.close()


def test_a_reload_leaves_it_open(tmp_path: Path) -> None:
    """Clients stay where nothing changes, and others take its place where something does."""
    port, other = free_port(), free_port()
    stage = Stage(tmp_path, {"type": "twisted", "server_string": f"tcp:{port}:interface=127.0.0.1"})
    first = stage.session(port)
    stage.config.transports[0]["max_connections"] = 100
    stage.reload()
    second = stage.session(port)
    stage.config.transports[0]["endpoint"]["server_string"] = f"tcp:{other}:interface=127.0.0.1"
    stage.reload()
    third = stage.session(other)
    with pytest.raises(ConnectionRefusedError):
        raw.dial(Endpoint("websocket", port))
    for client, router in (first, second, third):
        stage.check(client, router)
        client.close()
        router.recv_end()
    wait_until(lambda: stage.proxy.census.surplus()["socket"] <= 0, "the connections are closed")
    stage.proxy.stop()
    stage.stub.close()


def test_an_endpoint_that_cannot_be_opened(tmp_path: Path) -> None:
    """It says so, without what may be secret in the string."""
    with pytest.raises(AssertionError, match="cannot use Twisted's endpoint 'nosuch'") as caught:
        Stage(tmp_path, {"type": "twisted", "server_string": "nosuch:80:password=hunter2"})
    assert "hunter2" not in str(caught.value)


class ControlPort(socketserver.StreamRequestHandler):
    """As much of Tor's control port as it takes."""

    def handle(self) -> None:
        """One connection."""
        for line in self.rfile:
            words = line.decode().split()
            self.server.lines.append(line.decode().strip())  # type: ignore[attr-defined]
            answer = ["250 OK"]
            if words[0] == "PROTOCOLINFO":
                answer = ["250-PROTOCOLINFO 1", "250-AUTH METHODS=NULL", '250-VERSION Tor="0.4.8.9"', "250 OK"]
            elif words[0] == "GETINFO":
                answer = [f"250-{words[1]}=0.4.8.9", "250 OK"]
            elif words[0] == "ADD_ONION":
                answer = [f"250-ServiceID={SERVICE}", f"250-PrivateKey={KEY}", "250 OK"]
            self.wfile.write("".join(f"{part}\r\n" for part in answer).encode())


@pytest.fixture
def tor() -> Iterator[Any]:
    """A Tor without a network. ``lines``: what it was told."""
    pytest.importorskip("txtorcon")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), ControlPort) as server:
        server.daemon_threads = True
        server.lines = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_onion_service(tor: Any, tmp_path: Path) -> None:
    control = {"type": "tcp", "host": "127.0.0.1", "port": tor.server_address[1]}
    endpoint = {"type": "onion", "port": 80, "private_key_file": "onion.key", "tor_control_endpoint": control}
    stage = Stage(tmp_path, endpoint)
    assert f"ws://{SERVICE}.onion:80" in stage.proxy.child.output
    assert (tmp_path / "onion.key").read_text() == f"{KEY}\n"
    (command,) = [line for line in tor.lines if line.startswith("ADD_ONION")]
    port = int(command.rpartition(":")[2])
    client, router = stage.session(port)
    client.close()
    router.recv_end()
    assert KEY not in stage.proxy.child.output
    stage.close()
