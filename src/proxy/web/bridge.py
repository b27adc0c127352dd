"""What the services of the HTTP bridge have in common: requests are checked, and answered with what a router says.

Keys, requests, answers and status codes are Crossbar.io's. The router is asked for when a request comes: its route may
be there later than the service, and go and come again.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from autobahn.exception import PayloadExceededError
from autobahn.wamp.exception import SerializationError, TransportLost
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, inlineCallbacks
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxy.config.networks import networks_of
from proxy.errors import ProxyError
from proxy.service_requests import RequestError, RequestLost, ServiceRequests
from proxy.web.base import WebService
from proxy.web.bridge_requests import Refused
from proxy.web.bridge_values import BadValue, write_json
from proxy.web.cross_origin import allow_any_origin
from proxy.web.signing import BadSignature

if TYPE_CHECKING:
    from proxy.web.site import WebSite

__all__ = ["JSON", "Answer", "BridgeService", "Send", "describe"]

log = logging.getLogger(__name__)

JSON: Final = "application/json; charset=UTF-8"
METHODS: Final = b"POST, PUT, OPTIONS"
RETRY_SECONDS: Final = 5

UNAVAILABLE: Final = "wamp.error.unavailable"
INVALID_ARGUMENT: Final = "wamp.error.invalid_argument"
TIMEOUT: Final = "wamp.error.timeout"
TOO_LARGE: Final = "wamp.error.payload_size_exceeded"
RUNTIME_ERROR: Final = "wamp.error.runtime_error"

Send = Callable[[ServiceRequests], "Deferred[Any]"]
"""Sends what the HTTP request asks for to the router; may be called twice, if nothing has left at the first time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To an HTTP request."""

    status: int
    body: bytes
    content_type: str = JSON
    may_retry: bool = False


def describe(status: int, error: str, args: list[Any] | None = None, kwargs: dict[str, Any] | None = None) -> Answer:
    """The answer that tells of an error, in the form that errors of procedures have."""
    body = write_json({"error": error, "args": args or [], "kwargs": kwargs or {}})
    return Answer(status, body, may_retry=status == 503)


class BridgeService(WebService):
    """A service of the HTTP bridge. A subclass says what is sent, and what is answered then."""

    def __init__(self, site: "WebSite", path: str, config: Any) -> None:
        super().__init__(site, path, config)
        self.options = config.options
        self.resource = _BridgeResource(self)
        self.under_way = 0
        self._trouble = ""

    # --- a subclass's part ---

    def authenticate(self, request: Any, body: bytes) -> None:
        """Check who it is from.

        :raises Refused, BadSignature: it is not to be passed on.
        """

    @abstractmethod
    def read(self, request: Any, body: bytes) -> Send:
        """What the request asks for.

        :raises Refused, BadValue: nothing that could be asked for.
        """

    @abstractmethod
    def succeeded(self, reply: Any) -> Answer:
        """The answer, made of the router's."""

    def failed(self, error: Exception, answer: Answer) -> Answer:
        """The answer where the router, or the way to it, has failed.

        :param answer: that tells of the error.
        """
        return answer

    # --- asking the router ---

    @inlineCallbacks
    def ask(self, send: Send) -> Any:
        """Ask the router, and make an answer of what comes of it. Fails only if it is cancelled."""
        seconds = self.options.timeout / 1000
        self.under_way += 1
        try:
            asked: Deferred[Any] = self._ask(send)
            reply = yield asked.addTimeout(seconds, self.site.reactor)
            answer = self.succeeded(reply)
        except CancelledError:
            raise
        except Exception as error:
            return self.failed(error, self._failure(error))
        finally:
            self.under_way -= 1
        self._trouble = ""
        return answer

    @inlineCallbacks
    def _ask(self, send: Send) -> Any:
        session = yield self._session()
        try:
            answer = send(session.requests)
        except TransportLost:
            # It ended and nobody has noticed before. Nothing was sent.
            session = yield self._session()
            answer = send(session.requests)
        reply = yield answer
        return reply

    def _session(self) -> "Deferred[Any]":
        return self.site.controller.get_service_session(self.config.realm, self.config.role)

    def _failure(self, error: Exception) -> Answer:
        """What to tell a client of an error. Texts of our own parts may name routers: they are for the log."""
        if isinstance(error, RequestError):
            try:
                return describe(200, error.uri, error.arguments, error.keywords)
            except BadValue as bad:
                return self._failure(bad)
        if isinstance(error, SerializationError):
            # The errors' own texts quote what was to be sent.
            return describe(400, INVALID_ARGUMENT, ["the arguments cannot be expressed over WAMP"])
        if isinstance(error, BadValue):
            return describe(502, INVALID_ARGUMENT, [f"the answer cannot be expressed in JSON: {error}"])
        if isinstance(error, PayloadExceededError):
            return describe(413, TOO_LARGE, ["the request is larger than the router takes"])
        if isinstance(error, ProxyError | TransportLost):
            self.complain(str(error) or "the session was lost")
            return describe(503, UNAVAILABLE, ["no router can be reached for this"])
        if isinstance(error, RequestLost):
            self.complain(str(error))
            return describe(502, UNAVAILABLE, ["the router was lost before it answered"])
        if isinstance(error, TimeoutError):
            self.complain(f"no answer within {self.options.timeout} ms")
            return describe(504, TIMEOUT, ["no answer in time"])
        log.error("%s: internal error", self.label, exc_info=error)
        return describe(500, RUNTIME_ERROR, ["internal error of the proxy"])

    def complain(self, text: str) -> None:
        """Log what is in the way: once, until something else is, or nothing."""
        if text != self._trouble:
            self._trouble = text
            log.warning("%s: %s", self.label, text)


