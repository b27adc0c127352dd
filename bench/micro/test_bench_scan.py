"""Scanners and WAMP gate on the shipped binary. Run with ``pytest bench/micro``.

``extra_info`` holds ``octets`` of the message and ``messages``, how many times one round puts it through the gate: time
divided by it is the cost of one message.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cbor2
import msgpack
import pytest
import txaio
from pytest_benchmark.fixture import BenchmarkFixture

from proxy import ubjson
from proxy._relay import probe_scan, probe_wamp_plan

txaio.use_twisted()

from autobahn.wamp import message as wamp  # noqa: E402
from autobahn.wamp.serializer import FlatBuffersSerializer  # noqa: E402

SERIALIZERS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "json": (1, lambda message: json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()),
    "msgpack": (2, msgpack.packb),
    "cbor": (3, cbor2.dumps),
    "ubjson": (4, ubjson.dumps),
}
FLATBUFFERS = 5
TO_BACK, TO_FRONT = 0, 1
PASS, FORBIDDEN = 1, -10

OPTIONS = {"acknowledge": True, "exclude_me": False, "exclude": [7891255, 1245751]}
EVENT = [36, 5512315355, 4429313566, {"publisher": 3335656, "topic": "com.example.topic"}, [{"a": 1.5, "b": None}] * 4]
MESSAGES: dict[str, tuple[int, list[Any]]] = {
    "call-64": (TO_BACK, [48, 7814135, {}, "com.example.echo", ["x" * 28]]),
    "publish": (TO_BACK, [16, 239714735, OPTIONS, "com.example.topic", ["Hello, world!", 1, 2.5], {"color": "orange"}]),
    "event": (TO_FRONT, EVENT),
    "text-64k": (TO_BACK, [48, 7814135, {}, "com.example.echo", ["x" * 65536]]),
    "numbers-10k": (TO_BACK, [48, 7814135, {}, "com.example.echo", list(range(10_000))]),
    "nested": (TO_BACK, [48, 7814135, {}, "com.example.echo", [{"rows": [[i, str(i), {"n": i}] for i in range(100)]}]]),
    "escapes": (TO_BACK, [48, 7814135, {}, "com.example.echo", ['a "quoted"\nline\t\\' * 100]]),
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_gate(benchmark: BenchmarkFixture, serializer: str, name: str) -> None:
    """The whole gate: type, walk over the message, table."""
    number, dump = SERIALIZERS[serializer]
    direction, message = MESSAGES[name]
    data = dump(message)
    count = max(1, 500_000 // len(data))
    benchmark.extra_info.update(messages=count, octets=len(data))
    assert benchmark(probe_wamp_plan, number, direction, data, count)[:2] == (PASS, message[0])


FLAT: dict[str, tuple[int, wamp.Message]] = {
    "call-64": (TO_BACK, wamp.Call(7814135, "com.example.echo", args=["x" * 28])),
    "publish": (
        TO_BACK,
        wamp.Publish(239714735, "com.example.topic", args=["Hello, world!", 1, 2.5], kwargs={"color": "orange"},
                     acknowledge=True, exclude_me=False, exclude=[7891255, 1245751]),
    ),
    "event": (
        TO_FRONT,
        wamp.Event(5512315355, 4429313566, publisher=3335656, topic="com.example.topic", args=EVENT[4]),
    ),
    "text-64k": (TO_BACK, wamp.Call(7814135, "com.example.echo", args=["x" * 65536])),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_gate_flatbuffers(benchmark: BenchmarkFixture, name: str) -> None:
    """The gate over tables: what is in the Arguments costs nothing."""
    direction, message = FLAT[name]
    data = bytes(FlatBuffersSerializer().serialize(message)[0])
    count = max(1, min(10_000, 500_000 // len(data)))
    benchmark.extra_info.update(messages=count, octets=len(data))
    assert benchmark(probe_wamp_plan, FLATBUFFERS, direction, data, count)[:2] == (PASS, message.MESSAGE_TYPE)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_refusal(benchmark: BenchmarkFixture, serializer: str) -> None:
    """A message that may not pass costs no more than one that may."""
    number, dump = SERIALIZERS[serializer]
    data = dump([1, "realm1", {"roles": {"caller": {}, "publisher": {}}}])
    benchmark.extra_info.update(messages=10_000, octets=len(data))
    assert benchmark(probe_wamp_plan, number, TO_BACK, data, 10_000)[0] == FORBIDDEN


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_scan_one_mebibyte(benchmark: BenchmarkFixture, serializer: str) -> None:
    """A scanner over many short values, where it cannot skip."""
    number, dump = SERIALIZERS[serializer]
    data = dump([{"id": i, "name": f"item {i}", "tags": ["a", "b"], "price": i / 4} for i in range(20_000)])
    benchmark.extra_info.update(octets=len(data))
    assert benchmark(probe_scan, number, data) == len(data)
