"""What a client's connection holds while it lives, and the ways in which the proxy ends its session."""

import logging
from typing import TYPE_CHECKING, Any, Final

from proxy.back import Back
from proxy.backend import BackendJoin
from proxy.forwarding import encoded_goodbye
from proxy.messages import abort, encode
from proxy.routes import RouteUse
from proxy.session_states import CODE_GOING_AWAY, GOODBYE_AND_OUT, SYSTEM_SHUTDOWN, State

if TYPE_CHECKING:
    from proxy.entrances import Entrance
    from proxy.logins import Login
    from proxy.peers import TlsInfo
    from proxy.transports import ProxyTransport

__all__ = ["FrontEnd"]

_LOGGING_IN: Final = frozenset({State.AUTHENTICATING, State.CHALLENGED, State.JOINING})

log = logging.getLogger("proxy.sessions")


class FrontEnd:
    """A client's connection, without what drives it.

    :param entrance: the way that it came in.
    :param conn: its number in the data plane.

    :ivar transport: the listening transport that it came through.
    :ivar peer: the client's address, as Crossbar.io names it; ``tls``: what its TLS came to, None: it is plain.
    :ivar cookie: key of the connection's cookie (:mod:`proxy.cookies`); None: it has none.
    :ivar login: the login that is under way.
    :ivar front_sid: the session ID that the client was told, or will be; 0: it has none, or the router chooses it.
    :ivar has_own_sid: the proxy drew it.
    :ivar realm: of the session, or of the attempt at one; empty: there is none.
    :ivar authid: what the client was told in WELCOME; likewise ``authrole`` and ``authmethod``.
    :ivar joined_at: when it joined (Posix time, microseconds).
    :ivar use: with which realm, role and connection it counts; None: no session.
    """

    __slots__ = (
        "authid",
        "authmethod",
        "authrole",
        "back",
        "conn",
        "cookie",
        "deadline",
        "entrance",
        "extension",
        "front_sid",
        "has_own_sid",
        "headers",
        "join",
        "joined_at",
        "login",
        "peer",
        "plane",
        "realm",
        "serializer",
        "state",
        "subprotocol",
        "timer",
        "tls",
        "transport",
        "use",
    )

    def __init__(self, entrance: "Entrance", conn: int) -> None:
        self.entrance = entrance
        self.transport: ProxyTransport = entrance.transport
        self.plane = entrance.plane
        self.conn = conn
        self.state = State.HANDSHAKE
        self.serializer = 0
        self.peer = ""
        self.tls: TlsInfo | None = None
        self.headers: dict[str, str] | None = None
        self.subprotocol: str | None = None
        self.extension: str | None = None
        self.cookie: str | None = None
        self.login: Login | None = None
        self.join: BackendJoin | None = None
        self.back: Back | None = None
        self.use: RouteUse | None = None
        self.front_sid = 0
        self.has_own_sid = False
        self.realm = ""
        self.authid = ""
        self.authrole = ""
        self.authmethod = ""
        self.joined_at = 0
        self.timer: Any = None  # IDelayedCall
        self.deadline = 0.0

    @property
    def is_joined(self) -> bool:
        """Whether it has a session with a router, even if the client is about to leave it."""
        return self.use is not None

    @property
    def is_joining(self) -> bool:
        """Whether a login waits for a router, an authenticator or the client."""
        return self.state in _LOGGING_IN

    # --- ended from outside ---

    def dismiss(self, reason: str, message: str | None = None) -> None:
        """End the session: GOODBYE to the client and to the router. No error if there is none (any more).

        The connection stays for another session, unless its transport or the worker is stopped.

        :param reason: URI, for both.
        :param message: text for people, for the client.
        """
        if self.state is State.ESTABLISHED:
            self._log_left(f"ended by the proxy, {reason}")
            self._dismiss(encoded_goodbye(self.serializer, reason, message), reason)
        elif self.state is State.LEAVING:
            self._left(b"")

    def turn_away(self) -> None:
        """Let a client go that has no session: its transport is stopped."""
        if self.is_joining:
            self._drop_login()
            self._close(CODE_GOING_AWAY, encode(self.serializer, abort(SYSTEM_SHUTDOWN)))
        elif self.state in (State.HANDSHAKE, State.OPEN):
            self._close(CODE_GOING_AWAY)

    def shut_down(self) -> None:
        """The worker ends: say so, and let the client go."""
        if self.state is State.ESTABLISHED:
            self._log_left("shutdown")
            self._dismiss(encoded_goodbye(self.serializer, SYSTEM_SHUTDOWN), SYSTEM_SHUTDOWN)
        else:
            self.turn_away()

    # --- how it ends ---

    def _dismiss(self, message: bytes, to_router: str) -> None:
        """Send GOODBYE to both sides and wait for the client's answer."""
        self.plane.unlink(self.conn)
        self.plane.send(self.conn, message)
        self._detach(to_router)
        self.state = State.DISMISSED
        timeout_ms = self.entrance.close_ms
        self.deadline = self.transport.controller.reactor.seconds() + timeout_ms / 1000
        self.plane.next(self.conn, timeout_ms)

    def _left(self, goodbye_of_router: bytes) -> None:
        """The session is over on both sides. The connection stays, for another one."""
        self.plane.unlink(self.conn)
        self.plane.send(self.conn, goodbye_of_router or encoded_goodbye(self.serializer, GOODBYE_AND_OUT))
        self._log_left("the client said GOODBYE")
        self._detach("")
        self._await_hello()

    def _await_hello(self) -> None:
        if not self.transport.takes_logins:
            self._close(CODE_GOING_AWAY)
            return
        self.state = State.OPEN
        self.plane.next(self.conn)

    def _close(self, code: int, message: bytes = b"") -> None:
        """Send ``message``, if any, and close the client's transport."""
        self.state = State.CLOSING
        if message:
            self.plane.send(self.conn, message)
        self.plane.close(self.conn, code)

    def _stop_timer(self) -> None:
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()

    def _end_login(self) -> None:
        login, self.login = self.login, None
        if login is not None:
            login.end()

    def _drop_login(self) -> None:
        """Give up the login that is under way, if any: the client is to be let go."""
        is_dialled = self.join is not None
        self._detach("")
        if is_dialled:
            self.plane.undial(self.conn)

    def _detach(self, reason: str) -> None:
        """Let go of the router: GOODBYE with ``reason`` (none if empty) and close; end the login that is under way."""
        self._stop_timer()
        self._end_login()
        join, self.join = self.join, None
        if join is not None:
            join.cancel()
        back, self.back = self.back, None
        if back is not None:
            self._count_out(back)
            self.transport.controller.unmap_backend(self, back, reason or None)
        self._drop_sid()

    def _count_in(self, back: Back, role: str) -> bool:
        """The session counts from now on, where it belongs to; False: no route leads there any more."""
        use = self.use = self.transport.controller.routes.enter(self.realm, role, back.connection.id)
        if use is None:
            return False
        self.transport.live += 1
        self.transport.joined += 1
        back.connection.live += 1
        back.connection.joined += 1
        return True

    def _count_out(self, back: Back) -> None:
        use, self.use = self.use, None
        if use is not None:
            self.transport.live -= 1
            back.connection.live -= 1
            self.transport.controller.routes.leave(use)

    def _drop_sid(self) -> None:
        """The session, or the attempt at one, is over: its ID is free."""
        front_sid, self.front_sid = self.front_sid, 0
        has_own_sid, self.has_own_sid = self.has_own_sid, False
        if front_sid and has_own_sid:
            number = self.plane.add_realm(self.realm) if self.realm else 0
            self.transport.controller.session_ids.release(number, front_sid)
        self.realm = ""

    def _log_left(self, why: str) -> None:
        if self.transport.controller.logs_sessions:
            log.info("session %d left realm %s: %s", self.front_sid, self.realm, why)

    def _log_refused(self, reason: str) -> None:
        if self.transport.controller.logs_sessions:
            log.info("login from %s refused: %s", self.peer, reason)
