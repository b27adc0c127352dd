"""The worker's end of the two pipes that a node starts it with; the node's end is the test's."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from support.endpoints import Endpoint
from support.nodes import proxy_environment
from support.process import peer_environment, wait_until
from support.raw import (
    ABORT,
    CALL,
    ERROR,
    GOODBYE,
    HELLO,
    INVOCATION,
    OP_CLOSE,
    PUBLISH,
    PUBLISHED,
    REGISTER,
    REGISTERED,
    RESULT,
    WELCOME,
    YIELD,
    Peer,
    PeerClosed,
    WebSocketPeer,
    Wire,
    upgrade,
)

NODE = Endpoint("websocket", resource="/")
ANNOUNCEMENT = b"CROSSBAR_RICH_LOGGING_ENABLE=True\n"

EXEC_ON_3 = """
import os, sys
if (out := int(sys.argv[1])) != 3:
    os.dup2(out, 3)
    os.close(out)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Pipes:
    """The node's two ends, as a socket."""

    def __init__(self, into: int, out: int) -> None:
        self.into, self.out = into, out

    def settimeout(self, seconds: float) -> None:
        """The worker ends, or pytest ends the test."""

    def recv(self, count: int) -> bytes:
        """What the worker sends."""
        return os.read(self.out, count)

    def sendall(self, data: bytes) -> None:
        """What the worker gets."""
        while data:
            data = data[os.write(self.into, data) :]

    def close(self) -> None:
        """Close both."""
        for fd in (self.into, self.out):
            if fd >= 0:
                os.close(fd)
        self.into = self.out = -1


class Worker:
    """A worker process.

    :param folder: of the node.
    :param more: arguments.
    :param program: what the interpreter runs.
    """

    def __init__(self, folder: Path, *more: str, program: Sequence[str] = ("-m", "proxy.launcher")) -> None:
        worker_in, node_out = os.pipe()
        node_in, worker_out = os.pipe()
        argv = [sys.executable, *program, "-u", "-m", "crossbar.worker.main", "--cbdir", str(folder)]
        argv += ["--node", "node1", "--worker", "proxy1", "--realm", "crossbar"]
        argv += ["--personality", "x.X", "--klass", "x.X", *more]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", EXEC_ON_3, str(worker_out), *argv],
            stdin=worker_in,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**peer_environment(), **proxy_environment()},
            pass_fds=[worker_out],
            start_new_session=True,  # no terminal
        )
        os.close(worker_in)
        os.close(worker_out)
        self.pipes = Pipes(node_out, node_in)
        self.output = b""
        self._errors: list[bytes] = []

    def open(self) -> Peer:
        """The WebSocket opening handshake, as the node's side."""
        wire = Wire(self.pipes)  # type: ignore[arg-type]
        protocol, _ = upgrade(wire, NODE, "wamp.2.json")
        assert protocol == "wamp.2.json"
        return WebSocketPeer(wire, "json")

    def wait(self) -> int:
        """Its exit status."""
        self.output, errors = self.process.communicate(timeout=30)
        self._errors.append(errors)
        return self.process.returncode

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its log; after :meth:`wait`."""
        announcement, rest = b"".join(self._errors).split(b"\n", 1)
        assert announcement + b"\n" == ANNOUNCEMENT
        return [json.loads(record) for record in rest.split(b"\x1e")[:-1]]

    def logged(self, text: str) -> bool:
        """Whether a record holds a text."""
        return any(text in record["log_text"] for record in self.records)

    def close(self) -> None:
        """Leave nothing of it."""
        self.pipes.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start workers."""
    running: list[Worker] = []

    def one(*more: str, folder: Path = tmp_path, **keys: Any) -> Worker:
        running.append(Worker(folder, *more, **keys))
        return running[-1]

    yield one
    for worker in running:
        worker.close()


def join(peer: Peer) -> None:
    """Take its HELLO, and every registration."""
    hello = peer.recv_type(HELLO)
    assert hello[1] == "crossbar"
    roles = {"broker": {"features": {}}, "dealer": {"features": {}}}
    peer.send([WELCOME, 7, {"roles": roles, "authid": "crossbar.process.1", "authrole": "crossbar.worker.proxy1"}])


