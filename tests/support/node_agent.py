"""A worker that does nothing but lend its session on a node's management realm to the tests.

A Crossbar.io node starts it in place of a container worker (``options.python``) and speaks WAMP over WebSocket with it
on descriptors 0 and 3. The tests talk to it in lines of JSON on a Unix socket: each request has an ``id``, and is
answered by a line with the same one; ``event`` and ``progress`` lines come by themselves.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from autobahn.twisted.wamp import ApplicationSession
from autobahn.twisted.websocket import WampWebSocketServerFactory, WampWebSocketServerProtocol
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallOptions, ComponentConfig, PublishOptions, SubscribeOptions
from twisted.internet import reactor, stdio
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver


def stop(*_: object) -> None:
    """End the process."""
    try:
        reactor.stop()
    except ReactorNotRunning:
        pass


class Agent(ApplicationSession):
    """The session with the node; it hears every event of every worker from the node's first worker on."""

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self.tests: list[LineReceiver] = []
        self.past: list[bytes] = []

    def onConnect(self) -> None:
        self.join(self.config.realm)

    @inlineCallbacks
    def onJoin(self, details: Any) -> Any:
        options = SubscribeOptions(match="prefix", details_arg="details")
        yield self.subscribe(self.on_event, "crossbar.", options=options)
        path = Path(self.config.extra.cbdir) / f"{self.config.extra.worker}.sock"
        path.unlink(missing_ok=True)
        reactor.listenUNIX(str(path), Tests(self))
        uri = f"crossbar.worker.{self.config.extra.worker}.on_worker_ready"
        ready = {"type": "container", "id": self.config.extra.worker, "pid": os.getpid()}
        yield self.publish(uri, ready, options=PublishOptions(acknowledge=True))

    def on_event(self, *args: Any, details: Any, **kwargs: Any) -> None:
        """Pass an event on, and keep it for tests that are not there yet."""
        if details.topic.endswith(".on_log"):
            return
        event = {"topic": details.topic, "args": args, "kwargs": kwargs, "publisher": details.publisher}
        line = encode({"event": event | {"publication": details.publication}})
        self.past.append(line)
        for tests in self.tests:
            tests.sendLine(line)

    def onDisconnect(self) -> None:
        stop()


class Tests(Factory):
    """Who connects to the Unix socket."""

    noisy = False

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def buildProtocol(self, address: object) -> "Line":
        return Line(self.agent)


class Line(LineReceiver):
    """One connection of the tests."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 24

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def connectionMade(self) -> None:
        self.sendLine(encode({"session": self.agent._session_id}))
        for line in self.agent.past:
            self.sendLine(line)
        self.agent.tests.append(self)

    def connectionLost(self, reason: object) -> None:
        self.agent.tests.remove(self)

    def lineReceived(self, line: bytes) -> None:
        request = json.loads(line)
        number = request["id"]

        def on_progress(*args: Any) -> None:
            self.sendLine(encode({"progress": args, "id": number}))

        def done(result: Any) -> None:
            self.sendLine(encode({"id": number, "result": result}))

        def failed(failure: Any) -> None:
            error = failure.value
            known = isinstance(error, ApplicationError)
            # Some URIs are exceptions of their own in autobahn.
            own = (uri for uri, kind in self.agent._uri_to_ecls.items() if kind is type(error))
            uri = error.error if known else next(own, type(error).__name__)
            found = {
                "uri": uri,
                "args": error.args if known else [str(error)],
                "kwargs": (error.kwargs or {}) if known else {},
            }
            self.sendLine(encode({"id": number, "error": found}))

        if request["what"] == "call":
            options = CallOptions(on_progress=on_progress if request["progress"] else None)
            asked = self.agent.call(request["uri"], *request["args"], **request["kwargs"], options=options)
        else:
            options = PublishOptions(acknowledge=True, exclude_me=False)
            asked = self.agent.publish(request["uri"], *request["args"], **request["kwargs"], options=options)
            asked.addCallback(lambda _: None)
        asked.addCallbacks(done, failed)


def encode(item: Any) -> bytes:
    """One line; what JSON does not have is shown as text."""
    return json.dumps(item, default=repr).encode()


class Channel(WampWebSocketServerProtocol):
    """The way to the node; the agent ends with it."""

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        stop()


def main() -> None:
    """Take the command line that the node has for its own program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-u", action="store_true")
    for name in ("-m", "--cbdir", "--node", "--worker", "--realm"):
        parser.add_argument(name)
    options, _ = parser.parse_known_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    factory = WampWebSocketServerFactory(lambda: Agent(ComponentConfig(options.realm, options)), "ws://localhost")
    factory.protocol = Channel
    stdio.StandardIO(factory.buildProtocol(None), stdout=3)
    reactor.run()


if __name__ == "__main__":
    main()
    sys.exit(0)
