"""Slow readers where messages are batched, compressed or translated on the way: memory is bounded, nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.census import Peak, cpu_seconds
from support.extended import OFFER
from support.flood import Flood
from support.raw import EVENT, PUBLISH, encode
from support.stage import Stage

pytestmark = pytest.mark.slow

SERIALIZERS = ["json", "msgpack", "cbor"]
MIB = 1 << 20
HIGH_WATER = 128 * 1024
SOCKET_BUFFERS = 16 * MIB
"""What the kernel may hold on the way: two connections with buffers of up to 6 MiB each."""
NOISE = [random.Random(i).randbytes(4000).hex() for i in range(16)]
"""Texts that compress to half their size, more of them than a window holds."""
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "batched": ("own", {"batched": True}),
    "deflate": ("own", {"offer": OFFER}),
    "both-translated": ("json", {"batched": True, "offer": OFFER}),
    "translated": ("json", {}),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("slow-features")).add_stub()
    stage.add_stub("json", serializer="json", serializers=["json"])
    limits = {"stall_timeout": 60_000, "high_water": HIGH_WATER, "low_water": 32 * 1024, "close_timeout": 300}
    names = [*SERIALIZERS, *(f"{name}.batched" for name in SERIALIZERS)]
    options = {"compression": {"deflate": {}}}
    for front, to in (("own", "anonymous"), ("json", "json")):
        stage.add_front(front, to=to, serializers=names, options=options, limits=limits, session_ids="proxy")
    stage.start()
    yield stage
    stage.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to_front", [True, False], ids=["to-front", "to-back"])
def test_slow_reader(to_front: bool, mode: str, stage: Stage) -> None:
    """While one side does not read, little is taken from the other; when it reads again, nothing is lost."""
    front, keys = MODES[mode]
    client, router = stage.session(front, "cbor", **keys)
    other = stage.session(front, "cbor", **keys)
    sender, reader = (router, client) if to_front else (client, router)
    messages = [[EVENT, 1, 2, {}, [text]] if to_front else [PUBLISH, 1, {}, "com.example", [text]] for text in NOISE]
    octets = b"".join(sender.frame(encode(sender.serializer, message)) for message in messages)
    peak = Peak(stage.proxy.pid)
    flood = Flood(sender, octets)
    taken = flood.settle()
    # compressed octets hold about twice their number
    assert taken < 2 * SOCKET_BUFFERS, f"{taken / MIB:.1f} MiB were taken for a peer that does not read"
    peak.check(6 * MIB + 4 * HIGH_WATER, f"one slow reader, {mode}")

    used = cpu_seconds(stage.proxy.pid)
    for number in range(20):  # others are not disturbed
        other[0].send([PUBLISH, number + 1, {}, "com.example"])
        assert other[1].recv()[1] == number + 1
        other[1].send([EVENT, 1, number + 1, {}])
        assert other[0].recv()[2] == number + 1
        time.sleep(0.02)
    assert cpu_seconds(stage.proxy.pid) - used < 0.3, "waiting for a slow reader is no work"

    for _ in range(taken // len(octets) + 20):  # the flood goes on while we read
        for message in messages:
            assert reader.recv() == message
    flood.stop()
    for peer in (client, router, *other):
        peer.close()


def encode_event(text: str) -> bytes:
    """The RawSocket frame of an EVENT as a router sends it in JSON."""
    payload = encode("json", [EVENT, 1, 2, {}, [text]])
    return len(payload).to_bytes(4, "big") + payload


def test_many_slow_readers(stage: Stage) -> None:
    """Memory is bounded for each of them, windows and batches included."""
    sessions = [stage.session("json", "cbor", batched=True, offer=OFFER) for _ in range(8)]
    peak = Peak(stage.proxy.pid)
    octets = b"".join(encode_event(text) for text in NOISE)
    floods = [Flood(router, octets) for _, router in sessions]
    while sum(flood.is_moving() for flood in floods):
        time.sleep(0.4)
    peak.check(len(sessions) * (4 * HIGH_WATER + 512 * 1024) + 8 * MIB, "many slow readers")
    for flood in floods:
        flood.stop()
    for peers in sessions:
        for peer in peers:
            peer.close()


def test_compressible_flood(stage: Stage) -> None:
    """Messages that compress a hundredfold, to a client that does not read: what is queued is bounded all the same."""
    client, router = stage.session("own", "cbor", offer=OFFER)
    peak = Peak(stage.proxy.pid)
    flood = Flood.of(router, [EVENT, 1, 2, {}, ["x" * 60_000]])
    time.sleep(2.0)
    peak.check(6 * MIB + 4 * HIGH_WATER, "a compressible flood")
    for _ in range(200):
        assert client.recv()[2] == 2
    flood.stop()
    client.close()
    router.close()
