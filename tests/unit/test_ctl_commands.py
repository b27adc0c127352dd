"""The command line of ctl: what it asks of a worker, what it says, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from support.ctl import PREFIX, Ctl, Refusal, StubWorker, environment
from support.endpoints import Endpoint
from support.process import wait_until
from support.raw import ABORT, GOODBYE
from support.stub import StubRouter

SESSION = {
    "session": 1, "realm": "realm1", "authid": "a\x1b[2Jb", "authrole": "anonymous", "authmethod": "anonymous",
    "transport": "t1", "connection": "c1", "peer": "tcp4:127.0.0.1:1", "serializer": "json",
    "backend_serializer": "cbor", "backend_session": 2, "joined": 10**18,
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket is."""
    return tmp_path / "ctl.sock"


@pytest.fixture
def ctl(path: Path) -> Ctl:
    """The command line."""
    return Ctl(path)


@pytest.fixture
def make_worker(path: Path) -> Iterator[Callable[..., StubWorker]]:
    """Starts a worker with the given answers."""
    workers: list[StubWorker] = []

    def make(**answers: Any) -> StubWorker:
        workers.append(StubWorker(path, answers))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def invoke(*arguments: object) -> Result:
    """Run a command in this process: one that fails before anything is connected."""
    return CliRunner(env={"WAMP_PROXY_SOCKET": None}).invoke(main, ["ctl", *map(str, arguments)])


# --- the command line ---


def test_help_tells_the_exit_codes() -> None:
    text = invoke("--help").stdout
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130 "):
        assert f"\n    {code}" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["transports"],
        ["nonsense"],
        ["--socket", "x", "kill", "0"],
        ["--socket", "x", "kill", "abc"],
        ["--socket", "x", "sessions", "5", "--realm", "r"],
        ["--socket", "x", "drain", "route", "r"],
        ["--socket", "x", "drain", "transport", "t", "--rate", "0"],
        ["--socket", "x", "drain", "transport", "t", "--jitter", "2"],
        ["--socket", "x", "drain", "transport", "t", "--cancel", "--wait"],
        ["--socket", "x", "drain", "transport", "t", "--cancel", "--rate", "5"],
        ["--socket", "x", "stop", "transport", "t", "--sessions", "kill"],
        ["--socket", "x", "start", "transport", "t", "/no/such/file"],
        ["--socket", "x", "call", "get_proxy_transport", "{broken"],
        ["--socket", "x", "call", "get_proxy_transport", "-k", "novalue"],
        ["--socket", "x", "--timeout", "0", "transports"],
        ["--socket", "x", "--timeout", "nan", "stats"],
        ["--socket", "x", "drain", "transport", "t", "--rate", "nan"],
    ],
)
def test_unusable_command_lines(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_without_a_socket_it_says_which_are_meant() -> None:
    text = invoke("transports").stderr
    assert "--socket" in text
    assert "WAMP_PROXY_SOCKET" in text
    assert "management" in text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "expected JSON"),
        ('{"a": 1, "a": 2}', "given more than once"),
        ("a: [", "expected YAML"),
        (b"\xff", "UTF-8"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: str | bytes, what: str) -> None:
    file = tmp_path / "item"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = Ctl(tmp_path / "none").run("start", "transport", "t1", file)
    assert done.returncode == 2
    assert what in done.stderr
    assert "Traceback" not in done.stderr


# --- sockets ---


def test_no_socket(ctl: Ctl) -> None:
    done = ctl.run("transports")
    assert done.returncode == 3
    assert f"{ctl.path}: there is no such file" in done.stderr


def test_no_socket_but_a_file(ctl: Ctl, path: Path) -> None:
    path.write_text("x")
    done = ctl.run("transports")
    assert done.returncode == 3
    assert "not a socket" in done.stderr


