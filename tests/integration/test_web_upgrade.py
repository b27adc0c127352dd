"""The service ``websocket-reverseproxy``, and upgrades through ``reverseproxy``: octets both ways, and their ends."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from support.backends import BackendServer, Seen, respond
from support.certificates import Certificates, certificates
from support.process import wait_until
from support.web_client import Place, WebStage

KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
SWITCH = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
SWITCH += f"Sec-WebSocket-Accept: {ACCEPT}\r\n"
BIG = 24 << 20


@pytest.fixture
def backend() -> Iterator[BackendServer]:
    """A server behind; each test says what it answers."""
    with BackendServer(respond()) as server:
        yield server


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("pki"))


def item(port: int, url: str = "", tls: Any = None, **keys: Any) -> dict[str, Any]:
    """The service in front of a server."""
    endpoint = {"type": "tcp", "host": "127.0.0.1", "port": port, **({"tls": tls} if tls is not None else {})}
    backend = {"type": "websocket", "endpoint": endpoint, "url": url or f"ws://backend.example.com:{port}/inner"}
    return {"type": "websocket-reverseproxy", "backend": backend, **keys}


def shake_hands(place: Place, path: str = "/ws", **fields: str) -> socket.socket:
    """Ask for WebSocket; what comes is the caller's to read."""
    sock = place.connect()
    sent = {"Host": "public.example.com", "Upgrade": "websocket", "Connection": "Upgrade"}
    sent |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
    sent |= {name.replace("_", "-"): value for name, value in fields.items()}
    head = "\r\n".join([f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""])
    sock.sendall(head.encode())
    return sock


