"""Both ends of the WebSocket opening handshake, without sockets (RFC 6455 section 4; HTTP itself is h11's business).

The data plane gathers a whole head and hands it over; nothing can follow it. What is answered is either the 101 head or
an :class:`HttpError`, a complete response after which the connection is closed.
"""

import base64
import hashlib
import re
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import h11

from proxy import origins, statuspage
from proxy.compression import Agreement, Settings, negotiate
from proxy.messages import SERIALIZERS, shorten

__all__ = [
    "Accepted",
    "HandshakeError",
    "HttpError",
    "Policy",
    "Request",
    "accept",
    "build_request",
    "check_response",
    "head_too_large",
    "parse_request",
    "peek_request",
]

WEBSOCKET_VERSION: Final = "13"
_SUBPROTOCOL: Final = "wamp.2."  # what the serializer's name follows
_BATCHED: Final = ".batched"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_KEY_LENGTH: Final = 24  # 16 octets in base64
_PORT_MAX: Final = 65535

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_AUTHORITY: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+(?:%25[\w.\-~]+)?\]|[\w.\-~!$&'()*+,;=%]+)(?::([0-9]{0,5}))?", re.ASCII
)
_ABSOLUTE: Final = re.compile(r"(?:http|ws)s?://[^/?#]*", re.IGNORECASE)
_SLASH: Final = re.compile("%2f", re.IGNORECASE)
_SINGLETONS: Final = frozenset(
    {"host", "origin", "sec-websocket-key", "sec-websocket-version", "content-length", "authorization"}
)
_OUR_HEADERS: Final = frozenset({"host", "upgrade", "connection", "content-length", "transfer-encoding"})


class HttpError(Exception):
    """A complete HTTP response instead of the upgrade (the status page, with 200, is one too).

    :ivar status: HTTP status.
    :ivar reason: what is wrong, one line for people and logs; also the body, where none is given.
    :ivar headers: besides Content-Length, Content-Type and Connection.
    :ivar body: octets of the body.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        content_type: str = "text/plain; charset=utf-8",
    ) -> None:
        super().__init__(f"{status} {HTTPStatus(status).phrase}: {reason}")
        self.status = status
        self.reason = reason
        self.headers = list(headers)
        self.body = f"{reason}\n".encode() if body is None else body
        self.content_type = content_type
        self.is_head_only = False

    def to_bytes(self) -> bytes:
        """The response, complete, with ``Connection: close``."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            *(f"{name}: {value}" for name, value in self.headers),
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "X-Content-Type-Options: nosniff",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
        return head if self.is_head_only else head + self.body


class HandshakeError(Exception):
    """A router's answer to the upgrade request that cannot be accepted, or a request that cannot be built."""


def head_too_large() -> HttpError:
    """The answer to a head over the size limit (RFC 6585 section 5)."""
    return HttpError(431, "the request's head is too large")


