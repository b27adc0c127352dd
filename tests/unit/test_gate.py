"""The WAMP gate: which types pass in which direction, and which spellings of a type are refused."""

from __future__ import annotations

import struct

import msgpack
import pytest

from proxy._relay import probe_wamp_plan, probe_wamp_type
from support.gate import (
    CBOR,
    COUNTED,
    DUMP,
    JSON,
    MSGPACK,
    PASS,
    SERIALIZERS,
    TO_BACK,
    TO_FRONT,
    UBJSON,
    Guarded,
    Status,
    check_reading,
    expected_plan,
)

GUARDED = Guarded()


def plan(serializer: int, data: bytes, direction: int = TO_BACK) -> int:
    return probe_wamp_plan(serializer, direction, GUARDED(data))[0]


def scalars() -> list[tuple[str, bytes, bytes, bytes]]:
    """The same value that is no type, for each serializer."""
    return [
        ("text", b'"48"', b"\xa248", b"\x6248"),
        ("null", b"null", b"\xc0", b"\xf6"),
        ("true", b"true", b"\xc3", b"\xf5"),
        ("list", b"[48]", b"\x91\x30", b"\x81\x18\x30"),
        ("map", b"{}", b"\x80", b"\xa0"),
        ("negative", b"-48", b"\xd0\xd0", b"\x38\x2f"),
        ("float", b"48.0", b"\xcb" + struct.pack(">d", 48), b"\xfb" + struct.pack(">d", 48)),
    ]


@pytest.mark.parametrize("direction", [TO_BACK, TO_FRONT], ids=["to_back", "to_front"])
@pytest.mark.parametrize("serializer", SERIALIZERS.values(), ids=SERIALIZERS)
def test_the_table(serializer: int, direction: int) -> None:
    """Every code up to beyond the extension range, written as the serializer's library writes it."""
    for code in range(1100):
        data = DUMP[serializer]([code, 1, {}, "com.example.echo"])
        status, found, elements = probe_wamp_plan(serializer, direction, GUARDED(data))
        assert (status, found) == (expected_plan(direction, code), code)
        assert elements == (4 if serializer in COUNTED else 0)
        assert probe_wamp_type(serializer, GUARDED(data))[:2] == (1, code)


@pytest.mark.parametrize("serializer", SERIALIZERS.values(), ids=SERIALIZERS)
def test_the_type_may_be_alone(serializer: int) -> None:
    assert plan(serializer, DUMP[serializer]([48])) == PASS


@pytest.mark.parametrize("serializer", SERIALIZERS.values(), ids=SERIALIZERS)
@pytest.mark.parametrize("value", [{}, {"48": 1}, [], "48", 48, 0, None, True, -1, 1.5], ids=repr)
def test_what_is_no_message(serializer: int, value: object) -> None:
    assert plan(serializer, DUMP[serializer](value)) == Status.MALFORMED


@pytest.mark.parametrize("row", scalars(), ids=lambda row: row[0])
def test_a_type_that_is_no_unsigned_integer(row: tuple[str, bytes, bytes, bytes]) -> None:
    assert plan(JSON, b"[" + row[1] + b",1]") == Status.AMBIGUOUS
    assert plan(MSGPACK, b"\x92" + row[2] + b"\x01") == Status.AMBIGUOUS
    assert plan(CBOR, b"\x82" + row[3] + b"\x01") == Status.AMBIGUOUS


def test_an_unknown_serializer() -> None:
    assert plan(0, b"[48]") == Status.MALFORMED
    assert plan(6, b"[48]") == Status.MALFORMED


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["[48,1]", " [48,1]", "[ 48,1]", "[48 ,1]", "\t\r\n [\t\r\n 48\t\r\n ,1]\t\r\n ", "[48]", "[48 ]", "[48\n]\n"],
)
def test_json_white_space(text: str) -> None:
    assert plan(JSON, text.encode()) == PASS
    assert check_reading(JSON, text.encode(), 48) == 3


