"""A fast sender and a slow reader: what is held stays bounded, and all of it arrives."""

from __future__ import annotations

import hashlib
import threading

import pytest

from kernel.harness import End, Plane, call, result
from proxy import _relay as R

HIGH = 100_000
SCRATCH = 131_072
OPTIONS = {"high_water": HIGH, "low_water": 30_000, "stall_ms": 0}
PAIRS = [(front, back) for front in ("rs", "ws") for back in ("rs", "ws")]


def bound(message: int) -> int:
    """Octets that one direction may hold: the queue goes over high water by what one turn brings at most; what is read
    and may not be passed on waits in a buffer that has grown to a message; and every buffer is a power of two that was
    copied from a smaller one."""
    return 4 * (HIGH + message + SCRATCH) + 2 * SCRATCH


class Flood:
    """Write many messages from a thread and remember a digest of them."""

    def __init__(self, end: End, messages: list[bytes]) -> None:
        self.count = len(messages)
        self.octets = b"".join(map(end.frame, messages))
        self.digest = hashlib.blake2b(b"".join(messages)).digest()
        self.thread = threading.Thread(target=end.write, args=(self.octets,))
        self.thread.start()

    def check(self, end: End) -> None:
        """Read all of it."""
        digest = hashlib.blake2b()
        for _ in range(self.count):
            digest.update(end.recv())
        assert digest.digest() == self.digest
        self.thread.join()


@pytest.mark.parametrize(("size", "count"), [(200, 60_000), (3000, 5000), (100_000, 150), (3_000_000, 8)])
@pytest.mark.parametrize(("front_kind", "back_kind"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_what_is_held_is_bounded(plane: Plane, front_kind: str, back_kind: str, size: int, count: int) -> None:
    session = plane.session(front_kind, back_kind, front=OPTIONS, back=OPTIONS)
    there = Flood(session.client, [call(size, i) for i in range(count)])
    back = Flood(session.router, [result(size, i) for i in range(count)])
    most, quiet, last = 0, 0, -1
    while quiet < 20:  # until nothing moves any more
        plane.pump(0.002)
        now = plane.stats("octets_to_back") + plane.stats("octets_to_front")
        quiet, last = (quiet + 1, now) if now == last else (0, now)
        most = max(most, plane.stats("buffered_octets"))
    assert plane.stats("presses") > 0
    assert most <= SCRATCH + 2 * bound(size + 30)
    # one direction after the other: neither waits for the other
    there.check(session.router)
    back.check(session.client)
    plane.settle(buffers=1)
    plane.finish(session)


def test_a_slow_reader_does_not_slow_its_neighbour(plane: Plane) -> None:
    listener, router = plane.listen("rs", **OPTIONS), plane.router("rs")
    slow = plane.session(listener=listener, router=router, back=OPTIONS)
    fast = plane.session(listener=listener, router=router, back=OPTIONS)
    flood = Flood(slow.client, [call(100_000, i) for i in range(200)])
    while not plane.stats("presses"):
        plane.pump(0.002)
    for i in range(50):
        fast.client.send(call(50_000, i))
        assert fast.router.recv() == call(50_000, i)
    flood.check(slow.router)
    plane.finish(slow)
    plane.finish(fast)


def test_the_other_direction_goes_on_under_pressure(plane: Plane) -> None:
    session = plane.session("ws", "rs", front=OPTIONS, back=OPTIONS)
    flood = Flood(session.client, [call(100_000, i) for i in range(200)])
    while not plane.stats("presses"):
        plane.pump(0.002)
    for i in range(50):
        session.router.send(result(1000, i))
        assert session.client.recv() == result(1000, i)
    flood.check(session.router)
    plane.finish(session)


@pytest.mark.parametrize("kind", ["rs", "ws"])
def test_echo_under_pressure(plane: Plane, kind: str) -> None:
    end, conn = plane.join(plane.listen(kind, any_opcode=True, **OPTIONS), 0 if kind == "ws" else R.SER_CBOR)
    plane.relay.link_self(conn)
    flood = Flood(end, [bytes([i % 256]) * (i * 37 % 70_000) for i in range(600)])
    flood.check(end)


def test_unlink_and_link_under_pressure(plane: Plane) -> None:
    """What was queued for the old router stays with it, what was not read goes to the new one; nothing is lost."""
    session = plane.session("rs", "rs", front=OPTIONS, back={**OPTIONS, "close_ms": 20_000})
    messages = [call(20_000, i) for i in range(1500)]
    flood = Flood(session.client, messages)
    while not plane.stats("presses"):
        plane.pump(0.002)
    plane.relay.unlink(session.front)
    plane.relay.close(session.back)
    end, back, _ = plane.back(session.front, plane.router("rs"), **OPTIONS)
    plane.relay.link(session.front, back, b"")
    got: list[list[bytes]] = [[], []]

    def read(index: int, router: End) -> None:
        while len(got[0]) + len(got[1]) < len(messages):
            try:
                got[index].append(router.recv())
            except Exception:
                return

    first = threading.Thread(target=read, args=(0, session.router))
    first.start()
    first.join()
    read(1, end)
    assert got[0]
    assert got[0] + got[1] == messages
    flood.thread.join()


def test_a_fragmented_flood_that_never_ends_is_bounded(plane: Plane) -> None:
    """Empty fragments and pings inside one message: octets that are spent are given back."""
    session = plane.session("ws", "rs", front={"max_message": 10_000})
    client = session.client
    client.write(client.frame(call(10)[:5], fin=False))
    filler = b"".join(client.frame(b"", 0, False) + client.frame(b"p", 10) for _ in range(5000))
    most = 0
    for _ in range(20):
        client.write(filler)
        plane.barrier()
        most = max(most, plane.stats("buffered_octets"))
    client.write(client.frame(call(10)[5:], 0))
    assert session.router.recv() == call(10)
    assert most < 4 * SCRATCH
    plane.finish(session)


def test_more_events_than_the_ring_takes(plane: Plane) -> None:
    """The control plane sleeps: accepting stops after a while, and nothing is lost when it wakes up."""
    listener = plane.listen("rs")
    gone = 0
    while True:
        end = plane.connect(listener)
        end.sock.settimeout(0.5)
        end.write(b"\x7f\xf3\0\0")
        try:
            end.read(4)
        except TimeoutError:
            break
        end.close()
        plane.ends.remove(end)
        gone += 1
        assert gone < 5000, "connections are accepted although nobody hears of them"
    assert plane.stats("event_ring") == 4096
    for _ in range(gone + 1):
        plane.wait(R.EV_OPEN)
    for _ in range(gone):
        plane.wait(R.EV_CLOSED)
    assert end.read(4)[:1] == b"\x7f"
    plane.settle(event_overflow=0, connections=1)
