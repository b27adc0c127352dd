"""The worker process: reactor, logging, signals, and an end in order."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from proxy.bootstrap import SignalAlarm, install_name_resolver, install_reactor, raise_descriptor_limit
from proxy.config import WorkerConfig
from proxy.controller import ProxyController
from proxy.errors import ProxyError
from proxy.logs import log_twisted, set_level
from proxy.management import Management, open_management
from proxy.plane import DataPlane
from proxy.reloading import Source
from proxy.systemd import notify
from proxy.threads import thread_count

__all__ = ["Source", "run"]

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
    source: Source | None = None,
) -> int:
    """Run a worker until a signal, or the management API, ends it.

    SIGTERM and SIGINT: stop accepting, say GOODBYE to all, and end when they are gone or the time is up
    (``shutdown_timeout``; one second for SIGINT). A second one ends the process at once. SIGHUP has the configuration
    file and the certificates read again; where there is no file, or the terminal is gone that the worker was started
    on, it is as SIGTERM.

    :param config: what to run.
    :param threads: data threads, None: one per core that this process may use.
    :param log_level: lowest level that is logged to stderr.
    :param ready: called once all transports listen, with the list of their addresses as URLs.
    :param source: where ``config`` was read from; None: it is no file that could be read again.
    :returns: exit code: 0, or 1 when something broke.
    :raises ProxyError: something of the configuration cannot be started, an address in use for example.
    """
    terminal = _Terminal()
    reactor = install_reactor()
    _install_logging(log_level)
    raise_descriptor_limit()
    install_name_resolver(reactor)
    plane = DataPlane(reactor, thread_count(threads))
    controller = _Alone(None, reactor, plane=plane, worker_id=config.id)
    controller.logs_sessions = log_level in ("debug", "info")
    if source is not None:
        controller.source = source
        controller.cbdir = source.path.parent  # what is started later has its relative paths from the same place
    plane.start()
    worker = _Worker(controller, terminal)
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


class _Alone(ProxyController):
    """A worker without a node: when it ends, the process does."""

    def before_end(self) -> "Deferred[Any]":
        """See :class:`proxy.worker.WorkerController`."""
        log.info("shutting down within %s s", self.shutdown_timeout)
        notify("STOPPING=1")
        return super().before_end().addCallback(self._has_ended)

    def _has_ended(self, in_time: bool) -> None:
        if not in_time:
            log.warning("time is up: the sessions that are left are cut off")


class _Terminal:
    """The terminal that the process was started on, if it was."""

    def __init__(self) -> None:
        self._descriptors = [number for number in (0, 1, 2) if os.isatty(number)]
        # As nohup(1) has it: the process is to outlive its terminal.
        self._is_outlived = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    @property
    def has_hung_up(self) -> bool:
        """Whether it was there and is gone, and the process is to go with it."""
        return not self._is_outlived and any(not os.isatty(number) for number in self._descriptors)


class _Worker:
    """Start, signals, and the end."""

    def __init__(self, controller: ProxyController, terminal: _Terminal) -> None:
        self._controller = controller
        self._reactor = controller.reactor
        self._terminal = terminal
        self._is_ending = False
        self.is_broken = False
        self.error: ProxyError | None = None

    def boot(self, config: WorkerConfig, ready: Callable[..., None] | None) -> None:
        """Start what the configuration names, and say so. A failure ends the worker."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)

        def is_open(management: Management) -> "Deferred[None]":
            # However the worker ends: whoever watches is to see all of it.
            self._reactor.addSystemEventTrigger("before", "shutdown", management.close)
            return self._controller.boot(config)

        def has_booted(_: None) -> None:
            if ready is not None and not self._controller.is_stopping:
                ready([transport.address for transport in self._controller.transports.values()])

        opened = open_management(self._controller, config.management)
        opened.addCallback(is_open).addCallback(has_booted).addErrback(self._cannot_boot)

    def _cannot_boot(self, failure: Failure) -> None:
        if self._controller.is_stopping:
            return
        if isinstance(failure.value, ProxyError):
            self.error = failure.value
        else:
            log.critical("the worker cannot go on\n%s", failure.getTraceback())
            self.is_broken = True
        self._controller.end()

    def _on_signal(self, number: int, frame: object) -> None:
        if self._is_ending:
            # The sockets' files are gone since the first signal; all else ends with the process.
            os._exit(128 + number)
        self._is_ending = True
        self._reactor.callFromThread(self._shut_down, signal.Signals(number))

    def _on_hangup(self, number: int, frame: object) -> None:
        if self._controller.source is not None and not self._terminal.has_hung_up:
            self._reactor.callFromThread(self._reload)
        elif not self._is_ending:  # both the system and the shell tell of a terminal's end
            self._on_signal(number, frame)

    def _shut_down(self, number: signal.Signals) -> None:
        log.info("%s", number.name)
        if number == signal.SIGINT:
            self._controller.shutdown_timeout = min(INTERRUPT_TIMEOUT, self._controller.shutdown_timeout)
        self._controller.shutdown()

    def _reload(self) -> None:
        log.info("SIGHUP: the configuration and the certificates are read again")
        if not self._controller.has_reload_waiting:  # else it is read once more in any case
            maybeDeferred(self._controller.reload_config).addErrback(self._cannot_reload)

    def _cannot_reload(self, failure: Failure) -> None:
        if not isinstance(failure.value, ProxyError):  # those are in the log already
            log.critical("the configuration cannot be changed\n%s", failure.getTraceback())
        if not self._controller.is_stopping:
            self._controller.reload_tls()  # certificates do not depend on it


def _install_logging(level: str) -> None:
    """Log to stderr, from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    set_level(_LEVELS[level])
    log_twisted()
