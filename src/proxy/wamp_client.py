"""The worker's own sessions at routers: autobahn's client transports over Twisted's endpoints.

For sessions that relay nothing: there are few of them, and what they say is said in Python.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from proxy.config import BackendTcp, BackendTransport, BackendUnix
from proxy.errors import FeatureUnavailable

__all__ = ["SessionTransport", "client_factory", "over_tls", "watch_loss"]

log = logging.getLogger(__name__)

# Where nothing else is said, seconds.
CONNECT_TIMEOUT: Final = 10.0
# To close in order, before the connection is cut.
CLOSE_TIMEOUT: Final = 2.0
# A router that vanished without a word is to be noticed: pings, or TCP keep-alive where there are none.
PING_INTERVAL: Final = 30.0

_SERIALIZERS: Final = ("cbor", "msgpack", "json")


class SessionTransport:
    """One connection to a router, for one session of autobahn.

    :param reactor: Twisted's.
    :param transport: where to, and how; its serializers that are neither CBOR, MessagePack nor JSON are left out.
    :param make_session: makes the session (autobahn's ITransportHandler), once the transport's handshake is done.
    :raises FeatureUnavailable: nothing is left of the serializers.

    :ivar trouble: what broke the connection off, where that was TLS; else empty.
    :ivar closed: fires with None once a connection that :meth:`connect` made is gone, whatever the reason.
    """

    def __init__(self, reactor: Any, transport: BackendTransport, make_session: Callable[[], Any]) -> None:
        self._reactor = reactor
        self._config = transport
        self._factory = client_factory(
            transport,
            make_session,
            _serializers(transport),
            reactor=reactor,
            handshake_timeout=0,  # ours goes from connect() on
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_INTERVAL,
        )
        self._protocol: Any = None
        self._timer: Any = None  # IDelayedCall
        self.trouble = ""
        self.closed: Deferred[None] = Deferred()

    def connect(self, handshake_timeout: float = CONNECT_TIMEOUT) -> "Deferred[None]":
        """Connect, once.

        :param handshake_timeout: seconds from the connection to the end of the transport's handshake. What comes after
            it is the session's business.
        :returns: fires when connected, which is before the handshake; fails with what Twisted says. Cancelling it
            ends the attempt.
        :raises ConfigError: the files of its TLS cannot be used.
        """
        endpoint = over_tls(_endpoint(self._reactor, self._config.endpoint), self._config, "management")
        connected: Deferred[Any] = endpoint.connect(self._factory)
        return connected.addCallback(self._has_connected, handshake_timeout)

    def _has_connected(self, protocol: Any, handshake_timeout: float) -> None:
        self._protocol = protocol
        watch_loss(protocol, self._tls_failed)
        if isinstance(self._config.endpoint, BackendTcp):
            protocol.transport.setTcpKeepAlive(True)
            protocol.transport.setTcpNoDelay(True)
        self._timer = self._reactor.callLater(handshake_timeout, self._overdue)
        protocol.is_closed.addBoth(self._is_closed)

    def _tls_failed(self, trouble: str) -> None:
        self.trouble = f"TLS failed: {trouble}"

    def opened(self) -> None:
        """To be called when the session was opened: the handshake is done."""
        self._cancel_timer()

    def _overdue(self) -> None:
        self._timer = None
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.abortConnection()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> "Deferred[None]":
        """Wait for the end of the connection, which its session has begun; cut it once the time is up.

        :param timeout: seconds.
        :returns: fires when it is gone.
        """
        if self._protocol is None:
            return succeed(None)
        self._cancel_timer()
        self._timer = self._reactor.callLater(timeout, self._overdue)
        done: Deferred[None] = Deferred()
        self.closed.addBoth(lambda _: done.callback(None))
        return done

    def abort(self) -> None:
        """Cut the connection."""
        self._cancel_timer()
        self._overdue()

    def _is_closed(self, _: Any) -> None:
        self._cancel_timer()
        self._protocol = None
        self.closed.callback(None)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _endpoint(reactor: Any, endpoint: BackendTcp | BackendUnix) -> Any:
    timeout = CONNECT_TIMEOUT if endpoint.timeout is None else max(endpoint.timeout, 0.001)
    if isinstance(endpoint, BackendUnix):
        return UNIXClientEndpoint(reactor, endpoint.path, timeout=timeout)
    if endpoint.version is None:
        return HostnameEndpoint(reactor, endpoint.host, endpoint.port, timeout=timeout)
    kind: Any = TCP6ClientEndpoint if endpoint.version == 6 else TCP4ClientEndpoint
    return kind(reactor, endpoint.host, endpoint.port, timeout=timeout)


def over_tls(endpoint: Any, transport: BackendTransport, owner: str) -> Any:
    """The endpoint with TLS on top of it, where the configuration says so.

    :param endpoint: of Twisted (IStreamClientEndpoint).
    :param owner: for errors: ``connection router1``.
    :raises ConfigError: a file cannot be used.
    """
    tls = transport.endpoint.tls
    if tls is None:
        return endpoint
    # Imported late: pyOpenSSL takes memory, and the data plane needs none of it.
    from twisted.internet.endpoints import wrapClientTLS

    from proxy.tls.sessions import connection_creator

    return wrapClientTLS(connection_creator(tls, transport.server_name, owner), endpoint)


def watch_loss(protocol: Any, told: Callable[[str], object]) -> None:
    """Have somebody told why TLS broke off a connection, before the protocol hears of its end.

    :param protocol: autobahn's, connected; autobahn itself does not keep the reason.
    """
    lost = protocol.connectionLost

    def connection_lost(reason: Failure) -> None:
        if not reason.check(ConnectionDone, ConnectionLost):
            from proxy.tls.sessions import tls_trouble

            trouble = tls_trouble(reason)
            if trouble:
                told(trouble)
        lost(reason)

    protocol.connectionLost = connection_lost


def _serializers(transport: BackendTransport) -> list[Any]:
    """autobahn's serializers, in order of preference."""
    from autobahn.wamp.serializer import create_transport_serializer

    wanted = [*(transport.serializers or ()), *([transport.serializer] if transport.serializer else [])]
    if transport.serializer is not None and transport.type == "rawsocket":
        wanted = [transport.serializer, *wanted]
    names = [name.removesuffix(".batched") for name in wanted] or list(_SERIALIZERS)
    chosen = [name for name in dict.fromkeys(names) if name in _SERIALIZERS]
    if not chosen:
        wanted_text = ", ".join(_SERIALIZERS)
        raise FeatureUnavailable(f"expected one of {wanted_text} among the serializers, got {', '.join(names)}")
    return [create_transport_serializer(name) for name in chosen]


def client_factory(
    transport: BackendTransport,
    make_session: Callable[[], Any],
    serializers: list[Any],
    *,
    reactor: Any,
    handshake_timeout: float,
    close_timeout: float,
    ping_interval: float,
    ping_timeout: float,
) -> Any:
    """autobahn's factory for connections to a router.

    :param transport: how the router is reached.
    :param serializers: autobahn's, in order of preference; RawSocket takes the first.
    :param handshake_timeout: of WebSocket, seconds; 0: somebody else sees to that. So are the others.
    :param ping_interval: where the configuration names none; ``ping_timeout`` likewise.
    """
    # Imported late: autobahn's WebSocket takes its time, and few workers have sessions of their own.
    from autobahn.twisted.rawsocket import WampRawSocketClientFactory
    from autobahn.twisted.websocket import WampWebSocketClientFactory

    factory: Any
    options = transport.options
    if transport.type == "rawsocket":
        factory = WampRawSocketClientFactory(make_session, serializer=serializers[0])
        factory.setProtocolOptions(maxMessagePayloadSize=options.max_message_size)
    else:
        factory = WampWebSocketClientFactory(
            make_session,
            url=_request_url(transport),
            serializers=serializers,
            headers=dict(transport.headers),
            reactor=reactor,
        )
        factory.setProtocolOptions(
            maxFramePayloadSize=options.max_frame_size,
            maxMessagePayloadSize=options.max_message_size,
            autoFragmentSize=options.auto_fragment_size,
            utf8validateIncoming=options.validate_utf8,
            failByDrop=options.fail_by_drop,
            echoCloseCodeReason=options.echo_close_codereason,
            openHandshakeTimeout=handshake_timeout,
            closeHandshakeTimeout=close_timeout,
            autoPingInterval=ping_interval if options.auto_ping_interval is None else options.auto_ping_interval,
            autoPingTimeout=ping_timeout if options.auto_ping_timeout is None else options.auto_ping_timeout,
            autoPingSize=options.auto_ping_size,
        )
    factory.noisy = False
    return factory


def _request_url(transport: BackendTransport) -> str:
    """What autobahn makes the HTTP request from; where to dial it is told apart from that."""
    target = transport.target
    scheme = "wss" if target.secure else "ws"
    if target.unix_path:
        return f"{scheme}://localhost{target.resource}"
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{scheme}://{host}:{target.port}{target.resource}"
