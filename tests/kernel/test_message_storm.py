"""Messages that are not relayed as they are, under load: all arrive in order; sessions end in every way."""

from __future__ import annotations

import itertools
import json
import random
import select
import threading
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cbor2
import msgpack
import pytest

from kernel.harness import BINARY, CLOSE, CONT, PING, RSV1, TEXT, End, Gone, Plane
from kernel.test_messages import RS, batch, unbatch
from proxy import _relay as R

BOUNDS = {"high_water": 30_000, "low_water": 5000, "close_ms": 100, "stall_ms": 0}
MAX_OUT = 20_000
ENCODE: dict[int, Callable[[Any], bytes]] = {
    R.SER_JSON: lambda value: json.dumps(value).encode(), R.SER_MSGPACK: msgpack.packb, R.SER_CBOR: cbor2.dumps,
}  # fmt: skip
DECODE: dict[int, Callable[[bytes], Any]] = {
    R.SER_JSON: json.loads, R.SER_MSGPACK: msgpack.unpackb, R.SER_CBOR: cbor2.loads,
}  # fmt: skip


class Way(NamedTuple):
    """How a client speaks."""

    serializer: int
    batched: bool
    packed: str  # "", "context", "reset"

    @property
    def upgrade(self) -> dict[str, Any]:
        """What it agreed upon."""
        if not self.packed:
            return {"batched": self.batched}
        reset = self.packed == "reset"
        bits = {"inflate_bits": 12, "deflate_bits": 12, "inflate_reset": reset, "deflate_reset": reset}
        return {"batched": self.batched, **bits}


WAYS = [Way(s, b, p) for s in (R.SER_JSON, R.SER_MSGPACK, R.SER_CBOR) for b in (False, True) for p in ("", "context")]
WAYS.append(Way(R.SER_CBOR, True, "reset"))


class Talker:
    """A client's side of batches and compression."""

    def __init__(self, end: End, way: Way, rng: random.Random) -> None:
        self.end, self.way, self.rng = end, way, rng
        self.out, self.into = zlib.compressobj(wbits=-12), zlib.decompressobj(wbits=-12)
        self.waiting: list[bytes] = []
        self.opcode = TEXT if way.serializer == R.SER_JSON else BINARY

    def write(self, messages: list[bytes]) -> None:
        """Send messages in the way agreed upon, in frames of any kind, with pings between them."""
        for data in self.wrap(messages):
            opcode = self.opcode
            if self.way.packed and self.rng.random() < 0.8:
                if self.way.packed == "reset":
                    self.out = zlib.compressobj(wbits=-12)
                data = (self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH))[:-4]
                opcode |= RSV1
            if self.rng.random() < 0.7:
                self.end.send(data, opcode)
                continue
            pieces = [self.rng.randrange(len(data) + 1) for _ in range(3)]
            for frame in self.end.fragments(data, pieces, opcode):
                self.end.write(frame + (self.end.frame(b"p", PING) if self.rng.random() < 0.3 else b""))

    def wrap(self, messages: list[bytes]) -> list[bytes]:
        """Payloads of WebSocket messages."""
        if not self.way.batched:
            return messages
        if self.way.serializer == R.SER_JSON:
            return [RS.join([*messages, b""])]
        return [batch(*messages)]

    def recv(self) -> Any:
        """The next message."""
        while not self.waiting:
            opcode, data = self.end.recv_message()
            assert opcode & ~RSV1 == self.opcode
            if opcode & RSV1:
                if self.way.packed == "reset":
                    self.into = zlib.decompressobj(wbits=-12)
                data = self.into.decompress(data + b"\0\0\xff\xff")
            assert len(data) <= MAX_OUT
            if not self.way.batched:
                self.waiting = [data]
            elif self.way.serializer == R.SER_JSON:
                self.waiting = data.split(RS)[:-1]
            else:
                self.waiting = unbatch(data)
        return DECODE[self.way.serializer](self.waiting.pop(0))


def payload(rng: random.Random, *, may_fail: bool, number: int) -> list[Any]:
    """Arguments: short, long, too long, or nothing that another serializer can express."""
    size = rng.choice([0, 1, 10, 50, 300, 3000])
    if rng.random() < 0.1:
        size = 12_000
    if may_fail and rng.random() < 0.1:
        return [number, "z" * 40_000]
    return [number, "".join(rng.choices("abcdefgh", k=size))]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.serializer}{'-batched' * way.batched}-{way.packed}")
