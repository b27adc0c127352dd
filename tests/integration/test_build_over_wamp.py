"""A proxy that is built, changed under load and taken down by somebody who only speaks WAMP.

Once in a Crossbar.io node, over the node's management realm, and once alone, over the worker's own.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from conftest import missing
from support import raw
from support.endpoints import Endpoint, free_port
from support.nodes import Node, our_worker, router_worker, running
from support.process import Child, wait_until
from support.proxies import NEVER_IN_LOG, Config, ProxyProcess
from support.raw import HandshakeRefused, PeerClosed
from support.routers import REALM, XconnRouter, find_crossbar

ROLE = "anonymous"
ROUNDS = 3


class Worker(Protocol):
    """The management API of a worker that runs and has nothing yet."""

    connections: list[dict[str, Any]]
    """Items of ``connections`` that lead to its router, to be used in turn."""

    def call(self, procedure: str, *args: Any, **kwargs: Any) -> Any:
        """Call a procedure of the worker."""

    def wait_gone(self) -> None:
        """Wait until the worker has ended, in order."""


class NodeWorker:
    """A worker that a node was asked to start.

    :param node: with a router worker.
    :param directory: for the program.
    """

    def __init__(self, node: Node, directory: Path, router: str) -> None:
        self.node = node
        endpoint = {"type": "unix", "path": router}
        transport = {"type": "rawsocket", "endpoint": endpoint, "url": "rs://localhost", "serializer": "cbor"}
        self.connections = [{"transport": transport, "auth": {"anonymous-proxy": {"type": "static"}}}]
        started = node.call("crossbar.start_worker", "built", "proxy", {"python": str(our_worker(directory))})
        assert started["status"] == "started"
        # What third-party modules say while they are imported is not the worker's.
        self._noise = len(self._lines())

    def call(self, procedure: str, *args: Any, **kwargs: Any) -> Any:
        """See :class:`Worker`."""
        return self.node.worker("built", procedure, *args, **kwargs)

    def wait_gone(self) -> None:
        """See :class:`Worker`."""
        wait_until(lambda: "built" not in self.node.call("crossbar.get_workers"), "the worker has ended")
        assert any("ended successfully" in line and "built" in line for line in self.node.log)
        lines = self._lines()[self._noise :]
        assert not [line for line in lines if any(word in line for word in NEVER_IN_LOG)]

    def _lines(self) -> list[str]:
        return [line for line in self.node.log if "[Proxy " in line]


class LoneWorker:
    """A worker that runs by itself, and serves its own management realm.

    :param config: with nothing in it but the way to that realm.
    :param connections: that lead to its router.
    """

    def __init__(self, config: Config, connections: list[dict[str, Any]]) -> None:
        path = config.directory / "management.sock"
        config.extra["management"] = {"path": str(path)}
        self.connections = connections
        self.process = ProxyProcess(config)
        self._peer = raw.dial(Endpoint("rawsocket", path=str(path))).join("crossbar")
        (self._id,) = self._peer.call("crossbar.get_workers")

    def call(self, procedure: str, *args: Any, **kwargs: Any) -> Any:
        """See :class:`Worker`."""
        return self._peer.call(f"crossbar.worker.{self._id}.{procedure}", *args, **kwargs)

    def wait_gone(self) -> None:
        """See :class:`Worker`."""
        self._peer.close()
        assert self.process.child.process.wait(20.0) == 0, self.process.child.output
        self.process.check_log()


class LoadClients:
    """The child process with the clients, see load_client.py."""

    def __init__(self) -> None:
        script = Path(raw.__file__).with_name("load_client.py")
        self.child = Child("load clients", [sys.executable, "-W", "ignore", str(script)], stdin=True)
        self.child.wait_line("ready")
        self._seen = len(self.child.lines)

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give a command; the answer. What went wrong there fails the test."""
        self.child.send_line(json.dumps(command))
        wait_until(lambda: len(self.child.lines) > self._seen or self.child.process.poll(), f"{command}", 60.0)
        answer: dict[str, Any] = json.loads(self.child.lines[self._seen])
        self._seen += 1
        assert "error" not in answer, f"{command}: {answer}"
        return answer

    def open(self, name: str, endpoint: Endpoint, serializer: str = "cbor", *, load: bool = True) -> int:
        """Join; the session's ID."""
        job = {"endpoint": endpoint.as_job(), "serializer": serializer, "batched": False, "deflate": None}
        return int(self.ask(open=name, job={**job, "realm": REALM}, load=load)["session"])

    def wait_progress(self) -> None:
        """Wait until every client that calls and publishes has done so, twice from now on."""
        before = self.ask(counts=None)["counts"]

        def all_moved() -> bool:
            now = self.ask(counts=None)["counts"]
            return all(now[name][index] >= count + 2 for name in before for index, count in enumerate(before[name]))

        wait_until(all_moved, "all clients go on", 30.0)


