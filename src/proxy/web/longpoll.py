"""WAMP over HTTP long-poll, for clients that cannot have a WebSocket (WAMP specification, advanced profile, "HTTP
Longpoll Transport").

A client asks ``open`` for a connection, whose name it gets to know, and then asks ``<name>/receive`` for messages over
and over, and sends others to ``<name>/send``. The name is all that a client has to show, so it is a secret.
"""

import logging
import secrets
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory

from proxy.config.web import LongPollConfig, LongPollOptions
from proxy.cookies.tracker import Admission
from proxy.peers import Peer
from proxy.web.base import WebService
from proxy.web.longpoll_connection import Bounds, LongPollConnection, LongPollError
from proxy.web.longpoll_end import RawSocketEnd
from proxy.web.longpoll_frames import MIME_TYPES, Batches, protocols
from proxy.web.longpoll_front import Caller, LongPollEntrance
from proxy.web.longpoll_pages import LongPollPages

if TYPE_CHECKING:
    from proxy.web.site import WebSite

__all__ = ["LongPollService", "Opened"]

log = logging.getLogger("proxy.web")

_NAME_OCTETS: Final = 24
_PAST_MAX: Final = 1024
"""Names of connections that are over, for clients to hear why."""

_UNKNOWN: Final = "there is no such connection"
_NO_MORE: Final = "this server takes no more clients, try again later"


class Opened(NamedTuple):
    """A connection, for its client.

    :ivar name: a secret.
    :ivar protocol: as the client has asked for it.
    :ivar set_cookie: value of a header field; empty: there is none.
    """

    name: str
    protocol: str
    set_cookie: str


class _Connection(NamedTuple):
    """A connection, for its requests."""

    polled: LongPollConnection
    mime_type: bytes


def _bounds(options: LongPollOptions) -> Bounds:
    """0 is the default, as nothing waits without end here."""

    def value(name: str) -> int:
        chosen: int = getattr(options, name) or LongPollOptions.model_fields[name].default
        return chosen

    return Bounds(
        value("request_timeout"), value("session_timeout"), value("queue_limit_bytes"), value("queue_limit_messages")
    )


class LongPollService(WebService):
    """See :class:`proxy.web.base.WebService`.

    :ivar protocols: by name, as clients ask for them: serializer, and whether messages come in batches.
    """

    TYPE = "longpoll"

    def __init__(self, site: "WebSite", path: str, config: LongPollConfig) -> None:
        super().__init__(site, path, config)
        self.protocols = protocols(config.serializers)
        self._bounds = _bounds(config.options)
        self._way_in = LongPollEntrance(site.transport, path, config)
        self._reactor: Any = site.reactor
        self._connections: dict[str, _Connection] = {}
        self._past: OrderedDict[str, str] = OrderedDict()
        self._is_refusing = False
        # Fires when all sessions are over; None: it is in service.
        self._gone: Deferred[None] | None = None
        self.resource = LongPollPages(self, config.options)

    # --- life ---

    def start(self) -> "Deferred[None]":
        """See :class:`WebService`."""
        return self._way_in.start()

    def end_soon(self) -> None:
        """See :class:`WebService`: clients are told that their sessions end, if they ask soon."""
        if self._gone is None:
            self._gone = self._end()

    def stop(self) -> "Deferred[None]":
        """See :class:`WebService`."""
        self.end_soon()
        assert self._gone is not None
        return self._gone

    def _end(self) -> "Deferred[None]":
        timer = self._reactor.callLater(self._way_in.close_ms / 1000, self._cut)

        def done(_: Any) -> None:
            if timer.active():
                timer.cancel()
            self._cut()

        return self._way_in.stop().addBoth(done)

    def _cut(self) -> None:
        for connection in list(self._connections.values()):
            connection.polled.close("the service is stopped")

    # --- connections ---

    @inlineCallbacks
    def open(self, peer: Peer, headers: dict[str, str], protocol: str) -> Any:
        """Connect a client.

        :param headers: of its request, by lower-case name.
        :param protocol: one of :attr:`protocols`.
        :returns: fires with what it is told, :class:`Opened`; fails with LongPollError.
        """
        admission: Admission | None = None
        if self._way_in.cookies is not None:
            admission = yield self._way_in.cookies.admit(headers.get("cookie", ""))
        if self._gone is not None:
            raise LongPollError(503, _NO_MORE)
        opened: Deferred[str | None] = Deferred()
        name = self._connect(Caller(peer, headers, protocol, admission), opened)
        trouble = yield opened
        if trouble is not None:
            raise self._refusal(trouble)
        self._is_refusing = False
        return Opened(name, protocol, admission.header if admission is not None else "")

    def _connect(self, caller: Caller, opened: "Deferred[str | None]") -> str:
        serializer, batched = self.protocols[caller.protocol]
        try:
            ours, token = self._way_in.add(caller)
        except (OSError, RuntimeError) as error:
            raise self._refusal(str(error)) from error
        name = secrets.token_urlsafe(_NAME_OCTETS)

        def forget(reason: str) -> None:
            self._way_in.drop(token)
            self._forget(name, reason)

        polled = LongPollConnection(self._reactor, Batches(serializer, batched), self._bounds, forget)
        self._connections[name] = _Connection(polled, MIME_TYPES[serializer])
        end = RawSocketEnd(self._reactor, polled, serializer, opened.callback)
        with ours:  # the reactor has a descriptor of its own
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _factory(end))
        return name

    def _refusal(self, why: str) -> LongPollError:
        """What a client is told that cannot be taken. The log has it once, until another one can."""
        if not self._is_refusing:
            self._is_refusing = True
            log.error("%s: clients are refused: %s", self.label, why)
        return LongPollError(503, _NO_MORE)

    def _forget(self, name: str, reason: str) -> None:
        del self._connections[name]
        self._past[name] = reason
        if len(self._past) > _PAST_MAX:
            self._past.popitem(last=False)

    def find(self, name: str) -> tuple[LongPollConnection, bytes]:
        """A connection, and the media type of its messages.

        :raises LongPollError: it is over, or there was none.
        """
        connection = self._connections.get(name)
        if connection is None:
            past = self._past.get(name)
            raise LongPollError(404, _UNKNOWN) if past is None else LongPollError(410, past)
        return connection

    def close(self, name: str) -> None:
        """A client leaves. No error if it has left.

        :raises LongPollError: there was no such connection.
        """
        connection = self._connections.get(name)
        if connection is not None:
            connection.polled.close("closed by the client", is_wish=True)
        elif name not in self._past:
            raise LongPollError(404, _UNKNOWN)


def _factory(end: RawSocketEnd) -> Any:
    factory: Any = Factory.forProtocol(lambda: end)
    factory.noisy = False
    return factory
