"""The UBJSON scanner: every marker, every form of container, and what is refused although a decoder takes it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from proxy._relay import probe_scan, probe_wamp_type
from support.gate import DUMP, UBJSON, Guarded, Status

GUARDED = Guarded()
DEPTH_MAX = 256
INTEGERS = [(b"i", "b"), (b"U", "B"), (b"I", "h"), (b"u", "H"), (b"l", "i"), (b"m", "I"), (b"L", "q"), (b"M", "Q")]
SIZES = {b"i": 1, b"U": 1, b"B": 1, b"C": 1, b"I": 2, b"u": 2, b"h": 2, b"l": 4, b"m": 4, b"d": 4, b"L": 8, b"M": 8,
         b"D": 8}  # fmt: skip


def scan(data: bytes) -> int:
    return probe_scan(UBJSON, GUARDED(data))


def length(number: int, marker: bytes = b"U") -> bytes:
    return marker + struct.pack("<" + {**dict(INTEGERS), b"B": "B"}[marker], number)


def scalars() -> list[bytes]:
    items = [b"Z", b"T", b"F"]
    items += [marker + b"\x30" * size for marker, size in SIZES.items()]
    items += [head + length(count, marker) + b"1" * count for head in (b"S", b"H") for count in (0, 1, 5)
              for marker, _ in [*INTEGERS, (b"B", "B")]]  # fmt: skip
    items += [b"S" + length(count, b"u") + b"x" * count for count in (255, 256, 1000)]
    return items


def containers() -> list[bytes]:
    items = [b"[]", b"{}", b"[N]", b"{N}", b"[NNU\1NN]", b"{NU\1aU\1N}", b"[[][]{}]", b"{U\1a[]U\0{}}", b"[CxZ]"]
    items += [b"[#" + length(2, marker) + b"NTNZ" for marker, _ in INTEGERS]
    items += [b"{#U\2" + b"NU\1aT" + b"U\1bU\7", b"[#U\1[#U\1[#U\1Z", b"{#U\1U\1a{#U\1U\1bZ"]
    items += [b"[$" + marker + b"#" + length(count) + b"]" * (size * count) for marker, size in SIZES.items()
              for count in (0, 1, 3)]  # fmt: skip
    items += [b"[$" + marker + b"#U\3" for marker in (b"Z", b"T", b"F")]
    items += [b"[$S#U\2" + b"U\1aU\0", b"[$H#U\1" + b"U\0011", b"[$S#U\0", b"[$[#U\2" + b"]" + b"#U\1Z", b"[$[#U\0"]
    items += [b"{$U#U\2" + b"U\1a\1" + b"NU\1b\2", b"{$Z#U\2" + b"U\1aU\1b", b"{$S#U\1" + b"U\1aU\1x"]
    items += [b"{$[#U\2" + b"U\1a]" + b"U\1bU\1]", b"{$D#U\1" + b"U\0" + bytes(8)]
    return items


@pytest.mark.parametrize("item", scalars() + containers(), ids=lambda item: f"{item[:12].hex()}-{len(item)}")
def test_whole_cut_and_followed(item: bytes) -> None:
    assert scan(item) == len(item)
    assert scan(item + b"Z") == len(item)
    assert scan(item + item) == len(item)
    for size in range(len(item)):
        assert scan(item[:size]) == Status.TRUNCATED


def test_every_first_octet_alone() -> None:
    for first in range(256):
        marker = bytes([first])
        known = marker in SIZES or marker in (b"S", b"H", b"[", b"{")
        expected = 1 if marker in (b"Z", b"T", b"F") else Status.TRUNCATED if known else Status.MALFORMED
        assert scan(marker) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"N", b"NZ", b"]", b"}", b"$", b"#", b"[}", b"{]", b"[a]", b"[U\1}", b"{U\1a}", b"{U\1aN}", b"{U\1a]", b"{Zx}",
        b"{SU\1aZ}", b"SZ", b"Sd\0\0\0\0", b"SS", b"S]", b"Si\xff", b"SI\0\x80", b"Sl\0\0\0\x80", b"SL" + b"\xff" * 8,
        b"[$", b"[$N#U\1", b"[$]#U\1", b"[$$#U\1", b"[$\0#U\1\0", b"[$U]\1", b"[$UU\1", b"{$N#U\1U\1a", b"[#Z",
        b"[#i\xff", b"[##U\1", b"[#U\1]", b"[#U\1}", b"{#U\1}", b"[$U#i\xff", b"[$S#U\1NU\1a", b"[$[#U\1}", b"{$U#U\1}",
    ],
)  # fmt: skip
def test_malformed(data: bytes) -> None:
    assert scan(data + b"\0" * 16) == Status.MALFORMED


@pytest.mark.parametrize(
    "data",
    [
        b"[$U#[U\2U\2]\1\2\3\4", b"[$U#[$U#U\2\2\2\1\2\3\4", b"[#[U\1]Z", b"{#[U\1]U\1aZ", b"[${U\1aU}#U\1\1",
        b"{${U\1aU}#U\1\1", b"[${#U\1}", b"[#U\0", b"{#U\0", b"{$U#U\0", b"[#L" + bytes(8),
    ],
    ids=repr,
)  # fmt: skip
def test_what_decoders_read_differently(data: bytes) -> None:
    """Dimensions, tables, and a count of 0 where some decoders read one marker too many."""
    assert scan(data) == Status.AMBIGUOUS
    assert scan(b"[U\x30" + data + b"]") == Status.AMBIGUOUS


@pytest.mark.parametrize("marker", [marker for marker, _ in INTEGERS])
@pytest.mark.parametrize("kind", [b"", b"$U", b"$D", b"$S", b"$[", b"$B"], ids=repr)
def test_a_count_of_more_than_there_is(marker: bytes, kind: bytes) -> None:
    most = {b"i": 127, b"U": 255, b"I": 2**15 - 1, b"u": 2**16 - 1, b"l": 2**31 - 1, b"m": 2**32 - 1,
            b"L": 2**63 - 1, b"M": 2**64 - 1}[marker]  # fmt: skip
    for count in {most, most // 2 + 1, most // 8 + 1}:
        assert scan(b"[" + kind + b"#" + length(count, marker) + b"U" * 8) == Status.TRUNCATED
        assert scan(b"S" + length(count, marker) + b"x" * 8) == Status.TRUNCATED
    assert scan(b"{#" + length(most, marker) + b"U\1aZ") == Status.TRUNCATED


@pytest.mark.parametrize("kind", [b"Z", b"T", b"F"])
def test_values_of_no_size_are_at_most_as_many_as_octets(kind: bytes) -> None:
    assert scan(b"[$" + kind + b"#U\5") == 6
    assert scan(b"[$" + kind + b"#U\7") == Status.MALFORMED
    assert scan(b"[$" + kind + b"#M" + b"\xff" * 8) == Status.MALFORMED
    array = b"[$" + kind + b"#U\x40"
    assert scan(b"[" + array * 12 + b"]") == Status.MALFORMED
    assert scan(b"[" + array + b"U\0" * 40 + b"]") == 2 + len(array) + 80


def test_depth() -> None:
    for opening, closing in ((b"[", b"]"), (b"{U\1a", b"}"), (b"[#U\1", b""), (b"[$[#U\1" + b"#U\1", b"")):
        levels = 2 if closing == b"" and b"$" in opening else 1
        count = DEPTH_MAX // levels
        inner = b"Z"
        assert scan(opening * count + inner + closing * count) == len(opening * count + closing * count) + 1
        assert scan(opening * (count + 1) + inner + closing * (count + 1)) == Status.DEPTH
    assert scan(b"[" * 100_000) == Status.DEPTH
    assert scan(b"[" + b"[]" * 1000 + b"]") == 2002


def test_no_ops_are_passed_in_linear_time() -> None:
    assert scan(b"[" + b"N" * 1_000_000 + b"]") == 1_000_002


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, 255, 256, 65536, 2**32, 2**53, 2**63, -1, -129, -40000, -(2**40), 1.5, float("nan"), "", "x",
        "é" * 200, b"", b"abc", b"\0" * 300, [], {}, [[]], {"": {}}, [1, [2, {"a": [b"x", None]}]], 2**70,
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_autobahn_writes(value: Any) -> None:
    data = DUMP[UBJSON]([48, value])
    assert scan(data) == len(data)
    assert probe_wamp_type(UBJSON, GUARDED(data)) == (1, 48, 0)
