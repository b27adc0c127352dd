"""The service ``reverseproxy``: an HTTP server behind a path.

Requests are taken whole before the server behind hears of them, so that a slow client holds up none of its connections;
answers are passed on as they come, at the pace of the client.
"""

import logging
import re
from typing import Any, ClassVar, Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, FileBodyProducer, HTTPConnectionPool, ProxyAgent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxy.config.web import ConnectingTcp, ReverseProxyConfig
from proxy.errors import InvalidConfiguration
from proxy.turns import Turns
from proxy.web.backends import Backend
from proxy.web.base import WebService
from proxy.web.fields import RequestBody, answer_error, end_to_end, is_upgrade, request_fields, request_target
from proxy.web.pages import ErrorPage
from proxy.web.upgrade import UpgradeRelay

__all__ = ["ReverseProxyService"]

log = logging.getLogger("proxy.web")

IDLE_SECONDS: Final = 15
"""How long a connection to the server is kept for the next request; most servers close theirs later than that."""
WAITING_MAX: Final = 1000
"""Requests that wait for a connection; more of them are refused."""
REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})

_NO_BODY: Final = frozenset({204, 304})
_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # RFC 9112 section 4


class ReverseProxyService(WebService):
    """An HTTP server behind."""

    TYPE: ClassVar[str] = "reverseproxy"
    config: ReverseProxyConfig

    def start(self) -> "Deferred[None]":
        """Get ready; the server need not be there yet."""
        config = self.config
        reactor = self.site.reactor
        place = ConnectingTcp(host=config.host, port=config.port, tls=config.tls)
        self.backend = Backend(reactor, place, config.connect_timeout / 1000, self.label)
        base = config.path.strip("/")
        if not base.isascii() or any(character <= " " or character in "?#\x7f" for character in base):
            raise InvalidConfiguration("path: expected a path in printable ASCII, without query")
        self.base = f"/{base}".rstrip("/").encode("ascii")
        self.host = _host_field(config.host, config.port, self.backend.is_secure)
        self.pool = HTTPConnectionPool(reactor)
        self.pool.maxPersistentPerHost = config.max_connections
        self.pool.cachedConnectionTimeout = IDLE_SECONDS
        self.turns = Turns(config.max_connections, reactor, config.response_timeout / 1000)
        self.agent = _ServerAgent(self.backend, reactor, self.pool)
        self._is_failing = False
        self.resource = _ReverseProxyResource(self)
        return succeed(None)

    def stop(self) -> "Deferred[None]":
        """Close the connections that are idle. Requests that are under way go on."""
        self.pool.persistent = False
        closed: Deferred[None] = self.pool.closeCachedConnections()
        return closed

    def failed(self, reason: str) -> None:
        """A request could not be answered by the server; the log hears of the first one only."""
        level = logging.DEBUG if self._is_failing else logging.WARNING
        self._is_failing = True
        log.log(level, "%s: server %s: %s", self.label, self.backend, reason)

    def succeeded(self) -> None:
        """The server has answered."""
        if self._is_failing:
            self._is_failing = False
            log.info("%s: server %s answers again", self.label, self.backend)


def _host_field(host: str, port: int, is_secure: bool) -> bytes:
    """The field Host (RFC 9110 section 7.2)."""
    name = f"[{host.strip('[]')}]" if ":" in host else host
    text = name if port == (443 if is_secure else 80) else f"{name}:{port}"
    return text.encode("idna") if not text.isascii() else text.encode("ascii")


class _ServerAgent(ProxyAgent):
    """Asks one server. Twisted's takes the target for a URL, and fails where ``//[`` stands for no host."""

    _BASE: Final = URI.fromBytes(b"http://server/")

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> "Deferred[Any]":
        """Send a request; see Twisted's IAgent.

        :param uri: its target, as it goes out.
        """
        place = self._proxyEndpoint
        asked: Deferred[Any] = self._requestWithEndpoint(
            (b"http", b"server", 0), place, method, self._BASE, headers, bodyProducer, uri
        )
        return asked


