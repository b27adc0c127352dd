"""The management API on a realm of some router: the worker logs in there, registers its procedures, and comes again
whenever it is thrown out.
"""

import logging
import os
import random
from typing import TYPE_CHECKING, Any, Final

from autobahn.twisted.wamp import Session
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CloseDetails, ComponentConfig, SessionDetails
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from proxy.auth.proofs import PROOFS
from proxy.config.findings import render_value
from proxy.management.session import SessionCarrier
from proxy.wamp_client import SessionTransport

if TYPE_CHECKING:
    from proxy.config.management import ManagementConfig
    from proxy.controller import ProxyController

__all__ = ["RemoteManagement"]

log = logging.getLogger(__name__)

# From the transport's handshake to the last procedure that is registered, seconds.
JOIN_TIMEOUT: Final = 30.0


class RemoteManagement:
    """The worker's place on the management realm of a router.

    :param controller: the worker.
    :param config: ``management`` of its configuration, with a transport.
    """

    def __init__(self, controller: "ProxyController", config: "ManagementConfig") -> None:
        assert config.transport is not None
        self._controller = controller
        self._config = config
        self._transport = config.transport
        self._reactor = controller.reactor
        self._attempt: _Attempt | None = None
        self._connecting: Deferred[None] | None = None
        self._timer: Any = None  # IDelayedCall
        self._failures = 0
        self._is_closing = False

    @property
    def _address(self) -> str:
        endpoint = self._transport.endpoint
        where = endpoint.path if endpoint.type == "unix" else f"{endpoint.host}:{endpoint.port}"
        return f"realm {self._config.realm} at {where}"

    def open(self) -> None:
        """Begin to connect.

        :raises FeatureUnavailable: of the serializers none is spoken here.
        """
        tls = self._transport.endpoint.tls
        if tls is not None and not tls.verify:
            log.warning("management: verify is off: anybody in between can pass for the router, and manage the worker")
        self._connect()

    def _authenticators(self) -> list[Any]:
        """New ones: what one says in a login is for that login."""
        auth = self._config.auth
        methods = auth.methods if auth is not None else {}
        return [PROOFS[name](**method.arguments) for name, method in methods.items()]

    # --- connecting ---

    def _connect(self) -> None:
        self._timer = None
        self._attempt = _Attempt(self, self._controller, self._config.realm, self._authenticators())
        transport = SessionTransport(self._reactor, self._transport, self._attempt.make_session)
        self._attempt.transport = transport
        self._connecting = maybeDeferred(transport.connect)
        transport.closed.addCallback(self._is_over)
        self._connecting.addCallbacks(self._has_connected, self._cannot_connect)

    def _has_connected(self, _: None) -> None:
        self._connecting = None

    def _cannot_connect(self, failure: Failure) -> None:
        self._connecting = None
        if self._attempt is not None:
            self._attempt.why = failure.getErrorMessage()
        self._is_over(None)

    def _is_over(self, _: None) -> None:
        """The connection is gone, or never came to be."""
        attempt, self._attempt = self._attempt, None
        if attempt is None or self._is_closing:
            return
        why = attempt.end()
        self._failures = 0 if attempt.is_ready else self._failures + 1
        limit = self._transport.max_retries
        if 0 <= limit < self._failures:
            log.error("management: %s is given up after %d attempts: %s", self._address, self._failures, why)
            return
        delay = self._delay()
        log.warning("management: %s: %s; next attempt in %.1f s", self._address, why, delay)
        self._timer = self._reactor.callLater(delay, self._connect)

    def _delay(self) -> float:
        config = self._transport
        exponent = min(max(self._failures - 1, 0), 100)
        delay = min(config.initial_retry_delay * config.retry_delay_growth**exponent, config.max_retry_delay)
        # Not for secrets: workers that lost one router are not to come back to it in one moment.
        spread = random.normalvariate(delay, delay * config.retry_delay_jitter)
        return min(max(spread, config.initial_retry_delay / 2), config.max_retry_delay)

    def ready(self, session_id: int) -> None:
        """The procedures are registered."""
        log.info("management: on %s as session %d", self._address, session_id)

    # --- the end ---

    def close(self) -> "Deferred[None]":
        """See :class:`proxy.management.opening.Management`."""
        self._is_closing = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return succeed(None)
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            return succeed(None)
        return attempt.leave()


_LOST: Final = "the connection was lost"


