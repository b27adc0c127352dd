"""The end of a node, in order or not, and of the worker with it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import missing
from support.census import settled
from support.endpoints import Endpoint, free_port
from support.nodes import Node, is_alive, proxy_worker, router_worker, running
from support.process import wait_until
from support.raw import GOODBYE, joined
from support.routers import XconnRouter, find_crossbar

pytestmark = [pytest.mark.slow, pytest.mark.peers]


def require_crossbar() -> None:
    """Skip a test where there is no node."""
    if find_crossbar() is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")


class Set:
    """A node of a router worker and a proxy worker.

    :param folder: the node's.
    """

    def __init__(self, folder: Path, **keys: object) -> None:
        self.front = Endpoint("rawsocket", free_port())
        self.node = Node(folder, [router_worker("router.sock"), proxy_worker("router.sock", self.front)], **keys)
        self.node.wait_ready()
        self.pid = self.node.pid("proxy1")


@pytest.fixture
def set_up() -> Iterator[Set]:
    """One, which may have ended by itself after the test."""
    require_crossbar()
    with tempfile.TemporaryDirectory(prefix="node") as folder:
        made = Set(Path(folder))
        try:
            yield made
        finally:
            made.node.kill()


def lone_proxy(folder: Path, router: XconnRouter, **keys: str) -> tuple[Node, Endpoint]:
    """A node whose proxy worker leads to a router that has nothing to do with the node."""
    require_crossbar()
    front = Endpoint("rawsocket", free_port())
    item = proxy_worker("", front)
    item["connections"]["router1"] = router.backends["xconn"]
    return Node(folder, [item], **keys), front


def test_node_shutdown(set_up: Set) -> None:
    """SIGTERM for the node: the proxy's clients are told before their router goes."""
    with joined(set_up.front) as client:
        set_up.node.child.process.send_signal(signal.SIGTERM)
        goodbye = client.recv_type(GOODBYE)
        assert goodbye[2] in ("wamp.close.system_shutdown", "wamp.close.close_realm")
        client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
        assert client.recv_end()[0] == []
    set_up.node.stop()
    assert not is_alive(set_up.pid)


def test_shutdown_of_the_node_over_its_api(set_up: Set) -> None:
    with joined(set_up.front) as client:
        set_up.node.call("crossbar.shutdown")
        client.recv_type(GOODBYE)
        client.recv_end()
    wait_until(lambda: set_up.node.child.process.poll() is not None, "the node has ended", 40.0)
    wait_until(lambda: not is_alive(set_up.pid), "the worker has ended")


def test_node_that_is_killed(xconn: XconnRouter) -> None:
    """The worker notices, says goodbye to its clients and ends; nothing of it is left on the port."""
    with tempfile.TemporaryDirectory(prefix="node") as folder:
        node, front = lone_proxy(Path(folder), xconn)
        try:
            pid = node.wait_ready().pid("proxy1")
            with joined(front) as client:
                node.child.kill()
                assert client.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
                client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
                assert client.recv_end()[0] == []
            wait_until(lambda: not is_alive(pid), "the worker has ended", 20.0)
        finally:
            node.kill()
        with pytest.raises(OSError):
            front.connect()


def test_node_that_hangs_does_not_stop_the_relaying(xconn: XconnRouter) -> None:
    """A node that reads neither the log nor the worker's events has no part in what clients do."""
    with tempfile.TemporaryDirectory(prefix="node") as folder:
        node, front = lone_proxy(Path(folder), xconn, log_level="debug")
        with running(node):
            os.kill(node.child.pid, signal.SIGSTOP)
            try:
                for _ in range(500):  # more lines of the log than the pipe to the node holds
                    with joined(front) as client:
                        assert client.session
                        client.leave()
            finally:
                os.kill(node.child.pid, signal.SIGCONT)
            assert node.worker("proxy1", "get_proxy_transports") == ["front"]


def test_node_without_exit_triggers_ends_with_its_worker(set_up: Set) -> None:
    """A worker that dies is an error exit for the node, a worker that ends in order is none."""
    os.kill(set_up.pid, signal.SIGKILL)
    wait_until(lambda: any("Node worker proxy1 ended with error" in line for line in set_up.node.log), "told as error")
    set_up.node.stop()


def test_a_worker_takes_no_descriptors_from_its_node(set_up: Set) -> None:
    """Sessions come and go; the worker's descriptors are what they were."""
    before = settled(set_up.pid)
    for _ in range(20):
        with joined(set_up.front) as client:
            client.leave()
    wait_until(lambda: not settled(set_up.pid) - before, "the descriptors of the sessions are closed")
    set_up.node.stop()
