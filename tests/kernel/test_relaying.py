"""Messages through a link: every size, every cut, every pair of framings, in order and intact."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from collections.abc import Callable

import cbor2
import pytest

from kernel.harness import (
    BINARY,
    CLOSE,
    CONT,
    GOODBYE,
    HELLO,
    PING,
    PONG,
    TEXT,
    WELCOME,
    End,
    Plane,
    Session,
    call,
    call_of,
    result,
)  # fmt: skip
from proxy import _relay as R

PAIRS = [(front, back) for front in ("rs", "ws") for back in ("rs", "ws")]
pairs = pytest.mark.parametrize(("front_kind", "back_kind"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
kinds = pytest.mark.parametrize("kind", ["rs", "ws"])
# around every border: header widths, scratch, steal, pooled classes, the longest
SIZES = [20, 125, 126, 127, 4096, 16383, 16384, 65535, 65536, 131008, 131072, 262144, 1 << 20, (1 << 24) - 1, 1 << 24]


def digest(data: bytes) -> str:
    return hashlib.blake2b(data).hexdigest()


def pour(end: End, octets: bytes) -> threading.Thread:
    """Write while somebody else reads."""
    thread = threading.Thread(target=end.write, args=(octets,))
    thread.start()
    return thread


@pairs
def test_sizes_both_ways(plane: Plane, front_kind: str, back_kind: str) -> None:
    session = plane.session(front_kind, back_kind)
    for request, size in enumerate(SIZES):
        message = call_of(size, request)
        writer = pour(session.client, session.client.frame(message))
        assert digest(session.router.recv()) == digest(message)
        writer.join()
        answer = cbor2.dumps([50, request, {}, [os.urandom(size - 20)]])
        writer = pour(session.router, session.router.frame(answer))
        assert digest(session.client.recv()) == digest(answer)
        writer.join()
    assert plane.stats("messages_to_back") == plane.stats("messages_to_front") == len(SIZES)
    assert plane.stats("octets_to_back") == sum(SIZES)
    plane.finish(session)


@pairs
def test_streams_of_small_messages(plane: Plane, front_kind: str, back_kind: str) -> None:
    session = plane.session(front_kind, back_kind)
    rng = random.Random(7)
    messages = [call(rng.choice([0, 1, 50, 118, 119, 900, 1100, 5000]), i) for i in range(3000)]
    octets = b"".join(map(session.client.frame, messages))
    writer = pour(session.client, octets)
    assert [session.router.recv() for _ in messages] == messages
    writer.join()
    answers = [result(rng.choice([0, 7, 300, 2000]), i) for i in range(3000)]
    writer = pour(session.router, b"".join(map(session.router.frame, answers)))
    assert [session.client.recv() for _ in answers] == answers
    writer.join()
    plane.finish(session)


@pairs
def test_octet_by_octet(plane: Plane, front_kind: str, back_kind: str) -> None:
    session = plane.session(front_kind, back_kind)
    messages = [call(size, size) for size in (0, 3, 120, 300)]
    for octet in b"".join(map(session.client.frame, messages)):
        session.client.write(bytes([octet]))
    assert [session.router.recv() for _ in messages] == messages
    plane.finish(session)


@pytest.mark.parametrize("back_kind", ["rs", "ws"])
@pytest.mark.parametrize("size", [300, 70_000, 1 << 20])
def test_fragmented_messages_leave_whole(plane: Plane, back_kind: str, size: int) -> None:
    session = plane.session("ws", back_kind)
    rng = random.Random(size)
    sent = []
    for request in range(12):
        message = call(rng.randrange(size), request)
        cuts = [rng.choice([0, 0, 1, 2, rng.randrange(1 + len(message) // 3)]) for _ in range(rng.randrange(1, 9))]
        octets = bytearray()
        for frame in session.client.fragments(message, cuts):
            octets += frame
            if rng.random() < 0.4:
                octets += session.client.frame(b"p" * rng.randrange(126), PING)
        if rng.random() < 0.5:
            octets += session.client.frame(call(5, 10_000 + request))
            sent += [message, call(5, 10_000 + request)]
        else:
            sent.append(message)
        writer = pour(session.client, bytes(octets))
        while len(sent):
            assert session.router.recv() == sent.pop(0)
        writer.join()
    plane.finish(session)


def test_pings_inside_a_message_are_answered(plane: Plane) -> None:
    session = plane.session("ws", "rs")
    first, last = session.client.fragments(call(10), [4])
    session.client.write(first + session.client.frame(b"are you there", PING))
    assert session.client.recv_control() == (PONG, b"are you there")
    session.client.write(last)
    assert session.router.recv() == call(10)
    plane.finish(session)


@pytest.mark.parametrize("side", ["client", "router"])
@kinds
def test_pings_are_answered_and_not_relayed(plane: Plane, kind: str, side: str) -> None:
    session = plane.session(kind, kind)
    near, far = (session.client, session.router) if side == "client" else (session.router, session.client)
    message = call() if side == "client" else result()
    near.write(near.frame(b"1", PING) + near.frame(message) + near.frame(b"", PING) + near.frame(b"odd", PONG))
    assert near.recv_control() == (PONG, b"1")
    assert near.recv_control() == (PONG, b"")
    assert far.recv() == message
    assert far.controls == []
    plane.finish(session)


@pytest.mark.parametrize("front_kind", ["rs", "ws"])
def test_auto_fragment(plane: Plane, front_kind: str) -> None:
    session = plane.session(front_kind, "ws", back={"auto_fragment": 100})
    for size in (1, 100, 101, 250, 100_000):
        message = call_of(max(size, 20))
        session.client.send(message)
        got, pieces, opcode = b"", 0, BINARY
        while True:
            op, fin, payload = session.router.next_frame()
            assert op == opcode
            assert len(payload) <= 100
            got, pieces, opcode = got + payload, pieces + 1, CONT
            if fin:
                break
        assert got == message
        assert pieces == -(-len(message) // 100)
    plane.finish(session)


@pytest.mark.parametrize("serializer", [R.SER_JSON, R.SER_CBOR])
def test_opcodes_follow_the_serializer(plane: Plane, serializer: int) -> None:
    client, front = plane.join(plane.listen("ws"), serializer)
    router = plane.router("ws")
    token = plane.dial(front, router, serializer=serializer, hello=b"")
    end = plane.accept(router)
    end.read_head()
    end.write(b"HTTP/1.1 101 x\r\n\r\n")
    back = plane.wait(R.EV_HEAD, owner=token).conn
    plane.relay.upgrade(back, b"", serializer)
    plane.relay.link(front, back, b"")
    message = json.dumps([48, 1, {}, "grüß"]).encode() if serializer == R.SER_JSON else call()
    opcode = TEXT if serializer == R.SER_JSON else BINARY
    client.send(message, opcode)
    assert end.next_frame() == (opcode, True, message)
    plane.relay.send(front, message)
    assert client.next_frame() == (opcode, True, message)


@pytest.mark.parametrize("kind", ["rs", "ws"])
def test_echo(plane: Plane, kind: str) -> None:
    listener = plane.listen(kind, any_opcode=True)
    client, conn = plane.join(listener, 0 if kind == "ws" else R.SER_CBOR)
    plane.relay.link_self(conn)
    # no gate: neither is this WAMP
    for size in (0, 1, 125, 126, 65536, 300_000, 5_000_000):
        message = os.urandom(size)
        writer = pour(client, client.frame(message))
        assert digest(client.recv()) == digest(message)
        writer.join()
    plane.settle(links=1)
    client.write(client.frame(b"?", PING))
    assert client.recv_control() == (PONG, b"?")
    client.close()
    assert plane.closed(conn).reason == "CLOSED_PEER"


def test_echo_keeps_opcodes(plane: Plane) -> None:
    client, conn = plane.join(plane.listen("ws", any_opcode=True), 0)
    plane.relay.link_self(conn)
    client.write(client.frame(b"t", TEXT) + client.frame(b"b", BINARY))
    assert client.next_frame() == (TEXT, True, b"t")
    assert client.next_frame() == (BINARY, True, b"b")


def test_what_waited_before_the_link_is_relayed_after_it(plane: Plane) -> None:
    """A client may send more before it has its WELCOME, a router right behind its own."""
    listener, router = plane.listen("rs"), plane.router("rs")
    client, front = plane.join(listener)
    early = [call(i * 100, i) for i in range(50)]
    client.write(client.frame(HELLO) + b"".join(map(client.frame, early)))
    plane.wait(R.EV_MESSAGE, conn=front)
    token = plane.dial(front, router)
    end = plane.accept(router)
    end.write(b"\x7f\xf3\0\0" + end.frame(WELCOME) + b"".join(end.frame(result(i, i)) for i in range(50)))
    back = plane.wait(R.EV_MESSAGE, owner=token).conn
    plane.barrier()
    assert [event for event in plane.fresh if event.conn] == []
    plane.relay.link(front, back, WELCOME)
    assert client.recv() == WELCOME
    assert [client.recv() for _ in range(50)] == [result(i, i) for i in range(50)]
    end.read(4)
    assert end.recv() == HELLO
    assert [end.recv() for _ in early] == early


def relink(plane: Plane, session: Session, back_kind: str) -> Session:
    """Move a client from its router to a new one."""
    plane.relay.unlink(session.front)
    plane.relay.close(session.back)
    router = plane.router(back_kind)
    end, back, token = plane.back(session.front, router)
    plane.relay.link(session.front, back, b"")
    return Session(session.client, end, session.front, back, token)


@pairs
def test_unlink_and_link_again(plane: Plane, front_kind: str, back_kind: str) -> None:
    session = plane.session(front_kind, back_kind, back={"close_ms": 30})
    session.client.send(call(10, 1))
    assert session.router.recv() == call(10, 1)
    old = session
    plane.relay.unlink(session.front)
    plane.settle(links=0)
    session.client.send(call(100_000, 2))  # waits for whoever comes next
    old.router.send(result(9))  # nobody's any more
    session = relink(plane, session, "ws" if back_kind == "rs" else "rs")
    assert session.router.recv() == call(100_000, 2)
    session.router.send(result(5, 2))
    assert session.client.recv() == result(5, 2)
    old.router.read_end()
    old.router.close()
    assert plane.closed(old.back).reason == "CLOSED_LOCAL"
    plane.settle(links=1)
    plane.finish(session)


def test_a_message_cut_by_unlink_stays_whole(plane: Plane) -> None:
    session = plane.session("ws", "rs")
    message = call(60_000)
    octets = b"".join(session.client.fragments(message, [1000, 0, 30_000]))
    session.client.write(octets[:40_000])
    plane.barrier()
    session = relink(plane, session, "rs")
    session.client.write(octets[40_000:])
    assert session.router.recv() == message
    plane.finish(session)


@pytest.mark.parametrize("side", ["client", "router"])
def test_control_messages_come_after_what_was_sent_before(plane: Plane, side: str) -> None:
    session = plane.session("rs", "ws")
    near, far, conn = session.client, session.router, session.front
    make: Callable[..., bytes] = call
    if side == "router":
        near, far, conn, make = session.router, session.client, session.back, result
    before = [make(i, i) for i in range(100)]
    near.write(b"".join(map(near.frame, before)) + near.frame(GOODBYE) + near.frame(make(1, 999)))
    event = plane.wait(R.EV_CONTROL, conn=conn)
    assert (event.arg, event.data) == (6, GOODBYE)
    assert [far.recv() for _ in before] == before
    # that side is paused, the other goes on
    other = result(3, 77) if side == "client" else call(3, 77)
    far.send(other)
    assert near.recv() == other
    plane.relay.next(conn)
    assert far.recv() == make(1, 999)
    plane.finish(session)


@pytest.mark.parametrize("message", [HELLO, b"", b"\xff", WELCOME + b"\0", cbor2.dumps([5, "", {}])])
def test_violations_are_not_relayed_and_stop_reading(plane: Plane, message: bytes) -> None:
    session = plane.session("ws", "rs")
    for octets in (call(1, 1), message, call(1, 2)):
        session.client.send(octets)
    event = plane.wait(R.EV_VIOLATION, conn=session.front)
    assert event.arg < 0
    assert session.router.recv() == call(1, 1)
    plane.relay.next(session.front)  # in vain
    plane.relay.send(session.front, b"\x83abort")
    assert session.client.recv() == b"\x83abort"
    plane.relay.close(session.front, 1002, b"no")
    assert session.client.recv_control() == (CLOSE, b"\x03\xeano")
    session.client.write(session.client.frame(b"\x03\xea", CLOSE))
    session.client.read_end()
    session.client.close()
    assert plane.closed(session.front).reason == "CLOSED_LOCAL"
    plane.relay.close(session.back)
    assert session.router.read_end() == "eof"


def test_a_message_over_the_routers_limit_is_refused_and_the_session_lives_on(plane: Plane) -> None:
    client, front = plane.join(plane.listen("rs"))
    router = plane.router("rs")
    token = plane.dial(front, router)
    end, back = plane.accept_join(router, token, size=0)
    plane.relay.link(front, back, b"")
    client.write(client.frame(call_of(512)) + client.frame(call_of(513)))
    assert plane.wait(R.EV_REFUSED, conn=front).arg == R.ST_TOO_BIG
    assert end.recv() == call_of(512)
    client.send(call(1, 3))
    plane.barrier()
    assert not end.buffer, "read from a client whose message was refused before next()"
    plane.relay.next(front)
    assert end.recv() == call(1, 3)


def test_many_sessions_on_two_threads(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(2)
    listener, router = plane.listen("ws", backlog=500), plane.router("rs", backlog=500)
    sessions = [plane.session(listener=listener, router=router) for _ in range(60)]
    assert all(plane.relay.stats(i)["connections"] for i in range(2))
    for number, session in enumerate(sessions):
        session.client.send(call(number * 50, number))
        session.router.send(result(number * 50, number))
    for number, session in enumerate(sessions):
        assert session.router.recv() == call(number * 50, number)
        assert session.client.recv() == result(number * 50, number)
    for session in sessions:
        plane.finish(session)