@pytest.fixture
def clients() -> Iterator[LoadClients]:
    """The clients."""
    loads = LoadClients()
    yield loads
    loads.child.kill()


@pytest.fixture(params=["node", pytest.param("alone", id="alone")])
def worker(request: pytest.FixtureRequest, tmp_path: Path, xconn: XconnRouter) -> Iterator[Worker]:
    """An empty worker, in a node or alone in front of another router."""
    if request.param == "alone":
        items = [xconn.backends[name] for name in ("xconn", "xconn_rs", "xconn_ws")]
        lone = LoneWorker(Config(tmp_path), items)
        yield lone
        lone.process.child.kill()
        return
    if find_crossbar() is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    router = str(tmp_path / "router.sock")
    with running(Node(tmp_path, [router_worker(router)])) as node:
        yield NodeWorker(node, tmp_path, router)


class Builder:
    """Builds with the management API alone; keeps what it made, the oldest first."""

    def __init__(self, worker: Worker, directory: Path) -> None:
        self.worker, self.directory = worker, directory
        self.connections: list[str] = []
        self.routes: list[str] = []
        self.transports: dict[str, Endpoint] = {}
        self._numbers = itertools.count(1)
        self._items = itertools.cycle(worker.connections)

    def connect(self) -> None:
        """Another connection, and a route that leads to it."""
        name = f"connection{next(self._numbers)}"
        self.worker.call("start_proxy_connection", name, next(self._items))
        self.connections.append(name)
        self.routes.append(self.worker.call("start_proxy_realm_route", REALM, {ROLE: name})["id"])

    def disconnect(self) -> None:
        """Take the oldest route away, and then its connection, without regard to who uses them."""
        self.worker.call("stop_proxy_realm_route", REALM, self.routes.pop(0))
        self.worker.call("stop_proxy_connection", self.connections.pop(0))

    def force_disconnect(self) -> None:
        """Take the oldest connection away, while a route names it; logins use the other ones."""
        self.worker.call("stop_proxy_connection", self.connections.pop(0), force=True)
        for endpoint in self.transports.values():
            for _ in range(2):
                with raw.joined(endpoint) as peer:
                    peer.leave()
        self.worker.call("stop_proxy_realm_route", REALM, self.routes.pop(0))

    def listen(self, kind: str) -> Endpoint:
        """Another transport: ``websocket`` over TCP, or ``rawsocket`` over a Unix socket."""
        name = f"transport{next(self._numbers)}"
        endpoint = Endpoint(kind, free_port())
        if kind == "rawsocket":
            endpoint = Endpoint(kind, path=str(self.directory / f"{name}.sock"))
        auth = {"anonymous": {"type": "static", "role": ROLE}}
        serializers = ["cbor", "json", "msgpack"]
        item = {"type": kind, "endpoint": endpoint.as_config(), "auth": auth, "serializers": serializers}
        started = self.worker.call("start_proxy_transport", name, item)
        assert started["state"] == 3
        self.transports[name] = endpoint
        return endpoint

    def unlisten(self, **options: Any) -> None:
        """Take the oldest transport away."""
        name = next(iter(self.transports))
        endpoint = self.transports.pop(name)
        assert self.worker.call("stop_proxy_transport", name, **options)["state"] == 6
        assert not answers(endpoint)

    def check(self) -> None:
        """The worker has what was built, and nothing else."""
        assert self.worker.call("get_proxy_connections") == sorted(self.connections)
        assert self.worker.call("get_proxy_transports") == sorted(self.transports)
        assert self.worker.call("get_proxy_routes") == ([REALM] if self.routes else [])
        if self.routes:
            found = self.worker.call("list_proxy_realm_routes", REALM)
            assert [route["id"] for route in found] == self.routes


