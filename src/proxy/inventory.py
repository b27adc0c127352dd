"""Which sessions there are, ending one of them, and what is counted."""

import heapq
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from proxy.draining import Kind, Leaving, send_away
from proxy.errors import InvalidArgument, NoSuchObject
from proxy.management.arguments import check_message, check_reason
from proxy.management.procedures import Caller, procedure
from proxy.messages import ID_MAX, SERIALIZER_NAMES
from proxy.sessions import FrontSession
from proxy.worker import WorkerController

if TYPE_CHECKING:
    from proxy.connections import ProxyConnection
    from proxy.registry import Registry
    from proxy.routes import ProxyRoute, RouteTable
    from proxy.transports import ProxyTransport

__all__ = ["SessionProcedures"]

KILLED: Final = "wamp.close.killed"
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1000

_by_id = attrgetter("front_sid")


class SessionProcedures(WorkerController):
    """The procedures that show and end client sessions, and the counters.

    :ivar retired: stopped transports whose sessions stay.
    """

    plane: Any
    transports: "Registry[ProxyTransport]"
    connections: "Registry[ProxyConnection]"
    routes: "RouteTable"
    retired: "list[ProxyTransport]"

    # --- sessions ---

    def all_transports(self) -> "Iterator[ProxyTransport]":
        """Those that are in service, those that stop, and those that are stopped while sessions stay."""
        yield from self.transports.values()
        for transport in self.retired:
            if self.transports.get(transport.id) is not transport:
                yield transport

    def joined_sessions(self) -> Iterator[FrontSession]:
        """All sessions that are joined to a router."""
        for transport in self.all_transports():
            for session in transport.sessions.values():
                if session.is_joined and isinstance(session, FrontSession):
                    yield session

    def sessions_of(self, kind: Kind, object_id: str) -> list[Leaving]:
        """See :class:`proxy.draining.DrainProcedures`."""
        if kind == "transport":
            # Of one that another one has taken over under another ID, they are that one's.
            found = [one for one in self.all_transports() if one.latest.id == object_id]
            return [session for transport in found for session in transport.sessions.values() if session.is_joined]
        return [session for session in self.joined_sessions() if _back(session).connection.id == object_id]

    def _find_session(self, session_id: int) -> FrontSession:
        """The session that clients know by this ID; of several that routers gave the same one, the first that joined.

        :raises NoSuchObject: there is none.
        """
        found = [session for session in self.joined_sessions() if session.front_sid == session_id]
        if not found:
            raise NoSuchObject(f"no session {session_id}")
        return min(found, key=attrgetter("joined_at"))

    @procedure
    def get_proxy_sessions(
        self,
        realm: str | None = None,
        role: str | None = None,
        authid: str | None = None,
        transport: str | None = None,
        connection: str | None = None,
        limit: int = PAGE_DEFAULT,
        after: int | None = None,
        details: Caller | None = None,
    ) -> dict[str, Any]:
        """The sessions that are joined, in the order of their IDs, page by page.

        :param realm: only those of this realm.
        :param role: only those with this authrole.
        :param authid: only those with this authid.
        :param transport: only those that came through the transport of this id.
        :param connection: only those that are joined over the connection of this id.
        :param limit: how many to show at most, 1 to 1000.
        :param after: only those with a higher ID: ``next`` of the page before.
        :returns: ``sessions``, as :meth:`get_proxy_session` shows one; ``total``, how many match, on all pages;
            ``next``, what to give as ``after`` for the next page, None after the last one.
        :raises InvalidArgument: limit or after.
        """
        if not 1 <= limit <= PAGE_MAX:
            raise InvalidArgument(f"limit: {limit}: expected 1 to {PAGE_MAX}")
        if after is not None and not 0 <= after <= ID_MAX:
            raise InvalidArgument(f"after: {after}: expected a session ID")
        matching = [
            session
            for session in self.joined_sessions()
            if (realm is None or session.realm == realm)
            and (role is None or session.authrole == role)
            and (authid is None or session.authid == authid)
            and (transport is None or session.transport.latest.id == transport)
            and (connection is None or _back(session).connection.id == connection)
        ]
        rest = matching if after is None else [session for session in matching if session.front_sid > after]
        page = heapq.nsmallest(limit, rest, key=_by_id)
        last = page[-1].front_sid if page else 0
        if len(page) < len(rest):
            # Routers that do not know of each other may give the same ID: such sessions are not parted.
            page += [session for session in rest if session.front_sid == last and session not in page]
        return {
            "sessions": [_marshal(session) for session in page],
            "total": len(matching),
            "next": last if len(page) < len(rest) else None,
        }

    @procedure
    def get_proxy_session(self, session_id: int, details: Caller | None = None) -> dict[str, Any]:
        """One session.

        :param session_id: the ID that its client knows.
        :returns: session, realm, authid, authrole, authmethod (as the client was told), transport and connection (ids),
            peer, serializer, backend_serializer, backend_session (the router's ID of it), joined (ns since the epoch).
        :raises NoSuchObject: there is none with this ID.
        """
        return _marshal(self._find_session(session_id))

    @procedure
    def kill_proxy_session(
        self, session_id: int, reason: str = KILLED, message: str | None = None, details: Caller | None = None
    ) -> dict[str, Any]:
        """End a session: GOODBYE to its client and to its router. Publishes on_proxy_session_killed.

        :param session_id: the ID that its client knows.
        :param reason: URI of the GOODBYE, to both.
        :param message: text for people in the GOODBYE to the client.
        :returns: the session as it was.
        :raises NoSuchObject: there is none with this ID.
        :raises InvalidArgument: reason or message.
        """
        check_reason(reason)
        check_message(message)
        session = self._find_session(session_id)
        shown = _marshal(session)
        if session.entrance.cookies is not None:
            session.entrance.cookies.dismissed(session, reason)  # or it would be back at once
        send_away(session, reason, message)
        event = {key: shown[key] for key in ("session", "realm", "authid")}
        self.publish_event("on_proxy_session_killed", {**event, "reason": reason})
        return shown

    # --- counters ---

    @procedure
    def get_proxy_stats(self, details: Caller | None = None) -> dict[str, Any]:
        """What there is, and what has been counted since each of it was started.

        :returns: worker (id), uptime (s), sessions (joined now), transports and connections by id, routes by realm and
            id, retired (list: stopped transports whose sessions stay), threads (list: counters of the data plane).
        """
        over = self.routes.live_by_connection()
        return {
            "worker": self.worker_id,
            "uptime": round(self.uptime(), 3),
            "sessions": sum(transport.live for transport in self.all_transports()),
            "transports": {transport.id: _of_transport(transport) for transport in self.transports.values()},
            "connections": {
                connection.id: _of_connection(connection, over[connection.id])
                for connection in self.connections.values()
            },
            "routes": {
                realm: {route.id: self._of_route(route) for route in self.routes.of_realm(realm)}
                for realm in self.routes.realms()
            },
            "retired": [
                {"id": transport.id, **_of_transport(transport)} for transport in self.retired if transport.sessions
            ],
            "threads": [self.plane.stats(index) for index in range(self.plane.threads)],
        }

    def _of_route(self, route: "ProxyRoute") -> dict[str, Any]:
        return {"state": int(route.state), "sessions": self.routes.live(route), "joined": route.joined}