# --- server end --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Request:
    """A well-formed HTTP request head.

    :ivar method: as sent, upper case by convention of HTTP.
    :ivar path: percent-decoded, begins with a slash, holds no control characters.
    :ivar query: what follows the question mark, as sent.
    :ivar host: from the Host header, without the port.
    :ivar port: from the Host header, None where it names none.
    :ivar origin: the Origin header, None where there is none.
    :ivar protocols: subprotocols in the client's order of preference.
    :ivar key: the Sec-WebSocket-Key header, not checked yet; empty where there is none.
    :ivar headers: all of them by lower-case name; repeated ones joined by a comma (Cookie: by a semicolon).
    :ivar is_secure: it has come over TLS.
    """

    method: str
    path: str
    query: str
    host: str
    port: int | None
    origin: str | None
    protocols: list[str]
    key: str
    headers: dict[str, str]
    is_secure: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What a WebSocket transport lets in.

    :ivar path: path of the endpoint (``/ws``; one trailing slash more is the same); None: any.
    :ivar serializers: names of the serializers to offer; ``.batched`` behind one: its batched subprotocol.
    :ivar allowed_origins: patterns, see :func:`proxy.origins.is_allowed`.
    :ivar allow_null_origin: take ``Origin: null`` and ``file://`` (pages without a place, local files).
    :ivar enable_webstatus: answer a plain GET with a page for people instead of 426.
    :ivar require_subprotocol: refuse clients that offer no subprotocol; else they get ``wamp.2.json``.
    :ivar show_server_version: whether the Server header and the page tell the version.
    :ivar external_port: the port that clients must name in Host if they name one; None: any.
    :ivar server_text: product and version for the Server header, ``product/version``.
    :ivar compression: what to negotiate of permessage-deflate; None: nothing.
    """

    path: str | None = None
    serializers: tuple[str, ...] = tuple(SERIALIZERS)
    allowed_origins: tuple[str, ...] = ("*",)
    allow_null_origin: bool = True
    enable_webstatus: bool = True
    require_subprotocol: bool = True
    show_server_version: bool = False
    external_port: int | None = None
    server_text: str = "wamp-proxy"
    compression: Settings | None = None
    server: str = field(init=False)
    subprotocols: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        server = self.server_text if self.show_server_version else self.server_text.partition("/")[0]
        if not re.fullmatch(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*", server):
            raise ValueError(f"server_text must be printable ASCII, got {server!r}")
        object.__setattr__(self, "server", server)
        object.__setattr__(self, "subprotocols", tuple(_SUBPROTOCOL + name for name in self.serializers))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The upgrade is granted.

    :ivar response: the 101 head, complete.
    :ivar serializer: number of the serializer.
    :ivar subprotocol: its WebSocket subprotocol, assumed if the client offered none.
    :ivar is_batched: a WebSocket message holds several WAMP messages.
    :ivar compression: what was agreed of permessage-deflate; None: nothing.
    """

    response: bytes
    serializer: int
    subprotocol: str
    is_batched: bool = False
    compression: Agreement | None = None

    def with_header(self, name: str, value: str) -> bytes:
        """The 101 head with one header more."""
        return self.response.removesuffix(b"\r\n") + f"{name}: {value}\r\n\r\n".encode("ascii")

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of the data plane's ``upgrade()``: what differs from plain messages."""
        keywords: dict[str, Any] = {"batched": True} if self.is_batched else {}
        return keywords if self.compression is None else keywords | self.compression.keywords


def parse_request(head: bytes, *, is_secure: bool = False) -> Request:
    """Parse an HTTP request head.

    :param head: up to and including the empty line, nothing after it.
    :param is_secure: it has come over TLS.
    :raises HttpError: 400 (malformed; a header twice that may be there once), 405, 501, 505 (not HTTP/1.1).
    """
    event = _read_request(head)
    if event.http_version != b"1.1":
        raise HttpError(505, "HTTP/1.1 is needed for WebSocket")
    method = event.method.decode("ascii")
    headers = _join_headers(event.headers)
    if "transfer-encoding" in headers or headers.get("content-length", "0").strip("0"):
        # The body would be taken for WebSocket frames.
        raise HttpError(400, "a request with a body cannot be taken here")
    path, query = _split_target(method, event.target.decode("ascii"))
    host, port = _split_authority(headers.get("host", ""))
    return Request(
        method=method,
        path=path,
        query=query,
        host=host,
        port=port,
        origin=headers.get("origin"),
        protocols=_split_protocols(headers.get("sec-websocket-protocol", "")),
        key=headers.get("sec-websocket-key", ""),
        headers=headers,
        is_secure=is_secure,
    )


def peek_request(head: bytes) -> tuple[str, str]:
    """Method and path of a request, percent-decoded: to find who is to read it in full.

    A slash that is encoded stays so: it is part of a component of the path, and parts none.

    :param head: as for :func:`parse_request`.
    :raises HttpError: its first line is malformed, or names no path.
    """
    parts = head.partition(b"\r\n")[0].split(b" ")
    if len(parts) != 3 or not parts[1].isascii() or not parts[0].isascii():
        raise HttpError(400, "malformed HTTP request: bad request line")
    method = parts[0].decode("ascii")
    return method, _split_target(method, _SLASH.sub("%252F", parts[1].decode("ascii")))[0]


