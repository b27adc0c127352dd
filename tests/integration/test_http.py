"""The WebSocket opening handshake: what is refused gets a proper HTTP answer and a closed connection."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import raw
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import HandshakeRefused, Wire, upgrade, upgrade_request
from support.stub import StubRouter

KEY = base64.b64encode(bytes(16)).decode()


class Fronts:
    """Endpoints of one proxy, by what is configured for them."""

    def __init__(self, directory: Path) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(directory / "stub.sock")))
        config = Config(directory).stub("stub", self.stub.endpoint)
        self.plain = config.listen("websocket")
        self.strict = config.listen(
            "websocket",
            options={
                "allowed_origins": ["https://*.example.com", "http://localhost:8080"],
                "allow_null_origin": False,
                "enable_webstatus": False,
            },
        )
        self.small = config.listen("websocket", limits={"max_head_size": 1024, "handshake_timeout": 300})
        self.any = config.listen("websocket", options={"require_websocket_subprotocol": False})
        self.cbor = config.listen("websocket", serializers=["cbor"])
        self.path = config.listen("websocket", url="ws://localhost:8080/ws")
        self.proxy = ProxyProcess(config)


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    """One proxy for all tests here; idle and clean at the end."""
    fronts = Fronts(tmp_path_factory.mktemp("http"))
    yield fronts
    fronts.proxy.check_idle()
    fronts.proxy.stop()
    fronts.stub.close()


def exchange(endpoint: Endpoint, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send ``request``, read until the connection is closed: (status, headers, body)."""
    wire = Wire(endpoint.connect())
    try:
        wire.write(request)
        head, _, body = wire.read_all().partition(b"\r\n\r\n")
    finally:
        wire.close()
    status, *lines = head.decode("latin-1").split("\r\n")
    assert status.startswith("HTTP/1.1 "), head
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert fields["connection"] == "close"
    assert int(fields["content-length"]) == len(body)
    return int(status.split()[1]), fields, body


def wrong(
    endpoint: Endpoint, protocols: str = "wamp.2.cbor", **headers: str | None
) -> tuple[int, dict[str, str], bytes]:
    """The answer to an upgrade request with some headers changed (None: left out)."""
    return exchange(endpoint, upgrade_request(endpoint, KEY, protocols, **headers))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /ws\r\n\r\n",
        b"GET  /ws HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws HTTP/1.1\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost a\r\n\r\n",
        b"GET /ws HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET ws HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws#x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
    ],
)
def test_malformed_request(head: bytes, fronts: Fronts) -> None:
    """400, and the connection is closed."""
    status, _, _ = exchange(fronts.plain, head)
    assert status == 400


def test_http_1_0(fronts: Fronts) -> None:
    """WebSocket needs HTTP/1.1 (RFC 6455 4.1)."""
    head = upgrade_request(fronts.plain, KEY, "wamp.2.cbor").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert exchange(fronts.plain, head)[0] in (400, 426, 505)


@pytest.mark.parametrize(
    ("path", "status"), [("/ws", 101), ("/ws/", 101), ("/ws?a=b", 101), ("/", 404), ("/wss", 404), ("/ws/x", 404)]
)
def test_path(path: str, status: int, fronts: Fronts) -> None:
    """404 where ``url`` names another path; without a path in ``url``, every one will do."""
    head = upgrade_request(fronts.path, KEY, "wamp.2.cbor")
    head = f"GET {path} HTTP/1.1\r\n".encode() + head.partition(b"\r\n")[2]
    wire = Wire(fronts.path.connect())
    try:
        wire.write(head)
        assert wire.read_head().split()[1] == str(status).encode()
    finally:
        wire.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_method(method: str, fronts: Fronts) -> None:
    """405 with Allow."""
    head = upgrade_request(fronts.plain, KEY, "wamp.2.cbor").replace(b"GET", method.encode(), 1)
    status, fields, _ = exchange(fronts.plain, head)
    assert status == 405
    assert "GET" in fields["allow"]


def test_no_upgrade(fronts: Fronts) -> None:
    """426 with Upgrade where there is no page for people."""
    status, fields, _ = exchange(fronts.strict, b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status == 426
    assert fields["upgrade"].lower() == "websocket"


def test_status_page(fronts: Fronts) -> None:
    """A browser gets a page that does not tell the version."""
    status, fields, body = exchange(fronts.plain, b"GET /%3Cscript%3E HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status == 200
    assert fields["content-type"].startswith("text/html")
    assert b"<html" in body.lower()
    assert b"<script>" not in body
    assert "/" not in fields.get("server", "")


def test_version(fronts: Fronts) -> None:
    """426 that names the version (RFC 6455 4.2.2)."""
    status, fields, _ = wrong(fronts.plain, Sec_WebSocket_Version="8")
    assert status == 426
    assert fields["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_WebSocket_Key": None},
        {"Sec_WebSocket_Key": "short"},
        {"Sec_WebSocket_Key": base64.b64encode(bytes(15)).decode()},
        {"Connection": "close"},
        {"Connection": None},
        {"Sec_WebSocket_Protocol": None},
        {"Sec_WebSocket_Protocol": "wamp.2.unknown"},
        {"Sec_WebSocket_Protocol": "wamp.2.cbor, bad protocol"},
    ],
    ids=str,
)
def test_bad_handshake(headers: dict[str, str | None], fronts: Fronts) -> None:
    """400."""
    assert wrong(fronts.plain, **headers)[0] == 400


