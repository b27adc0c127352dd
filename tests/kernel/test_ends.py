"""How connections end: every reason, told once, after everything that came before it."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernel.harness import (
    CLOSE,
    CONT,
    GOODBYE,
    HELLO,
    PING,
    PONG,
    REQUEST,
    TEXT,
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


# --- by the peer -----------------------------------------------------------------------------------------------------


@sides
@kinds
def test_end_of_stream(plane: Plane, kind: str, side: str) -> None:
    session = plane.session(kind, kind)
    end, conn = near(session, side)
    message = call() if side == "front" else result()
    end.write(end.frame(message) * 20)
    end.close()
    assert plane.closed(conn).reason == "CLOSED_PEER"
    other, other_conn = far(session, side)
    assert [other.recv() for _ in range(20)] == [message] * 20
    # the other side is kept until the control plane has said goodbye on it
    plane.relay.send(other_conn, GOODBYE)
    assert other.recv() == GOODBYE
    plane.relay.close(other_conn)
    plane.settle(links=0)


@sides
@kinds
def test_reset_while_linked(plane: Plane, kind: str, side: str) -> None:
    session = plane.session(kind, kind)
    end, conn = near(session, side)
    end.reset()
    event = plane.closed(conn)
    assert (event.reason, event.errno) == ("CLOSED_RESET", errno.ECONNRESET)


@kinds
def test_reset_while_paused(plane: Plane, kind: str) -> None:
    end, conn = plane.join(plane.listen(kind))
    end.send(HELLO)
    plane.wait(R.EV_MESSAGE, conn=conn)
    end.reset()
    event = plane.closed(conn)
    assert (event.reason, event.errno) == ("CLOSED_RESET", errno.ECONNRESET)


@kinds
def test_end_of_stream_while_paused(plane: Plane, kind: str) -> None:
    end, conn = plane.join(plane.listen(kind))
    end.send(HELLO)
    plane.wait(R.EV_MESSAGE, conn=conn)
    end.close()
    assert plane.closed(conn).reason == "CLOSED_PEER"


def test_end_of_stream_right_behind_the_first_message(plane: Plane) -> None:
    end, conn = plane.join(plane.listen("rs"))
    plane.relay.next(conn)
    end.write(end.frame(HELLO) + end.frame(call()))
    end.close()
    assert plane.wait(R.EV_MESSAGE, conn=conn).data == HELLO
    while conn not in plane.ended:  # the second message may be overtaken by the end, but not the end by nothing
        plane.relay.next(conn)
        plane.pump(0.01)
    assert plane.closed(conn).reason == "CLOSED_PEER"


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
@sides
def test_close_handshake_by_the_peer(plane: Plane, side: str, code: int) -> None:
    session = plane.session("ws", "ws")
    end, conn = near(session, side)
    end.write(end.frame(code.to_bytes(2, "big") + "grüß".encode(), CLOSE))
    event = plane.closed(conn)
    assert (event.reason, event.code, event.data) == ("CLOSED_PEER", code, "grüß".encode())
    assert end.recv_control() == (CLOSE, b"\x03\xe8")
    end.close()


def test_close_handshake_without_a_code(plane: Plane) -> None:
    session = plane.session("ws", "rs")
    session.client.write(session.client.frame(b"", CLOSE))
    event = plane.closed(session.front)
    assert (event.reason, event.code, event.data) == ("CLOSED_PEER", 1005, b"")
    assert session.client.recv_control() == (CLOSE, b"")


def test_close_is_echoed_where_asked(plane: Plane) -> None:
    session = plane.session("ws", "rs", front={"echo_close": True})
    session.client.write(session.client.frame(b"\x0f\xa0why", CLOSE))
    assert session.client.recv_control() == (CLOSE, b"\x0f\xa0why")


BAD_FRAMES: dict[str, tuple[Callable[[End], bytes], str, int]] = {
    "reserved bits": (lambda end: b"\xf2\x80\0\0\0\0", "CLOSED_PROTOCOL", 1002),
    "reserved opcode": (lambda end: b"\x83\x80\0\0\0\0", "CLOSED_PROTOCOL", 1002),
    "not masked": (lambda end: b"\x82\x01x", "CLOSED_PROTOCOL", 1002),
    "continuation of nothing": (lambda end: end.frame(b"x", CONT), "CLOSED_PROTOCOL", 1002),
    "text": (lambda end: end.frame(b"x", TEXT), "CLOSED_PROTOCOL", 1003),
    "too big": (lambda end: b"\x82\xfe\xff\xff", "CLOSED_TOO_BIG", 1009),
    "bad close code": (lambda end: end.frame(b"\x03\xed", CLOSE), "CLOSED_PROTOCOL", 1002),
    "close reason not UTF-8": (lambda end: end.frame(b"\x03\xe8\xff", CLOSE), "CLOSED_PROTOCOL", 1007),
    "long ping": (lambda end: b"\x89\xfe\0\xff", "CLOSED_PROTOCOL", 1002),
    "too many fragments": (
        lambda end: end.frame(bytes(600), fin=False) + end.frame(bytes(600), CONT), "CLOSED_TOO_BIG", 1009,
    ),
}  # fmt: skip


@pytest.mark.parametrize("phase", ["join", "linked"])
@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_websocket_frames(plane: Plane, name: str, phase: str) -> None:
    make, reason, code = BAD_FRAMES[name]
    if phase == "linked":
        session = plane.session("ws", "rs", front={"max_message": 1000})
        end, conn = session.client, session.front
        end.send(call())
    else:
        end, conn = plane.join(plane.listen("ws", max_message=1000))
    end.write(make(end) + end.frame(b"what follows") * 3)
    assert plane.closed(conn).reason == reason
    opcode, body = end.recv_control()
    assert (opcode, int.from_bytes(body[:2], "big")) == (CLOSE, code)
    assert end.read_end() in ("eof", "reset")
    if phase == "linked":
        assert session.router.recv() == call()


def test_bad_frames_drop_where_asked(plane: Plane) -> None:
    end, conn = plane.join(plane.listen("ws", fail_by_drop=True))
    end.write(b"\xff\xff\xff\xff")
    assert plane.closed(conn).reason == "CLOSED_PROTOCOL"
    assert end.read_end() in ("eof", "reset")


@pytest.mark.parametrize(
    ("octets", "reason"), [(b"\x07\0\0\1x", "CLOSED_PROTOCOL"), (b"\xf0\0\0\1x", "CLOSED_PROTOCOL"),
                           (b"\0\x00\x02\x01", "CLOSED_TOO_BIG"), (b"\x08\0\0\0", "CLOSED_TOO_BIG")],
)  # fmt: skip
def test_bad_rawsocket_frames(plane: Plane, octets: bytes, reason: str) -> None:
    session = plane.session("rs", "rs", front={"max_message": 512})
    session.client.write(octets)
    assert plane.closed(session.front).reason == reason
    assert session.client.read_end() in ("eof", "reset")


def test_a_client_that_was_never_named_ends_without_a_word(plane: Plane) -> None:
    bad_handshakes = [b"GET ", b"\x7f\xff\1\1", b"\x7f\xf9\0\0", b""]
    for kind, octets in [*(("rs", octets) for octets in bad_handshakes), ("ws", b"\x7f\xf3\0\0")]:
        end = plane.connect(plane.listen(kind))
        end.write(octets)
        if not octets:
            end.half_close()
        if octets[:2] == b"\x7f\xff":
            assert end.read(4) == b"\x7f\x30\0\0"
        if octets[:2] == b"\x7f\xf9":
            assert end.read(4) == b"\x7f\x10\0\0"
        assert end.read_end() in ("eof", "reset")
        end.close()
    plane.settle(connections=0)
    assert plane.log == []


# --- half-close ------------------------------------------------------------------------------------------------------


def test_a_client_that_ends_its_side_gets_what_is_queued(plane: Plane) -> None:
    """More is queued than the socket takes; nobody reads until the end of the client's stream is known."""
    session = plane.session("rs", "rs", front={"high_water": 1 << 24, "stall_ms": 0, "close_ms": 20_000})
    answers = [result(200_000, i) for i in range(40)]
    for answer in answers:
        session.router.send(answer)
    plane.settle(messages_to_front=len(answers))
    session.client.half_close()
    assert plane.closed(session.front).reason == "CLOSED_PEER"
    assert [session.client.recv() for _ in answers] == answers
    assert session.client.read_end() == "eof"


