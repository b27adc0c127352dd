"""The connection of a client (long-poll, MQTT) to the data plane: one end of a socket pair, with RawSocket over it."""

import logging
from collections.abc import Callable
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.web.longpoll_frames import FrameError, FrameReader, handshake

__all__ = ["FLUSH_SECONDS", "InnerClient", "RawSocketEnd"]

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 5.0
"""How long what a client has sent may take to leave when it is closed."""

OVER: Final = "the session is over: the connection is closed"


class InnerClient(Interface):
    """What messages come from and go to, see :class:`proxy.web.longpoll_connection.LongPollConnection`."""

    def attach(self, end: "RawSocketEnd") -> None: ...
    def on_messages(self, messages: list[bytes]) -> None: ...
    def on_writable(self) -> None: ...
    def on_lost(self, reason: str) -> None: ...


@implementer(IPushProducer)
class RawSocketEnd(Protocol):
    """See :class:`proxy.web.longpoll_connection.DataPlaneEnd`.

    :param clock: Twisted's reactor.
    :param connection: the client.
    :param serializer: number of the serializer that was agreed with it.
    :param opened: called once: with None when messages may be sent, else with what went wrong.
    """

    transport: Any

    def __init__(
        self, clock: Any, connection: InnerClient, serializer: int, opened: Callable[[str | None], None]
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._serializer = serializer
        self._reader = FrameReader(serializer)
        self._opened: Callable[[str | None], None] | None = opened
        self._flush_timer: Any = None
        self._is_lost = False
        self.is_full = False

    # --- DataPlaneEnd ---

    def write(self, data: bytes) -> None:
        """Send frames."""
        self.transport.write(data)

    def pause(self) -> None:
        """Read no more for now."""
        if not self._is_lost:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if not self._is_lost:
            self.transport.resumeProducing()

    def close(self) -> None:
        """Flush and close."""
        if self._is_lost or self._flush_timer is not None:
            return
        self._flush_timer = self._clock.callLater(FLUSH_SECONDS, self.transport.abortConnection)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # --- Protocol ---

    def connectionMade(self) -> None:
        """The pair is there."""
        self.transport.registerProducer(self, True)
        self._connection.attach(self)
        self.transport.write(handshake(self._serializer))

    def dataReceived(self, data: bytes) -> None:
        """Frames."""
        try:
            messages, answers = self._reader.feed(data)
        except FrameError as error:
            log.error("the data plane broke RawSocket: %s", error)
            self.transport.abortConnection()
            return
        if self._opened is not None and self._reader.is_open:
            self._tell(None)
        if answers:
            self.transport.write(answers)
        if messages:
            self._connection.on_messages(messages)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The data plane has closed, or we have."""
        self._is_lost = True
        timer, self._flush_timer = self._flush_timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._connection.on_lost(OVER)
        self._tell("the proxy takes no more clients")

    def _tell(self, trouble: str | None) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened(trouble)

    # --- IPushProducer: what is written has to wait ---

    def pauseProducing(self) -> None:
        """The data plane takes no more for now."""
        self.is_full = True

    def resumeProducing(self) -> None:
        """It does again."""
        self.is_full = False
        self._connection.on_writable()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost() follows."""