def test_subprotocol_of_a_serializer_that_is_off(fronts: Fronts) -> None:
    """400 that names what is spoken."""
    status, _, body = wrong(fronts.cbor, "wamp.2.json")
    assert status == 400
    assert b"wamp.2.cbor" in body


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [
        ("wamp.2.msgpack, wamp.2.json", "wamp.2.msgpack"),
        ("soap, wamp.2.ubjson, wamp.2.json, wamp.2.cbor", "wamp.2.json"),
        ("wamp.2.cbor,wamp.2.json", "wamp.2.cbor"),
    ],
)
def test_subprotocol_in_the_clients_order(offer: str, chosen: str, fronts: Fronts) -> None:
    """The first one that both know."""
    wire = Wire(fronts.plain.connect())
    assert upgrade(wire, fronts.plain, offer)[0] == chosen
    wire.close()


def test_no_subprotocol_where_none_is_required(fronts: Fronts) -> None:
    """JSON is assumed, and the answer names no subprotocol, as the client offered none."""
    wire = Wire(fronts.any.connect())
    protocol, _ = upgrade(wire, fronts.any, "", Sec_WebSocket_Protocol=None)  # type: ignore[arg-type]
    assert protocol == ""
    peer = raw.WebSocketPeer(wire, "json")
    peer.send(raw.hello())
    fronts.stub.accept_session()
    peer.recv_type(raw.WELCOME)
    peer.close()


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "http://www.example.com", "null", "https://example.com.evil.test"]
)
def test_origin_refused(origin: str, fronts: Fronts) -> None:
    """403 for pages from elsewhere."""
    assert wrong(fronts.strict, Origin=origin)[0] == 403


@pytest.mark.parametrize(
    "origin", ["https://www.example.com", "https://a.b.example.com:443", "http://localhost:8080", None]
)
def test_origin_allowed(origin: str | None, fronts: Fronts) -> None:
    """The configured pages, and programs that send no Origin."""
    wire = Wire(fronts.strict.connect())
    upgrade(wire, fronts.strict, "wamp.2.cbor", Origin=origin)  # type: ignore[arg-type]
    wire.close()


@pytest.mark.parametrize("ended", [True, False])
def test_head_too_large(ended: bool, fronts: Fronts) -> None:
    """431 as soon as the limit is passed, whether or not the head ever ends."""
    head = upgrade_request(fronts.small, KEY, "wamp.2.cbor", Cookie="x" * 2000)
    assert exchange(fronts.small, head if ended else head[:-2])[0] == 431


def test_head_in_time(fronts: Fronts) -> None:
    """A head that does not come to its end is answered or closed by the deadline."""
    wire = Wire(fronts.small.connect())
    wire.write(b"GET /ws HTTP/1.1\r\nHost: a\r\n")
    answer = wire.read_all()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    wire.close()


def test_many_headers_and_long_lines_within_the_limit(fronts: Fronts) -> None:
    """A big head below the limit is fine."""
    more = {f"X_Header_{i}": "v" * 60 for i in range(100)}
    wire = Wire(fronts.plain.connect())
    upgrade(wire, fronts.plain, "wamp.2.cbor", **more)
    wire.close()


def test_frames_right_behind_the_request(fronts: Fronts) -> None:
    """A client that does not wait for the 101 loses nothing."""
    wire = Wire(fronts.plain.connect())
    peer = raw.WebSocketPeer(wire, "cbor")
    key = base64.b64encode(os.urandom(16)).decode()
    wire.write(upgrade_request(fronts.plain, key, "wamp.2.cbor") + peer.frame(raw.encode("cbor", raw.hello())))
    assert wire.read_head().startswith(b"HTTP/1.1 101")
    fronts.stub.accept_session(3)
    assert peer.recv_type(raw.WELCOME)[1] == 3
    peer.close()


def test_refusals_are_not_upgrades(fronts: Fronts) -> None:
    """The helper that all other tests use tells the two apart."""
    with pytest.raises(HandshakeRefused, match="403"):
        raw.dial(fronts.strict, Origin="https://evil.test")
