"""``wamp-proxy ctl`` with a real worker, a real router and clients that notice."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.ctl import Ctl, environment
from support.endpoints import Endpoint, free_port
from support.process import Child, wait_until
from support.proxies import Config, ProxyProcess
from support.raw import GOODBYE, Peer, joined
from support.routers import REALM, XconnRouter

pytestmark = pytest.mark.slow


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Clients that are joined for the length of a test."""
    with ExitStack() as clients:
        yield clients


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the management socket."""
    return tmp_path / "ctl.sock"


@pytest.fixture
def ctl(path: Path) -> Ctl:
    """The command line."""
    return Ctl(path)


@pytest.fixture
def managed(config: Config, xconn: XconnRouter, path: Path) -> Config:
    """A configuration with the management socket, two ways to one router, and a transport."""
    config.extra["management"] = {"path": str(path)}
    config.backend("one", xconn.backends["xconn"])
    config.backend("two", xconn.backends["xconn_rs"])
    config.listen("rawsocket", "front")
    return config


@pytest.fixture
def proxy(managed: Config, make_proxy: Callable[..., ProxyProcess]) -> ProxyProcess:
    """The worker."""
    return make_proxy(managed)


def join(stack: ExitStack, endpoint: Endpoint, number: int = 1, **details: Any) -> list[Peer]:
    """Join some clients."""
    return [stack.enter_context(joined(endpoint, **details)) for _ in range(number)]


def rows(text: str) -> list[dict[str, str]]:
    """The rows of a table."""
    head, *lines = (line.split() for line in text.splitlines())
    return [dict(zip(head, line, strict=False)) for line in lines]


def test_what_there_is(ctl: Ctl, proxy: ProxyProcess, stack: ExitStack) -> None:
    peers = join(stack, proxy.endpoints["front"], 3)
    (transport,) = rows(ctl.ok("transports"))
    assert (transport["ID"], transport["TYPE"]) == ("transport000", "rawsocket")
    assert transport["ADDRESS"] == f"rs://127.0.0.1:{proxy.endpoints['front'].port}"
    assert (transport["STATE"], transport["SESSIONS"]) == ("started", "3")
    connections = rows(ctl.ok("connections"))
    assert [item["ID"] for item in connections] == ["one", "two"]
    assert sum(int(item["SESSIONS"]) for item in connections) == 3
    assert ctl.ok("routes").splitlines()[1].split()[:5] == [REALM, "route000", "anonymous", "one,", "two"]
    sessions = rows(ctl.ok("sessions"))
    assert [int(item["SESSION"]) for item in sessions] == sorted(peer.session for peer in peers)
    assert {item["REALM"] for item in sessions} == {REALM}
    stats = ctl.ok("stats")
    assert "3 sessions" in stats.splitlines()[0]
    for word in ("transport000", "route000", "messages_to_back"):
        assert word in stats


def test_one_of_each_in_full(ctl: Ctl, proxy: ProxyProcess, stack: ExitStack) -> None:
    (peer,) = join(stack, proxy.endpoints["front"])
    for command, name in (("transports", "transport000"), ("connections", "one")):
        assert json.loads(ctl.ok(command, name, "--json"))["id"] == name
        text = ctl.ok(command, name)
        assert f"id: {name}\n" in text
        assert "state: started\n" in text
    session = json.loads(ctl.ok("sessions", peer.session, "--json"))
    assert session["session"] == peer.session
    assert f"session: {peer.session}\n" in ctl.ok("sessions", peer.session)
    for arguments in (("transports", "x"), ("connections", "x"), ("routes", "x"), ("sessions", 1)):
        done = ctl.run(*arguments)
        assert done.returncode == 4
        assert "crossbar.error.no_such_object: " in done.stderr


def test_sessions_are_filtered(ctl: Ctl, proxy: ProxyProcess, stack: ExitStack) -> None:
    peers = join(stack, proxy.endpoints["front"], 4)

    def listed(*arguments: object) -> list[int]:
        return [item["session"] for item in json.loads(ctl.ok("sessions", "--json", *arguments))]

    everybody = sorted(peer.session for peer in peers)
    assert listed() == everybody
    assert listed("--realm", REALM, "--role", "anonymous", "--transport", "transport000") == everybody
    assert sorted(listed("--connection", "one") + listed("--connection", "two")) == everybody
    assert listed("--realm", "nowhere") == []
    assert listed("--authid", "nobody") == []
    assert listed("--limit", 2) == everybody[:2]


def test_a_way_in_is_built_and_taken_down(
    ctl: Ctl, proxy: ProxyProcess, xconn: XconnRouter, stack: ExitStack, tmp_path: Path
) -> None:
    endpoint = Endpoint("websocket", free_port())
    item = {"type": "websocket", "endpoint": endpoint.as_config(), "auth": {"anonymous": {"type": "static"}}}
    (tmp_path / "transport.json").write_text(json.dumps(item))
    ctl.ok("start", "connection", "three", "-", stdin=json.dumps(xconn.backends["xconn_ws"]))
    ctl.ok("stop", "route", REALM, "route000")
    assert "three" in ctl.ok("start", "route", REALM, "-", stdin="anonymous: three") + ctl.ok("routes", REALM)
    assert str(endpoint.port) in ctl.ok("start", "transport", "ws", tmp_path / "transport.json")
    (peer,) = join(stack, endpoint)
    assert json.loads(ctl.ok("sessions", peer.session, "--json"))["connection"] == "three"

    done = ctl.run("stop", "connection", "three")
    assert done.returncode == 1
    assert "crossbar.error.object_in_use: " in done.stderr
    assert "route001" in done.stderr
    assert peer.subscribe("com.example.topic")
    ctl.ok("stop", "route", REALM, "route001", "--sessions", "close")
    assert peer.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
    ctl.ok("stop", "connection", "three")
    ctl.ok("stop", "transport", "ws", "--sessions", "close")
    assert [row["ID"] for row in rows(ctl.ok("transports"))] == ["transport000"]


@pytest.mark.parametrize(
    ("arguments", "item", "code", "texts"),
    [
        (["transport", "transport000"], {"type": "rawsocket", "endpoint": {"type": "tcp", "port": 0}}, 1, ["already"]),
        (
            ["transport", "x"],
            {"type": "rawsocket", "endpoint": {"type": "tcp", "port": -1}},
            1,
            ["endpoint.port", "-1"],
        ),
        (["connection", "x"], {"transport": {"type": "rawsocket"}}, 1, ["transport.endpoint"]),
        (["route", "x"], {"anonymous": "nowhere"}, 4, ["nowhere"]),
        (["route", "x"], ["nowhere"], 1, ["mapping"]),
    ],
)
def test_what_the_worker_refuses(
    ctl: Ctl, proxy: ProxyProcess, arguments: list[str], item: Any, code: int, texts: list[str]
) -> None:
    done = ctl.run("start", *arguments, "-", stdin=json.dumps(item))
    assert done.returncode == code
    assert done.stdout == ""
    assert "crossbar.error." in done.stderr
    assert [text for text in texts if text not in done.stderr] == []


def test_kill(ctl: Ctl, proxy: ProxyProcess, stack: ExitStack) -> None:
    one, two = join(stack, proxy.endpoints["front"], 2)
    assert str(one.session) in ctl.ok("kill", one.session, "--reason", "com.example.bye", "--message", "so long")
    goodbye = one.recv_type(GOODBYE)
    assert goodbye[2] == "com.example.bye"
    assert goodbye[1]["message"] == "so long"
    assert two.subscribe("com.example.topic")
    assert ctl.run("kill", one.session).returncode == 4
    assert ctl.run("kill", two.session, "--reason", "not a uri").returncode == 1


def test_a_drain_is_followed(ctl: Ctl, proxy: ProxyProcess, stack: ExitStack) -> None:
    peers = join(stack, proxy.endpoints["front"], 6)
    text = ctl.ok("drain", "transport", "transport000", "--rate", 50, "--wait")
    assert 'transport "transport000": drained: 6 of 6 sessions ended' in text
    assert {peer.recv_type(GOODBYE)[2] for peer in peers} == {"wamp.close.system_shutdown"}
    # It goes on listening.
    join(stack, proxy.endpoints["front"])


def test_a_drain_is_called_off(ctl: Ctl, proxy: ProxyProcess, stack: ExitStack) -> None:
    join(stack, proxy.endpoints["front"], 4)
    (used,) = {item["connection"] for item in json.loads(ctl.ok("sessions", "--connection", "one", "--json"))}
    child = ctl.start("drain", "connection", used, "--rate", 0.01, "--jitter", 0, "--wait")
    child.wait_line("0 of 2 sessions ended")
    assert ctl.run("drain", "connection", used).returncode == 1
    (row,) = (row for row in rows(ctl.ok("connections")) if row["ID"] == used)
    assert row["STATE"] == "draining"
    ctl.ok("drain", "connection", used, "--cancel")
    assert child.process.wait(30) == 1
    child.stop()
    assert "was called off" in child.output
    done = ctl.run("drain", "connection", used, "--cancel")
    assert (done.returncode, "not_running" in done.stderr) == (1, True)


def test_a_drain_of_nothing(ctl: Ctl, proxy: ProxyProcess) -> None:
    assert "0 of 0 sessions ended" in ctl.ok("drain", "transport", "transport000", "--wait")


def test_watch_sees_what_others_do(ctl: Ctl, proxy: ProxyProcess) -> None:
    child = ctl.start("watch", "--json")
    child.wait_line("watching", errors=True)
    item = {"type": "rawsocket", "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": 0}}
    ctl.ok("start", "transport", "more", "-", stdin=json.dumps(item))
    ctl.ok("stop", "transport", "more")
    wait_until(lambda: len(child.lines) >= 4, "all events are there")
    events = [json.loads(line) for line in child.lines]
    steps = ["starting", "started", "stopping", "stopped"]
    assert [event["topic"] for event in events] == [f"on_proxy_transport_{step}" for step in steps]
    assert [event["args"][0]["state"] for event in events] == [2, 3, 5, 6]
    assert child.stop(signal.SIGINT) == 130


def test_the_end_of_the_worker_is_followed(ctl: Ctl, proxy: ProxyProcess, stack: ExitStack) -> None:
    (peer,) = join(stack, proxy.endpoints["front"])
    child = ctl.start("watch")
    child.wait_line("watching", errors=True)
    assert ctl.ok("shutdown", "--wait") == 'worker "worker001" has ended\n'
    assert peer.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
    assert child.process.wait(30) == 3
    child.stop()
    assert "shutdown_requested" in "\n".join(child.lines)
    assert proxy.child.process.wait(30) == 0
    assert ctl.run("transports").returncode == 3


def test_reload(ctl: Ctl, proxy: ProxyProcess, managed: Config, stack: ExitStack) -> None:
    (peer,) = join(stack, proxy.endpoints["front"])
    assert "nothing has changed" in ctl.ok("reload")
    endpoint = managed.listen("rawsocket", "more")
    file = managed.directory / "proxy.json"
    file.write_text(json.dumps(managed.as_dict()))
    text = ctl.ok("reload")
    assert 'started transport "transport001"' in text
    assert "kept: 2 connections, 1 route, 1 transport" in text
    join(stack, endpoint)
    file.write_text('{"type": "proxy", "transports": 5}')
    done = ctl.run("reload")
    assert done.returncode == 1
    assert "crossbar.error.invalid_configuration" in done.stderr
    assert "transports: 5" in done.stderr
    assert peer.subscribe("com.example.topic")
    proxy.stop()  # which listens on more sockets than at its start


def test_any_procedure(ctl: Ctl, proxy: ProxyProcess) -> None:
    assert json.loads(ctl.ok("call", "get_proxy_transports")) == ["transport000"]
    assert json.loads(ctl.ok("call", "get_proxy_sessions", "-k", "limit=1"))["sessions"] == []
    assert json.loads(ctl.ok("call", "crossbar.get_workers")) == ["worker001"]
    done = ctl.run("call", "get_proxy_transport", 5)
    assert (done.returncode, "crossbar.error.invalid_argument" in done.stderr) == (1, True)
    assert ctl.run("call", "no_such_procedure").returncode == 1


def test_the_quickstart_says_how(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "proxy", "quickstart", "--ws-port", "0", "--rawsocket-port", "0"]
    child = Child("quickstart", argv, env=environment(TMPDIR=str(tmp_path)))
    try:
        child.wait_line("  Or look into the proxy", 60.0)
        child.wait_line("  Ctrl-C ends it.")
        (line,) = (line for line in child.lines if " ctl --socket " in line)
        _, socket = line.removesuffix(" sessions").split(" --socket ")
        assert len(json.loads(Ctl(socket).ok("sessions", "--json"))) == 2
        assert child.stop(signal.SIGINT, timeout=60.0) == 0
    finally:
        child.kill()
