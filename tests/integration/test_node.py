"""Our worker under a real Crossbar.io node: booted from its config.json, managed through its management realm."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from conftest import missing
from support.census import threads
from support.endpoints import Endpoint, free_port
from support.nodes import CallFailed, Node, executable, our_worker, proxy_worker, router_worker, running
from support.process import wait_until
from support.raw import GOODBYE, PeerClosed, dial, joined
from support.routers import ROOT, find_crossbar

pytestmark = [pytest.mark.slow, pytest.mark.peers]

FRONT = Endpoint("websocket", free_port())
SHARED = Endpoint("rawsocket", free_port())


def shared_worker(worker_id: str) -> dict[str, object]:
    """A proxy worker on the port that several have."""
    item = proxy_worker("router.sock", SHARED, worker_id, extra={"threads": 1})
    item["transports"][0]["endpoint"]["shared"] = True
    return item


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a router worker and three proxy workers; two of them share a port."""
    if find_crossbar() is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    with tempfile.TemporaryDirectory(prefix="node") as folder:
        options = {"title": "a proxy of the node", "cpu_affinity": [0]}
        workers = [
            router_worker("router.sock"),
            proxy_worker("router.sock", FRONT, extra={"threads": 3, "shutdown_timeout": 3000}, **options),
            shared_worker("shared1"),
            shared_worker("shared2"),
        ]
        with running(Node(Path(folder), workers)) as started:
            yield started


def new_worker(node: Node, worker_id: str, **options: object) -> Endpoint:
    """Start a proxy worker over the node's management API, and build it up over its own."""
    program = str(our_worker(node.directory))
    node.call("crossbar.start_worker", worker_id, "proxy", {"python": program, **options})
    endpoint = Endpoint("rawsocket", free_port())
    item = proxy_worker("router.sock", endpoint, worker_id)
    node.worker(worker_id, "start_proxy_connection", "router1", item["connections"]["router1"])
    node.worker(worker_id, "start_proxy_realm_route", "realm1", item["routes"]["realm1"])
    node.worker(worker_id, "start_proxy_transport", "front", item["transports"][0])
    node.workers()
    return endpoint


def title(node: Node, worker_id: str) -> str:
    """What ps shows of a worker."""
    return Path(f"/proc/{node.pid(worker_id)}/cmdline").read_bytes().rstrip(b"\0").decode()


def wait_gone(node: Node, worker_id: str) -> None:
    """Wait until the node has forgotten a worker."""
    wait_until(lambda: worker_id not in node.call("crossbar.get_workers"), f"worker {worker_id} is gone")


def test_node_knows_the_worker(node: Node) -> None:
    found = node.workers()["proxy1"]
    assert (found["type"], found["status"]) == ("proxy", "started")
    assert node.call("crossbar.get_workers", filter_types=["proxy"]) == ["proxy1", "shared1", "shared2"]


def test_boot_from_configuration(node: Node) -> None:
    """What config.json names runs, and clients get through to the router worker."""
    assert node.worker("proxy1", "get_proxy_connections") == ["router1"]
    assert node.worker("proxy1", "get_proxy_routes") == ["realm1"]
    assert node.worker("proxy1", "get_proxy_transport", "front")["state"] == 3
    with joined(FRONT) as callee, joined(FRONT, "json") as caller:
        callee.register("com.example.proc")
        caller.send([48, 1, {}, "com.example.proc", [7]])
        invocation = callee.recv_type(68)
        callee.send([70, invocation[1], {}, [invocation[4][0] + 1]])
        assert caller.recv_type(50)[3] == [8]
        extra = caller.welcome[2]["authextra"]
        assert extra["x_cb_proxy_node"] == node.worker("proxy1", "get_node_id") == "node1"
        assert extra["x_cb_proxy_worker"] == "proxy1"
        assert extra["x_cb_proxy_pid"] == node.pid("proxy1")


def test_events_of_the_boot(node: Node) -> None:
    """In order: the worker is ready before the node configures it."""
    events = [event for event in node.watcher.since(0) if event.topic.startswith("crossbar.worker.proxy1.")]
    kinds = ("connection", "route", "transport")
    expected = [f"on_proxy_{kind}_{step}" for kind in kinds for step in ("starting", "started")]
    names = [event.name for event in events if event.name == "on_worker_ready" or event.name in expected]
    assert names[: 1 + len(expected)] == ["on_worker_ready", *expected]
    assert events[0].args == [{"type": "proxy", "id": "proxy1", "pid": node.pid("proxy1")}]


