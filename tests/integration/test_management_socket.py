"""The Unix socket with the worker's own management realm."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.census import Peak
from support.endpoints import Endpoint
from support.process import Child, peer_environment
from support.proxies import Config, ProxyProcess
from support.stub import StubRouter

PREFIX = "crossbar.worker.worker001"
CLIENT = Path(__file__).parents[1] / "support" / "client_management.py"


@pytest.fixture
def way(config: Config) -> Endpoint:
    """The management socket of a worker with this configuration."""
    config.extra["management"] = {"path": "manage.sock"}
    return Endpoint("rawsocket", path=str(config.directory / "manage.sock"))


def joined(way: Endpoint, serializer: str = "json") -> Any:
    """A client of the management realm."""
    return raw.joined(way, serializer, "crossbar")


def mode_of(way: Endpoint) -> int:
    return stat.S_IMODE(os.stat(way.path or "").st_mode)


def topics(messages: list[list[Any]]) -> list[str]:
    """Last parts of the topics of events of a pattern-based subscription."""
    return [message[3]["topic"].removeprefix(f"{PREFIX}.") for message in messages if message[0] == raw.EVENT]


@pytest.mark.parametrize("serializer", ["json", "msgpack", "cbor"])
def test_autobahn_as_client(
    serializer: str, config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]
) -> None:
    make_proxy(config)
    command = [sys.executable, str(CLIENT), str(way.path), serializer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=peer_environment())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["worker"] == "worker001"
    assert found["started"]["id"] == "cnc1"
    assert found["started"]["state"] == 3
    assert found["again"] == ["crossbar.error.already_running", 'connection "cnc1" is already running']
    assert found["list"] == ["cnc1"]
    assert found["stopped"] == 6
    steps = ["starting", "started", "stopping", "stopped"]
    names = [f"{PREFIX}.on_proxy_connection_{step}" for step in steps]
    assert found["events"] == [list(pair) for pair in zip(names, [2, 3, 5, 6], strict=True)]
    assert found["publish"][0] == "wamp.error.not_authorized"
    assert found["register"][0] == "wamp.error.not_authorized"
    assert found["unknown"][0] == "wamp.error.no_such_procedure"


def test_a_transport_started_over_it_serves_clients(
    config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]
) -> None:
    router = Endpoint("rawsocket", path=str(config.directory / "router.sock"))
    front = {"type": "rawsocket", "endpoint": {"type": "unix", "path": "front.sock"}}
    with StubRouter(router) as stub:
        make_proxy(config)
        with joined(way) as client, joined(way, "cbor") as watcher:
            watcher.subscribe(f"{PREFIX}.on_proxy_", match="prefix")
            client.subscribe(f"{PREFIX}.on_proxy_", match="prefix")
            item = {"transport": stub.endpoint.as_backend()}
            for name, *args in (
                ("start_proxy_connection", "cnc1", item),
                ("start_proxy_realm_route", "realm1", {"anonymous": "cnc1"}),
                ("start_proxy_transport", "front", front),
            ):
                request = client.request()
                client.send([raw.CALL, request, {}, f"{PREFIX}.{name}", args])
                while (answer := client.recv())[0] == raw.EVENT:
                    # Who starts a transport is told by the result, not by events.
                    assert "transport" not in answer[3]["topic"]
                assert answer[:2] == [raw.RESULT, request]
            seen = [watcher.recv() for _ in range(6)]
            kinds = ("connection", "route", "transport")
            assert topics(seen) == [f"on_proxy_{kind}_{step}" for kind in kinds for step in ("starting", "started")]
            at = Endpoint("rawsocket", path=str(config.directory / "front.sock"))
            peer = raw.dial(at)
            peer.send(raw.hello())
            router_side = stub.accept()
            router_side.recv_type(raw.HELLO)
            router_side.send([raw.WELCOME, 7, {"roles": {"broker": {}, "dealer": {}}, "authid": "a", "authrole": "b"}])
            assert peer.recv_type(raw.WELCOME)[1] == 7
            peer.close()
            router_side.close()
            client.send([raw.CALL, client.request(), {}, f"{PREFIX}.stop_proxy_transport", ["front"]])
            while (answer := client.recv())[0] == raw.EVENT:
                pass
            assert answer[3][0]["state"] == 6


# --- the file ---


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(("given", "mode"), [(None, 0o600), ("0660", 0o660), ("666", 0o666), (0o640, 0o640)])
def test_the_mode_of_the_file_is_as_configured_whatever_the_umask(
    given: object, mode: int, umask: int, config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]
) -> None:
    if given is not None:
        config.extra["management"]["mode"] = given
    before = os.umask(umask)
    try:
        proxy = make_proxy(config)
    finally:
        os.umask(before)
    assert mode_of(way) == mode
    assert any("every user of this machine" in line for line in proxy.child.errors) == bool(mode & 0o002)
    with joined(way) as client:
        assert mode_of(way) == mode
        client.leave()


def test_the_file_goes_with_the_worker(config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(way.path))
    make_proxy(config).stop()
    assert not os.path.exists(str(way.path))


@pytest.mark.parametrize("what", ["in use", "a file", "no folder"])
def test_a_path_that_cannot_be_listened_on(what: str, config: Config, way: Endpoint) -> None:
    if what == "no folder":
        config.extra["management"]["path"] = "nowhere/manage.sock"
    elif what == "a file":
        Path(str(way.path)).write_text("precious")
    with socket.socket(socket.AF_UNIX) as other:
        if what == "in use":
            other.bind(str(way.path))
            other.listen()
        status, errors = run_to_the_end(config)
        assert status == 1
        assert "cannot listen on unix socket" in errors
        assert "manage.sock" in errors
        assert os.path.exists(str(way.path)) == (what != "no folder")


def test_a_boot_that_fails_leaves_no_file(config: Config, way: Endpoint) -> None:
    endpoint = config.listen()
    with socket.create_server((endpoint.host, endpoint.port)):
        status, errors = run_to_the_end(config)
    assert status == 1
    assert "in use" in errors
    assert not os.path.exists(str(way.path))


def run_to_the_end(config: Config) -> tuple[int, str]:
    """Exit status and log of a worker that cannot start."""
    path = config.directory / "proxy.json"
    path.write_text(json.dumps(config.as_dict()))
    child = Child("wamp-proxy", [sys.executable, "-m", "proxy", "run", str(path)], env=dict(os.environ))
    try:
        status = child.process.wait(30)
    finally:
        child.kill()
    for reader in child._readers:
        reader.join(5)
    return status, child.output


# --- the end of the worker ---


@pytest.mark.parametrize("how", ["SIGTERM", "shutdown"])
def test_whoever_watches_sees_the_end(
    how: str, config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]
) -> None:
    config.listen()
    proxy = make_proxy(config)
    with joined(way) as watcher, joined(way, "cbor") as client:
        watcher.subscribe(f"{PREFIX}.", match="prefix")
        if how == "SIGTERM":
            proxy.child.process.send_signal(signal.SIGTERM)
        else:
            assert client.call(f"{PREFIX}.shutdown") is None
        messages = []
        while not messages or messages[-1][0] == raw.EVENT:
            messages.append(watcher.recv())
        names = topics(messages)
        assert names[0] == "on_shutdown_requested"
        assert "on_proxy_transport_stopping" in names
        assert messages[0][4][0]["who"] == (client.session if how == "shutdown" else None)
        assert messages[-1] == [raw.GOODBYE, {}, "wamp.close.system_shutdown"]
        watcher.send([raw.GOODBYE, {}, "wamp.close.goodbye_and_out"])
        with pytest.raises(raw.PeerClosed):
            watcher.recv()
    assert proxy.child.process.wait(10) == 0
    proxy.check_log()
    assert not os.path.exists(str(way.path))


def test_a_watcher_that_does_not_answer_holds_nothing_up(
    config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = make_proxy(config)
    with joined(way):
        proxy.stop(timeout=8)


# --- strangers and sluggards ---


def test_who_does_not_read_costs_little_and_is_cut_off(
    config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]
) -> None:
    config.connections["cnc1"] = {
        "transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": "/run/router.sock"}}
    }
    proxy = make_proxy(config)
    with joined(way) as stuck, joined(way) as client:
        stuck.subscribe(f"{PREFIX}.on_proxy_route_", match="prefix")
        watcher = raw.dial(way, "json").join("crossbar")
        watcher.subscribe(f"{PREFIX}.on_proxy_route_", match="prefix")
        peak = Peak(proxy.pid)
        roles = {f"role{number:04d}": "cnc1" for number in range(2000)}
        for _ in range(60):
            route = client.call(f"{PREFIX}.start_proxy_realm_route", "realm1", roles)
            client.call(f"{PREFIX}.stop_proxy_realm_route", "realm1", route["id"])
            for _ in range(4):
                watcher.recv_type(raw.EVENT)
        line = proxy.child.wait_line("it does not read", errors=True)
        assert str(stuck.session) in line
        peak.check(48 << 20, "one client that does not read")
        watcher.leave()
        client.leave()


def test_connections_come_and_go(config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]) -> None:
    """And those that come wrong: the worker is back at its idle baseline after them."""
    proxy = make_proxy(config)
    for number in range(150):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(way.path))
            sock.sendall([b"", b"\x7f", b"GET / HTTP/1.1\r\n\r\n", b"\x7f\xf1\x00\x00\x00\x00\x00\x02[]"][number % 4])
        with joined(way) as client:
            client.subscribe("", match="prefix")
            if number % 2:
                client.leave()
    proxy.check_idle()


def test_the_client_is_known_by_its_user(
    config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]
) -> None:
    make_proxy(config)
    with joined(way) as client:
        details = client.welcome[2]
        assert details["authid"] == f"uid{os.getuid()}"
        assert details["authrole"] == "trusted"
        client.leave()


def test_without_descriptors_clients_wait_until_there_are_some(
    config: Config, way: Endpoint, make_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = make_proxy(config, threads=1, nofile=48)
    held: list[socket.socket] = []
    try:
        while not any("accepting is paused" in line for line in proxy.child.errors):
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].settimeout(5)
            held[-1].connect(str(way.path))
            assert len(held) < 60
            time.sleep(0.01)
        for sock in held:
            sock.close()
        with joined(way) as client:
            assert client.call("crossbar.get_workers") == ["worker001"]
            client.leave()
    finally:
        for sock in held:
            sock.close()
