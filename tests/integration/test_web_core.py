"""Web and universal transports of a real proxy: real HTTP clients, over HTTP and HTTPS, through the data plane."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.certificates import certificates
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.web_client import Place, read

BIG = 30 << 20
MODULE = """
from twisted.web.resource import Resource

class Probe(Resource):
    isLeaf = True

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def render_GET(self, request):
        client = request.getClientAddress()
        secure = request.isSecure()
        return f"{self.extra} {client.host} {secure} {request.prePathURL().decode()}".encode()

    def render_POST(self, request):
        return b"%d" % len(request.content.read())
"""
PATHS: dict[str, Any] = {
    "/": {"type": "static", "directory": "files", "options": {"enable_directory_listing": True}},
    "j": {"type": "json", "value": {"a": [1, "ü"]}, "options": {"prettify": True}},
    "go": {"type": "redirect", "url": "https://example.com/"},
    "no": {"type": "none"},
    "info": {"type": "nodeinfo"},
    "mine": {"type": "resource", "classname": "web_probe.Probe", "extra": "hello"},
    "p": {"type": "path", "paths": {"/": {"type": "json", "value": "p"}, "q": {"type": "json", "value": "q"}}},
    "ws": {"type": "websocket"},
    "deep": {"type": "path", "paths": {"ws": {"type": "websocket", "serializers": ["json"]}}},
}
OPTIONS = {"access_log": True, "hsts": True, "max_body_size": 2_000_000, "client_timeout": 20}


class Webs:
    """One proxy with the same services on several transports."""

    def __init__(self, directory: Path) -> None:
        config = Config(directory).stub("stub", Endpoint("rawsocket", path=str(directory / "nobody.sock")))
        pki = certificates(directory / "pki")
        files = directory / "files"
        (files / "sub").mkdir(parents=True)
        (files / "index.html").write_text("<h1>start</h1>")
        (files / "sub" / "index.html").write_text("<h1>sub</h1>")
        (files / "big.bin").write_bytes(bytes(range(256)) * (BIG // 256))
        (directory / "web_probe.py").write_text(MODULE)
        self.places: dict[str, Place] = {}
        self.endpoints: dict[str, Endpoint] = {}
        for name, keys in {
            "http": {"type": "web", "paths": PATHS, "options": OPTIONS},
            "https": {"type": "web", "paths": PATHS, "options": OPTIONS},
            "universal": {
                "type": "universal",
                "web": {"paths": PATHS, "options": OPTIONS},
                "websocket": {"first": {"type": "websocket"}},
                "rawsocket": {"type": "rawsocket"},
            },
            "universal-tls": {"type": "universal", "web": {"paths": PATHS, "options": OPTIONS}},
        }.items():
            endpoint = config.listen("websocket", name)
            item = {key: config.transports[-1][key] for key in ("id", "endpoint")}
            config.transports[-1] = {**item, **keys}
            is_tls = name in ("https", "universal-tls")
            if is_tls:
                item["endpoint"]["tls"] = pki.server.tls
            self.endpoints[name] = endpoint
            self.places[name] = Place(endpoint.port, pki.ca if is_tls else None)
        self.proxy = ProxyProcess(config)

    def tunnels(self, name: str) -> int:
        """How many connections a transport has, as the page about the worker tells, with the one that asks."""
        found = json.loads(self.places[name].ask("/info?format=json").text)
        return next(item["connections"] for item in found["transports"] if item["address"].endswith(self.port(name)))

    def port(self, name: str) -> str:
        """Of a transport."""
        return f":{self.endpoints[name].port}"


@pytest.fixture(scope="module")
def webs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webs]:
    """One proxy for all tests here; idle and clean at the end."""
    webs = Webs(tmp_path_factory.mktemp("web"))
    yield webs
    webs.proxy.check_idle()
    webs.proxy.stop()


@pytest.fixture(params=["http", "https", "universal", "universal-tls"])
def place(webs: Webs, request: pytest.FixtureRequest) -> Place:
    """Each of the transports."""
    return webs.places[request.param]


@pytest.fixture(params=["http", "universal"])
def name(request: pytest.FixtureRequest) -> str:
    """Each kind of transport, without TLS."""
    found: str = request.param
    return found


def test_each_service_answers(place: Place) -> None:
    assert place.ask("/").text == "<h1>start</h1>"
    assert place.ask("/sub/").text == "<h1>sub</h1>"
    assert place.ask("/sub").headers["location"] == "/sub/"
    assert place.ask("/j").text == '{\n   "a": [\n      1,\n      "ü"\n   ]\n}\n'
    assert (place.ask("/go").status, place.ask("/go").headers["location"]) == (302, "https://example.com/")
    assert place.ask("/no").status == 404
    assert place.ask("/nowhere").status == 404
    assert (place.ask("/p").text, place.ask("/p/q").text) == ('"p"', '"q"')
    assert "worker001" in place.ask("/info").text
    assert json.loads(place.ask("/info", headers={"accept": "application/json"}).text)["worker"] == "worker001"


def test_a_service_knows_its_client(place: Place) -> None:
    is_secure = place.scheme == "https"
    assert place.ask("/mine/x").text == f"hello 127.0.0.1 {is_secure} {place.scheme}://localhost:{place.port}/mine"


def test_hsts_goes_out_over_tls_only(place: Place) -> None:
    assert ("strict-transport-security" in place.ask("/").headers) == (place.scheme == "https")
    assert ("strict-transport-security" in place.ask("/nowhere").headers) == (place.scheme == "https")


def test_a_large_file_arrives_whole(place: Place) -> None:
    answer = place.ask("/big.bin")
    assert answer.headers["content-length"] == str(BIG)
    assert answer.body == bytes(range(256)) * (BIG // 256)


def test_a_part_of_a_large_file(place: Place) -> None:
    answer = place.ask("/big.bin", headers={"range": f"bytes={BIG - 3}-"})
    assert (answer.status, answer.body) == (206, b"\xfd\xfe\xff")


def test_requests_follow_one_another_on_a_connection(place: Place) -> None:
    client = place.client()
    for path, status in [("/", 200), ("/j", 200), ("/nowhere", 404), ("/mine", 200), ("/ws", 200), ("/", 200)]:
        client.request("GET", path)
        assert read(client).status == status
        assert client.sock is not None, f"the connection was closed after {path}"
    client.request("HEAD", "/big.bin")
    assert read(client).headers["content-length"] == str(BIG)
    client.request("POST", "/mine", b"x" * 1_000_000)
    assert read(client).text == "1000000"
    client.request(
        "POST", "/mine", iter([b"abc", b"defg"]), encode_chunked=True, headers={"transfer-encoding": "chunked"}
    )
    assert read(client).text == "7"
    client.close()


def test_the_first_request_may_have_a_body(place: Place) -> None:
    assert place.ask("/mine", "POST", b"x" * 1_500_000).text == "1500000"


def test_a_body_over_the_limit_is_refused(place: Place) -> None:
    assert place.ask("/mine", "POST", b"x" * 2_000_001).status == 413


def test_a_client_that_still_sends_sees_why_it_is_refused(place: Place) -> None:
    sock = place.connect()
    sock.sendall(b"POST /mine HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n")
    try:
        for _ in range(8):
            sock.sendall(b"x" * 100_000)
    except OSError:
        pass  # it may be closed by now; what was answered is there all the same
    assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
    sock.close()


def test_a_malformed_request_behind_a_good_one(place: Place) -> None:
    sock = place.connect()
    sock.sendall(b"GET /j HTTP/1.1\r\nhost: localhost\r\n\r\nnonsense\r\n\r\n")
    data = b""
    while piece := sock.recv(65536):
        data += piece
    sock.close()
    assert data.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 Bad Request" in data


def test_many_clients_at_a_time(place: Place) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: place.ask(f"/j?{n}"), range(200)))
    assert {answer.status for answer in answers} == {200}


def test_one_that_does_not_read_holds_up_nobody(place: Place) -> None:
    lazy = place.connect()
    lazy.sendall(b"GET /big.bin HTTP/1.1\r\nhost: localhost\r\n\r\n")
    for _ in range(5):
        assert place.ask("/j").status == 200
    received = 0
    while received < BIG:
        piece = lazy.recv(1 << 20)
        assert piece
        received += len(piece)
    lazy.close()


def test_clients_that_go_in_the_middle_leave_nothing(webs: Webs, name: str) -> None:
    for _ in range(20):
        sock = webs.places[name].connect()
        sock.sendall(b"GET /big.bin HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert sock.recv(10)
        sock.close()
    wait_until(lambda: webs.tunnels(name) == 1, "the tunnels are closed")


def test_the_access_log_tells_who_asked(webs: Webs, name: str) -> None:
    webs.places[name].ask(f"/p/q?token=hush&x={name}")

    def lines() -> list[str]:
        return [line for line in webs.proxy.child.errors if '"GET /p/q?' in line and f"x={name}" in line]

    wait_until(lines, "the line in the access log")
    (line,) = lines()
    assert "127.0.0.1 - - [" in line
    assert "hush" not in line


# --- WebSocket beside it ---


@pytest.mark.parametrize(
    ("transport", "resource", "serializer"),
    [
        ("http", "/ws", "cbor"),
        ("http", "/ws/", "msgpack"),
        ("http", "/ws/below", "json"),
        ("http", "/deep/ws", "json"),
        ("universal", "/ws", "cbor"),
        ("universal", "/first", "cbor"),
        ("universal", "/deep/ws?x=1", "json"),
    ],
)
def test_wamp_over_websocket_on_a_path(webs: Webs, transport: str, resource: str, serializer: str) -> None:
    endpoint = Endpoint("websocket", webs.endpoints[transport].port, resource=resource)
    assert speaks_wamp(endpoint, serializer)


def test_wamp_over_rawsocket_beside_the_web(webs: Webs) -> None:
    assert speaks_wamp(Endpoint("rawsocket", webs.endpoints["universal"].port))


def speaks_wamp(endpoint: Endpoint, serializer: str = "cbor") -> bool:
    """Whether a HELLO is answered as WAMP has it; there is no such realm."""
    peer = raw.dial(endpoint, serializer)
    peer.send(raw.hello("com.example.nowhere"))
    answer = peer.recv()
    peer.close()
    return answer[0] == 3 and answer[2] == "wamp.error.no_such_realm"


def test_each_websocket_path_has_its_own_configuration(webs: Webs) -> None:
    endpoint = Endpoint("websocket", webs.endpoints["http"].port, resource="/deep/ws")
    with pytest.raises(raw.HandshakeRefused, match="400"):
        raw.dial(endpoint, "cbor")


@pytest.mark.parametrize("resource", ["/", "/j", "/nowhere", "/wsx", "/deep"])
def test_other_paths_do_not_take_websocket(webs: Webs, name: str, resource: str) -> None:
    endpoint = Endpoint("websocket", webs.endpoints[name].port, resource=resource)
    wire = raw.Wire(endpoint.connect())
    wire.write(raw.upgrade_request(endpoint, "AAAAAAAAAAAAAAAAAAAAAA==", "wamp.2.cbor"))
    assert wire.read_head().split()[1] in (b"200", b"404")
    wire.close()


def test_a_websocket_handshake_must_be_the_first_request_of_its_connection(webs: Webs, name: str) -> None:
    endpoint = Endpoint("websocket", webs.endpoints[name].port)
    wire = raw.Wire(endpoint.connect())
    wire.write(b"GET /j HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert b"200 OK" in wire.read_head()
    wire.read(len('{\n   "a": [\n      1,\n      "ü"\n   ]\n}\n'.encode()))
    wire.write(raw.upgrade_request(endpoint, "AAAAAAAAAAAAAAAAAAAAAA==", "wamp.2.cbor"))
    answer = wire.read_all()
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"connection: close" in answer.lower()
    wire.close()


def test_a_browser_sees_the_status_page(place: Place) -> None:
    first = place.ask("/ws")
    assert (first.status, first.headers["content-type"]) == (200, "text/html; charset=utf-8")
    client = place.client()
    client.request("GET", "/j")
    read(client)
    client.request("GET", "/ws")
    assert "WAMP endpoint" in read(client).text
    client.close()


# --- slow and silent clients ---


def test_an_idle_connection_is_kept_for_a_while_and_does_not_keep_the_proxy(webs: Webs, name: str) -> None:
    client = webs.places[name].client()
    client.request("GET", "/j")
    read(client)
    assert isinstance(client.sock, socket.socket)  # the end of the module closes the proxy while this is open
