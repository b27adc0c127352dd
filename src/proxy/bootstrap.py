"""What a process is given before it runs a worker: reactor, descriptors, name lookups, and ears for signals."""

import logging
import os
import resource
import signal
import threading
from typing import Any, Final

from twisted.internet import epollreactor
from twisted.internet._resolver import GAIResolver  # the one that reactors use; it has no public name
from twisted.internet.error import ReactorAlreadyInstalledError
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

__all__ = ["SignalAlarm", "install_name_resolver", "install_reactor", "raise_descriptor_limit"]

log = logging.getLogger(__name__)

# Names of routers that are looked up at a time; there is one lookup per name, however many logins wait for it.
LOOKUP_THREADS: Final = 8


@implementer(IReadDescriptor)
class SignalAlarm:
    """Wakes the reactor when a signal comes.

    Python runs a handler in the main thread, between two of its instructions. A signal that another thread was given,
    or that came just before the reactor began to wait, would find it asleep and stay unheard until something else
    happens.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._out, self._into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.set_wakeup_fd(self._into, warn_on_full_buffer=False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """The pipe's end that becomes readable."""
        return self._out

    def doRead(self) -> None:
        """The handler runs by itself, now that the reactor is awake."""
        os.read(self._out, 4096)

    def logPrefix(self) -> str:
        """Name for Twisted's own messages."""
        return "signals"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going down; close() does the work."""

    def close(self) -> None:
        """As if it had not been."""
        signal.set_wakeup_fd(self._before)
        self._reactor.removeReader(self)
        os.close(self._out)
        os.close(self._into)


def install_reactor() -> Any:
    """Install and return the reactor: epoll, unless an embedding program has chosen another one."""
    try:
        epollreactor.install()
    except ReactorAlreadyInstalledError:
        pass  # an embedding program has chosen
    from twisted.internet import reactor

    return reactor


class _LookupThread(threading.Thread):
    """Nobody waits for it at the end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, daemon=True)


class _LookupThreads(ThreadPool):
    threadFactory = _LookupThread


def install_name_resolver(reactor: Any) -> None:
    """Look names up in threads of their own.

    The reactor joins its own threads when it stops, and getaddrinfo() with a name server that does not answer can take
    far longer than a shutdown may.
    """
    pool = _LookupThreads(0, LOOKUP_THREADS, "lookup")
    pool.start()
    reactor.installNameResolver(GAIResolver(reactor, lambda: pool))


def raise_descriptor_limit() -> None:
    """Each session takes two descriptors; take as many as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of file descriptors stays at %d: %s", soft, error)
