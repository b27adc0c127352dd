"""Batches and compressed messages as they should not come: cut anywhere, lost in the middle, at random."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support import raw
from support.extended import OFFER, RSV1, ExtendedPeer
from support.raw import ABORT, EVENT, GOODBYE, PUBLISH, Peer, PeerClosed, encode
from support.stage import Stage

SERIALIZERS = ["json", "msgpack", "cbor"]
MODES: dict[str, dict[str, Any]] = {
    "batched": {"batched": True},
    "deflate": {"offer": OFFER},
    "both": {"batched": True, "offer": OFFER},
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("feature-octets")).add_stub()
    stage.add_stub("json", serializer="json", serializers=["json"])
    names = [*SERIALIZERS, *(f"{name}.batched" for name in SERIALIZERS)]
    options = {"compression": {"deflate": {}}}
    for front, to in (("own", "anonymous"), ("json", "json")):
        stage.add_front(front, to=to, serializers=names, options=options, session_ids="proxy")
    stage.start()
    yield stage
    stage.close()


def stream(client: ExtendedPeer, number: int, count: int = 3) -> tuple[bytes, list[list[Any]]]:
    """Octets that hold ``count`` messages and control frames: (octets, messages)."""
    messages = [[PUBLISH, number + i, {"exclude": [number]}, "com.example", ["åß∂ƒ" * 5, i]] for i in range(count)]
    ping = client.ping_frame(b"p")
    if client.batched:
        payload = client.pack(*(encode(client.serializer, message) for message in messages))
        if client.deflate is None:
            half = len(payload) // 2
            parts = [
                client.ws_frame(client.opcode, payload[:half], fin=False),
                client.ws_frame(raw.OP_CONT, payload[half:]),
            ]
        else:
            data = client.deflate.compress(payload)
            parts = [
                client.ws_frame(client.opcode, data[:5], fin=False, rsv=RSV1),
                client.ws_frame(raw.OP_CONT, data[5:]),
            ]
        return ping.join([b"", *parts, b""]), messages
    return ping.join([b"", *(client.frame(encode(client.serializer, message)) for message in messages), b""]), messages


@pytest.mark.parametrize("front", ["own", "json"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_cut_at_every_octet(serializer: str, mode: str, front: str, stage: Stage) -> None:
    """Two packets, cut at each octet in turn: what arrives is the same, also for the windows of later messages."""
    client, router = stage.session(front, serializer, **MODES[mode])
    client.auto_pong = False
    number, cut, length = 1, 0, 1
    while cut <= length:
        octets, messages = stream(client, number)
        length = len(octets)
        client.wire.write(octets[:cut])
        time.sleep(0.0003)  # lets the proxy see the first part alone
        client.wire.write(octets[cut:])
        assert [router.recv() for _ in messages] == messages
        number += len(messages)
        cut += 1
    client.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_one_octet_at_a_time(serializer: str, mode: str, stage: Stage) -> None:
    """Messages of both sides in packets of one octet."""
    client, router = stage.session("own", serializer, **MODES[mode])
    for number in range(1, 5):
        octets, messages = stream(client, number * 10)
        for i in range(len(octets)):
            client.wire.write(octets[i : i + 1])
        assert [router.recv() for _ in messages] == messages
        event = [EVENT, 1, number, {}, ["åß∂ƒ" * 30]]
        octets = router.frame(encode(router.serializer, event))
        for i in range(len(octets)):
            router.wire.write(octets[i : i + 1])
        assert client.recv() == event
    client.close()


class Pieces(threading.Thread):
    """Sends octets in pieces of random size."""

    def __init__(self, peer: Peer, octets: bytes, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.peer, self.octets, self.chance = peer, octets, chance
        self.start()

    def run(self) -> None:
        """Send all of it."""
        at = 0
        while at < len(self.octets):
            size = self.chance.choice((1, 3, 100, 5000, 70_000))
            self.peer.wire.write(self.octets[at : at + size])
            at += size


@pytest.mark.parametrize("front", ["own", "json"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_every_way_to_cut(serializer: str, mode: str, front: str, stage: Stage) -> None:
    """Messages of all sizes, cut at random places, in both directions at once, in batches of random length."""
    client, router = stage.session(front, serializer, **MODES[mode])
    chance = random.Random(f"{serializer}{mode}{front}")
    sizes = [0, 1, 50, 110, 120, 130, 1000, 4090, 16_000, 65_500, 65_600, 140_000, 300_000]
    texts = [chance.randbytes(size // 2).hex() for size in sizes] + ["x" * size for size in sizes] + ["y"] * 400
    chance.shuffle(texts)
    up = [[PUBLISH, i + 1, {}, "com.example", [text]] for i, text in enumerate(texts)]
    down = [[EVENT, 1, i + 1, {}, [text]] for i, text in enumerate(reversed(texts))]
    octets, at = b"", 0
    while at < len(up):
        count = chance.choice((1, 2, 30)) if client.batched else 1
        group = up[at : at + count]
        at += count
        octets += client.batch(*group) if client.batched else client.frame(encode(serializer, group[0]))
    writers = [
        Pieces(client, octets, random.Random(1)),
        Pieces(router, b"".join(router.frame(encode(router.serializer, event)) for event in down), random.Random(2)),
    ]
    received: list[list[Any]] = []
    reader = threading.Thread(target=lambda: received.extend(router.recv() for _ in up), daemon=True)
    reader.start()
    assert [client.recv() for _ in down] == down
    reader.join(raw.TIMEOUT)
    assert received == up
    for writer in writers:
        writer.join(raw.TIMEOUT)
    client.close()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("mode", MODES)
def test_lost_in_the_middle(mode: str, how: str, stage: Stage) -> None:
    """Whole WebSocket messages before the end are delivered, nothing of the one that is cut; wherever it is cut."""
    for serializer in SERIALIZERS:
        cut, length = 1, 2
        while cut < length:
            client, router = stage.session("own", serializer, **MODES[mode])
            whole, messages = stream(client, 1)
            client.wire.write(whole)
            if how == "reset":  # what a reset overtakes is lost, by the rules of TCP
                assert [router.recv() for _ in messages] == messages
                messages = []
            octets, _ = stream(client, 100, 1)
            length = len(octets) - len(client.ping_frame(b"p"))
            client.wire.write(octets[:cut])
            if how == "reset":
                client.wire.reset()
            elif how == "close":
                client.close()
            else:
                client.wire.sock.shutdown(socket.SHUT_WR)
            received, _ = router.recv_end()
            assert received[: len(messages)] == messages
            assert [message[0] for message in received[len(messages) :]] == [GOODBYE]
            client.close()
            cut += 7


def type_of(serializer: str, payload: bytes) -> int:
    """The type of a message whatever its payload holds."""
    if serializer == "json":
        return int(payload[1:].split(b",")[0])
    return payload[1] if payload[1] < 24 or serializer == "msgpack" else payload[2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_garbage(serializer: str, mode: str, stage: Stage) -> None:
    """Random changes to good octets end the session or do no harm; only whole legal messages reach the router."""
    chance = random.Random(f"{serializer}{mode}")
    for _ in range(15):
        client, router = stage.session("own", serializer, **MODES[mode])
        payloads = [encode(serializer, [PUBLISH, i, {"a": [1, 2.5, None]}, "com.example", ["text", i]]) for i in (1, 2)]
        data = client.pack(*payloads) if client.batched else payloads[0]
        data = client.deflate.compress(data) if client.deflate else data
        junk = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            junk[chance.randrange(len(junk))] = chance.randrange(256)
        junk = junk[: chance.randrange(1, len(junk) + 1)]
        with contextlib.suppress(PeerClosed, OSError):
            client.wire.write(client.ws_frame(client.opcode, bytes(junk), rsv=RSV1 if client.deflate else 0))
            client.wire.write(chance.randbytes(64))
            client.wire.sock.shutdown(socket.SHUT_WR)
        # a text in a payload that is not UTF-8 is the router's business: only the type is looked at
        types = []
        with contextlib.suppress(PeerClosed):
            while payload := router.recv_payload():
                types.append(type_of(router.serializer, payload))
        assert [kind for kind in types if kind != PUBLISH] == [GOODBYE]
        router.close()
        client.wire.read_all()
        client.close()


@pytest.mark.parametrize("mode", MODES)
def test_violation_while_answers_are_under_way(mode: str, stage: Stage) -> None:
    """A forbidden message while what the router says is packed for the client: the ABORT is readable and last."""
    for serializer in SERIALIZERS:
        client, router = stage.session("own", serializer, **MODES[mode])
        router.send(*([EVENT, 1, i, {}, ["text"]] for i in range(300)))
        client.send([1, "realm1", {"roles": {}}])
        messages, _ = client.recv_end()
        assert messages[-1][0] == ABORT
        assert [message[2] for message in messages[:-1]] == list(range(len(messages) - 1))
        router.recv_end()