@pytest.mark.parametrize(
    "number",
    [
        "48.0", "48.", "48e0", "48E0", "480e-1", "4.8e1", "+48", "-48", "048", "0048", "00", "0x30", "0b1", "0o60",
        "4 8", "4_8",
        "48n", "48L", "48u", "'48'", '"48"', "NaN", "Infinity", "-0", "true", "null", "[48]", "{}", "48;", "48:",
        "48}", "(48)",
        "10048", "00048", "4294967344", "18446744073709551664", "48" + "0" * 5000, "\u0664\u0668", "4\u0668",
        "\uff14\uff18",
        "/**/48", "48/**/", "48\0", "\x0048", "4\x008", "48\v", "\f48", "\xa048", "48\u2028", "\ufeff48",
    ],
)  # fmt: skip
def test_json_spellings_that_are_refused(number: str) -> None:
    assert plan(JSON, f"[{number},1]".encode()) == Status.AMBIGUOUS


@pytest.mark.parametrize("head", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"\0\0\0", b"\0\0\xfe\xff"])
def test_json_byte_order_marks_and_nuls(head: bytes) -> None:
    assert plan(JSON, head + b"[48,1]") == Status.AMBIGUOUS


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig", "utf-7"]
)
def test_json_in_other_encodings(encoding: str) -> None:
    """Python's json reads all but the last of these as a message."""
    data = '[48,1,{},"com.example.ä"]'.encode(encoding)
    assert plan(JSON, data) == (Status.AMBIGUOUS if encoding != "utf-7" else PASS)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", Status.TRUNCATED), (" ", Status.TRUNCATED), ("[", Status.TRUNCATED), ("[4", Status.TRUNCATED),
        ("[48", Status.TRUNCATED), ("[48 ", Status.TRUNCATED), ("[48,", Status.TRUNCATED),
        ("[48,1", Status.TRUNCATED),
        ("[]", Status.MALFORMED), ("[ ]", Status.MALFORMED), ("x", Status.MALFORMED), ("[48,]", Status.MALFORMED),
        ("[48,1}", Status.MALFORMED), ("[48,\0]", Status.MALFORMED), ("[48,1,]", Status.MALFORMED),
        ('[48,"\n"]', Status.MALFORMED),
        ("[48][6]", Status.TRAILING), ("[48] [6]", Status.TRAILING), ("[48]\x1e", Status.TRAILING),
        ("[48]\x18[6]", Status.TRAILING),
        ("[48]\0", Status.TRAILING), ("[48],", Status.TRAILING), ("[48]//", Status.TRAILING),
        ("[48]\ufeff", Status.TRAILING),
        ("[48," + "[" * 300, Status.DEPTH),
    ],
)  # fmt: skip
def test_json_what_is_no_single_text(text: str, status: Status) -> None:
    assert plan(JSON, text.encode()) == status


# --- MessagePack -----------------------------------------------------------------------------------------------------

REST = b"\x01\x80\xa1a"


@pytest.mark.parametrize(
    "spelling",
    [
        b"\xcc\x30", b"\xcd\x00\x30", b"\xce\x00\x00\x00\x30", b"\xcf\x00\x00\x00\x00\x00\x00\x00\x30",
        b"\xd0\x30", b"\xd1\x00\x30", b"\xd2\x00\x00\x00\x30", b"\xd3\x00\x00\x00\x00\x00\x00\x00\x30",
        b"\xca\x42\x40\x00\x00", b"\xcb\x40\x48\x00\x00\x00\x00\x00\x00", b"\xd4\x00\x30",
        b"\xd6\xff\x00\x00\x00\x30",
        b"\xc7\x01\x05\x30", b"\xc4\x01\x30", b"\xa1\x30", b"\xd9\x010", b"\xe0", b"\xff", b"\xc0", b"\xc1", b"\xc2",
        b"\xc3",
        b"\xcc\x7f", b"\xcd\x00\xff", b"\xce\x00\x01\x00\x30", b"\xd1\x01\x51", b"\xce\x00\x00\x01\x51",
    ],
)  # fmt: skip
def test_msgpack_spellings_that_are_refused(spelling: bytes) -> None:
    assert plan(MSGPACK, b"\x94" + spelling + REST) == Status.AMBIGUOUS


