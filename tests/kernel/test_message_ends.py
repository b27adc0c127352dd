"""What happens around messages that are not relayed as they are: ends, limits, and peers that do not read."""

from __future__ import annotations

import random
import socket
import struct
import time
from typing import Any

import cbor2
import msgpack
import pytest

from kernel.harness import BINARY, CLOSE, GOODBYE, HELLO, RSV1, WELCOME, End, Plane, call, result
from kernel.test_messages import FRONT_SID, OTHER_SID, Deflate, batch, event, joined, on_join, unbatch
from proxy import _relay as R

UNTOLD = msgpack.packb([48, 7, {}, "com.x", [float("nan")]])  # nothing that JSON can express
CLOSED_NORMALLY = b"\x03\xe8"


def write_and_close(end: End, *messages: bytes) -> None:
    """Send messages and end the connection in order, all in one go."""
    octets = b"".join(map(end.frame, messages))
    if end.kind == "ws":
        octets += end.frame(CLOSED_NORMALLY, CLOSE)
    end.write(octets)
    end.close()


# --- a refused message, and an end behind it ---


@pytest.mark.parametrize("kind", ["rs", "ws"])
def test_what_a_client_said_before_it_left_counts_behind_a_refused_message(plane: Plane, kind: str) -> None:
    """The message that is refused must not take those behind it along, GOODBYE least of all."""
    _, router, front, _ = ends = joined(plane, front_serializer=R.SER_MSGPACK, back_serializer=R.SER_JSON, kind=kind)
    goodbye = msgpack.packb([6, {}, "wamp.close.normal"])
    write_and_close(ends[0], UNTOLD, msgpack.packb([48, 8, {}, "com.x"]), goodbye)
    plane.wait(R.EV_REFUSED, conn=front)
    time.sleep(0.05)  # let the end arrive while nothing is read
    plane.relay.next(front)
    assert router.recv() == b'[48,8,{},"com.x"]'
    assert plane.wait(R.EV_CONTROL, conn=front).data == goodbye
    plane.relay.next(front)
    assert plane.closed(front).reason == "CLOSED_PEER"


@pytest.mark.parametrize("packed", [False, True])
def test_the_rest_of_a_batch_counts_behind_a_refused_message(plane: Plane, packed: bool) -> None:
    bits = {"inflate_bits": 15, "deflate_bits": 15} if packed else {}
    client, router, front, _ = joined(
        plane, front_serializer=R.SER_MSGPACK, back_serializer=R.SER_JSON, batched=True, **bits
    )
    goodbye = msgpack.packb([6, {}, "wamp.close.normal"])
    data = batch(UNTOLD, msgpack.packb([48, 8, {}, "com.x"]), goodbye)
    client.write(
        (client.frame(Deflate().pack(data), BINARY | RSV1) if packed else client.frame(data))
        + client.frame(CLOSED_NORMALLY, CLOSE)
    )
    client.close()
    plane.wait(R.EV_REFUSED, conn=front)
    time.sleep(0.05)
    plane.relay.next(front)
    assert router.recv() == b'[48,8,{},"com.x"]'
    assert plane.wait(R.EV_CONTROL, conn=front).data == goodbye
    plane.relay.next(front)
    plane.closed(front)


def test_what_a_router_said_before_it_left_counts_behind_a_refused_message(plane: Plane) -> None:
    """Its GOODBYE is the true reason of the end, not the lost connection."""
    client, router, _, back = joined(plane, kind="rs", size=0)
    write_and_close(router, result(5000), result(3), GOODBYE)
    plane.wait(R.EV_REFUSED, conn=back)
    time.sleep(0.05)
    plane.relay.next(back)
    assert client.recv() == result(3)
    assert plane.wait(R.EV_CONTROL, conn=back).data == GOODBYE
    plane.relay.next(back)
    assert plane.closed(back).reason == "CLOSED_PEER"


def test_a_client_that_is_cut_off_behind_a_refused_message_is_gone_at_once(plane: Plane) -> None:
    client, _, front, _ = joined(plane, front_serializer=R.SER_MSGPACK, back_serializer=R.SER_JSON)
    client.send(UNTOLD)
    plane.wait(R.EV_REFUSED, conn=front)
    client.reset()
    assert plane.closed(front).reason == "CLOSED_RESET"


# --- answers of the control plane that nobody reads ---


def squeeze(end: End) -> None:
    """Let the kernel hold little for a peer that does not read."""
    end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)


