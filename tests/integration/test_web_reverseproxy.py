"""The service ``reverseproxy``: an HTTP server behind a path, as its clients and it see each other."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.backends import BackendServer, Seen, respond
from support.certificates import Certificates, Pair, certificates
from support.process import wait_until
from support.web_client import StageProcess, WebStage, read

BIG = 24 << 20


@pytest.fixture
def backend() -> Iterator[BackendServer]:
    """A server behind; each test says what it answers."""
    with BackendServer(respond()) as server:
        yield server


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("pki"))


def item(server: BackendServer, **keys: Any) -> dict[str, Any]:
    """The service in front of a server."""
    return {"type": "reverseproxy", "host": "127.0.0.1", "port": server.port, **keys}


# --- requests on their way ---


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("/api", "/base"),
        ("/api/", "/base/"),
        ("/api/a/b", "/base/a/b"),
        ("/api/a%2Fb/%C3%BC//c;x=1?q=a%20b&r", "/base/a%2Fb/%C3%BC//c;x=1?q=a%20b&r"),
        ("/api/x?", "/base/x?"),
        ("/", "/"),
        ("/other/path", "/other/path"),
        ("/api2/x", "/api2/x"),
        ("//x", "//x"),
        ("//[x", "//[x"),
        ("//[::1]:x/@", "//[::1]:x/@"),
    ],
)
def test_paths_arrive_as_they_were_spelt(asked: str, got: str, root_and_path: tuple[WebStage, BackendServer]) -> None:
    web, server = root_and_path
    server.answer = respond()
    assert web.ask(asked).status == 200
    assert server.seen[-1].target == got


@pytest.fixture(scope="module")
def root_and_path(
    stage_process: StageProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WebStage, BackendServer]]:
    """A server on the root, and on a path with another one in front of its own."""
    with BackendServer(respond()) as server:
        paths = {"/": item(server), "api": item(server, path="/base/")}
        web = stage_process.start(tmp_path_factory.mktemp("root_and_path"), paths)
        yield web, server
        web.stop()


@pytest.mark.parametrize(
    "path", ["/api/../secret", "/api/a/%2e%2E/%2e%2e/secret", "/api/..%2fsecret", "/api/..%5csecret", "/api/..;/secret"]
)
def test_paths_cannot_lead_out_of_the_base(path: str, root_and_path: tuple[WebStage, BackendServer]) -> None:
    web, server = root_and_path
    before = len(server.seen)
    assert web.ask(path).status == 400
    assert len(server.seen) == before


def test_header_fields_of_requests(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})
    sent = {
        "Host": "public.example.com:8443",
        "Accept": "text/x",
        "Cookie": "a=1; b=2",
        "Authorization": "Basic abc",
        "Connection": "keep-alive, X-Only-Here",
        "X-Only-Here": "1",
        "TE": "trailers",
        "Proxy-Authorization": "Basic secret",
        "X-Forwarded-For": "198.51.100.1",
        "X-Real-IP": "198.51.100.1",
        "X_Forwarded_For": "198.51.100.1",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Ssl": "on",
        "X_Forwarded-Prefix": "/elsewhere",
        "Forwarded": "for=198.51.100.1",
    }
    assert web.ask("/x", headers=sent).status == 200
    (seen,) = backend.seen
    names = [name for name, _ in seen.fields]
    assert len(names) == len(set(names))
    assert seen.headers["host"] == f"127.0.0.1:{backend.port}"
    assert seen.headers["accept"] == "text/x"
    assert seen.headers["cookie"] == "a=1; b=2"
    assert seen.headers["authorization"] == "Basic abc"
    assert seen.headers["x-forwarded-for"] == seen.headers["x-real-ip"] == "127.0.0.1"
    assert seen.headers["x-forwarded-proto"] == "http"
    assert seen.headers["x-forwarded-host"] == "public.example.com:8443"
    assert seen.headers["x-forwarded-port"] == str(web.port)
    assert not {"x-only-here", "te", "proxy-authorization", "forwarded", "x_forwarded_for"} & set(names)
    assert not {"x-forwarded-ssl", "x_forwarded-prefix"} & set(names)


def test_what_the_server_is_told_of_the_outside(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend, forwarded_port=443, forwarded_proto="https")})
    web.ask("/")
    assert backend.seen[0].headers["x-forwarded-port"] == "443"
    assert backend.seen[0].headers["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_bodies_arrive(method: str, stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})
    body = os.urandom(300_000)
    assert web.ask("/up", method, body, {"Content-Type": "application/x-www-form-urlencoded"}).status == 200
    assert web.ask("/up", method, iter([body[:1000], body[1000:]])).status == 200  # chunked
    assert web.ask("/up", "POST", b"").status == 200
    assert [one.body for one in backend.seen] == [body, body, b""]
    assert backend.seen[2].headers["content-length"] == "0"
    assert all(one.line.startswith(method) for one in backend.seen[:2])


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_methods_that_are_not_for_servers_behind(
    method: str, stage: Callable[..., WebStage], backend: BackendServer
) -> None:
    web = stage({"/": item(backend)})
    assert web.ask("/", method).status == 501
    assert not backend.seen


# --- answers on their way ---


def test_answers(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})

    def answer(_: Seen, sock: socket.socket) -> None:
        fields = ["Content-Length: 4", "Set-Cookie: a=1", "Set-Cookie: b=2", "Location: http://x/y", "Keep-Alive: 5"]
        fields += ["Proxy-Authenticate: Basic", "Date: Thu, 01 Jan 1970 00:00:00 GMT", "X-Late: 1"]
        sock.sendall("\r\n".join(["HTTP/1.1 418 Short and stout", *fields, "", "pot!"]).encode())

    backend.answer = answer
    client = web.client()
    client.request("GET", "/")
    response = client.getresponse()
    assert (response.status, response.reason, response.read()) == (418, "Short and stout", b"pot!")
    assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert response.headers["location"] == "http://x/y"
    assert response.headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert response.headers["content-length"] == "4"
    assert not {"keep-alive", "proxy-authenticate", "content-type"} & {name.lower() for name in response.headers}
    client.close()


def test_head_has_the_length_and_no_body(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})

    def answer(_: Seen, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX-A: 1\r\n\r\n")

    backend.answer = answer
    client = web.client()
    for _ in range(2):
        client.request("HEAD", "/")
        got = read(client)
        assert (got.status, got.headers["content-length"], got.body) == (200, "12345", b"")
    client.close()


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body(status: str, stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})
    backend.answer = lambda _, sock: sock.sendall(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())
    client = web.client()
    for _ in range(2):
        client.request("GET", "/")
        got = read(client)
        assert (f"{got.status}", got.body, got.headers["etag"]) == (status[:3], b"", "x")
    client.close()


def test_chunked_answers_come_as_they_are_made(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})
    has_read = threading.Event()

    def answer(_: Seen, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert has_read.wait(15)
        sock.sendall(b"6\r\nsecond\r\n0\r\n\r\n")

    backend.answer = answer
    client = web.client()
    client.request("GET", "/")
    response = client.getresponse()
    assert response.read(5) == b"first"
    has_read.set()
    assert response.read() == b"second"
    client.close()


def test_the_end_of_the_connection_ends_an_answer_without_length(
    stage: Callable[..., WebStage], backend: BackendServer
) -> None:
    web = stage({"/": item(backend)})

    def answer(_: Seen, sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        return False

    backend.answer = answer
    assert web.ask("/").body == b"all of it"


def test_connections_on_both_sides_are_used_again(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})
    client = web.client()
    for number in range(5):
        client.request("POST", f"/{number}", b"x" * number)
        assert read(client).status == 200
    client.close()
    assert [one.connection for one in backend.seen] == [1] * 5


def test_a_connection_that_the_server_closed_meanwhile(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    """Servers close idle connections at any time; clients are not to notice."""
    web = stage({"/": item(backend)})
    backend.answer = respond(close=True)
    for _ in range(3):
        assert web.ask("/").status == 200
        wait_until(lambda: backend.open == 0, "the server has closed")
    assert len({one.connection for one in backend.seen}) == 3


# --- back-pressure ---


def test_a_client_that_does_not_read_stops_the_server(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend, response_timeout=700)})
    sent = [0]

    def answer(_: Seen, sock: socket.socket) -> None:
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n".encode())
        while sent[0] < BIG:
            sock.sendall(b"x" * 65536)
            sent[0] += 65536

    backend.answer = answer
    client = web.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.request("GET", "/")
    response = client.getresponse()
    state = [-1]

    def has_stopped() -> bool:
        before, state[0] = state[0], sent[0]
        return before == sent[0] > 0

    wait_until(has_stopped, "the server is held up", interval=1.0)
    assert sent[0] < BIG
    # That was longer than the server may be silent: the time that the client takes is not the server's.
    assert len(response.read()) == BIG
    client.close()


def test_the_client_goes_in_the_middle(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})

    def answer(_: Seen, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            sock.sendall(b"x" * 65536)

    backend.answer = answer
    client = web.client()
    client.request("GET", "/")
    client.getresponse().read(1000)
    client.close()
    client.sock = None
    wait_until(lambda: backend.open == 0, "the server's connection is closed, too")


def test_the_client_goes_before_the_answer(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})
    backend.answer = lambda _, sock: sock.recv(1) == b""
    sock = web.connect()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: len(backend.seen) == 1, "the request is there")
    sock.close()
    wait_until(lambda: backend.open == 0, "the server's connection is closed, too")


# --- servers that fail ---


def test_no_server(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend)})
    backend.stop()
    client = web.client()
    for _ in range(3):
        client.request("POST", "/", b"abc")
        got = read(client)
        assert got.status == 502
        assert str(backend.port) not in got.text
    client.close()
    lines = [line for line in web.errors if line.startswith("WARNING")]
    assert len(lines) == 1, "the log hears of it once"
    assert f"127.0.0.1:{backend.port}" in lines[0]


def test_a_server_that_says_nothing(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend, response_timeout=300)})
    backend.answer = lambda _, sock: sock.recv(1) == b""
    assert web.ask("/").status == 504
    wait_until(lambda: backend.open == 0, "the connection is closed")
    backend.answer = respond(b"again")
    assert web.ask("/").body == b"again"


def test_a_server_that_stops_in_the_middle(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend, response_timeout=300)})

    def answer(_: Seen, sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        return sock.recv(1) == b""

    backend.answer = answer
    with pytest.raises(http.client.IncompleteRead):
        web.ask("/")


@pytest.mark.parametrize("head", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_half_an_answer_does_not_look_whole(
    head: bytes, stage: Callable[..., WebStage], backend: BackendServer
) -> None:
    web = stage({"/": item(backend)})

    def answer(_: Seen, sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n4\r\nhalf\r\n")
        return False

    backend.answer = answer
    with pytest.raises(http.client.IncompleteRead):
        web.ask("/")


def test_the_reason_of_an_answer_adds_no_field(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    """A bare CR ends a line for some clients (RFC 9112 section 2.2)."""
    web = stage({"/": item(backend)})
    backend.answer = respond(b"ok", "200 OK\rSet-Cookie: evil=1")
    with web.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = sock.makefile("rb").read().partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r" not in head.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    "octets",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 -5 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 7 x\r\nContent-Length: 9\r\n\r\nhalf",
        b"",
        b"\0" * 100_000,
    ],
)
def test_a_server_that_speaks_no_http(octets: bytes, stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend, response_timeout=2000)})

    def answer(_: Seen, sock: socket.socket) -> bool:
        sock.sendall(octets)
        return False

    backend.answer = answer
    assert web.ask("/").status == 502


def test_requests_wait_for_a_connection(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend, max_connections=2)})
    most, lock = [0], threading.Lock()
    now = [0]

    def answer(seen: Seen, sock: socket.socket) -> bool | None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.05)
        with lock:
            now[0] -= 1
        return respond(seen.target.encode())(seen, sock)

    backend.answer = answer
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda n=n: bodies.append(web.ask(f"/{n}").body)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bodies) == sorted(f"/{n}".encode() for n in range(10))
    assert most[0] == 2


def test_requests_do_not_wait_for_ever(stage: Callable[..., WebStage], backend: BackendServer) -> None:
    web = stage({"/": item(backend, max_connections=1, response_timeout=500)})
    release = threading.Event()

    def answer(seen: Seen, sock: socket.socket) -> bool | None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not release.wait(0.1):
            sock.sendall(b"1\r\nx\r\n")  # goes on, and takes its time
        sock.sendall(b"0\r\n\r\n")
        return None

    backend.answer = answer
    busy = web.client()
    busy.request("GET", "/busy")
    response = busy.getresponse()
    assert web.ask("/late").status == 503
    release.set()
    response.read()
    busy.close()


# --- TLS towards the server ---


def server_context(pair: Pair, ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.chain, pair.key)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def ask_over_tls(
    stage: Callable[..., WebStage], pair: Pair, tls: Any, *, ca: Path | None = None, host: str = "localhost"
) -> tuple[int, str]:
    """Status of a request to a server with this certificate, and what the log says."""
    with BackendServer(respond(b"secret"), server_context(pair, ca)) as server:
        web = stage({"/": item(server, host=host, tls=tls)})
        answer = web.ask("/")
        assert (answer.body == b"secret") == (answer.status == 200)
        if answer.status == 502:
            wait_until(lambda: "server localhost" in web.log, "the log tells of the server")
        return answer.status, web.log


def test_https_server(stage: Callable[..., WebStage], pki: Certificates) -> None:
    status, _ = ask_over_tls(stage, pki.server, {"ca_certificates": [str(pki.ca)]})
    assert status == 200


def test_https_server_by_address_and_other_name(stage: Callable[..., WebStage], pki: Certificates) -> None:
    ca = [str(pki.ca)]
    assert ask_over_tls(stage, pki.server, {"ca_certificates": ca}, host="127.0.0.1")[0] == 200
    tls = {"ca_certificates": ca, "hostname": "other.example.com"}
    assert ask_over_tls(stage, pki.other, tls, host="127.0.0.1")[0] == 200


@pytest.mark.parametrize("which", ["self_signed", "expired", "other", "foreign_server"])
def test_https_servers_that_nobody_should_trust(which: str, stage: Callable[..., WebStage], pki: Certificates) -> None:
    status, log = ask_over_tls(stage, getattr(pki, which), {"ca_certificates": [str(pki.ca)]})
    assert status == 502
    assert "certificate" in log.lower() or "verif" in log.lower()


def test_the_systems_authorities_do_not_know_ours(stage: Callable[..., WebStage], pki: Certificates) -> None:
    assert ask_over_tls(stage, pki.server, True)[0] == 502


def test_no_verification_where_that_is_wanted(stage: Callable[..., WebStage], pki: Certificates) -> None:
    assert ask_over_tls(stage, pki.self_signed, {"verify": False})[0] == 200


def test_certificate_of_our_own(stage: Callable[..., WebStage], pki: Certificates) -> None:
    ca = [str(pki.ca)]
    ours = {"certificate": str(pki.client.certificate), "key": str(pki.client.key)}
    assert ask_over_tls(stage, pki.server, {"ca_certificates": ca, **ours}, ca=pki.ca)[0] == 200
    assert ask_over_tls(stage, pki.server, {"ca_certificates": ca}, ca=pki.ca)[0] == 502


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        ({"ca_certificates": ["missing.pem"]}, "missing.pem cannot be read"),
        ({"ca_certificates": ["junk.pem"]}, "expected certificates in PEM"),
        ({"certificate": "ca.pem", "key": "junk.pem"}, "expected a private key in PEM"),
        ({"certificate": "ca.pem", "key": "server.key"}, "is not the key of the certificate"),
    ],
)
def test_files_that_cannot_be_used(
    tls: dict[str, Any], text: str, stage: Callable[..., WebStage], pki: Certificates, tmp_path: Path
) -> None:
    folder = tmp_path / "web0"
    folder.mkdir()
    (folder / "junk.pem").write_text("not PEM at all")
    (folder / "ca.pem").write_bytes(pki.ca.read_bytes())
    (folder / "server.key").write_bytes(pki.server.key.read_bytes())
    web = stage({"/": {"type": "reverseproxy", "host": "localhost", "port": 1, "tls": tls}})
    assert text in web.failure
    assert "PRIVATE" not in web.failure


def test_new_authority_without_a_restart(stage: Callable[..., WebStage], pki: Certificates, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(pki.foreign.certificate.read_bytes())
    with BackendServer(respond(b"secret"), server_context(pki.server)) as server:
        web = stage({"/": item(server, host="localhost", tls={"ca_certificates": [str(trusted)]})})
        assert web.ask("/").status == 502
        trusted.write_text("half a fi")
        assert web.ask("/").status == 502
        trusted.write_bytes(pki.ca.read_bytes())
        assert web.ask("/").status == 200
    assert "stay in use" in web.log