def test_msgpack_array_headers() -> None:
    assert plan(MSGPACK, b"\xdc\x00\x04\x30" + REST) == Status.AMBIGUOUS
    assert plan(MSGPACK, b"\xdc\x00\x0f\x30" + b"\xc0" * 14) == Status.AMBIGUOUS
    assert plan(MSGPACK, b"\xdd\x00\x00\x00\x04\x30" + REST) == Status.AMBIGUOUS
    assert plan(MSGPACK, b"\xdd\x00\x00\xff\xff\x30" + b"\xc0" * 65534) == Status.AMBIGUOUS
    assert plan(MSGPACK, b"\xdc\x00\x00") == Status.AMBIGUOUS
    for size in (1, 15, 16, 65535, 65536):
        data = msgpack.packb([48] + [None] * (size - 1))
        assert probe_wamp_plan(MSGPACK, TO_BACK, GUARDED(data)) == (PASS, 48, size)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", Status.TRUNCATED), (b"\x94", Status.TRUNCATED), (b"\xdc", Status.TRUNCATED),
        (b"\xdd\0\1\0", Status.TRUNCATED),
        (b"\x94\xcd\x01", Status.TRUNCATED), (b"\x94\x30\x01\x80", Status.TRUNCATED),
        (b"\xdd\xff\xff\xff\xff\x30", Status.TRUNCATED),
        (b"\x90", Status.MALFORMED), (b"\x91\x30\x90", Status.TRAILING), (b"\x91\x30\xc1", Status.TRAILING),
        (b"\x92\x30\xc1", Status.MALFORMED),
        (b"\x81\x30\x01", Status.MALFORMED), (b"\xc9\0\0\0\1\5\x91\x30", Status.MALFORMED),
        (b"\xc4\2\x91\x30", Status.MALFORMED),
        (b"\x92\x30" + b"\x91" * 300, Status.DEPTH),
    ],
)  # fmt: skip
def test_msgpack_what_is_no_single_value(data: bytes, status: Status) -> None:
    assert plan(MSGPACK, data) == status


# --- CBOR ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        "190030", "1a00000030", "1b0000000000000030", "1817", "1900ff", "1a00010030", "382f", "20", "f95200",
        "fa42400000",
        "fb4048000000000000", "c11830", "c24130", "c2581830", "c4821830", "d81c1830", "d81d00", "d9d9f71830", "4130",
        "6130", "623438",
        "5f4130ff", "f6", "f7", "f5", "f0", "f830", "8130", "811830", "a0", "1c", "1f", "ff", "9f1830ff",
    ],
)  # fmt: skip
def test_cbor_spellings_that_are_refused(spelling: str) -> None:
    assert plan(CBOR, b"\x82" + bytes.fromhex(spelling) + b"\x01") == Status.AMBIGUOUS


@pytest.mark.parametrize(
    "head", ["9801", "990001", "9a00000001", "9b0000000000000001", "9817", "9900ff", "9a0000ffff", "9800", "9f"]
)
def test_cbor_array_headers_that_are_refused(head: str) -> None:
    assert plan(CBOR, bytes.fromhex(head) + b"\x18\x30" + b"\x00" * 22 + b"\xff") == Status.AMBIGUOUS


@pytest.mark.parametrize("tag", ["c0", "d818", "d81c", "d81d", "d90100", "d90102", "d9d9f7", "dbffffffffffffffff"])
def test_cbor_tags_before_the_message(tag: str) -> None:
    """Self-described CBOR too: most decoders would look through it."""
    assert plan(CBOR, bytes.fromhex(tag) + b"\x81\x18\x30") == Status.AMBIGUOUS


