"""What once went wrong, or nearly did: each test says what a user would have seen.

Unix sockets are used where somebody must not read: their buffers are small and never grow.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest

from kernel.harness import (
    CLOSE,
    CONT,
    GOODBYE,
    HELLO,
    PING,
    PONG,
    REQUEST,
    WELCOME,
    End,
    Gone,
    Listener,
    Plane,
    Router,
    Session,
    call,
    call_of,
    result,
)  # fmt: skip
from proxy import _relay as R

kinds = pytest.mark.parametrize("kind", ["rs", "ws"])
families = pytest.mark.parametrize("family", ["tcp", "unix"])
LIMIT = 512  # octets: the least that a RawSocket peer can announce (size=0)
JOIN_LIMIT = 131_072  # octets of a client's message before it has joined


def listen(plane: Plane, kind: str, family: str, tmp_path: Path, **params: int) -> Listener:
    return plane.listen(kind, path=str(tmp_path / "front") if family == "unix" else None, **params)


def make_router(plane: Plane, kind: str, family: str, tmp_path: Path) -> Router:
    return plane.router(kind, path=str(tmp_path / "back") if family == "unix" else None)


def join_and_ask(plane: Plane, listener: Listener, **options: int) -> tuple[End, int]:
    """A client whose HELLO is with the control plane."""
    client, conn = plane.join(listener, **options)
    client.send(HELLO)
    assert plane.wait(R.EV_MESSAGE, conn=conn).data == HELLO
    return client, conn


def write_what_fits(end: End, octets: bytes) -> int:
    """How many of ``octets`` went out without waiting; also when the other side ends meanwhile."""
    sent = 0
    end.sock.settimeout(0)
    try:
        while sent < len(octets):
            sent += end.sock.send(octets[sent : sent + 65536])
    except OSError:
        pass
    return sent


def let_pass(plane: Plane, milliseconds: int) -> None:
    """Wait by the clock of the data plane: a deadline of its own takes at least that long."""
    _, conn = plane.join(plane.listen("rs", hello_ms=milliseconds))
    assert plane.closed(conn).reason == "CLOSED_DEADLINE"


def answer_pings(client: End, count: int) -> None:
    """Answer the next ``count`` pings."""
    for _ in range(count):
        opcode, body = client.recv_control()
        assert opcode == PING
        client.write(client.frame(body, PONG))


# --- half-closed clients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["the client ends first", "the session ends first", "the router ends first"])
def test_a_long_answer_outlives_the_clients_side(plane: Plane, case: str) -> None:
    """A client that has nothing more to say (netcat, a script) still gets all of a long result."""
    session = plane.session("rs", front={"high_water": 64_000_000, "close_ms": 20_000, "stall_ms": 0})
    answer = result(8_000_000)
    session.router.send(answer)
    plane.settle(messages_to_front=1)
    if case == "the session ends first":
        plane.relay.close(session.front)
        plane.barrier()
    elif case == "the router ends first":
        session.router.close()
        plane.closed(session.back)
    session.client.half_close()
    plane.barrier()
    assert session.client.recv() == answer
    assert session.client.read_end() == "eof"
    reason = "CLOSED_LOCAL" if case == "the session ends first" else "CLOSED_PEER"
    assert plane.closed(session.front).reason == reason


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("moment", ["with the request", "before the answer"])
@families
def test_an_http_client_that_ends_its_side_is_answered(
    plane: Plane, tmp_path: Path, family: str, moment: str, size: int
) -> None:
    """``printf 'GET ...' | nc -N`` shows the answer instead of nothing."""
    client = plane.connect(listen(plane, "ws", family, tmp_path, close_ms=20_000, stall_ms=0))
    client.write(REQUEST)
    if moment == "with the request":
        client.half_close()
    conn = plane.wait(R.EV_HEAD).conn
    if moment == "before the answer":
        client.half_close()
    plane.barrier()
    assert conn not in plane.ended
    plane.relay.reply(conn, b"HTTP/1.1 404 Not Found\r\n\r\n" + b"b" * size)
    assert client.read_head() == b"HTTP/1.1 404 Not Found\r\n\r\n"
    assert client.read(size) == b"b" * size
    assert client.read_end() == "eof"
    assert plane.closed(conn).reason == "CLOSED_LOCAL"


@families
def test_an_http_client_with_a_long_head_that_ends_its_side_is_answered(
    plane: Plane, tmp_path: Path, family: str
) -> None:
    """It reads "431", not an empty answer."""
    client = plane.connect(listen(plane, "ws", family, tmp_path, max_head=200))
    client.write(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50)
    client.half_close()
    event = plane.wait(R.EV_VIOLATION)
    assert event.arg == R.ST_TOO_BIG
    plane.barrier()
    plane.relay.reply(event.conn, b"HTTP/1.1 431 x\r\n\r\n")
    assert client.read_head() == b"HTTP/1.1 431 x\r\n\r\n"
    assert client.read_end() == "eof"


# --- a router's last words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("talk", [False, True], ids=["silent client", "talking client"])
@families
@kinds
def test_goodbye_between_welcome_and_link(plane: Plane, tmp_path: Path, kind: str, family: str, talk: bool) -> None:
    """A router that shuts down just then: its reason reaches the client, not merely "connection lost"."""
    client, front = join_and_ask(plane, plane.listen("rs"))
    router, back, _ = plane.back(front, make_router(plane, kind, family, tmp_path))
    router.write(router.frame(result()) + router.frame(GOODBYE))
    router.close()
    if talk:
        client.write(client.frame(call(100)) * 500)
    plane.barrier()
    assert back not in plane.ended
    plane.relay.link(front, back, WELCOME)
    assert [client.recv(), client.recv()] == [WELCOME, result()]
    # wait() refuses any event of a connection that has had its EV_CLOSED
    event = plane.wait(R.EV_CONTROL, conn=back)
    assert (event.arg, event.data) == (6, GOODBYE)
    plane.relay.close(back)
    plane.closed(back)


@families
def test_welcome_goodbye_and_the_end_at_once(plane: Plane, tmp_path: Path, family: str) -> None:
    """As above, with all of it in one segment."""
    client, front = join_and_ask(plane, plane.listen("rs"))
    router = make_router(plane, "rs", family, tmp_path)
    token = plane.dial(front, router)
    end = plane.accept(router)
    end.read(4)
    end.write(b"\x7f\xf3\0\0")
    assert end.recv() == HELLO
    end.write(end.frame(WELCOME) + end.frame(GOODBYE))
    end.close()
    back = plane.wait(R.EV_MESSAGE, owner=token).conn
    plane.barrier()
    plane.relay.link(front, back, WELCOME)
    assert plane.wait(R.EV_CONTROL, conn=back).data == GOODBYE
    assert client.recv() == WELCOME
    plane.relay.close(back)
    plane.closed(back)


@families
def test_goodbye_of_a_router_that_reads_no_more(plane: Plane, tmp_path: Path, family: str) -> None:
    """The router is behind, says GOODBYE and ends with calls unread, which is a reset: the reason is heard first."""
    listener, router = plane.listen("rs"), make_router(plane, "rs", family, tmp_path)
    for _ in range(5):
        session = plane.session(listener=listener, router=router, back={"high_water": 300_000, "low_water": 1000})
        octets = session.client.frame(call(60_000)) * 1000
        pressed, sent = plane.stats("presses"), 0
        while plane.stats("presses") == pressed:
            sent += write_what_fits(session.client, octets[sent : sent + 1_000_000])
            plane.pump(0.001)
        session.router.send(GOODBYE)
        session.router.close()
        assert plane.wait(R.EV_CONTROL, conn=session.back).data == GOODBYE
        plane.relay.abort(session.back)
        plane.closed(session.back)
        session.client.reset()
        plane.relay.abort(session.front)
        plane.closed(session.front)


@families
def test_goodbye_of_a_router_while_the_client_talks(plane: Plane, tmp_path: Path, family: str) -> None:
    """Calls are on their way when the router says GOODBYE and ends: the failing send does not hide the reason."""
    listener, router = plane.listen("rs"), make_router(plane, "rs", family, tmp_path)
    for _ in range(20):
        session = plane.session(listener=listener, router=router)
        octets = session.client.frame(call(100)) * 3000
        write_what_fits(session.client, octets)
        session.router.send(GOODBYE)
        session.router.close()
        write_what_fits(session.client, octets)
        assert plane.wait(R.EV_CONTROL, conn=session.back).data == GOODBYE
        plane.relay.abort(session.back)
        plane.closed(session.back)
        session.client.reset()
        plane.relay.abort(session.front)
        plane.closed(session.front)


# --- pings ------------------------------------------------------------------------------------------------------------

PINGS = {"ping_interval_ms": 20, "ping_timeout_ms": 300}


def test_a_client_that_answers_pings_lives_until_it_stops(plane: Plane) -> None:
    """An idle client stays connected for longer than auto_ping_timeout, and is cut off when it answers no more."""
    client, conn = plane.join(plane.listen("ws", **PINGS, hello_ms=0))
    answer_pings(client, 20)
    plane.barrier()
    assert conn not in plane.ended
    assert plane.closed(conn).reason == "CLOSED_PING"


def test_a_slow_login_is_not_a_missing_pong(plane: Plane) -> None:
    """A client is not cut off because its authenticator took longer than auto_ping_timeout."""
    client, conn = join_and_ask(plane, plane.listen("ws", **PINGS, hello_ms=0))
    let_pass(plane, 700)
    assert conn not in plane.ended
    plane.relay.next(conn)
    answer_pings(client, 3)
    client.send(HELLO)
    assert plane.wait(R.EV_MESSAGE, conn=conn).data == HELLO


def test_a_slow_router_is_not_a_missing_pong(plane: Plane, tmp_path: Path) -> None:
    """A client is not cut off because the router did not read for longer than auto_ping_timeout."""
    session = plane.session(
        listener=plane.listen("ws", path=str(tmp_path / "front"), **PINGS),
        router=plane.router("rs", path=str(tmp_path / "back")),
        back={"high_water": 100_000, "low_water": 1000, "stall_ms": 0},
    )
    client = session.client
    messages = [call(60_000, i) for i in range(50)]

    def talk() -> None:
        client.write(b"".join(map(client.frame, messages)))
        answer_pings(client, 3)

    talker = threading.Thread(target=talk)
    talker.start()
    while not plane.stats("presses"):
        plane.pump(0.002)
    let_pass(plane, 700)
    assert session.front not in plane.ended
    assert [session.router.recv() for _ in messages] == messages
    talker.join()
    plane.barrier()
    assert session.front not in plane.ended


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_client_that_asks_and_does_not_read_is_not_heard(plane: Plane, tmp_path: Path) -> None:
    """Answers to a client before it has joined are bounded by what it reads; when it reads, it goes on."""
    listener = plane.listen("rs", path=str(tmp_path / "front"), high_water=20_000, low_water=1000, stall_ms=0)
    client, conn = join_and_ask(plane, listener)
    answer = cbor2.dumps([4, "ticket", {"x": "y" * 2_000_000}])
    plane.relay.send(conn, answer)
    plane.relay.send(conn, answer)
    plane.relay.next(conn)
    client.send(HELLO)
    plane.barrier()
    assert [event.kind for event in plane.log if event.conn == conn] == [R.EV_OPEN, R.EV_MESSAGE]
    assert [client.recv(), client.recv()] == [answer, answer]
    assert plane.wait(R.EV_MESSAGE, conn=conn).data == HELLO


def small_session(plane: Plane, side: str) -> Session:
    """A linked session whose client or router announced LIMIT."""
    client, front = join_and_ask(plane, plane.listen("rs"), size=0 if side == "front" else 15)
    router = plane.router("rs")
    token = plane.dial(front, router)
    end, back = plane.accept_join(router, token, size=0 if side == "back" else 15)
    plane.relay.link(front, back, WELCOME)
    assert client.recv() == WELCOME
    return Session(client, end, front, back, token)


def check_too_big(plane: Plane, end: End, conn: int) -> None:
    """A connection ends with CLOSED_TOO_BIG, and not one octet more reaches its peer."""
    assert plane.closed(conn).reason == "CLOSED_TOO_BIG"
    with pytest.raises(Gone):
        end.read(1)


@pytest.mark.parametrize("side", ["front", "back"])
def test_send_keeps_to_the_announced_limit(plane: Plane, side: str) -> None:
    """A message over the peer's RawSocket limit ends the connection with a reason, the peer sees no broken frame."""
    session = small_session(plane, side)
    end, conn = (session.client, session.front) if side == "front" else (session.router, session.back)
    plane.relay.send(conn, call_of(LIMIT))
    assert end.recv() == call_of(LIMIT)
    plane.relay.send(conn, call_of(LIMIT + 1))
    check_too_big(plane, end, conn)