def accept(request: Request, policy: Policy, memory: int = sys.maxsize) -> Accepted:
    """Answer an upgrade request (RFC 6455 section 4.2).

    :param request: as parsed.
    :param policy: of the transport.
    :param memory: octets that are left for compression.
    :raises HttpError: 400, 403, 404, 405, 426, or 200 with the status page.
    """
    try:
        _check_target(request, policy)
        _check_upgrade(request, policy)
        _check_origin(request, policy)
        return _switch_protocols(request, policy, memory)
    except HttpError as error:
        error.headers.insert(0, ("Server", policy.server))
        error.is_head_only = request.method == "HEAD"
        raise


def _read_request(head: bytes) -> h11.Request:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 1)
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        status = 501 if error.error_status_hint == 501 else 400
        raise HttpError(status, f"malformed HTTP request: {shorten(error)}") from error
    if not isinstance(event, h11.Request) or parser.trailing_data[0]:
        raise HttpError(400, "malformed HTTP request: not exactly one complete head")
    return event


def _join_headers(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLETONS:
            raise HttpError(400, f"the header {name} appears more than once")
        else:
            headers[name] += ("; " if name == "cookie" else ", ") + value
    return headers


def _split_target(method: str, target: str) -> tuple[str, str]:
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:  # RFC 9112 section 3.2.2: a server must take it
        target = target[absolute.end() :]
        target = target if target.startswith("/") else "/" + target
    if not target.startswith("/"):
        if method in ("CONNECT", "OPTIONS"):
            raise HttpError(405, f"the method {method} is not possible here", [("Allow", "GET")])
        raise HttpError(400, "malformed request target, a path is expected")
    if "#" in target:
        raise HttpError(400, "malformed request target: it holds a fragment identifier")  # RFC 6455 section 3
    raw_path, _, query = target.partition("?")
    try:
        path = unquote(raw_path, errors="strict") if "%" in raw_path else raw_path
    except UnicodeDecodeError as error:
        raise HttpError(400, "malformed request target: it is not UTF-8") from error
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in path):
        raise HttpError(400, "malformed request target: it holds control characters")
    return path, query


