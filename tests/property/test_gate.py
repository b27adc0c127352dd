"""The property of the gate, for every octet string: what passes as type T is refused by the serializer's decoders, or
read as exactly one message of type T. And of the scanners: they end where the decoders end.

The octet strings come from three sides: messages as libraries write them, such messages with octets changed, and
messages spelled by hand in all the ways a serializer allows, shortest or not.
"""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import cbor2
import msgpack
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from proxy._relay import probe_scan, probe_wamp_type
from support.flat import dump as dump_flat
from support.flat import messages as flat_messages
from support.flat import mutate as mutate_flat
from support.gate import (
    CBOR,
    CONTROLS,
    COUNTED,
    DECODERS,
    DUMP,
    FLATBUFFERS,
    JSON,
    MSGPACK,
    PASSES,
    TO_BACK,
    TO_FRONT,
    UBJSON,
    Guarded,
    Status,
    check_gate,
)

GUARDED = Guarded()
COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

serializers = st.sampled_from([JSON, MSGPACK, CBOR, UBJSON])
directions = st.sampled_from([TO_BACK, TO_FRONT])
CODES = sorted({*PASSES[TO_BACK], *PASSES[TO_FRONT], *CONTROLS[TO_FRONT], 1, 2, 4, 5})
codes = st.sampled_from(CODES) | st.integers(0, 1200)

texts = st.text(max_size=40)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(texts, inner, max_size=20),
    max_leaves=40,
)
messages = st.builds(lambda code, rest: [code, *rest], codes, st.lists(values, max_size=6))


def check(serializer: int, data: bytes) -> None:
    """The property itself."""
    event(check_gate(serializer, data))


# --- as libraries write ----------------------------------------------------------------------------------------------


@given(serializers, messages)
@COMMON
def test_messages_of_libraries_are_understood(serializer: int, message: list[Any]) -> None:
    data = DUMP[serializer](message)
    status, code, elements = probe_wamp_type(serializer, GUARDED(data))
    assert (status, code) == (1, message[0])
    assert elements == (len(message) if serializer in COUNTED else 0)
    check(serializer, data)


@given(messages, st.booleans(), st.sampled_from([None, 0, 2, "\t"]))
@COMMON
def test_json_however_it_is_laid_out(message: list[Any], ascii_only: bool, indent: int | str | None) -> None:
    data = json.dumps(message, ensure_ascii=ascii_only, indent=indent).encode()
    assert probe_wamp_type(JSON, GUARDED(data))[:2] == (1, message[0])
    check(JSON, data)


@given(serializers, values, st.binary(max_size=20))
@COMMON
def test_a_value_ends_where_the_library_ended_it(serializer: int, value: Any, after: bytes) -> None:
    data = DUMP[serializer](value)
    if serializer == JSON and not isinstance(value, list | dict | str):
        after = b""  # a bare scalar ends with the input
    assert probe_scan(serializer, GUARDED(data + after)) == len(data)


@given(serializers, st.lists(values, max_size=6))
@COMMON
def test_no_prefix_is_a_value(serializer: int, value: list[Any]) -> None:
    data = DUMP[serializer](value)
    for size in range(len(data)):
        assert probe_scan(serializer, GUARDED(data[:size])) == Status.TRUNCATED


# --- with octets changed ---------------------------------------------------------------------------------------------

INTERESTING = b'\x00\x01\x06\x17\x18\x19\x1f0123456789[]{},:"\\ \t\n\r+-.eE\xef\xbb\xbf' + bytes(range(0x80, 0x100, 3))
octets = st.integers(0, 255) | st.sampled_from(list(INTERESTING))
edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "repeat", "cut"]),
        st.integers(0, 40) | st.integers(0, 10_000),
        octets,
    ),
    min_size=1,
    max_size=4,
)