def _back(session: FrontSession) -> Any:
    assert session.back is not None, "a joined session without a router"
    return session.back


def _marshal(session: FrontSession) -> dict[str, Any]:
    back = _back(session)
    return {
        "session": session.front_sid,
        "realm": session.realm,
        "authid": session.authid,
        "authrole": session.authrole,
        "authmethod": session.authmethod,
        "transport": session.transport.latest.id,
        "connection": back.connection.id,
        "peer": session.peer,
        "serializer": SERIALIZER_NAMES[session.serializer],
        "backend_serializer": SERIALIZER_NAMES[back.serializer],
        "backend_session": back.back_sid,
        "joined": session.joined_at * 1000,
    }


def _of_transport(transport: "ProxyTransport") -> dict[str, Any]:
    return {
        "state": int(transport.state),
        "address": transport.address,
        "connections": len(transport.sessions),
        "tunnels": transport.tunnels,
        "accepted": transport.accepted,
        "sessions": transport.live,
        "joined": transport.joined,
        "denied": transport.denied,
        "tls_failed": transport.tls_failed,
        "refused_messages": transport.refused.count,
    }


def _of_connection(connection: "ProxyConnection", sessions: int) -> dict[str, Any]:
    return {
        "state": int(connection.state),
        # Those from before it was replaced by one of the same id, too: they are with the same router.
        "sessions": sessions,
        "joined": connection.joined,
        "failures": connection.failures,
        "refused_messages": connection.refused.count,
        "is_draining": connection.is_draining,
        "is_down": connection.is_unreachable,
    }
