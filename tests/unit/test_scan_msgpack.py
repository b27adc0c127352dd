"""The MessagePack scanner: every format, every length, and 0xc1."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest

from proxy._relay import probe_scan
from support.gate import MSGPACK, Guarded, Status

GUARDED = Guarded()
DEPTH_MAX = 256


def scan(data: bytes) -> int:
    return probe_scan(MSGPACK, GUARDED(data))


def whole_items() -> list[bytes]:
    """One item per format of the specification, shortest and longest where the format has a range."""
    items = [bytes([b]) for b in (0x00, 0x7F, 0x80, 0x90, 0xA0, 0xC0, 0xC2, 0xC3, 0xE0, 0xFF)]
    items += [bytes([0xA0 + n]) + b"s" * n for n in range(32)]
    items += [bytes([0x90 + n]) + b"\x01" * n for n in range(16)]
    items += [bytes([0x80 + n]) + b"\x01\xc0" * n for n in range(16)]
    items += [b"\xca" + bytes(4), b"\xcb" + bytes(8)]
    for first in (0xCC, 0xD0):
        items += [bytes([first + power]) + b"\xff" * (1 << power) for power in range(4)]
    items += [bytes([0xD4 + power]) + b"\x05" + b"\xc1" * (1 << power) for power in range(5)]
    for length in (0, 1, 5, 200, 255):
        items += [bytes([head, length]) + b"\xc1" * length for head in (0xC4, 0xD9)]
        items += [struct.pack(">BH", head, length) + b"\xc1" * length for head in (0xC5, 0xDA)]
        items += [struct.pack(">BI", head, length) + b"\xc1" * length for head in (0xC6, 0xDB)]
        items.append(struct.pack(">BBb", 0xC7, length, -1) + b"\xc1" * length)
        items.append(struct.pack(">BHb", 0xC8, length, 7) + b"\xc1" * length)
        items.append(struct.pack(">BIb", 0xC9, length, -128) + b"\xc1" * length)
        items.append(struct.pack(">BH", 0xDC, length) + b"\xc0" * length)
        items.append(struct.pack(">BI", 0xDD, length) + b"\xc0" * length)
        items.append(struct.pack(">BH", 0xDE, length) + b"\x01\xc0" * length)
        items.append(struct.pack(">BI", 0xDF, length) + b"\x01\xc0" * length)
    return items


@pytest.mark.parametrize("item", whole_items(), ids=lambda item: f"{item[:5].hex()}-{len(item)}")
def test_whole_cut_and_followed(item: bytes) -> None:
    assert scan(item) == len(item)
    assert scan(item + b"\xc1") == len(item)
    assert scan(item + item) == len(item)
    for size in range(len(item)):
        assert scan(item[:size]) == Status.TRUNCATED


def test_every_first_octet_alone() -> None:
    complete = {*range(0x81), 0x90, 0xA0, 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)}
    for first in range(256):
        expected = 1 if first in complete else Status.MALFORMED if first == 0xC1 else Status.TRUNCATED
        assert scan(bytes([first])) == expected


@pytest.mark.parametrize(
    "item", [b"\xc1", b"\x91\xc1", b"\x81\xc1\x01", b"\x81\x01\xc1", b"\x92\x01\xc1", b"\xdc\x00\x01\xc1"]
)
def test_never_used_octet(item: bytes) -> None:
    assert scan(item) == Status.MALFORMED


@pytest.mark.parametrize("first", [0xC6, 0xC9, 0xDB, 0xDD, 0xDF])
@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 100])
def test_claimed_lengths_beyond_the_end(first: int, length: int) -> None:
    assert scan(struct.pack(">BI", first, length) + bytes(40)) == Status.TRUNCATED


def test_depth_is_bounded() -> None:
    for opening in (b"\x91", b"\x81\x01", b"\xdc\x00\x01", b"\xdf\x00\x00\x00\x01\x01"):
        deepest = opening * DEPTH_MAX + b"\xc0"
        assert scan(deepest) == len(deepest)
        assert scan(opening * (DEPTH_MAX + 1) + b"\xc0") == Status.DEPTH
    assert scan(b"\x91" * 100_000) == Status.DEPTH
    wide = b"\xdd" + struct.pack(">I", 100_000) + b"\x91\xc0" * 100_000
    assert scan(wide) == len(wide)


@pytest.mark.parametrize(
    "value", [None, [], {}, [[[]]], {"a": [1, {"b": b"c"}]}, ["x" * 70_000], list(range(70_000)), 2**64 - 1]
)
def test_what_the_library_writes(value: Any) -> None:
    data = msgpack.packb(value)
    assert scan(data) == len(data)
    assert scan(data[:-1]) == Status.TRUNCATED
