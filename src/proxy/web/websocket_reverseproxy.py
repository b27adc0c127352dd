"""The service ``websocket-reverseproxy``: a WebSocket server behind a path, whatever it speaks over it."""

from typing import Any, ClassVar

from twisted.internet.defer import Deferred, succeed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxy.config.urls import parse_websocket_url
from proxy.config.web import WebSocketReverseProxyConfig
from proxy.origins import is_allowed
from proxy.web.backends import Backend
from proxy.web.base import WebService
from proxy.web.fields import is_upgrade, request_fields
from proxy.web.pages import ErrorPage
from proxy.web.upgrade import UpgradeRelay

__all__ = ["WebSocketReverseProxyService"]


class WebSocketReverseProxyService(WebService):
    """A WebSocket server behind."""

    TYPE: ClassVar[str] = "websocket-reverseproxy"
    config: WebSocketReverseProxyConfig

    def start(self) -> "Deferred[None]":
        """Get ready; the server need not be there yet."""
        config = self.config
        url = parse_websocket_url(config.backend.url)
        timeout = config.connect_timeout / 1000
        self.backend = Backend(self.site.reactor, config.backend.endpoint, timeout, self.label, tls=url.secure)
        host = f"[{url.host}]" if ":" in url.host else url.host
        named = host if not url.port or url.port == (443 if url.secure else 80) else f"{host}:{url.port}"
        self.host = (named if not url.unix_path else "localhost").encode("ascii" if named.isascii() else "idna")
        self.target = url.resource.encode("ascii")
        self.resource = _UpgradeResource(self)
        return succeed(None)


class _UpgradeResource(Resource):
    """Opening handshakes at and below the path."""

    isLeaf = True

    def __init__(self, service: WebSocketReverseProxyService) -> None:
        super().__init__()
        self._service = service

    def render(self, request: Any) -> Any:
        """Relay, or say why not."""
        service = self._service
        if not is_upgrade(request):
            text = "This is for WebSocket connections only."
            return ErrorPage(426, text, {b"upgrade": b"websocket", b"connection": b"upgrade"}).render(request)
        if not self._is_page_allowed(request):
            return ErrorPage(403, "WebSocket connections from this web page are not allowed.").render(request)
        config = service.config
        _, mark, query = request.uri.partition(b"?")
        target = service.target + ((b"&" if b"?" in service.target else mark) + query if query else b"")
        fields = request_fields(request, service.host)
        relay = UpgradeRelay(service.site.reactor, request, service.backend, service.label)
        relay.start(target, fields, config.connect_timeout / 1000)
        return NOT_DONE_YET

    def _is_page_allowed(self, request: Any) -> bool:
        """By the field Origin (RFC 6455 section 10.2); programs other than browsers send none."""
        origin = request.getHeader(b"origin")
        if origin is None:
            return True
        options = self._service.config.options
        try:
            return is_allowed(origin.decode("latin-1"), options.allowed_origins, options.allow_null_origin)
        except ValueError:
            return False
