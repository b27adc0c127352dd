"""One attempt to join a router with a session of the proxy's own: from dial to WELCOME, over autobahn's transports."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autobahn.twisted.wamp import ApplicationSession
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.python.failure import Failure

from proxy.addresses import Address
from proxy.auth.routers import LoginError, RouterLogin
from proxy.connections import ProxyConnection
from proxy.errors import ProxyError
from proxy.messages import SERIALIZER_NAMES, Welcome
from proxy.service_requests import ServiceRequests
from proxy.wamp_client import client_factory, over_tls, watch_loss

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["Attempt", "Broken", "NoServiceSession", "NotSpoken", "ServiceSession", "Unreachable", "abort"]

log = logging.getLogger(__name__)


class NoServiceSession(ProxyError):
    """There is no session at a router, and why."""

    uri = "wamp.error.unavailable"


class Unreachable(Exception):
    """Nobody answers at this address."""


class NotSpoken(Exception):
    """The transport's handshake failed, maybe because of the serializer."""


class Broken(Exception):
    """The router was reached, and then it went wrong."""


class ServiceSession(ApplicationSession):
    """A session of the proxy's own.

    :param login: how to log in.
    :param told: called with each step: ``open``, ``joined``, ``refused`` (with CloseDetails), ``failed`` (with a text:
        the login goes no further), ``left``, ``gone``.

    :ivar requests: calls and publications for what others have said.
    """

    def __init__(self, login: RouterLogin, told: Callable[["ServiceSession", str, Any], None]) -> None:
        super().__init__()
        self._login = login
        self._told = told
        self._has_joined = False
        self.requests = ServiceRequests(self)

    def onMessage(self, msg: Any) -> None:
        """A message came."""
        if not self.requests.take(msg):
            super().onMessage(msg)

    def onConnect(self) -> None:
        """The transport is open: say HELLO."""
        self._told(self, "open", None)
        _, realm, details = self._login.hello()
        known = {key: details[key] for key in ("authmethods", "authid", "authrole", "authextra") if key in details}
        self.join(realm, **known)

    def onChallenge(self, challenge: Any) -> "Deferred[str]":
        """Prove who the proxy is. autobahn turns a failure into an ABORT for the router."""
        answer = maybeDeferred(self._login.challenge, challenge.method, challenge.extra or {})
        return answer.addCallbacks(lambda answer: str(answer[0]), self._cannot_answer)

    def _cannot_answer(self, failure: Failure) -> Failure:
        failure.trap(LoginError)
        self._told(self, "failed", failure.getErrorMessage())
        return failure

    def onWelcome(self, welcome: Any) -> str | None:
        """WELCOME came: is the router to be trusted? If not, autobahn sends ABORT."""
        try:
            self._login.verify(Welcome(welcome.session, {"authextra": welcome.authextra}))
        except LoginError as error:
            self._told(self, "failed", f"the router is not to be trusted: {error}")
            return str(error)
        return None

    def onJoin(self, details: Any) -> None:
        """The session may be used."""
        self._has_joined = True
        self._told(self, "joined", details)

    def onLeave(self, details: Any) -> Any:
        """The router does not take us, or the session is over."""
        self.requests.lost()
        self._told(self, "left" if self._has_joined else "refused", details)
        return super().onLeave(details)

    def onDisconnect(self) -> None:
        """The transport is closed."""
        self.requests.lost()
        self._told(self, "gone", None)
        super().onDisconnect()

    def onUserError(self, fail: Failure, msg: str) -> None:
        """What nobody waits for."""
        log.debug("service session: %s: %s", msg, fail.getErrorMessage())


