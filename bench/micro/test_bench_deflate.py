"""permessage-deflate and batches on the shipped binary. Run with ``pytest bench/micro``.

``extra_info``: ``octets`` of the plain message, ``packed`` of what is sent instead.
"""

from __future__ import annotations

import json
import os

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from proxy._relay import SER_CBOR, SER_JSON, probe_batch, probe_zip

REPEAT = 100
EVENT = json.dumps(
    [36, 5512315355, 4429313566, {"publisher": 123456, "topic": "com.example.topic"}, [1, "hello", {"size": 23}]]
).encode()
ROWS = json.dumps(
    [50, 7814135, {}, [], {"rows": [{"id": i, "name": f"user{i}", "ok": i % 3 == 0} for i in range(100)]}]
).encode()
MESSAGES = {"event": EVENT, "rows": ROWS, "noise": os.urandom(16384)}
WAYS = {"kept": {}, "anew": {"inflate_reset": True, "deflate_reset": True}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MESSAGES)
def test_deflate(benchmark: BenchmarkFixture, name: str, way: str) -> None:
    """The same message again and again, which flatters the size where the context is kept, but not the time."""
    zipped, data = probe_zip(**WAYS[way]), MESSAGES[name]
    packed = benchmark(zipped.again, data, True, REPEAT)
    benchmark.extra_info.update(octets=len(data), packed=packed, repeat=REPEAT)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MESSAGES)
def test_inflate(benchmark: BenchmarkFixture, name: str, way: str) -> None:
    data = MESSAGES[name]
    packed, zipped = probe_zip().deflate(data), probe_zip(**WAYS[way])
    assert benchmark(zipped.again, packed, False, REPEAT) == len(data)
    benchmark.extra_info.update(octets=len(data), packed=len(packed), repeat=REPEAT)


@pytest.mark.parametrize("serializer", [SER_JSON, SER_CBOR], ids=["json", "cbor"])
@pytest.mark.parametrize("size", [16, 256, 4096])
def test_take_batch(benchmark: BenchmarkFixture, serializer: int, size: int) -> None:
    """What one wake-up brings: 64 KiB of messages."""
    batch = probe_batch(serializer)
    count = 65536 // size
    data = batch.put([b"a" * size] * count)
    assert benchmark(batch.walk, data) == count
    benchmark.extra_info.update(octets=len(data), messages=count)
