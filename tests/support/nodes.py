"""A real Crossbar.io node, its proxy workers ours or its own, and sessions on its management realm.

The node's management realm is open to nobody but its workers. So the node gets two more workers, whose sessions the
tests use (node_agent.py): ``caller`` makes the calls, ``watcher`` only listens, which shows who an event excludes.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shlex
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.endpoints import Endpoint
from support.process import INSTRUMENTS, Child, peer_environment, wait_until
from support.routers import REALM, ROOT, find_crossbar

CALLER, WATCHER = "caller", "watcher"
STARTED = "Ok, local node configuration ran successfully"
STARTUP = 90.0
"""Seconds a node may take to start everything, on a machine with other things to do."""


class CallFailed(Exception):
    """What a procedure answered instead of a result.

    :ivar uri: error URI.
    """

    def __init__(self, uri: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        super().__init__(*args)
        self.uri = uri
        self.kwargs = kwargs

    def __str__(self) -> str:
        return f"{self.uri}: {' '.join(map(str, self.args))}"


@dataclass(frozen=True)
class Event:
    """One event of the management realm."""

    topic: str
    args: list[Any]
    kwargs: dict[str, Any]
    publisher: int | None
    publication: int

    @property
    def name(self) -> str:
        """Last part of the topic."""
        return self.topic.rsplit(".", 1)[-1]


class NodeSession:
    """A session on the management realm of a node.

    :param path: Unix socket of the worker that lends it.
    :ivar session: its session ID.
    :ivar events: everything published there since the node's start that this session was not excluded from.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30.0)
        self._socket.connect(str(path))
        self._socket.settimeout(None)
        self._lines = self._socket.makefile("rb")
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._progress: dict[int, list[Any]] = {}
        self._requests = 0
        self._is_lost = False
        self.events: list[Event] = []
        self.session: int = json.loads(self._lines.readline())["session"]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._lines:
            item = json.loads(line)
            with self._changed:
                if "event" in item:
                    self.events.append(Event(**item["event"]))
                elif "progress" in item:
                    self._progress.setdefault(item["id"], []).extend(item["progress"])
                else:
                    self._answers[item["id"]] = item
                self._changed.notify_all()
        with self._changed:
            self._is_lost = True
            self._changed.notify_all()

    def _begin(self, *requests: dict[str, Any]) -> list[int]:
        with self._changed:
            numbers = [self._requests + 1 + index for index in range(len(requests))]
            self._requests += len(requests)
        items = ({"id": number, **request} for number, request in zip(numbers, requests, strict=True))
        self._socket.sendall(b"".join(json.dumps(item).encode() + b"\n" for item in items))
        return numbers

    def begin(self, *calls: tuple[str, Sequence[Any], dict[str, Any]]) -> list[int]:
        """Call procedures (URI, arguments, keywords) at once, with progressive results; :meth:`end` waits for each."""
        same: dict[str, Any] = {"what": "call", "progress": True}
        return self._begin(*({**same, "uri": uri, "args": args, "kwargs": kwargs} for uri, args, kwargs in calls))

    def end(self, number: int, timeout: float = 30.0, received: list[Any] | None = None) -> Any:
        """The result of a call that :meth:`begin` made; ``received`` takes the progressive ones.

        :raises CallFailed: with the URI, arguments and keywords of the ERROR.
        """
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._is_lost, timeout)
            if received is not None:
                received.extend(self._progress.pop(number, []))
            answer = self._answers.pop(number, None)
        assert answer is not None, f"no answer within {timeout} s to request {number}"
        if "error" in answer:
            error = answer["error"]
            raise CallFailed(error["uri"], error["args"], error["kwargs"])
        return answer["result"]

    def _ask(self, timeout: float, received: list[Any] | None = None, **request: Any) -> Any:
        return self.end(self._begin(request)[0], timeout, received)

    def call(
        self, uri: str, *args: Any, timeout: float = 30.0, progress: list[Any] | None = None, **kwargs: Any
    ) -> Any:
        """Call a procedure.

        :param progress: takes the progressive results; without it none are asked for.
        :raises CallFailed: with the URI, arguments and keywords of the ERROR.
        """
        wants = progress is not None
        return self._ask(timeout, progress, what="call", uri=uri, args=args, kwargs=kwargs, progress=wants)

    def publish(self, uri: str, *args: Any, **kwargs: Any) -> None:
        """Publish, and wait for the acknowledgement."""
        self._ask(30.0, what="publish", uri=uri, args=args, kwargs=kwargs)

    def mark(self) -> int:
        """Where the events are now; for :meth:`since`."""
        with self._changed:
            return len(self.events)

    def since(self, mark: int, prefix: str = "crossbar.worker.") -> list[Event]:
        """The events since a mark whose topic begins with ``prefix``."""
        with self._changed:
            return [event for event in self.events[mark:] if event.topic.startswith(prefix)]

    def wait_event(self, topic: str, mark: int = 0, timeout: float = 30.0) -> Event:
        """The first event of a topic (or whose topic ends so) since a mark; fails if there is none in time."""

        def found() -> Event | None:
            return next((event for event in self.events[mark:] if event.topic.endswith(topic)), None)

        with self._changed:
            event = self._changed.wait_for(found, timeout)
            assert event is not None, f"no event {topic} within {timeout} s; there were {self.events[mark:]}"
            return event

    def close(self) -> None:
        """Let go of it; the worker goes on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(5.0)
        self._lines.close()
        self._socket.close()


def executable(path: Path, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Path:
    """Write a program that runs ``argv`` with whatever arguments it gets; the node knows programs by one path only.

    :param environment: what it gets of the variables that instrument the proxy, and of the node's PYTHONPATH; None:
        these as the node has them.
    """
    settings: list[str] = []
    if environment is not None:
        settings = ["env", *(f"--unset={name}" for name in INSTRUMENTS)]
        settings += [f"{name}={value}" for name, value in environment.items()]
    line = shlex.join([*settings, *argv])
    path.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def our_worker(directory: Path) -> Path:
    """The program that makes a node launch our worker, for ``options.python``: this tree's, with its instruments."""
    directory.mkdir(parents=True, exist_ok=True)
    return executable(directory / "worker.sh", [sys.executable, "-m", "proxy.launcher"], proxy_environment())


