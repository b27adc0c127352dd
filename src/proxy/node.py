"""A worker under a Crossbar.io node: the process that the node starts in place of its own.

The node speaks WAMP over WebSocket with it on two pipes: what it sends comes in on descriptor 0, what it is to get goes
out on descriptor 3. In this the worker is the server.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar, Final

import setproctitle
from autobahn.twisted.websocket import WampWebSocketServerFactory, WampWebSocketServerProtocol
from autobahn.wamp.types import ComponentConfig
from twisted.internet import stdio
from twisted.internet.error import ReactorAlreadyInstalledError, ReactorNotRunning
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.python.reflect import namedModule, qual

from proxy.bootstrap import SignalAlarm, install_name_resolver, install_reactor, raise_descriptor_limit
from proxy.errors import ProxyError

__all__ = ["ProxyWorkerProcess", "run"]

log = logging.getLogger(__name__)

NODE_IN: Final = 0
NODE_OUT: Final = 3

# The node gives a worker this long to start, seconds.
READY_TIMEOUT: Final = 90.0

# The WebSocket closing handshake with the node, seconds.
CLOSE_TIMEOUT: Final = 2.0


class ProxyWorkerProcess:
    """What a node's controller says of a worker process of this type in its log and its API.

    Crossbar.io's class of the same name has a base class there, which holds the process; mixed into that, this one
    takes its place.
    """

    TYPE: ClassVar[str] = "proxy"
    LOGNAME: ClassVar[str] = "Proxy"


class NodeChannel(WampWebSocketServerProtocol):
    """The way to the node. The worker ends with it."""

    def onConnect(self, request: Any) -> Any:
        """The opening handshake; see autobahn."""
        log.debug("the node speaks %s", ", ".join(request.protocols))
        return super().onConnect(request)

    def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:
        """The WebSocket is closed: with a closing handshake, somebody wanted it so."""
        self.factory.is_clean = wasClean
        super().onClose(wasClean, code, reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The pipes are closed."""
        super().connectionLost(reason)
        if not self.factory.is_clean and not self.factory.is_ending:
            log.error("the node is gone: the worker ends")
        stop(self.factory.reactor)


class NodeChannels(WampWebSocketServerFactory):
    """Makes the one channel.

    :param controller: the session that runs on it.

    :ivar is_clean: the channel was closed with a closing handshake.
    :ivar is_ending: the process ends; it may be that the worker has given up its node, not the other way round.
    """

    protocol = NodeChannel
    noisy = False

    def __init__(self, controller: Any, reactor: Any) -> None:
        set_up: Any = super().__init__
        set_up(lambda: controller, "ws://localhost", reactor=reactor)
        self.is_clean = False
        self.is_ending = False
        set_options: Any = self.setProtocolOptions
        set_options(failByDrop=False, closeHandshakeTimeout=CLOSE_TIMEOUT)


def run(options: argparse.Namespace) -> int:
    """Run a worker until the node ends it, or is gone.

    :param options: the node's command line, see :mod:`proxy.launcher`.
    :returns: exit code: 0 when it was ready and ended in order, else 1.
    """
    # Ctrl-C, and the end of the terminal, are meant for the node: it ends its workers, or they see that it is gone.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder = Path(options.cbdir).resolve()
    try:
        os.chdir(folder)
    except OSError as error:
        log.critical("the worker cannot use the folder of its node, %s: %s", folder, error.strerror)
        return 1
    options.cbdir = str(folder)
    reactor = _install_reactor(options.reactor)
    # Imported now: it installs Twisted's default reactor unless there is one.
    from proxy.controller import ProxyController

    setproctitle.setproctitle(options.title or f"crossbar-worker [{qual(ProxyController)}]")
    tell_terminal(options, "WORKER_STARTING")
    if options.vmprof:
        log.warning("--vmprof has no effect here; the procedure start_profiler profiles a worker")
    raise_descriptor_limit()
    install_name_resolver(reactor)
    try:
        controller = ProxyController(ComponentConfig(options.realm, options), reactor)
    except ProxyError as error:
        log.critical("the worker cannot start: %s", error.message)
        return 1
    controller.logs_sessions = options.loglevel in ("debug", "trace")
    log.info("starting proxy worker %s of node %s, process %d", options.worker, options.node, os.getpid())
    return _Worker(reactor, controller, options).run()


class _Worker:
    """The controller with its channel to the node, and the end of both."""

    def __init__(self, reactor: Any, controller: Any, options: argparse.Namespace) -> None:
        self._reactor = reactor
        self._controller = controller
        self._options = options
        self._channels = NodeChannels(controller, reactor)

    def run(self) -> int:
        """Run until it ends; returns the exit code."""
        alarm = SignalAlarm(self._reactor)
        try:
            self._reactor.callWhenRunning(self._start)
            self._reactor.run(installSignalHandlers=False)
        finally:
            alarm.close()
            self._controller.plane.stop()
        controller = self._controller
        tell_terminal(self._options, "WORKER_STOPPED")
        is_ordered = controller.is_shutdown_requested or self._channels.is_clean
        return 0 if controller.is_ready and is_ordered and not controller.plane.is_broken else 1

    def _start(self) -> None:
        signal.signal(signal.SIGTERM, self._on_early_sigterm)
        self._controller.start_plane()
        self._reactor.addSystemEventTrigger("before", "shutdown", setattr, self._channels, "is_ending", True)
        self._reactor.callLater(READY_TIMEOUT, self._check_ready)
        self._controller.on_ready = lambda: tell_terminal(self._options, "WORKER_STARTED")
        pipes: Any = stdio.StandardIO
        pipes(self._channels.buildProtocol(None), NODE_IN, NODE_OUT, self._reactor)

    def _on_early_sigterm(self, number: int, frame: object) -> None:
        """Until the controller is ready for it, there is nothing to end in order."""
        self._reactor.callFromThread(stop, self._reactor)

    def _check_ready(self) -> None:
        if not self._controller.is_ready:
            log.critical("the node did not take the worker within %s s", READY_TIMEOUT)
            stop(self._reactor)


def _install_reactor(name: str | None) -> Any:
    if name is not None:
        try:
            namedModule(f"twisted.internet.{name}reactor").install()
        except ReactorAlreadyInstalledError:
            pass  # an embedding program has chosen
    return install_reactor()


def stop(reactor: Any) -> None:
    """Stop a reactor that may be stopping already."""
    try:
        reactor.stop()
    except ReactorNotRunning:
        pass


def tell_terminal(options: argparse.Namespace, text: str) -> None:
    """With ``--debug-lifecycle``: a line for whoever sits at the terminal, past all logs; else for the node's log."""
    if not options.debug_lifecycle:
        return
    line = f"CROSSBAR[{options.worker}]:{text}"
    try:
        with Path("/dev/tty").open("w") as terminal:
            print(line, file=terminal)
    except OSError:
        print(line, file=sys.stdout, flush=True)
