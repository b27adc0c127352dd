"""ProxyController: the registries of connections, routes and transports, and what starts and stops them.

Names of methods are those of the procedures of Crossbar.io's management API. What they raise are the classes of
:mod:`proxy.errors`.
"""

import os
from typing import Any, ClassVar, Final, Generic, TypeVar

from autobahn.wamp.types import ComponentConfig
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from proxy.addresses import Resolver
from proxy.config import WorkerConfig
from proxy.connections import ProxyConnection
from proxy.echo import EchoSession
from proxy.errors import AlreadyRunning, NoSuchObject, NotRunning
from proxy.lifecycle import Managed, State
from proxy.management.procedures import Caller, procedure
from proxy.plane import DataPlane, Plane
from proxy.routes import ProxyRoute, RouteTable
from proxy.session_ids import SessionIds
from proxy.sessions import FrontSession
from proxy.threads import thread_count
from proxy.transports import ProxyTransport
from proxy.worker import WorkerController

__all__ = ["ProxyController"]

# Sessions that are told of the shutdown per turn of the reactor.
SHUTDOWN_BATCH: Final = 500

T = TypeVar("T", bound=Managed)


class Registry(dict[str, T], Generic[T]):
    """The objects of one kind that are in service, by ID.

    :param kind: what error texts call one.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._starting: dict[str, T] = {}

    def find(self, object_id: str) -> T:
        """One of them.

        :raises NoSuchObject: there is none with this ID.
        """
        found = self.get(object_id)
        if found is None:
            raise NoSuchObject(f'no {self.kind} "{object_id}"')
        return found

    def require_free(self, object_id: str) -> None:
        """See that an ID is not taken.

        :raises AlreadyRunning: it is, by something that runs, starts or stops.
        """
        there = self.get(object_id) or self._starting.get(object_id)
        if there is not None:
            state = "running" if there.state is State.STARTED else there.state.name.lower()
            raise AlreadyRunning(f'{self.kind} "{object_id}" is already {state}')

    def start(self, object_id: str, thing: T, caller: Caller | None) -> "Deferred[T]":
        """Start something; it is in the registry once it is started.

        :returns: fires with it; fails as :meth:`Managed.start` does.
        """
        self._starting[object_id] = thing

        def has_started(_: None) -> T:
            del self._starting[object_id]
            self[object_id] = thing
            return thing

        def has_failed(failure: Failure) -> Failure:
            del self._starting[object_id]
            return failure

        return thing.start(caller).addCallbacks(has_started, has_failed)

    def stop(self, object_id: str, caller: Caller | None) -> "Deferred[T]":
        """Stop one of them; it leaves the registry once it is stopped.

        :returns: fires with it.
        :raises NoSuchObject: there is none with this ID.
        :raises NotRunning: it is about to start or to stop.
        """
        if object_id in self._starting:
            raise NotRunning(f'{self.kind} "{object_id}" is still starting')
        thing = self.find(object_id)
        if thing.state is State.STOPPING:
            raise NotRunning(f'{self.kind} "{object_id}" is stopping already')

        def has_stopped(_: None) -> T:
            self.pop(object_id, None)
            return thing

        return thing.stop(caller).addCallback(has_stopped)


class ProxyController(WorkerController):
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
        self.plane: Any = plane or DataPlane(self.reactor, thread_count(config))
        self.public_key = public_key
        # How long sessions may take to end at a shutdown, seconds.
        self.shutdown_timeout = WorkerConfig.model_fields["shutdown_timeout"].default / 1000
        self.session_ids = SessionIds(self.plane)
        self.resolver = Resolver(self.reactor)
        self.routes = RouteTable()
        self.connections: Registry[ProxyConnection] = Registry("connection")
        self.transports: Registry[ProxyTransport] = Registry("transport")
        # Stopped ones whose sessions stay: these are to hear of the worker's end, too.
        self._retired: list[ProxyTransport] = []
        self.is_stopping = False
        self.logs_sessions = True
        self._end: Deferred[bool] | None = None
        self._route_count = 0

    @property
    def identity(self) -> tuple[str, str | None]:
        """The proxy's own authid towards routers, and the hex of its public key or None."""
        return self.node_id, self.public_key

    @property
    def own_authextra(self) -> dict[str, Any]:
        """What every client is told in WELCOME.Details.authextra; sessions add x_cb_proxy_peer."""
        return {
            "x_cb_proxy_node": self.node_id,
            "x_cb_proxy_worker": self.worker_id,
            "x_cb_proxy_pid": os.getpid(),
        }

    def on_node_key(self, public_key: str) -> None:
        """See :class:`WorkerController`."""
        self.public_key = public_key

    def boot(self, config: WorkerConfig) -> "Deferred[None]":
        """Start what the configuration names: connections, routes, transports, in this order.

        :returns: fires when all is started; fails with the ProxyError of the first that cannot be: what is started by
            then stays so.
        """
        done: Deferred[None] = self._boot(config)
        return done

    @inlineCallbacks
    def _boot(self, config: WorkerConfig) -> Any:
        for connection_id, connection in config.connections.items():
            yield self.start_proxy_connection(connection_id, connection)
        for realm, roles in config.routes.items():
            if roles:
                yield self.start_proxy_realm_route(realm, roles)
        for transport in config.transports:
            yield self.start_proxy_transport(transport.id, transport)

    # --- what a login asks ---

    def has_realm(self, realm: str) -> bool:
        """Whether a started route is for this realm, for any role."""
        return self.routes.has_realm(realm)

    def has_role(self, realm: str, authrole: str) -> bool:
        """Whether a started route is for this realm and role."""
        return self.routes.has_role(realm, authrole)

    def pick(self, realm: str, role: str, serializer: int) -> list[ProxyConnection]:
        """The connections to try for one login, in order.

        :raises NoSuchRealm, NoSuchRole: as :meth:`RouteTable.pick`.
        """
        connections = self.connections

        def is_usable(connection_id: str) -> bool:
            connection = connections.get(connection_id)
            return connection is not None and connection.takes_logins and not connection.is_down(serializer)

        ids = self.routes.pick(realm, role, is_usable)
        found = [connections.get(connection_id) for connection_id in ids]
        return [connection for connection in found if connection is not None and connection.takes_logins]

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
        """
        self.connections.require_free(connection_id)
        connection = ProxyConnection(self, connection_id, config)
        return self.connections.start(connection_id, connection, details).addCallback(_marshal)

    @procedure
    def stop_proxy_connection(self, connection_id: str, details: Caller | None = None) -> "Deferred[dict[str, Any]]":
        """Take a connection out of service at once: routes that name it go on without. Joined sessions stay.

        :returns: fires with the connection.
        :raises NoSuchObject: there is none with this id.
        """
        return self.connections.stop(connection_id, details).addCallback(_marshal)

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
    def get_proxy_realm_route(
        self, realm_name: str, route_id: str, details: Caller | None = None
    ) -> dict[str, Any]:
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
        :raises InvalidConfiguration: no role, or something that is not an id.
        :raises NoSuchObject: a connection that does not exist.
        """
        route = ProxyRoute(self, realm_name, f"route{self._route_count:03d}", config)
        for ids in route.roles.values():
            for connection_id in ids:
                self.connections.find(connection_id)
        self._route_count += 1

        def has_started(_: None) -> dict[str, Any]:
            self.routes.add(route)
            return route.marshal()

        return route.start(details).addCallback(has_started)

    @procedure
    def stop_proxy_realm_route(
        self, realm_name: str, route_id: str, details: Caller | None = None
    ) -> "Deferred[dict[str, Any]]":
        """Take a route out of service at once. Sessions that came by it stay.

        :returns: fires with the route.
        :raises NoSuchObject: there is no such realm or route.
        """
        route = self._route(realm_name, route_id)
        self.routes.remove(route)
        return route.stop(details).addCallback(lambda _: route.marshal())

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
        """
        self.transports.require_free(transport_id)
        transport = ProxyTransport(self, transport_id, config)
        return self.transports.start(transport_id, transport, details).addCallback(_marshal)

    @procedure
    def stop_proxy_transport(self, transport_id: str, details: Caller | None = None) -> "Deferred[dict[str, Any]]":
        """Stop listening. Sessions that came through it stay.

        :returns: fires with the transport once nothing is accepted any more.
        :raises NoSuchObject: there is none with this id.
        """

        def has_stopped(transport: ProxyTransport) -> dict[str, Any]:
            self._retired = [*(other for other in self._retired if other.sessions), transport]
            return transport.marshal()

        return self.transports.stop(transport_id, details).addCallback(has_stopped)

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

        def all_gone() -> None:
            if timer.active():
                timer.cancel()
                done.callback(True)

        self.plane.on_idle = all_gone
        sessions: list[FrontSession | EchoSession] = []
        for transport in [*self.transports.values(), *self._retired]:
            sessions.extend(transport.sessions.values())
            if transport.state is State.STARTED:
                transport.stop()
        self.transports.clear()
        self._retired.clear()
        self._dismiss(sessions)
        if self.plane.is_idle:
            all_gone()
        return _follow(done)

    def before_end(self) -> "Deferred[Any]":
        """See :class:`WorkerController`."""
        return self.shut_down(self.shutdown_timeout)

    def start_plane(self) -> None:
        """Start the data plane, for as long as the reactor runs; before it ends, sessions are told."""
        self.plane.start()
        self.reactor.addSystemEventTrigger("before", "shutdown", self.before_end)
        self.reactor.addSystemEventTrigger("during", "shutdown", self._stop_plane)

    def _stop_plane(self) -> None:
        for transport in self.transports.values():
            transport.release()
        self.plane.stop()

    def _dismiss(self, sessions: list[FrontSession | EchoSession]) -> None:
        batch, rest = sessions[:SHUTDOWN_BATCH], sessions[SHUTDOWN_BATCH:]
        for session in batch:
            session.shut_down()
        if rest:
            self.reactor.callLater(0, self._dismiss, rest)


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
