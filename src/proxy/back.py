"""One connection to a router, as far as one client's session goes."""

from typing import Protocol

from proxy.auth.base import Challenge
from proxy.auth.routers import RouterLogin
from proxy.connections import ProxyConnection
from proxy.forwarding import encoded_goodbye
from proxy.messages import Welcome
from proxy.plane import EV_CLOSED, Plane
from proxy.session_ids import Claim

__all__ = ["Back", "Joiner"]


class Joiner(Protocol):
    """The client session that a router is joined for."""

    conn: int
    serializer: int
    front_sid: int

    def on_back(self, back: "Back", kind: int, arg: int, data: bytes) -> None: ...
    def back_crashed(self, back: "Back") -> None: ...
    def challenge(self, challenge: Challenge) -> None: ...
    def joined(self, back: "Back", welcome: Welcome, login: RouterLogin) -> None: ...
    def refused(self, message: bytes, reason: str) -> None: ...


class Back:
    """One connection to a router, from dial to close. It may outlive the session that it was made for.

    :param session: whose it is; None once nobody is interested in more than its end.
    :param connection: where it leads to.
    :param serializer: what is spoken on it.
    :param claim: which session the data plane was told that it is for.

    :ivar back_sid: the router's ID of the session; 0 until it has said WELCOME.
    """

    __slots__ = ("_claim", "back_sid", "conn", "connection", "plane", "serializer", "session", "token")

    def __init__(
        self, plane: Plane, session: Joiner, connection: ProxyConnection, serializer: int, claim: Claim
    ) -> None:
        self.plane = plane
        self.session: Joiner | None = session
        self.connection = connection
        self.serializer = serializer
        self.conn = 0
        self.back_sid = 0
        self._claim: Claim | None = claim
        self.token = plane.add_owner(self)

    def on_event(self, kind: int, conn: int, arg: int, data: bytes) -> None:
        """An event of the data plane, see :class:`proxy.plane.Owner`."""
        self.conn = conn
        is_last = kind == EV_CLOSED
        if is_last:
            self.plane.drop_owner(self.token)
            if self._claim is not None:
                self._claim.unanswered()
        if self.session is not None:
            self.session.on_back(self, kind, arg, data)
        if is_last:
            self.session = None  # not before: on_crash() needs it

    def on_crash(self, conn: int) -> None:
        """See :class:`proxy.plane.Owner`."""
        session, self.session = self.session, None
        if session is not None:
            session.back_crashed(self)

    def has_joined(self, back_sid: int) -> None:
        """The router said WELCOME and gave the session this ID."""
        self.back_sid = back_sid
        self._claim = None

    def say_goodbye(self, reason: str | None, message: str | None = None) -> None:
        """End the router's session with a GOODBYE of our own; None: without one."""
        self.leave(encoded_goodbye(self.serializer, reason, message) if reason else b"")

    def leave(self, goodbye: bytes) -> None:
        """End the router's session: say ``goodbye`` (if any) and close. What the router still says is ignored."""
        self.session = None
        if self.conn:
            if goodbye:
                self.plane.send(self.conn, goodbye)
            self.plane.close(self.conn)
