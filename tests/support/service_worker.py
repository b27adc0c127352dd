"""A proxy worker that does what lines on its standard input tell it: ``service_worker.py``.

Each line is JSON, ``[number, name, arguments, keywords]``: a method of the controller, or ``call``, which calls a
procedure through the service session for a realm and role. Each answer is ``[number, result]`` or ``[number, null,
error URI, message]``. A service session is answered as its ID, authid and authrole.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import autobahn.twisted.wamp
import autobahn.wamp.serializer  # noqa: F401 - loaded later by the service sessions, and it may say something then
from autobahn.wamp.exception import ApplicationError
from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from proxy.controller import ProxyController
from proxy.errors import ProxyError
from proxy.service_sessions import ServiceSessions


class Commands(LineOnlyReceiver):
    """One line, one command."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, controller: ProxyController) -> None:
        self.controller = controller

    def connectionMade(self) -> None:
        self.sendLine(b"ready")

    def connectionLost(self, reason: Any = None) -> None:
        """Nobody is left to tell us anything."""
        if reactor.running:
            reactor.stop()

    def lineReceived(self, line: bytes) -> None:
        number, name, arguments, keywords = json.loads(line)
        done = maybeDeferred(self.run, name, arguments, keywords)
        done.addCallbacks(_shown, _error).addCallback(self.reply, number)

    def reply(self, answer: list[Any], number: int) -> None:
        self.sendLine(json.dumps([number, *answer]).encode())

    def run(self, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if name == "call":
            realm, role, procedure, *rest = arguments
            done: Deferred[Any] = self.controller.get_service_session(realm, role)
            return done.addCallback(lambda session: session.call(procedure, *rest, **keywords))
        if name == "cancel":
            done = self.controller.get_service_session(*arguments)
            done.cancel()
            return done
        return getattr(self.controller, name)(*arguments, **keywords)


def _shown(result: Any) -> list[Any]:
    if hasattr(result, "session_id"):
        return [{"session": result.session_id, "authid": result.authid, "authrole": result.authrole}]
    return [result]


def _error(failure: Failure) -> list[Any]:
    error = failure.value
    if isinstance(error, ProxyError):
        return [None, error.uri, error.message]
    if isinstance(error, ApplicationError):
        return [None, error.error, str(error)]
    return [None, type(error).__name__, failure.getTraceback()]


def main(deadline: float) -> None:
    """Run until standard input ends."""
    controller = ProxyController(None, reactor, worker_id="worker001", node_id="node7", public_key="ab" * 32)
    controller.service_sessions = ServiceSessions(controller, deadline)
    controller.start_plane()
    stdio.StandardIO(Commands(controller))
    reactor.run()


if __name__ == "__main__":
    main(float(sys.argv[1]))
