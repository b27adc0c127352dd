"""Translation between serializers on the shipped binary. Run with ``pytest bench/micro``.

``extra_info`` holds ``octets`` of the message and ``messages``, how many times one round translates it: time divided by
it is the cost of one message. ``test_autobahn`` is the same work done by decoding and encoding with autobahn's
serializers, which is what a proxy in Python does at the least.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import txaio
from pytest_benchmark.fixture import BenchmarkFixture

txaio.use_twisted()

from autobahn.wamp.serializer import CBORObjectSerializer, JsonObjectSerializer, MsgPackObjectSerializer  # noqa: E402

from proxy._relay import probe_translate  # noqa: E402

SERIALIZERS: dict[str, tuple[int, Any]] = {
    "json": (1, JsonObjectSerializer()),
    "msgpack": (2, MsgPackObjectSerializer()),
    "cbor": (3, CBORObjectSerializer()),
}
PAIRS = [f"{source}-{target}" for source, target in permutations(SERIALIZERS, 2)]

OPTIONS = {"acknowledge": True, "exclude_me": False, "exclude": [7891255, 1245751]}
EVENT = [36, 5512315355, 4429313566, {"publisher": 3335656, "topic": "com.example.topic"}, [{"a": 1.5, "b": None}] * 4]
TEXT = "com.example.echo"
MESSAGES: dict[str, list[Any]] = {
    "call-64": [48, 7814135, {}, TEXT, ["x" * 28]],
    "publish": [16, 239714735, OPTIONS, "com.example.topic", ["Hello, world!", 1, 2.5], {"color": "orange"}],
    "event": EVENT,
    "nested": [48, 7814135, {}, TEXT, [{"rows": [[i, str(i), {"n": i}] for i in range(100)]}]],
    "escapes": [48, 7814135, {}, TEXT, ['a "quoted"\nline\t\\' * 100]],
    "text-64k": [48, 7814135, {}, TEXT, ["x" * 65536]],
    "cyrillic-64k": [48, 7814135, {}, TEXT, ["привет, мир! " * 3000]],
    "binary-64k": [48, 7814135, {}, TEXT, [bytes(range(256)) * 256]],
    "numbers-10k": [48, 7814135, {}, TEXT, list(range(10_000))],
    "floats-10k": [48, 7814135, {}, TEXT, [number / 7 for number in range(10_000)]],
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("pair", PAIRS)
def test_translate(benchmark: BenchmarkFixture, pair: str, name: str) -> None:
    """Reading and writing, without the gate."""
    (source, library), (target, other) = (SERIALIZERS[serializer] for serializer in pair.split("-"))
    data = library.serialize(MESSAGES[name])
    count = max(1, 500_000 // len(data))
    benchmark.extra_info.update(messages=count, octets=len(data))
    assert benchmark(probe_translate, source, target, data, 0, count) == other.serialize(MESSAGES[name])


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("pair", PAIRS)
def test_autobahn(benchmark: BenchmarkFixture, pair: str, name: str) -> None:
    """The same by autobahn's object serializers, without its message classes."""
    (_, library), (_, other) = (SERIALIZERS[serializer] for serializer in pair.split("-"))
    data = library.serialize(MESSAGES[name])
    benchmark.extra_info.update(messages=1, octets=len(data))
    assert benchmark(lambda: other.serialize(library.unserialize(data)[0])) == other.serialize(MESSAGES[name])
