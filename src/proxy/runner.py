"""The worker process: reactor, logging, signals, and an end in order."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import STDLibLogObserver, globalLogBeginner
from twisted.python.failure import Failure

from proxy.bootstrap import SignalAlarm, install_name_resolver, install_reactor, raise_descriptor_limit
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
    reactor = install_reactor()
    _install_logging(log_level)
    raise_descriptor_limit()
    install_name_resolver(reactor)
    plane = DataPlane(reactor, thread_count(threads))
    controller = ProxyController(None, reactor, plane=plane, worker_id=config.id)
    controller.logs_sessions = log_level in ("debug", "info")
    plane.start()
    worker = _Worker(reactor, plane, controller, config.shutdown_timeout / 1000)
    alarm = SignalAlarm(reactor)
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
