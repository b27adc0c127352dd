"""Frame codecs, masking and UTF-8 validation on the shipped binary. Run with ``pytest bench/micro``.

``extra_info`` holds what one round works on: ``octets``, and for codecs ``frames`` (time divided by it is the cost of
one frame). Inputs of about 64 KiB are what one recv brings in.
"""

from __future__ import annotations

import os

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from proxy._relay import FrameCodec, mask_into, mask_moved, utf8_valid

KEY = b"\x37\xfa\x21\x3d"
BATCH = 65536
BINARY, TEXT = 2, 1
SIZES = [16, 64, 125, 1024, 16384, 65535, 1 << 20]

CYRILLIC = "Съешь же ещё этих мягких французских булок, да выпей чаю. "
MIXED = "plain ASCII, naïve café, 世界 🎉; "


def batch(frame: bytes, benchmark: BenchmarkFixture) -> bytearray:
    """Copies of a frame that fill a receive buffer."""
    count = max(1, BATCH // len(frame))
    benchmark.extra_info.update(frames=count, octets=count * len(frame))
    return bytearray(frame * count)


@pytest.mark.parametrize("size", SIZES)
def test_read_masked_websocket(benchmark: BenchmarkFixture, size: int) -> None:
    """A client's binary frames at the server end. Masked again by every second round, which costs the same."""
    data = batch(FrameCodec(client=True).put(os.urandom(size), BINARY, key=KEY), benchmark)
    codec = FrameCodec(max_message=1 << 24)
    assert benchmark(codec.walk, data) == benchmark.extra_info["frames"]


@pytest.mark.parametrize("size", SIZES)
def test_read_unmasked_websocket(benchmark: BenchmarkFixture, size: int) -> None:
    """A router's frames at the client end."""
    data = batch(FrameCodec().put(os.urandom(size), BINARY), benchmark)
    codec = FrameCodec(client=True, max_message=1 << 24)
    assert benchmark(codec.walk, data) == benchmark.extra_info["frames"]


@pytest.mark.parametrize("size", SIZES)
def test_read_rawsocket(benchmark: BenchmarkFixture, size: int) -> None:
    codec = FrameCodec("rawsocket", max_message=1 << 24)
    data = batch(codec.put(os.urandom(size), BINARY), benchmark)
    assert benchmark(codec.walk, data) == benchmark.extra_info["frames"]


@pytest.mark.parametrize("size", SIZES)
def test_read_text(benchmark: BenchmarkFixture, size: int) -> None:
    """JSON: text that is validated. The key is zero, or every second round would find it masked."""
    data = batch(FrameCodec(client=True, serializer="json").put(b"a" * size, TEXT), benchmark)
    codec = FrameCodec(serializer="json", max_message=1 << 24)
    assert benchmark(codec.walk, data) == benchmark.extra_info["frames"]


def test_read_fragments(benchmark: BenchmarkFixture) -> None:
    """64 fragments of 1 KiB: unmasked while they are moved together."""
    writer = FrameCodec(client=True)
    pieces = [writer.put(bytes(1024), BINARY if i == 0 else 0, key=KEY, fin=i == 63) for i in range(64)]
    codec, data = FrameCodec(max_message=1 << 24), b"".join(pieces)
    benchmark.extra_info.update(frames=64, octets=len(data))
    assert benchmark(codec.feed, data) == [("message", BINARY, bytes(65536))]


@pytest.mark.parametrize("size", SIZES)
def test_mask_in_place(benchmark: BenchmarkFixture, size: int) -> None:
    benchmark.extra_info["octets"] = size
    benchmark(mask_into, bytearray(size), KEY)


@pytest.mark.parametrize("size", SIZES)
def test_mask_while_moving(benchmark: BenchmarkFixture, size: int) -> None:
    """With a copy of the input and one of the output around it."""
    benchmark.extra_info["octets"] = size
    benchmark(mask_moved, bytes(size), KEY, 0, 6)


@pytest.mark.parametrize("size", [64, 65536])
@pytest.mark.parametrize("text", ["a", CYRILLIC, MIXED], ids=["ascii", "cyrillic", "mixed"])
def test_utf8(benchmark: BenchmarkFixture, text: str, size: int) -> None:
    data = (text * size).encode()[:size].decode(errors="ignore").encode()
    benchmark.extra_info["octets"] = len(data)
    assert benchmark(utf8_valid, data)