def test_cbor_array_sizes() -> None:
    for size in (1, 23, 24, 255, 256, 65535, 65536):
        data = DUMP[CBOR]([48] + [None] * (size - 1))
        assert probe_wamp_plan(CBOR, TO_BACK, GUARDED(data)) == (PASS, 48, size)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", Status.TRUNCATED), ("82", Status.TRUNCATED), ("8218", Status.TRUNCATED), ("821830", Status.TRUNCATED),
        ("98", Status.TRUNCATED),
        ("9a0001", Status.TRUNCATED), ("9affffffff1830", Status.TRUNCATED), ("811901", Status.TRUNCATED),
        ("80", Status.MALFORMED),
        ("811830ff", Status.TRAILING), ("81183080", Status.TRAILING), ("821830ff", Status.MALFORMED),
        ("8218301c", Status.MALFORMED),
        ("a1183001", Status.MALFORMED), ("43811830", Status.MALFORMED), ("5f43811830ff", Status.MALFORMED),
        ("f7", Status.MALFORMED),
        ("821830" + "81" * 300, Status.DEPTH), ("821830" + "c1" * 300, Status.DEPTH),
    ],
)  # fmt: skip
def test_cbor_what_is_no_single_item(text: str, status: Status) -> None:
    assert plan(CBOR, bytes.fromhex(text)) == status


def test_cbor_takes_anything_well_formed_after_the_type() -> None:
    rests = "d9d9f700 9f01ff bf0001ff 5f4100ff 7f6100ff 1b0000000000000001 f97e00 f7 d81c80 d81d00"
    for rest in map(bytes.fromhex, rests.split(" ")):
        data = b"\x82\x18\x30" + rest
        assert plan(CBOR, data) == PASS
        check_reading(CBOR, data, 48)


# --- UBJSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        b"i\x30", b"B\x30", b"C0", b"I\x30\0", b"u\x30\0", b"u\xff\0", b"l\x30\0\0\0", b"m\x30\0\0\0",
        b"L\x30" + bytes(7), b"M\x30" + bytes(7), b"h\x30\0", b"d\0\0\x40\x42", b"D" + struct.pack("<d", 48),
        b"HU\x0248", b"SU\x0248",
        b"NU\x30", b"I\x51\x01", b"I\x01\x51", b"m\x51\x01\0\0", b"Z", b"T", b"F", b"[U\x30]", b"{}", b"[$B#U\x01\x30",
        b"#U\x01U\x30",
        b"$U#U\x02\x30", b"#[U\x01]U\x30", b"$[#U\x01",
    ],
)  # fmt: skip
def test_ubjson_spellings_that_are_refused(spelling: bytes) -> None:
    assert plan(UBJSON, b"[" + spelling + b"U\x01]") == Status.AMBIGUOUS


def test_ubjson_types_are_little_endian() -> None:
    assert probe_wamp_plan(UBJSON, TO_BACK, GUARDED(b"[u\x51\x01U\x01]"))[:2] == (PASS, 337)
    assert probe_wamp_plan(UBJSON, TO_BACK, GUARDED(b"[u\x01\x51U\x01]"))[:2] == (Status.FORBIDDEN, 0x5101)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", Status.TRUNCATED), (b"[", Status.TRUNCATED), (b"[U", Status.TRUNCATED), (b"[U0", Status.TRUNCATED),
        (b"[u", Status.TRUNCATED), (b"[uQ", Status.TRUNCATED), (b"[uQ\x01", Status.TRUNCATED),
        (b"[U0U\1", Status.TRUNCATED), (b"[]", Status.MALFORMED), (b"{U0Z}", Status.MALFORMED),
        (b"U0", Status.MALFORMED),
        (b"N[U0]", Status.AMBIGUOUS), (b"[U0}", Status.MALFORMED), (b"[U0][U\6]", Status.TRAILING),
        (b"[U0]N", Status.TRAILING), (b"[U0]\0", Status.TRAILING), (b"[U0" + b"[" * 300, Status.DEPTH),
        (b"[U0[#U\0]", Status.AMBIGUOUS), (b"[U0[$U#[U\1]\0]", Status.AMBIGUOUS),
    ],
)  # fmt: skip
def test_ubjson_what_is_no_single_value(data: bytes, status: Status) -> None:
    assert plan(UBJSON, data) == status


def test_ubjson_takes_anything_well_formed_after_the_type() -> None:
    for rest in (b"NN", b"[$B#U\1x", b"[$U#i\2ab", b"{#U\1U\1aZ", b"[$Z#U\3", b"HU\x011", b"h\0\0", b"M" + b"\xff" * 8):
        data = b"[U0" + rest + b"]"
        assert plan(UBJSON, data) == PASS
        check_reading(UBJSON, data, 48)
