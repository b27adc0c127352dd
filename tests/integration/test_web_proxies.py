"""reverseproxy, websocket-reverseproxy, cgi, wsgi, archive of a running proxy: through the data plane and its TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from support.backends import BackendServer, Seen, respond
from support.certificates import certificates
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.web_client import Place, read

BIG = 24 << 20
PLACES = ["http", "https", "universal", "unix"]
CGI = """
import json, os, sys
body = sys.stdin.buffer.read()
print("Content-Type: application/json\\n")
print(json.dumps({"env": dict(os.environ), "length": len(body)}))
"""
WSGI = """
import json
def app(environ, start_response):
    length = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "application/json")])
    env = {name: value for name, value in environ.items() if isinstance(value, str)}
    return [json.dumps({"env": env, "length": length}).encode()]
"""
FILES = {"index.html": b"<h1>zip</h1>", "big.bin": os.urandom(BIG)}


class Proxy:
    """A proxy with the same services on several transports, and the servers behind them."""

    def __init__(self, directory: Path) -> None:
        self.backend = BackendServer(respond())
        self.sockets: Server = serve(_echo, "127.0.0.1", 0, max_size=1 << 26)
        threading.Thread(target=self.sockets.serve_forever, daemon=True).start()
        config = Config(directory).stub("stub", Endpoint("rawsocket", path=str(directory / "nobody.sock")))
        pki = certificates(directory / "pki")
        self._write_files(directory)
        paths = self._paths(self.sockets.socket.getsockname()[1])
        self.places: dict[str, Place] = {}
        for name in PLACES:
            endpoint = config.listen("websocket", name, unix=name == "unix")
            item = {key: config.transports[-1][key] for key in ("id", "endpoint")}
            web = {"paths": paths}
            kind = {"type": "universal", "web": web} if name == "universal" else {"type": "web", **web}
            config.transports[-1] = {**item, **kind}
            item["endpoint"]["forwarded"] = ["unix"] if name == "unix" else ["127.0.0.1"]
            if name == "https":
                item["endpoint"]["tls"] = pki.server.tls
            self.places[name] = Place(endpoint.port, pki.ca if name == "https" else None, endpoint.path)
        self.process = ProxyProcess(config)

    def _write_files(self, directory: Path) -> None:
        (directory / "programs").mkdir()
        (directory / "programs" / "show.py").write_text(CGI)
        (directory / "web_wsgi_probe.py").write_text(WSGI)
        with zipfile.ZipFile(directory / "web.zip", "w") as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)

    def _paths(self, port: int) -> dict[str, Any]:
        server = {"type": "tcp", "host": "127.0.0.1", "port": port}
        return {
            "api": {"type": "reverseproxy", "host": "127.0.0.1", "port": self.backend.port, "path": "/inner"},
            "ws": {
                "type": "websocket-reverseproxy",
                "backend": {"type": "websocket", "endpoint": server, "url": f"ws://127.0.0.1:{port}/"},
            },
            "cgi": {"type": "cgi", "directory": "programs", "processor": sys.executable},
            "app": {"type": "wsgi", "module": "web_wsgi_probe", "object": "app"},
            "zip": {"type": "archive", "archive": "web.zip", "default_object": "index.html"},
        }

    def stop(self) -> None:
        """End everything."""
        self.process.stop()
        self.sockets.shutdown()
        self.backend.stop()


def _echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@pytest.fixture(scope="module")
def _proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("webs"))
    yield proxy
    proxy.stop()


@pytest.fixture
def proxy(_proxy: Proxy) -> Iterator[Proxy]:
    """The proxy; after the test it holds nothing more than before."""
    _proxy.backend.seen.clear()
    _proxy.backend.answer = respond()
    yield _proxy
    wait_until(lambda: not psutil.Process(_proxy.process.pid).children(), "no program is left")
    _proxy.process.check_log()


@pytest.fixture(params=PLACES)
def place(proxy: Proxy, request: pytest.FixtureRequest) -> Place:
    """Where the services are: on a port of its own, over TLS, beside other protocols, on a Unix socket."""
    found: Place = proxy.places[request.param]
    return found


def websocket(place: Place, path: str = "/ws") -> ClientConnection:
    """A client of the server for WebSocket. Where there is TLS, the socket has it already."""
    return connect(f"ws://localhost{path}", sock=place.connect(), max_size=1 << 26)


# --- reverseproxy ---


def test_reverseproxy(proxy: Proxy, place: Place) -> None:
    body = os.urandom(3_000_000)
    proxy.backend.answer = respond(body, "201 Made", {"Set-Cookie": "a=1"})
    client = place.client()
    for _ in range(3):
        client.request("PUT", "/api/a%20b?c=d", body, {"Host": "public.example.com"})
        answer = read(client)
        assert (answer.status, answer.headers["set-cookie"], answer.body == body) == (201, "a=1", True)
    client.close()
    seen = proxy.backend.seen[-1]
    assert (seen.target, seen.body == body) == ("/inner/a%20b?c=d", True)
    is_tls = place.context is not None
    assert seen.headers["x-forwarded-proto"] == ("https" if is_tls else "http")
    assert seen.headers["x-forwarded-port"] == str(place.port or 80)
    assert seen.headers["x-forwarded-host"] == "public.example.com"
    assert seen.headers.get("x-forwarded-for") == (None if place.unix else "127.0.0.1")


def test_reverseproxy_behind_another_proxy(proxy: Proxy, place: Place) -> None:
    place.ask("/api/", headers={"X-Forwarded-For": "198.51.100.7"})
    seen = proxy.backend.seen[-1].headers
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "198.51.100.7"


def test_reverseproxy_holds_up_a_server(proxy: Proxy, place: Place) -> None:
    sent = [0]

    def answer(_: Seen, sock: socket.socket) -> None:
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n".encode())
        while sent[0] < BIG:
            sock.sendall(b"x" * 65536)
            sent[0] += 65536

    proxy.backend.answer = answer
    client = place.client()
    client.request("GET", "/api/")
    response = client.getresponse()
    state = [-1]

    def has_stopped() -> bool:
        before, state[0] = state[0], sent[0]
        return before == sent[0] > 0

    wait_until(has_stopped, "the server is held up", interval=0.5)
    assert sent[0] < BIG
    assert len(response.read()) == BIG
    client.close()


def test_reverseproxy_lets_go_of_servers(proxy: Proxy, place: Place) -> None:
    before = proxy.backend.open

    def answer(_: Seen, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            sock.sendall(b"x" * 65536)

    proxy.backend.answer = answer
    client = place.client()
    client.request("GET", "/api/")
    client.getresponse().read(1000)
    client.close()
    client.sock = None
    wait_until(lambda: proxy.backend.open <= before, "the server's connection is closed")


# --- websocket-reverseproxy ---


def test_websocket_reverseproxy(proxy: Proxy, place: Place) -> None:
    with websocket(place) as client:
        for message in ("text", b"octets", "ü" * 100_000, os.urandom(8 << 20)):
            client.send(message)
            assert client.recv(30) == message
        assert client.ping().wait(20)
    assert client.close_code == 1000


def test_upgrade_through_reverseproxy(proxy: Proxy, place: Place) -> None:
    def answer(_: Seen, sock: socket.socket) -> bool:
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"
        sock.sendall(head.encode())
        while data := sock.recv(65536):
            sock.sendall(data)
        return False

    proxy.backend.answer = answer
    with closing(place.connect()) as sock:
        fields = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
        sock.sendall(
            f"GET /api/up HTTP/1.1\r\n{fields}\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        got = b""
        while not got.endswith(b"hello"):
            got += sock.recv(1000)
        assert got.startswith(b"HTTP/1.1 101 ")
        sock.sendall(b"back")
        assert sock.recv(100) == b"back"
    assert proxy.backend.seen[-1].target == "/inner/up"


def test_websockets_after_other_requests(proxy: Proxy, place: Place) -> None:
    """A tunnelled connection may still become one."""
    client = place.client()
    client.request("GET", "/zip/")
    assert read(client).body == FILES["index.html"]
    sock = client.sock
    fields = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
    sock.sendall(f"GET /ws HTTP/1.1\r\n{fields}\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    assert sock.recv(12).startswith(b"HTTP/1.1 101")
    client.close()


# --- cgi, wsgi ---


@pytest.mark.parametrize("path", ["/cgi/show.py", "/app"])
def test_programs_and_applications(path: str, proxy: Proxy, place: Place) -> None:
    client = place.client()
    for size in (0, 1_000_000):
        client.request("POST", f"{path}/more?q=1", b"x" * size, {"X-Forwarded-For": "198.51.100.7"})
        answer = read(client)
        assert answer.status == 200
        got = json.loads(answer.body)
        env = got["env"]
        assert (got["length"], env["PATH_INFO"], env["QUERY_STRING"]) == (size, "/more", "q=1")
        assert (env["SCRIPT_NAME"], env["REMOTE_ADDR"]) == (path, "198.51.100.7")
        assert env["SERVER_PORT"] == str(place.port or 80)
        assert env.get("HTTPS") == (None if place.context is None else "on")
        if path == "/app":
            assert env["wsgi.url_scheme"] == place.scheme
    client.close()


# --- archive ---


def test_archive(proxy: Proxy, place: Place) -> None:
    client = place.client()
    for name, data in FILES.items():
        client.request("GET", f"/zip/{name}")
        answer = read(client)
        assert (answer.status, answer.body == data) == (200, True)
    client.request("GET", "/zip/big.bin", headers={"If-None-Match": answer.headers["etag"]})
    assert read(client).status == 304
    client.close()


# --- ends ---


def test_a_proxy_that_ends_leaves_nobody_hanging(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path / "webs")
    place = proxy.places["https"]
    try:
        proxy.backend.answer = lambda _, sock: sock.recv(1) == b""
        waiting = place.client()
        waiting.request("GET", "/api/")
        wait_until(lambda: proxy.backend.seen, "the server is asked")
        idle = place.client()
        idle.request("GET", "/zip/")
        read(idle)
        with websocket(place) as client:
            client.send("x")
            assert client.recv(20) == "x"
            proxy.process.stop(signal.SIGTERM, timeout=25.0)
            for one in (waiting.sock, idle.sock):
                with closing(one):
                    assert is_closed(one)
        wait_until(lambda: proxy.backend.open == 0, "the servers' connections are closed")
    finally:
        proxy.sockets.shutdown()
        proxy.backend.stop()
        if proxy.process.child.process.poll() is None:
            proxy.process.child.kill()


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side has closed."""
    try:
        return not sock.recv(1)
    except ConnectionError:
        return True


def test_tunnels_are_counted_and_let_go(proxy: Proxy, place: Place) -> None:
    """Descriptors of the proxy after many connections are those of before."""
    process = psutil.Process(proxy.process.pid)
    clients = [place.client() for _ in range(20)]
    for client in clients:
        client.request("GET", "/zip/")
    assert {read(client).status for client in clients} == {200}
    before = process.num_fds()
    for client in clients:
        client.close()
    wait_until(lambda: process.num_fds() <= before - 40, "sockets and tunnels are closed")
