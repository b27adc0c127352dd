"""How connections end: every reason, told once, after everything that came before it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from kernel.harness import (
    CLOSE,
    CONT,
    GOODBYE,
    HELLO,
    REQUEST,
    TEXT,
    End,
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


# --- by the peer ------------------------------------------------------------------------------------------------------


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


# --- half-close -------------------------------------------------------------------------------------------------------


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


# --- by us ------------------------------------------------------------------------------------------------------------


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