class Attempt:
    """One connection to a router, from dial to WELCOME.

    :param login: how to log in.
    :param lost: told of the end of a session that was joined, why, and whether its transport is closed.
    """

    def __init__(
        self,
        controller: "ProxyController",
        connection: ProxyConnection,
        login: RouterLogin,
        lost: Callable[[ServiceSession, str, bool], None],
    ) -> None:
        self._reactor = controller.reactor
        self._connection = connection
        self._login = login
        self._lost = lost
        self._is_open = False
        self._protocol: Any = None
        self._timer: Any = None
        self._outcome: Deferred[Any] = Deferred(lambda _: self._abort())

    @inlineCallbacks
    def start(self, address: Address, serializer: int) -> Any:
        """Dial.

        :returns: fires with the session once it is joined; fails with what was in the way. May be cancelled.
        """
        seconds = self._connection.dial_ms / 1000
        factory = self._factory(serializer)
        connection = self._connection
        try:
            endpoint = over_tls(
                _endpoint(self._reactor, address, seconds), connection.model.transport, f"connection {connection.id}"
            )
            self._protocol = yield endpoint.connect(factory)
        except ConnectingCancelledError as error:
            raise CancelledError from error
        except Exception as error:
            raise Unreachable(f"{address} cannot be reached: {error}") from error
        watch_loss(
            self._protocol, lambda why: self._fail(Unreachable, f"{address} cannot be reached: TLS failed: {why}")
        )
        if address.path is None:
            self._protocol.transport.setTcpKeepAlive(True)
        self._timer = self._reactor.callLater(seconds, self._expired, "handshake", seconds)
        self._protocol.is_closed.addBoth(lambda _: self._fail(NotSpoken, "broke off the transport handshake"))
        try:
            session = yield self._outcome
        except NoServiceSession:
            self._abort_later()  # what was said last is to arrive; autobahn closes
            raise
        except BaseException:
            self._abort()
            raise
        finally:
            if self._timer.active():
                self._timer.cancel()
        return session

    def _factory(self, serializer: int) -> Any:
        # Loads all serializers that autobahn finds, with NumPy among their needs: not before somebody asks.
        from autobahn.wamp.serializer import create_transport_serializer

        connection = self._connection
        return client_factory(
            connection.model.transport,
            self._make_session,
            [create_transport_serializer(SERIALIZER_NAMES[serializer])],
            reactor=self._reactor,
            handshake_timeout=connection.dial_ms / 1000,
            close_timeout=connection.goodbye_ms / 1000,
            ping_interval=0,
            ping_timeout=0,
        )

    def _make_session(self) -> ServiceSession:
        return ServiceSession(self._login, self._told)

    def _told(self, session: ServiceSession, step: str, details: Any) -> None:
        if step == "open":
            self._is_open = True
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            seconds = self._connection.join_ms / 1000
            self._timer = self._reactor.callLater(seconds, self._expired, "login", seconds)
        elif step == "joined":
            if not self._outcome.called:
                self._outcome.callback(session)
            else:
                self._abort()
        elif step == "refused":
            self._fail(NoServiceSession, f"the router refuses it: {details.reason}: {details.message or 'no message'}")
        elif step == "failed":
            self._fail(NoServiceSession, details)
        elif step == "left":
            self._lost(session, details.reason, False)
        elif not self._fail(Broken, "the router closed the connection"):
            self._lost(session, "the connection is closed", True)

    def _expired(self, what: str, seconds: float) -> None:
        self._fail(Broken, f"no end of the {what} within {seconds:g} s")

    def _fail(self, kind: type[Exception], text: str) -> bool:
        """End the attempt, if it has not ended."""
        if self._outcome.called:
            return False
        if kind is NotSpoken and self._is_open:
            kind, text = Broken, "the router closed the connection"
        self._outcome.errback(kind(text))
        return True

    def _abort_later(self) -> None:
        timer = self._reactor.callLater(self._connection.goodbye_ms / 1000, self._abort)
        self._protocol.is_closed.addBoth(lambda _: timer.cancel() if timer.active() else None)

    def _abort(self) -> None:
        if self._protocol is not None:
            abort(self._protocol)


def _endpoint(reactor: Any, address: Address, seconds: float) -> Any:
    if address.path is not None:
        return UNIXClientEndpoint(reactor, address.path, seconds)
    make = TCP6ClientEndpoint if ":" in address.host else TCP4ClientEndpoint
    return make(reactor, address.host, address.port, seconds)


def abort(protocol: Any) -> None:
    """Close the connection of a protocol, whatever is still to be sent."""
    transport = getattr(protocol, "transport", None)
    if transport is not None:
        transport.abortConnection()