class _Attempt:
    """One connection and the session on it.

    :ivar why: what ended it, as far as it is known; for people.
    :ivar is_ready: all procedures were registered.
    """

    transport: SessionTransport

    def __init__(
        self, management: RemoteManagement, controller: "ProxyController", realm: str, authenticators: list[Any]
    ) -> None:
        self._management = management
        self._controller = controller
        self._realm = realm
        self._authenticators = authenticators
        self._session: _Session | None = None
        self._carrier: SessionCarrier | None = None
        self._timer: Any = None  # IDelayedCall
        self.why = "the handshake of the transport failed"
        self.is_ready = False

    def make_session(self) -> "_Session":
        """The transport's handshake is done."""
        self.transport.opened()
        self.why = _LOST
        self._session = _Session(ComponentConfig(self._realm), self)
        for authenticator in self._authenticators:
            self._session.add_authenticator(authenticator)  # type: ignore[no-untyped-call]
        self._timer = self._controller.reactor.callLater(JOIN_TIMEOUT, self._overdue)
        return self._session

    def _overdue(self) -> None:
        self._timer = None
        self.why = f"not joined, or not all procedures registered, within {JOIN_TIMEOUT:.0f} s"
        self.transport.abort()

    def refused(self, why: str) -> None:
        """The router is not to be trusted: autobahn sends ABORT, and would wait then."""
        self.why = why
        assert self._session is not None
        self._controller.reactor.callLater(0, self._session.disconnect)

    def joined(self, details: SessionDetails) -> None:
        """The router let the worker in."""
        self._carrier = SessionCarrier(self._session, self._controller, self._controller.uri_prefix)
        self._carrier.register().addCallbacks(self._registered, self._unregistered, (details.session,))

    def _registered(self, _: list[str], session_id: int) -> None:
        self._cancel_timer()
        assert self._carrier is not None
        self.is_ready = True
        self._controller.carriers.append(self._carrier)
        self._management.ready(session_id)
        controller = self._controller
        ready = {"type": controller.WORKER_TYPE, "id": controller.worker_id, "pid": os.getpid()}
        self._carrier.publish_event(f"{controller.uri_prefix}.on_worker_ready", (ready,), None, True)

    def _unregistered(self, failure: Failure) -> None:
        errors = getattr(failure.value, "kwargs", {}).get("errors") or [failure.getErrorMessage()]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        self.why = f"{errors[0]}{more}"
        if self._session is not None and self._session.is_attached():
            self._session.leave("wamp.close.normal")

    def left(self, details: CloseDetails) -> None:
        """The router let the worker go, or never let it in."""
        if details.reason != CloseDetails.REASON_TRANSPORT_LOST and (self.is_ready or self.why == _LOST):
            message = f", {render_value(details.message, ())}" if details.message else ""
            self.why = f"the router said {details.reason}{message}"
        self._forget_carrier()

    def end(self) -> str:
        """The connection is gone.

        :returns: why, for people.
        """
        self._cancel_timer()
        self._forget_carrier()
        return self.transport.trouble or self.why

    def leave(self) -> "Deferred[None]":
        """Say GOODBYE. Fires once the connection is gone."""
        self._cancel_timer()
        self._forget_carrier()
        done = self.transport.close()
        if self._session is not None and self._session.is_attached():
            self._session.leave("wamp.close.normal")
        else:
            self.transport.abort()
        return done

    def _forget_carrier(self) -> None:
        if self._carrier is not None and self._carrier in self._controller.carriers:
            self._controller.carriers.remove(self._carrier)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class _Session(Session):
    """autobahn's session of one attempt."""

    def __init__(self, config: ComponentConfig, attempt: _Attempt) -> None:
        super().__init__(config)
        self._attempt = attempt

    def onWelcome(self, welcome: Any) -> str | None:
        """WELCOME came: is the router the one that it should be?

        Whoever may call the worker's procedures may do everything. autobahn asks no authenticator where the router
        names no method, so that one which does not know the user's keys would only have to leave the name out.
        """
        methods: dict[str, Any] = self._authenticators or {}
        method = welcome.authmethod
        if method is None and len(methods) == 1:
            (method,) = methods
        why = None
        if method in methods:
            why = methods[method].on_welcome(self, welcome.authextra)
        elif methods and method is not None:
            why = f"the router says {render_value(method, ())}, expected {' or '.join(methods)}"
        elif "scram" in methods:
            why = "the router does not say how the worker has logged in"
        if why is not None:
            self._attempt.refused(why)
        return why

    def on_join(self, details: SessionDetails) -> None:
        self._attempt.joined(details)

    def on_leave(self, details: CloseDetails) -> None:
        self._attempt.left(details)
        self.disconnect()

    def onUserError(self, fail: Failure, msg: str) -> None:
        """What autobahn does not know where to put. Errors of procedures are the caller's and need no log."""
        level = logging.DEBUG if isinstance(fail.value, ApplicationError) else logging.WARNING
        log.log(level, "management: %s: %s", msg, fail.getErrorMessage())
