"""One attempt to join a router with a session of the proxy's own: from dial to WELCOME, over autobahn's transports."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autobahn.twisted.rawsocket import WampRawSocketClientFactory
from autobahn.twisted.wamp import ApplicationSession
from autobahn.twisted.websocket import WampWebSocketClientFactory
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.python.failure import Failure

from proxy.addresses import Address
from proxy.config import ConnectionConfig
from proxy.connections import ProxyConnection
from proxy.errors import ProxyError
from proxy.messages import SERIALIZER_NAMES
from proxy.plane import CODEC_RS

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

    :param hello: what to join with: keywords of autobahn's ``join()``.
    :param told: called with each step: ``open``, ``joined``, ``refused`` (with CloseDetails), ``left``, ``gone``.
    """

    def __init__(self, hello: dict[str, Any], told: Callable[["ServiceSession", str, Any], None]) -> None:
        super().__init__()
        self._hello = hello
        self._told = told
        self._has_joined = False

    def onConnect(self) -> None:
        """The transport is open: say HELLO."""
        self._told(self, "open", None)
        self.join(**self._hello)

    def onChallenge(self, challenge: Any) -> str:
        """The proxy has nothing to answer with. autobahn turns this into an ABORT for the router."""
        raise ProxyError(f"the router asks the proxy to authenticate ({challenge.method})")

    def onJoin(self, details: Any) -> None:
        """The session may be used."""
        self._has_joined = True
        self._told(self, "joined", details)

    def onLeave(self, details: Any) -> Any:
        """The router does not take us, or the session is over."""
        self._told(self, "left" if self._has_joined else "refused", details)
        return super().onLeave(details)

    def onDisconnect(self) -> None:
        """The transport is closed."""
        self._told(self, "gone", None)
        super().onDisconnect()

    def onUserError(self, fail: Failure, msg: str) -> None:
        """What nobody waits for."""
        log.debug("service session: %s: %s", msg, fail.getErrorMessage())


class Attempt:
    """One connection to a router, from dial to WELCOME.

    :param hello: keywords of autobahn's ``join()``.
    :param lost: told of the end of a session that was joined, why, and whether its transport is closed.
    """

    def __init__(
        self,
        controller: "ProxyController",
        connection: ProxyConnection,
        hello: dict[str, Any],
        lost: Callable[[ServiceSession, str, bool], None],
    ) -> None:
        self._reactor = controller.reactor
        self._connection = connection
        self._hello = hello
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
        try:
            self._protocol = yield _endpoint(self._reactor, address, seconds).connect(factory)
        except ConnectingCancelledError as error:
            raise CancelledError from error
        except Exception as error:
            raise Unreachable(f"{address} cannot be reached: {error}") from error
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

        model = self._connection.model
        options = model.transport.options
        spoken = create_transport_serializer(SERIALIZER_NAMES[serializer])
        factory: Any
        if self._connection.kind == CODEC_RS:
            factory = WampRawSocketClientFactory(self._make_session, serializer=spoken)
            factory.setProtocolOptions(maxMessagePayloadSize=options.max_message_size)
            return factory
        factory = WampWebSocketClientFactory(
            self._make_session,
            url=_url(model),
            serializers=[spoken],
            headers=dict(self._connection.headers),
            reactor=self._reactor,
        )
        factory.setProtocolOptions(
            maxFramePayloadSize=options.max_frame_size,
            maxMessagePayloadSize=options.max_message_size,
            openHandshakeTimeout=self._connection.dial_ms / 1000,
            closeHandshakeTimeout=self._connection.goodbye_ms / 1000,
            autoPingInterval=options.auto_ping_interval or 0,
            autoPingTimeout=options.auto_ping_timeout or 0,
            autoPingSize=options.auto_ping_size,
        )
        return factory

    def _make_session(self) -> ServiceSession:
        return ServiceSession(self._hello, self._told)

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


def _url(model: ConnectionConfig) -> str:
    """What autobahn makes the HTTP request from; where to dial it is told apart from that."""
    target = model.transport.target
    if target.unix_path:
        return f"ws://localhost{target.resource}"
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"ws://{host}:{target.port}{target.resource}"


def abort(protocol: Any) -> None:
    """Close the connection of a protocol, whatever is still to be sent."""
    transport = getattr(protocol, "transport", None)
    if transport is not None:
        transport.abortConnection()