class _ReverseProxyResource(Resource):
    """Everything at and below the path."""

    isLeaf = True

    def __init__(self, service: ReverseProxyService) -> None:
        super().__init__()
        self._service = service

    def render(self, request: Any) -> Any:
        service = self._service
        target = request_target(request, service.base)
        if target is None:
            return ErrorPage(400, "The path must not lead upwards.").render(request)
        if request.method in REFUSED_METHODS:
            return ErrorPage(501).render(request)
        if is_upgrade(request):
            config = service.config
            fields = request_fields(request, service.host, config.forwarded_proto, config.forwarded_port)
            relay = UpgradeRelay(service.site.reactor, request, service.backend, service.label)
            relay.start(target, fields, config.response_timeout / 1000)
        else:
            _Exchange(service, request, target).start()
        return NOT_DONE_YET


class _Exchange:
    """One request and its answer."""

    def __init__(self, service: ReverseProxyService, request: Any, target: bytes) -> None:
        self._service = service
        self._request = request
        self._target = target
        self._reactor = service.site.reactor
        self._waiting: Deferred[Any] | None = None  # for the response
        self._body: _BodyRelay | None = None
        self._has_turn = False
        self._is_over = False
        self._is_late = False
        self._timer: Any = None  # IDelayedCall

    def start(self) -> None:
        """Take a connection's turn, or wait for one."""
        turns = self._service.turns
        self._request.notifyFinish().addErrback(self._client_lost)
        if turns.waiting >= WAITING_MAX:
            self._refuse(503)
        elif turns.take(self):
            self.on_turn(turns)

    def on_turn(self, turns: Turns) -> None:
        """Ask the server."""
        self._has_turn = True
        request = self._request
        service = self._service
        config = service.config
        fields = request_fields(request, service.host, config.forwarded_proto, config.forwarded_port)
        headers = Headers()
        for name, value in fields:
            headers.addRawHeader(name, value)
        self._watch()
        waiting = maybeDeferred(service.agent.request, request.method, self._target, headers, self._upload())
        self._waiting = waiting
        waiting.addCallbacks(self._responded, self._failed)
        waiting.addErrback(self._broken)

    def on_turn_late(self, turns: Turns) -> None:
        """All connections are busy, and stay so."""
        self._service.failed(f"all {self._service.config.max_connections} connections are busy")
        self._refuse(503)

    def _upload(self) -> Any:
        content = self._request.content
        content.seek(0, 2)
        length = content.tell()
        content.seek(0)
        if not length and self._request.getHeader(b"content-length") is None:
            return None
        return FileBodyProducer(RequestBody(content, self.touch))

    # --- the answer ---

    def _responded(self, response: Any) -> None:
        self._waiting = None
        if not 200 <= response.code <= 999:  # Twisted takes any number
            self._drop(response)
            return
        self._service.succeeded()
        request = self._request
        request.setResponseCode(response.code, response.phrase if _REASON.fullmatch(response.phrase) else None)
        request.defaultContentType = None
        grouped: dict[bytes, list[bytes]] = {}
        for name, value in end_to_end(response.headers.getAllRawHeaders()):
            grouped.setdefault(name, []).append(value)
        for name, values in grouped.items():
            request.responseHeaders.setRawHeaders(name, values)
        if response.length is not UNKNOWN_LENGTH and request.method != b"HEAD" and response.code not in _NO_BODY:
            request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % response.length])
        self._body = _BodyRelay(self, request)
        response.deliverBody(self._body)

    def _drop(self, response: Any) -> None:
        """An answer that cannot be passed on."""
        self._service.failed(f"no proper HTTP: status {response.code}")
        self._refuse(502)
        body = _BodyRelay(self, self._request)
        body.is_done = True
        response.deliverBody(body)
        body.abort()

    def finished(self, reason: Failure) -> None:
        """The answer is complete, or will never be."""
        if self._is_over:
            return
        request = self._request
        self._end()
        if reason.check(ResponseDone, PotentialDataLoss):  # the latter: the end of the connection was the end of it
            request.finish()
            return
        why = "no more of an answer for too long" if self._is_late else describe(reason)
        self._service.failed(f"the answer was cut off: {why}")
        request.loseConnection()

    def _failed(self, reason: Failure) -> None:
        self._waiting = None
        if self._is_over:
            return
        is_late = self._is_late or reason.check(ConnectTimeout) is not None
        self._service.failed("no answer in time" if is_late else describe(reason))
        self._refuse(504 if is_late else 502)

    def _broken(self, reason: Failure) -> None:
        """A mistake of ours."""
        self._end()
        self._request.processingFailed(reason)

    def _refuse(self, status: int) -> None:
        self._end()
        answer_error(self._request, status)

    # --- time and ends ---

    def touch(self) -> None:
        """Something moves."""
        if self._timer is not None:
            self._timer.reset(self._service.config.response_timeout / 1000)

    def rest(self) -> None:
        """The client is what everything waits for: not the server's fault."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _watch(self) -> None:
        if self._timer is None and not self._is_over:
            self._timer = self._reactor.callLater(self._service.config.response_timeout / 1000, self._overdue)

    def wake(self) -> None:
        """The client reads on."""
        self._watch()

    def _overdue(self) -> None:
        self._timer = None
        self._is_late = True
        self._stop()

    def _client_lost(self, _: Any) -> None:
        if self._body is not None:
            self._body.is_done = True
        if not self._is_over:
            self._end()
            self._stop()

    def _stop(self) -> None:
        """Have done with the server, whatever it is at."""
        self._service.turns.drop(self)
        if self._waiting is not None:
            self._waiting.cancel()
        elif self._body is not None:
            self._body.abort()

    def _end(self) -> None:
        self._is_over = True
        self.rest()
        if self._has_turn:
            self._has_turn = False
            self._service.turns.leave()


class _BodyRelay(Protocol):
    """Passes an answer's body on, no faster than the client reads (it is a push producer for that)."""

    def __init__(self, exchange: _Exchange, request: Any) -> None:
        self._exchange = exchange
        self._request = request
        self.is_done = False  # nothing more goes to the client

    def connectionMade(self) -> None:
        if not self.is_done:
            self._request.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if not self.is_done:
            self._exchange.touch()
            self._request.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.is_done:
            self.is_done = True
            self._request.unregisterProducer()
            self._exchange.finished(reason)

    def abort(self) -> None:
        """Cut the connection to the server."""
        transport: Any = self.transport
        # Twisted wraps the transport without its abortConnection(); over TLS, loseConnection() would wait for the peer.
        wrapped = getattr(transport, "_producer", None)
        cut = getattr(wrapped, "abortConnection", None)
        if cut is not None:
            cut()
        else:
            transport.loseConnection()

    # IPushProducer

    def pauseProducing(self) -> None:
        """The client does not read."""
        self._exchange.rest()
        transport: Any = self.transport
        transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It does again."""
        self._exchange.wake()
        transport: Any = self.transport
        transport.resumeProducing()

    def stopProducing(self) -> None:
        """It is gone; the request hears of that, too."""


def describe(reason: Failure) -> str:
    """Why a request failed, one line for the log."""
    reasons = getattr(reason.value, "reasons", None)
    if reasons:
        return "; ".join(dict.fromkeys(describe(one) for one in reasons))
    if reason.check(ConnectError, DNSLookupError, CancelledError):
        return str(reason.value) or type(reason.value).__name__
    parts = [str(part) for part in getattr(reason.value, "args", ()) if part]
    return ": ".join([type(reason.value).__name__, *parts])[:300]
