"""ProxyController: the registries of connections, routes and transports, and what starts and stops them.

Method names are those of Crossbar.io's management procedures. What they raise are the classes of :mod:`proxy.errors`.
"""

import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError
from twisted.internet.defer import Deferred

from proxy.addresses import Resolver
from proxy.config import ConfigError, ConnectionConfig, TransportConfig, WorkerConfig
from proxy.config.findings import validation_findings
from proxy.connections import ProxyConnection
from proxy.echo import EchoSession
from proxy.errors import AlreadyRunning, InvalidConfiguration, NoSuchObject
from proxy.lifecycle import State
from proxy.plane import Plane
from proxy.routes import ProxyRoute, RouteTable
from proxy.session_ids import SessionIds
from proxy.sessions import FrontSession
from proxy.transports import ProxyTransport

__all__ = ["ProxyController"]

# Sessions that are told of the shutdown per turn of the reactor.
SHUTDOWN_BATCH: Final = 500

_TRANSPORT: Final[TypeAdapter[TransportConfig]] = TypeAdapter(TransportConfig)
_CONNECTION: Final[TypeAdapter[ConnectionConfig]] = TypeAdapter(ConnectionConfig)


class ProxyController:
    """Everything a worker runs.

    :param reactor: Twisted's reactor.
    :param plane: the data plane, started.
    :param worker_id: the worker's id.
    :param node_id: id of the node, and authid of the proxy towards routers; default: the host's name.
    :param public_key: hex of the node's public key, None without one.
    """

    def __init__(
        self, reactor: Any, plane: Plane, worker_id: str, node_id: str | None = None, public_key: str | None = None
    ) -> None:
        self.reactor = reactor
        self.plane = plane
        self.worker_id = worker_id
        self.node_id = node_id or socket.gethostname().lower()
        self.identity = (self.node_id, public_key)
        # What every client is told in WELCOME.Details.authextra; sessions add x_cb_proxy_peer.
        self.own_authextra: dict[str, Any] = {
            "x_cb_proxy_node": self.node_id,
            "x_cb_proxy_worker": worker_id,
            "x_cb_proxy_pid": os.getpid(),
        }
        self.session_ids = SessionIds(plane)
        self.routes = RouteTable()
        self.connections: dict[str, ProxyConnection] = {}
        self.transports: dict[str, ProxyTransport] = {}
        # Stopped ones whose sessions stay: these are to hear of the worker's end, too.
        self._retired: list[ProxyTransport] = []
        self.is_stopping = False
        self.logs_sessions = True
        self._resolver = Resolver(reactor)
        self._route_count = 0

    def boot(self, config: WorkerConfig) -> None:
        """Start what the configuration names: connections, routes, transports, in this order.

        :raises ProxyError: the first thing that cannot be started; what is started by then stays so.
        """
        for connection_id, connection in config.connections.items():
            self.start_proxy_connection(connection_id, connection)
        for realm, roles in config.routes.items():
            if roles:
                self.start_proxy_realm_route(realm, roles)
        for transport in config.transports:
            self.start_proxy_transport(transport.id, transport)

    # --- connections ---

    def get_proxy_connections(self) -> list[str]:
        """Ids of the connections, sorted."""
        return sorted(self.connections)

    def get_proxy_connection(self, connection_id: str) -> dict[str, Any]:
        """One connection as :meth:`ProxyConnection.marshal` shows it.

        :raises NoSuchObject: there is none with this id.
        """
        return self._connection(connection_id).marshal()

    def start_proxy_connection(
        self, connection_id: str, config: ConnectionConfig | Mapping[str, Any]
    ) -> dict[str, Any]:
        """Put a connection into service.

        :raises AlreadyRunning: the id is taken.
        :raises InvalidConfiguration: the configuration cannot be used.
        """
        if connection_id in self.connections:
            raise AlreadyRunning(f'connection "{connection_id}" is already running')
        model, raw = _checked(_CONNECTION, config)
        connection = ProxyConnection(connection_id, model, raw, self.reactor)
        connection.start(self.plane, self._resolver)
        self.connections[connection_id] = connection
        return connection.marshal()

    def stop_proxy_connection(self, connection_id: str) -> dict[str, Any]:
        """Take a connection out of service at once: routes that name it go on without. Joined sessions stay.

        :raises NoSuchObject: there is none with this id.
        """
        connection = self._connection(connection_id)
        connection.stop()
        del self.connections[connection_id]
        return connection.marshal()

    def _connection(self, connection_id: str) -> ProxyConnection:
        connection = self.connections.get(connection_id)
        if connection is None:
            raise NoSuchObject(f'no connection "{connection_id}"')
        return connection

    def pick(self, realm: str, role: str, serializer: int) -> list[ProxyConnection]:
        """The connections to try for one login, in order.

        :raises NoSuchRealm, NoSuchRole: as :meth:`RouteTable.pick`.
        """
        connections = self.connections

        def is_usable(connection_id: str) -> bool:
            connection = connections.get(connection_id)
            return connection is not None and not connection.is_down(serializer)

        ids = self.routes.pick(realm, role, is_usable)
        return [connections[connection_id] for connection_id in ids if connection_id in connections]

    # --- routes ---

    def get_proxy_routes(self) -> list[str]:
        """Names of the realms that have routes, sorted."""
        return self.routes.realms()

    def list_proxy_realm_routes(self, realm: str) -> list[dict[str, Any]]:
        """The routes of a realm, in the order they were started.

        :raises NoSuchObject: the realm has none.
        """
        routes = self.routes.of_realm(realm)
        if not routes:
            raise NoSuchObject(f'no route for realm "{realm}"')
        return [route.marshal() for route in routes]

    def get_proxy_realm_route(self, realm: str, route_id: str) -> dict[str, Any]:
        """One route as :meth:`ProxyRoute.marshal` shows it.

        :raises NoSuchObject: there is no such realm or route.
        """
        return self._route(realm, route_id).marshal()

    def start_proxy_realm_route(self, realm: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Put a route into service.

        :param config: role -> id of a connection, or a list of them that take turns.
        :raises InvalidConfiguration: no role, or something that is not an id.
        :raises NoSuchObject: a connection that does not exist.
        """
        roles = {role: self._connection_ids(realm, role, value) for role, value in config.items()}
        if not roles:
            raise InvalidConfiguration(f'route of realm "{realm}": expected at least one role, got none')
        for ids in roles.values():
            for connection_id in ids:
                self._connection(connection_id)
        self._route_count += 1
        route = ProxyRoute(realm, f"route{self._route_count:03d}", roles)
        route.start()
        self.routes.add(route)
        return route.marshal()

    def stop_proxy_realm_route(self, realm: str, route_id: str) -> dict[str, Any]:
        """Take a route out of service at once. Sessions that came by it stay.

        :raises NoSuchObject: there is no such realm or route.
        """
        route = self._route(realm, route_id)
        route.stop()
        self.routes.remove(route)
        return route.marshal()

    def _route(self, realm: str, route_id: str) -> ProxyRoute:
        route = self.routes.get(realm, route_id)
        if route is None:
            raise NoSuchObject(f'no route "{route_id}" for realm "{realm}"')
        return route

    @staticmethod
    def _connection_ids(realm: str, role: str, value: Any) -> tuple[str, ...]:
        ids = (value,) if isinstance(value, str) else value
        if not isinstance(ids, (list, tuple)) or not ids or not all(isinstance(item, str) for item in ids):
            raise InvalidConfiguration(
                f'route of realm "{realm}", role "{role}": expected the id of a connection or a list of them'
            )
        return tuple(ids)

    # --- transports ---

    def get_proxy_transports(self) -> list[str]:
        """Ids of the transports, sorted."""
        return sorted(self.transports)

    def get_proxy_transport(self, transport_id: str) -> dict[str, Any]:
        """One transport as :meth:`ProxyTransport.marshal` shows it.

        :raises NoSuchObject: there is none with this id.
        """
        return self._transport(transport_id).marshal()

    def start_proxy_transport(self, transport_id: str, config: TransportConfig | Mapping[str, Any]) -> dict[str, Any]:
        """Listen.

        :raises AlreadyRunning: the id is taken.
        :raises InvalidConfiguration: the configuration cannot be used.
        :raises CannotListen: the address cannot be listened on.
        """
        if transport_id in self.transports:
            raise AlreadyRunning(f'transport "{transport_id}" is already running')
        model, raw = _checked(_TRANSPORT, config)
        transport = ProxyTransport(self, transport_id, model, raw)
        transport.start()
        self.transports[transport_id] = transport
        return transport.marshal()

    def stop_proxy_transport(self, transport_id: str) -> "Deferred[dict[str, Any]]":
        """Stop listening. Sessions that came through it stay.

        :returns: fires with the transport once nothing is accepted any more.
        :raises NoSuchObject: there is none with this id.
        """
        transport = self._transport(transport_id)
        del self.transports[transport_id]
        self._retired = [*(other for other in self._retired if other.sessions), transport]
        return transport.stop().addCallback(lambda _: transport.marshal())

    def _transport(self, transport_id: str) -> ProxyTransport:
        transport = self.transports.get(transport_id)
        if transport is None:
            raise NoSuchObject(f'no transport "{transport_id}"')
        return transport

    # --- the end ---

    def shut_down(self, timeout: float) -> "Deferred[bool]":
        """Stop accepting, say goodbye to everybody, and wait until all are gone.

        :param timeout: seconds to wait at most.
        :returns: fires with True when all are gone, with False when the time was up before.
        """
        self.is_stopping = True
        done: Deferred[bool] = Deferred()
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
        return done

    def _dismiss(self, sessions: list[FrontSession | EchoSession]) -> None:
        batch, rest = sessions[:SHUTDOWN_BATCH], sessions[SHUTDOWN_BATCH:]
        for session in batch:
            session.shut_down()
        if rest:
            self.reactor.callLater(0, self._dismiss, rest)


def _checked(adapter: TypeAdapter[Any], config: Any) -> tuple[Any, Any]:
    """The checked configuration, and the same as it was given."""
    if isinstance(config, BaseModel):
        return config, config.model_dump(mode="json", exclude_unset=True, by_alias=True)
    try:
        return adapter.validate_python(config), config
    except ValidationError as error:
        raise ConfigError(validation_findings(error, config, ())) from error
