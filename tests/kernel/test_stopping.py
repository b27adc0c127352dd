"""The end of everything: stop() with connections in every phase, release()."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.harness import (
    End,
    Plane,
    call,
    result,
)  # fmt: skip
from kernel.test_dialling import fill_backlog
from proxy import _relay as R

kinds = pytest.mark.parametrize("kind", ["rs", "ws"])
sides = pytest.mark.parametrize("side", ["front", "back"])


def open_everything(plane: Plane, tmp_path: Path) -> None:
    """Connections in every phase."""
    for kind in ("rs", "ws"):
        plane.connect(plane.listen(kind))
        plane.connect(plane.listen(kind)).write(b"\x7f" if kind == "rs" else b"GET")
        plane.join(plane.listen(kind))
        for back in ("rs", "ws"):
            session = plane.session(kind, back)
            session.client.write(session.client.frame(call(50_000))[:30_000])
            session.router.send(result(3))
            plane.session(kind, back)
    _, front = plane.join(plane.listen("rs"))
    plane.dial(front, plane.router("ws"))
    fill_path = str(tmp_path / "r")
    router = plane.router("rs", path=fill_path, backlog=1)
    _, front = plane.join(plane.listen("ws"))
    plane.ends += [End(sock, "rs", client=True) for sock in fill_backlog(fill_path)]
    plane.dial(front, router)
    stuck = plane.session("rs", "rs")
    plane.relay.send(stuck.front, bytes(15_000_000))
    plane.relay.close(stuck.front)


@pytest.mark.parametrize("threads", [1, 2])
def test_stop_with_everything_open(make_plane: Callable[..., Plane], tmp_path: Path, threads: int) -> None:
    plane = make_plane(threads)
    open_everything(plane, tmp_path)
    plane.close(hang_up=False)
    assert {event.reason for event in plane.ended.values()} <= {"CLOSED_LOCAL", "CLOSED_FRONT_GONE"}


def test_stop_with_commands_on_their_way(plane: Plane) -> None:
    session = plane.session()
    plane.relay.stop()
    for thread in plane.threads:
        thread.join()
    for _ in range(5000):  # more than the ring takes
        plane.relay.send(session.front, b"late")
    plane.named.clear()
    plane.close(hang_up=False)


def test_stop_and_release_may_be_repeated(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane()
    session = plane.session()
    plane.relay.stop()
    plane.relay.stop()
    plane.close(hang_up=False)
    plane.relay.release()
    plane.relay.stop()
    assert plane.relay.drain() == []
    assert plane.relay.event_fd == -1
    for command in (
        lambda: plane.relay.send(session.front, b""),
        lambda: plane.relay.listen(0, 1, 1, 0),
        lambda: plane.relay.unlisten(1),
        lambda: plane.relay.dial(0, 1, 1, 1, b"1234", b"", b"", 1, 1),
        lambda: plane.relay.add_params(kind=R.CODEC_RS),
    ):
        with pytest.raises(RuntimeError, match="released"):
            command()
    with pytest.raises(ValueError, match="index"):
        plane.relay.stats(0)
    with pytest.raises(ValueError, match="index"):
        plane.relay.run(0)


def test_a_relay_that_never_ran_can_be_released() -> None:
    relay = R.Relay(3)
    params = relay.add_params(kind=R.CODEC_RS)
    sock = socket.create_server(("127.0.0.1", 0))
    relay.listen(sock.detach(), 1, params, 0)
    relay.release()
    R.Relay(64)


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_a_senseless_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        R.Relay(threads)
