"""HTTP/1.1 with one client: Twisted's channel, with bounds that answer instead of cutting off."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString

from proxy.web.pages import CONTENT_SECURITY_POLICY, HTML, error_page

if TYPE_CHECKING:
    from proxy.web.site import ProxySite

__all__ = ["WebChannel"]

LINGER_SECONDS: Final = 2.0
"""How long the rest of a request is read and dropped that was refused: a client that still sends would not see why."""

BODY_RATE_MIN: Final = 512.0
"""Octets per second that a body must come with on average, after its first ``client_timeout``."""


_LENGTH_DIGITS_MAX: Final = 20


class WebChannel(HTTPChannel):
    """A client's connection.

    :param site: whose.

    :ivar is_refusing: a request cannot be taken: the answer is on its way, and what still comes is dropped.
    """

    factory: Any
    site: "ProxySite"
    timeOut: Any
    _buffer: bytes  # of a line that is not complete

    def __init__(self, site: "ProxySite") -> None:
        super().__init__()
        options = site.options
        self.MAX_LENGTH = options.max_head_size  # of one line
        self.totalHeadersSize = options.max_head_size
        self.maxHeaders = options.max_headers
        self.is_refusing = False
        self._linger: Any = None  # IDelayedCall
        self._time = float(site.seconds)
        self._now: Callable[[], float] = site.web.reactor.seconds
        self._body_began = 0.0
        self._body_octets = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return not self._handlingRequest

    def connectionMade(self) -> None:
        """A client is there."""
        super().connectionMade()
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        linger, self._linger = self._linger, None
        if linger is not None:
            linger.cancel()
        super().connectionLost(reason)
        self.site.channel_lost(self)

    def finish_up(self) -> None:
        """Close after the answer that is under way; at once if none is."""
        if self.is_idle:
            self.loseConnection()
            return
        self.persistent = 0
        for request in self.requests:
            if not request.startedWriting:
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    # --- a client that sends requests, and does not read the answers ---

    def requestDone(self, request: Any) -> None:
        """A request is answered. The next one waits until the client has read most of that."""
        if self._waitingForTransport and self.persistent:
            self.paused = True  # Twisted would go on with what it has got already, and queue answers without end
            transport: Any = self.transport
            transport.pauseProducing()
        super().requestDone(request)

    def resumeProducing(self) -> None:
        """The client has read."""
        super().resumeProducing()
        if self.paused:
            self.paused = False
            self.dataReceived(b"")

    # --- requests that cannot be taken ---

    def refuse(self, status: int, text: str = "") -> None:
        """Answer the request that is coming in, and close.

        :param status: of HTTP.
        :param text: what is wrong, one line.
        """
        if self.is_refusing:
            return
        self.is_refusing = True
        body = error_page(status, text)
        fields = [
            (b"Server", self.site.server),
            (b"Date", datetimeToString(time.time())),
            (b"Content-Type", HTML),
            (b"Content-Length", b"%d" % len(body)),
            (b"Content-Security-Policy", CONTENT_SECURITY_POLICY),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Cache-Control", b"no-store"),
            (b"Connection", b"close"),
        ]
        if self.site.hsts and self.site.peer_of(self.transport).is_secure:
            fields.append((b"Strict-Transport-Security", self.site.hsts))
        head = [self.site.status_line(status), *(name + b": " + value for name, value in fields)]
        transport: Any = self.transport
        transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self._hang_up()

    def _hang_up(self) -> None:
        """Send no more; what still comes is dropped until the client closes, or for a while."""
        self.setTimeout(None)
        self.clearLineBuffer()
        self.setRawMode()
        self._networkProducer.unregisterProducer()
        transport: Any = self.transport
        transport.resumeProducing()
        half_close = getattr(transport, "loseWriteConnection", None)
        if half_close is None:
            transport.loseConnection()
            return
        half_close()
        self._linger = self.callLater(LINGER_SECONDS, self._end_linger)

    def _end_linger(self) -> None:
        self._linger = None
        transport: Any = self.transport
        transport.abortConnection()

    def dataReceived(self, data: bytes) -> Any:
        """Octets of the client."""
        if self.is_refusing:
            return None
        self._extend_deadline(len(data))
        return LineReceiver.dataReceived(self, data)

    def _extend_deadline(self, octets: int) -> None:
        """How long a client may take: for a head ``client_timeout``, for a body as long as it comes fast enough."""
        if self.timeOut is None:
            return
        if not self._is_receiving:
            if not self._buffer:  # else it is the first line that has begun, and is part of the head
                self.resetTimeout()
        elif not self.line_mode:
            self._body_octets += octets
            elapsed = self._now() - self._body_began
            left = self._time + self._body_octets / BODY_RATE_MIN - elapsed
            self.setTimeout(max(0.001, min(self._time, left)))

    def lineReceived(self, line: bytes) -> None:
        """A line of a head."""
        if not self.is_refusing:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line is as long as no head may be."""
        self.refuse(431)

    def rawDataReceived(self, data: bytes) -> None:
        """A part of a body, or of the request after this one."""
        if not self.is_refusing:
            super().rawDataReceived(data)

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        """Python reads no numbers of thousands of digits, which Twisted does not expect."""
        if header == b"Content-Length" and len(data) > _LENGTH_DIGITS_MAX and data.isdigit():
            self.refuse(413)
            self.length = None
            return False
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def allHeadersReceived(self) -> None:
        """A head is complete."""
        if self._is_body_too_large():
            self.refuse(413)  # before the client is told to go on
        else:
            super().allHeadersReceived()
            self._body_began = self._now()
            self._body_octets = 0

    def _is_body_too_large(self) -> bool:
        return self.length is not None and self.length > self.site.options.max_body_size

    def allContentReceived(self) -> None:
        """A request is complete."""
        if not self.is_refusing:
            self.setTimeout(self._time)  # what goes for the next request
            super().allContentReceived()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted's answer to whatever is malformed."""
        is_too_large = self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders
        self.refuse(431 if is_too_large else 400)

    def timeoutConnection(self) -> None:
        """The client takes too long."""
        if self._is_receiving:
            self.refuse(408)
        else:
            self.loseConnection()

    @property
    def _is_receiving(self) -> bool:
        """Whether a request has begun, and is not complete."""
        return bool(self.requests) and not self._handlingRequest