def serve(peer: Peer) -> dict[str, int]:
    """Be the router until the worker is ready; its registrations by the last part of their URI."""
    procedures: dict[str, int] = {}
    while True:
        message = peer.recv()
        if message[0] == REGISTER:
            prefix, name = message[3].rsplit(".", 1)
            assert prefix == "crossbar.worker.proxy1"
            procedures[name] = len(procedures) + 1
            peer.send([REGISTERED, message[1], procedures[name]])
        elif message[0] == CALL:
            assert message[3] == "crossbar.get_public_key"
            peer.send([RESULT, message[1], {}, ["ab" * 32]])
        else:
            assert message[0] == PUBLISH
            peer.send([PUBLISHED, message[1], 1])
            if message[3] == "crossbar.worker.proxy1.on_worker_ready":
                return procedures


def ask(peer: Peer, registration: int) -> None:
    """Call a procedure: once it is answered, the worker has done all that it does to be ready."""
    peer.send([INVOCATION, 1, registration, {}])
    peer.recv_type(YIELD)


def test_an_orderly_life(start: Any) -> None:
    """Ready, SIGTERM, GOODBYE, the closing handshake, status 0."""
    worker = start()
    node = worker.open()
    join(node)
    procedures = serve(node)
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's, which reach the node and all its workers
        os.kill(worker.process.pid, number)
    ask(node, procedures["get_node_id"])
    os.kill(worker.process.pid, signal.SIGTERM)
    event = node.recv_type(PUBLISH)
    assert event[3] == "crossbar.worker.proxy1.on_shutdown_requested"
    assert node.recv_type(GOODBYE)
    node.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    with pytest.raises(PeerClosed) as closed:
        node.recv()
    assert closed.value.code == 1000
    assert worker.wait() == 0
    assert worker.logged("WAMP proxy proxy1 is ready on node node1")


def test_node_that_closes_the_connection(start: Any) -> None:
    """As a node does it that stops its worker: the closing handshake, at any moment."""
    worker = start()
    node = worker.open()
    join(node)
    ask(node, serve(node)["get_node_id"])
    assert isinstance(node, WebSocketPeer)
    node.wire.write(node.ws_frame(OP_CLOSE, b"\x03\xe8"))
    node.wire.read_all()
    assert worker.wait() == 0


def test_node_that_is_gone(start: Any) -> None:
    worker = start()
    node = worker.open()
    join(node)
    serve(node)
    worker.pipes.close()
    assert worker.wait() == 1
    assert worker.logged("the node is gone")


@pytest.mark.parametrize("step", ["started", "opened", "joining", "registering"])
@pytest.mark.parametrize("end", ["gone", "SIGTERM"])
def test_end_before_it_is_ready_is_a_failure(start: Any, step: str, end: str) -> None:
    """With status 0 the node would wait for it for ever."""
    worker = start("--loglevel", "debug")
    if step != "started":
        node = worker.open()
        node.recv_type(HELLO)
        if step == "registering":
            node.send([WELCOME, 7, {"roles": {"broker": {}, "dealer": {}}}])
            node.recv_type(REGISTER)
    if end == "gone":
        worker.pipes.close()
    else:
        os.kill(worker.process.pid, signal.SIGTERM)
    assert worker.wait() not in (0, None)


def refuse(node: Peer, takes_registrations: bool) -> None:
    """Answer everything with an error until the worker has gone."""
    try:
        while message := node.recv():
            if message[0] == REGISTER and takes_registrations:
                node.send([REGISTERED, message[1], message[1]])
            else:
                node.send([ERROR, message[0], message[1], {}, "wamp.error.not_authorized"])
    except PeerClosed:
        pass


@pytest.mark.parametrize("refusal", ["abort", "register", "key"])
def test_node_that_refuses_the_worker(start: Any, refusal: str) -> None:
    worker = start()
    node = worker.open()
    if refusal == "abort":
        node.recv_type(HELLO)
        node.send([ABORT, {"message": "no"}, "wamp.error.no_such_realm"])
    else:
        join(node)
        refuse(node, takes_registrations=refusal == "key")
    assert worker.wait() == 1
    told = {"abort": "wamp.error.no_such_realm: no", "register": "cannot", "key": "options.expose_controller"}
    assert worker.logged(told[refusal])
    assert refusal == "abort" or not worker.logged("the node is gone")


