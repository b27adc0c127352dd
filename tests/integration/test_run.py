"""``wamp-proxy run`` as supervisors and people see it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from support.endpoints import Endpoint, free_port
from support.process import Child, wait_until
from support.raw import joined
from support.routers import ROOT, XconnRouter, find_crossbar, unix_answers

pytestmark = pytest.mark.slow

Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    """Run ``wamp-proxy run`` on a configuration."""
    children: list[Child] = []

    def run(config: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> Child:
        argv = [sys.executable, "-m", "proxy", "run", str(config), *arguments]
        children.append(Child("proxy", argv, cwd=cwd, env={**os.environ, **environment}))
        return children[-1]

    yield run
    for child in children:
        child.kill()


def save(folder: Path, transports: list[dict[str, Any]], connection: dict[str, Any] | None = None) -> Path:
    """Write a configuration."""
    item = {
        "type": "proxy",
        "connections": {} if connection is None else {"router1": connection},
        "routes": {} if connection is None else {"realm1": {"anonymous": "router1"}},
        "transports": transports,
    }
    path = folder / "proxy.json"
    path.write_text(json.dumps(item))
    return path


def tcp(kind: str = "rawsocket", port: int = 0) -> dict[str, Any]:
    """A transport on 127.0.0.1."""
    return {"type": kind, "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": port}}


def test_ready_line_names_the_real_addresses(start: Start, tmp_path: Path, xconn: XconnRouter) -> None:
    unix = {"type": "rawsocket", "endpoint": {"type": "unix", "path": "front.sock"}}
    child = start(save(tmp_path, [tcp("websocket"), tcp(), unix], xconn.backends["xconn"]))
    line = child.wait_line("wamp-proxy ready")
    found = re.fullmatch(r"wamp-proxy ready: ws://127\.0\.0\.1:(\d+), rs://127\.0\.0\.1:(\d+), rs://unix:(\S+)", line)
    assert found is not None
    assert found[3] == str(tmp_path / "front.sock")
    assert len(child.lines) == 1
    for endpoint in (
        Endpoint("websocket", int(found[1])),
        Endpoint("rawsocket", int(found[2])),
        Endpoint("rawsocket", path=found[3]),
    ):
        with joined(endpoint) as peer:
            peer.leave()
    assert child.stop() == 0
    assert not Path(found[3]).exists()


DEAF = """
import signal, sys, threading, time
from proxy.config import load
from proxy.runner import run

def ready(addresses):
    def later():
        time.sleep(0.3)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        time.sleep(30)
    threading.Thread(target=later, daemon=True).start()
    print("ready", flush=True)

sys.exit(run(load(sys.argv[1]).config, threads=1, ready=ready))
"""


def test_a_signal_that_another_thread_is_given_is_heard(tmp_path: Path) -> None:
    """The reactor sleeps then, and is not woken by the signal itself."""
    endpoint = Endpoint("rawsocket", free_port())
    config = tmp_path / "proxy.json"
    transport = {"type": "rawsocket", "endpoint": endpoint.as_config()}
    config.write_text(json.dumps({"type": "proxy", "transports": [transport]}))
    child = Child("proxy", [sys.executable, "-c", DEAF, str(config)])
    try:
        assert child.process.wait(15) == 0, child.output
    finally:
        child.kill()


def test_port_in_use(start: Start, tmp_path: Path) -> None:
    management = tmp_path / "management.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        unix = {"type": "rawsocket", "endpoint": {"type": "unix", "path": "front.sock"}}
        config = save(tmp_path, [tcp(), tcp("websocket", port), unix])
        config.write_text(json.dumps({**json.loads(config.read_text()), "management": {"path": str(management)}}))
        child = start(config)
        assert child.process.wait(30) == 1
    assert not management.exists()
    assert not (tmp_path / "front.sock").exists()
    wait_until(lambda: any("wamp-proxy: error" in line for line in child.errors), "the error")
    text = "\n".join(child.errors)
    assert "transport001" in text
    assert str(port) in text
    assert "in use" in text
    assert not any(line.startswith("wamp-proxy ready") for line in child.lines)


def test_supervisor_is_told(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        supervisor.settimeout(30)
        child = start(save(tmp_path, [tcp()]), NOTIFY_SOCKET=str(path))
        assert supervisor.recv(100) == b"READY=1"
        assert child.stop(signal.SIGTERM) == 0
        assert supervisor.recv(100) == b"STOPPING=1"


def test_warnings_go_to_stderr_and_do_not_stop_it(start: Start, tmp_path: Path) -> None:
    child = start(save(tmp_path, [{**tcp(), "optons": {}}]))
    child.wait_line("wamp-proxy ready")
    child.wait_line('did you mean "options"?', errors=True)
    assert child.stop() == 0


@pytest.mark.peers
def test_crossbar_and_the_proxy_share_one_node_configuration(start: Start, tmp_path: Path) -> None:
    """The example: Crossbar.io leaves the disabled proxy worker to wamp-proxy, relative paths mean the same to both."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    node = tmp_path / ".crossbar"
    node.mkdir()
    ports = free_port(), free_port()
    text = (ROOT / "examples" / "crossbar-node.json").read_text()
    (node / "config.json").write_text(text.replace("8080", str(ports[0])).replace("8081", str(ports[1])))
    crossbar = Child("crossbar", [str(program), "start", "--cbdir", str(node), "--loglevel", "warn"], cwd=tmp_path)
    try:
        wait_until(lambda: unix_answers(str(node / "router1.sock")), "crossbar listens", 90.0, 0.1)
        child = start(node / "config.json", "--worker", "proxy1", cwd=tmp_path)
        child.wait_line("wamp-proxy ready")
        for endpoint in (Endpoint("websocket", ports[0]), Endpoint("rawsocket", ports[1])):
            with joined(endpoint) as peer:
                assert peer.call("wamp.session.count") == 1
                peer.leave()
        assert child.stop() == 0
    finally:
        crossbar.stop(timeout=30.0)
