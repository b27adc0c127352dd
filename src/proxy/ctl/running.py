"""One command, from the start of the reactor to its exit code."""

import io
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from proxy.ctl.errors import CtlError
from proxy.ctl.output import Output, cleaned
from proxy.imports import leave_out_ubjson

__all__ = ["EXIT_SIGNAL", "Settings", "run"]

EXIT_SIGNAL: Final = 128
"""Exit code of a command that a signal ended, less the signal's number: as shells have it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options say that every command has.

    :ivar socket: path of the management socket.
    :ivar worker: id of the worker; None: the only one.
    :ivar timeout: seconds to wait for a connection, and for each answer.
    """

    socket: str
    worker: str | None
    timeout: float
    as_json: bool


Command = Callable[[Any, Output], Awaitable[None]]


def run(settings: Settings, command: Command) -> None:
    """Run a command: connect, do it, disconnect. Exits with its code unless that is 0.

    :param command: called with the :class:`proxy.ctl.client.Client` and the output.
    """
    leave_out_ubjson()
    # Imported here: help and the errors of the command line need none of it.
    from twisted.internet import reactor

    from proxy.ctl.client import Client

    running = _Running(reactor)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What clients of the proxy call themselves need not be in the terminal's character set.
        sys.stdout.reconfigure(errors="backslashreplace")
    output = Output(as_json=settings.as_json)

    async def body() -> None:
        client = Client(reactor, settings.socket, settings.timeout)
        try:
            await client.connect()
            await client.choose(settings.worker)
            await command(client, output)
        finally:
            await client.close()

    running.run(body)
    if running.signal:
        sys.exit(EXIT_SIGNAL + running.signal)
    if running.failure is None:
        return
    error = running.failure.value
    if not isinstance(error, CtlError):
        # Among them a closed pipe behind stdout, which click takes care of.
        running.failure.raiseException()
        raise AssertionError
    text = cleaned(error.message, keep="\n")
    click.echo(f"wamp-proxy ctl: {click.style('error', fg='red')}: {text}", err=True)
    sys.exit(error.exit_code)


class _Running:
    """The reactor's run with one coroutine."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._task: Deferred[None] | None = None
        self.signal = 0
        self.failure: Failure | None = None

    def run(self, body: Callable[[], Any]) -> None:
        """Run it to its end; :attr:`failure` is what it raised."""
        self._reactor.callWhenRunning(self._begin, body)
        self._reactor.run()

    def _begin(self, body: Callable[[], Any]) -> None:
        # In place of Twisted's own, that would stop the reactor under the session's feet.
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        self._task = Deferred.fromCoroutine(body())
        self._task.addErrback(self._failed).addBoth(lambda _: self._reactor.stop())

    def _failed(self, failure: Failure) -> None:
        if not (self.signal and failure.check(CancelledError)):
            self.failure = failure

    def _on_signal(self, number: int, frame: object) -> None:
        if self.signal:
            os._exit(EXIT_SIGNAL + number)
        self.signal = number
        assert self._task is not None
        self._reactor.callFromThread(self._task.cancel)
