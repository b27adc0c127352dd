"""The WebSocket opening handshake, both ends, against an independent implementation and by hand."""

import base64

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from proxy.compression import Settings
from proxy.handshake import (
    Accepted,
    HandshakeError,
    HttpError,
    Policy,
    Request,
    accept,
    build_request,
    check_response,
    head_too_large,
    parse_request,
)
from proxy.messages import SER_CBOR, SER_JSON, SER_MSGPACK

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

DEFAULTS = {
    "Host": "example.com:8080",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "wamp.2.cbor",
}


def head(first: str = "GET /ws HTTP/1.1", /, *more: str, **changes: str | None) -> bytes:
    """A good head with changes: ``Sec_WebSocket_Key=None`` leaves that header out; ``more`` are lines added."""
    headers: dict[str, str | None] = {**DEFAULTS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [first, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def answer(data: bytes, policy: Policy | None = None) -> Accepted | HttpError:
    try:
        return accept(parse_request(data), policy or Policy(path="/ws"))
    except HttpError as error:
        return error


def refused(data: bytes, policy: Policy | None = None) -> HttpError:
    """The error; checked to be one complete, self-delimited HTTP response."""
    error = answer(data, policy)
    assert isinstance(error, HttpError), error
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if error.is_head_only else "GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(error.to_bytes())
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == error.status
    assert (b"connection", b"close") in list(response.headers)
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += event.data
    assert body == (b"" if error.is_head_only else error.body)
    assert client.trailing_data == (b"", False)
    return error


def granted(data: bytes, policy: Policy | None = None) -> Accepted:
    result = answer(data, policy)
    assert isinstance(result, Accepted), result
    return result


# --- server end, good ----------------------------------------------------------------------------------------------


def test_the_example_of_the_rfc() -> None:
    assert granted(head()).response.decode().split("\r\n") == [
        "HTTP/1.1 101 Switching Protocols",
        "Server: wamp-proxy",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Protocol: wamp.2.cbor",
        f"Sec-WebSocket-Accept: {ACCEPT}",
        "",
        "",
    ]


def test_an_independent_client_takes_the_answer() -> None:
    client = ClientProtocol(parse_uri("ws://example.com:8080/ws"), subprotocols=["wamp.2.msgpack", "wamp.2.json"])
    client.send_request(client.connect())
    (data,) = client.data_to_send()
    result = granted(data)
    assert (result.serializer, result.subprotocol) == (SER_MSGPACK, "wamp.2.msgpack")
    client.receive_data(result.response)
    (event,) = client.events_received()
    assert isinstance(event, Response)
    assert client.handshake_exc is None
    assert client.subprotocol == "wamp.2.msgpack"


@pytest.mark.parametrize(
    ("offered", "serializers", "chosen"),
    [
        ("wamp.2.cbor, wamp.2.json", ("json", "msgpack", "cbor"), "wamp.2.cbor"),
        ("wamp.2.json,wamp.2.cbor", ("cbor", "json"), "wamp.2.json"),
        ("wamp.2.ubjson, wamp.2.msgpack.batched, wamp.2.msgpack", ("msgpack",), "wamp.2.msgpack"),
        ("chat, , wamp.2.json", ("json",), "wamp.2.json"),
        ("wamp.2.cbor.batched, wamp.2.cbor", ("cbor", "cbor.batched"), "wamp.2.cbor.batched"),
        ("wamp.2.cbor, wamp.2.cbor.batched", ("cbor.batched", "cbor"), "wamp.2.cbor"),
        ("wamp.2.json.batched", ("json.batched",), "wamp.2.json.batched"),
        ("wamp.2.cbor.batched, wamp.2.msgpack.batched", ("cbor", "msgpack.batched"), "wamp.2.msgpack.batched"),
    ],
)
def test_the_clients_order_of_subprotocols_decides(offered: str, serializers: tuple[str, ...], chosen: str) -> None:
    result = granted(head(Sec_WebSocket_Protocol=offered), Policy(serializers=serializers))
    assert result.subprotocol == chosen
    assert result.serializer == {"json": SER_JSON, "msgpack": SER_MSGPACK, "cbor": SER_CBOR}[chosen.split(".")[2]]
    assert result.is_batched == chosen.endswith(".batched")
    assert result.keywords == ({"batched": True} if result.is_batched else {})
    assert f"\r\nSec-WebSocket-Protocol: {chosen}\r\n".encode() in result.response


def test_subprotocols_may_come_in_several_headers() -> None:
    data = head("GET /ws HTTP/1.1", "Sec-WebSocket-Protocol: wamp.2.json", Sec_WebSocket_Protocol="chat")
    assert granted(data).subprotocol == "wamp.2.json"


def test_json_is_assumed_if_the_policy_does_not_insist_on_a_subprotocol() -> None:
    policy = Policy(require_subprotocol=False)
    result = granted(head(Sec_WebSocket_Protocol=None), policy)
    assert (result.serializer, result.subprotocol) == (SER_JSON, "wamp.2.json")
    assert b"Protocol:" not in result.response  # a client must not be given what it did not offer
    assert refused(head(Sec_WebSocket_Protocol="chat"), policy).status == 400
    policy = Policy(require_subprotocol=False, serializers=("cbor", "json.batched"))
    assert refused(head(Sec_WebSocket_Protocol=None), policy).status == 400


def test_compression_is_negotiated_where_it_is_configured() -> None:
    data = head(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    result = granted(data, Policy(compression=Settings(max_window_bits=12)))
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n" in result.response
    assert result.keywords == {
        "inflate_bits": 15,
        "inflate_reset": False,
        "deflate_bits": 12,
        "deflate_reset": False,
        "mem_level": 8,
    }
    for plain in (granted(data), granted(head(), Policy(compression=Settings()))):
        assert b"xtensions" not in plain.response
        assert (plain.compression, plain.keywords) == (None, {})


def test_batches_are_compressed_as_well() -> None:
    data = head(Sec_WebSocket_Extensions="permessage-deflate", Sec_WebSocket_Protocol="wamp.2.json.batched")
    result = granted(data, Policy(serializers=("json.batched",), compression=Settings()))
    assert result.keywords["batched"] is True
    assert result.keywords["inflate_bits"] == 15


def test_no_compression_without_memory_for_it() -> None:
    data, policy = head(Sec_WebSocket_Extensions="permessage-deflate"), Policy(compression=Settings())
    agreed = granted(data, policy).compression
    assert agreed is not None
    assert accept(parse_request(data), policy, agreed.memory).compression == agreed
    assert accept(parse_request(data), policy, agreed.memory - 1).compression is None


@pytest.mark.parametrize("value", [";", "permessage-deflate; x", 'permessage-deflate; a="', "\xe9", ",,", '"\\'])
def test_no_extension_header_ends_the_handshake(value: str) -> None:
    result = granted(head(Sec_WebSocket_Extensions=value), Policy(compression=Settings()))
    assert result.compression is None
    assert b"xtensions" not in result.response


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": "WebSocket"},
        {"Upgrade": "h2c, websocket"},
        {"Connection": "keep-alive, UPGRADE"},
        {"Host": "[::1]:8080"},
        {"Host": "example.com"},
        {"Host": "example.com:"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Content-Length": "0"},
        {"Cookie": "a=b"},
    ],
)
def test_variants_that_are_fine(changes: dict[str, str]) -> None:
    result = granted(head(**{name.replace("-", "_"): value for name, value in changes.items()}))
    assert b"xtensions" not in result.response


@pytest.mark.parametrize(
    ("path", "target", "status"),
    [
        ("/ws", "/ws", 101),
        ("/ws", "/ws/", 101),
        ("/ws", "/ws?token=1", 101),
        ("/ws", "/%77s", 101),
        ("/ws", "http://example.com:8080/ws", 101),
        ("/ws", "ws://example.com/ws?x", 101),
        ("/", "/", 101),
        ("/", "http://example.com", 101),
        (None, "/any/thing", 101),
        ("/ws", "/", 404),
        ("/ws", "/WS", 404),
        ("/ws", "/ws//", 404),
        ("/ws", "/wsx", 404),
        ("/", "/ws", 404),
        ("/ws", "/ws#x", 400),
        ("/ws", "ws", 400),
        ("/ws", "*", 400),
        ("/ws", "/%ff", 400),
        ("/ws", "/ws%0d%0aX:1", 400),
        ("/ws", "/ws%00", 400),
    ],
)
def test_paths(path: str | None, target: str, status: int) -> None:
    result = answer(head(f"GET {target} HTTP/1.1"), Policy(path=path))
    assert (result.status if isinstance(result, HttpError) else 101) == status


def test_what_a_request_holds() -> None:
    data = head(
        "GET /a%20b?x=%20&y HTTP/1.1", "Cookie: a=1", "X-Thing: 1", "cookie: b=2", "x-thing: \xe9",
        Host="Example.com:8443", Origin="https://example.com", Sec_WebSocket_Protocol="b, a",
    )  # fmt: skip
    request = parse_request(data)
    assert isinstance(request, Request)
    assert (request.method, request.path, request.query) == ("GET", "/a b", "x=%20&y")
    assert (request.host, request.port, request.origin) == ("Example.com", 8443, "https://example.com")
    assert (request.protocols, request.key) == (["b", "a"], KEY)
    assert (request.headers["cookie"], request.headers["x-thing"]) == ("a=1; b=2", "1, é")


# --- server end, refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"\r\n\r\n", 400),
        (b"GET /ws\r\n\r\n", 400),
        (b"GET /ws HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (head("GET /ws HTTP/1.0"), 505),
        (head("GET /ws HTTP/2.0"), 505),
        (head("GET /w s HTTP/1.1"), 400),
        (head("GET /ws HTTP/1.1", "no colon"), 400),
        (head("GET /ws HTTP/1.1", "Bad Name: x"), 400),
        (head("GET /ws HTTP/1.1", "X: a\x00b"), 400),
        (head()[:-2], 400),
        (head() + b"x", 400),
        (head() + b"\x81\x80\x00\x00\x00\x00", 400),
        (head("GET /ws HTTP/1.1", "Content-Length: 5"), 400),
        (head("GET /ws HTTP/1.1", "Content-Length: x"), 400),
        (head("GET /ws HTTP/1.1", "Transfer-Encoding: chunked"), 400),
        (head("GET /ws HTTP/1.1", "Transfer-Encoding: gzip"), 501),
        (head("GET /ws HTTP/1.1", "Host: example.com"), 400),
        (head("GET /ws HTTP/1.1", f"Sec-WebSocket-Key: {KEY}"), 400),
        (head("GET /ws HTTP/1.1", "Sec-WebSocket-Version: 13"), 400),
        (head("GET /ws HTTP/1.1", "Origin: http://a", "Origin: http://b"), 400),
        (head(Host=None), 400),
        (head(Host=""), 400),
        (head(Host="a b"), 400),
        (head(Host="a/b"), 400),
        (head(Host="user@host"), 400),
        (head(Host="host:99999"), 400),
        (head(Host="host:x"), 400),
        (head(Host="::1"), 400),
        (head("POST /ws HTTP/1.1"), 405),
        (head("CONNECT example.com:80 HTTP/1.1"), 405),
        (head("OPTIONS * HTTP/1.1"), 405),
        (head("get /ws HTTP/1.1"), 405),
        (head("HEAD /ws HTTP/1.1"), 405),
        (head(Upgrade="h2c"), 426),
        (head(Upgrade=""), 426),
        (head(Connection=None), 400),
        (head(Connection="keep-alive"), 400),
        (head(Sec_WebSocket_Version=None), 426),
        (head(Sec_WebSocket_Version="8"), 426),
        (head(Sec_WebSocket_Version="13, 8"), 426),
        (head(Sec_WebSocket_Version="+13"), 426),
        (head(Sec_WebSocket_Key=None), 400),
        (head(Sec_WebSocket_Key=""), 400),
        (head(Sec_WebSocket_Key="short"), 400),
        (head(Sec_WebSocket_Key=KEY[:-2] + "AA"), 400),
        (head(Sec_WebSocket_Key=base64.b64encode(bytes(17)).decode()), 400),
        (head(Sec_WebSocket_Key="*" * 22 + "=="), 400),
        (head(Sec_WebSocket_Key="\xe9" * 22 + "=="), 400),
        (head(Sec_WebSocket_Protocol=None), 400),
        (head(Sec_WebSocket_Protocol=""), 400),
        (head(Sec_WebSocket_Protocol="wamp.2.bson"), 400),
        (head(Sec_WebSocket_Protocol="WAMP.2.JSON"), 400),
        (head(Sec_WebSocket_Protocol="wamp.2.json, wamp.2.json"), 400),
        (head(Sec_WebSocket_Protocol="wamp.2.json, a b"), 400),
        (head(Origin=""), 400),
        (head(Origin="nonsense"), 400),
        (head(Origin="http://a http://b"), 400),
        (head(Origin="http://user@a"), 400),
        (head(Origin="http://a:99999"), 400),
        (head(Origin="http://" + "a" * 5000), 400),
        (head(Origin="http://a/path"), 400),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    assert refused(data).status == status


def test_405_names_the_methods() -> None:
    assert ("Allow", "GET, HEAD") in refused(head("PUT /ws HTTP/1.1")).headers
    assert ("Allow", "GET") in refused(head("PUT /ws HTTP/1.1"), Policy(enable_webstatus=False)).headers


@pytest.mark.parametrize("changes", [{"Upgrade": "h2c"}, {"Sec_WebSocket_Version": "8"}])
def test_426_says_what_to_upgrade_to(changes: dict[str, str]) -> None:
    headers = refused(head(**changes)).headers
    assert ("Upgrade", "websocket") in headers
    assert ("Sec-WebSocket-Version", "13") in headers


def test_the_text_names_the_subprotocols_that_are_possible() -> None:
    error = refused(head(Sec_WebSocket_Protocol="chat"), Policy(serializers=("cbor", "json")))
    assert b"wamp.2.cbor, wamp.2.json" in error.body


def test_head_too_large() -> None:
    assert head_too_large().to_bytes().startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


@pytest.mark.parametrize(("host", "status"), [("h:443", 101), ("h", 101), ("h:8080", 400), ("[::1]:443", 101)])
def test_external_port(host: str, status: int) -> None:
    result = answer(head(Host=host), Policy(external_port=443))
    assert (result.status if isinstance(result, HttpError) else 101) == status


# --- origins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "origin", "allowed"),
    [
        (["*"], "https://any.example:1234", True),
        (["*"], "chrome-extension://abcdef", True),
        (["https://*.example.com:*"], "https://a.b.example.com", True),
        (["https://*.example.com:*"], "https://a.example.com:8443", True),
        (["https://*.example.com:*"], "https://example.com", False),
        (["https://*.example.com:*"], "http://a.example.com", False),
        (["https://*.example.com:*"], "https://a.example.com.evil.com", False),
        (["https://*.example.com:443"], "https://a.example.com", True),
        (["https://*.example.com:443"], "https://a.example.com:8443", False),
        (["https://example.com"], "https://example.com", True),
        (["https://example.com"], "https://example.com:443", True),
        (["https://example.com"], "https://example.com:8443", False),
        (["https://example.com"], "https://exampleXcom", False),
        (["https://EXAMPLE.com"], "HTTPS://Example.COM", True),
        (["http://localhost:*", "http://[::1]:8080"], "http://[::1]:8080", True),
        (["http://localhost:*"], "http://localhost:3000/", True),
        (["chrome-extension://abc"], "chrome-extension://abc", True),
        (["chrome-extension://abc"], "chrome-extension://abcd", False),
        ([], "http://localhost", False),
    ],
)
def test_allowed_origins(patterns: list[str], origin: str, allowed: bool) -> None:
    policy = Policy(allowed_origins=tuple(patterns))
    if allowed:
        granted(head(Origin=origin), policy)
    else:
        assert refused(head(Origin=origin), policy).status == 403


@pytest.mark.parametrize("origin", ["null", "NULL", "file://", "file:///home/me/page.html"])
def test_null_origin(origin: str) -> None:
    granted(head(Origin=origin), Policy(allowed_origins=()))
    assert refused(head(Origin=origin), Policy(allowed_origins=("*",), allow_null_origin=False)).status == 403


def test_clients_that_are_not_browsers_need_no_origin() -> None:
    granted(head(), Policy(allowed_origins=(), allow_null_origin=False))


# --- status page, Server header ----------------------------------------------------------------------------------


def test_people_get_a_status_page() -> None:
    data = b"GET /ws HTTP/1.1\r\nHost: example.com:8080\r\n\r\n"
    page = refused(data)
    assert page.status == 200
    assert page.content_type.startswith("text/html")
    text = page.body.decode()
    assert "ws://example.com:8080/ws" in text
    assert all(f"wamp.2.{name}" in text for name in ("json", "msgpack", "cbor"))
    assert "src=" not in text
    assert "<script" not in text
    head_only = refused(data.replace(b"GET", b"HEAD"))
    assert (head_only.status, head_only.is_head_only) == (200, True)
    assert refused(data, Policy(enable_webstatus=False)).status == 426
    assert refused(data.replace(b"GET", b"HEAD"), Policy(enable_webstatus=False)).status == 405


def test_the_status_page_escapes_what_comes_from_outside() -> None:
    page = refused(b"GET /%3Cscript%3E&'\" HTTP/1.1\r\nHost: a&b'c\r\n\r\n", Policy())
    assert page.status == 200
    assert b"<script" not in page.body
    assert b"a&amp;b&#x27;c/&lt;script&gt;&amp;&#x27;&quot;" in page.body


@pytest.mark.parametrize(("show", "server"), [(False, "wamp-proxy"), (True, "wamp-proxy/1.2.3")])
def test_server_header(show: bool, server: str) -> None:
    policy = Policy(server_text="wamp-proxy/1.2.3", show_server_version=show)
    line = f"\r\nServer: {server}\r\n".encode()
    assert line in granted(head(), policy).response
    assert line in refused(head(Sec_WebSocket_Key="x"), policy).to_bytes()
    page = refused(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", policy)
    assert (b"1.2.3" in page.to_bytes()) == show


def test_a_server_text_cannot_break_the_head() -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        Policy(server_text="x\r\nSet-Cookie: a")


@given(data=st.binary(max_size=300))
def test_random_octets_get_an_http_answer(data: bytes) -> None:
    assert refused(data).status in (400, 405, 505)


HEADER_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)


@given(
    target=HEADER_TEXT,
    values=st.dictionaries(st.sampled_from([*DEFAULTS, "Origin", "Content-Length", "X"]), HEADER_TEXT, max_size=4),
)
def test_any_header_values_get_an_answer_of_one_head(target: str, values: dict[str, str]) -> None:
    changes = {name.replace("-", "_"): value for name, value in values.items()}
    result = answer(head(f"GET /{target} HTTP/1.1", **changes), Policy())
    if isinstance(result, HttpError):
        refused(head(f"GET /{target} HTTP/1.1", **changes), Policy())
    else:
        assert result.response.count(b"\r\n\r\n") == 1
        assert len(result.response.split(b"\r\n")) == 8


# --- client end ----------------------------------------------------------------------------------------------------

OFFER = ["wamp.2.cbor"]


def response(first: str = "HTTP/1.1 101 Switching Protocols", *more: str, **changes: str | None) -> bytes:
    headers: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": ACCEPT,
        "Sec-WebSocket-Protocol": "wamp.2.cbor",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    lines = [first, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def test_an_independent_server_takes_our_request_and_we_its_answer() -> None:
    server = ServerProtocol(subprotocols=["wamp.2.cbor"], origins=None)
    data, key = build_request("example.com", 8080, "/ws?a=b", ["wamp.2.json", "wamp.2.cbor"], {"X-Token": "secret"})
    server.receive_data(data)
    (request,) = server.events_received()
    assert request.path == "/ws?a=b"
    assert request.headers["Host"] == "example.com:8080"
    assert request.headers["X-Token"] == "secret"
    server.send_response(server.accept(request))
    assert check_response(b"".join(server.data_to_send()), key, ["wamp.2.json", "wamp.2.cbor"]) == "wamp.2.cbor"


def test_both_our_ends_fit() -> None:
    data, key = build_request("localhost", 80, "/ws", OFFER, {})
    assert check_response(granted(data).response, key, OFFER) == "wamp.2.cbor"


def test_every_request_has_its_own_key() -> None:
    keys = {build_request("localhost", 80, "/ws", OFFER, {})[1] for _ in range(100)}
    assert len(keys) == 100
    assert all(len(base64.b64decode(key)) == 16 for key in keys)


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        ("example.com", 80, b"Host: example.com\r\n"),
        ("localhost", 0, b"Host: localhost\r\n"),
        ("::1", 8080, b"Host: [::1]:8080\r\n"),
        ("[::1]", 8080, b"Host: [::1]:8080\r\n"),
        ("bücher.example", 80, b"Host: xn--bcher-kva.example\r\n"),
    ],
)
def test_host_header(host: str, port: int, line: bytes) -> None:
    assert line in build_request(host, port, "/", OFFER, {})[0]


@pytest.mark.parametrize(
    ("host", "path", "headers"),
    [
        ("a\r\nX: y", "/", {}),
        ("a", "/ x", {}),
        ("a", "/\r\nX: y", {}),
        ("a", "/ü", {}),
        ("a", "/", {"X": "secret\r\nY: z"}),
        ("a", "/", {"X": "secret\x00"}),
        ("a", "/", {"X": "secret €"}),
        ("a", "/", {"X Y": "secret"}),
        ("a", "/", {"": "secret"}),
        ("a", "/", {"Host": "secret"}),
        ("a", "/", {"sec-websocket-key": "secret"}),
        ("a", "/", {"Content-Length": "5"}),
        ("ü" * 64, "/", {}),
    ],
)
def test_requests_that_cannot_be(host: str, path: str, headers: dict[str, str]) -> None:
    with pytest.raises(HandshakeError) as caught:
        build_request(host, 80, path, OFFER, headers)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (response("HTTP/1.1 404 Not Found"), "^router answered HTTP 404 Not Found$"),
        (response("HTTP/1.1 404 "), "^router answered HTTP 404 Not Found$"),
        (response("HTTP/1.1 599 "), "^router answered HTTP 599$"),
        (response("HTTP/1.1 500 \xe9\x7f"), "^router answered HTTP 500 "),
        (response("HTTP/1.1 200 OK", "Content-Length: 5"), "HTTP 200 OK"),
        (response("HTTP/1.1 100 Continue"), "HTTP 100 Continue"),
        (response("HTTP/1.0 200 OK"), "HTTP 200 OK"),
        (b"", "router did not answer"),
        (response() + b"x", "exactly one complete HTTP head"),
        (b"\x7f\xf1\x00\x00", "HTTP"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "did not answer in HTTP"),
        (response()[:-2], "complete HTTP head"),
        (response(Upgrade=None), "without the header Upgrade"),
        (response(Upgrade="h2c"), "without the header Upgrade"),
        (response(Connection="close"), "without the header Connection"),
        (response(Sec_WebSocket_Accept=None), "wrong Sec-WebSocket-Accept"),
        (response(Sec_WebSocket_Accept=ACCEPT.lower()), "wrong Sec-WebSocket-Accept"),
        (response("HTTP/1.1 101 X", f"Sec-WebSocket-Accept: {ACCEPT}"), "sec-websocket-accept more than once"),
        (response("HTTP/1.1 101 X", "Sec-WebSocket-Protocol: wamp.2.cbor"), "sec-websocket-protocol more than once"),
        (response(Sec_WebSocket_Protocol=None), "router chose none of the WebSocket subprotocols offered, wamp.2.cbor"),
        (response(Sec_WebSocket_Protocol="wamp.2.json"), "router chose 'wamp.2.json' of the"),
        (response(Sec_WebSocket_Extensions="permessage-deflate"), "extensions nobody offered: 'permessage-deflate'"),
    ],
)
def test_answers_that_are_not_accepted(data: bytes, text: str) -> None:
    with pytest.raises(HandshakeError, match=text) as caught:
        check_response(data, KEY, OFFER)
    assert str(caught.value).isprintable()


@given(data=st.binary(max_size=200))
def test_random_answers_never_raise_anything_else(data: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        check_response(data, KEY, OFFER)
    assert str(caught.value).isprintable()


@given(reason=HEADER_TEXT)
def test_any_status_line_gives_one_printable_line(reason: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        check_response(response(f"HTTP/1.1 503 {reason}"), KEY, OFFER)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
