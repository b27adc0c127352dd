"""Listening transports: a socket that all data threads accept on, and the sessions that came through it."""

import errno
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from proxy.addresses import Address, is_literal
from proxy.auth import Authentication
from proxy.config import (
    BackendTcp,
    RawSocketTransport,
    TcpEndpoint,
    TesteeTransport,
    TransportConfig,
    UnixEndpoint,
    WebSocketTransport,
    checked,
)
from proxy.config.redaction import redacted
from proxy.cookies import CookieTracker
from proxy.echo import EchoSession
from proxy.errors import CannotListen, ProxyError
from proxy.front_params import connection_params, handshake_policy
from proxy.handshake import Accepted, Request, accept
from proxy.lifecycle import Managed, State
from proxy.listeners import adopt_listener, is_at, open_listener, release_unix, stir_listener, unix_identity
from proxy.login_limits import LoginLimits
from proxy.plane import (
    CODEC_RS,
    CODEC_WS,
    EV_CLOSED,
    EV_LISTEN,
    LISTEN_CLOSED,
    LISTEN_FULL,
    LISTEN_PAUSED,
    LISTEN_RESUMED,
    Plane,
)
from proxy.refusals import Tally
from proxy.sessions import FrontSession

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["ProxyTransport"]

log = logging.getLogger(__name__)

_PAUSED_TEXT: Final = {
    0: "out of memory",
    errno.EMFILE: "out of file descriptors (limit of this process)",
    errno.ENFILE: "out of file descriptors (limit of the system)",
}

