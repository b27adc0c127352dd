"""The ways in of one transport, whatever it listens on: who is let in there, who is not, and how all of it ends."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.certificates import Certificates
from support.endpoints import Endpoint, free_port
from support.proxies import Config, ProxyProcess
from support.raw import hello
from support.stub import StubRouter

ANYBODY = {"anonymous": {"type": "static", "role": "anonymous"}}
GET = b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubRouter]:
    """A router."""
    stub = StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock")))
    yield stub
    stub.close()


def proxy_with(folder: Path, stub: StubRouter, *transports: dict[str, Any]) -> ProxyProcess:
    """A proxy with these transports."""
    config = Config(folder)
    config.backend("stub", {"transport": stub.endpoint.as_backend()})
    config.transports += transports
    return ProxyProcess(config)


def universal(endpoint: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A transport without RawSocket."""
    return {
        "type": "universal",
        "id": "many",
        "endpoint": endpoint,
        "websocket": {"ws": {"auth": ANYBODY}},
        "web": {"paths": {"info": {"type": "json", "value": [1, 2, 3]}}},
        "limits": {"handshake_timeout": 1500, "close_timeout": 300, "max_head_size": 512},
        **more,
    }


def tcp(port: int, **keys: Any) -> dict[str, Any]:
    return {"type": "tcp", "interface": "127.0.0.1", "port": port, **keys}


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_all(sock: socket.socket) -> bytes:
    """All that comes until the end; a reset is one."""
    answer = b""
    try:
        while piece := sock.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


def joined(client: raw.Peer, stub: StubRouter) -> tuple[raw.Peer, dict[str, Any]]:
    """Log a client in: the router's end of its session, and what that was told of the client's connection."""
    client.send(hello())
    router, greeting = stub.accept_session()
    client.recv_type(raw.WELCOME)
    return router, greeting[2]["authextra"]["proxy_authextra"]["transport"]


def test_tls_on_a_unix_socket(tmp_path: Path, stub: StubRouter) -> None:
    certificates = Certificates(tmp_path)
    path = str(tmp_path / "front.sock")
    endpoint = {"type": "unix", "path": path, "mode": "0600", "tls": certificates.server.tls}
    proxy = proxy_with(tmp_path, stub, universal(endpoint))
    context = ssl.create_default_context(cafile=str(certificates.ca))
    place = Endpoint("websocket", path=path)
    sock = context.wrap_socket(place.connect(), server_hostname="localhost")
    client = raw.dial(place, sock=sock)
    router, told = joined(client, stub)
    assert (told["is_secure"], told["peer"]) == (True, "unix")
    client.close()
    router.close()
    proxy.check_idle()
    proxy.stop()


def test_the_proxy_protocol_in_front_of_tls_in_front_of_websocket(tmp_path: Path, stub: StubRouter) -> None:
    certificates = Certificates(tmp_path)
    port = free_port()
    endpoint = tcp(port, tls=certificates.server.tls, proxy_protocol=["127.0.0.1"])
    proxy = proxy_with(tmp_path, stub, universal(endpoint))
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with connect(port) as plain:
        addresses = socket.inet_aton("198.51.100.7") + socket.inet_aton("192.0.2.1")
        header = PROXY_V2 + bytes([0x21, 0x11]) + struct.pack(">H", 12) + addresses + struct.pack(">HH", 5555, 443)
        plain.sendall(header)
        client = raw.dial(
            Endpoint("websocket", port), sock=context.wrap_socket(plain, server_hostname="localhost"), Host="proxy"
        )
    router, told = joined(client, stub)
    assert (told["is_secure"], told["peer"]) == (True, "tcp4:198.51.100.7:5555")
    client.close()
    router.close()
    proxy.check_idle()
    proxy.stop()