@pytest.mark.parametrize("to_front", [True, False])
def test_answers_to_refused_messages_do_not_pile_up(plane: Plane, to_front: bool) -> None:
    """Who sends what is refused, again and again, and does not read the answers, is not read from any more."""
    limits = {"high_water": 100_000, "low_water": 20_000, "stall_ms": 0}
    client, front = plane.join(plane.listen("rs", **limits), R.SER_MSGPACK)
    squeeze(client)
    router = plane.router("rs")
    token = plane.dial(front, router, serializer=R.SER_JSON, **limits)
    far, back = plane.accept_join(router, token, welcome=b"[2,1234,{}]")
    squeeze(far)
    plane.relay.link(front, back, b"")
    client.write(client.frame(UNTOLD) * 2000)
    receiver, reader = (front, client) if to_front else (back, far)
    answer = b"\x93" + b"e" * 50_000
    answered = 0
    while answered < 1000:
        plane.pump(0.3)
        if not any(event.kind == R.EV_REFUSED for event in plane.fresh):
            break
        plane.wait(R.EV_REFUSED, conn=front)
        answered += 1
        plane.relay.send(receiver, answer)
        plane.relay.next(front)
    assert answered < 1000
    assert plane.stats("buffered_octets") < 1_000_000
    for _ in range(answered):  # once they are read it goes on
        assert reader.recv() == answer
    plane.wait(R.EV_REFUSED, conn=front)


# --- limits of a client ---


@pytest.mark.parametrize("serializer", [R.SER_CBOR, R.SER_JSON])
def test_a_batch_is_no_longer_than_the_client_takes(plane: Plane, serializer: int) -> None:
    client, front = plane.join(plane.listen("ws", max_out=1000), serializer, batched=True)
    router = plane.router("rs")
    token = plane.dial(front, router)
    far, back = plane.accept_join(router, token)
    plane.relay.link(front, back, b"")
    count = 20
    far.write(b"".join(far.frame(cbor2.dumps([50, i, {}, ["r" * 300]])) for i in range(1, count + 1)))
    numbers: list[int] = []
    while len(numbers) < count:
        data = client.recv()
        assert len(data) <= 1000
        if serializer == R.SER_CBOR:
            numbers += [cbor2.loads(message)[1] for message in unbatch(data)]
        else:
            numbers += [int(message.split(b",")[1]) for message in data.split(b"\x1e")[:-1]]
    assert numbers == list(range(1, count + 1))


def test_a_message_that_is_over_the_limit_only_as_a_batch_is_refused(plane: Plane) -> None:
    listener = plane.listen("ws", max_out=1000)
    client, front = plane.join(listener, batched=True)
    router = plane.router("rs")
    token = plane.dial(front, router)
    far, back = plane.accept_join(router, token)
    plane.relay.link(front, back, b"")
    overhead = len(result(900)) - 900
    far.write(far.frame(result(998 - overhead)) + far.frame(result(996 - overhead)))
    assert plane.wait(R.EV_REFUSED, conn=back).arg == R.ST_TOO_BIG
    plane.relay.next(back)
    assert unbatch(client.recv()) == [result(996 - overhead)]


def test_what_does_not_get_shorter_is_sent_as_it_is(plane: Plane) -> None:
    """A message at the client's limit that compression would make longer."""
    listener = plane.listen("ws", max_out=1000)
    client, front = plane.join(listener, inflate_bits=15, deflate_bits=15)
    router = plane.router("rs")
    token = plane.dial(front, router)
    far, back = plane.accept_join(router, token)
    plane.relay.link(front, back, b"")
    peer, noise = Deflate(), random.Random(5)
    for number in range(3):
        payload = noise.randbytes(1000)
        message = cbor2.dumps([50, number, {}, [payload]])
        message = cbor2.dumps([50, number, {}, [payload[: 2000 - len(message)]]])
        assert len(message) == 1000
        far.send(message)
        opcode, data = client.recv_message()
        assert (peer.unpack(data) if opcode & RSV1 else data) == message
        far.send(result(500, number))
        opcode, data = client.recv_message()
        assert peer.unpack(data) == result(500, number)


# --- a message that waits for a session, and an end ---


def waiting(plane: Plane, **options: Any) -> tuple[End, End, int, int]:
    """A linked pair whose router has sent an on_join event of a session whose WELCOME is awaited."""
    realm = plane.relay.add_realm()
    client, router, front, back = joined(plane, dial={"realm": realm, "front_sid": FRONT_SID}, **options)
    _, other = plane.join(plane.listen("rs"))
    second = plane.router("rs")
    plane.dial(other, second, realm=realm, front_sid=OTHER_SID)
    plane.accept(second)
    return client, router, front, back


def test_an_end_of_the_router_comes_after_what_waited(plane: Plane) -> None:
    client, router, _, back = waiting(plane)
    write_and_close(router, on_join(4321), event(1), GOODBYE)
    assert client.recv() == on_join(4321)
    assert client.recv() == event(1)
    assert plane.wait(R.EV_CONTROL, conn=back).data == GOODBYE
    plane.relay.next(back)
    plane.closed(back)