def _split_authority(value: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(value)
    port = int(match[2]) if match is not None and match[2] else None
    if match is None or (port is not None and port > _PORT_MAX):
        raise HttpError(400, f"bad Host header {shorten(value)}, expected a host name or address, and a port")
    return match[1], port


def _split_protocols(value: str) -> list[str]:
    protocols: list[str] = []
    for part in value.split(","):
        name = part.strip(" \t")
        if not name:
            continue  # RFC 9110 section 5.6.1: empty elements of a list are to be ignored
        if not _TOKEN.fullmatch(name):
            raise HttpError(400, f"bad subprotocol {shorten(name)} in Sec-WebSocket-Protocol")
        if name in protocols:
            raise HttpError(400, f"the subprotocol {shorten(name)} is offered twice")  # RFC 6455 section 4.1 item 10
        protocols.append(name)
    return protocols


def _has_token(value: str, token: str) -> bool:
    return any(part.strip(" \t").lower() == token for part in value.split(","))


def _check_target(request: Request, policy: Policy) -> None:
    if policy.path is not None and request.path not in (policy.path, policy.path.rstrip("/") + "/"):
        raise HttpError(404, "there is no WebSocket endpoint at this path")
    methods = ("GET", "HEAD") if policy.enable_webstatus else ("GET",)
    if request.method not in methods or (request.method == "HEAD" and "upgrade" in request.headers):
        allowed = ", ".join(methods)
        raise HttpError(405, f"the method {shorten(request.method)} is not possible here", [("Allow", allowed)])


def _check_upgrade(request: Request, policy: Policy) -> None:
    headers = request.headers
    upgrade = headers.get("upgrade")
    wanted = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", WEBSOCKET_VERSION)]
    if upgrade is None and policy.enable_webstatus:
        address = request.host + ("" if request.port is None else f":{request.port}") + request.path
        page = statuspage.render(address, policy.subprotocols, policy.server, is_secure=request.is_secure)
        extra = [("Content-Security-Policy", statuspage.CONTENT_SECURITY_POLICY)]
        raise HttpError(200, "status page", extra, page, "text/html; charset=utf-8")
    if upgrade is None or not _has_token(upgrade, "websocket"):
        raise HttpError(426, "this is a WebSocket endpoint, the header Upgrade: websocket is needed", wanted)
    if not _has_token(headers.get("connection", ""), "upgrade"):
        text = "the header Connection: Upgrade is missing (an HTTP proxy on the way may have removed it)"
        raise HttpError(400, text)
    if headers.get("sec-websocket-version", "").strip() != WEBSOCKET_VERSION:
        text = f"WebSocket version {WEBSOCKET_VERSION} is needed, got {shorten(headers.get('sec-websocket-version'))}"
        raise HttpError(426, text, wanted)
    if not _is_key(request.key):
        raise HttpError(400, "bad Sec-WebSocket-Key header, expected 16 octets in base64")
    if policy.external_port is not None and request.port not in (None, policy.external_port):
        raise HttpError(400, f"port {request.port} in the Host header, expected {policy.external_port}")


def _is_key(key: str) -> bool:
    if len(key) != _KEY_LENGTH:
        return False
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except ValueError:  # binascii.Error, or not ASCII
        return False


def _check_origin(request: Request, policy: Policy) -> None:
    """RFC 6455 section 10.2. Browsers always send Origin; other clients need not and are let through without."""
    if request.origin is None:
        return
    try:
        allowed = origins.is_allowed(request.origin, policy.allowed_origins, policy.allow_null_origin)
    except ValueError as error:
        raise HttpError(400, f"bad Origin header {shorten(request.origin)}, expected {error}") from error
    if not allowed:
        raise HttpError(403, f"the origin {shorten(request.origin)} is not allowed")


def _switch_protocols(request: Request, policy: Policy, memory: int) -> Accepted:
    offered = request.protocols
    chosen = next((name for name in offered if name in policy.subprotocols), None)
    subprotocol = chosen
    if subprotocol is None:
        subprotocol = _SUBPROTOCOL + "json"
        if offered or policy.require_subprotocol or subprotocol not in policy.subprotocols:
            raise HttpError(400, f"no acceptable WebSocket subprotocol, possible are {', '.join(policy.subprotocols)}")
    agreed = None
    if policy.compression is not None:
        header = request.headers.get("sec-websocket-extensions", "")
        agreed = negotiate(header, policy.compression, memory)
    serializer = subprotocol.removeprefix(_SUBPROTOCOL).removesuffix(_BATCHED)
    return Accepted(
        response=_response(request.key, policy.server, chosen, agreed),
        serializer=SERIALIZERS[serializer],
        subprotocol=subprotocol,
        is_batched=subprotocol.endswith(_BATCHED),
        compression=agreed,
    )


def _response(key: str, server: str, subprotocol: str | None, agreed: Agreement | None) -> bytes:
    selected = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    if agreed is not None:
        selected += f"Sec-WebSocket-Extensions: {agreed.response}\r\n"
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        f"Server: {server}\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"{selected}"
        f"Sec-WebSocket-Accept: {_accept_value(key)}\r\n\r\n"
    ).encode("ascii")


