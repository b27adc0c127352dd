"""A running proxy follows its configuration file: on SIGHUP and by the management API, without losing anybody."""

from __future__ import annotations

import copy
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint, free_port
from support.process import Child, wait_until
from support.proxies import Config, ProxyProcess
from support.raw import GOODBYE, Peer, PeerClosed
from support.routers import XconnRouter

pytestmark = pytest.mark.slow

RELOADED = ("is in service: started", "nothing is changed", "cannot be put into service")


class Reloading:
    """A proxy whose configuration the test changes.

    :ivar management: its management realm.
    """

    def __init__(self, config: Config, make_proxy: Callable[..., Any]) -> None:
        self.config = config
        self.management = Endpoint("rawsocket", path=str(config.directory / "management.sock"))
        config.extra["management"] = {"path": self.management.path}
        self.proxy: ProxyProcess = make_proxy(config)
        self.path = config.directory / "proxy.json"

    def save(self) -> None:
        """Write the configuration as it is now."""
        self.path.write_text(json.dumps(self.config.as_dict()))

    def hang_up(self) -> str:
        """SIGHUP; the line of the log that tells what came of it."""
        before = len(self._outcomes)
        self.proxy.child.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self._outcomes) > before, "the configuration is reloaded")
        return self._outcomes[before]

    @property
    def _outcomes(self) -> list[str]:
        return [line for line in self.proxy.child.errors if any(text in line for text in RELOADED)]

    def call(self) -> Any:
        """reload_config() over the management realm: the last message, a RESULT or an ERROR."""
        with raw.joined(self.management, realm="crossbar") as peer:
            peer.send([raw.CALL, peer.request(), {}, "crossbar.worker.worker001.reload_config"])
            answer = peer.recv_type(raw.RESULT, raw.ERROR)
            peer.leave()
            return answer


@pytest.fixture
def reloading(config: Config, make_proxy: Callable[..., Any], xconn: XconnRouter) -> Reloading:
    """Over WebSocket and RawSocket, TCP and Unix sockets, in front of a router that is behind two connections."""
    backends = copy.deepcopy(xconn.backends)  # the tests change them
    config.backend("router1", backends["xconn"]).backend("router2", backends["xconn_rs"])
    config.listen("websocket", "ws")
    config.listen("rawsocket", "rs")
    config.listen("rawsocket", "unix", unix=True)
    return Reloading(config, make_proxy)


def check(peer: Peer) -> None:
    """The session works."""
    assert peer.subscribe("com.example.check") > 0


def check_login(endpoint: Endpoint) -> None:
    """A new client gets in."""
    with raw.joined(endpoint) as peer:
        check(peer)
        peer.leave()


def test_a_hangup_applies_the_file(reloading: Reloading) -> None:
    config = reloading.config
    endpoints = list(config.endpoints.values())
    with raw.joined(endpoints[0]) as one, raw.joined(endpoints[1]) as two, raw.joined(endpoints[2]) as three:
        new = config.listen("websocket", "new")
        gone = config.transports.pop(1)
        config.transports[0]["options"] = {"max_message_size": 100_000}
        config.connections["router1"]["timeouts"] = {"join": 4000}
        config.routes["realm2"] = {"anonymous": "router2"}
        reloading.save()
        assert "is in service" in reloading.hang_up()
        for peer in (one, two, three):
            check(peer)
        for endpoint in (endpoints[0], endpoints[2], new):
            check_login(endpoint)
        with pytest.raises(ConnectionRefusedError):
            Endpoint("rawsocket", gone["endpoint"]["port"]).connect()
        # The new limit is that of clients who come from now on.
        one.send([raw.PUBLISH, one.request(), {}, "com.example.check", ["x" * 200_000]])
        with raw.joined(endpoints[0]) as late:
            late.send([raw.PUBLISH, late.request(), {}, "com.example.check", ["x" * 200_000]])
            assert late.recv_end()[1].code == 1009
        for peer in (one, two, three):
            peer.leave()