def test_all_messages_arrive_in_order(plane: Plane, way: Way, seed: int) -> None:
    """Whatever is refused between them, however slow the reader: nothing is lost, doubled or out of order."""
    rng = random.Random(f"{way} {seed}")
    realm = plane.relay.add_realm()
    listener = plane.listen("ws", **BOUNDS, max_out=MAX_OUT, auto_fragment=rng.choice([0, 700]))
    end, front = plane.join(listener, way.serializer, **way.upgrade)
    router = plane.router("rs")
    token = plane.dial(front, router, realm=realm, front_sid=777, **BOUNDS)
    far, back = plane.accept_join(router, token, size=6)
    plane.relay.link(front, back, b"")
    client = Talker(end, way, rng)
    count = 400
    there = [[16, i, {"exclude": [777]}, "t", payload(rng, may_fail=True, number=i)] for i in range(count)]
    here = [[36, 5, i, {"publisher": 1234}, payload(rng, may_fail=True, number=i)] for i in range(count)]
    cuts = sorted({0, count, *(rng.randrange(count) for _ in range(60))})

    def talk() -> None:
        for start, stop in itertools.pairwise(cuts):
            client.write([ENCODE[way.serializer](message) for message in there[start:stop]])

    def answer() -> None:
        for start, stop in itertools.pairwise(cuts):
            far.write(b"".join(far.frame(cbor2.dumps(message)) for message in here[start:stop]))

    heard: list[list[Any]] = []
    seen: list[list[Any]] = []

    def listen() -> None:
        while not heard or heard[-1][-1][0] != count:
            heard.append(client.recv())

    def look() -> None:
        while not seen or seen[-1][-1][0] != count:
            seen.append(cbor2.loads(far.recv()))

    there.append([16, count, {}, "t", [count]])
    here.append([36, 5, count, {}, [count]])
    cuts.append(count + 1)
    threads = [threading.Thread(target=run, daemon=True) for run in (talk, answer, listen, look)]
    for thread in threads:
        thread.start()
    refused = {front: 0, back: 0}
    while any(thread.is_alive() for thread in threads):
        plane.pump(0.02)
        for event in list(plane.fresh):
            assert event.kind == R.EV_REFUSED, event
            plane.fresh.remove(event)
            refused[event.conn] += 1
            plane.relay.next(event.conn)
    expected = [[16, m[1], {"exclude": [1234]} if m[2] else {}, *m[3:]] for m in there]
    small = [m for m in expected if len(m[-1]) < 2 or len(m[-1][1]) < 13_000]
    assert seen == small
    assert refused[front] == len(expected) - len(small)
    expected = [[36, 5, m[2], {"publisher": 777} if m[3] else {}, m[4]] for m in here]
    small = [m for m in expected if len(m[-1]) < 2 or len(m[-1][1]) < 13_000]
    assert heard == small
    assert refused[back] == len(expected) - len(small)
    plane.relay.release_sid(realm, 777)


class Peer(threading.Thread):
    """A client or router that talks a lot, rarely reads, and ends somehow."""

    def __init__(self, talker: Talker | End, serializer: int, seed: int) -> None:
        super().__init__()
        self.talker, self.serializer, self.rng = talker, serializer, random.Random(seed)
        self.end = talker.end if isinstance(talker, Talker) else talker
        self.end.sock.settimeout(0.05)

    def message(self) -> bytes:
        """Anything."""
        rng = self.rng
        number = rng.randrange(50)
        size = rng.choice([0, 5, 300, 5000, 70_000])
        mine = [
            [48, number, {"progress": rng.random() < 0.5}, "wamp.session.list"],
            [48, number, {}, "x", ["z" * size]],
            [32, number, {}, "wamp.session.on_join"],
            [16, number, {"exclude": [number]}, "t", [[], {}, "z" * size]],
            [70, number, {"progress": True}, ["z" * size]],
            [8, 68, number, {}, "e"],
        ]
        theirs = [
            [50, number, {"progress": rng.random() < 0.5}, [[number, 7], "z" * size]],
            [33, number, number],
            [36, number, 1, {"publisher": 1234}, ["z" * size]],
            [68, number, 3, {"caller": 1234}, ["z" * size]],
            [8, 48, number, {}, "e"],
        ]
        if rng.random() < 0.01:
            return ENCODE[self.serializer]([6, {}, "bye"])
        if rng.random() < 0.01 and not isinstance(self.talker, Talker):  # waits
            on_join = [36, number, 1, {"topic": "wamp.session.on_join"}, [{"session": rng.randrange(10**6)}]]
            return ENCODE[self.serializer](on_join)
        message: list[Any] = rng.choice(mine if isinstance(self.talker, Talker) else theirs)
        if rng.random() < 0.1 and self.serializer != R.SER_JSON and isinstance(message[-1], list):
            message[-1].append(float("nan") if rng.random() < 0.5 else b"b")
        return ENCODE[self.serializer](message)

    def run(self) -> None:
        rng = self.rng
        try:
            for _ in range(rng.randrange(1, 80)):
                messages = [self.message() for _ in range(rng.choice([1, 1, 2, 10]))]
                if rng.random() < 0.004:
                    self.end.write(rng.randbytes(20))
                elif rng.random() < 0.01 and self.end.kind == "ws":
                    self.end.send(b"\x03\xe8", CLOSE)
                elif rng.random() < 0.01 and self.end.kind == "ws":
                    self.end.write(self.end.frame(b"half", BINARY | RSV1, False) + self.end.frame(b"", CONT, False))
                elif isinstance(self.talker, Talker):
                    self.talker.write(messages)
                else:
                    self.end.write(b"".join(map(self.end.frame, messages)))
                if rng.random() < 0.7 and select.select([self.end.sock], [], [], 0)[0]:
                    self.end.sock.recv(1 << 18)
        except (Gone, OSError):
            pass
        try:
            rng.choice([self.end.close, self.end.reset, self.end.half_close, lambda: None])()
        except OSError:
            pass