def test_node_that_does_not_take_the_worker(start: Any) -> None:
    """It says nothing after the opening handshake: the worker does not wait for ever."""
    code = "import proxy.node, proxy.launcher; proxy.node.READY_TIMEOUT = 0.5; proxy.launcher.main()"
    worker = start(program=["-c", code])
    worker.open().recv_type(HELLO)
    assert worker.wait() == 1
    assert worker.logged("the node did not take the worker within 0.5 s")


def test_node_that_does_not_answer_goodbye(start: Any) -> None:
    """The end does not wait for it for ever."""
    code = "import proxy.worker, proxy.launcher; proxy.worker.LEAVE_TIMEOUT = 0.2; proxy.launcher.main()"
    worker = start(program=["-c", code])
    node = worker.open()
    join(node)
    ask(node, serve(node)["get_node_id"])
    os.kill(worker.process.pid, signal.SIGTERM)
    node.recv_type(PUBLISH)
    node.recv_type(GOODBYE)
    assert worker.wait() == 0


def test_garbage_on_the_pipe(start: Any) -> None:
    worker = start()
    worker.pipes.sendall(b"what is this?\r\n\r\n")
    assert worker.wait() == 1


def test_folder_that_is_not_there(start: Any, tmp_path: Path) -> None:
    worker = start(folder=tmp_path / "nowhere")
    assert worker.wait() == 1
    assert worker.logged(f"cannot use the folder of its node, {tmp_path / 'nowhere'}: No such file or directory")


def test_unknown_reactor(start: Any) -> None:
    worker = start("--reactor", "iocp")
    assert worker.wait() == 2
    assert worker.logged("argument --reactor: invalid choice: 'iocp'")


def test_quiet(start: Any) -> None:
    """At level "none" there is nothing but the announcement."""
    worker = start("--loglevel", "none")
    worker.pipes.close()
    assert worker.wait() == 1
    assert worker.records == []


def wait_announced(pipe: IO[bytes]) -> None:
    """Wait until the announcement lies in a pipe that nobody reads."""
    unread = array.array("i", [0])

    def is_there() -> bool:
        fcntl.ioctl(pipe, termios.FIONREAD, unread)
        return unread[0] >= len(ANNOUNCEMENT)

    wait_until(is_there, "the announcement")


def test_last_words_for_a_busy_node(tmp_path: Path) -> None:
    """The node throws away what comes in one piece with the announcement: a worker that fails at once waits for it."""
    argv = [sys.executable, "-m", "proxy.launcher", "--cbdir", str(tmp_path), "--reactor", "iocp"]
    environment = {**peer_environment(), **proxy_environment()}
    worker = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert worker.stderr is not None
    wait_announced(worker.stderr)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(1.0)  # more than it needs to find its command line wrong
    assert os.read(worker.stderr.fileno(), 65536) == ANNOUNCEMENT
    assert b"cannot be started with this command line" in worker.communicate(timeout=30)[1]
    assert worker.returncode == 2


def test_last_words_for_nobody(tmp_path: Path) -> None:
    """Where nobody reads any more, a worker that fails does not wait."""
    argv = [sys.executable, "-m", "proxy.launcher", "--cbdir", str(tmp_path), "--reactor", "iocp"]
    code = "import proxy.nodelog, proxy.launcher; proxy.nodelog.ANNOUNCEMENT_TIMEOUT = 1e6; proxy.launcher.main()"
    argv[1:3] = ["-c", code]
    environment = {**peer_environment(), **proxy_environment()}
    worker = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert worker.stderr is not None
    wait_announced(worker.stderr)
    worker.stderr.close()
    assert worker.wait(30) == 2


def test_lifecycle_on_the_terminal(start: Any) -> None:
    """Where there is no terminal it goes to the node's log, by way of stdout."""
    worker = start("--debug-lifecycle")
    node = worker.open()
    join(node)
    node.send([INVOCATION, 1, serve(node)["shutdown"], {}])
    while node.recv()[0] != GOODBYE:
        pass
    node.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    with pytest.raises(PeerClosed):
        node.recv()
    assert worker.wait() == 0
    expected = [f"CROSSBAR[proxy1]:WORKER_{step}" for step in ("STARTING", "STARTED", "STOPPED")]
    assert worker.output.decode().splitlines() == expected
