"""WAMP over WebSocket on a path of a web transport."""

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from proxy.config.web import WebSocketConfig
from proxy.handshake import HttpError, accept, parse_request
from proxy.web.base import WebService
from proxy.web.pages import ErrorPage

__all__ = ["LaterRequest", "WebSocketService"]

_CLOSE: Final = {b"connection": b"close"}


class WebSocketService(WebService):
    """An entrance for WAMP clients. Their connections are the data plane's, and no business of Twisted Web.

    Only a request that is not the first one of its connection reaches the resource.
    """

    TYPE = "websocket"

    def __init__(self, site: Any, path: str, config: WebSocketConfig) -> None:
        from proxy.entrances import Entrance

        super().__init__(site, path, config)
        self._made = Entrance(site.transport, path, config)
        self.resource = LaterRequest(self._made)

    def start(self) -> "Deferred[None]":
        """Get ready to authenticate clients."""
        return self._made.start().addCallbacks(self._is_ready, self._is_not)

    def _is_ready(self, _: None) -> None:
        self.entrance = self._made

    def _is_not(self, failure: Any) -> Any:
        self._made.close()
        return failure

    def stop(self) -> None:
        """Let nobody in any more. Who is in, stays."""
        self.entrance = None
        self._made.close()


class LaterRequest(Resource):
    """What a request gets at an entrance for WebSocket that is not the first one of its connection.

    :param entrance: it.
    """

    isLeaf = True

    def __init__(self, entrance: Any) -> None:
        super().__init__()
        self._entrance = entrance

    def render(self, request: Any) -> bytes:
        """The status page; a WebSocket handshake must be the first request of its connection."""
        if request.getHeader(b"upgrade") is not None:
            request.channel.persistent = 0
            return ErrorPage(421, headers=_CLOSE).render(request)
        return _status(request, self._entrance)


def _status(request: Any, entrance: Any) -> bytes:
    """What the same request gets as the first one of its connection."""
    host = request.getHeader(b"host") or b"localhost"
    line = request.method + b" " + request.uri + b" HTTP/1.1\r\n"
    try:
        head = line + b"host: " + host + b"\r\n\r\n"
        accept(parse_request(head, is_secure=request.isSecure()), entrance.policy)
    except HttpError as error:
        request.setResponseCode(error.status)
        for name, value in error.headers:
            request.setHeader(name.encode("ascii"), value.encode("latin-1"))
        request.setHeader(b"content-type", error.content_type.encode("ascii"))
        return error.body
    raise AssertionError("a request without Upgrade was accepted")
