"""Properties of the translation, for every value and every octet string: what autobahn reads before and after is the
same value, of the same types and in the same order; there and back is the identity; nothing is read beyond the end.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st

from property.test_gate import cbor_spellings, edit, edits, json_spellings, messages, msgpack_spellings
from proxy._relay import probe_translate, probe_wamp_type
from support.gate import CBOR, JSON, MSGPACK
from support.translation import PAIRS, check_translation, encode, translate

COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

pairs = st.sampled_from(PAIRS)
serializers = st.sampled_from([JSON, MSGPACK, CBOR])

texts = st.text(max_size=40).filter(lambda text: not text.startswith("\0"))
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-300, 300),
    floats,
    texts,
    st.binary(max_size=70),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=20), inner, max_size=30),
    max_leaves=25,
)
# as WAMP messages are: a type, IDs, options, a URI, arguments
wamp = st.builds(
    lambda code, request, options, uri, args, kwargs: [code, request, options, uri, args, kwargs],
    st.sampled_from([8, 16, 32, 36, 48, 50, 68, 70, 337]),
    st.integers(1, 2**53),
    st.dictionaries(texts, scalars, max_size=5),
    texts,
    st.lists(values, max_size=20),
    st.dictionaries(texts, values, max_size=20),
)


@given(pairs, wamp)
@settings(COMMON, max_examples=150)
def test_messages_become_what_the_library_writes(pair: tuple[int, int], message: list[Any]) -> None:
    source, target = pair
    data, wanted = encode(source, message), encode(target, message)
    assert translate(source, target, data) == wanted
    assert translate(target, source, wanted) == data
    assert probe_wamp_type(target, wanted)[:2] == (1, message[0])


@given(pairs, values)
@settings(COMMON, max_examples=150)
def test_values_become_what_the_library_writes(pair: tuple[int, int], value: Any) -> None:
    source, target = pair
    assert translate(source, target, encode(source, value)) == encode(target, value)


@given(pairs, values)
@COMMON
def test_the_limit_is_exact(pair: tuple[int, int], value: Any) -> None:
    source, target = pair
    data, wanted = encode(source, value), encode(target, value)
    assert probe_translate(source, target, data, len(wanted)) == wanted
    assume(len(wanted) > 1)
    with pytest.raises(ValueError, match="ST_TOO_BIG"):
        probe_translate(source, target, data, len(wanted) - 1)


@given(pairs, wamp)
@COMMON
def test_no_prefix_is_translated(pair: tuple[int, int], message: list[Any]) -> None:
    data = encode(pair[0], message)
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"ST_MALFORMED|ST_UNTRANSLATABLE: (text|a num|a bare word|binary)"):
            translate(*pair, data[:size])


@given(values, st.booleans(), st.sampled_from([None, 0, 2, "\t"]))
@COMMON
def test_json_however_it_is_laid_out(value: Any, ascii_only: bool, indent: int | str | None) -> None:
    wanted = json.loads(encode(JSON, value))  # with texts in place of binary data
    data = json.dumps(wanted, ensure_ascii=ascii_only, indent=indent).encode()
    for target in (MSGPACK, CBOR):
        assert translate(JSON, target, data) == encode(target, value)


@given(st.floats())
@settings(COMMON, max_examples=500)
@example(9007199254740993.0)
@example(9999999999999998.0)
@example(1e16)
@example(9.999999999999999e-05)
@example(0.0001)
@example(1e23)
def test_doubles(value: float) -> None:
    data = b"\xfb" + struct.pack(">d", value)
    if not math.isfinite(value):
        with pytest.raises(ValueError, match="not finite"):
            translate(CBOR, JSON, data)
        return
    text = translate(CBOR, JSON, data)
    assert text == repr(value).encode()
    assert translate(JSON, CBOR, text) == data


@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z"))
@settings(COMMON, max_examples=500)
@example("1e400")
@example("-1e-400")
@example("2.4703282292062327e-324")
@example("2.4703282292062328e-324")
@example("1.7976931348623158e308")
@example("1.7976931348623159e308")
@example("0.000000000000000000000000000001e338")
def test_numbers_of_json_are_read_like_python_reads_them(text: str) -> None:
    value = json.loads(text)
    is_fit = math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**64
    if not is_fit:
        with pytest.raises(ValueError, match=r"ST_UNTRANSLATABLE: (an integer of more|a number beyond)"):
            translate(JSON, CBOR, text.encode())
        return
    assert translate(JSON, CBOR, text.encode()) == encode(CBOR, value)


# --- any octets ------------------------------------------------------------------------------------------------------


@given(cbor_spellings)
@settings(COMMON, max_examples=200)
def test_cbor_spelled_by_hand(data: bytes) -> None:
    event(check_translation(CBOR, data))


@given(msgpack_spellings)
@settings(COMMON, max_examples=200)
def test_msgpack_spelled_by_hand(data: bytes) -> None:
    event(check_translation(MSGPACK, data))


@given(json_spellings)
@settings(COMMON, max_examples=200)
def test_json_spelled_by_hand(data: bytes) -> None:
    event(check_translation(JSON, data))


@given(serializers, messages, edits)
@settings(COMMON, max_examples=200)
def test_messages_with_changes(serializer: int, message: list[Any], changes: list[tuple[str, int, int]]) -> None:
    check_translation(serializer, edit(encode(serializer, message), changes))


@given(serializers, wamp, edits)
@settings(COMMON, max_examples=200)
def test_more_messages_with_changes(serializer: int, message: list[Any], changes: list[tuple[str, int, int]]) -> None:
    check_translation(serializer, edit(encode(serializer, message), changes))


@given(serializers, st.binary(max_size=60))
@settings(COMMON, max_examples=200)
def test_any_octets(serializer: int, data: bytes) -> None:
    check_translation(serializer, data)
