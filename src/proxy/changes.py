"""From what a worker runs to what a configuration names: the fewest starts and stops, and all of them or none."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks

from proxy.config import ConnectionConfig, WorkerConfig
from proxy.connections import ProxyConnection
from proxy.errors import AlreadyRunning, NotRunning
from proxy.lifecycle import State
from proxy.management.procedures import Caller
from proxy.routes import ProxyRoute
from proxy.transports import ProxyTransport

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["Booked", "Change"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Booked:
    """What a configuration file has put into service, in contrast to what the management API has.

    :ivar connections: by id.
    :ivar routes: by realm; a file has one route for each.
    :ivar transports: by id.
    """

    connections: dict[str, ProxyConnection] = field(default_factory=dict)
    routes: dict[str, ProxyRoute] = field(default_factory=dict)
    transports: dict[str, ProxyTransport] = field(default_factory=dict)


class Change:
    """One change of a worker to another configuration.

    Items are compared as they are once parsed: the order of keys, or a default that is spelled out, is no change. What
    is to be opened is opened first; a failure until then leaves everything as it was. Sessions stay.

    :param controller: the worker.
    :param booked: what the file put into service before; :meth:`run` keeps it true.
    :param config: what the file says now.
    :param caller: who asked for it.

    :ivar started: ids, by kind; of routes by kind and realm. What was replaced is in both.
    :ivar stopped: likewise.
    :ivar warnings: what was left as it is against the file, for people.
    """

    def __init__(
        self, controller: "ProxyController", booked: Booked, config: WorkerConfig, caller: Caller | None = None
    ) -> None:
        self._controller = controller
        self._booked = booked
        # What it is to be again if the change fails.
        self._before = Booked(dict(booked.connections), dict(booked.routes))
        self._config = config
        self._caller = caller
        self._fresh: list[ProxyTransport] = []
        self._leaving: list[ProxyTransport] = []
        self._undo: list[Callable[[], Deferred[Any]]] = []
        self.started: dict[str, Any] = {"connections": [], "routes": {}, "transports": []}
        self.stopped: dict[str, Any] = {"connections": [], "routes": {}, "transports": []}
        self.warnings: list[str] = []

    @inlineCallbacks
    def run(self) -> Any:
        """Do it.

        :returns: fires when all is started and stopped; fails with the ProxyError of what cannot be.
        """
        self._fresh = [
            ProxyTransport(self._controller, model.id, model)
            for model in self._config.transports
            if not _is_same(self._controller.transports.get(model.id), model)
        ]
        try:
            yield _all([transport.look_up() for transport in self._fresh])
            # From here on to the first stop of a transport no other event of the reactor is handled.
            if self._controller.is_stopping:
                raise NotRunning("the worker is shutting down")
            self._see_that_nothing_is_in_between()
        except Exception:
            self._give_up()
            raise
        self._leaving = self._find_leaving()
        self._open()
        try:
            yield self._change_connections()
            yield self._change_routes()
            yield self._drop_connections()
        except Exception:
            yield self._take_back()
            raise
        yield self._change_transports()

    # --- transports: taking the addresses ---

    def _see_that_nothing_is_in_between(self) -> None:
        """See that what is to be replaced neither starts nor stops at this moment, and that what is to stay is there.

        :raises AlreadyRunning: it does, or is not.
        """
        controller = self._controller
        for transport in self._fresh:
            _require_settled(controller.transports, transport.id)
        fresh = {transport.id for transport in self._fresh}
        for model in self._config.transports:
            # Names of interfaces were looked up since this was found to be as the file has it.
            if model.id not in fresh and not _is_same(controller.transports.get(model.id), model):
                raise AlreadyRunning(f'transport "{model.id}" was stopped meanwhile: try again')
        for connection_id in self._config.connections:
            _require_settled(controller.connections, connection_id)

    def _find_leaving(self) -> list[ProxyTransport]:
        """The transports to stop: those that the file lacks now or has otherwise, and those in the way of new ones."""
        names = {model.id for model in self._config.transports}
        replaced = {transport.id for transport in self._fresh}
        leaving = []
        for transport_id, transport in self._controller.transports.items():
            if transport_id in names:
                if transport_id in replaced:
                    leaving.append(transport)
            elif transport.state not in (State.STARTED, State.FAILED):
                pass  # it leaves by itself; until it has, its address cannot be had, and its socket not be relied on
            elif self._booked.transports.get(transport_id) is transport:
                leaving.append(transport)
            elif any(fresh.succeeds(transport) for fresh in self._fresh):
                self._warn(f"{transport.label}, which the file does not name, is stopped: the file has its address")
                leaving.append(transport)
        return leaving

    def _open(self) -> None:
        """Take all addresses, and accept clients there; or none.

        :raises CannotListen: one of them cannot be had.
        """
        try:
            for transport in self._fresh:
                transport.open(self._leaving)
            for transport in self._fresh:
                transport.listen()
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        for transport in self._fresh:
            transport.give_up()

    # --- connections and routes ---

    @inlineCallbacks
    def _change_connections(self) -> Any:
        for connection_id, model in self._config.connections.items():
            running = self._controller.connections.get(connection_id)
            if not _is_same(running, model):
                if running is not None:
                    yield self._stop_connection(running)
                yield self._start_connection(connection_id, model)
                if running is not None:
                    self._hand_over(running)
            self._booked.connections[connection_id] = self._controller.connections[connection_id]

    @inlineCallbacks
    def _start_connection(self, connection_id: str, model: ConnectionConfig) -> Any:
        controller = self._controller
        yield controller.start_proxy_connection(connection_id, model, details=self._caller)
        self.started["connections"].append(connection_id)
        self._undo.append(lambda: controller.stop_proxy_connection(connection_id, force=True, details=self._caller))

    @inlineCallbacks
    def _stop_connection(self, connection: ProxyConnection) -> Any:
        controller = self._controller
        yield controller.stop_proxy_connection(connection.id, force=True, details=self._caller)
        self.stopped["connections"].append(connection.id)
        self._undo.append(lambda: self._restart_connection(connection))

    @inlineCallbacks
    def _restart_connection(self, connection: ProxyConnection) -> Any:
        controller, booked = self._controller, self._before.connections
        yield controller.start_proxy_connection(connection.id, connection.model, details=self._caller)
        successor = self._hand_over(connection)
        if booked.get(connection.id) is connection:
            booked[connection.id] = successor

    def _hand_over(self, connection: ProxyConnection) -> ProxyConnection:
        """Have the connection that goes by the same id now take the place of a stopped one."""
        successor = connection.successor = self._controller.connections[connection.id]
        # What an operator keeps out of service is not put back by a change of its options.
        successor.is_draining = connection.is_draining
        return successor

    @inlineCallbacks
    def _change_routes(self) -> Any:
        for realm, roles in self._config.routes.items():
            if roles:
                yield self._change_route(realm, {role: tuple(dict.fromkeys(ids)) for role, ids in roles.items()})
        for realm in [realm for realm in self._booked.routes if not self._config.routes.get(realm)]:
            yield self._stop_route(self._booked.routes.pop(realm))

    @inlineCallbacks
    def _change_route(self, realm: str, roles: dict[str, tuple[str, ...]]) -> Any:
        controller, booked = self._controller, self._booked.routes
        there = [route for route in controller.routes.of_realm(realm) if route.is_started and route.roles == roles]
        before = booked.get(realm)
        if there:
            booked[realm] = before if before in there else there[0]
        else:
            # The new one is there before the old one goes: no login finds the realm without a route.
            booked[realm] = route = yield self._start_route(realm, roles)
            self.started["routes"].setdefault(realm, []).append(route.id)
            self._undo.append(lambda: controller.stop_proxy_realm_route(realm, route.id, details=self._caller))
        if before is not None and before is not booked[realm]:
            yield self._stop_route(before)

    @inlineCallbacks
    def _stop_route(self, route: ProxyRoute) -> Any:
        controller = self._controller
        if controller.routes.get(route.realm, route.id) is not route:
            return  # the management API has stopped it
        yield controller.stop_proxy_realm_route(route.realm, route.id, details=self._caller)
        self.stopped["routes"].setdefault(route.realm, []).append(route.id)
        self._undo.append(lambda: self._restart_route(route))

    @inlineCallbacks
    def _restart_route(self, route: ProxyRoute) -> Any:
        again = yield self._start_route(route.realm, route.config)
        if self._before.routes.get(route.realm) is route:
            self._before.routes[route.realm] = again

    @inlineCallbacks
    def _start_route(self, realm: str, config: Mapping[str, Any]) -> Any:
        shown = yield self._controller.start_proxy_realm_route(realm, config, details=self._caller)
        return self._controller.routes.get(realm, shown["id"])

    @inlineCallbacks
    def _drop_connections(self) -> Any:
        booked = self._booked.connections
        for connection_id in [name for name in booked if name not in self._config.connections]:
            connection = booked[connection_id]
            if self._controller.connections.get(connection_id) is connection:
                users = ", ".join(sorted(f'"{route.id}"' for route in self._controller.routes.using(connection_id)))
                if users:
                    self._warn(f"{connection.label} is not in the file any more, and stays: route {users} names it")
                    continue
                yield self._stop_connection(connection)
            del booked[connection_id]

    # --- transports: changing hands ---

    def _change_transports(self) -> "Deferred[None]":
        """Start the new ones, which listen already, and stop the old ones."""
        controller, booked = self._controller, self._booked.transports
        new = {transport.id: transport for transport in self._fresh}
        ending = {transport.id: transport for transport in self._leaving}
        for transport in self._leaving:
            transport.successor = new.get(transport.id) or next(
                (other for other in self._fresh if other.predecessor is transport), None
            )
        kept = {model.id for model in self._config.transports} - new.keys()
        booked.clear()
        booked.update({name: controller.transports[name] for name in kept if name in controller.transports})
        waiting = [self._start_transport(transport) for name, transport in new.items() if name not in ending]
        for name in ending:
            done: Deferred[Any] = controller.stop_proxy_transport(name, details=self._caller)
            self.stopped["transports"].append(name)
            waiting.append(done.addCallback(self._follow, new[name]) if name in new else done)
        return _all(waiting)

    def _follow(self, _: object, successor: ProxyTransport) -> "Deferred[Any]":
        return self._start_transport(successor)

    def _start_transport(self, transport: ProxyTransport) -> "Deferred[Any]":
        if self._controller.is_stopping:
            transport.give_up()
            raise NotRunning("the worker is shutting down")
        self._booked.transports[transport.id] = transport
        self.started["transports"].append(transport.id)
        return self._controller.transports.start(transport.id, transport, self._caller)

    # --- the way back ---

    @inlineCallbacks
    def _take_back(self) -> Any:
        self._give_up()
        for step in reversed(self._undo):
            try:
                yield step()
            except Exception:
                log.exception("a part of a change of the configuration cannot be taken back")
        self._booked.connections, self._booked.routes = self._before.connections, self._before.routes

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        log.warning("%s", text)


def _is_same(running: ProxyConnection | ProxyTransport | None, model: Any) -> bool:
    return running is not None and running.is_started and running.model == model


def _require_settled(registry: Any, object_id: str) -> None:
    running = registry.get(object_id)
    if running is None:
        registry.require_free(object_id)
    elif running.state not in (State.STARTED, State.FAILED):
        raise AlreadyRunning(f"{running.label} is {running.state.name.lower()}: try again when that is over")


def _all(waiting: "list[Deferred[Any]]") -> "Deferred[None]":
    """Fires when all have; fails with the error of the first in the list that failed."""

    def check(results: list[tuple[bool, Any]]) -> None:
        for is_done, result in results:
            if not is_done:
                result.raiseException()

    done: Deferred[Any] = DeferredList(waiting, consumeErrors=True)
    return done.addCallback(check)
