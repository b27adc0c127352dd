"""ProxyController: the registries of connections, routes and transports, and what starts and stops them.

Names of methods are those of the procedures of Crossbar.io's management API. What they raise are the classes of
:mod:`proxy.errors`.
"""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

from autobahn.wamp.types import ComponentConfig
from twisted.internet.defer import Deferred

from proxy.addresses import Resolver
from proxy.config.findings import render_value
from proxy.connections import ProxyConnection
from proxy.cookies import Stores
from proxy.draining import DrainProcedures, Kind, Leaving, Pace, send_away
from proxy.echo import EchoSession
from proxy.errors import CannotStart, InUse, InvalidArgument, NoSuchObject
from proxy.inventory import SessionProcedures
from proxy.lifecycle import Managed, State
from proxy.management.procedures import Caller, procedure
from proxy.mapping import BackendMapping
from proxy.options import extra_options
from proxy.plane import DataPlane, Plane
from proxy.registry import Registry
from proxy.reloading import ReloadProcedures
from proxy.routes import ProxyRoute, RouteTable
from proxy.service_sessions import ServiceSessions
from proxy.session_ids import SessionIds
from proxy.session_states import SYSTEM_SHUTDOWN
from proxy.sessions import FrontSession
from proxy.threads import thread_count
from proxy.tls.watching import TlsContexts
from proxy.transports import ProxyTransport
from proxy.web_connections import WebConnection
from proxy.webservices import WebServiceProcedures

__all__ = ["ProxyController", "SessionsFate"]

log = logging.getLogger(__name__)

# Sessions that are told per turn of the reactor, where all are told at once.
SHUTDOWN_BATCH: Final = 500

ID_LENGTH_MAX: Final = 256
# Objects that an error text names.
NAMES_SHOWN: Final = 8

SessionsFate = Literal["keep", "drain", "close"]
"""What becomes of the sessions of something that is stopped: nothing; GOODBYE at a pace; GOODBYE to all at once."""


