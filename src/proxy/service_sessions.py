"""Sessions of the proxy's own at the routers, for those parts of it that call procedures there.

Made when they are asked for, shared, and made anew at the next request once they are lost. A failure is never kept.
"""

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from autobahn.wamp.exception import TransportLost
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from proxy.addresses import ResolveError
from proxy.auth.base import Accept, Challenge
from proxy.auth.routers import Client, LoginError, RouterLogin
from proxy.connections import ProxyConnection
from proxy.errors import NoSuchObject, ProxyError
from proxy.messages import SER_CBOR, SERIALIZER_NAMES
from proxy.routes import NoSuchRealm, NoSuchRole
from proxy.service_attempts import Attempt, Broken, NoServiceSession, NotSpoken, ServiceSession, Unreachable, abort

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["NoServiceSession", "ServiceSession", "ServiceSessions"]

log = logging.getLogger(__name__)

DEADLINE_SECONDS: Final = 10.0
"""For whoever asks, from the request to the session."""

PAUSE_FIRST: Final = 0.25
PAUSE_LIMIT: Final = 2.0
"""Between two rounds over all connections, seconds; doubled each time."""

AUTHMETHOD: Final = "proxy"
"""What the router is told in place of how a client was authenticated."""

SYSTEM_SHUTDOWN: Final = "wamp.close.system_shutdown"
CLOSE_NORMAL: Final = "wamp.close.normal"


class ServiceSessions:
    """All of a worker.

    :param controller: whose routes and connections lead to the routers.
    :param deadline: for whoever asks, seconds.
    """

    def __init__(self, controller: "ProxyController", deadline: float = DEADLINE_SECONDS) -> None:
        self._controller = controller
        self._deadline = deadline
        self._services: dict[tuple[str, str], _Service] = {}
        self._is_closed = False

    def get(self, realm: str, authrole: str) -> "Deferred[Any]":
        """A session that is joined to a realm.

        It logs in as the connection does for clients. Where that asserts identities (``*-proxy``), it has this authrole
        there; else the router chooses.

        :returns: fires with the session (autobahn's ApplicationSession), which is not the caller's to close; fails with
            NoSuchObject (no route), or NoServiceSession when the deadline is over or the router refuses it. May be
            cancelled.
        """
        if self._is_closed:
            return fail(NoServiceSession("the worker is about to end"))
        key = realm, authrole
        service = self._services.get(key)
        if service is None:
            try:
                _require_route(self._controller, realm, authrole)
            except NoSuchObject as error:
                return fail(error)
            service = self._services[key] = _Service(self._controller, realm, authrole, self._forget)
        return service.get(self._deadline)

    def _forget(self, service: "_Service") -> None:
        key = service.realm, service.authrole
        if self._services.get(key) is service:
            del self._services[key]

    def review(self) -> None:
        """Close the sessions that no started route and connection lead to any more. To be called when one was stopped,
        or a connection takes no logins from now on."""
        for service in list(self._services.values()):
            service.review()

    def close(self) -> "Deferred[None]":
        """Close all. There are no more from now on.

        :returns: fires when all are gone; a router that does not answer is not waited for longer than its connection
            has for that. Never fails.
        """
        self._is_closed = True
        done: Deferred[Any] = DeferredList([service.close() for service in list(self._services.values())])
        return done.addCallback(lambda _: None)


