"""The manhole of a running worker, by a real SSH client."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.controllers import ServiceWorker
from support.endpoints import free_port
from support.process import Child, wait_until

pytest.importorskip("bcrypt", reason="needs the extra: manhole")

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "manhole_client.py"
USERS = [{"user": "joe", "password": "open sesame"}, {"user": "eva", "password": "x"}]


def ssh(endpoint: str, user: str, password: str, *lines: str) -> tuple[int, str]:
    """Log in and type; status and output."""
    argv = [sys.executable, str(SCRIPT), endpoint, user, password, *lines]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[ServiceWorker]:
    worker = ServiceWorker(tmp_path)
    yield worker
    if worker.child.process.poll() is None:
        worker.stop()


@pytest.fixture
def port(worker: ServiceWorker) -> int:
    """A manhole on the loopback interface."""
    number = free_port()
    shown = worker("start_manhole", {"endpoint": {"type": "tcp", "port": number}, "users": USERS})
    assert shown["status"] == "started"
    return number


def test_who_is_let_in_has_the_worker_at_hand(port: int) -> None:
    status, output = ssh(f"tcp:127.0.0.1:{port}", "joe", "open sesame", "worker.worker_id", "session is worker", "\x04")
    assert status == 0, output
    assert "'worker001'" in output
    assert "True" in output


@pytest.mark.parametrize(("user", "password"), [("joe", "x"), ("eva", "open sesame"), ("who", "x"), ("joe", "")])
def test_nobody_else_gets_in(port: int, user: str, password: str) -> None:
    status, output = ssh(f"tcp:127.0.0.1:{port}", user, password, "worker.worker_id", "\x04")
    assert status == 1, output
    assert "worker001" not in output


def test_it_listens_on_the_loopback_interface_only(worker: ServiceWorker, port: int) -> None:
    listening = [item["local"] for item in worker("get_process_info")["sockets"] if item["local"].endswith(f":{port}")]
    assert listening == [f"127.0.0.1:{port}"]


def test_the_host_key_is_made_once_and_is_private(worker: ServiceWorker, port: int, tmp_path: Path) -> None:
    (key,) = tmp_path.glob("ssh_host*")
    assert key.stat().st_mode & 0o777 == 0o600
    _, first = ssh(f"tcp:127.0.0.1:{port}", "joe", "x")
    worker("stop_manhole")
    worker("start_manhole", {"endpoint": {"type": "tcp", "port": port}, "users": USERS})
    _, second = ssh(f"tcp:127.0.0.1:{port}", "joe", "x")
    print_of = re.compile("host key .*")
    assert print_of.findall(first) == print_of.findall(second) != []
    assert [path.name for path in tmp_path.iterdir()] == [key.name], "nothing is left behind"


def test_a_host_key_that_others_can_read_is_refused(worker: ServiceWorker, tmp_path: Path) -> None:
    config = {"endpoint": {"type": "unix", "path": "hole.sock"}, "users": USERS}
    worker("start_manhole", config)
    worker("stop_manhole")
    (key,) = tmp_path.glob("ssh_host*")
    key.chmod(0o644)
    worker.fails("crossbar.error.cannot_start", "start_manhole", config)
    key.write_text("garbage")
    key.chmod(0o600)
    text = worker.fails("crossbar.error.cannot_start", "start_manhole", config)
    assert "garbage" not in text
    assert worker("get_manhole") is None


def test_a_unix_socket_is_for_its_owner_and_goes_with_the_manhole(worker: ServiceWorker, tmp_path: Path) -> None:
    shown = worker("start_manhole", {"endpoint": {"type": "unix", "path": "hole.sock"}, "users": USERS})
    assert shown["config"]["users"] == [{"user": "joe", "password": "***"}, {"user": "eva", "password": "***"}]
    path = tmp_path / "hole.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    status, output = ssh(f"unix:{path}", "eva", "x", "6 * 7", "\x04")
    assert (status, "42" in output) == (0, True), output
    worker("stop_manhole")
    assert not path.exists()


def test_life(worker: ServiceWorker, port: int) -> None:
    shown = worker("get_manhole")
    assert sorted(shown) == ["config", "created", "started", "status", "uptime"]
    assert type(shown["uptime"]) is float
    config = {"endpoint": {"type": "tcp", "port": free_port()}, "users": USERS}
    worker.fails("crossbar.error.already_started", "start_manhole", config)
    assert worker("stop_manhole") is None
    assert worker("get_manhole") is None
    worker.fails("crossbar.error.not_started", "stop_manhole")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_who_is_in_is_out_when_it_is_closed(worker: ServiceWorker, port: int) -> None:
    argv = [sys.executable, str(SCRIPT), f"tcp:127.0.0.1:{port}", "joe", "open sesame", "40 + 2"]
    client = Child("ssh", argv)
    wait_until(lambda: any("42" in line for line in client.lines), "joe is in")
    worker("stop_manhole")
    wait_until(lambda: client.process.poll() is not None, "joe is out")
    client.stop()


def test_a_port_in_use(worker: ServiceWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = {"type": "tcp", "port": taken.getsockname()[1]}
        worker.fails("crossbar.error.cannot_listen", "start_manhole", {"endpoint": endpoint, "users": USERS})
    assert worker("get_manhole") is None


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"endpoint": {"type": "tcp", "port": 6022, "interface": "0.0.0.0"}, "users": USERS}, "interface"),
        ({"endpoint": {"type": "tcp", "port": 6022, "interface": "10.0.0.1"}, "users": USERS}, "interface"),
        ({"endpoint": {"type": "tcp", "port": 6022}, "users": []}, "users"),
        ({"endpoint": {"type": "tcp", "port": 6022}}, "users"),
        ({"endpoint": {"type": "tcp", "port": 6022}, "users": [{"user": "joe"}]}, "password"),
        ({"endpoint": {"type": "tcp", "port": 6022}, "users": [{"user": "joe", "password": ""}]}, "password"),
        ({"endpoint": {"type": "tcp", "port": 6022}, "users": USERS, "extra": 1}, "extra"),
        ({"endpoint": {"type": "pipe"}, "users": USERS}, "endpoint.type"),
        ({"users": USERS}, "endpoint"),
        ("tcp:6022", "mapping"),
    ],
)
def test_configurations_that_cannot_be_used(worker: ServiceWorker, config: Any, key: str) -> None:
    text = worker.fails("crossbar.error.invalid_configuration", "start_manhole", config)
    assert key in text
    assert "sesame" not in text


def test_passwords_are_nowhere_in_the_log(worker: ServiceWorker, port: int) -> None:
    ssh(f"tcp:127.0.0.1:{port}", "joe", "wrong secret")
    ssh(f"tcp:127.0.0.1:{port}", "joe", "open sesame", "\x04")
    worker.stop()
    assert "joe is in" in worker.child.output
    assert "secret" not in worker.child.output
    assert "sesame" not in worker.child.output


def test_connections_are_bounded(worker: ServiceWorker, port: int) -> None:
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    for connection in connections:
        connection.settimeout(15)
        assert connection.recv(4) == b"SSH-"
    with socket.create_connection(("127.0.0.1", port), 15) as one_more:
        assert one_more.recv(4) == b""
    connections.pop().close()
    wait_until(lambda: _greets(port), "there is room again")
    for connection in connections:
        connection.close()


def _greets(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 15) as connection:
        return connection.recv(4) == b"SSH-"