def test_what_is_queued_outlives_close_and_half_close(plane: Plane) -> None:
    session = plane.session("rs", "rs", front={"high_water": 1 << 24, "stall_ms": 0, "close_ms": 20_000})
    for i in range(40):
        session.router.send(result(200_000, i))
    plane.settle(messages_to_front=40)
    plane.relay.send(session.front, GOODBYE)
    plane.relay.close(session.front)
    plane.barrier()
    session.client.half_close()
    for i in range(40):
        assert session.client.recv() == result(200_000, i)
    assert session.client.recv() == GOODBYE
    assert session.client.read_end() == "eof"
    assert plane.closed(session.front).reason == "CLOSED_LOCAL"


def test_an_answer_reaches_a_browser_that_ended_its_side(plane: Plane) -> None:
    end = plane.connect(plane.listen("ws"))
    end.write(REQUEST)
    conn = plane.wait(R.EV_HEAD).conn
    plane.relay.reply(conn, b"HTTP/1.1 400 Bad\r\n\r\n" + bytes(3_000_000))
    plane.barrier()
    end.half_close()
    assert end.read_head() == b"HTTP/1.1 400 Bad\r\n\r\n"
    assert end.read(3_000_000) == bytes(3_000_000)
    assert end.read_end() == "eof"
    assert plane.closed(conn).reason == "CLOSED_LOCAL"


