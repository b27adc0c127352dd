"""The Unix socket of the management realm.

Twisted's own listening port is of no use here: it opens the file to every user of the machine, even one that it is
given ready-made, and removes it without looking whose it is.
"""

import logging
import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.config import UnixEndpoint
from proxy.listeners import open_listener, release_unix, unix_identity
from proxy.management.rawsocket import ManagementConnection
from proxy.management.realm import REALM, ManagementRealm

if TYPE_CHECKING:
    from proxy.config.management import ManagementConfig
    from proxy.controller import ProxyController

__all__ = ["ManagementSocket"]

log = logging.getLogger(__name__)

# Before accepting is tried again where descriptors or memory are missing, seconds.
PAUSE: Final = 1.0


class ManagementSocket:
    """A Unix socket that serves a management realm over RawSocket.

    :param controller: the worker.
    :param config: ``management`` of the worker's configuration, with a path.
    """

    def __init__(self, controller: "ProxyController", config: "ManagementConfig") -> None:
        assert config.path is not None
        self._controller = controller
        self._path: str = config.path
        self._mode = config.mode
        self._identity: tuple[int, int] | None = None
        self._acceptor: _Acceptor | None = None
        self.realm = ManagementRealm(controller)

    def open(self) -> None:
        """Listen, and carry the worker's events from now on.

        :raises CannotListen: the path is in use, too long, or cannot be written.
        """
        listener = open_listener(UnixEndpoint(path=self._path, mode=self._mode))
        self._identity = unix_identity(self._path)
        factory = _Connections(self._controller.reactor, self.realm)
        self._acceptor = _Acceptor(self._controller.reactor, listener, factory)
        self._controller.carriers.append(self.realm)
        log.info("management: realm %s on %s (mode %04o)", REALM, self._path, self._mode)
        if self._mode & 0o002:
            log.warning("management: every user of this machine may control the worker through %s", self._path)

    def close(self) -> "Deferred[None]":
        """See :class:`proxy.management.opening.Management`."""
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            release_unix(self._path, self._identity)
            acceptor.close()
        return self.realm.close().addCallback(self._has_closed)

    def _has_closed(self, _: None) -> None:
        if self.realm in self._controller.carriers:
            self._controller.carriers.remove(self.realm)


@implementer(IReadDescriptor)
class _Acceptor:
    """Accepts on a listening socket.

    :param listener: belongs to this object from now on.
    :param factory: makes the protocols.
    """

    def __init__(self, reactor: Any, listener: socket.socket, factory: Factory) -> None:
        self._reactor = reactor
        self._listener = listener
        self._factory = factory
        self._timer: Any = None  # IDelayedCall
        self._waiting: socket.socket | None = None
        reactor.addReader(self)

    def fileno(self) -> int:
        """The listening socket."""
        return self._listener.fileno()

    def logPrefix(self) -> str:
        """Name for Twisted's own messages."""
        return "management"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going down; close() does the work."""

    def doRead(self) -> None:
        """Somebody connects. One at a time: the others are seen in the next turn."""
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            self._pause(error)
            return
        self._adopt(accepted)

    def _adopt(self, accepted: socket.socket) -> None:
        """Hand a connection to the reactor, which makes a descriptor of its own for it."""
        accepted.setblocking(False)
        try:
            self._reactor.adoptStreamConnection(accepted.fileno(), socket.AF_UNIX, self._factory)
        except OSError as error:
            self._waiting = accepted
            self._pause(error)
            return
        accepted.close()

    def _pause(self, error: OSError) -> None:
        log.error("management: accepting is paused: %s", error.strerror)
        self._reactor.removeReader(self)
        self._timer = self._reactor.callLater(PAUSE, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._reactor.addReader(self)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._adopt(waiting)

    def close(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._reactor.removeReader(self)
        self._listener.close()
        if self._waiting is not None:
            self._waiting.close()


class _Connections(Factory):
    noisy = False

    def __init__(self, clock: Any, realm: ManagementRealm) -> None:
        self._clock = clock
        self._realm = realm

    def buildProtocol(self, addr: Any) -> ManagementConnection:
        return ManagementConnection(self._clock, self._realm.admit)