def proxy_environment(*folders: Path) -> dict[str, str]:
    """What a program that imports the proxy needs: the instruments of these tests, and PYTHONPATH.

    :param folders: more to import from.
    """
    environment = {name: os.environ[name] for name in INSTRUMENTS if os.environ.get(name)}
    paths = [environment.get("PYTHONPATH", ""), str(ROOT / "src"), *map(str, folders)]
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def router_worker(proxy_socket: str, worker_id: str = "router1", **keys: Any) -> dict[str, Any]:
    """A router worker with one realm, which everybody may do everything in, behind a Unix socket for proxies."""
    allowed = {"call": True, "register": True, "publish": True, "subscribe": True}
    permission = {"uri": "", "match": "prefix", "allow": allowed, "disclose": {"caller": True, "publisher": True}}
    return {
        "type": "router",
        "id": worker_id,
        "realms": [{"name": REALM, "roles": [{"name": "anonymous", "permissions": [permission | {"cache": True}]}]}],
        "transports": [
            {
                "type": "rawsocket",
                "id": "proxies",
                "endpoint": {"type": "unix", "path": proxy_socket},
                "serializers": ["cbor", "msgpack", "json"],
                "auth": {"anonymous-proxy": {"type": "static"}},
            }
        ],
        **keys,
    }


def proxy_worker(proxy_socket: str, endpoint: Endpoint, worker_id: str = "proxy1", **options: Any) -> dict[str, Any]:
    """A proxy worker in front of :func:`router_worker`, listening on ``endpoint``."""
    connection = {
        "transport": {
            "type": "rawsocket",
            "endpoint": {"type": "unix", "path": proxy_socket},
            "url": "rs://localhost",
            "serializer": "cbor",
        },
        "auth": {"anonymous-proxy": {"type": "static"}},
    }
    return {
        "type": "proxy",
        "id": worker_id,
        "options": options,
        "connections": {"router1": connection},
        "routes": {REALM: {"anonymous": "router1"}},
        "transports": [
            {
                "type": endpoint.kind,
                "id": "front",
                "endpoint": endpoint.as_config(),
                "serializers": ["cbor", "msgpack", "json"],
                "auth": {"anonymous": {"type": "static", "role": "anonymous"}},
            }
        ],
    }