def test_the_management_api_applies_the_file(reloading: Reloading) -> None:
    with raw.joined(reloading.management, realm="crossbar") as watcher:
        subscription = watcher.subscribe("crossbar.worker.worker001.on_proxy_config_reloaded")
        config = reloading.config
        config.routes["realm2"] = {"anonymous": "router2"}
        reloading.save()
        result = reloading.call()[3][0]
        assert result["started"]["connections"] == result["started"]["transports"] == []
        assert list(result["started"]["routes"]) == ["realm2"]
        assert result["kept"] == {"connections": 2, "routes": 1, "transports": 3}
        event = watcher.recv_type(raw.EVENT)
        assert event[1] == subscription
        told = event[4][0]
        assert {key: told[key] for key in ("started", "stopped", "kept")} == {
            key: result[key] for key in ("started", "stopped", "kept")
        }
        assert isinstance(told["who"], int)
        watcher.leave()


def test_an_error_is_told_and_changes_nothing(reloading: Reloading) -> None:
    config = reloading.config
    endpoints = list(config.endpoints.values())
    with raw.joined(endpoints[0]) as peer, socket.create_server(("127.0.0.1", 0)) as taken:
        before = dict(config.connections["router1"])
        config.connections["router1"]["transport"] = {"type": "rawsocket", "endpoint": {"type": "tcp", "port": 0}}
        reloading.save()
        error = reloading.call()
        assert error[4] == "crossbar.error.invalid_configuration"
        assert "connections.router1.transport.endpoint" in error[5][0]
        assert "nothing is changed" in reloading.hang_up()
        config.connections["router1"] = before
        config.transports.append(
            {"type": "rawsocket", "id": "busy1", "endpoint": Endpoint("rawsocket", taken.getsockname()[1]).as_config()}
        )
        config.transports[0]["max_connections"] = 5
        reloading.save()
        error = reloading.call()
        assert error[4] == "crossbar.error.cannot_listen"
        assert "busy1" in error[5][0]
        assert "in use" in error[5][0]
        check(peer)
        for endpoint in endpoints:
            check_login(endpoint)
        peer.leave()


class Load:
    """Clients that come and go, and one that stays and calls, all the time.

    :ivar errors: what went wrong.
    """

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.logins = self.calls = 0
        self.errors: list[str] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._come_and_go, args=(endpoint,)) for endpoint in endpoints]
        self._threads += [threading.Thread(target=self._stay, args=(endpoint,)) for endpoint in endpoints]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(30)

    def wait(self, count: int) -> None:
        """Wait for so many more logins and calls; nothing goes wrong."""
        logins, calls = self.logins + count, self.calls + count
        wait_until(lambda: self.errors or (self.logins > logins and self.calls > calls), "clients go on")
        assert self.errors == []

    def _come_and_go(self, endpoint: Endpoint) -> None:
        try:
            while not self._is_over.is_set():
                check_login(endpoint)
                self.logins += 1
        except (OSError, AssertionError, PeerClosed) as error:
            self.errors.append(f"login at {endpoint}: {error!r}")

    def _stay(self, endpoint: Endpoint) -> None:
        try:
            with raw.joined(endpoint) as peer:
                while not self._is_over.is_set():
                    check(peer)
                    self.calls += 1
                peer.leave()
        except (OSError, AssertionError, PeerClosed) as error:
            self.errors.append(f"session at {endpoint}: {error!r}")


def test_nobody_notices_a_reload(reloading: Reloading) -> None:
    """Transports, connections and routes change again and again while clients come, call and go."""
    config = reloading.config
    with Load(list(config.endpoints.values())) as load:
        for turn in range(12):
            for index, transport in enumerate(config.transports):
                transport["max_connections"] = 1000 + turn
                transport["id"] = f"front{index}{turn // 4}"
            config.connections["router1"]["timeouts"] = {"join": 5000 + turn}
            config.routes["realm1"] = {"anonymous": ["router1", "router2"][:: 1 if turn % 2 else -1]}
            reloading.save()
            assert "is in service" in reloading.hang_up()
            load.wait(6)
    assert load.errors == []