class ProxyTransport(Managed):
    """One item of ``transports``.

    :param controller: the worker that it belongs to.
    :param transport_id: its id.
    :param config: the item; a mapping is checked here.
    :raises ConfigError: it cannot be used.

    :ivar config: the item as it was given.
    :ivar sessions: the connections that are there, by number, each with a session or without.
    :ivar accepted: connections accepted ever; ``live``: sessions that are joined; ``joined``: sessions joined ever;
        ``denied``: logins that were refused.
    :ivar refused: messages of its clients that could not be passed on to their router.
    """

    KIND = "transport"
    EXCLUDES_CALLER = True

    def __init__(
        self, controller: "ProxyController", transport_id: str, config: TransportConfig | Mapping[str, Any]
    ) -> None:
        super().__init__(controller, f'transport "{transport_id}"')
        self.plane: Plane = controller.plane
        self.id = transport_id
        self.model, self.config = checked(TransportConfig, config, controller.cbdir)
        model: TransportConfig = self.model
        self.kind = CODEC_RS if isinstance(model, RawSocketTransport) else CODEC_WS
        self.cookies: CookieTracker | None = None
        if isinstance(model, WebSocketTransport) and model.cookie is not None:
            self.cookies = CookieTracker(model.cookie, controller.cookie_stores, transport_id, controller.reactor)
        auth = None if isinstance(model, TesteeTransport) else model.auth
        self.authentication = Authentication(auth, controller, self.cookies)
        self.authenticator_ms = model.limits.authenticator_timeout
        self.logins = LoginLimits(model.limits, controller.reactor)
        self.policy = handshake_policy(model)
        # The proxy chooses the session IDs of its clients, instead of passing on those of the routers.
        self.draws_sids = not isinstance(model, TesteeTransport) and model.session_ids == "proxy"
        self.close_ms = connection_params(model)["close_ms"]
        self.sessions: dict[int, FrontSession | EchoSession] = {}
        self.refused = Tally(f"transport {transport_id}", controller.reactor)
        self.accepted = self.live = self.joined = self.denied = 0
        self.created_at = _utc_now()
        self.listening_since: str | None = None
        self.address = ""
        self._session_class = EchoSession if isinstance(model, TesteeTransport) else FrontSession
        self._compression_memory: dict[int, int] = {}
        self._compression_left = model.limits.compression_memory
        self._is_compression_full = False
        self._number = 0
        self._identity: tuple[int, int] | None = None
        self._unlistened: Deferred[None] | None = None
        self._endpoint: TcpEndpoint | UnixEndpoint = model.endpoint
        # Open, and not yet the data plane's.
        self._listener: socket.socket | None = None
        # Whose socket it is a second descriptor of.
        self.predecessor: ProxyTransport | None = None
        # The data plane's; it may be closed at any time once that was told to leave it.
        self._descriptor = -1
        # Who goes on with the socket.
        self._heir: ProxyTransport | None = None
        # Waits for those who have connected and not said anything yet (IDelayedCall).
        self._lingering: Any = None
        self._has_lingered = False
        self.is_forgotten = False
        self._is_given_up = False

    # --- life ---

    def _start(self) -> "Deferred[None]":
        """Listen, at an address that is looked up first where the interface is given by name.

        :raises CannotListen: the address is in use, not permitted, or there are too many listeners already.
        """
        if self.is_listening:
            self._adopt()
            return succeed(None)
        return self.look_up().addCallback(self._open_and_listen).addErrback(self._not_started)

    def _not_started(self, failure: Failure) -> Failure:
        self._close_helpers()
        return failure

    def _close_helpers(self) -> None:
        """Let go of what authentication holds."""
        self.authentication.close()
        if self.cookies is not None:
            self.cookies.close()

    def _open_and_listen(self, _: None) -> None:
        self.open()
        self.listen()

    def _adopt(self) -> None:
        """Give a socket that was another transport's the options of this one."""
        if self.predecessor is None:
            return
        try:
            with self.share() as listener:
                adopt_listener(listener, self._endpoint, nodelay=self._nodelay)
        except OSError as error:
            log.warning("transport %s keeps the socket options of its predecessor: %s", self.id, error)
        self.predecessor = None

    @property
    def _nodelay(self) -> bool:
        return isinstance(self.model, RawSocketTransport) or self.model.options.tcp_nodelay

    @property
    def is_listening(self) -> bool:
        """Whether clients are accepted."""
        return self.listening_since is not None

    def look_up(self) -> "Deferred[None]":
        """The first step of a start: look the interface up where it is given by name, and get ready to authenticate.

        :returns: fails with CannotListen where it has no address, with InvalidConfiguration or CannotStart where an
            authenticator, or the store of the cookies, cannot be had.
        """
        ready: Deferred[None] = self.authentication.start()
        if self.cookies is not None:
            cookies = self.cookies
            ready.addCallback(lambda _: cookies.start())
        ready.addErrback(self._not_ready)
        return ready.addCallback(lambda _: self._look_up_interface())

    def _not_ready(self, failure: Failure) -> None:
        failure.trap(ProxyError)
        error = failure.value
        assert isinstance(error, ProxyError)
        raise type(error)(f"transport {self.id}: {error.message}", **error.details)

    def _look_up_interface(self) -> "Deferred[None]":
        endpoint = self.model.endpoint
        if isinstance(endpoint, UnixEndpoint) or not endpoint.interface or is_literal(endpoint.interface):
            return succeed(None)
        name = BackendTcp(type="tcp", host=endpoint.interface, port=1, version=endpoint.version)
        found = self.controller.resolver.resolve(name)
        return found.addCallbacks(self._resolved, self._unresolved)

    def _resolved(self, addresses: list[Address]) -> None:
        assert isinstance(self.model.endpoint, TcpEndpoint)
        self._endpoint = self.model.endpoint.model_copy(update={"interface": addresses[0].host})

    def _unresolved(self, failure: Failure) -> None:
        raise CannotListen(f"transport {self.id}: {failure.getErrorMessage()}")

    def open(self, leaving: "Iterable[ProxyTransport]" = ()) -> None:
        """The second step: take the address. Who connects from now on waits until :meth:`listen`.

        :param leaving: transports that are stopped after this one listens. Where one of them has the very address, its
            socket goes on in this transport, so that no client finds the address deserted.
        :raises CannotListen: the address is in use or not permitted.
        """
        others = [other for other in leaving if other.is_listening]
        self.predecessor = next((other for other in others if self.succeeds(other)), None)
        if self.predecessor is not None:
            self._listener = self.predecessor.share()
        else:
            self._listener = self._open_beside(others)
            if isinstance(self._endpoint, UnixEndpoint):
                self._identity = unix_identity(self._endpoint.path)
        self.address = _url(self.kind, self._listener)

    def _open_beside(self, others: "list[ProxyTransport]") -> socket.socket:
        shares = [other.share() for other in others]
        try:
            return open_listener(self._endpoint, nodelay=self._nodelay, beside=shares)
        except CannotListen as error:
            raise CannotListen(f"transport {self.id}: {error.message}") from error
        finally:
            for share in shares:
                share.close()

    def share(self) -> socket.socket:
        """One more descriptor of the listening socket. The caller owns it."""
        return socket.socket(fileno=os.dup(self._descriptor))

    def succeeds(self, other: "ProxyTransport") -> bool:
        """Whether this transport is to be where another one listens. Call after :meth:`look_up`."""
        endpoint = self._endpoint
        if not other.is_listening:
            return False
        if isinstance(endpoint, UnixEndpoint):
            if unix_identity(endpoint.path) != other._identity:
                return False  # its file is gone: nobody would find it
        elif not endpoint.port and endpoint.portrange is None and self.id != other.id:
            return False  # any port is not the port of somebody else
        with other.share() as listener:
            return is_at(listener, endpoint)

    def listen(self) -> None:
        """The last step: accept clients.

        :raises CannotListen: there are too many listeners already.
        """
        assert self._listener is not None
        self._number = self.plane.add_owner(self)
        descriptor = self._listener.fileno()
        try:
            params = self.plane.add_params(**connection_params(self.model))
            self.plane.listen(descriptor, self._number, params, self.model.max_connections)
        except Exception as error:
            self.give_up()
            self.plane.drop_owner(self._number)
            staying = sum(1 for other in self.controller.retired if other.sessions)
            hint = f" ({staying} stopped transports whose sessions stay count, too)" if staying else ""
            raise CannotListen(f"transport {self.id}: {error}{hint}") from error
        self._listener.detach()
        self._listener = None
        self._descriptor = descriptor
        self.listening_since = _utc_now()
        if self.predecessor is not None:
            self.predecessor._heir = self
            # From now on the socket's file is removed by this transport.
            self._identity, self.predecessor._identity = self.predecessor._identity, None

    def give_up(self) -> None:
        """Undo what was done of a start. Nobody gets anywhere who came in meanwhile."""
        self._is_given_up = True
        self._close_helpers()
        if self.predecessor is not None:
            self.predecessor._heir = None
            if self.is_listening:
                self._identity, self.predecessor._identity = None, self._identity
            self.predecessor = None
        self.release()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self.is_listening:
            self._unlistened = Deferred()
            self.plane.unlisten(self._number)
        for session in list(self.sessions.values()):
            session.shut_down()

    def _stop(self) -> "Deferred[None]":
        """Stop listening; sessions that are there stay. Fires once nothing is accepted any more."""
        self.release()
        if not self.is_listening:
            return succeed(None)  # it failed before
        self._unlistened = Deferred()
        self.plane.unlisten(self._number)
        return self._unlistened

    def release(self) -> None:
        """Remove the file of a Unix socket, if it is ours."""
        if isinstance(self.model.endpoint, UnixEndpoint):
            release_unix(self.model.endpoint.path, self._identity)
            self._identity = None

    def marshal(self) -> dict[str, Any]:
        """What the management API shows: id, type, config, created_at and listening_since (ISO 8601), state."""
        return {
            "id": self.id,
            "type": self.model.type,
            "config": redacted(self.config),
            "created_at": self.created_at,
            "listening_since": self.listening_since,
            "state": int(self.state),
        }

    @property
    def takes_logins(self) -> bool:
        """Whether clients may log in; if not, a connection whose session is over is closed."""
        if self.successor is not None:
            return self.latest.takes_logins
        is_over = self.state in (State.STOPPING, State.STOPPED, State.FAILED)
        return not is_over and not self.controller.is_stopping

    def turn_away(self, *, even_under_way: bool) -> None:
        """Close the connections on which nobody has logged in.

        :param even_under_way: those, too, whose login waits for a router.
        """
        if self.takes_logins:
            return  # another one has taken its place
        for other in self.controller.retired:
            if other is not self and other.latest is self:
                other.turn_away(even_under_way=even_under_way)
        for session in list(self.sessions.values()):
            if isinstance(session, FrontSession) and (even_under_way or not session.is_joining):
                session.turn_away()

    # --- events ---

    def on_event(self, kind: int, conn: int, arg: int, data: bytes) -> None:
        """An event of a client's connection or of the listener, see :class:`proxy.plane.Owner`."""
        session = self.sessions.get(conn)
        if session is None:
            if kind == EV_LISTEN:
                self._on_listen(arg & 0xFF, arg >> 8)
                return
            if kind == EV_CLOSED:
                return
            # The data plane may have accepted it long before, and it says something only now.
            if self._is_given_up or not self.takes_logins:
                self.plane.abort(conn)
                return
            session = self.sessions[conn] = self._session_class(self, conn)
            self.accepted += 1
        session.on_front(kind, arg, data)

    def on_crash(self, conn: int) -> None:
        """See :class:`proxy.plane.Owner`."""
        session = self.sessions.get(conn)
        if session is not None:
            session.crashed()

    def accept(self, conn: int, request: Request) -> Accepted:
        """Answer an upgrade request, with compression if there is memory for it. ``conn`` holds it until gone().

        :raises HttpError: see :func:`proxy.handshake.accept`.
        """
        assert self.policy is not None, "an HTTP head on a RawSocket transport"
        accepted = accept(request, self.policy)
        if accepted.compression is not None and accepted.compression.memory > self._compression_left:
            self._warn_of_memory()
            accepted = accept(request, self.policy, self._compression_left)
        if accepted.compression is not None and accepted.compression.memory:
            self._compression_memory[conn] = accepted.compression.memory
            self._compression_left -= accepted.compression.memory
        return accepted

    def gone(self, conn: int) -> None:
        """A session's connection is closed."""
        del self.sessions[conn]
        self._compression_left += self._compression_memory.pop(conn, 0)
        if self._is_compression_full and self._compression_left >= self.model.limits.compression_memory // 2:
            self._is_compression_full = False
        self._forget()

    def _warn_of_memory(self) -> None:
        """Say that compression takes all its memory: once, and again after it took half of it."""
        if not self._is_compression_full:
            self._is_compression_full = True
            text = "compression_memory (%d octets) is used up: further clients get no compression on transport %s (%s)"
            log.warning(text, self.model.limits.compression_memory, self.id, self.address)

    def _on_listen(self, what: int, error: int) -> None:
        if what == LISTEN_PAUSED:
            why = _PAUSED_TEXT.get(error) or os.strerror(error)
            log.error("%s: accepting is paused on transport %s (%s)", why, self.id, self.address)
        elif what == LISTEN_RESUMED:
            log.warning("accepting goes on, on transport %s (%s)", self.id, self.address)
        elif what == LISTEN_FULL:
            log.warning(
                "max_connections (%d) reached: connections are refused on transport %s (%s)",
                self.model.max_connections,
                self.id,
                self.address,
            )
        elif what == LISTEN_CLOSED:
            self._on_unlistened()

    def _on_unlistened(self) -> None:
        self.listening_since = None
        heir, self._heir = self._heir, None
        if heir is not None and heir.is_listening:
            with heir.share() as listener:
                stir_listener(listener)
        unlistened, self._unlistened = self._unlistened, None
        if unlistened is None:
            log.error("transport %s (%s) does not listen any more", self.id, self.address)
            self.enter(State.FAILED)
        else:
            unlistened.callback(None)
        self._forget()

    def _forget(self) -> None:
        """Once it neither listens nor has a session, no more event can come, but of who has not said anything yet.

        Those are cut off; where another transport has taken the place of this one, only after their deadline.
        """
        is_over = self.state in (State.STOPPED, State.FAILED) or (self._is_given_up and not self.is_listening)
        if self.sessions or not is_over or self._lingering is not None:
            return
        if self.successor is not None and not self._has_lingered and not self.controller.is_stopping:
            seconds = connection_params(self.model)["handshake_ms"] / 1000
            self._lingering = self.controller.reactor.callLater(seconds, self._has_waited)
            return
        self.is_forgotten = True
        self._close_helpers()
        self.plane.drop_owner(self._number)

    def _has_waited(self) -> None:
        self._lingering = None
        self._has_lingered = True
        self._forget()

    def settle(self) -> None:
        """The worker ends: whoever has not said anything yet is not waited for."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._has_waited()


def _utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _url(kind: int, listener: socket.socket) -> str:
    """Where the socket listens, for people: ``ws://127.0.0.1:8080`` or ``rs://unix:/run/proxy.sock``."""
    scheme = "rs" if kind == CODEC_RS else "ws"
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{scheme}://unix:{name}"
    host, port = name[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
