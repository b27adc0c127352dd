"""Listeners: limits, leaving, want of descriptors."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.harness import Event, Gone, Listener, Plane, call
from proxy import _relay as R


def listen_event(plane: Plane, listener: Listener, which: int) -> Event:
    return plane.wait(R.EV_LISTEN, owner=listener.number, arg=which)


@pytest.mark.parametrize("kind", ["rs", "ws"])
def test_max_connections(plane: Plane, kind: str) -> None:
    listener = plane.listen(kind, max_connections=3)
    joined = [plane.join(listener) for _ in range(3)]
    for _ in range(5):
        extra = plane.connect(listener)
        try:
            if kind == "rs":
                assert extra.read(4) == b"\x7f\x40\0\0"
            assert extra.read_end() in ("eof", "reset")
        except Gone:
            pass
    plane.settle(refused_full=5, connections=3)
    listen_event(plane, listener, R.LISTEN_FULL)
    assert [event for event in plane.log if event.kind == R.EV_LISTEN][1:] == []
    end, conn = joined[0]
    end.close()
    plane.closed(conn)
    plane.settle(connections=2)
    plane.join(listener)


def test_max_connections_of_two_threads(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(2)
    listener = plane.listen("rs", max_connections=10)
    ends = [plane.connect(listener) for _ in range(40)]
    for end in ends:
        try:
            end.write(b"\x7f\xf3\0\0")
        except Gone:
            pass
    plane.settle(refused_full=30, connections=10)
    for _ in range(10):
        plane.wait(R.EV_OPEN)


@pytest.mark.parametrize("threads", [1, 2])
def test_unlisten_keeps_what_lives(make_plane: Callable[..., Plane], threads: int) -> None:
    plane = make_plane(threads)
    listener = plane.listen("rs")
    sessions = [plane.session(listener=listener) for _ in range(4)]
    plane.relay.unlisten(listener.number)
    listen_event(plane, listener, R.LISTEN_CLOSED)
    with pytest.raises(ConnectionRefusedError):
        listener.connect()
    with pytest.raises(ValueError, match="no listener"):
        plane.relay.unlisten(listener.number)
    for session in sessions:
        session.client.send(call())
        assert session.router.recv() == call()
        plane.finish(session)


@pytest.mark.parametrize("threads", [1, 2])
def test_unlisten_twice_is_told_once(make_plane: Callable[..., Plane], threads: int) -> None:
    plane = make_plane(threads)
    listener = plane.listen("rs")
    plane.relay.unlisten(listener.number)
    try:
        plane.relay.unlisten(listener.number)
    except ValueError:
        pass
    listen_event(plane, listener, R.LISTEN_CLOSED)
    again = plane.listen("rs")
    plane.join(again)
    plane.barrier()
    assert len([event for event in plane.log if event.kind == R.EV_LISTEN]) == 1


def test_listeners_come_and_go(make_plane: Callable[..., Plane], tmp_path: Path) -> None:
    plane = make_plane(2)
    for i in range(30):
        listener = plane.listen("rs", path=str(tmp_path / f"s{i}"))
        end, conn = plane.join(listener)
        plane.relay.unlisten(listener.number)
        event = listen_event(plane, listener, R.LISTEN_CLOSED)
        assert event.owner == listener.number
        end.close()
        plane.closed(conn)


def test_no_more_than_so_many_listeners(plane: Plane) -> None:
    listeners = [plane.listen("rs") for _ in range(256)]
    with pytest.raises(RuntimeError, match="256"):
        plane.relay.listen(0, 1, listeners[0].params, 0)
    plane.relay.unlisten(listeners[77].number)
    listen_event(plane, listeners[77], R.LISTEN_CLOSED)
    plane.join(plane.listen("rs"))
    plane.join(listeners[255])


def test_connections_are_spread_over_the_threads(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(2)
    listener = plane.listen("rs")
    for _ in range(20):
        plane.join(listener)
    assert sorted(plane.relay.stats(i)["connections"] for i in range(2)) == [10, 10]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """The process may open no descriptor more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fill = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        while True:
            try:
                fill.append(os.dup(0))
            except OSError:
                break
        yield
    finally:
        for fd in fill:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_want_of_descriptors_pauses_accepting(plane: Plane) -> None:
    listener = plane.listen("rs")
    sock = socket.socket()
    with no_descriptors():
        sock.connect(listener.address)
        event = listen_event(plane, listener, R.LISTEN_PAUSED)
        assert event.arg >> 8 == errno.EMFILE
    listen_event(plane, listener, R.LISTEN_RESUMED)
    sock.sendall(b"\x7f\xf3\0\0")
    conn = plane.wait(R.EV_OPEN).conn
    sock.close()
    plane.closed(conn)


def test_dial_without_descriptors(plane: Plane) -> None:
    _, front = plane.join(plane.listen("rs"))
    router = plane.router("rs")
    with no_descriptors():
        token = plane.dial(front, router)
        event = plane.wait(R.EV_CLOSED, owner=token)
    assert (event.conn, event.reason, event.errno) == (0, "CLOSED_REFUSED", errno.EMFILE)
    plane.back(front, router)
