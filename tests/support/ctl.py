"""``wamp-proxy ctl`` as a user runs it, and a worker that says to it whatever a test wants."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.endpoints import Endpoint
from support.process import Child
from support.raw import CALL, ERROR, EVENT, GOODBYE, RESULT, SUBSCRIBE, SUBSCRIBED, Peer, PeerClosed
from support.routers import ROOT
from support.stub import StubRouter

STEP = 30.0
WORKER = "w1"
PREFIX = f"crossbar.worker.{WORKER}."


def environment(**changes: str) -> dict[str, str]:
    """The environment of a command."""
    env = {key: value for key, value in os.environ.items() if key not in ("WAMP_PROXY_SOCKET", "FORCE_COLOR")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(ROOT / "src")]))
    env["PYTHONUNBUFFERED"] = "1"
    return {**env, **changes}


class Ctl:
    """The command line over one management socket.

    :param path: of the socket.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def argv(self, *arguments: object) -> list[str]:
        """The whole command."""
        return [sys.executable, "-m", "proxy", "ctl", "--socket", self.path, *map(str, arguments)]

    def run(self, *arguments: object, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.argv(*arguments), input=stdin, capture_output=True, text=True, timeout=STEP, env=environment(**env)
        )

    def ok(self, *arguments: object, stdin: str = "") -> str:
        """What a command prints that must succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, ""), (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def start(self, *arguments: object) -> Child:
        """Begin a command."""
        return Child("ctl", self.argv(*arguments), env=environment())


class Refusal(Exception):
    """An answer that is an ERROR."""

    def __init__(self, uri: str, *args: object) -> None:
        super().__init__(uri, *args)


class StubWorker:
    """Serves connections to a management socket, one after the other, in a thread.

    :param path: of the socket.
    :param answers: URI, or last part of one of the worker's, -> the result, or what is called with the arguments and
        gives it; a :class:`Refusal` is answered by an ERROR, None for a URI that is not there.

    :ivar calls: what was called: URI, args, kwargs.
    """

    def __init__(self, path: Path, answers: Mapping[str, Any]) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(path)))
        self.answers: dict[str, Any] = {"crossbar.get_workers": [WORKER], **answers}
        self.calls: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.peer: Peer | None = None
        self._subscriptions: dict[int, str] = {}
        self._is_closing = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._is_closing:
            try:
                self.peer, _ = self.stub.accept_session()
                while self._handle(self.peer, self.peer.recv()):
                    pass
                self.peer.close()
            except PeerClosed:
                pass
            except OSError:
                return  # closed

    def _handle(self, peer: Peer, message: list[Any]) -> bool:
        if message[0] == GOODBYE:
            peer.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
            return False
        if message[0] == SUBSCRIBE:
            self._subscriptions[len(self._subscriptions) + 1] = message[3]
            peer.send([SUBSCRIBED, message[1], len(self._subscriptions)])
            return True
        if message[0] != CALL:
            return True
        uri, args = message[3], message[4] if len(message) > 4 else []
        kwargs = message[5] if len(message) > 5 else {}
        self.calls.append((uri.removeprefix(PREFIX), args, kwargs))
        try:
            result = self._answer(uri.removeprefix(PREFIX), args, kwargs)
        except Refusal as error:
            peer.send([ERROR, CALL, message[1], {}, error.args[0], list(error.args[1:])])
        else:
            peer.send([RESULT, message[1], {}, [result]])
        return True

    def _answer(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        answer = self.answers.get(name)
        if answer is None:
            raise Refusal("wamp.error.no_such_procedure", "there is none")
        if isinstance(answer, Refusal):
            raise answer
        return answer(*args, **kwargs) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]

    def publish(self, name: str, *args: Any) -> None:
        """Publish an event to whoever listens to it."""
        assert self.peer is not None
        for number, topic in self._subscriptions.items():
            if topic in (PREFIX, PREFIX + name):
                details = {"topic": PREFIX + name} if topic == PREFIX else {}
                self.peer.send([EVENT, number, 1, details, list(args)])

    def close(self) -> None:
        """Stop."""
        self._is_closing = True
        with socket.socket(socket.AF_UNIX) as knock:  # wakes the thread
            knock.connect(self.stub.endpoint.path)
        self._thread.join(STEP)
        self.stub.close()

    def __enter__(self) -> StubWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