class Node:
    """A running node.

    :param directory: its folder; short, Unix sockets lie in it.
    :param workers: worker items as in config.json. Two more come before them, for the tests themselves.
    :param stock: leave ``options.python`` of proxy workers alone; otherwise those without one get ours.
    :param controller_options: ``controller.options``; default: the node stays up whatever its workers do.
    :param command: what starts the node, up to ``start``; None: Crossbar.io's program.
    :param environment: more variables for the node.
    :ivar caller: the session that calls.
    :ivar watcher: a session that only listens.
    """

    def __init__(
        self,
        directory: Path,
        workers: Sequence[dict[str, Any]],
        *,
        stock: bool = False,
        controller_options: dict[str, Any] | None = None,
        command: Sequence[str] | None = None,
        environment: dict[str, str] | None = None,
        log_level: str = "info",
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        if command is None:
            program = find_crossbar()
            assert program is not None, "the fixture `crossbar_program` says whether there is one"
            command = [program]
        options = controller_options or {"shutdown": ["shutdown_on_shutdown_requested"]}
        script = Path(__file__).with_name("node_agent.py")
        agent = str(executable(directory / "agent.sh", [sys.executable, str(script)], {}))
        agents = [{"type": "container", "id": name, "options": {"python": agent}} for name in (CALLER, WATCHER)]
        items = copy.deepcopy(list(workers))
        ours = "" if stock else str(our_worker(directory))
        for item in items:
            if item["type"] == "proxy" and not stock:
                item.setdefault("options", {}).setdefault("python", ours)
        config = {"version": 2, "controller": {"id": "node1", "options": options}, "workers": [*agents, *items]}
        (directory / "config.json").write_text(json.dumps(config, indent=1))
        argv = [*command, "start", "--cbdir", str(directory), "--loglevel", log_level, "--color", "false"]
        self.child = Child("crossbar node", argv, cwd=directory, env={**peer_environment(), **(environment or {})})
        self.pids: set[int] = set()
        self._sessions: dict[str, NodeSession] = {}

    @property
    def caller(self) -> NodeSession:
        """The session that makes calls."""
        return self._session(CALLER)

    @property
    def watcher(self) -> NodeSession:
        """A session that only listens."""
        return self._session(WATCHER)

    def _session(self, name: str) -> NodeSession:
        if name not in self._sessions:
            path = self.directory / f"{name}.sock"
            wait_until(lambda: path.exists() or self._ended(), f"the session of worker {name}", STARTUP)
            self._sessions[name] = NodeSession(path)
        return self._sessions[name]

    def _ended(self) -> bool:
        assert self.child.process.poll() is None, f"the node ended by itself\n{self.child.output}"
        return False

    def wait_ready(self, timeout: float = STARTUP) -> Node:
        """Wait until the node has started everything that its configuration names."""

        def has_started() -> bool:
            self._ended()
            return any(STARTED in line for line in [*self.child.lines, *self.child.errors])

        wait_until(has_started, f"the node is up\n{self.child.output}", timeout, 0.1)
        self.workers()
        return self

    def call(self, uri: str, *args: Any, **kwargs: Any) -> Any:
        """Call a procedure of the management realm as ``caller``; see :meth:`NodeSession.call`."""
        return self.caller.call(uri, *args, **kwargs)

    def worker(self, worker_id: str, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a procedure of a worker."""
        return self.call(f"crossbar.worker.{worker_id}.{name}", *args, **kwargs)

    def workers(self) -> dict[str, dict[str, Any]]:
        """What ``crossbar.get_worker`` says of each worker."""
        ids = self.call("crossbar.get_workers")
        found = {worker_id: self.call("crossbar.get_worker", worker_id) for worker_id in ids}
        self.pids.update(item["pid"] for item in found.values() if item["pid"])
        return found

    def pid(self, worker_id: str) -> int:
        """Process ID of a worker."""
        return int(self.workers()[worker_id]["pid"])

    @property
    def log(self) -> list[str]:
        """Everything that the node printed, its workers' records with it."""
        return [*self.child.lines, *self.child.errors]

    def wait_log(self, text: str) -> None:
        """Wait until a line of the log holds a text."""
        wait_until(lambda: any(text in line for line in self.log), f"the node's log has {text!r}")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 40.0) -> int:
        """End the node by a signal; asserts that its workers are gone with it. Returns its exit status."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        status = self.child.stop(number, timeout)
        wait_until(lambda: not any(map(is_alive, self.pids)), "the workers end with their node", 20.0)
        return status

    def kill(self) -> None:
        """End everything at once, for tests that failed."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self.child.kill()
        for pid in filter(is_alive, self.pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def running(node: Node) -> Iterator[Node]:
    """A node for the length of a block: started, and ended in order unless the block failed."""
    try:
        node.wait_ready()
        yield node
    except BaseException:
        node.kill()
        raise
    if node.child.process.poll() is None:
        node.stop()
