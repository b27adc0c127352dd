"""Listening through Twisted: endpoints that only it can open. Whom they accept is handed to the data plane.

A plain socket is handed over as it is. What is more than a socket, like TLS that Twisted ends, stays with Twisted, and
its octets go through a pair of sockets, of which the data plane has one end. Either way the data plane does the rest,
with the same limits and deadlines as for a connection that it accepted itself.
"""

import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.python.failure import Failure

from proxy.addresses import Address
from proxy.config.other_endpoints import OnionEndpoint, TwistedEndpoint
from proxy.errors import CannotListen
from proxy.listeners import set_client_options
from proxy.plane import pack_address

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["Door", "OtherListener", "listen_with", "open_endpoint"]

LISTEN_SECONDS: Final = 30.0
"""How long Twisted, or one of its plugins, may take to listen."""

FLUSH_SECONDS: Final = 30.0
"""How long a client may take to read what is left for it, where Twisted holds its connection."""

NAMELESS_MAX: Final = 1024
"""Connections of an endpoint whose client's address is still to come, at a time."""

log = logging.getLogger(__name__)


class OtherListener:
    """Something that listens and is not the data plane's.

    :ivar address: where, for people: ``tcp4:127.0.0.1:8080``, ``unix:/path``, ``onion:NAME.onion:80``.
    """

    address: str = ""

    def stop(self) -> "Deferred[None]":
        """Accept nobody any more. Who is connected stays. Never fails: what goes wrong is logged."""
        raise NotImplementedError


def open_endpoint(transport: "ProxyTransport", endpoint: TwistedEndpoint | OnionEndpoint) -> "Deferred[OtherListener]":
    """Listen, and hand whoever connects to the data plane, as a client of this transport.

    :param transport: its ``number`` is that of its listener in the data plane; 0: nobody is let in yet.
    :param endpoint: of the transport.
    :returns: fails with CannotListen: the server string or the address cannot be used, a package is missing, or Tor
        refuses. May be cancelled.
    """
    if isinstance(endpoint, OnionEndpoint):
        from proxy.onion import open_onion  # Tor's package is optional

        return open_onion(transport, endpoint)
    reactor = transport.controller.reactor
    name = f"Twisted's endpoint {_kind(endpoint.server_string)!r}"
    try:
        server = serverFromString(reactor, endpoint.server_string)
    except Exception as error:  # a plugin may raise anything
        return fail(CannotListen(f"transport {transport.id}: cannot use {name}: {error_text(error)}"))
    opened = listen_with(transport, server, name)
    return opened.addCallback(_PlainListener)


def listen_with(transport: "ProxyTransport", server: Any, name: str) -> "Deferred[Any]":
    """Have an endpoint of Twisted listen for a transport.

    :param server: IStreamServerEndpoint.
    :param name: of the endpoint, for people.
    :returns: an IListeningPort. Fails with CannotListen.
    """
    listening: Deferred[Any] = maybeDeferred(server.listen, Door(transport))
    listening.addTimeout(LISTEN_SECONDS, transport.controller.reactor)

    def failed(failure: Failure) -> Failure:
        error = failure.value
        raise CannotListen(f"transport {transport.id}: cannot listen on {name}: {error_text(error)}") from error

    return listening.addErrback(failed)


def _kind(server_string: str) -> str:
    """What may be shown of a server string: its first word. The rest may hold a password."""
    return server_string.partition(":")[0]


def error_text(error: BaseException | None) -> str:
    """One line of what went wrong in Twisted or a package of others, which do not care about lines."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _PlainListener(OtherListener):
    """A listening port of Twisted (IListeningPort)."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self.address = address_text(port.getHost())

    def stop(self) -> "Deferred[None]":
        """See :class:`OtherListener`."""
        return stop_port(self._port)


def stop_port(port: Any) -> "Deferred[None]":
    """Stop listening; never fails."""
    stopped: Deferred[Any] = maybeDeferred(port.stopListening)

    def failed(failure: Failure) -> None:
        log.warning("an endpoint of Twisted cannot be closed: %s", failure.getErrorMessage())

    return stopped.addCallbacks(lambda _: None, failed)


def address_text(address: IAddress | Any) -> str:
    """An address of Twisted, for people, in the form of Crossbar.io's peers."""
    if isinstance(address, IPv4Address):
        return f"tcp4:{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"tcp6:{address.host}:{address.port}"
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name)}" if address.name else "unix"
    return type(address).__name__


# --- who connects ------------------------------------------------------------------------------------------------


class Door(Factory):
    """Lets in who connects: as a client of a transport.

    :param transport: the transport.
    """

    noisy = False

    def __init__(self, transport: "ProxyTransport") -> None:
        self.transport = transport
        # Connections of which the PROXY protocol has not told the client yet.
        self.nameless = 0

    def buildProtocol(self, addr: IAddress | None) -> "_Arrival":
        """One for each client."""
        return _Arrival(self)