def test_send_keeps_to_the_announced_limit_before_the_join(plane: Plane) -> None:
    """As above, for a CHALLENGE or ABORT."""
    client, conn = join_and_ask(plane, plane.listen("rs"), size=0)
    plane.relay.send(conn, call_of(LIMIT))
    assert client.recv() == call_of(LIMIT)
    plane.relay.send(conn, call_of(LIMIT + 1))
    check_too_big(plane, client, conn)


def test_a_welcome_over_the_announced_limit(plane: Plane) -> None:
    """The client is not left with a session it never heard of: it ends, and so does the router's side."""
    client, front = join_and_ask(plane, plane.listen("rs"), size=0)
    router, back, _ = plane.back(front, plane.router("rs"))
    plane.relay.link(front, back, cbor2.dumps([2, 1234, {"x": "y" * LIMIT}]))
    check_too_big(plane, client, front)
    assert plane.closed(back).reason == "CLOSED_FRONT_GONE"
    assert router.read_end() in ("eof", "reset")


def test_a_hello_over_the_routers_announced_limit(plane: Plane) -> None:
    """That router is given up with a reason, and the next one can be tried."""
    _, front = join_and_ask(plane, plane.listen("rs"))
    router = plane.router("rs")
    token = plane.dial(front, router, hello=cbor2.dumps([1, "realm1", {"x": "y" * LIMIT}]))
    end = plane.accept(router)
    end.read(4)
    end.write(b"\x7f\x03\0\0")
    assert plane.wait(R.EV_CLOSED, owner=token).reason == "CLOSED_TOO_BIG"
    with pytest.raises(Gone):
        end.read(1)
    assert plane.back(front, plane.router("rs"))