# --- by us -----------------------------------------------------------------------------------------------------------


@kinds
def test_close_flushes_first(plane: Plane, kind: str) -> None:
    end, conn = plane.join(plane.listen(kind, close_ms=20_000))
    for i in range(30):
        plane.relay.send(conn, result(100_000, i))
    plane.relay.close(conn, 1001, b"bye")
    assert [end.recv() for _ in range(30)] == [result(100_000, i) for i in range(30)]
    if kind == "ws":
        assert end.recv_control() == (CLOSE, b"\x03\xe9bye")
        end.write(end.frame(b"\x03\xe9", CLOSE))
    assert end.read_end() == "eof"
    end.close()
    assert plane.closed(conn).reason == "CLOSED_LOCAL"


def test_close_reasons_are_cut_between_characters(plane: Plane) -> None:
    end, conn = plane.join(plane.listen("ws"))
    plane.relay.close(conn, 1000, ("ä" * 62).encode())
    assert end.recv_control() == (CLOSE, b"\x03\xe8" + ("ä" * 61).encode())


@kinds
def test_close_is_bounded(plane: Plane, kind: str) -> None:
    """A peer that neither reads nor answers."""
    end, conn = plane.join(plane.listen(kind, close_ms=30))
    plane.relay.send(conn, bytes(15_000_000))
    plane.relay.close(conn)
    assert plane.closed(conn).reason == "CLOSED_LOCAL"
    assert end.read_end() in ("eof", "reset")


def test_abort_is_at_once(plane: Plane) -> None:
    session = plane.session()
    plane.relay.abort(session.front)
    assert plane.closed(session.front).reason == "CLOSED_LOCAL"
    assert session.client.read_end() in ("eof", "reset")


# --- deadlines -------------------------------------------------------------------------------------------------------


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


# --- dialling --------------------------------------------------------------------------------------------------------


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


# --- readers that do not read, and pings -----------------------------------------------------------------------------


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


# --- everybody -------------------------------------------------------------------------------------------------------


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