def test_what_waited_is_delivered_before_an_unlink(plane: Plane) -> None:
    client, router, front, back = waiting(plane, batched=True)
    router.send(on_join(4321))
    plane.settle(waits=1)
    plane.relay.unlink(front)
    plane.relay.send(front, GOODBYE)
    assert unbatch(client.recv()) == [on_join(4321)]
    assert unbatch(client.recv()) == [GOODBYE]
    plane.relay.link(front, back, WELCOME)
    assert unbatch(client.recv()) == [WELCOME]
    router.send(event(7))
    assert unbatch(client.recv()) == [event(7)]


@pytest.mark.parametrize("who", ["client", "router", "close front", "close back", "abort front", "abort back"])
def test_a_message_that_waits_is_let_go_with_its_session(plane: Plane, who: str) -> None:
    client, router, front, back = waiting(plane)
    router.send(on_join(4321))
    plane.settle(waits=1)
    if who in ("client", "router"):
        (client if who == "client" else router).reset()
    else:
        verb, side = who.split()
        getattr(plane.relay, verb)(front if side == "front" else back)
    plane.closed(front if who in ("client", "close front", "abort front") else back)


def test_a_message_that_waited_and_is_refused_is_told_once(plane: Plane) -> None:
    client, router, _, back = waiting(plane, kind="rs", size=0)
    message = cbor2.dumps([36, 5, 9, {"topic": "wamp.session.on_join"}, [{"session": 4321, "x": "y" * 600}]])
    router.write(router.frame(message) + router.frame(event(7)))
    assert plane.wait(R.EV_REFUSED, conn=back).arg == R.ST_TOO_BIG
    plane.relay.next(back)
    assert client.recv() == event(7)
    assert struct.unpack_from("!IQB", next(e for e in plane.log if e.kind == R.EV_REFUSED).data)[0] == 36
    assert sum(e.kind == R.EV_REFUSED for e in plane.log) == 1
    client.send(call(4, 4))
    assert router.recv() == call(4, 4)


# --- closing in the middle of a batch ---


@pytest.mark.parametrize("packed", [False, True])
def test_the_rest_of_a_batch_is_dropped_when_the_connection_closes(plane: Plane, packed: bool) -> None:
    """The close handshake goes on behind it: the end does not wait for a deadline."""
    bits = {"inflate_bits": 15, "deflate_bits": 15} if packed else {}
    client, front = plane.join(plane.listen("ws", close_ms=3_600_000), batched=True, **bits)
    data, peer = batch(HELLO, call(5, 5), call(6, 6)), Deflate()
    for _ in range(2):
        client.send(peer.pack(data) if packed else data, BINARY | RSV1 if packed else BINARY)
    plane.wait(R.EV_MESSAGE, conn=front)
    plane.relay.close(front, 1000)
    assert client.recv_control()[0] == CLOSE
    client.send(CLOSED_NORMALLY, CLOSE)
    assert client.read_end() == "eof"
    client.close()
    assert plane.closed(front).reason == "CLOSED_LOCAL"


@pytest.mark.parametrize("packed", [False, True])
def test_a_second_session_begins_in_the_batch_that_ends_the_first(plane: Plane, packed: bool) -> None:
    bits = {"inflate_bits": 15, "deflate_bits": 15} if packed else {}
    client, router, front, back = joined(plane, batched=True, **bits)
    data = batch(call(1, 1), GOODBYE, HELLO, call(2, 2))
    client.send(Deflate().pack(data) if packed else data, BINARY | RSV1 if packed else BINARY)
    assert router.recv() == call(1, 1)
    assert plane.wait(R.EV_CONTROL, conn=front).data == GOODBYE
    plane.relay.unlink(front)
    plane.relay.close(back)
    assert router.read_end() == "eof"
    plane.relay.next(front)
    assert plane.wait(R.EV_MESSAGE, conn=front).data == HELLO
    second, again, _ = plane.back(front, plane.router("rs"))
    plane.relay.link(front, again, b"")
    assert second.recv() == call(2, 2)


@pytest.mark.skipif(not R.probe_fail_allocation(-1), reason=f"a {R.build_mode} build cannot fail allocations")
@pytest.mark.parametrize("n", range(3))
def test_a_message_that_waited_and_cannot_be_told_of_ends_its_connection(plane: Plane, n: int) -> None:
    """No memory for EV_REFUSED: nobody will ever answer it, so the connection must not stay."""
    client, router, _, back = waiting(plane, kind="rs", size=0)
    router.send(cbor2.dumps([36, 5, 9, {"topic": "wamp.session.on_join"}, [{"session": 4321, "x": "y" * 600}]]))
    plane.settle(waits=1)
    R.probe_fail_allocation(n)
    try:
        while not plane.fresh:
            plane.pump(0.1)
    finally:
        R.probe_fail_allocation(-1)
    found = plane.fresh[0]
    assert found.conn == back
    if found.kind == R.EV_CLOSED:
        assert found.reason == "CLOSED_NOMEM"
        return
    plane.relay.next(back)
    router.send(event(7))
    assert client.recv() == event(7)