class _Arrival(Protocol):
    """A client's connection, on its way to the data plane."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._owner = door.transport
        self._inner: _PairEnd | None = None
        self._is_nameless = False
        self._deadline: Any = None  # IDelayedCall

    @property
    def client(self) -> Any:
        """Twisted's end of the connection (ITransport)."""
        return self.transport

    def connectionMade(self) -> None:
        """Hand it over, with its descriptor if that is all there is to it."""
        client = self.client
        if not self._owner.number:
            client.loseConnection()
        elif isinstance(client, HAProxyProtocolWrapper):
            self._await_name(client)
        else:
            self._enter(client)

    def _enter(self, client: Any) -> None:
        try:
            if type(client) in (tcp.Server, unix.Server) and not getattr(client, "TLS", False):
                self._hand_over(client)
            else:
                self._bridge(client)
        except RuntimeError:
            client.loseConnection()  # there are as many as there may be; the data plane says so, once
        except (OSError, ValueError) as error:
            log.warning("transport %s: a connection is dropped: %s", self._owner.id, error)
            client.loseConnection()

    def _await_name(self, client: Any) -> None:
        """``haproxy:`` of Twisted tells the client's address only with the first octets behind its header."""
        if self._door.nameless >= NAMELESS_MAX:
            client.abortConnection()
            return
        self._door.nameless += 1
        self._is_nameless = True
        seconds = self._owner.model.limits.handshake_timeout / 1000
        self._deadline = self._owner.controller.reactor.callLater(seconds, client.abortConnection)

    def _named(self) -> None:
        """The address is known, or nobody is there any more."""
        self._door.nameless -= 1
        self._is_nameless = False
        self._stop_deadline()

    def _stop_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def _hand_over(self, client: Any) -> None:
        descriptor = os.dup(client.fileno())
        # Not loseConnection(): that would shut down the connection itself, which the new descriptor shares.
        client.stopReading()
        client.stopWriting()
        client.connected = 0
        client.disconnected = True
        client.socket.close()
        client.protocol = None
        with socket.socket(fileno=descriptor) as connection:
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                set_client_options(connection)
            self._adopt(connection, b"")

    def _adopt(self, connection: socket.socket, address: bytes) -> None:
        """The data plane owns the descriptor, unless this raises."""
        self._owner.plane.adopt(connection.fileno(), self._owner.number, address)
        connection.detach()

    def _bridge(self, client: Any) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            self._adopt(theirs, _packed(client.getPeer()))
            reactor = self._owner.controller.reactor
            inner = _PairEnd(self)
            reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Single(inner))  # which takes a copy
            self._inner = inner
        # Each side is read as far as the other one takes it.
        client.registerProducer(inner.end, True)
        inner.end.registerProducer(client, True)

    def dataReceived(self, data: bytes) -> None:
        """The client sent this."""
        if self._is_nameless:
            self._named()
            self._enter(self.client)
        if self._inner is not None:
            self._inner.end.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The client is gone. What it sent before still reaches the data plane."""
        if self._is_nameless:
            self._named()
        self._stop_deadline()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.leave()

    def let_go(self) -> None:
        """The data plane has closed its end: the client gets what is left, in time."""
        client = self.client
        self._inner = None
        client.unregisterProducer()
        client.loseConnection()
        abort = getattr(client, "abortConnection", None)
        if abort is not None:
            self._deadline = self._owner.controller.reactor.callLater(FLUSH_SECONDS, abort)


class _Single(Factory):
    """A factory for one protocol that exists already."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """That one."""
        return self._protocol


class _PairEnd(Protocol):
    """Our end of the pair of sockets, whose other end is the data plane's."""

    def __init__(self, arrival: _Arrival) -> None:
        self._arrival: _Arrival | None = arrival

    @property
    def end(self) -> Any:
        """Twisted's end of the pair (ITransport)."""
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        """The data plane sent this."""
        if self._arrival is not None:
            self._arrival.client.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The data plane has closed the connection."""
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.let_go()

    def leave(self) -> None:
        """The client is gone."""
        self._arrival = None
        self.end.unregisterProducer()
        self.end.loseConnection()


def _packed(address: IAddress | Any) -> bytes:
    """The address of a client, as the data plane wants it; empty where it is no IP address."""
    if isinstance(address, IPv4Address | IPv6Address):
        host: str | bytes = address.host  # octets, where a PROXY protocol header of version 2 told it
        try:
            return pack_address(Address(host if isinstance(host, str) else host.decode("ascii"), address.port))
        except ValueError:
            return b""
    return b""
