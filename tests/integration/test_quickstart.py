"""``wamp-proxy quickstart`` as people run it: what it shows, that it works, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from conftest import missing
from support.endpoints import Endpoint, free_port
from support.process import INSTRUMENTS, Child, wait_until
from support.raw import joined
from support.routers import find_crossbar

pytestmark = pytest.mark.slow

Start = Callable[..., Child]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the quickstart makes its temporary folder; short, for the sake of Unix socket paths."""
    path = tmp_path / "t"
    path.mkdir()
    return path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Run ``wamp-proxy quickstart`` with arguments; on ports of its own unless they are given."""
    children: list[Child] = []

    def run(*arguments: str, **environment: str) -> Child:
        ports = ["--ws-port", "0", "--rawsocket-port", "0"] if "--ws-port" not in arguments else []
        env = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", **environment}
        child = Child("quickstart", [sys.executable, "-m", "proxy", "quickstart", *ports, *arguments], env=env)
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()


def urls(child: Child) -> tuple[str, str]:
    """The WebSocket and RawSocket URLs that it tells people to use."""
    child.wait_line("  Or call alice", 60.0)
    text = "\n".join(child.lines)
    websocket = re.search(r"WebSocket +(ws://\S+)", text)
    rawsocket = re.search(r"RawSocket +(rs://\S+)", text)
    assert websocket is not None
    assert rawsocket is not None
    return websocket[1], rawsocket[1]


def port_of(url: str) -> int:
    """The port in a URL."""
    match = re.search(r":(\d+)(/|$)", url)
    assert match is not None
    return int(match[1])


def assert_nothing_left(folder: Path, family: list[psutil.Process]) -> None:
    """Neither files nor processes."""
    assert list(folder.iterdir()) == []
    wait_until(lambda: not any(process.is_running() for process in family), "all its processes have ended")


def assert_round_trip(child: Child) -> None:
    """A call and an event went through."""
    text = "\n".join(child.lines)
    assert "joined over ws://" in text
    assert "joined over rs://" in text
    assert "com.example.add(2, 3) at alice: 5" in text
    assert "alice gets 'hello'" in text


def test_once_shows_the_round_trip_and_ends(start: Start, folder: Path) -> None:
    child = start("--once")
    assert child.process.wait(60) == 0
    wait_until(lambda: any("nothing is left behind" in line for line in child.lines), "its last line")
    assert_round_trip(child)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stays_up_for_other_clients_until_a_signal(start: Start, folder: Path, number: signal.Signals) -> None:
    child = start()
    websocket, rawsocket = urls(child)
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) == 2
    (private,) = folder.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700
    for endpoint in (Endpoint("websocket", port_of(websocket)), Endpoint("rawsocket", port_of(rawsocket))):
        with joined(endpoint) as peer:
            assert peer.call("com.example.add", 20, 22) == 42
            peer.leave()
    assert child.stop(number, timeout=30.0) == 0
    assert_round_trip(child)
    assert_nothing_left(folder, family)


@pytest.mark.parametrize("option", ["--ws-port", "--rawsocket-port"])
def test_port_in_use_is_said_clearly(start: Start, folder: Path, option: str) -> None:
    other = {"--ws-port": "--rawsocket-port", "--rawsocket-port": "--ws-port"}[option]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = start(option, str(port), other, str(free_port()))
        assert child.process.wait(60) == 1
    wait_until(lambda: child.lines, "it says something")
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in "\n".join(child.lines)
    assert option in "\n".join(child.lines)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("role", ["embedded_router", "proxy.json"])
def test_a_child_that_dies_ends_it_with_the_reason(start: Start, folder: Path, role: str) -> None:
    child = start()
    urls(child)
    family = psutil.Process(child.pid).children(recursive=True)
    (victim,) = [process for process in family if role in " ".join(process.cmdline())]
    victim.kill()
    assert child.process.wait(60) == 1
    wait_until(lambda: any("ended on its own (status -9)" in line for line in child.lines), "it names the child")
    assert_nothing_left(folder, family)


def test_children_do_not_outlive_a_killed_parent(start: Start) -> None:
    child = start()
    urls(child)
    family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    wait_until(lambda: not any(process.is_running() for process in family), "the children have ended", 30.0)


def test_without_xconn_it_says_what_to_install(start: Start, tmp_path: Path) -> None:
    """A module path without xconn stands in for an installation without the extra."""
    blocker = tmp_path / "site"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'xconn' else find(name, package)\n"
    )
    path = os.pathsep.join(filter(None, [str(blocker), os.environ.get("PYTHONPATH")]))
    child = start("--once", PYTHONPATH=path)
    assert child.process.wait(60) == 1
    wait_until(lambda: any("pip install 'wamp-proxy[quickstart]'" in line for line in child.lines), "the advice")


def test_without_crossbar_it_says_what_to_install(start: Start, folder: Path) -> None:
    child = start("--router", "crossbar", "--once", CROSSBAR="/nowhere/crossbar")
    assert child.process.wait(60) == 1
    wait_until(lambda: any("pip install crossbar" in line for line in child.lines), "the advice")
    assert list(folder.iterdir()) == []


@pytest.mark.peers
def test_in_front_of_crossbar(start: Start, folder: Path, tmp_path: Path) -> None:
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    # What instruments the proxy (LD_PRELOAD of the sanitizers) is not for a peer.
    bare = tmp_path / "crossbar"
    bare.write_text(f'#!/bin/sh\nunset {" ".join(INSTRUMENTS)}\nexec {shlex.quote(str(program))} "$@"\n')
    bare.chmod(0o755)
    child = start("--router", "crossbar", CROSSBAR=str(bare))
    child.wait_line("  Or call alice", 120.0)
    family = psutil.Process(child.pid).children(recursive=True)
    assert child.stop(signal.SIGINT, timeout=60.0) == 0
    assert_round_trip(child)
    assert_nothing_left(folder, family)