def test_supervisors_are_told(reloading: Reloading, tmp_path: Path, make_proxy: Callable[..., Any]) -> None:
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        supervisor.settimeout(30)
        argv = [sys.executable, "-m", "proxy", "run", str(reloading.path)]
        config = json.loads(reloading.path.read_text())
        item = {"type": "proxy", "transports": [{**config["transports"][0], "endpoint": {"type": "tcp", "port": 0}}]}
        reloading.path.write_text(json.dumps(item))
        child = Child("proxy", argv, env={**os.environ, "NOTIFY_SOCKET": str(path)})
        try:
            assert supervisor.recv(200) == b"READY=1"
            child.process.send_signal(signal.SIGHUP)
            first, second = supervisor.recv(200).decode().split("\n")
            assert first == "RELOADING=1"
            assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
            assert supervisor.recv(200) == b"READY=1"
            assert child.stop() == 0
            assert supervisor.recv(200) == b"STOPPING=1"
        finally:
            child.kill()
    reloading.save()


# --- terminals ---


# A session of its own, whose terminal is standard input.
LOGIN = """
import fcntl, os, signal, sys, termios
os.setsid()
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as after a login, even if the tests themselves run under nohup
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class OnTerminal:
    """A proxy on a terminal of its own, as a person has started it.

    :param before: commands that start it, ``nohup`` for example.
    """

    def __init__(self, folder: Path, before: tuple[str, ...] = ()) -> None:
        self.endpoint = Endpoint("rawsocket", free_port())
        path = folder / "proxy.json"
        item = {"type": "proxy", "transports": [{"type": "rawsocket", "endpoint": self.endpoint.as_config()}]}
        path.write_text(json.dumps(item))
        argv = [sys.executable, "-c", LOGIN, *before, sys.executable, "-m", "proxy", "run", str(path)]
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(argv, cwd=folder, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def wait_ready(self) -> None:
        """Wait until it listens."""
        wait_until(self.answers, "the proxy listens", 30.0)

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            self.endpoint.connect().close()
        except OSError:
            return False
        return True

    def read(self) -> str:
        """What it has printed since the last look."""
        return os.read(self._master, 65536).decode(errors="replace")

    def close(self) -> None:
        """The terminal's window is closed."""
        if self._master != -1:
            os.close(self._master)
            self._master = -1

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self.close()


@pytest.fixture
def on_terminal(tmp_path: Path) -> Iterator[Callable[..., OnTerminal]]:
    """Start a proxy on a terminal."""
    started: list[OnTerminal] = []

    def start(*before: str) -> OnTerminal:
        started.append(OnTerminal(tmp_path, before))
        started[-1].wait_ready()
        return started[-1]

    yield start
    for proxy in started:
        proxy.kill()


def test_a_proxy_ends_with_its_terminal(on_terminal: Callable[..., OnTerminal]) -> None:
    proxy = on_terminal()
    proxy.process.send_signal(signal.SIGHUP)  # the terminal is there: this is a reload
    said = ""
    while "is in service" not in said:
        said += proxy.read()
    client = raw.dial(proxy.endpoint)
    proxy.close()
    assert proxy.process.wait(15) == 0
    client.recv_end()
    assert not proxy.answers()


def test_a_proxy_that_is_to_outlive_its_terminal_does(on_terminal: Callable[..., OnTerminal], tmp_path: Path) -> None:
    proxy = on_terminal("nohup")
    proxy.close()
    proxy.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "is in service" in (tmp_path / "nohup.out").read_text(), "the configuration is reloaded")
    assert proxy.answers()
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(15) == 0


def test_the_management_api_ends_a_proxy(reloading: Reloading) -> None:
    """Clients and watchers are told, and the process ends well."""
    endpoints = list(reloading.config.endpoints.values())
    with raw.joined(endpoints[0]) as client, raw.joined(reloading.management, realm="crossbar") as watcher:
        watcher.subscribe("crossbar.worker.worker001.on_shutdown_requested")
        subscribed = watcher.subscribe("crossbar.worker.worker001.on_proxy_transport_stopped")
        with raw.joined(reloading.management, realm="crossbar") as caller:
            caller.call("crossbar.worker.worker001.shutdown")
            assert caller.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        event = watcher.recv_type(raw.EVENT)
        assert set(event[4][0]) == {"who", "when"}
        assert [watcher.recv_type(raw.EVENT)[1] for _ in endpoints] == [subscribed] * len(endpoints)
        assert watcher.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        assert client.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
        client.recv_end()
    assert reloading.proxy.child.process.wait(15) == 0
    reloading.proxy.check_log()
    assert not Path(reloading.management.path).exists()
