"""A request, with the client's real address, and the answer's header fields that are the same everywhere."""

import logging
import re
from html import escape
from typing import TYPE_CHECKING, Any, Final

from twisted.python.failure import Failure
from twisted.web.error import UnsupportedMethod
from twisted.web.server import NOT_DONE_YET, Request

from proxy.handshake import HttpError
from proxy.peers import Peer
from proxy.web.pages import answer_html, error_page
from proxy.web.tunnel import twisted_address

if TYPE_CHECKING:
    from proxy.web.channel import WebChannel
    from proxy.web.site import ProxySite

__all__ = ["ProxyRequest"]

log = logging.getLogger("proxy.web")

FORM_MAX: Final = 1 << 20
"""Octets of a form that is taken apart for a resource; of larger ones the resource has the body only."""

_ABSOLUTE: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


class ProxyRequest(Request):
    """A request of a client.

    :ivar peer: who it is from: by the PROXY protocol, and by the headers of listed proxies, where these are in use.
    """

    channel: "WebChannel"
    site: "ProxySite"
    client: Any  # IAddress

    def __init__(self, channel: "WebChannel", *args: Any, **keywords: Any) -> None:
        super().__init__(channel, *args, **keywords)
        self.peer: Peer = channel.site.peer_of(channel.transport)
        self._room = channel.site.options.max_body_size

    # --- coming in ---

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body. How much there will be is not known where it is chunked."""
        self._room -= len(data)
        if self._room < 0:
            self.channel.refuse(413)
        elif not self.channel.is_refusing:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """It is complete."""
        absolute = _ABSOLUTE.match(path)
        if absolute is not None:  # RFC 9112 section 3.2.2: a server must take it
            rest = path[absolute.end() :]
            path = rest if rest.startswith(b"/") else b"/" + rest
        hosts = self.requestHeaders.getRawHeaders(b"host") or []
        if version == b"HTTP/1.1" and len(hosts) != 1:
            self.channel.refuse(400, "The request must have exactly one Host header.")
        elif not path.startswith(b"/") and path != b"*":
            self.channel.refuse(400, "The request's target must be a path.")
        elif self._find_peer():
            self._parsePOSTFormSubmission = self._is_form_wanted(path)
            super().requestReceived(command, path, version)

    def _find_peer(self) -> bool:
        """Whose word the headers are; False: they contradict each other, and that is answered."""
        fields = self.requestHeaders.getAllRawHeaders()
        headers = {name.decode("latin-1").lower(): b", ".join(values).decode("latin-1") for name, values in fields}
        try:
            self.peer = self.channel.site.forwarded_peer(self.peer, headers)
        except HttpError as error:
            self.channel.refuse(error.status, error.reason)
            return False
        self.client = twisted_address(self.peer)
        return True

    def _is_form_wanted(self, path: bytes) -> bool:
        """Whether Twisted is to take a form in the body apart, which costs memory and time."""
        assert self.content is not None
        return self.content.tell() <= FORM_MAX and self.channel.site.takes_forms(path)

    # --- going out ---

    def write(self, data: bytes) -> None:
        """Send a part of the body; with the first one, the head."""
        if not self.startedWriting:
            self.responseHeaders.setRawHeaders(b"Server", [self.channel.site.server])
            hsts = self.channel.site.hsts
            if hsts and self.peer.is_secure:
                self.responseHeaders.setRawHeaders(b"Strict-Transport-Security", [hsts])
            if not self.channel.persistent:
                self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        super().write(data)

    def render(self, resrc: Any) -> None:
        """Have a resource answer."""
        try:
            body = self._render(resrc)
        except UnsupportedMethod as error:
            body = self._refuse_method(error.allowedMethods)
        if body is NOT_DONE_YET:
            return
        if not isinstance(body, bytes):
            raise TypeError(f"{type(resrc).__name__}.render() returned {type(body).__name__} instead of bytes")
        if self.code not in (204, 304) and (body or self.method != b"HEAD"):
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)  # nothing but the head where there must be no body
        self.finish()

    def _render(self, resrc: Any) -> Any:
        try:
            return resrc.render(self)
        except UnsupportedMethod as error:
            if self.method != b"HEAD" or b"GET" not in error.allowedMethods:
                raise
        self.method = b"GET"
        try:
            return resrc.render(self)
        finally:
            self.method = b"HEAD"

    def _refuse_method(self, allowed: Any) -> bytes:
        self.setResponseCode(405)
        self.setHeader(b"Allow", b", ".join(allowed))
        return answer_html(self, error_page(405))

    def processingFailed(self, reason: Failure) -> Failure:
        """A resource has failed: the log says how, the client hears of it as far as that is wanted."""
        log.error("error in a web service at %r\n%s", self.path[:200], reason.getTraceback())
        if self.finished or self._disconnected:
            return reason
        if self.startedWriting:
            self.channel.loseConnection()  # half an answer must not look like a whole one
            return reason
        self.setResponseCode(500)
        self.setHeader(b"cache-control", b"no-store")
        self.etag = self.lastModified = None  # of what was to be sent, as are these
        for name in (b"expires", b"content-range"):
            self.responseHeaders.removeHeader(name)
        trace = f"\n<pre>{escape(reason.getTraceback())}</pre>" if self.site.options.display_tracebacks else ""
        body = answer_html(self, error_page(500, extra=trace))
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason

    def isSecure(self) -> bool:
        """Whether there is TLS between the client and this proxy."""
        return self.peer.is_secure

    def prePathURL(self) -> bytes:
        """The URL up to the resource, with host and port as the client has named them."""
        scheme = b"https" if self.isSecure() else b"http"
        host = self.getHeader(b"host") or b"localhost"
        return scheme + b"://" + host + b"/" + b"/".join(self.path.split(b"/")[1 : len(self.prepath or []) + 1])