def edit(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    """The data after some changes, most of them near its start, where the type is."""
    out = bytearray(data)
    for verb, place, octet in changes:
        at = place % (len(out) + 1)
        if verb == "set":
            out[at : at + 1] = bytes([octet])
        elif verb == "insert":
            out[at:at] = bytes([octet])
        elif verb == "delete":
            del out[at : at + 1 + octet % 4]
        elif verb == "repeat":
            out[at:at] = out[at : at + 1 + octet % 16]
        else:
            del out[at:]
    return bytes(out)


@given(serializers, messages, edits)
@settings(COMMON, max_examples=400)
def test_messages_with_changes(serializer: int, message: list[Any], changes: list[tuple[str, int, int]]) -> None:
    check(serializer, edit(DUMP[serializer](message), changes))


@given(serializers, messages, messages, st.binary(max_size=4))
@COMMON
def test_two_messages_in_one(serializer: int, first: list[Any], second: list[Any], between: bytes) -> None:
    data = DUMP[serializer](first) + between + DUMP[serializer](second)
    assert probe_wamp_type(serializer, GUARDED(data))[0] == Status.TRAILING


@given(serializers, st.binary(max_size=60))
@example(JSON, b"[\x006\x00]\x00")
@example(JSON, b"\x00[\x006\x00]")
def test_any_octets(serializer: int, data: bytes) -> None:
    check(serializer, data)


# --- spelled by hand -------------------------------------------------------------------------------------------------


def mostly(usual: Any, *unusual: Any) -> st.SearchStrategy[Any]:
    """The usual value nine times out of ten, so that several unusual ones seldom hide each other."""
    return st.integers(0, 9).flatmap(lambda die: st.just(usual) if die else st.sampled_from(unusual))


def mostly_codes(write: Callable[[int], Any], unusual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A message type as a library writes it, in three cases out of four."""
    return st.integers(0, 3).flatmap(lambda die: codes.map(write) if die else unusual)


WIDTHS = {0: 24, 1: 2**8, 2: 2**16, 4: 2**32, 8: 2**64}


def cbor_head(major: int, value: int, width: int) -> bytes:
    """Initial octet and argument, in ``width`` octets or the next more that it needs."""
    width = min(w for w, limit in WIDTHS.items() if w >= width and value < limit)
    if width == 0:
        return bytes([major << 5 | value])
    return bytes([major << 5 | (23 + width.bit_length())]) + value.to_bytes(width, "big")


widths = st.sampled_from([0, 0, 0, 1, 2, 4, 8])
cbor_scalars = st.one_of(
    st.builds(cbor_head, st.sampled_from([0, 1]), codes | st.integers(0, 2**64 - 1), widths),
    st.builds(lambda x: b"\xfb" + struct.pack(">d", x), st.sampled_from([6.0, 48.0, 16.5]) | st.floats()),
    st.builds(lambda x: b"\xf9" + struct.pack(">e", x), st.sampled_from([6.0, 48.0, 1.5])),
    st.sampled_from([b"\xf4", b"\xf5", b"\xf6", b"\xf7", b"\xf0", b"\xf8\x30", b"\xf8\x10", b"\xff", b"\x1c"]),
    st.builds(lambda x, w: cbor_head(2, len(x), w) + x, st.binary(max_size=8), widths),
    st.builds(lambda x, w: cbor_head(3, len(x), w) + x, texts.map(str.encode), widths),
    st.builds(
        lambda x: b"\x5f" + b"".join(cbor_head(2, len(c), 0) + c for c in x) + b"\xff", st.lists(st.binary(max_size=4))
    ),
)


def cbor_array(items: list[bytes], width: int, indefinite: bool) -> bytes:
    return b"\x9f" + b"".join(items) + b"\xff" if indefinite else cbor_head(4, len(items), width) + b"".join(items)


def cbor_map(items: list[bytes], width: int, indefinite: bool) -> bytes:
    items = items[: len(items) & ~1]
    return b"\xbf" + b"".join(items) + b"\xff" if indefinite else cbor_head(5, len(items) // 2, width) + b"".join(items)


def cbor_tag(tag: int, width: int, item: bytes) -> bytes:
    return cbor_head(6, tag, width) + item


# bignums, decimals, references, shared and self-described items: all that lets an item stand for another
tags = st.sampled_from([0, 1, 2, 3, 4, 5, 21, 24, 25, 28, 29, 35, 43000, 256, 258, 260, 55799, 2**64 - 1])
cbor_items = st.recursive(
    cbor_scalars,
    lambda inner: st.one_of(
        st.builds(cbor_array, st.lists(inner, max_size=6), widths, st.booleans()),
        st.builds(cbor_map, st.lists(inner, max_size=6), widths, st.booleans()),
        st.builds(cbor_tag, tags, widths, inner),
    ),
    max_leaves=20,
)
cbor_spellings = st.builds(
    lambda before, code, rest, width, indefinite, after: before + cbor_array([code, *rest], width, indefinite) + after,
    mostly(b"", b"\xd9\xd9\xf7", b"\xd8\x1c", b"\xc1"),
    mostly_codes(cbor2.dumps, st.builds(cbor_head, st.just(0), codes, widths) | cbor_items),
    st.lists(cbor_items, max_size=5),
    mostly(0, 1, 2, 4, 8),
    mostly(False, True),
    mostly(b"", b"\xff", b"\x81\x06"),
)


@given(cbor_spellings)
@settings(COMMON, max_examples=300)
def test_cbor_spelled_by_hand(data: bytes) -> None:
    check(CBOR, data)


def msgpack_uint(value: int, form: int) -> bytes:
    """A number as fixint, uint or int of any width that holds it."""
    forms = [bytes([value])] if value < 128 else []
    for power, (unsigned, signed) in enumerate(zip("BHIQ", "bhiq", strict=True)):
        if value < 1 << (8 << power):
            forms.append(struct.pack(f">B{unsigned}", 0xCC + power, value))
        if value < 1 << ((8 << power) - 1):
            forms.append(struct.pack(f">B{signed}", 0xD0 + power, value))
    return forms[form % len(forms)]


def msgpack_array(items: list[bytes], form: int, first: int = 0x90) -> bytes:
    """Array (or, by ``first`` and pairs, map) with a header of any width that holds its size."""
    count = len(items) if first == 0x90 else len(items) // 2
    body = b"".join(items if first == 0x90 else items[: count * 2])
    long = 0xDC if first == 0x90 else 0xDE
    heads = [bytes([first | count])] if count < 16 else []
    heads += [struct.pack(">BH", long, count), struct.pack(">BI", long + 1, count)]
    return heads[form % len(heads)] + body


def msgpack_ext(kind: int, body: bytes, form: int) -> bytes:
    heads = [struct.pack(">BBb", 0xC7, len(body), kind), struct.pack(">BHb", 0xC8, len(body), kind)]
    heads.append(struct.pack(">BIb", 0xC9, len(body), kind))
    if len(body) in (1, 2, 4, 8, 16):
        heads.append(struct.pack(">Bb", 0xD3 + len(body).bit_length(), kind))
    return heads[form % len(heads)] + body


forms = st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4, 5])
msgpack_items = st.recursive(
    st.one_of(
        scalars.map(msgpack.packb),
        st.builds(msgpack_uint, codes, forms),
        st.builds(msgpack_ext, st.sampled_from([-1, 0, 5]), st.binary(max_size=17), forms),
        st.sampled_from([b"\xc1", b"\xca\x42\x40\x00\x00", b"\xc4\x01\x30", b"\xd9\x0248"]),
    ),
    lambda inner: st.one_of(
        st.builds(msgpack_array, st.lists(inner, max_size=6), forms),
        st.builds(msgpack_array, st.lists(inner, max_size=6), forms, st.just(0x80)),
    ),
    max_leaves=20,
)
msgpack_spellings = st.builds(
    lambda code, rest, form, after: msgpack_array([code, *rest], form) + after,
    mostly_codes(msgpack.packb, st.builds(msgpack_uint, codes, forms) | msgpack_items),
    st.lists(msgpack_items, max_size=5) | st.lists(st.just(b"\xc0"), min_size=14, max_size=17),
    mostly(0, 1, 2),
    mostly(b"", b"\xc0", b"\x91\x06"),
)


@given(msgpack_spellings)
@settings(COMMON, max_examples=300)
def test_msgpack_spelled_by_hand(data: bytes) -> None:
    check(MSGPACK, data)


spaces = mostly("", " ", "\n", "\t\r\n ") | mostly("", " ", "\0", "\v", "\u00a0", "\ufeff", "/**/")
numbers = st.sampled_from(
    [
        "48",
        "48",
        "6",
        "6",
        "1",
        "016",
        "48.0",
        "48e0",
        "+6",
        "-0",
        "0",
        "6n",
        "٤٨",
        '"48"',
        "4294967302",
        "1" * 5000,
        "NaN",
        "0x6",
    ]
)
json_items = st.recursive(
    st.one_of(
        scalars.map(json.dumps),
        numbers,
        st.sampled_from(
            ['"\\u0000YWJj"', '"\\"', '"\\\\"', '"\\u12"', '"\x1e"', '"\0"', "'a'", "undefined", '"\\ud800"', ""]
        ),
    ),
    lambda inner: st.one_of(
        st.builds(lambda items, space: f"[{space}{','.join(items)}]", st.lists(inner, max_size=4), spaces),
        st.builds(
            lambda items, space: "{" + ",".join(f'"{i}"{space}:{item}' for i, item in enumerate(items)) + "}",
            st.lists(inner, max_size=4),
            spaces,
        ),
    ),
    max_leaves=10,
)
json_spellings = st.builds(
    lambda space, code, rest, encoding, after: (
        space[0] + "[" + space[1] + code + space[2] + "".join("," + item for item in rest) + space[3] + "]" + after
    ).encode(encoding, "surrogatepass"),
    st.tuples(spaces, spaces, spaces, spaces),
    mostly_codes(str, numbers | json_items),
    st.lists(json_items, max_size=4),
    mostly("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"),
    mostly("", " ", "\n", "\0", "[6]", ",", "]", "\x1e", "\x18[6]\x18"),
)


@given(json_spellings)
@settings(COMMON, max_examples=300)
def test_json_spelled_by_hand(data: bytes) -> None:
    check(JSON, data)


UBJSON_MARKERS = dict(zip([b"U", b"u", b"m", b"M", b"i", b"I", b"l", b"L", b"B"], "BHIQbhiqB", strict=True))


def ubjson_int(value: int, form: int) -> bytes:
    """A number of any width, signed or not, that holds it."""
    forms = []
    for marker, kind in UBJSON_MARKERS.items():
        try:
            forms.append(marker + struct.pack("<" + kind, value))
        except struct.error:
            continue
    return forms[form % len(forms)]


def ubjson_container(items: list[bytes], brackets: bytes, counted: bool, noops: list[int]) -> bytes:
    """Open or counted, with no-ops in front of the items."""
    body = b"".join(b"N" * noop + item for noop, item in zip([*noops, *[0] * len(items)], items, strict=False))
    count = b"#" + ubjson_int(len(items), len(items)) if counted else b""
    return brackets[:1] + count + body + (b"" if counted else brackets[1:])


def ubjson_typed(kind: bytes, count: int, form: int, body: bytes, brackets: bytes) -> bytes:
    return brackets[:1] + b"$" + kind + b"#" + ubjson_int(count, form) + body


ubjson_forms = st.integers(0, 8)
ubjson_noops = st.lists(st.sampled_from([0, 0, 0, 1, 3]), max_size=3)
ubjson_keys = st.builds(lambda text, form: ubjson_int(len(text), form) + text, texts.map(str.encode), ubjson_forms)
ubjson_leaves = st.one_of(
    scalars.map(DUMP[UBJSON]),
    st.builds(ubjson_int, codes, ubjson_forms),
    st.builds(lambda key: b"S" + key, ubjson_keys),
    st.sampled_from([b"HU\x0248", b"HU\0", b"h\0\x3c", b"d\0\0\x40\x42", b"C0", b"C\xff", b"N", b"", b"SU\1x"]),
    st.builds(
        ubjson_typed,
        st.sampled_from([b"U", b"i", b"B", b"Z", b"T", b"S", b"[", b"D", b"N", b"C", b"{", b"{U\1aU}"]),
        st.integers(0, 9),
        ubjson_forms,
        st.binary(max_size=12) | st.just(b"U\1a" * 9) | st.just(b"]" * 9),
        st.sampled_from([b"[]", b"{}"]),
    ),
    st.sampled_from([b"[#[U\1U\2]ZZ", b"[$U#[U\1U\2]ab", b"[$U#[$U#U\2\1\2ab"]),
)
ubjson_items = st.recursive(
    ubjson_leaves,
    lambda inner: st.one_of(
        st.builds(ubjson_container, st.lists(inner, max_size=5), st.just(b"[]"), st.booleans(), ubjson_noops),
        st.builds(
            ubjson_container,
            st.lists(st.builds(lambda key, item: key + item, ubjson_keys, inner), max_size=4),
            st.just(b"{}"),
            st.booleans(),
            ubjson_noops,
        ),
    ),
    max_leaves=15,
)
ubjson_spellings = st.builds(
    lambda before, code, rest, counted, noops, after: (
        before + ubjson_container([code, *rest], b"[]", counted, noops) + after
    ),
    mostly(b"", b"N", b"[", b"$U"),
    mostly_codes(DUMP[UBJSON], st.builds(ubjson_int, codes, ubjson_forms) | ubjson_items),
    st.lists(ubjson_items, max_size=5),
    mostly(False, True),
    mostly([], [1], [0, 2]),
    mostly(b"", b"N", b"]", b"[U\6]"),
)


@given(ubjson_spellings)
@settings(COMMON, max_examples=400)
def test_ubjson_spelled_by_hand(data: bytes) -> None:
    check(UBJSON, data)


FLAT = {name: dump_flat(item) for name, item in flat_messages().items()}


@given(st.sampled_from(sorted(FLAT)), st.integers(0, 2**32 - 1))
@settings(COMMON, max_examples=400)
def test_flatbuffers_with_changes(name: str, seed: int) -> None:
    check(FLATBUFFERS, mutate_flat(FLAT[name], random.Random(seed)))


@given(st.sampled_from(sorted(FLAT)), edits)
@settings(COMMON, max_examples=200)
def test_flatbuffers_with_octets_changed(name: str, changes: list[tuple[str, int, int]]) -> None:
    check(FLATBUFFERS, edit(FLAT[name], changes))


@given(st.binary(max_size=80))
@COMMON
def test_any_octets_as_flatbuffers(data: bytes) -> None:
    check(FLATBUFFERS, data)


# --- scanners against decoders ---------------------------------------------------------------------------------------


@given(values.map(DUMP[JSON]) | json_spellings, edits)
@settings(COMMON, max_examples=300)
def test_the_json_scanner_takes_what_the_decoder_takes(data: bytes, changes: list[tuple[str, int, int]]) -> None:
    data = edit(data, changes)
    try:
        json.loads(data.decode())
    except (ValueError, RecursionError):
        return
    length = probe_scan(JSON, GUARDED(data))
    assert length > 0
    assert not data[length:].strip(b" \t\r\n")


@given(msgpack_items, edits)
@settings(COMMON, max_examples=300)
def test_the_msgpack_scanner_takes_what_the_decoder_takes(data: bytes, changes: list[tuple[str, int, int]]) -> None:
    data = edit(data, changes)
    try:
        msgpack.unpackb(data, raw=True, strict_map_key=False)
    except Exception:
        return
    assert probe_scan(MSGPACK, GUARDED(data)) == len(data)


@given(cbor_items, edits)
@settings(COMMON, max_examples=300)
def test_the_cbor_scanner_takes_what_the_decoder_takes(data: bytes, changes: list[tuple[str, int, int]]) -> None:
    data = edit(data, changes)
    source = io.BytesIO(data)
    try:
        cbor2.CBORDecoder(source, read_size=1).decode()
    except Exception:
        return
    assert probe_scan(CBOR, GUARDED(data)) == source.tell()


@given(ubjson_items, edits)
@settings(COMMON, max_examples=400)
def test_the_ubjson_scanner_takes_what_the_decoder_takes(data: bytes, changes: list[tuple[str, int, int]]) -> None:
    """Without counts: with them some things are refused that this decoder takes. The unit tests have them."""
    data = b"[" + edit(data, changes).replace(b"#", b"") + b"]"
    try:
        DECODERS[UBJSON]["autobahn"](data)
    except Exception:
        return
    assert probe_scan(UBJSON, GUARDED(data)) > 0
