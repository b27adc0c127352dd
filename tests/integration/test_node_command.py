"""``wamp-proxy crossbar``: Crossbar.io's own program, whose nodes start our proxy workers without being told to."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.endpoints import Endpoint, free_port
from support.node_command import Crossbar
from support.nodes import Node, our_worker, proxy_worker, router_worker, running
from support.process import wait_until
from support.raw import GOODBYE, joined

pytestmark = [pytest.mark.slow, pytest.mark.peers]


@pytest.fixture(scope="module")
def crossbar_env(tmp_path_factory: pytest.TempPathFactory) -> Crossbar:
    """Both in one environment."""
    return Crossbar(tmp_path_factory.mktemp("lent"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="node") as name:
        yield Path(name)


def check_worker(node: Node, worker_id: str, endpoint: Endpoint) -> None:
    """A worker serves clients, and ends in order."""
    assert node.workers()[worker_id]["type"] == "proxy"
    with joined(endpoint) as client:
        assert client.welcome[2]["authextra"]["x_cb_proxy_worker"] == worker_id
        assert client.call("wamp.session.count") == 1
        node.worker(worker_id, "shutdown")
        assert client.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        assert client.recv_end()[0] == []
    wait_until(lambda: worker_id not in node.call("crossbar.get_workers"), "the worker has ended")
    node.wait_log(f"Node worker {worker_id} ended successfully")


def modules(pid: int) -> str:
    """Paths of the compiled modules that a process has loaded."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_node_starts_our_program(crossbar_env: Crossbar, folder: Path) -> None:
    """It is found on the PATH, and what the node's configuration says stays as it is."""
    front = Endpoint("rawsocket", free_port())
    our_worker(folder).rename(folder / "wamp-proxy-worker")
    environment = {**crossbar_env.environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    workers = [router_worker("router.sock"), proxy_worker("router.sock", front)]
    node = Node(folder, workers, stock=True, command=crossbar_env.command, environment=environment)
    with running(node):
        assert psutil.Process(node.pid("proxy1")).exe() == psutil.Process().exe()
        paths = node.worker("proxy1", "get_pythonpath")
        assert not [path for path in paths if (Path(path) / "crossbar" / "__init__.py").exists()]
        # As the monitor of a webcluster does it: there are no options at all.
        node.call("crossbar.start_worker", "proxy2", "proxy", None)
        node.wait_log("WAMP proxy proxy2 is ready")
        assert node.worker("proxy2", "get_proxy_stats")["worker"] == "proxy2"
        check_worker(node, "proxy1", front)


def test_node_starts_our_class_in_its_own_program(crossbar_env: Crossbar, folder: Path) -> None:
    """Where ours is not found, Crossbar.io's program runs the class."""
    front = Endpoint("rawsocket", free_port())
    workers = [
        router_worker("router.sock"),
        proxy_worker("router.sock", front, extra={"threads": 1, "shutdown_timeout": 2000}),
    ]
    environment = {**crossbar_env.environment, "PATH": "/usr/bin:/bin"}
    node = Node(folder, workers, stock=True, command=crossbar_env.command, environment=environment)
    with running(node):
        assert "proxy/_relay." in modules(node.pid("proxy1"))
        assert "_relay." not in modules(node.pid("router1"))
        assert node.worker("proxy1", "get_proxy_stats")["worker"] == "proxy1"
        check_worker(node, "proxy1", front)


def test_configuration_is_checked_in_full(crossbar_env: Crossbar, folder: Path) -> None:
    """``crossbar check`` says nothing about proxy workers; with ours it names the key that is wrong."""
    item: dict[str, Any] = proxy_worker("router.sock", Endpoint("rawsocket", 1))
    item["transports"][0]["endpoint"]["port"] = "http"
    config = {"version": 2, "workers": [item]}
    (folder / "config.json").write_text(json.dumps(config))
    done = crossbar_env.run("check", "--cbdir", str(folder))
    assert done.returncode != 0
    assert "port" in done.stdout + done.stderr
    item["transports"][0]["endpoint"]["port"] = 8080
    (folder / "config.json").write_text(json.dumps(config))
    done = crossbar_env.run("check", "--cbdir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr


def test_arguments_are_crossbars(crossbar_env: Crossbar) -> None:
    done = crossbar_env.run("start", "--help")
    assert done.returncode == 0
    assert "--cbdir" in done.stdout


def test_every_kind_of_node(crossbar_env: Crossbar) -> None:
    """The others make their table of workers when they are imported, which is later."""
    code = (
        "from autobahn.twisted.choosereactor import install_reactor; install_reactor()\n"
        "from crossbar import personality\n"
        "from proxy.native_workers import install; install(personality)\n"
        "from crossbar import edge, master\n"
        "kinds = (personality, edge, master)\n"
        "print(*(kind.Personality.native_workers['proxy']['worker_class'].__module__ for kind in kinds))"
    )
    argv = [crossbar_env.python, "-c", code]
    done = subprocess.run(argv, env=crossbar_env.all, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["proxy.controller"] * 3, done.stderr


def test_without_crossbar() -> None:
    """It says what is missing and what else to do."""
    done = subprocess.run([sys.executable, "-m", "proxy", "crossbar", "version"], capture_output=True, text=True)
    if importlib.util.find_spec("crossbar") is not None:
        pytest.skip("crossbar is installed here")
    assert done.returncode == 1
    assert "Crossbar.io cannot be imported" in done.stderr
    assert '"options": {"python": ".../wamp-proxy-worker"}' in done.stderr
