"""The worker process: reactor, logging, signals, and an end in order."""

import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import epollreactor
from twisted.internet._resolver import GAIResolver  # the one that reactors use; it has no public name
from twisted.internet.error import ReactorAlreadyInstalledError
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import STDLibLogObserver, globalLogBeginner
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from proxy.config import WorkerConfig
from proxy.controller import ProxyController
from proxy.errors import ProxyError
from proxy.plane import DataPlane
from proxy.systemd import notify
from proxy.threads import thread_count

__all__ = ["run"]

log = logging.getLogger(__name__)

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

# SIGINT is somebody at a terminal: sessions get this long to end, seconds.
INTERRUPT_TIMEOUT: Final = 1.0

# Names of routers that are looked up at a time; there is one lookup per name, however many logins wait for it.
LOOKUP_THREADS: Final = 8


def run(
    config: WorkerConfig,
    *,
    threads: int | None = None,
    log_level: str = "info",
    ready: Callable[..., None] | None = None,
) -> int:
    """Run a worker until a signal ends it.

    SIGTERM, SIGHUP and SIGINT: stop accepting, say GOODBYE to all, and end when they are gone or the time is up
    (``shutdown_timeout``; one second for SIGINT). A second signal ends the process at once.

    :param threads: data threads, None: one per core that this process may use.
    :param log_level: lowest level that is logged to stderr.
    :param ready: called once all transports listen, with the list of their addresses as URLs.
    :returns: exit code: 0, or 1 when something broke.
    :raises ProxyError: something of the configuration cannot be started, an address in use for example.
    """
    reactor = _install_reactor()
    _install_logging(log_level)
    _raise_descriptor_limit()
    _install_name_resolver(reactor)
    plane = DataPlane(reactor, thread_count(threads))
    controller = ProxyController(None, reactor, plane=plane, worker_id=config.id)
    controller.logs_sessions = log_level in ("debug", "info")
    plane.start()
    worker = _Worker(reactor, plane, controller, config.shutdown_timeout / 1000)
    alarm = _Alarm(reactor)
    try:
        reactor.callWhenRunning(worker.boot, config, ready)
        reactor.run(installSignalHandlers=False)
    finally:
        alarm.close()
        for transport in controller.transports.values():
            transport.release()
        plane.stop()
    if worker.error is not None:
        raise worker.error
    return 1 if worker.is_broken or plane.is_broken else 0


@implementer(IReadDescriptor)
class _Alarm:
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


class _Worker:
    """Signals and the shutdown."""

    def __init__(self, reactor: Any, plane: DataPlane, controller: ProxyController, timeout: float) -> None:
        self._reactor = reactor
        self._plane = plane
        self._controller = controller
        self._timeout = timeout
        self._is_ending = False
        self.is_broken = False
        self.error: ProxyError | None = None

    def boot(self, config: WorkerConfig, ready: Callable[..., None] | None) -> None:
        """Start what the configuration names, and say so. A failure ends the worker."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_signal)  # its terminal is gone: end in order, as for SIGTERM

        def has_booted(_: None) -> None:
            if ready is not None and not self._is_ending:
                ready([transport.address for transport in self._controller.transports.values()])

        self._controller.boot(config).addCallback(has_booted).addErrback(self._cannot_boot)

    def _cannot_boot(self, failure: Failure) -> None:
        if isinstance(failure.value, ProxyError):
            self.error = failure.value
        else:
            log.critical("the worker cannot go on\n%s", failure.getTraceback())
            self.is_broken = True
        if self._reactor.running:
            self._reactor.stop()

    def _on_signal(self, number: int, frame: object) -> None:
        if self._is_ending:
            # The sockets' files are gone since the first signal; all else ends with the process.
            os._exit(128 + number)
        self._is_ending = True
        timeout = self._timeout if number != signal.SIGINT else min(INTERRUPT_TIMEOUT, self._timeout)
        self._reactor.callFromThread(self._shut_down, signal.Signals(number).name, timeout)

    def _shut_down(self, name: str, timeout: float) -> None:
        log.info("%s: shutting down within %s s", name, timeout)
        notify("STOPPING=1")
        self._controller.shut_down(timeout).addCallback(self._ended)

    def _ended(self, in_time: bool) -> None:
        if not in_time:
            log.warning("time is up: the sessions that are left are cut off")
        if self._reactor.running:
            self._reactor.stop()


def _install_reactor() -> Any:
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


def _install_name_resolver(reactor: Any) -> None:
    """Look names up in threads of their own.

    The reactor joins its own threads when it stops, and getaddrinfo() with a name server that does not answer can take
    far longer than a shutdown may.
    """
    pool = _LookupThreads(0, LOOKUP_THREADS, "lookup")
    pool.start()
    reactor.installNameResolver(GAIResolver(reactor, lambda: pool))


def _install_logging(level: str) -> None:
    """Log to stderr, from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    # Twisted tells of every port and factory at its "info", which is our "debug".
    logging.getLogger("twisted").setLevel(max(_LEVELS[level], logging.WARNING) if level != "debug" else logging.DEBUG)
    # What the standard library would look up for each line and nobody prints here.
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False
    observer: Any = STDLibLogObserver("twisted")
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)


def _raise_descriptor_limit() -> None:
    """Each session takes two descriptors; take as many as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of file descriptors stays at %d: %s", soft, error)