class _Service:
    """The session for one realm and role, and those who wait for it."""

    def __init__(
        self, controller: "ProxyController", realm: str, authrole: str, forget: "Callable[[_Service], None]"
    ) -> None:
        self._controller = controller
        self.realm = realm
        self.authrole = authrole
        self._forget = forget
        self._session: ServiceSession | None = None
        self._connection: ProxyConnection | None = None
        self._waiters: dict[Deferred[Any], Any] = {}
        self._search: Deferred[Any] | None = None
        self._trouble = ""
        self._ends: dict[ServiceSession, Deferred[None]] = {}

    def __str__(self) -> str:
        return f'service session for realm "{self.realm}", role "{self.authrole}"'

    # --- those who ask ---

    def get(self, deadline: float) -> "Deferred[Any]":
        """See :meth:`ServiceSessions.get`."""
        session = self._session
        if session is not None and session.is_attached():
            return succeed(session)
        waiter: Deferred[Any] = Deferred(self._drop_waiter)
        self._waiters[waiter] = self._controller.reactor.callLater(deadline, self._expired, waiter, deadline)
        if self._search is None:
            self._trouble = ""
            search: Deferred[Any] = self._find()
            if not search.called:
                self._search = search
            search.addCallbacks(self._found, self._not_found)
        return waiter

    def _drop_waiter(self, waiter: "Deferred[Any]") -> None:
        timer = self._waiters.pop(waiter, None)
        if timer is not None and timer.active():
            timer.cancel()
        self._stop_searching_for_nobody()

    def _expired(self, waiter: "Deferred[Any]", deadline: float) -> None:
        del self._waiters[waiter]
        trouble = self._trouble or "no answer"
        self._stop_searching_for_nobody()
        waiter.errback(NoServiceSession(f"no {self} within {deadline:g} s: {trouble}"))

    def _stop_searching_for_nobody(self) -> None:
        if not self._waiters and self._search is not None:
            self._search.cancel()

    def _answer(self, result: ServiceSession | None) -> None:
        waiters, self._waiters = self._waiters, {}
        for timer in waiters.values():
            timer.cancel()
        for waiter in waiters:
            waiter.callback(result)

    def _found(self, session: ServiceSession | None) -> None:
        self._search = None
        self._answer(session)
        self._tidy()

    def _not_found(self, failure: Failure) -> None:
        self._search = None
        if not failure.check(ProxyError, CancelledError):
            log.error("error while joining a router\n%s", failure.getTraceback())
            failure = Failure(NoServiceSession(f"no {self}: internal error of the proxy"))
        self._tidy()
        if self._waiters:
            # Failures hold on to what was going on; each who waits gets one of its own.
            error = failure.value
            waiters = list(self._waiters)
            for waiter in waiters:
                self._waiters.pop(waiter).cancel()
            for waiter in waiters:
                waiter.errback(error)

    def _tidy(self) -> None:
        if self._session is None and self._search is None:
            self._forget(self)

    # --- the search ---

    @inlineCallbacks
    def _find(self) -> Any:
        """Go over the connections again and again, until one leads to a session, or nobody waits any more."""
        pause = PAUSE_FIRST
        while self._waiters:
            session = yield self._try_all()
            if session is not None:
                return session
            yield deferLater(self._controller.reactor, pause, lambda: None)
            pause = min(PAUSE_LIMIT, 2 * pause)
        return None

    @inlineCallbacks
    def _try_all(self) -> Any:
        """Go over the connections once."""
        _require_route(self._controller, self.realm, self.authrole)
        try:
            candidates = self._controller.pick(self.realm, self.authrole, SER_CBOR)
        except (NoSuchRealm, NoSuchRole):
            candidates = []
        self._trouble = self._trouble if candidates else "its route has no connection that is in service"
        refusal: NoServiceSession | None = None
        for connection in sorted(candidates, key=lambda item: item.is_down(SER_CBOR)):
            try:
                session = yield self._try(connection)
            except NoServiceSession as error:
                # Another router may take it; this one will not, however often it is asked.
                refusal = NoServiceSession(f'no {self}: connection "{connection.id}": {error.message}')
                continue
            except (Unreachable, NotSpoken, Broken, ResolveError) as error:
                if isinstance(error, Unreachable | ResolveError):
                    connection.mark_down()
                self._trouble = f'connection "{connection.id}": {error}'
                log.debug("%s: %s", self, self._trouble)
                continue
            if not self._leads_to(connection):
                self._end(session, connection, CLOSE_NORMAL)
                self._trouble = f'connection "{connection.id}" was taken out of service'
                continue
            self._session, self._connection = session, connection
            log.info('%s: session %d at "%s"', self, session.session_id, connection.id)
            return session
        if refusal is not None:
            raise refusal
        return None

    @inlineCallbacks
    def _try(self, connection: ProxyConnection) -> Any:
        """Join the router of one connection: each serializer at each address, until the router says yes or no."""
        self._login(connection)  # before anything is dialled
        addresses = yield self._controller.resolver.resolve(connection.model.transport.endpoint)
        error: Exception = Broken("speaks no serializer that can be used here")
        for serializer in _serializers(connection):
            for address in addresses:
                try:
                    session = yield Attempt(self._controller, connection, self._login(connection), self._lost).start(
                        address, serializer
                    )
                except Unreachable as trouble:
                    error = trouble
                    continue
                except NotSpoken as trouble:
                    error = trouble
                    break
                connection.mark_up(serializer)
                return session
            if isinstance(error, Unreachable):
                break
        raise error

    def _login(self, connection: ProxyConnection) -> RouterLogin:
        """How to log in: as the connection does for clients, and with an authid by which a router can know us.

        :raises NoServiceSession: not at all.
        """
        if connection.relays:
            raise NoServiceSession("its router decides on logins (passthrough), and the proxy has no account there")
        controller = self._controller
        own_id = f"proxy-{controller.node_id}-{controller.worker_id}"
        accept = Accept(self.realm, own_id, self.authrole, AUTHMETHOD, AUTHMETHOD, dict(controller.own_authextra))
        try:
            return connection.login(Client(_Nobody(), {"roles": {}}, accept, {}, controller.identity, lambda sid: sid))
        except LoginError as error:
            raise NoServiceSession(str(error)) from None

    # --- the end ---

    def _lost(self, session: ServiceSession, why: str, is_gone: bool) -> None:
        """A session that was joined is over, or its transport is closed."""
        if session is self._session:
            log.info("%s: the session has ended: %s", self, why)
            self._session = self._connection = None
            self._tidy()
        end = self._ends.pop(session, None) if is_gone else None
        if end is not None:
            end.callback(None)

    def _leads_to(self, connection: ProxyConnection) -> bool:
        is_there = self._controller.connections.get(connection.id) is connection
        routes = self._controller.routes.of_realm(self.realm)
        return (
            is_there
            and connection.takes_logins
            and any(connection.id in route.roles.get(self.authrole, ()) for route in routes)
        )

    def review(self) -> None:
        """See :meth:`ServiceSessions.review`."""
        if self._session is not None and self._connection is not None and not self._leads_to(self._connection):
            session, connection = self._session, self._connection
            self._session = self._connection = None
            self._end(session, connection, CLOSE_NORMAL)
            self._tidy()
        try:
            _require_route(self._controller, self.realm, self.authrole)
        except NoSuchObject as error:
            self._give_up(error)

    def _give_up(self, error: ProxyError) -> None:
        waiters, self._waiters = self._waiters, {}
        for timer in waiters.values():
            timer.cancel()
        self._stop_searching_for_nobody()
        for waiter in waiters:
            waiter.errback(error)

    def close(self) -> "Deferred[None]":
        """See :meth:`ServiceSessions.close`."""
        self._give_up(NoServiceSession("the worker is about to end"))
        session, connection = self._session, self._connection
        self._session = self._connection = None
        if session is None or connection is None:
            return succeed(None)
        return self._end(session, connection, SYSTEM_SHUTDOWN)

    def _end(self, session: ServiceSession, connection: ProxyConnection, reason: str) -> "Deferred[None]":
        """Say GOODBYE, and close the transport when it is answered, or after as long as the connection has for that."""
        transport = session._transport
        if transport is None:
            return succeed(None)
        end = self._ends[session] = Deferred()
        timer = self._controller.reactor.callLater(connection.goodbye_ms / 1000, abort, transport)

        def ended(result: None) -> None:
            if timer.active():
                timer.cancel()

        end.addCallback(ended)
        try:
            session.leave(reason)
        except TransportLost:
            abort(transport)
        return end


class _Nobody:
    """In place of a client's session: what the proxy cannot answer itself, nobody can."""

    def challenge(self, challenge: Challenge) -> None:
        """Refuse."""
        raise LoginError("there is no client to ask")


def _require_route(controller: "ProxyController", realm: str, authrole: str) -> None:
    if not controller.has_realm(realm):
        raise NoSuchObject(f'no route for realm "{realm}"')
    if not controller.has_role(realm, authrole):
        raise NoSuchObject(f'no route for role "{authrole}" in realm "{realm}"')


def _serializers(connection: ProxyConnection) -> Iterator[int]:
    """Those to try, the best first."""
    ways = connection.open_ways(SER_CBOR)
    if not ways:  # one that is not translated to: only UBJSON, for example
        ways = tuple(way for way in SERIALIZER_NAMES if connection.ways(way) == (way,))
    yield from ways