class _BridgeResource(Resource):
    """Takes the requests of one service, at its path and below."""

    isLeaf = True

    def __init__(self, service: BridgeService) -> None:
        super().__init__()
        self._service = service
        self._options = service.options

    def render(self, request: Any) -> Any:
        """Answer at once, or when the router has."""
        _set_headers(request)
        if request.method == b"OPTIONS":
            request.setHeader(b"allow", METHODS)
            request.setHeader(b"access-control-allow-methods", METHODS)
            return b""
        try:
            send = self._check(request)
        except (Refused, BadSignature) as refusal:
            return _answered(request, describe(refusal.status, str(refusal)))
        except BadValue as refusal:
            return _answered(request, describe(400, f"the request's body: {refusal}"))
        if self._service.under_way >= self._options.max_requests:
            return _answered(request, describe(503, UNAVAILABLE, ["too many requests at a time"]))
        work = self._service.ask(send)
        request.notifyFinish().addErrback(lambda _: work.cancel())
        work.addCallbacks(lambda answer: _finish(request, answer), lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    def _check(self, request: Any) -> Send:
        """:raises Refused, BadSignature, BadValue: the request is not passed on."""
        options = self._options
        if request.method not in (b"POST", b"PUT"):
            request.setHeader(b"allow", METHODS)
            method = request.method.decode("ascii", "replace")
            raise Refused(405, f"method {method} is not for this service, expected POST or PUT")
        if options.require_ip and request.peer.host not in networks_of(options.require_ip):
            raise Refused(400, "this address may not use this service")
        if options.require_tls and not request.isSecure():
            raise Refused(400, "this service is to be used over TLS (https) only")
        body = request.content.read()
        if options.post_body_limit and len(body) > options.post_body_limit:
            raise Refused(413, f"the request has {len(body)} octets, at most {options.post_body_limit} are taken")
        self._service.authenticate(request, body)
        return self._service.read(request, body)


def _set_headers(request: Any) -> None:
    """What all answers have: pages of any origin may ask, and nobody keeps the answer."""
    allow_any_origin(request)
    request.setHeader(b"cache-control", b"no-store,no-cache,must-revalidate,max-age=0")
    request.setHeader(b"content-type", JSON.encode("ascii"))
    request.setHeader(b"x-content-type-options", b"nosniff")


def _answered(request: Any, answer: Answer) -> bytes:
    """Set the head of an answer; its body is returned."""
    request.setResponseCode(answer.status)
    request.setHeader(b"content-type", answer.content_type.encode("ascii"))
    if answer.may_retry:
        request.setHeader(b"retry-after", b"%d" % RETRY_SECONDS)
    return answer.body


def _finish(request: Any, answer: Answer) -> None:
    body = _answered(request, answer)
    request.setHeader(b"content-length", b"%d" % len(body))
    request.write(body)
    request.finish()
