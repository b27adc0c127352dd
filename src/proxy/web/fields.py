"""Header fields on their way through this proxy, in both directions, and what it says of the client in them."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from proxy.web.pages import ErrorPage

__all__ = [
    "HOP_BY_HOP",
    "Fields",
    "RequestBody",
    "answer_error",
    "end_to_end",
    "forwarded",
    "is_upgrade",
    "request_fields",
    "request_target",
]

Fields: TypeAlias = list[tuple[bytes, bytes]]

# RFC 9110 section 7.6.1, with the ones that are in use without being named there.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What this proxy says itself: nobody else's word counts for the server behind.
_OURS: Final = frozenset(
    {
        b"content-length",
        b"expect",
        b"forwarded",
        b"host",
        b"via",
        b"x-real-ip",
    }
)
# Likewise: X-Forwarded-Ssl and X-Forwarded-Prefix, for example, have their say at many servers.
_OUR_PREFIX: Final = b"x-forwarded-"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_UNPRINTABLE: Final = re.compile(rb"[^\x21-\x7e]")


def end_to_end(fields: Iterable[tuple[bytes, Iterable[bytes]]]) -> Iterator[tuple[bytes, bytes]]:
    """The fields that are not only for the next hop.

    :param fields: name and values, as Twisted's ``Headers.getAllRawHeaders()`` has them.
    """
    every = [(name, value) for name, values in fields for value in values]
    dropped = set(HOP_BY_HOP)
    for name, value in every:
        if name.lower() == b"connection":
            dropped.update(token.strip().lower() for token in value.split(b","))
    for name, value in every:
        if name.lower() not in dropped:
            yield name, value


def request_fields(request: Any, host: bytes, proto: str | None = None, port: int | None = None) -> Fields:
    """What the server behind gets of a request's header fields, and hears of its client.

    :param request: Twisted's.
    :param host: the server, for the field Host.
    :param proto: scheme that clients use; None: that of the request. ``port`` likewise.
    """
    fields = [(b"Host", host)]
    for name, value in end_to_end(request.requestHeaders.getAllRawHeaders()):
        plain = name.lower().replace(b"_", b"-")  # to many servers, an underscore is a dash
        if plain not in _OURS and not plain.startswith(_OUR_PREFIX):
            fields.append((name, value))
    return [*fields, *forwarded(request, proto, port)]


def forwarded(request: Any, proto: str | None = None, port: int | None = None) -> Fields:
    """Who the request is from, and what it was sent to."""
    asked = request.getHeader(b"host")
    scheme = proto or ("https" if request.isSecure() else "http")
    fields = [(b"X-Forwarded-Proto", scheme.encode("ascii"))]
    fields.append((b"X-Forwarded-Port", b"%d" % (port or _port(request, scheme))))
    if asked:
        fields.append((b"X-Forwarded-Host", asked))
    client = getattr(request.getClientAddress(), "host", None)
    if client:
        address = client.encode("ascii", "replace")
        fields += [(b"X-Forwarded-For", address), (b"X-Real-IP", address)]
    fields.append((b"Via", b"1.1 wamp-proxy"))
    return fields


def _port(request: Any, scheme: str) -> int:
    """The port that the client has connected to; of a Unix socket, the one that its scheme stands for."""
    port: int = getattr(request.getHost(), "port", 0) or 0
    return port or _DEFAULT_PORTS[scheme]


def request_target(request: Any, base: bytes) -> bytes | None:
    """What to ask the server behind for: the rest of the path, as the client has spelt it, and the query.

    :param request: Twisted's, at the resource of the service.
    :param base: in front of the rest; no slash at its end.
    :returns: None where a segment leads upwards, out of ``base`` perhaps.
    """
    path, mark, query = request.uri.partition(b"?")
    rest = path.split(b"/")[1:]
    rest = rest[len(rest) - len(request.postpath) :] if request.postpath else []
    for decoded in request.postpath:
        # Servers that take parameters off segments see "..;x" as "..".
        if any(part.partition(b";")[0] == b".." for part in decoded.replace(b"\\", b"/").split(b"/")):
            return None
    target = base + b"".join(b"/" + segment for segment in rest) or b"/"
    return _UNPRINTABLE.sub(lambda found: b"%%%02X" % found[0][0], target + mark + query)


class RequestBody:
    """A request's body as a file for producers; it ends early when the client goes, whose request closes it.

    :param content: of the request.
    :param touch: called whenever some of it is read.
    """

    def __init__(self, content: Any, touch: Callable[[], None] | None = None) -> None:
        content.seek(0)
        self._content = content
        self._touch = touch

    def read(self, size: int) -> bytes:
        """Some octets of it."""
        if self._touch is not None:
            self._touch()
        return b"" if self._content.closed else bytes(self._content.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        """See files."""
        return int(self._content.seek(offset, whence))

    def tell(self) -> int:
        """See files."""
        return int(self._content.tell())

    def close(self) -> None:
        """Not here: it is the request's."""


def is_upgrade(request: Any) -> bool:
    """Whether this is a WebSocket opening handshake (RFC 6455 section 4.1)."""
    fields = request.requestHeaders
    upgrade = b",".join(fields.getRawHeaders(b"upgrade") or []).lower().split(b",")
    connection = b",".join(fields.getRawHeaders(b"connection") or []).lower().split(b",")
    wants = b"websocket" in {token.strip() for token in upgrade}
    return request.method == b"GET" and wants and b"upgrade" in {token.strip() for token in connection}


def answer_error(request: Any, status: int, text: str = "", headers: dict[bytes, bytes] | None = None) -> None:
    """End a request whose resource has returned NOT_DONE_YET, and that nothing was written to.

    :param status: of HTTP.
    :param text: one line; empty: what the status usually means.
    """
    body = ErrorPage(status, text, headers).render(request)
    request.setHeader(b"content-length", b"%d" % len(body))
    request.write(body)
    request.finish()
