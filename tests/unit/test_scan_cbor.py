"""The CBOR scanner: well-formedness by RFC 8949, with the examples of its appendices."""

from __future__ import annotations

import struct
from typing import Any

import cbor2
import pytest

from proxy._relay import probe_scan
from support.gate import CBOR, Guarded, Status

GUARDED = Guarded()
DEPTH_MAX = 256


def scan(data: bytes) -> int:
    return probe_scan(CBOR, GUARDED(data))


# one per row: integers, floats, simple values, strings, containers, tags, indefinite lengths, over-wide arguments
WHOLE = """
00 17 1818 1903e8 1a000f4240 1bffffffffffffffff 20 37 3863 3903e7 3a00000000 3bffffffffffffffff
f90000 f97e00 fa47c35000 fb3ff199999999999a f4 f5 f6 f7 e0 f0 f820 f8ff
40 4401020304 60 6161 7818202020202020202020202020202020202020202020202020 5800 590000 5a00000000 5b0000000000000000
80 83010203 8301820203820405 98190102030405060708090a0b0c0d0e0f101112131415161718181819 9800 990001f6 9a00000000
a0 a201020304 a26161016162820203 b800 b9000101f6 ba00000000 bb0000000000000000
c000 c11a514b67b0 d74401020304 d818456449455446 d9d9f700 da0000000000 db000000000000000000 c1c1c100
5fff 5f42010243030405ff 5f40ff 5f5800ff 7fff 7f657374726561646d696e67ff
9fff 9f018202039f0405ffff 83018202039f0405ff 83019f0203ff820405 9f9fffff 9fc000ff 9fa0ff
bfff bf61610161629f0203ffff 826161bf61626163ff bf6346756ef563416d7421ff bf00bf0001ff0203ff
1800 190000 1a00000000 1b0000000000000000
"""

# RFC 8949 appendix F, kinds 1 to 5, and a few that lie between them
MALFORMED = """
1c 1d 1e 3c 3d 3e 5c 5d 5e 7c 7d 7e 9c 9d 9e bc bd be dc dd de fc fd fe
f800 f801 f818 f81f
5f00ff 5f21ff 5f6100ff 5f80ff 5fa0ff 5fc000ff 5fe0ff 7f4100ff 5f5f4100ffff 7f7f6100ffff
ff 81ff 8200ff a1ff a1ff00 a100ff a20000ff 9f81ff 9f829f819f9fffffffff
bf00ff bf000000ff 1f 3f df c0ff 9fc0ff
"""

CUT = """
18 19 1a 1b 1901 1a0102 1b01020304050607 38 58 78 98 9a01ff00 b8 d8 f8 f900 fa0000 fb000000 41 61 5affffffff00
5bffffffffffffffff010203 7affffffff00 7b7fffffffffffffff010203 81 818181818181818181
8200 a1 a20102 a100 a2000000 c0 c1c1 5f 5f4100 7f 7f6100 9f 9f0102 bf bf01020102 819f 9f80 9f9f9f9f9fffffffff 9f81 bf00
9bffffffffffffffff bbffffffffffffffff
bb8000000000000000 9b8000000000000000 5f5bffffffffffffffff 9bffffffffffffff00 bbc000000000000000
"""


@pytest.mark.parametrize("text", WHOLE.split())
def test_whole_cut_and_followed(text: str) -> None:
    item = bytes.fromhex(text)
    assert scan(item) == len(item)
    assert scan(item + b"\xff") == len(item)
    assert scan(item + item) == len(item)
    for size in range(len(item)):
        assert scan(item[:size]) == Status.TRUNCATED


@pytest.mark.parametrize("text", MALFORMED.split())
def test_not_well_formed(text: str) -> None:
    item = bytes.fromhex(text)
    assert scan(item) == Status.MALFORMED
    assert scan(b"\x81" + item) == Status.MALFORMED
    assert scan(b"\x9f" + item) == (2 if text == "ff" else Status.MALFORMED)


@pytest.mark.parametrize("text", CUT.split())
def test_cut_short(text: str) -> None:
    assert scan(bytes.fromhex(text)) == Status.TRUNCATED


def test_every_first_octet_alone() -> None:
    complete = {*range(0x18), *range(0x20, 0x38), 0x40, 0x60, 0x80, 0xA0, *range(0xE0, 0xF8)}
    reserved = {first for first in range(256) if first & 0x1F in (0x1C, 0x1D, 0x1E)} | {0x1F, 0x3F, 0xDF, 0xFF}
    for first in range(256):
        expected = 1 if first in complete else Status.MALFORMED if first in reserved else Status.TRUNCATED
        assert scan(bytes([first])) == expected, hex(first)


@pytest.mark.parametrize("first", [0x5B, 0x7B, 0x9B, 0xBB])
@pytest.mark.parametrize(
    "length", [2**64 - 1, 2**63, 2**63 - 1, 2**62, 2**61, 2**32, 100, 2**63 + 1, 0xE000000000000000]
)
def test_claimed_lengths_beyond_the_end(first: int, length: int) -> None:
    item = struct.pack(">BQ", first, length) + bytes(40)
    assert scan(item) == Status.TRUNCATED
    assert scan(b"\x9f" + item) == Status.TRUNCATED
    assert scan(struct.pack(">BQ", first, length) + b"\xff" * 40) == Status.TRUNCATED


def test_depth_is_bounded() -> None:
    for opening in (b"\x81", b"\xa1\x01", b"\xc1", b"\xd9\xd9\xf7", b"\x98\x01"):
        deepest = opening * DEPTH_MAX + b"\xf6"
        assert scan(deepest) == len(deepest)
        assert scan(opening * (DEPTH_MAX + 1) + b"\xf6") == Status.DEPTH
    for opening in (b"\x9f", b"\xbf\x01"):
        deepest = opening * DEPTH_MAX + b"\xf6" + b"\xff" * DEPTH_MAX
        assert scan(deepest) == len(deepest)
        assert scan(opening * (DEPTH_MAX + 1) + b"\xf6" + b"\xff" * (DEPTH_MAX + 1)) == Status.DEPTH
    assert scan(b"\x81" * 100_000) == Status.DEPTH
    wide = b"\x9f" + b"\x81\xf6" * 100_000 + b"\xff"
    assert scan(wide) == len(wide)


@pytest.mark.parametrize("pairs", range(6))
def test_a_map_of_indefinite_length_holds_pairs(pairs: int) -> None:
    assert scan(b"\xbf" + b"\x01\x02" * pairs + b"\xff") == 2 + 2 * pairs
    assert scan(b"\xbf" + b"\x01\x02" * pairs + b"\x01\xff") == Status.MALFORMED


@pytest.mark.parametrize(
    "value", [None, [], {}, [[[]]], {"a": [1, {"b": b"c"}]}, ["x" * 70_000], list(range(70_000)), 2**80]
)
def test_what_the_library_writes(value: Any) -> None:
    for indefinite in (False, True):
        data = cbor2.dumps(value, indefinite_containers=indefinite)
        assert scan(data) == len(data)
        assert scan(data[:-1]) == Status.TRUNCATED