def test_who_fits_no_way_in(tmp_path: Path, stub: StubRouter) -> None:
    """RawSocket where there is none, MQTT, a head that is too large, and one that never ends."""
    port = free_port()
    proxy = proxy_with(tmp_path, stub, universal(tcp(port)))
    for octets in (b"\x7f\xf3\0\0", b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0", b"\0\0\0\0"):
        with connect(port) as sock:
            sock.sendall(octets)
            assert not read_all(sock).startswith((b"\x7f", b"HTTP/1.1 2"))
    with connect(port) as sock:
        sock.sendall(b"GET /info HTTP/1.1\r\nX: " + b"x" * 600)
        assert read_all(sock).startswith(b"HTTP/1.1 431")
    with connect(port) as sock:
        sock.sendall(b"GET /info HTTP/1.1\r\nHost:")
        assert read_all(sock).startswith(b"HTTP/1.1 408")
    proxy.check_idle()
    proxy.stop()


def test_connections_with_web_services_count(tmp_path: Path, stub: StubRouter) -> None:
    """max_connections goes for all clients of a transport, and a connection that ends makes room."""
    port = free_port()
    proxy = proxy_with(tmp_path, stub, universal(tcp(port), max_connections=2))
    socks = [connect(port) for _ in range(2)]
    for sock in socks:
        sock.sendall(GET)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    with connect(port) as third:
        third.sendall(GET)
        assert read_all(third) == b""
    socks[0].close()
    deadline = time.monotonic() + 10
    while True:
        with connect(port) as again:
            again.sendall(GET)
            try:
                if again.recv(65536).startswith(b"HTTP/1.1 200"):
                    break
            except ConnectionResetError:
                pass
        assert time.monotonic() < deadline, "there is no room after one has left"
        time.sleep(0.02)
    socks[1].close()
    proxy.check_idle()
    proxy.stop()


def test_the_worker_ends_though_connections_with_web_services_are_open(tmp_path: Path, stub: StubRouter) -> None:
    """Those that wait for a request are closed, and a session is told goodbye."""
    port = free_port()
    proxy = proxy_with(tmp_path, stub, universal(tcp(port)))
    idle, fresh = connect(port), connect(port)
    idle.sendall(GET)
    assert idle.recv(65536).startswith(b"HTTP/1.1 200")
    client = raw.dial(Endpoint("websocket", port))
    router, _ = joined(client, stub)
    proxy.child.process.send_signal(signal.SIGTERM)
    assert read_all(idle) == b""
    assert client.recv_type(raw.GOODBYE)[2] == "wamp.close.system_shutdown"
    client.send([raw.GOODBYE, {}, "wamp.close.goodbye_and_out"])
    assert proxy.child.process.wait(15) == 0
    proxy.check_log()
    for sock in (idle, fresh):
        sock.close()
    client.close()
    router.close()


def test_an_endpoint_of_twisted(tmp_path: Path, stub: StubRouter) -> None:
    """All ways in work there, too; a reload neither closes the port nor drops anybody."""
    port = free_port()
    endpoint = {"type": "twisted", "server_string": f"tcp:{port}:interface=127.0.0.1"}
    proxy = proxy_with(tmp_path, stub, universal(endpoint))
    client = raw.dial(Endpoint("websocket", port))
    router, told = joined(client, stub)
    assert told["peer"].startswith("tcp4:127.0.0.1:")
    with connect(port) as sock:
        sock.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert read_all(sock).endswith(b"[1,2,3]")
    proxy.config.transports[0]["web"]["paths"]["info"]["value"] = "changed"
    (tmp_path / "proxy.json").write_text(json.dumps(proxy.config.as_dict()))
    proxy.child.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 15
    while True:
        with connect(port) as sock:
            sock.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            if read_all(sock).endswith(b'"changed"'):
                break
        assert time.monotonic() < deadline, "the change did not come"
        time.sleep(0.05)
    client.send([raw.CALL, 1, {}, "com.example.echo"])
    assert router.recv() == [raw.CALL, 1, {}, "com.example.echo"]
    client.close()
    router.close()
    proxy.check_idle()
    proxy.stop()
