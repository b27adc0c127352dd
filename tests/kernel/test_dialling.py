"""Backend connections until they are linked: whatever goes wrong is told, and the client may be dialled for again."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from kernel.harness import (
    HELLO,
    Plane,
)  # fmt: skip
from proxy import _relay as R

kinds = pytest.mark.parametrize("kind", ["rs", "ws"])
sides = pytest.mark.parametrize("side", ["front", "back"])


def test_dial_refused_by_tcp(plane: Plane) -> None:
    _, front = plane.join(plane.listen("rs"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = R.pack_sockaddr(*unused.getsockname())
        token = plane.dial(front, plane.router(), address=address)
        event = plane.wait(R.EV_CLOSED, owner=token)
    assert (event.reason, event.errno) == ("CLOSED_REFUSED", errno.ECONNREFUSED)
    # the client is still there and the next address may be tried
    assert plane.back(front, plane.router())


def test_dial_to_a_unix_socket_that_is_not_there(plane: Plane, tmp_path: Path) -> None:
    _, front = plane.join(plane.listen("rs"))
    token = plane.dial(front, plane.router(), address=R.pack_unix(str(tmp_path / "none")))
    event = plane.wait(R.EV_CLOSED, owner=token)
    assert (event.reason, event.errno) == ("CLOSED_REFUSED", errno.ENOENT)


def fill_backlog(path: str) -> list[socket.socket]:
    """Connect until the next one would have to wait."""
    waiting = []
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            sock.close()
            return waiting
        waiting.append(sock)


def test_dial_waits_for_room_in_the_backlog_of_a_unix_socket(plane: Plane, tmp_path: Path) -> None:
    router = plane.router("rs", path=str(tmp_path / "r"), backlog=1)
    waiting = fill_backlog(str(tmp_path / "r"))
    _, front = plane.join(plane.listen("rs"))
    token = plane.dial(front, router)
    plane.barrier()
    for sock in waiting:
        router.sock.accept()[0].close()
        sock.close()
    plane.accept_join(router, token)


def test_dial_to_a_full_backlog_is_bounded(plane: Plane, tmp_path: Path) -> None:
    router = plane.router("rs", path=str(tmp_path / "r"), backlog=1)
    waiting = fill_backlog(str(tmp_path / "r"))
    _, front = plane.join(plane.listen("rs"))
    token = plane.dial(front, router, timeout_ms=40)
    assert plane.wait(R.EV_CLOSED, owner=token).reason == "CLOSED_DEADLINE"
    for sock in waiting:
        sock.close()


@pytest.mark.parametrize(
    ("answer", "number"), [(b"\x7f\x10\0\0", 1001), (b"\x7f\x40\0\0", 1004), (b"HTTP", 1000), (b"\x7f\xf1\0\0", 1001)]
)
def test_rawsocket_handshake_refused_by_the_router(plane: Plane, answer: bytes, number: int) -> None:
    _, front = plane.join(plane.listen("rs"))
    router = plane.router("rs")
    token = plane.dial(front, router)
    plane.accept(router).write(answer)
    event = plane.wait(R.EV_CLOSED, owner=token)
    assert (event.reason, event.errno) == ("CLOSED_REFUSED", number)


@kinds
@pytest.mark.parametrize("how", ["close", "reset"])
def test_handshake_dropped_by_the_router(plane: Plane, kind: str, how: str) -> None:
    _, front = plane.join(plane.listen("rs"))
    router = plane.router(kind)
    for _ in range(10):  # whether our first octets meet a closed socket is a matter of luck
        token = plane.dial(front, router)
        getattr(plane.accept(router), how)()
        event = plane.wait(R.EV_CLOSED, owner=token)
        assert event.reason == "CLOSED_REFUSED"
        assert event.errno in ((1000,) if how == "close" else (1000, errno.ECONNRESET))


def test_long_head_of_a_router(plane: Plane) -> None:
    _, front = plane.join(plane.listen("rs"))
    router = plane.router("ws")
    token = plane.dial(front, router, max_head=100)
    plane.accept(router).write(b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 50)
    assert plane.wait(R.EV_CLOSED, owner=token).reason == "CLOSED_PROTOCOL"


@pytest.mark.parametrize("stage", ["connect", "handshake", "join"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_gone_while_dialling(plane: Plane, tmp_path: Path, stage: str, how: str) -> None:
    path = str(tmp_path / "r")
    router = plane.router("rs", path=path, backlog=1)
    waiting = fill_backlog(path) if stage == "connect" else []
    client, front = plane.join(plane.listen("rs"))
    client.send(HELLO)
    plane.wait(R.EV_MESSAGE, conn=front)
    if stage == "join":
        _, _, token = plane.back(front, router)
    else:
        token = plane.dial(front, router)
        plane.barrier()
    getattr(client, how)()
    assert plane.wait(R.EV_CLOSED, owner=token).reason == "CLOSED_FRONT_GONE"
    assert plane.closed(front).reason == ("CLOSED_PEER" if how == "close" else "CLOSED_RESET")
    for sock in waiting:
        sock.close()


def test_undial(plane: Plane) -> None:
    client, front = plane.join(plane.listen("rs"))
    token = plane.dial(front, plane.router())
    plane.relay.undial(front)
    assert plane.wait(R.EV_CLOSED, owner=token).reason == "CLOSED_LOCAL"
    end, _, _ = plane.back(front, plane.router())
    plane.relay.undial(front)
    assert end.read_end() in ("eof", "reset")
    plane.relay.undial(front)
    client.send(HELLO)
    assert plane.wait(R.EV_MESSAGE, conn=front).data == HELLO