def answers(endpoint: Endpoint) -> bool:
    """Whether somebody listens there."""
    try:
        raw.dial(endpoint).close()
    except (OSError, HandshakeRefused, PeerClosed):
        return False
    return True


def wait_sessions(worker: Worker, count: int) -> None:
    """Wait until the worker lists so many sessions: whoever left is listed until its router has answered."""
    wait_until(lambda: worker.call("get_proxy_sessions")["total"] == count, f"{count} sessions are listed")


@pytest.mark.slow
@pytest.mark.peers
def test_built_changed_under_load_and_taken_down(worker: Worker, clients: LoadClients, tmp_path: Path) -> None:
    builder = Builder(worker, tmp_path)
    builder.check()

    builder.connect()
    websocket = builder.listen("websocket")
    rawsocket = builder.listen("rawsocket")
    builder.check()
    clients.open("witness", websocket)
    clients.open("client0", websocket, "json")
    clients.open("client1", rawsocket, "msgpack")
    clients.wait_progress()

    for number in range(2, 2 + ROUNDS):
        for change in changes(builder):
            change()
            clients.wait_progress()
        builder.check()
        clients.open(f"client{number}", list(builder.transports.values())[-1])
        wait_sessions(worker, 4)
        clients.wait_progress()
        clients.ask(close=f"client{number - 2}")
        wait_sessions(worker, 3)

    victim = clients.open("victim", next(iter(builder.transports.values())), load=False)
    assert worker.call("kill_proxy_session", victim)["session"] == victim
    assert clients.ask(left="victim") == {"reason": "wamp.close.killed"}
    clients.wait_progress()

    for number in (ROUNDS, ROUNDS + 1):
        clients.ask(close=f"client{number}")
    result = clients.ask(witness=None)
    assert result["errors"] == []
    assert result["received"] == result["published"]
    assert len(result["published"]) == ROUNDS + 2
    assert min(result["published"].values()) > 2 * ROUNDS

    take_down(builder, clients)


def changes(builder: Builder) -> list[Callable[[], Any]]:
    """Everything that can be changed while clients work: nothing of it may reach those who are there already."""
    return [
        builder.connect,
        builder.disconnect,
        builder.connect,
        builder.force_disconnect,
        lambda: builder.listen("rawsocket"),
        builder.unlisten,
        lambda: builder.listen("websocket"),
        builder.unlisten,
    ]


def take_down(builder: Builder, clients: LoadClients) -> None:
    """Everything away again: who is left hears why, and the worker ends."""
    worker = builder.worker
    for how in ("close", "drain"):
        clients.open(how, next(iter(builder.transports.values())), load=False)
        wait_sessions(worker, 2)
        builder.unlisten(sessions=how)
        assert clients.ask(left=how) == {"reason": "wamp.close.system_shutdown"}
        wait_sessions(worker, 1)
    # The witness came by a transport, a route and a connection that have gone long ago.
    (session,) = worker.call("get_proxy_sessions")["sessions"]
    assert worker.call("get_proxy_session", session["session"]) == session
    assert worker.call("kill_proxy_session", session["session"], "com.example.done")["session"] == session["session"]
    assert clients.ask(left="witness") == {"reason": "com.example.done"}
    builder.disconnect()
    builder.check()
    assert builder.connections == builder.routes == list(builder.transports) == []
    wait_until(lambda: worker.call("get_proxy_stats")["sessions"] == 0, "no session is left")
    assert worker.call("shutdown") is None
    worker.wait_gone()