class ProxyController(ReloadProcedures, WebServiceProcedures, SessionProcedures, DrainProcedures, BackendMapping):
    """Everything a proxy worker runs.

    :param config: as a node's worker has it, see :class:`proxy.process.NativeProcess`; None: it runs alone.
    :param reactor: Twisted's reactor; None: the one that is installed.
    :param personality: the node's; nothing here depends on it.
    :param plane: the data plane; None: one with a thread for each core, which :meth:`start_plane` starts.
    :param worker_id: id of the worker, where ``config`` names none.
    :param node_id: id of the node, and authid of the proxy towards routers, likewise; default: the host's name.
    :param public_key: hex of the node's public key; None: not known (yet).
    """

    WORKER_TYPE: ClassVar[str] = "proxy"
    WORKER_TITLE: ClassVar[str] = "WAMP proxy"

    def __init__(
        self,
        config: ComponentConfig | None = None,
        reactor: Any = None,
        personality: Any = None,
        *,
        plane: Plane | None = None,
        worker_id: str | None = None,
        node_id: str | None = None,
        public_key: str | None = None,
    ) -> None:
        super().__init__(config, reactor, personality, worker_id=worker_id, node_id=node_id)
        options = extra_options(config)
        self.plane: Any = plane or DataPlane(self.reactor, thread_count(options.threads))
        self._is_plane_started = False
        self.public_key = public_key
        # How long sessions may take to end at a shutdown, seconds.
        self.shutdown_timeout = options.shutdown_timeout / 1000
        self.session_ids = SessionIds(self.plane)
        self.tls_contexts = TlsContexts(self.plane, self.reactor, self.on_tls_reloaded)
        self.resolver = Resolver(self.reactor)
        self.routes = RouteTable()
        self.connections: Registry[ProxyConnection] = Registry("connection")
        self.transports: Registry[ProxyTransport] = Registry("transport")
        self.cookie_stores = Stores(self.reactor)
        self.service_sessions = ServiceSessions(self)
        # These are to hear of the worker's end, too.
        self.retired: list[ProxyTransport] = []
        self.is_stopping = False
        self.logs_sessions = True
        self._end: Deferred[bool] | None = None
        self._route_count = 0

    # --- connections ---

    @procedure
    def get_proxy_connections(self, details: Caller | None = None) -> list[str]:
        """Ids of the connections, sorted."""
        return sorted(self.connections)

    @procedure
    def get_proxy_connection(self, connection_id: str, details: Caller | None = None) -> dict[str, Any]:
        """One connection as :meth:`ProxyConnection.marshal` shows it.

        :raises NoSuchObject: there is none with this id.
        """
        return self.connections.find(connection_id).marshal()

    @procedure
    def start_proxy_connection(
        self, connection_id: str, config: Any, details: Caller | None = None
    ) -> "Deferred[dict[str, Any]]":
        """Put a connection into service.

        :param config: as in ``connections`` of the configuration.
        :returns: fires with the connection.
        :raises AlreadyRunning: the id is taken.
        :raises InvalidConfiguration: the configuration cannot be used.
        :raises InvalidArgument: the id is empty or too long.
        :raises CannotStart: the worker is shutting down.
        """
        self._require_going_on("connection")
        _require_id("connection", connection_id)
        self.connections.require_free(connection_id)
        connection = ProxyConnection(self, connection_id, config)
        return self.connections.start(connection_id, connection, details).addCallback(_marshal)

    @procedure
    def stop_proxy_connection(
        self,
        connection_id: str,
        force: bool = False,
        sessions: SessionsFate = "keep",
        details: Caller | None = None,
    ) -> "Deferred[dict[str, Any]]":
        """Take a connection out of service: at once for new logins, those that are under way included.

        :param force: even if routes name it: they go on without it.
        :param sessions: what becomes of the sessions over it: keep, drain (50 per second), close.
        :returns: fires with the connection.
        :raises NoSuchObject: there is none with this id.
        :raises NotRunning: it is about to start or to stop.
        :raises InUse: routes name it, and not force.
        """
        connection = self.connections.require_stoppable(connection_id)
        using = [f'"{route.id}" of realm "{route.realm}"' for route in self.routes.using(connection_id)]
        if using and not force:
            raise InUse(f'connection "{connection_id}" is used by {_some("route", using)}; stop them first, or force')

        def has_stopped(_: ProxyConnection) -> dict[str, Any]:
            self.service_sessions.review()
            self._part("connection", {"id": connection_id}, self.sessions_of("connection", connection_id), sessions)
            return connection.marshal()

        return self.connections.stop(connection_id, details).addCallback(has_stopped)

    # --- routes ---

    @procedure
    def get_proxy_routes(self, details: Caller | None = None) -> list[str]:
        """Names of the realms that have routes, sorted."""
        return self.routes.realms()

    @procedure
    def list_proxy_realm_routes(self, realm_name: str, details: Caller | None = None) -> list[dict[str, Any]]:
        """The routes of a realm, in the order they were started.

        :raises NoSuchObject: the realm has none.
        """
        routes = self.routes.of_realm(realm_name)
        if not routes:
            raise NoSuchObject(f'no route for realm "{realm_name}"')
        return [route.marshal() for route in routes]

    @procedure
    def get_proxy_realm_route(self, realm_name: str, route_id: str, details: Caller | None = None) -> dict[str, Any]:
        """One route as :meth:`ProxyRoute.marshal` shows it.

        :raises NoSuchObject: there is no such realm or route.
        """
        return self._route(realm_name, route_id).marshal()

    @procedure
    def start_proxy_realm_route(
        self, realm_name: str, config: Any, details: Caller | None = None
    ) -> "Deferred[dict[str, Any]]":
        """Put a route into service.

        :param config: role -> id of a connection, or a list of them that take turns.
        :returns: fires with the route.
        :raises InvalidConfiguration: no realm, no role, or something that is not an id.
        :raises NoSuchObject: a connection that does not exist, or is about to stop.
        :raises CannotStart: the worker is shutting down.
        """
        self._require_going_on("route")
        route = ProxyRoute(self, realm_name, f"route{self._route_count:03d}", config)
        for connection_id in route.connection_ids:
            if not self.connections.find(connection_id).is_started:
                raise NoSuchObject(f'connection "{connection_id}" is about to stop')
        self._route_count += 1

        def has_started(_: None) -> dict[str, Any]:
            self.routes.add(route)
            return route.marshal()

        return route.start(details).addCallback(has_started)

    @procedure
    def stop_proxy_realm_route(
        self, realm_name: str, route_id: str, sessions: SessionsFate = "keep", details: Caller | None = None
    ) -> "Deferred[dict[str, Any]]":
        """Take a route out of service: at once for new logins, those that are under way included.

        :param sessions: what becomes of the sessions that no other route leads to, by realm, role and connection: keep,
            drain (50 per second; publishes on_proxy_route_draining and on_proxy_route_drained), close.
        :returns: fires with the route.
        :raises NoSuchObject: there is no such realm or route.
        """
        route = self._route(realm_name, route_id)
        self.routes.remove(route)
        self.service_sessions.review()

        def has_stopped(_: None) -> dict[str, Any]:
            uses = set(self.routes.stranded(route))
            stranded = [session for session in self.joined_sessions() if session.use in uses] if uses else []
            self._part("route", {"realm": realm_name, "id": route_id}, stranded, sessions)
            return route.marshal()

        return route.stop(details).addCallback(has_stopped)

    def _route(self, realm: str, route_id: str) -> ProxyRoute:
        route = self.routes.get(realm, route_id)
        if route is None:
            raise NoSuchObject(f'no route "{route_id}" for realm "{realm}"')
        return route

    # --- transports ---

    @procedure
    def get_proxy_transports(self, details: Caller | None = None) -> list[str]:
        """Ids of the transports, sorted."""
        return sorted(self.transports)

    @procedure
    def get_proxy_transport(self, transport_id: str, details: Caller | None = None) -> dict[str, Any]:
        """One transport as :meth:`ProxyTransport.marshal` shows it.

        :raises NoSuchObject: there is none with this id.
        """
        return self.transports.find(transport_id).marshal()

    @procedure
    def start_proxy_transport(
        self, transport_id: str, config: Any, details: Caller | None = None
    ) -> "Deferred[dict[str, Any]]":
        """Listen.

        :param config: as in ``transports`` of the configuration.
        :returns: fires with the transport once it listens.
        :raises AlreadyRunning: the id is taken.
        :raises InvalidConfiguration: the configuration cannot be used.
        :raises CannotListen: the address cannot be listened on.
        :raises InvalidArgument: the id is empty or too long.
        :raises CannotStart: the worker is shutting down.
        """
        self._require_going_on("transport")
        _require_id("transport", transport_id)
        self.transports.require_free(transport_id)
        transport = ProxyTransport(self, transport_id, config)

        def has_started(_: ProxyTransport) -> dict[str, Any]:
            if self.is_stopping:
                # Its address was looked up while the shutdown began.
                self.transports.stop(transport_id, details)
                self._require_going_on("transport")
            return transport.marshal()

        return self.transports.start(transport_id, transport, details).addCallback(has_started)

    @procedure
    def stop_proxy_transport(
        self, transport_id: str, sessions: SessionsFate = "keep", details: Caller | None = None
    ) -> "Deferred[dict[str, Any]]":
        """Stop listening, and close the connections on which nobody has logged in.

        :param sessions: what becomes of the sessions that came through it: keep (logins that are under way come to
            their end, too), drain (50 per second), close.
        :returns: fires with the transport once nothing is accepted any more.
        :raises NoSuchObject: there is none with this id.
        :raises NotRunning: it is about to start or to stop.
        """

        def has_stopped(transport: ProxyTransport) -> dict[str, Any]:
            self.retired = [*(other for other in self.retired if not other.is_forgotten), transport]
            transport.turn_away(even_under_way=sessions != "keep")
            self._part("transport", {"id": transport_id}, self.sessions_of("transport", transport_id), sessions)
            return transport.marshal()

        return self.transports.stop(transport_id, details).addCallback(has_stopped)

    # --- what all of them have in common ---

    def on_out_of_service(self) -> None:
        """See :class:`DrainProcedures`."""
        self.service_sessions.review()

    def _require_going_on(self, kind: str) -> None:
        if self.is_stopping:
            raise CannotStart(f"the {kind} is not started: the worker is shutting down")

    def _part(self, kind: Kind, names: dict[str, str], sessions: Sequence[Leaving], fate: SessionsFate) -> None:
        """See to the sessions of something that has been stopped."""
        if self.is_stopping:
            return  # they are told of that
        if fate == "close":
            self._dismiss(sessions, SYSTEM_SHUTDOWN)
        elif fate == "drain":
            before = self.drains.get(kind, *names.values())
            self.drains.start(kind, names, sessions, Pace() if before is None else before.pace)

    def _dismiss(self, sessions: Sequence[Leaving], reason: str) -> None:
        batch, rest = sessions[:SHUTDOWN_BATCH], sessions[SHUTDOWN_BATCH:]
        for session in batch:
            if session.is_joined:
                send_away(session, reason)
        if rest:
            self.reactor.callLater(0, self._dismiss, rest, reason)

    # --- the end ---

    def shut_down(self, timeout: float) -> "Deferred[bool]":
        """Stop accepting, say goodbye to everybody, and wait until all are gone. Further calls wait for the first.

        :param timeout: seconds to wait at most.
        :returns: fires with True when all are gone, with False when the time was up before.
        """
        if self._end is not None:
            return _follow(self._end)
        self.is_stopping = True
        done: Deferred[bool] = Deferred()
        self._end = done
        timer = self.reactor.callLater(timeout, done.callback, False)
        services = self.service_sessions.close()

        def check(_: None = None) -> None:
            if self.plane.is_idle and services.called and timer.active():
                timer.cancel()
                done.callback(True)

        self.plane.on_idle = check
        services.addCallback(check)
        self.drains.cancel_all()
        sessions: list[FrontSession | EchoSession | WebConnection] = []
        for transport in self.all_transports():
            sessions.extend(transport.sessions.values())
            transport.settle()
            if transport.state is State.STARTED:
                transport.stop()
        self.transports.clear()
        self.retired.clear()
        self._shut_down(sessions)
        check()
        return _follow(done)

    def before_end(self) -> "Deferred[Any]":
        """See :class:`WorkerController`."""
        return self.shut_down(self.shutdown_timeout)

    def prepare(self) -> None:
        """See :class:`WorkerController`. Where nobody else has started the data plane, it is started now."""
        self.start_plane()

    def start_plane(self) -> None:
        """Start the data plane, for as long as the reactor runs; before it ends, sessions are told. Idempotent."""
        if self._is_plane_started:
            return
        self._is_plane_started = True
        self.plane.start()
        self.reactor.addSystemEventTrigger("before", "shutdown", self.before_end)
        self.reactor.addSystemEventTrigger("during", "shutdown", self._stop_plane)

    def _stop_plane(self) -> None:
        for transport in self.transports.values():
            transport.release()
        self.plane.stop()

    def _shut_down(self, sessions: "list[FrontSession | EchoSession | WebConnection]") -> None:
        batch, rest = sessions[:SHUTDOWN_BATCH], sessions[SHUTDOWN_BATCH:]
        for session in batch:
            try:
                session.shut_down()
            except Exception:
                log.exception("error while a client was told of the end; it is cut off")
                session.crashed()
        if rest:
            self.reactor.callLater(0, self._shut_down, rest)


def _marshal(thing: Managed) -> dict[str, Any]:
    return thing.marshal()


def _follow(done: "Deferred[bool]") -> "Deferred[bool]":
    """A Deferred of one's own that fires with another one."""
    other: Deferred[bool] = Deferred()

    def pass_on(result: bool) -> bool:
        other.callback(result)
        return result

    done.addCallback(pass_on)
    return other


def _require_id(kind: str, object_id: str) -> None:
    if not 0 < len(object_id) <= ID_LENGTH_MAX:
        shown = render_value(object_id, ("id",))
        raise InvalidArgument(f"{kind}_id: {shown}: expected 1 to {ID_LENGTH_MAX} characters")


def _some(kind: str, names: list[str]) -> str:
    """Some of many, for an error text."""
    shown = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{kind}{'s' if len(names) > 1 else ''} {shown}{more}"