def test_the_process(node: Node) -> None:
    """Its title and folder are those that the node's configuration gives; it may open as many files as it can."""
    process = psutil.Process(node.pid("proxy1"))
    assert title(node, "proxy1") == "a proxy of the node"
    assert title(node, "shared1") == "crossbar-worker [proxy.controller.ProxyController]"
    assert process.cwd() == str(node.directory.resolve())
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard


def test_cpu_affinity_of_the_options(node: Node) -> None:
    """It holds for every thread: the data threads are what matters."""
    tasks = Path(f"/proc/{node.pid('proxy1')}/task")
    assert {tuple(os.sched_getaffinity(int(task.name))) for task in tasks.iterdir()} == {(0,)}


def test_number_of_data_threads(node: Node) -> None:
    """``options.extra.threads``; all else is the same in both."""
    assert threads(node.pid("proxy1")) - threads(node.pid("shared1")) == 2


def test_it_does_not_use_the_nodes_packages(node: Node) -> None:
    """The node names all of its folders; Crossbar.io is in none of those that are searched."""
    paths = node.worker("proxy1", "get_pythonpath")
    assert not [path for path in paths if (Path(path) / "crossbar" / "__init__.py").exists()]


def test_log(node: Node) -> None:
    """What the worker logs is in the node's log, under its name and process ID."""
    node.wait_log(f"[Proxy      {node.pid('proxy1'):>6}] WAMP proxy proxy1 is ready on node node1")
    item = {"type": "rawsocket", "endpoint": FRONT.as_config(), "auth": {"anonymous": {"type": "static"}}}
    with pytest.raises(CallFailed) as error:
        node.worker("shared1", "start_proxy_transport", "taken", item)
    assert error.value.uri == "crossbar.error.cannot_listen"


def test_get_worker_log_has_the_text(node: Node) -> None:
    """The node keeps the last ten records, of which its own workers' have none."""
    program = str(our_worker(node.directory))
    node.call("crossbar.start_worker", "logged", "proxy", {"python": program})
    node.wait_log("WAMP proxy logged is ready")
    records = node.call("crossbar.get_worker_log", "logged")
    assert any("WAMP proxy logged is ready" in record["log_text"] for record in records)
    node.call("crossbar.stop_worker", "logged")
    wait_gone(node, "logged")


def test_two_workers_share_a_port(node: Node) -> None:
    """The kernel spreads clients over both; when one ends, new ones reach the other."""
    seen = set()
    for _ in range(200):
        with joined(SHARED) as client:
            seen.add(client.welcome[2]["authextra"]["x_cb_proxy_worker"])
            client.leave()
        if len(seen) == 2:
            break
    assert seen == {"shared1", "shared2"}
    node.call("crossbar.stop_worker", "shared1")
    wait_gone(node, "shared1")
    for _ in range(20):
        with joined(SHARED) as client:
            assert client.welcome[2]["authextra"]["x_cb_proxy_worker"] == "shared2"
            client.leave()


def test_stop_worker_and_start_it_again(node: Node) -> None:
    """Clients are told; afterwards the same ID starts anew, with nothing in it."""
    endpoint = new_worker(node, "proxy2")
    pid = node.pid("proxy2")
    with joined(endpoint) as client, joined(FRONT) as observer:
        observer.subscribe("wamp.session.on_leave")
        stopped = node.call("crossbar.stop_worker", "proxy2")
        assert (stopped["id"], stopped["type"], stopped["kill"]) == ("proxy2", "proxy", False)
        assert client.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
        assert observer.recv_type(36)[4][0] == client.session
    wait_gone(node, "proxy2")
    node.wait_log("Node worker proxy2 ended successfully")
    again = new_worker(node, "proxy2")
    assert node.pid("proxy2") != pid
    with joined(again) as client:
        client.leave()
    node.call("crossbar.stop_worker", "proxy2")
    wait_gone(node, "proxy2")


def test_shutdown_procedure(node: Node) -> None:
    """The caller has its answer, everybody else the event with who asked."""
    endpoint = new_worker(node, "proxy3")
    mark = node.watcher.mark()
    with joined(endpoint) as client:
        assert node.worker("proxy3", "shutdown") is None
        event = node.watcher.wait_event("proxy3.on_shutdown_requested", mark)
        assert event.args[0]["who"] == node.caller.session
        assert client.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        assert client.recv_end()[0] == []
    wait_gone(node, "proxy3")
    assert not [event for event in node.caller.since(0) if event.topic.endswith("proxy3.on_shutdown_requested")]
    node.wait_log("Node worker proxy3 ended successfully")