def command(plane: Plane, front: int, back: int, rng: random.Random) -> None:
    """What the control plane might do with a session, at any moment."""
    relay, conn = plane.relay, rng.choice([front, back])
    rng.choice(
        [
            lambda: (relay.unlink(front), relay.link(front, back, b"")),
            lambda: relay.unlink(front),
            lambda: relay.link(front, back, b""),
            lambda: relay.next(conn),
            lambda: relay.next(conn),
            lambda: relay.send(conn, cbor2.dumps([6, {}, "x" * rng.choice([1, 50_000])])),
            lambda: relay.swallow(front, R.NOTE_DEAD_CALL, rng.randrange(50)),
            lambda: relay.swallow(front, R.NOTE_DEAD_INVOCATION, rng.randrange(50)),
            lambda: relay.close(conn),
            lambda: relay.abort(conn),
            lambda: plane.pump(0.001),
            lambda: plane.pump(0.01),
        ]
    )()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_sessions_with_everything_end_in_every_way(make_plane: Callable[..., Plane], threads: int, seed: int) -> None:
    """After all of that nothing is left, and the next client is served as if nothing had been."""
    plane, rng = make_plane(threads), random.Random(seed)
    realm = plane.relay.add_realm()
    listeners = [plane.listen("ws", **BOUNDS, max_out=out, auto_fragment=n) for out, n in ((0, 0), (MAX_OUT, 100))]
    router, silent = plane.router("rs"), plane.router("rs")
    sid = 1000
    for _ in range(5):
        sessions, peers = [], []
        _, joining = plane.join(listeners[0])
        plane.dial(joining, silent, realm=realm, front_sid=1)  # whose WELCOME never comes
        for _ in range(rng.randrange(1, 5)):
            way, target = rng.choice(WAYS), rng.choice([R.SER_JSON, R.SER_MSGPACK, R.SER_CBOR])
            end, front = plane.join(rng.choice(listeners), way.serializer, **way.upgrade)
            sid += 1
            token = plane.dial(front, router, serializer=target, realm=realm, front_sid=sid, **BOUNDS)
            welcome = ENCODE[target]([2, 1234, {}])
            far, back = plane.accept_join(router, token, size=rng.choice([6, 15]), welcome=welcome)
            plane.relay.link(front, back, b"")
            sessions.append((front, back))
            talker = Talker(end, way, random.Random(rng.random()))
            peers += [Peer(talker, way.serializer, rng.randrange(1 << 30)), Peer(far, target, rng.randrange(1 << 30))]
        for peer in peers:
            peer.start()
        while any(peer.is_alive() for peer in peers):
            command(plane, *rng.choice(sessions), rng) if rng.random() < 0.1 else plane.pump(0.002)
            for event in plane.fresh:
                if event.kind == R.EV_REFUSED:
                    plane.relay.next(event.conn)
            plane.fresh.clear()
        for conn in (*(conn for pair in sessions for conn in pair), joining):
            plane.relay.abort(conn)
        plane.settle(connections=0, links=0)
        for number in range(1001, sid + 1):
            plane.relay.release_sid(realm, number)
        for end in plane.ends:
            end.close()
        plane.ends.clear()
    client, front = plane.join(listeners[0])
    token = plane.dial(front, router, realm=realm, front_sid=5)
    far, back = plane.accept_join(router, token, welcome=cbor2.dumps([2, 98765, {}]))
    plane.relay.link(front, back, b"")
    waits = plane.stats("waits")
    far.send(cbor2.dumps([36, 1, 1, {"topic": "wamp.session.on_join"}, [{"session": 4711}]]))
    assert cbor2.loads(client.recv())[4] == [{"session": 4711}]
    assert plane.stats("waits") == waits, "nobody is joining, and a message waited"