def _accept_value(key: str) -> str:
    """RFC 6455 section 4.2.2 item 5.4."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


# --- client end --------------------------------------------------------------------------------------------------


def build_request(
    host: str, port: int, path: str, subprotocols: Sequence[str], headers: Mapping[str, str]
) -> tuple[bytes, str]:
    """The upgrade request to a router (RFC 6455 section 4.1).

    :param host: name or address for the Host header.
    :param port: port for the Host header; 80 is left out, and so is 0 (Unix sockets).
    :param path: request target, with the query if there is one.
    :param subprotocols: to offer, in order of preference.
    :param headers: more headers, for example credentials.
    :returns: the request head and its key, which :func:`check_response` needs.
    :raises HandshakeError: something of it cannot be put into an HTTP request. The text holds no header value.
    """
    before, after = _request_parts(host, port, path, tuple(subprotocols), tuple(headers.items()))
    key = base64.b64encode(secrets.token_bytes(16))
    return before + key + after, key.decode("ascii")


_PLACEHOLDER: Final = "A" * _KEY_LENGTH


@lru_cache(maxsize=256)
def _request_parts(
    host: str, port: int, path: str, subprotocols: tuple[str, ...], headers: tuple[tuple[str, str], ...]
) -> tuple[bytes, bytes]:
    """The request before and after the key: all the rest of it is the same for every login."""
    for name, _ in headers:
        if name.lower() in _OUR_HEADERS or name.lower().startswith("sec-websocket-"):
            raise HandshakeError(f"the header {shorten(name)} of the upgrade request cannot be set")
    try:
        fields = [
            ("Host", _host_header(host, port)),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", WEBSOCKET_VERSION),
            ("Sec-WebSocket-Protocol", ", ".join(subprotocols)),
            *headers,
            ("Sec-WebSocket-Key", _PLACEHOLDER),  # last, so that no other header can be taken for it
        ]
        request = h11.Request(method="GET", target=path, headers=fields)
        head = h11.Connection(h11.CLIENT).send(request)
    except (h11.LocalProtocolError, UnicodeError):
        # Not the library's text, and no chained exception: they could show a header's value.
        text = f"no upgrade request can be made of host {shorten(host)}, path {shorten(path)} and the given headers"
        raise HandshakeError(text) from None
    assert head is not None
    before, _, after = head.rpartition(_PLACEHOLDER.encode("ascii"))
    return before, after


def _host_header(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    if not name.isascii():
        name = name.encode("idna").decode("ascii")
    return name if port in (0, 80) else f"{name}:{port}"


def check_response(head: bytes, key: str, subprotocols: Sequence[str]) -> str:
    """Check a router's answer to the upgrade request (RFC 6455 section 4.1, second part).

    :param head: up to and including the empty line, nothing after it.
    :param key: as returned by :func:`build_request`.
    :param subprotocols: as offered.
    :returns: the subprotocol that the router chose.
    :raises HandshakeError: the router did not upgrade, or not as it was asked to.
    """
    response = _read_response(head)
    if response.status_code != 101:
        phrase = response.reason.decode("latin-1").strip() or _phrase(response.status_code)
        raise HandshakeError(f"router answered HTTP {response.status_code} {_printable(phrase)}".rstrip())
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        if name in headers and name in ("sec-websocket-accept", "sec-websocket-protocol"):
            raise HandshakeError(f"router answered with the header {name} more than once")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if not _has_token(headers.get("upgrade", ""), "websocket"):
        raise HandshakeError("router answered 101 without the header Upgrade: websocket")
    if not _has_token(headers.get("connection", ""), "upgrade"):
        raise HandshakeError("router answered 101 without the header Connection: Upgrade")
    if headers.get("sec-websocket-accept", "").strip() != _accept_value(key):
        raise HandshakeError("router answered with a wrong Sec-WebSocket-Accept")
    if headers.get("sec-websocket-extensions", "").strip():
        raise HandshakeError(f"router chose extensions nobody offered: {shorten(headers['sec-websocket-extensions'])}")
    chosen = headers.get("sec-websocket-protocol", "").strip()
    if chosen not in subprotocols:
        got = f"router chose {shorten(chosen)}" if chosen else "router chose none"
        raise HandshakeError(f"{got} of the WebSocket subprotocols offered, {', '.join(subprotocols)}")
    return chosen


_PLAIN_REQUEST: Final = h11.Request(
    method="GET", target="/", headers=[("Host", "router"), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
)


def _read_response(head: bytes) -> h11.Response | h11.InformationalResponse:
    if not head:  # which the parser would take for the end of the connection
        raise HandshakeError("router did not answer")
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(head) + 1)
    # The parser wants to know that an upgrade was asked for; what else was in the request does not matter to it.
    parser.send(_PLAIN_REQUEST)
    parser.send(h11.EndOfMessage())
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise HandshakeError(f"router did not answer in HTTP: {shorten(error)}") from error
    if not isinstance(event, h11.Response | h11.InformationalResponse) or parser.trailing_data[0]:
        raise HandshakeError("router did not answer with exactly one complete HTTP head")
    return event


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _printable(text: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in text[:80])