def test_nobody_listens(ctl: Ctl, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    done = ctl.run("transports")
    assert done.returncode == 3
    assert "nobody listens" in done.stderr


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    done = Ctl(tmp_path / ("x" * 200)).run("transports")
    assert done.returncode == 2
    assert "107 octets" in done.stderr


def test_the_socket_from_the_environment_and_behind_the_command(
    make_worker: Callable[..., StubWorker], path: Path
) -> None:
    make_worker(get_proxy_transports=[])
    base = [sys.executable, "-m", "proxy", "ctl"]
    for argv, env in (
        ([*base, "transports", "--json"], {"WAMP_PROXY_SOCKET": str(path)}),
        ([*base, "--json", "transports", "--socket", str(path)], {}),
        ([*base, "transports", "--socket", str(path), "--json"], {"WAMP_PROXY_SOCKET": "/no/such/socket"}),
    ):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=environment(**env))
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("answer", [b"", b"\x7f\x10\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_listens(ctl: Ctl, path: Path, answer: bytes) -> None:
    with StubRouter(Endpoint("rawsocket", path=str(path))) as stub:
        child = ctl.start("transports")
        wire = stub.accept_wire()
        wire.read(4)
        wire.write(answer)
        wire.close()
        assert child.process.wait(30) == 3
        child.stop()
        assert "the connection was closed" in child.output
        assert "Traceback" not in child.output


@pytest.mark.parametrize("is_joined", [False, True])
def test_a_silent_worker(ctl: Ctl, path: Path, is_joined: bool) -> None:
    with StubRouter(Endpoint("rawsocket", path=str(path))) as stub:
        child = ctl.start("--timeout", 0.3, "transports")
        peer = stub.accept_session() if is_joined else stub.accept()
        assert child.process.wait(30) == 3
        child.stop()
        assert "within 0.3 s" in child.output
        assert peer is not None


def test_an_abort(ctl: Ctl, path: Path) -> None:
    with StubRouter(Endpoint("rawsocket", path=str(path))) as stub:
        child = ctl.start("transports")
        peer, _ = stub.accept_hello()
        peer.send([ABORT, {"message": "this is\x1b another realm"}, "wamp.error.no_such_realm"])
        assert child.process.wait(30) == 3
        child.stop()
        assert "wamp.error.no_such_realm: this is\\u001b another realm" in child.output


def test_a_worker_that_ends_in_the_middle(ctl: Ctl, path: Path) -> None:
    with StubRouter(Endpoint("rawsocket", path=str(path))) as stub:
        child = ctl.start("transports")
        peer, _ = stub.accept_session()
        peer.recv()
        peer.close()
        assert child.process.wait(30) == 3
        child.stop()
        assert "the connection was closed" in child.output
        assert "Traceback" not in child.output


# --- which worker ---


def test_several_workers(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker(get_proxy_transports=[])
    worker.answers["crossbar.get_workers"] = ["w0", "w1"]
    done = ctl.run("transports")
    assert done.returncode == 2
    assert "w0, w1" in done.stderr
    assert ctl.ok("transports", "--worker", "w1", "--json") == "[]\n"
    assert worker.calls[0] == ("crossbar.get_workers", [["proxy"]], {})


def test_no_worker(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    make_worker().answers["crossbar.get_workers"] = []
    assert ctl.run("transports").returncode == 4


def test_a_worker_that_is_not_there(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    make_worker()
    done = ctl.run("--worker", "w2", "transports")
    assert done.returncode == 1
    assert 'worker "w2"' in done.stderr


# --- what the worker answers ---


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("crossbar.error.no_such_object", 4),
        ("crossbar.error.no_such_worker", 4),
        ("crossbar.error.object_in_use", 1),
        ("wamp.error.runtime_error", 1),
    ],
)
def test_refusals(ctl: Ctl, make_worker: Callable[..., StubWorker], uri: str, code: int) -> None:
    make_worker(stop_proxy_connection=Refusal(uri, "so it is\x1b"))
    done = ctl.run("stop", "connection", "c1")
    assert done.returncode == code
    assert f"{uri}: so it is\\u001b" in done.stderr
    assert done.stdout == ""


def test_sessions_follow_the_pages(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    pages = {None: ([1, 2], 2), 2: ([3], None)}

    def get(**kwargs: Any) -> dict[str, Any]:
        numbers, following = pages[kwargs["after"]]
        return {"sessions": [{**SESSION, "session": number} for number in numbers], "total": 3, "next": following}

    worker = make_worker(get_proxy_sessions=get)
    assert [item["session"] for item in json.loads(ctl.ok("sessions", "--json"))] == [1, 2, 3]
    lines = ctl.ok("sessions", "--realm", "realm1", "--role", "r").splitlines()
    assert [line.split()[0] for line in lines] == ["SESSION", "1", "2", "3"]
    assert "\x1b" not in "".join(lines)
    assert "json > cbor" in lines[1]
    asked = worker.calls[-1][2]
    assert (asked["realm"], asked["role"], asked["after"]) == ("realm1", "r", 2)
    assert "authid" not in asked


def test_no_more_sessions_than_asked_for(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker(get_proxy_sessions={"sessions": [SESSION], "total": 7, "next": 1})
    assert "1 of 7 sessions" in ctl.ok("sessions", "--limit", 1)
    assert worker.calls[-1][2]["limit"] == 1


def test_an_object_that_is_stopped_meanwhile_is_left_out(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    def get(name: str) -> dict[str, Any]:
        if name == "gone":
            raise Refusal("crossbar.error.no_such_object", "no transport")
        return {"id": name, "type": "websocket", "config": {}, "state": 3, "listening_since": None}

    make_worker(get_proxy_transports=["gone", "here"], get_proxy_transport=get)
    assert [item["id"] for item in json.loads(ctl.ok("transports", "--json"))] == ["here"]
    # The counters are no part of what Crossbar.io's own worker offers.
    assert ctl.ok("transports").splitlines()[1].split() == ["here", "websocket", "-", "anonymous", "started", "-", "-"]
    assert ctl.run("transports", "gone").returncode == 4


def test_an_object_that_cannot_be_shown(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    make_worker(get_proxy_transports=["a", "b"], get_proxy_transport=Refusal("wamp.error.not_authorized", "no"))
    done = ctl.run("transports")
    assert (done.returncode, done.stderr) == (1, "wamp-proxy ctl: error: wamp.error.not_authorized: no\n")


def test_calls(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker(get_proxy_transport=lambda *args, **kwargs: [list(args), kwargs, b"\x01"])
    worker.answers["crossbar.get_status"] = {"a": 1}
    text = ctl.ok("call", "get_proxy_transport", "ws1", "17", '{"a": [true]}', '"5"', "-k", "x=null", "-k", "y=a=b")
    assert json.loads(text) == [["ws1", 17, {"a": [True]}, "5"], {"x": None, "y": "a=b"}, "\0AQ=="]
    assert json.loads(ctl.ok("call", "crossbar.get_status")) == {"a": 1}


def test_start_sends_what_the_file_holds(ctl: Ctl, make_worker: Callable[..., StubWorker], tmp_path: Path) -> None:
    file = tmp_path / "item.yaml"
    file.write_text("type: rawsocket\nendpoint: {type: tcp, port: 5}\n")
    item = {"type": "rawsocket", "endpoint": {"type": "tcp", "port": 5}}
    worker = make_worker(
        start_proxy_transport=lambda name, config: {"id": name, "config": config},
        start_proxy_realm_route=lambda realm, config: {"id": "route001", "realm": realm, "config": config},
    )
    assert ctl.ok("start", "transport", "t1", file) == 'transport "t1" is started: rs://*:5\n'
    assert worker.calls[-1] == ("start_proxy_transport", ["t1", item], {})
    assert json.loads(ctl.ok("start", "transport", "t1", "-", "--json", stdin=json.dumps(item)))["config"] == item
    text = ctl.ok("start", "route", "realm1", "-", stdin="{anonymous: [a, b]}")
    assert text == 'route "route001" of realm "realm1" is started: anonymous\n'


def test_stop_sends_only_what_is_asked_for(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    def stop(*names: str, **options: Any) -> dict[str, Any]:
        return {"id": names[-1], "realm": names[0]}

    worker = make_worker(stop_proxy_transport=stop, stop_proxy_connection=stop, stop_proxy_realm_route=stop)
    # Crossbar.io's own worker knows no options.
    assert ctl.ok("stop", "transport", "t1") == 'transport "t1" is stopped; its sessions stay\n'
    assert worker.calls[-1] == ("stop_proxy_transport", ["t1"], {})
    ctl.ok("stop", "connection", "c1", "--force", "--sessions", "close")
    assert worker.calls[-1] == ("stop_proxy_connection", ["c1"], {"force": True, "sessions": "close"})
    assert 'route "route1" of realm "r"' in ctl.ok("stop", "route", "r", "route1", "--sessions", "drain")
    assert worker.calls[-1] == ("stop_proxy_realm_route", ["r", "route1"], {"sessions": "drain"})


def test_reload_tells_what_changed(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    nothing: dict[str, Any] = {"connections": [], "routes": {}, "transports": []}
    kept = {"connections": 1, "routes": 1, "transports": 2}
    worker = make_worker(reload_config={"started": nothing, "stopped": nothing, "kept": kept, "warnings": []})
    assert "nothing has changed; kept: 1 connection, 1 route, 2 transports" in ctl.ok("reload")
    started = {"connections": ["c1"], "routes": {"realm1": ["route7"]}, "transports": []}
    worker.answers["reload_config"] = {
        "started": started,
        "stopped": nothing,
        "kept": kept,
        "warnings": ["warning: so"],
    }
    done = ctl.run("reload")
    assert done.returncode == 0
    assert done.stdout.splitlines()[:2] == ['started connection "c1"', 'started route "route7" of realm "realm1"']
    assert done.stderr == "warning: so\n"


# --- drains ---


def draining(ended: int, total: int = 10, name: str = "t1") -> dict[str, Any]:
    """An event of a drain under way, and what begins one."""
    return {"id": name, "total": total, "ended": ended, "remaining": total - ended, "rate": 5.0, "reason": "r"}


def drained(total: int = 10, left: int = 0, cancelled: bool = False) -> dict[str, Any]:
    """The last event of a drain."""
    return {"id": "t1", "total": total, "ended": total - left, "left": left, "reason": "r", "cancelled": cancelled}


def test_a_drain_is_only_begun(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker(drain_proxy_transport=lambda *args, **kwargs: draining(0))
    text = ctl.ok("drain", "transport", "t1", "--rate", 5, "--reason", "x.y")
    assert text == 'transport "t1": draining 10 sessions, 5 per second, about 2s\n'
    assert worker.calls[-1] == ("drain_proxy_transport", ["t1"], {"rate": 5.0, "reason": "x.y"})
    worker.answers["drain_proxy_connection"] = draining(0, 0)
    assert "takes no logins until" in ctl.ok("drain", "connection", "c1")
    assert ctl.ok("drain", "transport", "t1", "--cancel") == 'transport "t1": the drain is called off\n'
    assert worker.calls[-1] == ("drain_proxy_transport", ["t1"], {"cancel": True})


def test_a_drain_that_is_waited_for(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker()

    def begin(name: str) -> dict[str, Any]:
        # the end of an earlier one, that was heard of because this one listens already
        worker.publish("on_proxy_transport_drained", drained(99))
        worker.publish("on_proxy_transport_draining", draining(0))
        worker.publish("on_proxy_transport_draining", draining(3, name="other"))
        return draining(0)

    worker.answers["drain_proxy_transport"] = begin
    child = ctl.start("drain", "transport", "t1", "--wait")
    wait_until(lambda: worker.calls and worker.calls[-1][0] == "drain_proxy_transport", "it is begun")
    worker.publish("on_proxy_transport_draining", draining(4))
    worker.publish("on_proxy_transport_drained", drained())
    assert child.process.wait(30) == 0
    child.stop()
    assert child.lines == [
        "0 of 10 sessions ended",
        "4 of 10 sessions ended",
        'transport "t1": drained: 10 of 10 sessions ended',
    ]


@pytest.mark.parametrize("is_before", [False, True])
def test_a_drain_that_is_over_at_once(ctl: Ctl, make_worker: Callable[..., StubWorker], is_before: bool) -> None:
    worker = make_worker()

    def begin(name: str) -> dict[str, Any]:
        worker.publish("on_proxy_transport_draining", draining(0, 0))
        if is_before:
            worker.publish("on_proxy_transport_drained", drained(0))
        return draining(0, 0)

    worker.answers["drain_proxy_transport"] = begin
    child = ctl.start("drain", "transport", "t1", "--wait", "--json")
    if not is_before:
        wait_until(lambda: worker.calls and worker.calls[-1][0] == "drain_proxy_transport", "it is begun")
        worker.publish("on_proxy_transport_drained", drained(0))
    assert child.process.wait(30) == 0
    child.stop()
    assert json.loads("\n".join(child.lines)) == drained(0)


def test_a_drain_that_somebody_calls_off(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker()

    def begin(name: str) -> dict[str, Any]:
        worker.publish("on_proxy_transport_draining", draining(0))
        worker.publish("on_proxy_transport_drained", drained(10, 6, cancelled=True))
        return draining(0)

    worker.answers["drain_proxy_transport"] = begin
    done = ctl.run("drain", "transport", "t1", "--wait")
    assert done.returncode == 1
    assert "6 of 10 sessions are left" in done.stderr


# --- watch ---


def test_watch_prints_a_line_for_each_event(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker()
    child = ctl.start("watch", "--count", 2)
    child.wait_line("watching worker w1", errors=True)
    event = {"id": "t 1", "state": 3, "config": {"secret": 1}, "more": {"a": None, "b": 0}, "started": 5, "none": []}
    worker.publish("on_proxy_transport_started", event)
    worker.publish("on_x", "y\x1b")
    assert child.process.wait(30) == 0
    child.stop()
    first, second = child.lines
    assert first.endswith('  proxy_transport_started  id="t 1" state=started more={"b": 0}')
    assert second.endswith("  x  y\\u001b")


def test_watch_for_scripts(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker()
    child = ctl.start("watch", "--json", "--count", 1)
    child.wait_line("watching worker w1", errors=True)
    worker.publish("on_x", {"state": 3, "config": {}})
    assert child.process.wait(30) == 0
    child.stop()
    (line,) = child.lines
    event = json.loads(line)
    assert (event["topic"], event["args"], event["kwargs"]) == ("on_x", [{"state": 3, "config": {}}], {})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("arguments", [["watch"], ["drain", "transport", "t1", "--wait"], ["shutdown", "--wait"]])
def test_signals(
    ctl: Ctl, make_worker: Callable[..., StubWorker], arguments: list[str], number: signal.Signals, code: int
) -> None:
    """Not the end of the worker: whoever asked for that must not be told that it has come."""
    worker = make_worker(drain_proxy_transport=draining(0), shutdown=lambda: 0)
    child = ctl.start(*arguments)
    if arguments == ["watch"]:
        child.wait_line("watching worker w1", errors=True)
    else:
        asked = ("drain_proxy_transport", "shutdown")
        wait_until(lambda: worker.calls and worker.calls[-1][0] in asked, "it is begun")
    assert child.stop(number) == code
    for text in ("Traceback", "error", "has ended"):
        assert text not in child.output


def test_names_that_the_terminal_has_no_characters_for(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    session = {"session": 7, "realm": "r", "authid": "\u20ac", "authrole": "user"}
    make_worker(get_proxy_sessions={"sessions": [session], "total": 1, "next": None})
    done = ctl.run("sessions", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u20ac" in done.stdout


def test_watch_tells_of_the_end_of_the_worker(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker()
    child = ctl.start("watch")
    child.wait_line("watching worker w1", errors=True)
    assert worker.peer is not None
    worker.peer.send([GOODBYE, {}, "wamp.close.system_shutdown"])
    assert child.process.wait(30) == 3
    child.stop()
    assert "the session was ended: wamp.close.system_shutdown" in child.output


def test_watch_ends_when_nobody_reads(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker()
    child = subprocess.Popen(
        ctl.argv("watch"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert child.stderr is not None
    assert child.stdout is not None
    assert child.stderr.readline().startswith("watching")
    child.stdout.close()
    worker.publish("on_x")
    assert child.wait(30) == 1
    assert "Traceback" not in child.stderr.read()
    child.stderr.close()


def test_shutdown_waits_for_the_end(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    worker = make_worker(shutdown=lambda: 0)
    assert ctl.ok("shutdown") == 'worker "w1" ends\n'
    child = ctl.start("shutdown", "--wait")
    wait_until(lambda: [name for name, _, _ in worker.calls].count("shutdown") == 2, "it is asked to end")
    assert child.process.poll() is None
    assert worker.peer is not None
    worker.peer.send([GOODBYE, {}, "wamp.close.system_shutdown"])
    assert child.process.wait(30) == 0
    child.stop()
    assert child.lines == ['worker "w1" has ended']


def test_on_a_terminal_there_are_colours(ctl: Ctl, make_worker: Callable[..., StubWorker]) -> None:
    item = {"id": "t1", "type": "websocket", "config": {}, "state": 3, "listening_since": None}
    make_worker(get_proxy_transports=["t1"], get_proxy_transport=item)
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm-256color", COLUMNS="100")
    env.pop("NO_COLOR", None)
    child = subprocess.Popen(ctl.argv("transports"), stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    octets = bytearray()
    try:
        while piece := os.read(ours, 4096):
            octets += piece
    except OSError:
        pass  # the end, on Linux
    finally:
        os.close(ours)
    assert child.wait(30) == 0
    assert b"\x1b[32mstarted" in octets
    assert PREFIX.encode() not in octets
