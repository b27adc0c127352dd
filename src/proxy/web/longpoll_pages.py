"""The requests of long-poll clients."""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxy import origins
from proxy.config.web import LongPollOptions
from proxy.web.longpoll_connection import LongPollError
from proxy.web.pages import answer_html, render_page

if TYPE_CHECKING:
    from proxy.web.longpoll import LongPollService, Opened

__all__ = ["LongPollPages"]

OPEN_MAX: Final = 65_536
"""Octets of an ``open`` request's body."""
PROTOCOLS_MAX: Final = 64
"""Protocols of an ``open`` request that are looked at."""
PREFLIGHT_SECONDS: Final = 600
"""How long browsers need not ask again whether a page of another origin may use this."""

_NOTICE: Final = """<h1>WAMP</h1>
<p>This is for programs: WAMP over HTTP long-poll. Clients ask for a connection at <code>open</code> below this
address.</p>
<p>Protocols: {protocols}.</p>"""


class LongPollPages(Resource):
    """Answers all requests of a long-poll service.

    :param service: whose.
    :param options: of it.
    """

    isLeaf = True

    def __init__(self, service: "LongPollService", options: LongPollOptions) -> None:
        super().__init__()
        self._service = service
        self._origins = (options.allowed_origins, options.allow_null_origin)

    def render(self, request: Any) -> Any:
        """Answer a request."""
        path = [part.decode("latin-1") for part in request.postpath or [] if part]
        if path and path != ["open"]:
            _hide(request)
        request.setHeader(b"cache-control", b"no-store, no-cache, must-revalidate, max-age=0")
        try:
            self._check_origin(request)
            if not path and request.method in (b"GET", b"HEAD"):
                return self._notice(request)
            handler = self._handler(path)
            if request.method == b"OPTIONS":
                return _preflight(request)
            if request.method != b"POST":
                request.setHeader(b"allow", b"OPTIONS, POST")
                raise LongPollError(405, "expected POST")
            return handler(request)
        except LongPollError as error:
            return _fail(request, error)

    def _handler(self, path: list[str]) -> Callable[[Any], Any]:
        match path:
            case ["open"]:
                return self._open
            case [name, "receive"]:
                return lambda request: self._receive(request, name)
            case [name, "send"]:
                return lambda request: self._send(request, name)
            case [name, "close"]:
                return lambda request: self._close(request, name)
        raise LongPollError(404, "expected open, or receive, send or close below the name of a connection")

    # --- who may ask ---

    def _check_origin(self, request: Any) -> None:
        """Refuse pages of origins that are not allowed, and let browsers give the answer to the others."""
        origin = request.getHeader(b"origin")
        request.responseHeaders.addRawHeader(b"vary", b"Origin")
        if origin is None:
            return
        text = origin.decode("latin-1")
        try:
            is_allowed = origins.is_allowed(text, *self._origins)
        except ValueError as error:
            raise LongPollError(400, f"bad Origin header, expected {error}") from error
        if not is_allowed:
            raise LongPollError(403, "pages of this origin may not use this")
        request.setHeader(b"access-control-allow-origin", origin)
        request.setHeader(b"access-control-allow-credentials", b"true")

    # --- requests ---

    def _notice(self, request: Any) -> bytes:
        names = ", ".join(f"<code>{name}</code>" for name in self._service.protocols)
        return answer_html(request, render_page("WAMP over HTTP long-poll", _NOTICE.format(protocols=names)))

    def _open(self, request: Any) -> Any:
        protocol = self._choose(_body(request, OPEN_MAX))
        fields = request.requestHeaders.getAllRawHeaders()
        headers = {name.decode("latin-1").lower(): b", ".join(values).decode("latin-1") for name, values in fields}
        opened: Deferred[Opened] = self._service.open(request.peer, headers, protocol)

        def answer(opened: "Opened") -> None:
            if request._disconnected:
                self._service.close(opened.name)
                return
            if opened.set_cookie:
                request.responseHeaders.addRawHeader(b"set-cookie", opened.set_cookie.encode("latin-1"))
            told = {"transport": opened.name, "protocol": opened.protocol}
            _answer(request, json.dumps(told).encode(), b"application/json; charset=utf-8")

        opened.addCallback(answer).addErrback(_failed, request)
        return NOT_DONE_YET

    def _choose(self, body: bytes) -> str:
        """The first protocol of a request that is spoken here."""
        try:
            wish = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise LongPollError(400, "the request's body is not JSON") from error
        wanted = wish.get("protocols") if isinstance(wish, dict) else None
        if not isinstance(wanted, list):
            raise LongPollError(400, 'expected a JSON object with a list of "protocols"')
        known = self._service.protocols
        for protocol in wanted[:PROTOCOLS_MAX]:
            if isinstance(protocol, str) and protocol in known:
                return protocol
        raise LongPollError(400, f"no common protocol, expected one of {', '.join(known)}")

    def _receive(self, request: Any, name: str) -> Any:
        connection, mime_type = self._service.find(name)
        poll = connection.receive()
        _cancel_with(request, poll)
        poll.addCallback(lambda body: _answer(request, body, mime_type)).addErrback(_failed, request)
        return NOT_DONE_YET

    def _send(self, request: Any, name: str) -> Any:
        connection, _ = self._service.find(name)
        assert request.content is not None
        request.content.seek(0)
        done = connection.send(request.content)
        _cancel_with(request, done)
        done.addCallback(lambda _: _answer(request, b"", b"")).addErrback(_failed, request)
        return NOT_DONE_YET

    def _close(self, request: Any, name: str) -> bytes:
        self._service.close(name)
        request.setResponseCode(HTTPStatus.NO_CONTENT)
        return b""