def read_head(sock: socket.socket) -> bytes:
    """An answer's head, without what follows it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        octet = sock.recv(1)
        assert octet, head
        head += octet
    return head


def status_of(sock: socket.socket) -> int:
    with closing(sock):
        return int(read_head(sock).split()[1])


def echo(_: Seen, sock: socket.socket) -> bool:
    """Upgrade, then send back whatever comes."""
    sock.sendall(SWITCH.encode() + b"\r\n")
    while data := sock.recv(65536):
        sock.sendall(data)
    return False


# --- with a real server and a real client ---


@pytest.fixture(scope="module")
def echo_server() -> Iterator[Server]:
    """Sends back messages; ``close`` has it close."""

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            if message == "close":
                connection.close(4321, "as you wish")
            else:
                connection.send(message)

    server = serve(answer, "127.0.0.1", 0, subprotocols=["two", "one"], max_size=1 << 26)  # type: ignore[list-item]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join(5.0)


@pytest.mark.parametrize("kind", ["websocket-reverseproxy", "reverseproxy"])
def test_messages_both_ways(kind: str, stage: Callable[..., WebStage], echo_server: Server) -> None:
    port = echo_server.socket.getsockname()[1]
    service = item(port) if kind == "websocket-reverseproxy" else {"type": kind, "host": "127.0.0.1", "port": port}
    web = stage({"ws": service})
    url = f"ws://127.0.0.1:{web.port}/ws"
    with connect(url, subprotocols=["one"], max_size=1 << 26) as client:  # type: ignore[list-item]
        assert client.subprotocol == "one"
        assert client.response is not None
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        for message in ("text", b"octets", "", "ü" * 100_000, os.urandom(5 << 20)):
            client.send(message)
            assert client.recv(20) == message
        assert client.ping().wait(20)
        client.send("close")
        with pytest.raises(ConnectionClosed):
            client.recv(20)
        assert (client.close_code, client.close_reason) == (4321, "as you wish")


def test_many_at_a_time(stage: Callable[..., WebStage], echo_server: Server) -> None:
    web = stage({"ws": item(echo_server.socket.getsockname()[1])})
    url = f"ws://127.0.0.1:{web.port}/ws"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(url, subprotocols=["two"])) for _ in range(20)]  # type: ignore[list-item]
        for number, client in enumerate(clients):
            client.send(str(number))
        assert [client.recv(20) for client in clients] == [str(number) for number in range(20)]
    assert {client.close_code for client in clients} == {1000}


# --- the handshake ---


def test_what_the_server_gets(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})
    backend.answer = echo
    fields = {"Sec_WebSocket_Protocol": "a, b", "Sec_WebSocket_Extensions": "x-y; z=1", "Cookie": "c=1"}
    fields |= {"Origin": "https://page.example.com", "X_Forwarded_For": "198.51.100.1", "TE": "trailers"}
    sock = shake_hands(web, "/ws?token=a%20b", **fields)
    head = read_head(sock)
    sock.close()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert f"Sec-WebSocket-Accept: {ACCEPT}".encode() in head
    (seen,) = backend.seen
    assert seen.line == "GET /inner?token=a%20b HTTP/1.1"
    assert seen.headers["host"] == f"backend.example.com:{backend.port}"
    assert (seen.headers["upgrade"], seen.headers["connection"]) == ("websocket", "Upgrade")
    assert (seen.headers["sec-websocket-key"], seen.headers["sec-websocket-version"]) == (KEY, "13")
    assert seen.headers["sec-websocket-protocol"] == "a, b"
    assert seen.headers["sec-websocket-extensions"] == "x-y; z=1"
    assert seen.headers["origin"] == "https://page.example.com"
    assert seen.headers["cookie"] == "c=1"
    assert seen.headers["x-forwarded-for"] == "127.0.0.1"
    assert seen.headers["x-forwarded-host"] == "public.example.com"
    assert "te" not in seen.headers


@pytest.mark.parametrize(
    ("url", "asked", "target"),
    [("ws://h/a?b=1", "/ws?c=2", "/a?b=1&c=2"), ("ws://h", "/ws/below", "/"), ("ws://h/a", "/ws?", "/a")],
)
def test_path_and_query_at_the_server(
    url: str, asked: str, target: str, stage: Callable[..., WebStage], backend: BackendServer
) -> None:
    web = stage({"ws": item(backend.port, url)})
    backend.answer = echo
    assert status_of(shake_hands(web, asked)) == 101
    assert backend.seen[0].target == target


def test_plain_requests(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})
    answer = web.ask("/ws")
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
    assert not backend.seen


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://good.example.com", 101),
        ("https://good.example.com:443", 101),
        ("https://evil.example.com", 403),
        ("null", 403),
        ("nonsense", 403),
        ("", 101),
    ],
)
def test_pages_that_may_connect(
    origin: str, status: int, stage: Callable[..., WebStage], backend: BackendServer
) -> None:
    options = {"allowed_origins": ["https://good.example.com"], "allow_null_origin": False}
    web = stage({"ws": item(backend.port, options=options)})
    backend.answer = echo
    fields = {"Origin": origin} if origin else {}
    assert status_of(shake_hands(web, **fields)) == status
    assert bool(backend.seen) == (status == 101)


def test_octets_that_come_with_the_answer(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})

    def answer(_: Seen, sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" + SWITCH.encode() + b"X-More: 1\r\n\r\nfirst octets")
        return sock.recv(1) == b""

    backend.answer = answer
    sock = shake_hands(web)
    head = read_head(sock)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"X-More: 1" in head
    assert sock.recv(12, socket.MSG_WAITALL) == b"first octets"
    sock.close()


def test_octets_that_come_with_the_request(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    """No client should, but none is to lose them."""
    web = stage({"ws": item(backend.port)})
    backend.answer = echo
    sock = shake_hands(web)
    sock.sendall(b"too early")
    assert read_head(sock).startswith(b"HTTP/1.1 101 ")
    got = b""
    while len(got) < 9:
        got += sock.recv(100)
    assert got == b"too early"
    sock.close()


# --- servers that do not want to ---


def test_a_refusal_reaches_the_client(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})
    backend.answer = respond(b"members only", "401 Who are you", {"WWW-Authenticate": "Basic", "Set-Cookie": "a=1"})
    sock = shake_hands(web)
    head = read_head(sock)
    assert head.startswith(b"HTTP/1.1 401 Who are you\r\n")
    assert b"WWW-Authenticate: Basic\r\n" in head
    assert sock.recv(12, socket.MSG_WAITALL).startswith(b"members only") or b"c\r\n" in head
    sock.close()
    wait_until(lambda: backend.open == 0, "the server's connection is closed")


def test_a_refusal_with_two_lengths_has_the_true_one(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    """The client must not take a part of it for the answer to its next request (RFC 9112 section 6.3)."""
    web = stage({"ws": item(backend.port)})
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    def answer(_: Seen, sock: socket.socket) -> bool:
        head = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
        sock.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        return False

    backend.answer = answer
    sock = shake_hands(web)
    response = http.client.HTTPResponse(sock)
    response.begin()
    assert (response.status, response.read()) == (403, body)
    sock.close()


@pytest.mark.parametrize("octets", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000])
def test_a_server_that_speaks_no_http(octets: bytes, stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})

    def answer(_: Seen, sock: socket.socket) -> bool:
        sock.sendall(octets)
        return False

    backend.answer = answer
    assert status_of(shake_hands(web)) == 502


def test_no_server_and_a_silent_one(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port, connect_timeout=300)})
    backend.answer = lambda _, sock: sock.recv(1) == b""
    assert status_of(shake_hands(web)) == 504
    wait_until(lambda: backend.open == 0, "the server's connection is closed")
    backend.stop()
    assert status_of(shake_hands(web)) == 502


def test_the_client_goes_before_the_answer(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})
    backend.answer = lambda _, sock: sock.recv(1) == b""
    sock = shake_hands(web)
    wait_until(lambda: len(backend.seen) == 1, "the request is there")
    sock.close()
    wait_until(lambda: backend.open == 0, "the server's connection is closed, too")


# --- back-pressure and ends ---


def test_neither_side_outruns_the_other(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})
    counts = {"server": 0, "client": 0}
    may_read, has_read = threading.Event(), threading.Event()

    def pump(sock: socket.socket, who: str) -> None:
        while counts[who] < BIG:
            sock.sendall(b"x" * 65536)
            counts[who] += 65536

    def answer(_: Seen, sock: socket.socket) -> bool:
        sock.sendall(SWITCH.encode() + b"\r\n")
        sender = threading.Thread(target=pump, args=(sock, "server"), daemon=True)
        sender.start()
        may_read.wait(30)
        read_all(sock)
        has_read.set()
        sender.join(30)
        return False

    backend.answer = answer
    sock = shake_hands(web)
    read_head(sock)
    sender = threading.Thread(target=pump, args=(sock, "client"), daemon=True)
    sender.start()
    before: dict[str, int] = {}

    def have_stopped() -> bool:
        stopped = before == counts and all(counts.values())
        before.update(counts)
        return stopped

    wait_until(have_stopped, "both are held up", interval=0.5)
    assert max(counts.values()) < BIG
    may_read.set()
    read_all(sock)
    sender.join(30)
    assert counts == {"server": BIG, "client": BIG}
    assert has_read.wait(30)
    sock.close()


def read_all(sock: socket.socket) -> None:
    """As much as one side sends."""
    rest = BIG
    while rest:
        data = sock.recv(min(rest, 1 << 20))
        assert data
        rest -= len(data)


def test_what_was_sent_before_the_end_arrives(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})
    got: list[bytes] = []

    def answer(_: Seen, sock: socket.socket) -> bool:
        sock.sendall(SWITCH.encode() + b"\r\n")
        while data := sock.recv(1 << 20):
            got.append(data)
        return False

    backend.answer = answer
    sock = shake_hands(web)
    read_head(sock)
    sock.sendall(b"x" * 1_000_000)
    sock.close()
    wait_until(lambda: backend.open == 0, "the server's connection is closed")
    assert sum(map(len, got)) == 1_000_000

    backend.answer = lambda _, sock: sock.sendall(SWITCH.encode() + b"\r\n" + b"y" * 1_000_000) is not None
    sock = shake_hands(web)
    read_head(sock)
    left = 1_000_000
    while data := sock.recv(1 << 20):
        left -= len(data)
    assert left == 0
    sock.close()


def test_a_stopped_web_lets_nobody_hang(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"ws": item(backend.port)})
    backend.answer = echo
    sock = shake_hands(web)
    read_head(sock)
    web.stop()
    assert sock.recv(1) == b""
    wait_until(lambda: backend.open == 0, "the server's connection is closed")
    sock.close()
    web.failure = "stopped"


# --- other ways to a server ---


def test_over_a_unix_socket(stage: Callable[..., WebStage], tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with BackendServer(echo, unix=path) as server:
        backend = {"type": "websocket", "endpoint": {"type": "unix", "path": path}, "url": "ws://localhost/x"}
        web = stage({"ws": {"type": "websocket-reverseproxy", "backend": backend}})
        assert status_of(shake_hands(web)) == 101
        assert server.seen[0].target == "/x"


def test_over_an_endpoint_of_twisteds(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    backend.answer = echo
    endpoint = {"type": "twisted", "client_string": f"tcp:127.0.0.1:{backend.port}"}
    keys = {"type": "websocket", "endpoint": endpoint, "url": "ws://localhost/x"}
    web = stage({"ws": {"type": "websocket-reverseproxy", "backend": keys}})
    assert status_of(shake_hands(web)) == 101


def test_over_tls(stage: Callable[..., WebStage], pki: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.chain, pki.server.key)
    with BackendServer(echo, context) as server:
        url = f"wss://localhost:{server.port}/x"
        trusted = {"hostname": "localhost", "ca_certificates": [str(pki.ca)]}
        web = stage({"good": item(server.port, url, trusted), "bad": item(server.port, url)})
        sock = shake_hands(web, "/good")
        read_head(sock)
        sock.sendall(b"x" * 1000)
        assert len(sock.recv(1000, socket.MSG_WAITALL)) == 1000
        sock.close()
        assert status_of(shake_hands(web, "/bad")) == 502
        wait_until(lambda: server.open == 0, "the server's connections are closed")
    assert "certificate verify failed" in web.log
