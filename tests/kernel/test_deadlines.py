"""Whatever waits has a deadline: handshakes, messages, readers that do not read, pongs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kernel.harness import (
    HELLO,
    PING,
    PONG,
    End,
    Gone,
    Plane,
    call,
    result,
)  # fmt: skip
from proxy import _relay as R

kinds = pytest.mark.parametrize("kind", ["rs", "ws"])
sides = pytest.mark.parametrize("side", ["front", "back"])


def near(session: Any, side: str) -> tuple[End, int]:
    return (session.client, session.front) if side == "front" else (session.router, session.back)


def far(session: Any, side: str) -> tuple[End, int]:
    return near(session, "back" if side == "front" else "front")


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "octets"), [("rs", b""), ("rs", b"\x7f"), ("ws", b"")])
def test_handshake_deadline_before_a_name(plane: Plane, kind: str, octets: bytes) -> None:
    end = plane.connect(plane.listen(kind, handshake_ms=20))
    end.write(octets)
    assert end.read_end() in ("eof", "reset")
    plane.settle(connections=0)
    assert plane.log == []


def test_deadline_of_an_http_head_can_be_answered(plane: Plane) -> None:
    end = plane.connect(plane.listen("ws", handshake_ms=20))
    end.write(b"GET / HT")
    event = plane.wait(R.EV_VIOLATION)
    assert event.arg == R.ST_DEADLINE
    plane.relay.reply(event.conn, b"HTTP/1.1 408 x\r\n\r\n")
    assert end.read_head() == b"HTTP/1.1 408 x\r\n\r\n"
    assert end.read_end() == "eof"
    end.close()
    assert plane.closed(event.conn).reason == "CLOSED_LOCAL"


def test_deadline_of_an_http_head_that_nobody_answers(plane: Plane) -> None:
    end = plane.connect(plane.listen("ws", handshake_ms=20, close_ms=20))
    end.write(b"GET / HT")
    conn = plane.wait(R.EV_VIOLATION).conn
    assert plane.closed(conn).reason == "CLOSED_DEADLINE"
    assert end.read_end() in ("eof", "reset")


def test_long_http_head_can_be_answered(plane: Plane) -> None:
    end = plane.connect(plane.listen("ws", max_head=200))
    end.write(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50)
    event = plane.wait(R.EV_VIOLATION)
    assert event.arg == R.ST_TOO_BIG
    plane.relay.reply(event.conn, b"HTTP/1.1 431 x\r\n\r\n")
    assert end.read_head() == b"HTTP/1.1 431 x\r\n\r\n"


@kinds
@pytest.mark.parametrize("octets", [b"", b"part"])
def test_hello_deadline(plane: Plane, kind: str, octets: bytes) -> None:
    end, conn = plane.join(plane.listen(kind, hello_ms=20))
    try:
        end.write(end.frame(HELLO)[: len(octets)])
    except Gone:
        pass
    assert plane.closed(conn).reason == "CLOSED_DEADLINE"


def test_deadline_of_the_next_message(plane: Plane) -> None:
    end, conn = plane.join(plane.listen("rs"))
    end.send(HELLO)
    plane.wait(R.EV_MESSAGE, conn=conn)
    plane.relay.next(conn, 20)
    assert plane.closed(conn).reason == "CLOSED_DEADLINE"


def test_no_deadline_while_the_control_plane_thinks_or_when_linked(plane: Plane) -> None:
    session = plane.session("rs", "ws", front={"hello_ms": 20, "handshake_ms": 20}, back={"hello_ms": 20})
    plane.settle(timers=0)
    plane.finish(session)


@pytest.mark.parametrize("join_ms", [20])
def test_join_deadline(plane: Plane, join_ms: int) -> None:
    _, front = plane.join(plane.listen("rs"))
    router = plane.router("rs")
    token = plane.dial(front, router, join_ms=join_ms)
    end = plane.accept(router)
    end.read(4)
    end.write(b"\x7f\xf3\0\0")
    assert plane.wait(R.EV_CLOSED, owner=token).reason == "CLOSED_DEADLINE"
    assert end.recv() == HELLO


@kinds
def test_dial_deadline_in_the_handshake(plane: Plane, kind: str) -> None:
    _, front = plane.join(plane.listen("rs"))
    token = plane.dial(front, plane.router(kind), timeout_ms=20)
    assert plane.wait(R.EV_CLOSED, owner=token).reason == "CLOSED_DEADLINE"


# --- readers that do not read, and pings ------------------------------------------------------------------------------


@sides
@kinds
def test_stall(plane: Plane, kind: str, side: str) -> None:
    """The reader of one side stops: it is cut off, the other side is told about it and stays."""
    options = {"stall_ms": 60, "high_water": 100_000, "low_water": 50_000}
    session = plane.session(kind, kind, front=options, back=options)
    sender, _ = far(session, side)
    sender.sock.settimeout(0.02)
    message = sender.frame(call(100_000) if side == "back" else result(100_000))
    _, conn = near(session, side)
    try:
        while conn not in plane.ended:
            try:
                sender.sock.send(message)
            except TimeoutError:
                pass
            plane.pump(0)
    except OSError:
        pass
    assert plane.closed(conn).reason == "CLOSED_STALL"


def test_pings_that_are_answered(plane: Plane) -> None:
    session = plane.session("ws", "rs", front={"ping_interval_ms": 10, "ping_timeout_ms": 10_000, "ping_size": 20})
    for _ in range(4):
        opcode, body = session.client.recv_control()
        assert (opcode, len(body)) == (PING, 20)
        session.client.write(session.client.frame(body, PONG))
    session.client.send(call())
    assert session.router.recv() == call()
    plane.finish(session)


@pytest.mark.parametrize("answer", [None, b"other"])
def test_pings_that_are_not_answered(plane: Plane, answer: bytes | None) -> None:
    session = plane.session("ws", "rs", front={"ping_interval_ms": 20, "ping_timeout_ms": 60})
    if answer is not None:
        session.client.write(session.client.frame(answer, PONG))
    assert plane.closed(session.front).reason == "CLOSED_PING"


def test_traffic_instead_of_a_pong_where_asked(plane: Plane) -> None:
    session = plane.session(
        "ws", "rs", front={"ping_interval_ms": 40, "ping_timeout_ms": 300, "ping_restart_on_traffic": True}
    )
    assert session.client.recv_control()[0] == PING
    session.client.send(call())
    assert session.client.recv_control()[0] == PING  # a new one, in spite of the one that was never answered
    plane.finish(session)


def let_pass(plane: Plane, milliseconds: int) -> None:
    """Wait by the clock of the data plane: a deadline of its own takes at least that long."""
    _, conn = plane.join(plane.listen("rs", hello_ms=milliseconds))
    assert plane.closed(conn).reason == "CLOSED_DEADLINE"


def test_nobody_is_blamed_for_pongs_that_were_not_read_while_paused(plane: Plane) -> None:
    """While the control plane thinks, nothing is read from the client, so its pong must not be missed."""
    client, conn = plane.join(plane.listen("ws", ping_interval_ms=150, ping_timeout_ms=150))
    client.send(HELLO)
    plane.wait(R.EV_MESSAGE, conn=conn)
    let_pass(plane, 500)
    assert conn not in plane.ended


def test_nobody_is_blamed_for_pongs_that_were_not_read_under_pressure(plane: Plane) -> None:
    """A router does not read, so the client is not read either, its pongs lie behind its messages."""
    session = plane.session(
        "ws", "rs", front={"ping_interval_ms": 300, "ping_timeout_ms": 300},
        back={"high_water": 1000, "low_water": 500, "stall_ms": 0},
    )  # fmt: skip

    def write() -> None:
        with pytest.raises(Gone):
            session.client.write(session.client.frame(call(200_000)) * 100)

    flood = threading.Thread(target=write)
    flood.start()
    while not plane.stats("presses"):
        plane.pump(0.001)
    let_pass(plane, 900)
    assert session.front not in plane.ended
    plane.relay.abort(session.front)
    flood.join()


@kinds
def test_a_flood_of_pings_from_one_who_does_not_read(plane: Plane, kind: str) -> None:
    """Its pongs pile up to a bound, then it is not read any more, and it stalls."""
    options = {"high_water": 50_000, "low_water": 10_000, "stall_ms": 100}
    session = plane.session(kind, "rs", front=options)
    client = session.client
    client.sock.settimeout(0.02)
    flood = client.frame(b"p" * 125, PING) * 500
    most = 0
    try:
        while session.front not in plane.ended:
            try:
                client.sock.send(flood)
            except TimeoutError:
                pass
            plane.pump(0)
            most = max(most, plane.stats("buffered_octets"))
    except OSError:
        pass
    assert plane.closed(session.front).reason == "CLOSED_STALL"
    assert most < 1_500_000