def _hide(request: Any) -> None:
    """The name of a connection is a secret: it must not get into logs, however the client has spelt it."""
    _, mark, query = request.uri.partition(b"?")
    first = next(index for index, part in enumerate(request.postpath) if part)
    shown = [*request.path.split(b"/")[: -len(request.postpath)], b"...", *request.postpath[first + 1 :]]
    request.path = b"/".join(shown)
    request.uri = request.path + mark + query


def _body(request: Any, limit: int) -> bytes:
    assert request.content is not None
    request.content.seek(0)
    body: bytes = request.content.read(limit + 1)
    if len(body) > limit:
        raise LongPollError(413, f"the request's body has more than {limit} octets")
    return body


def _preflight(request: Any) -> bytes:
    """What a page of another origin may ask for."""
    request.setResponseCode(HTTPStatus.NO_CONTENT)
    request.setHeader(b"allow", b"OPTIONS, POST")
    if request.getHeader(b"origin") is not None:
        request.setHeader(b"access-control-allow-methods", b"POST")
        request.setHeader(b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS)
        wanted = request.getHeader(b"access-control-request-headers")
        if wanted is not None:
            request.setHeader(b"access-control-allow-headers", wanted)
    return b""


def _cancel_with(request: Any, waiting: "Deferred[Any]") -> None:
    """A client that is gone waits for nothing."""
    request.notifyFinish().addErrback(lambda _: waiting.cancel())


def _answer(request: Any, body: bytes, mime_type: bytes) -> None:
    if body:
        request.setHeader(b"content-type", mime_type)
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
    else:
        request.setResponseCode(HTTPStatus.NO_CONTENT)
    request.finish()


def _fail(request: Any, error: LongPollError) -> bytes:
    """Say what is wrong; also in the status line, which is all that some clients show."""
    reason = error.reason.encode("ascii", "replace")
    request.setResponseCode(error.status, reason)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"x-content-type-options", b"nosniff")
    return reason + b"\n"


def _failed(failure: Failure, request: Any) -> None:
    if failure.check(CancelledError) or (failure.check(LongPollError) and request._disconnected):
        return
    if failure.check(LongPollError) is None:
        request.processingFailed(failure)
        return
    error = failure.value
    assert isinstance(error, LongPollError)
    body = _fail(request, error)
    request.setHeader(b"content-length", b"%d" % len(body))
    request.write(body)
    request.finish()
