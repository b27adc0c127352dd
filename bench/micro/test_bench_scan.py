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
from pytest_benchmark.fixture import BenchmarkFixture

from proxy._relay import probe_scan, probe_wamp_plan

SERIALIZERS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "json": (1, lambda message: json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()),
    "msgpack": (2, msgpack.packb),
    "cbor": (3, cbor2.dumps),
}
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
