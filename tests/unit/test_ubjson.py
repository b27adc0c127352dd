"""The control plane's UBJSON: what autobahn's package reads and writes, and what it must not read."""

from __future__ import annotations

import math
import struct
from decimal import Decimal, InvalidOperation
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import ubjson
from support.gate import DECODERS, DUMP, UBJSON

TEXT = st.text(max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=20)
    | st.decimals(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXT, inner, max_size=8), max_leaves=20
)


def bjdata_loads(data: bytes) -> Any:
    """What autobahn's decoder makes of it."""
    return DECODERS[UBJSON]["autobahn"](data)[0]


@given(VALUES)
def test_reads_what_bjdata_writes(value: Any) -> None:
    assert ubjson.loads(DUMP[UBJSON]([value])) == [value]


@given(VALUES)
def test_bjdata_reads_what_it_writes(value: Any) -> None:
    data = ubjson.dumps([value])
    assert bjdata_loads(data) == [value]
    assert ubjson.loads(data) == [value]


@given(st.recursive(st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=9), st.lists, max_leaves=20))
def test_writes_integers_octets_and_lists_as_bjdata_does(value: Any) -> None:
    assert ubjson.dumps([value]) == DUMP[UBJSON]([value])


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"[NCxNU\1N]", ["x", 1]), (b"[#U\2NZNT", [None, True]), (b"[$i#U\2\xff\1", [-1, 1]),
        (b"[$Z#U\2", [None, None]),
        (b"[$S#U\1U\1a", ["a"]), (b"{$U#i\2U\1a\1U\1b\2", {"a": 1, "b": 2}), (b"{#U\1NU\1a{}", {"a": {}}),
        (b"[$B#U\3abc", b"abc"), (b"[$[#U\2]U\1]", [[], [1]]), (b"{$T#U\1U\1a", {"a": True}), (b"B\xff", 255),
        (b"HU\x031.5", Decimal("1.5")), (b"h\0\x3c", 1.0), (b"d\0\0\x80\x3f", 1.0), (b"{U\1aU\1U\1aU\2}", {"a": 2}),
        (b"M" + b"\xff" * 8, 2**64 - 1), (b"L" + b"\xff" * 8, -1), (b"[$D#U\1" + struct.pack("<d", 1.5), [1.5]),
        (b"{}", {}), (b"{N}", {}), (b"[]", []), (b"[$S#U\0", []),
    ],
    ids=repr,
)  # fmt: skip
def test_every_form(data: bytes, value: Any) -> None:
    assert ubjson.loads(data) == value
    for size in range(len(data)):
        with pytest.raises((ValueError, IndexError, struct.error, InvalidOperation)):
            ubjson.loads(data[:size])


@pytest.mark.parametrize(
    "data",
    [
        b"N", b"[U\1]N", b"[U\1]]", b"]", b"[}", b"{]", b"{Zx}", b"{U\1aN}", b"Si\xff", b"[$U\1", b"[$N#U\1",
        b"[${U\1aU}#U\1\1", b"[$U#[U\1]\1", b"[#[U\1]Z", b"[#i\xff", b"SM" + b"\xff" * 8,
        b"[$B#L" + b"\xff" * 7 + b"\x7f", b"Cxy", b"C\xff", b"[$T#l\0\0\0\x7f", b"[" + b"[$Z#U\x20" * 4 + b"]" * 5,
        b"HU\1x",
    ],
    ids=lambda data: repr(data)[:24],
)  # fmt: skip
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError, struct.error, InvalidOperation)):
        ubjson.loads(data)


def test_depth() -> None:
    deep: list[Any] = []
    for _ in range(ubjson.DEPTH_MAX - 1):
        deep = [deep]
    assert ubjson.loads(ubjson.dumps(deep)) == deep
    with pytest.raises(ValueError, match="nested deeper"):
        ubjson.dumps([deep])
    with pytest.raises(ValueError, match="nested deeper"):
        ubjson.loads(b"[" + ubjson.dumps(deep) + b"]")


def test_values_that_cannot_be_written() -> None:
    for value in (2**64, -(2**63) - 1, {1: 2}, object(), {"a": {1, 2}}):
        with pytest.raises((ValueError, AttributeError)):
            ubjson.dumps(value)
    assert math.isnan(ubjson.loads(ubjson.dumps(math.nan)))


@settings(max_examples=300)
@given(st.binary(max_size=60).map(lambda data: b"[" + data))
def test_random_octets_raise_what_is_documented(data: bytes) -> None:
    try:
        ubjson.loads(data)
    except (ValueError, IndexError, struct.error, InvalidOperation):
        pass
