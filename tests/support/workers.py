"""A worker without a node, whose clock and calls are the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxy.management.procedures import Caller, CallError, call
from proxy.worker import WorkerController

ME = Caller(caller=4711, caller_authid="joe", caller_authrole="admin")


class Pool:
    """A thread pool that does its work at once, in the caller's thread."""

    def callInThreadWithCallback(self, done: Any, function: Any, *args: Any, **keywords: Any) -> None:
        try:
            done(True, function(*args, **keywords))
        except Exception:
            done(False, Failure())


class Reactor(Clock):
    def getThreadPool(self) -> Pool:
        return Pool()

    def callFromThread(self, function: Any, *args: Any) -> None:
        function(*args)


class Recorder:
    """A carrier that writes down what is published."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, int | None]] = []

    def publish_event(self, topic: str, args: tuple[Any, ...], exclude: int | None, acknowledge: bool) -> None:
        assert topic.startswith("crossbar.worker.worker001.")
        assert len(args) == 1
        self.events.append((topic.rpartition(".")[2], args[0], exclude))

    def take(self) -> list[tuple[str, Any, int | None]]:
        events, self.events = self.events, []
        return events


class Worker:
    """A worker without a node."""

    def __init__(self, folder: Path) -> None:
        self.clock = Reactor()
        self.controller = WorkerController(None, self.clock)
        self.controller.cbdir = folder
        self.recorder = Recorder()
        self.controller.carriers.append(self.recorder)

    def start(self, name: str, *args: Any, caller: Caller = ME, **keywords: Any) -> Deferred[Any]:
        return call(self.controller, name, args, keywords, caller)

    def __call__(self, name: str, *args: Any, **keywords: Any) -> Any:
        return now(self.start(name, *args, **keywords))

    def fails(self, uri: str, name: str, *args: Any, **keywords: Any) -> str:
        """Assert that a call fails; the message."""
        with pytest.raises(CallError) as caught:
            self(name, *args, **keywords)
        assert caught.value.uri == uri
        return caught.value.message


def now(done: Deferred[Any]) -> Any:
    """The result of a Deferred that has fired."""
    results: list[Any] = []
    done.addBoth(results.append)
    assert results, "has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]
