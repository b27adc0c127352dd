"""WAMP clients that another protocol is spoken with: connections to a listener that has no socket.

Each client has a socket pair. One end is the data plane's, which treats it like any RawSocket client's: gate, login,
limits and back-pressure are the same. The other end is theirs who speak with the client (HTTP long-poll, MQTT).
"""

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.addresses import Address
from proxy.config.websocket_items import RawSocketKeys
from proxy.cookies.tracker import Admission
from proxy.entrances import Entrance
from proxy.errors import CannotStart
from proxy.forwarding import forwarded_headers
from proxy.peers import Peer
from proxy.plane import EV_LISTEN, EV_OPEN, LISTEN_CLOSED, pack_address
from proxy.sessions import FrontSession
from proxy.web.tunnel import open_pair

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["Caller", "InnerEntrance", "InnerSession"]

_TOKEN_OCTETS: Final = 16


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has opened a connection.

    :ivar peer: the client.
    :ivar headers: of its HTTP request, by lower-case name; None: there is no HTTP.
    :ivar protocol: that was agreed, ``wamp.2.json``.
    :ivar admission: its cookie; None: it has none.
    :ivar on_gone: called when its session's connection is closed, by whomever: who does not read would not notice.
    """

    peer: Peer
    headers: Mapping[str, str] | None
    protocol: str
    admission: Admission | None = None
    on_gone: Callable[[], None] | None = None


class InnerSession(FrontSession):
    """A client's connection and its session, as :class:`FrontSession`."""

    __slots__ = ()

    def on_front(self, kind: int, arg: int, data: bytes) -> None:
        """An event of the client's connection."""
        super().on_front(kind, arg, data)
        if kind == EV_OPEN:
            entrance = self.entrance
            assert isinstance(entrance, InnerEntrance)
            entrance.introduce(self)


class InnerEntrance(Entrance):
    """A way in for them.

    :param transport: the listening transport that they connect to.
    :param name: which way in of that transport's it is, see :class:`Entrance`.
    :param item: what goes for them, as if they came over RawSocket.
    """

    SESSION: type[InnerSession] = InnerSession
    """What makes their sessions."""

    def __init__(self, transport: "ProxyTransport", name: str, item: RawSocketKeys) -> None:
        super().__init__(transport, name, item)
        self._number = 0
        # Who is behind a connection whose first event has not come yet, by the address that it has for the data plane.
        self._callers: dict[str, Caller] = {}
        self._live: set[int] = set()
        self._on_gone: dict[int, Callable[[], None]] = {}
        self._closed: Callable[[], None] | None = None
        self._is_listening = False

    @property
    def sessions(self) -> list[InnerSession]:
        """The connections that are there, each with a session or without."""
        return [self.transport.sessions[conn] for conn in self._live]  # type: ignore[misc]

    # --- life ---

    def start(self) -> "Deferred[None]":
        """See :class:`Entrance`; then clients may be added."""
        return super().start().addCallback(self._listen).addErrback(self._not_started)

    def _not_started(self, failure: Failure) -> Failure:
        self.close()
        return failure

    def _listen(self, _: None) -> None:
        descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._number = self.plane.add_owner(self)
        try:
            self.plane.listen(descriptor, self._number, self.params, self.transport.model.max_connections)
        except Exception as error:
            os.close(descriptor)
            self.plane.drop_owner(self._number)
            raise CannotStart(str(error)) from error
        self._is_listening = True

    def stop(self) -> "Deferred[None]":
        """Take nobody any more, and end the sessions.

        :returns: fires when all of them are gone.
        """
        gone: Deferred[None] = Deferred()
        self._closed = lambda: gone.callback(None)
        for session in self.sessions:
            session.shut_down()
        if self._is_listening:
            self.plane.unlisten(self._number)
        self._forget()
        return gone

    def _forget(self) -> None:
        """No event can come any more that means something."""
        if self._closed is None or self._is_listening or self._live:
            return
        closed, self._closed = self._closed, None
        self.close()
        self.plane.drop_owner(self._number)
        closed()

    # --- clients ---

    def add(self, caller: Caller) -> tuple[socket.socket, str]:
        """Connect a client to the data plane.

        :returns: the other end of its connection, non-blocking, and the token for :meth:`drop`.
        :raises OSError: out of descriptors.
        :raises RuntimeError: the transport has as many connections as it may have.
        """
        ours, theirs = open_pair()
        # No real address: that would not tell which of a client's connections an event is about.
        token = f"inner:{secrets.token_hex(_TOKEN_OCTETS)}"
        try:
            self.plane.adopt(theirs.fileno(), self._number, pack_address(Address(path=token)))
        except Exception:
            ours.close()
            theirs.close()
            raise
        theirs.detach()
        self._callers[token] = caller
        return ours, token

    def drop(self, token: str) -> None:
        """The connection is closed, whether it has come to anything or not."""
        self._callers.pop(token, None)

    def introduce(self, session: InnerSession) -> None:
        """A connection's first event has come: say who it is."""
        caller = self._callers.pop(session.peer.removeprefix("unix:"), None)
        if caller is None:
            self.plane.abort(session.conn)  # closed meanwhile
            return
        if caller.on_gone is not None:
            self._on_gone[session.conn] = caller.on_gone
        session.peer, session.tls = caller.peer.text, caller.peer.tls
        session.headers = None if caller.headers is None else forwarded_headers(caller.headers)
        session.subprotocol = caller.protocol
        if caller.admission is not None and self.cookies is not None:
            self.cookies.enter(session, caller.admission)

    def begin(self, conn: int) -> InnerSession:
        """See :class:`Entrance`."""
        self._live.add(conn)
        return self.SESSION(self, conn)

    def gone(self, conn: int) -> None:
        """See :class:`Entrance`."""
        self._live.discard(conn)
        on_gone = self._on_gone.pop(conn, None)
        super().gone(conn)
        self._forget()
        if on_gone is not None:
            on_gone()

    # --- events ---

    def on_event(self, kind: int, conn: int, arg: int, data: bytes) -> None:
        """See :class:`proxy.plane.Owner`."""
        if kind != EV_LISTEN:
            self.transport.on_client(self, kind, conn, arg, data)
        elif arg & 0xFF == LISTEN_CLOSED:
            self._is_listening = False
            self._forget()

    def on_crash(self, conn: int) -> None:
        """See :class:`proxy.plane.Owner`."""
        self.transport.on_crash(conn)