@pytest.mark.parametrize("phase", ["join", "front", "back"])
def test_pings_over_the_announced_limit_are_not_answered(plane: Plane, phase: str) -> None:
    """A peer never gets a PONG that is longer than what it takes; shorter pings are answered as ever."""
    if phase == "join":
        end, _ = plane.join(plane.listen("rs"), size=0)
    else:
        session = small_session(plane, phase)
        end = session.client if phase == "front" else session.router
    for size in (LIMIT + 1, LIMIT, 100_000, 3):
        end.send(b"p" * size, PING)
    assert end.recv_control() == (PONG, b"p" * LIMIT)
    assert end.recv_control() == (PONG, b"ppp")


def hello_of(total: int) -> bytes:
    """A HELLO of ``total`` octets, more than 64 Ki."""
    rest = len(cbor2.dumps([1, "realm1", {"x": bytes(65_536)}])) - 65_536
    message = cbor2.dumps([1, "realm1", {"x": bytes(total - rest)}])
    assert len(message) == total
    return message


def write_or_gone(end: End, octets: bytes) -> None:
    """Write to somebody who may end before it has read all."""
    try:
        end.write(octets)
    except Gone:
        pass


@pytest.mark.parametrize(("kind", "max_message"), [("rs", 1 << 24), ("ws", 1 << 24), ("ws", 0)])
@pytest.mark.parametrize("count", [0, 1])
def test_a_stranger_cannot_send_long_messages(plane: Plane, kind: str, max_message: int, count: int) -> None:
    """Whatever max_message_size is: before it has joined, a client may send 128 KiB and no octet more at a time."""
    client, conn = plane.join(plane.listen(kind, max_message=max_message))
    for _ in range(count):
        client.send(hello_of(JOIN_LIMIT))
        assert plane.wait(R.EV_MESSAGE, conn=conn).data == hello_of(JOIN_LIMIT)
        plane.relay.next(conn)
    write_or_gone(client, client.frame(hello_of(JOIN_LIMIT + 1)))
    assert plane.closed(conn).reason == "CLOSED_TOO_BIG"
    assert len([event for event in plane.log if event.kind == R.EV_MESSAGE]) == count
    if kind == "ws":
        opcode, body = client.recv_control()
        assert (opcode, body[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
    assert client.read_end() in ("eof", "reset")


def test_a_stranger_cannot_send_long_messages_in_fragments(plane: Plane) -> None:
    """The limit is that of the whole message, and the client is told by the fragment that breaks it."""
    client, conn = plane.join(plane.listen("ws"))
    client.write(client.frame(bytes(100_000), fin=False))
    client.write(client.frame(bytes(JOIN_LIMIT - 100_000), CONT, fin=False))
    plane.barrier()
    assert conn not in plane.ended
    write_or_gone(client, client.frame(b"x", CONT, fin=False))
    assert plane.closed(conn).reason == "CLOSED_TOO_BIG"
    assert client.recv_control()[1][:2] == (1009).to_bytes(2, "big")


@pytest.mark.parametrize("early", [False, True], ids=["after the link", "before the link"])
@pytest.mark.parametrize(("kind", "max_message"), [("rs", 1 << 24), ("ws", 1 << 24), ("ws", 0)])
def test_a_member_can_send_long_messages(plane: Plane, kind: str, max_message: int, early: bool) -> None:
    """Once joined, max_message_size counts, also for a message that was sent before the WELCOME came."""
    client, front = join_and_ask(plane, plane.listen(kind, max_message=max_message))
    talker = threading.Thread(target=client.send, args=(call_of(1 << 20),))
    if early:
        talker.start()
    router, back, _ = plane.back(front, plane.router("rs"))
    plane.relay.link(front, back, WELCOME)
    assert client.recv() == WELCOME
    if not early:
        talker.start()
    assert router.recv() == call_of(1 << 20)
    router.send(result(1 << 20))
    assert client.recv() == result(1 << 20)
    talker.join()


# --- listeners and the relay itself -----------------------------------------------------------------------------------


def test_calls_out_of_order_are_refused(make_plane: Callable[..., Plane]) -> None:
    """A wrong order of calls is an exception, never a crash or a second close of a descriptor."""
    plane = make_plane(2)
    listener = plane.listen("rs")
    plane.relay.unlisten(listener.number)
    with pytest.raises(ValueError, match="no listener"):
        plane.relay.unlisten(listener.number)
    plane.wait(R.EV_LISTEN, owner=listener.number, arg=R.LISTEN_CLOSED)
    with pytest.raises(ValueError, match="no listener"):
        plane.relay.unlisten(listener.number)
    with pytest.raises(RuntimeError, match="runs already"):
        plane.relay.run(0)
    with pytest.raises(RuntimeError, match="still run"):
        plane.relay.release()
    plane.close()
    with pytest.raises(RuntimeError, match="released"):
        plane.relay.unlisten(listener.number)
    with socket.socket() as sock, pytest.raises(RuntimeError, match="released"):
        plane.relay.listen(sock.fileno(), 1, listener.params, 1)


def test_listeners_end_while_clients_arrive(make_plane: Callable[..., Plane]) -> None:
    """Transports are started and stopped under load for hours: every one ends, no connection stays."""
    plane = make_plane(4)
    for _ in range(60):
        listeners = [plane.listen("rs") for _ in range(4)]
        clients = [listener.connect() for listener in listeners for _ in range(5)]
        for listener in listeners:
            plane.relay.unlisten(listener.number)
        for listener in listeners:
            plane.wait(R.EV_LISTEN, owner=listener.number, arg=R.LISTEN_CLOSED)
        for client in clients:
            client.close()
    plane.settle(connections=0)
    client, _ = join_and_ask(plane, plane.listen("rs"))
