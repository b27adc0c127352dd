"""The reactor's end of a tunnel: a connection whose client is at the other side of the data plane.

The data plane relays raw octets between the client and one end of a socketpair; TLS, the PROXY protocol and the
client's socket are its business. This is the transport over the other end, with the addresses of the real ones.
"""

import socket
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IProtocol, ISSLTransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.peers import Peer

__all__ = ["SecureTunnelEnd", "TunnelEnd", "open_pair", "twisted_address"]

_STALL_CHECKS: Final = 2
"""How often within its time a tunnel that nobody reads is looked at."""


def open_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a tunnel, non-blocking: the reactor's and the data plane's.

    :raises OSError: out of descriptors.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    return ours, theirs


def twisted_address(peer: Peer) -> Any:
    """A peer's address as Twisted has it, an IAddress."""
    if not peer.host:
        return UNIXAddress(peer.path or None)
    if ":" in peer.host:
        return IPv6Address("TCP", peer.host, peer.port)
    return IPv4Address("TCP", peer.host, peer.port)


class TunnelEnd(Connection):
    """A transport of Twisted's.

    :param end: the reactor's end of the pair.
    :param protocol: that it serves.
    :param reactor: Twisted's.
    :param peer: the client.
    :param host: where the client has connected to, an IAddress.
    :param stall_timeout: how long the client may leave what is queued for it unread, seconds.
    """

    def __init__(
        self, end: socket.socket, protocol: IProtocol, reactor: Any, peer: Peer, host: Any, stall_timeout: float
    ) -> None:
        super().__init__(end, protocol, reactor)
        self.peer = peer
        self.host = host
        self._stall_timeout = stall_timeout
        self._progress = 0.0
        self._stall_check: Any = None  # IDelayedCall
        self.logstr = f"web,{peer.text}"

    def open(self) -> None:
        """Connect the protocol, and read."""
        self.connected = 1
        protocol: Any = self.protocol
        protocol.makeConnection(self)
        self.startReading()

    def getPeer(self) -> Any:
        """The client's address."""
        return twisted_address(self.peer)

    def getHost(self) -> Any:
        """The address that the client has connected to."""
        return self.host

    def getTcpNoDelay(self) -> bool:
        """The data plane sees to it."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Not for a pair."""

    def getTcpKeepAlive(self) -> bool:
        """Not for a pair."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Not for a pair."""

    # --- a client that does not read ---

    def startWriting(self) -> None:
        """There is something to be written."""
        super().startWriting()
        if self._stall_check is None and self.connected:
            self._progress = self.reactor.seconds()
            self._watch()

    def stopWriting(self) -> None:
        """All is written."""
        super().stopWriting()
        self._stop_watching()

    def writeSomeData(self, data: bytes) -> Any:
        """Write; see Twisted."""
        written = super().writeSomeData(data)
        if isinstance(written, int) and written > 0:
            self._progress = self.reactor.seconds()
        return written

    def connectionLost(self, reason: Failure) -> None:
        """The tunnel is closed."""
        self._stop_watching()
        super().connectionLost(reason)

    def _watch(self) -> None:
        self._stall_check = self.reactor.callLater(self._stall_timeout / _STALL_CHECKS, self._check_progress)

    def _stop_watching(self) -> None:
        check, self._stall_check = self._stall_check, None
        if check is not None:
            check.cancel()

    def _check_progress(self) -> None:
        self._stall_check = None
        if self.reactor.seconds() - self._progress >= self._stall_timeout:
            self.abortConnection()
        else:
            self._watch()


@implementer(ISSLTransport)
class SecureTunnelEnd(TunnelEnd):
    """Likewise; there is TLS between the client and the data plane."""

    def getPeerCertificate(self) -> Any:
        """The client's certificate as an X509 of pyOpenSSL; None: it has shown none."""
        tls = self.peer.tls
        if tls is None or not tls.certificate:
            return None
        from OpenSSL import crypto

        return crypto.load_certificate(crypto.FILETYPE_ASN1, tls.certificate)