def test_sigterm(node: Node) -> None:
    endpoint = new_worker(node, "proxy4")
    mark = node.watcher.mark()
    pid = node.pid("proxy4")
    with joined(endpoint) as client:
        os.kill(pid, signal.SIGINT)  # Ctrl-C at the node's terminal reaches all its workers, which is the node's affair
        assert node.worker("proxy4", "get_proxy_routes") == ["realm1"]
        os.kill(pid, signal.SIGTERM)
        assert client.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        assert client.recv_end()[0] == []
    assert node.watcher.wait_event("proxy4.on_shutdown_requested", mark).args[0]["who"] is None
    wait_gone(node, "proxy4")
    node.wait_log("Node worker proxy4 ended successfully")


def test_clients_that_do_not_answer_do_not_hold_up_the_end(node: Node) -> None:
    """``options.extra.shutdown_timeout`` is what they have."""
    endpoint = new_worker(node, "proxy5", extra={"shutdown_timeout": 200})
    with joined(endpoint) as silent:
        node.worker("proxy5", "shutdown")
        wait_gone(node, "proxy5")
        assert [message[0] for message in silent.recv_end()[0]] == [GOODBYE]
    node.wait_log("Node worker proxy5 ended successfully")


def test_killed_worker_is_replaced(node: Node) -> None:
    """Its port is free again at once, and the router loses its sessions."""
    endpoint = new_worker(node, "proxy6")
    item = proxy_worker("router.sock", endpoint)["transports"][0]
    with joined(endpoint) as client, joined(FRONT) as observer:
        observer.subscribe("wamp.session.on_leave")
        node.call("crossbar.stop_worker", "proxy6", kill=True)
        with pytest.raises((PeerClosed, OSError)):
            client.recv()
        assert observer.recv_type(36)[4][0] == client.session
    wait_gone(node, "proxy6")
    new_worker(node, "proxy6")
    assert node.worker("proxy6", "start_proxy_transport", "again", item)["state"] == 3
    with joined(endpoint) as client:
        client.leave()
    node.call("crossbar.stop_worker", "proxy6")
    wait_gone(node, "proxy6")


def test_options_that_cannot_be_used_are_told_to_who_starts_the_worker(node: Node) -> None:
    program = str(our_worker(node.directory))
    with pytest.raises(CallFailed, match="cannot_start") as error:
        node.call("crossbar.start_worker", "proxy7", "proxy", {"python": program, "extra": {"threads": 1000}})
    assert "threads: 1000: expected an integer from 1 to 64" in str(error.value)
    assert "proxy7" not in node.call("crossbar.get_workers")


@pytest.mark.parametrize("reactor", ["epoll", "poll", "select"])
def test_reactors_of_the_options(node: Node, reactor: str) -> None:
    endpoint = new_worker(node, "proxy8", reactor={"linux": reactor})
    with joined(endpoint) as client:
        client.leave()
    node.call("crossbar.stop_worker", "proxy8")
    wait_gone(node, "proxy8")


def test_the_installed_program(node: Node) -> None:
    """As users have it: a script of the interpreter that the package is installed for."""
    script = ROOT / "scripts" / "wamp-proxy-worker"
    program = executable(node.directory / "installed.sh", [sys.executable, str(script)])
    folder = node.directory / "modules"
    folder.mkdir(exist_ok=True)
    options = {"python": str(program), "pythonpath": ["modules"]}
    node.call("crossbar.start_worker", "proxy9", "proxy", options)
    paths = node.worker("proxy9", "get_pythonpath")
    assert not [path for path in paths if (Path(path) / "crossbar" / "__init__.py").exists()]
    # The operator's own folder is there, behind everything that is ours.
    assert str(folder) in paths
    assert paths.index(str(folder)) > max(index for index, path in enumerate(paths) if "site-packages" in path)
    node.call("crossbar.stop_worker", "proxy9")
    wait_gone(node, "proxy9")


def test_workers_leave_nothing_behind(node: Node) -> None:
    """Runs last: the router of the node has no sessions of clients left."""

    def count() -> int:
        with joined(FRONT) as client:
            found = int(client.call("wamp.session.count"))
            client.leave()
            return found - 1

    wait_until(lambda: count() == 0, "all sessions have ended")
    with pytest.raises((OSError, PeerClosed)):
        dial(Endpoint("rawsocket", FRONT.port)).recv()
