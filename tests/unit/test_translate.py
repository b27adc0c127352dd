"""Translation between JSON, MessagePack and CBOR: each rule of docs/translation.md by example."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import cbor2
import msgpack
import pytest

from proxy._relay import probe_scan, probe_translate, probe_wamp_type
from support.gate import CBOR, JSON, MSGPACK
from support.translation import PAIRS, check_direction, encode, pair_name, translate

DEPTH_MAX = 256

# The same value in all three, each in the form that the translation writes: every column becomes every other one.
SAME = [
    # integers: shortest
    ("0", "00", "00"),
    ("23", "17", "17"),
    ("24", "18", "1818"),
    ("127", "7f", "187f"),
    ("128", "cc80", "1880"),
    ("255", "ccff", "18ff"),
    ("256", "cd0100", "190100"),
    ("65535", "cdffff", "19ffff"),
    ("65536", "ce00010000", "1a00010000"),
    ("4294967295", "ceffffffff", "1affffffff"),
    ("4294967296", "cf0000000100000000", "1b0000000100000000"),
    ("9007199254740993", "cf0020000000000001", "1b0020000000000001"),
    ("9223372036854775807", "cf7fffffffffffffff", "1b7fffffffffffffff"),
    ("18446744073709551615", "cfffffffffffffffff", "1bffffffffffffffff"),
    ("-1", "ff", "20"),
    ("-24", "e8", "37"),
    ("-25", "e7", "3818"),
    ("-32", "e0", "381f"),
    ("-33", "d0df", "3820"),
    ("-128", "d080", "387f"),
    ("-129", "d1ff7f", "3880"),
    ("-256", "d1ff00", "38ff"),
    ("-257", "d1feff", "390100"),
    ("-32768", "d18000", "397fff"),
    ("-32769", "d2ffff7fff", "398000"),
    ("-65537", "d2fffeffff", "3a00010000"),
    ("-2147483648", "d280000000", "3a7fffffff"),
    ("-2147483649", "d3ffffffff7fffffff", "3a80000000"),
    ("-9223372036854775808", "d38000000000000000", "3b7fffffffffffffff"),
    # floating point numbers: never an integer, fewest digits
    ("0.0", "cb0000000000000000", "fb0000000000000000"),
    ("-0.0", "cb8000000000000000", "fb8000000000000000"),
    ("5.0", "cb4014000000000000", "fb4014000000000000"),
    ("-1.5", "cbbff8000000000000", "fbbff8000000000000"),
    ("0.1", "cb3fb999999999999a", "fb3fb999999999999a"),
    ("0.0001", "cb3f1a36e2eb1c432d", "fb3f1a36e2eb1c432d"),
    ("1e-05", "cb3ee4f8b588e368f1", "fb3ee4f8b588e368f1"),
    ("9007199254740992.0", "cb4340000000000000", "fb4340000000000000"),
    ("1e+16", "cb4341c37937e08000", "fb4341c37937e08000"),
    ("5e-324", "cb0000000000000001", "fb0000000000000001"),
    ("2.2250738585072014e-308", "cb0010000000000000", "fb0010000000000000"),
    ("-1.7976931348623157e+308", "cbffefffffffffffff", "fbffefffffffffffff"),
    # words
    ("false", "c2", "f4"),
    ("true", "c3", "f5"),
    ("null", "c0", "f6"),
    # texts
    ('""', "a0", "60"),
    ('"a"', "a161", "6161"),
    ('"\\"\\\\/\\b\\f\\n\\r\\t"', "a8225c2f080c0a0d09", "68225c2f080c0a0d09"),
    ('"a\\u0000\\u001f\x7f"', "a461001f7f", "6461001f7f"),
    ('"é€𝄞\u2028"', "acc3a9e282acf09d849ee280a8", "6cc3a9e282acf09d849ee280a8"),
    # binary data
    ('"\\u0000"', "c400", "40"),
    ('"\\u0000AA=="', "c40100", "4100"),
    ('"\\u0000AAE="', "c4020001", "420001"),
    ('"\\u0000AAEC"', "c403000102", "43000102"),
    ('"\\u0000+/8="', "c402fbff", "42fbff"),
    # containers
    ("[]", "90", "80"),
    ("{}", "80", "a0"),
    ("[[],{},[[]]]", "93908091" + "90", "8380a08180"),
    ('{"a":{"b":[1,{}]}}', "81a16181a162920180", "a16161a161628201a0"),
    # order and duplicate keys; names of members are texts, whatever they begin with
    ('{"b":1,"a":2,"b":3}', "83a16201a16102a16203", "a3616201616102616203"),
    ('{"\\u0000a":"\\u0000AA=="}', "81a20061c40100", "a162006141" + "00"),
]


def as_columns(row: tuple[str, str, str]) -> dict[int, bytes]:
    return {JSON: row[0].encode(), MSGPACK: bytes.fromhex(row[1]), CBOR: bytes.fromhex(row[2])}


@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
@pytest.mark.parametrize("row", SAME, ids=lambda row: row[0])
def test_same_value(row: tuple[str, str, str], pair: tuple[int, int]) -> None:
    source, target = pair
    columns = as_columns(row)
    assert translate(source, target, columns[source]) == columns[target]
    check_direction(source, target, columns[source])
    # as element, as value of a member, and with more after it
    wrapped = {
        JSON: b'[%b,{"k":%b},%b]' % (columns[JSON], columns[JSON], columns[JSON]),
        MSGPACK: b"\x93%b\x81\xa1k%b%b" % (columns[MSGPACK], columns[MSGPACK], columns[MSGPACK]),
        CBOR: b"\x83%b\xa1\x61k%b%b" % (columns[CBOR], columns[CBOR], columns[CBOR]),
    }
    assert translate(source, target, wrapped[source]) == wrapped[target]


# Other spellings of a value, read and written in the usual one: (source, octets, target, octets)
READ = [
    # JSON: white space, escapes of any kind, numbers of any form
    (JSON, ' \t\r\n[ 1 , { "a" : 2 } ] \n', CBOR, "8201a1616102"),
    (JSON, "-0", CBOR, "00"),
    (JSON, "1E2", CBOR, "fb4059000000000000"),
    (JSON, "100e-2", CBOR, "fb3ff0000000000000"),
    (JSON, "-0e0", CBOR, "fb8000000000000000"),
    (JSON, "0.30000000000000004", CBOR, "fb3fd3333333333334"),
    (JSON, "1e-400", CBOR, "fb0000000000000000"),
    (JSON, "-1e-400", CBOR, "fb8000000000000000"),
    (JSON, "0e999999999999999999999", CBOR, "fb0000000000000000"),
    (JSON, "0.000" + "0" * 400 + "1", CBOR, "fb0000000000000000"),
    (JSON, "1" + "0" * 400 + "e-400", CBOR, "fb3ff0000000000000"),
    (JSON, '"\\u0041\\/\\u00e9\\u20AC\\ud834\\udd1e"', CBOR, "6b412fc3a9e282acf09d849e"),
    (JSON, '"\\u0000\\u0041A=\\u003d"', CBOR, "4100"),
    (JSON, '"\\u0000\\/\\/\\/\\/"', CBOR, "43ffffff"),
    (JSON, '{"\\u0000\\u0041":1}', CBOR, "a162004101"),
    # MessagePack: wider than needed, single precision
    (MSGPACK, "d90161", CBOR, "6161"),
    (MSGPACK, "da000161", CBOR, "6161"),
    (MSGPACK, "db0000000161", CBOR, "6161"),
    (MSGPACK, "c5000161", CBOR, "4161"),
    (MSGPACK, "c60000000161", CBOR, "4161"),
    (MSGPACK, "dc000101", CBOR, "8101"),
    (MSGPACK, "dd0000000101", CBOR, "8101"),
    (MSGPACK, "de00010102", CBOR, "a10102"),
    (MSGPACK, "df000000010102", CBOR, "a10102"),
    (MSGPACK, "cc01", CBOR, "01"),
    (MSGPACK, "cd0001", CBOR, "01"),
    (MSGPACK, "ce00000001", CBOR, "01"),
    (MSGPACK, "cf0000000000000001", CBOR, "01"),
    (MSGPACK, "d001", CBOR, "01"),
    (MSGPACK, "d10001", CBOR, "01"),
    (MSGPACK, "d200000001", CBOR, "01"),
    (MSGPACK, "d30000000000000001", CBOR, "01"),
    (MSGPACK, "d3ffffffffffffffff", CBOR, "20"),
    (MSGPACK, "ca3fc00000", CBOR, "fa3fc00000"),
    (MSGPACK, "ca3fc00000", JSON, "1.5"),
    (MSGPACK, "ca3dcccccd", JSON, "0.10000000149011612"),
    # CBOR: wider than needed, indefinite, half precision, undefined, tags that say nothing, bignums
    (CBOR, "1b0000000000000001", MSGPACK, "01"),
    (CBOR, "3900" + "00", MSGPACK, "ff"),
    (CBOR, "780161", MSGPACK, "a161"),
    (CBOR, "9b000000000000000101", MSGPACK, "9101"),
    (CBOR, "9fff", MSGPACK, "90"),
    (CBOR, "bfff", MSGPACK, "80"),
    (CBOR, "9f01bf616102ff9fffff", MSGPACK, "930181a1610290"),
    (CBOR, "9f01bf616102ff9fffff", JSON, '[1,{"a":2},[]]'),
    (CBOR, "7fff", MSGPACK, "a0"),
    (CBOR, "7f61616062c3a9ff", MSGPACK, "a361c3a9"),
    (CBOR, "7f61616062c3a9ff", JSON, '"aé"'),
    (CBOR, "7f60612261" + "61ff", JSON, '"\\"a"'),
    (CBOR, "a17f61616162ff01", JSON, '{"ab":1}'),
    (CBOR, "a17f60610061" + "61ff01", JSON, '{"\\u0000a":1}'),
    (CBOR, "5fff", JSON, '"\\u0000"'),
    (CBOR, "5f4100404201024103ff", JSON, '"\\u0000AAECAw=="'),
    (CBOR, "5f4100404201024103ff", MSGPACK, "c40400010203"),
    (CBOR, "f93c00", JSON, "1.0"),
    (CBOR, "f90001", JSON, "5.960464477539063e-08"),
    (CBOR, "f93c00", MSGPACK, "ca3f800000"),
    (CBOR, "f98000", MSGPACK, "ca80000000"),
    (CBOR, "f90001", MSGPACK, "ca33800000"),
    (CBOR, "f903ff", MSGPACK, "ca387fc000"),
    (CBOR, "f90400", MSGPACK, "ca38800000"),
    (CBOR, "f97bff", MSGPACK, "ca477fe000"),
    (CBOR, "f7", MSGPACK, "c0"),
    (CBOR, "82f7f6", JSON, "[null,null]"),
    (CBOR, "d9d9f701", MSGPACK, "01"),
    (CBOR, "82d9d9f7d9d9f78001", JSON, "[[],1]"),
    (CBOR, "c240", MSGPACK, "00"),
    (CBOR, "c34100", MSGPACK, "ff"),
    (CBOR, "c248ffffffffffffffff", JSON, "18446744073709551615"),
    (CBOR, "c24a0000ffffffffffffffff", JSON, "18446744073709551615"),
    (CBOR, "c3487fffffffffffffff", JSON, "-9223372036854775808"),
    (CBOR, "c25f4101404100ff", JSON, "256"),
    (CBOR, "9fc25f4101404100ffff", JSON, "[256]"),
    # between binary serializers, NaN and infinities keep their bits
    (MSGPACK, "cb7ff8000000000001", CBOR, "fb7ff8000000000001"),
    (MSGPACK, "ca7fa00001", CBOR, "fa7fa00001"),
    (CBOR, "fbfff0000000000000", MSGPACK, "cbfff0000000000000"),
    (CBOR, "f97c00", MSGPACK, "ca7f800000"),
    (CBOR, "f97e00", MSGPACK, "ca7fc00000"),
    (CBOR, "f9fc01", MSGPACK, "caff802000"),
    # keys: integers become their decimal text in JSON; between binary serializers anything may be one
    (CBOR, "a2010220f6", JSON, '{"1":2,"-1":null}'),
    (MSGPACK, "82cfffffffffffffffff01a13102", JSON, '{"18446744073709551615":1,"1":2}'),
    (CBOR, "a2014041000a", MSGPACK, "8201c400c401000a"),
    (MSGPACK, "8490018002c003cb3ff000000000000004", CBOR, "a48001a002f603fb3ff000000000000004"),
]


def octets(serializer: int, text: str) -> bytes:
    return text.encode() if serializer == JSON else bytes.fromhex(text)


@pytest.mark.parametrize(("source", "given", "target", "wanted"), READ)
def test_other_spellings(source: int, given: str, target: int, wanted: str) -> None:
    assert translate(source, target, octets(source, given)) == octets(target, wanted)
    check_direction(source, target, octets(source, given))


INTEGER = "an integer of more than 64 bits"
NOT_FINITE = "a number that is not finite"
WORD = "a bare word other than true, false and null"
NUMBER = "a number that is not valid JSON"
RANGE = "a number beyond the range of double precision"
UTF8 = "text that is not valid UTF-8"
SURROGATE = "text with a lone surrogate"
NUL = "text that begins with U+0000, which in JSON is binary data"
BASE64 = "binary data that is not valid Base64"
KEY = "a map key that is neither text nor an integer"
EXT = "a MessagePack extension value"
TAG = "a CBOR tag"
SIMPLE = "a CBOR simple value"

# (source, octets, target, what is refused)
REFUSED = [
    *((JSON, text, CBOR, INTEGER) for text in ("18446744073709551616", "-9223372036854775809", "99999999999999999999")),
    *((JSON, text, CBOR, INTEGER) for text in ("1" + "0" * 20, "9" * 5000, "-18446744073709551616")),
    *((JSON, text, CBOR, WORD) for text in ("NaN", "Infinity", "True", "nul", "nulll", "undefined", "+1", ".5", "e1")),
    *((JSON, text, CBOR, NUMBER) for text in ("-Infinity", "-", "01", "-01", "1.", "1.e5", "1e", "1e+", "1x", "1.5.5")),
    *((JSON, text, CBOR, NUMBER) for text in ("0x10", "1n", "1-", "--1", "00")),
    *((JSON, text, CBOR, RANGE) for text in ("1e309", "-1e309", "1e999999999999999999999", "1" + "0" * 400 + ".0")),
    *((JSON, text, CBOR, SURROGATE) for text in ('"\\ud800"', '"\\udc00"', '"\\ud800\\ud800"', '"\\ud800x"')),
    *((JSON, text, CBOR, SURROGATE) for text in ('"\\ud834\\u0041"', '"\\udd1e\\ud834"', '{"\\ud800":1}')),
    *((JSON, f'"\\u0000{text}"', CBOR, BASE64) for text in ("A", "AA", "AAA", "AAA=A", "====", "A===", "=AAA", "AA=A")),
    *((JSON, f'"\\u0000{text}"', CBOR, BASE64) for text in ("AB==", "AAB=", "A-_A", "AA AAAA", "AAAA\\n", "AA==AAAA")),
    (JSON, '"\\u0000é"', CBOR, BASE64),
    (CBOR, "3b8000000000000000", MSGPACK, INTEGER),
    (CBOR, "3bffffffffffffffff", JSON, INTEGER),
    (CBOR, "c249010000000000000000", MSGPACK, INTEGER),
    (CBOR, "c3488000000000000000", MSGPACK, INTEGER),
    *((CBOR, text, JSON, NOT_FINITE) for text in ("f97e00", "f97c00", "f9fc00", "fa7f800000", "fb7ff0000000000001")),
    *((MSGPACK, text, JSON, NOT_FINITE) for text in ("ca7fc00000", "caff800000", "cb7ff0000000000000")),
    *((MSGPACK, text, JSON, NUL) for text in ("a100", "9181a161a20061", "b3" + "00" * 19)),
    *((CBOR, text, JSON, NUL) for text in ("6100", "7f60620061ff", "73" + "00" * 19)),
    *((MSGPACK, text, CBOR, UTF8) for text in ("a1ff", "a2c080", "a3eda080", "d902c3c3", "b3" + "61" * 18 + "c3")),
    *((MSGPACK, text, JSON, UTF8) for text in ("a1ff", "a2c080", "a3eda080", "d902c3c3", "b3" + "61" * 18 + "c3")),
    *((CBOR, text, JSON, UTF8) for text in ("61ff", "64f4908080", "7f61c361a9ff", "a161ff01")),
    (CBOR, "7f61c361a9ff", MSGPACK, UTF8),
    *((MSGPACK, f"81{key}01", JSON, KEY) for key in ("c0", "c2", "ca3f800000", "c400", "90", "80")),
    *((CBOR, f"a1{key}01", JSON, KEY) for key in ("f6", "f5", "f93c00", "40", "5f4100ff", "80", "9fff", "a0")),
    *((MSGPACK, text, JSON, EXT) for text in ("d40000", "d6ff00000000", "c70000", "c8000000", "c900000000" + "00")),
    *((CBOR, text, MSGPACK, TAG) for text in ("c06a323031332d30332d3231", "c11a514b67b0", "d81c80")),
    *((CBOR, text, JSON, TAG) for text in ("c4820101", "c201", "c261" + "61", "c2d9d9f740", "dbffffffffffffffff00")),
    *((CBOR, text, JSON, SIMPLE) for text in ("e0", "f0", "f3", "f820", "f8ff")),
]  # fmt: skip


@pytest.mark.parametrize(("source", "given", "target", "why"), REFUSED)
def test_refused(source: int, given: str, target: int, why: str) -> None:
    data = octets(source, given)
    wrap = {JSON: b"[1,%b]", MSGPACK: b"\x92\x01%b", CBOR: b"\x82\x01%b"}[source]
    for text in (data, wrap % data):
        with pytest.raises(ValueError) as error:
            translate(source, target, text)
        assert str(error.value) == f"ST_UNTRANSLATABLE: {why}"


def test_refused_text_in_json_that_is_not_utf8() -> None:
    long = b"a" * 20
    for text in (b'"\xff"', b'["%b\xc3"]' % long, b'["\\n\xc3\xa9\\n\xc3"]', b'{"\xed\xa0\x80":1,"%b":1}' % long):
        with pytest.raises(ValueError, match="ST_UNTRANSLATABLE: text that is not valid UTF-8"):
            translate(JSON, CBOR, text)


MALFORMED_JSON = [
    *("", " ", "[", "[1", "[1,", "[1,]", "[,1]", "{", '{"a"', '{"a":', '{"a":1', '{"a":1,}', '{"a",1}', "{1:2}"),
    *("{null:1}", "{[]:1}", "[1}", '{"a":1]', "]", "}", "[1 2]", "1 2", "[]]", '{"a" 1}', "\ufeff[]", "[1]\0"),
    *('"', '"a', '"\\', '"\\"', '"\\x41"', '"\\u12"', '"\\u12g4"', '"a\nb"', '"\0"', "'a'", "/**/1", '"\\n'),
    *('"\\u0000', '"\\u0000AA=='),
]
MALFORMED_BINARY = {
    MSGPACK: """
        c1 91c1 92c0 a16161 a2 81a161 dc dc0002c0 ddffffffff dfffffffff c4 c401 c6ffffffff db7fffffff cd00 cb00 c0c0 9f
    """,
    CBOR: """
        1c 1f 3f 5f 7f 9f bf ff 81ff a100ff bf00ff bf000000ff 5f6100ff 7f4100ff 5f5f4100ffff 5f00ff 5bffffffffffffffff
        9bffffffffffffffff bb8000000000000000 9b8000000000000000 9fd9d9f7ff d9d9f7 0000 19 1900 f9 fb00 6261 c24201
        c25f4101 c25f6101ff d9d9 181800
    """,
}


@pytest.mark.parametrize(
    ("source", "given"),
    [
        *((JSON, text) for text in MALFORMED_JSON),
        *((source, text) for source, texts in MALFORMED_BINARY.items() for text in ["", *texts.split()]),
    ],
)
def test_malformed(source: int, given: str) -> None:
    """What the gate would have refused is refused again, without reading beyond its end."""
    for target in {JSON, MSGPACK, CBOR} - {source}:
        with pytest.raises(ValueError, match=r"^ST_MALFORMED: a value that is not well-formed$"):
            translate(source, target, octets(source, given))


@pytest.mark.parametrize(("source", "target"), [(0, 1), (4, 1), (1, 4), (1, 1), (2, 2), (3, 3), (3, 0)])
def test_only_between_two_of_the_three(source: int, target: int) -> None:
    with pytest.raises(ValueError, match="ST_MALFORMED"):
        probe_translate(source, target, {1: b"1", 2: b"\x01", 3: b"\x01"}.get(source, b"1"))


# --- sizes -----------------------------------------------------------------------------------------------------------

LENGTHS = [0, 1, 15, 16, 17, 23, 24, 31, 32, 33, 255, 256, 257, 65535, 65536, 65537]


def sized(length: int) -> list[Any]:
    """Messages in which something has this length."""
    return [
        "x" * length,
        b"\xfe" * length,
        "é" * (length // 2) + "x" * (length % 2),
        '"' * length,
        [1] * length,
        {str(number): number for number in range(length)},
        [[], {"a": [[None] * length, "a"]}, "b"],
        {"k" * length: 1},
    ]


@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
@pytest.mark.parametrize("length", LENGTHS)
def test_lengths(length: int, pair: tuple[int, int]) -> None:
    """Heads change their width at each of these; what libraries write is the shortest."""
    for value in sized(length):
        data, wanted = encode(pair[0], value), encode(pair[1], value)
        assert probe_translate(*pair, data) == wanted
        # and exactly so many octets are needed
        assert probe_translate(*pair, data, len(wanted)) == wanted
        if len(wanted) > 1:
            with pytest.raises(ValueError, match=r"^ST_TOO_BIG: a message that is too long$"):
                probe_translate(*pair, data, len(wanted) - 1)


@pytest.mark.parametrize("target", [MSGPACK, JSON])
@pytest.mark.parametrize("length", LENGTHS)
def test_indefinite_lengths(length: int, target: int) -> None:
    """CBOR whose containers and strings state no length."""
    text, binary = "x" * length, bytes(length)
    chunks = b"\x7f" + b"".join(cbor2.dumps(text[at : at + 100]) for at in range(0, length, 100)) + b"\xff"
    assert probe_translate(CBOR, target, chunks) == encode(target, text)
    chunks = b"\x5f" + b"".join(cbor2.dumps(binary[at : at + 100]) for at in range(0, length, 100)) + b"\xff"
    assert probe_translate(CBOR, target, chunks) == encode(target, binary)
    assert probe_translate(CBOR, target, b"\x9f" + b"\x01" * length + b"\xff") == encode(target, [1] * length)
    pairs = b"".join(cbor2.dumps(str(number)) + cbor2.dumps(number) for number in range(length))
    wanted = {str(number): number for number in range(length)}
    assert probe_translate(CBOR, target, b"\xbf" + pairs + b"\xff") == encode(target, wanted)


def nested(depth: int, kind: str) -> dict[int, bytes]:
    """Containers in containers, the innermost one empty."""
    if kind == "list":
        return {JSON: b"[" * depth + b"]" * depth, MSGPACK: b"\x91" * (depth - 1) + b"\x90",
                CBOR: b"\x81" * (depth - 1) + b"\x80"}  # fmt: skip
    head = {JSON: b'{"a":' * (depth - 1) + b"{}", MSGPACK: b"\x81\xa1a" * (depth - 1) + b"\x80",
            CBOR: b"\xa1\x61a" * (depth - 1) + b"\xa0"}  # fmt: skip
    head[JSON] += b"}" * (depth - 1)
    return head


@pytest.mark.parametrize("kind", ["list", "map"])
@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
def test_depth(pair: tuple[int, int], kind: str) -> None:
    deep = nested(DEPTH_MAX, kind)
    assert translate(*pair, deep[pair[0]]) == deep[pair[1]]
    with pytest.raises(ValueError, match=r"^ST_DEPTH: a value that is nested too deeply$"):
        translate(*pair, nested(DEPTH_MAX + 1, kind)[pair[0]])


def test_tags_without_meaning_are_no_depth() -> None:
    assert translate(CBOR, JSON, b"\xd9\xd9\xf7" * 10_000 + b"\x01") == b"1"


@pytest.mark.parametrize("target", [MSGPACK, CBOR])
@pytest.mark.parametrize("source", [JSON, CBOR])
@pytest.mark.parametrize("kind", ["list", "map"])
def test_heads_that_are_widened_late(kind: str, source: int, target: int) -> None:
    """Many nested containers, each of which turns out to be long when much stands in it already: that nothing is moved
    over and over again shows in the heads, not in the value."""
    if source == target:
        pytest.skip("no translation")
    text: Any = "x" * 100_000
    octets_ = json.dumps(text).encode() if source == JSON else cbor2.dumps(text)
    for depth in range(DEPTH_MAX - 1):
        more = 300 if depth % 3 == 0 else 20 if depth % 3 == 1 else 3
        if kind == "list":
            text = [text, *range(more)]
        else:
            text = {"a": text, **{str(number): number for number in range(more)}}
        if source == JSON:
            rest = json.dumps(text[1:] if kind == "list" else {k: v for k, v in text.items() if k != "a"}).encode()
            octets_ = (b"[" if kind == "list" else b'{"a":') + octets_ + b"," + rest[1:]
        elif kind == "list":
            octets_ = b"\x9f" + octets_ + b"".join(map(cbor2.dumps, text[1:])) + b"\xff"
        else:
            items = list(text.items())[1:]
            octets_ = b"\xbf\x61a" + octets_ + b"".join(cbor2.dumps(k) + cbor2.dumps(v) for k, v in items) + b"\xff"
    # a message around it, and containers after it
    value = [48, 1, {}, "com.example", [text, [1] * 30, {"a": [2] * 300}]]
    tail = b"[" + b"1," * 29 + b'1],{"a":[' + b"2," * 299 + b"2]}]]"
    if source == JSON:
        octets_ = b'[48,1,{},"com.example",[' + octets_[:-1][:0] + octets_ + b"," + tail
    else:
        octets_ = (
            b"\x85" + b"".join(map(cbor2.dumps, value[:4])) + b"\x9f" + octets_
            + b"\x9f" + b"\x01" * 30 + b"\xff\xbf\x61a\x9f" + b"\x02" * 300 + b"\xff\xff\xff"
        )  # fmt: skip
    deep_limit = pytest.raises(ValueError, match="ST_DEPTH")
    with deep_limit:
        probe_translate(source, target, octets_)
    # two levels less fit
    value[4][0] = peel(peel(text))
    octets_ = encode(source, value) if source == JSON else indefinite(value)
    out = probe_translate(source, target, octets_)
    decoded = msgpack.unpackb(out) if target == MSGPACK else cbor2.loads(out)
    assert decoded == value
    assert probe_wamp_type(target, out) == (1, 48, 5)
    assert probe_scan(target, out) == len(out)
    assert len(encode(target, value)) < len(out) < len(octets_) * 2  # some heads are wider than needed


def peel(value: Any) -> Any:
    """What stands in a container first."""
    return value[0] if isinstance(value, list) else value["a"]


def indefinite(value: Any) -> bytes:
    """CBOR without lengths of containers but for the outermost, which the gate wants to be stated."""

    def write(item: Any) -> bytes:
        if isinstance(item, list):
            return b"\x9f" + b"".join(map(write, item)) + b"\xff"
        if isinstance(item, dict):
            return b"\xbf" + b"".join(write(k) + write(v) for k, v in item.items()) + b"\xff"
        return cbor2.dumps(item)

    return bytes([0x80 + len(value)]) + b"".join(map(write, value))


# --- numbers and binary data, many -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [MSGPACK, CBOR])
def test_integers_around_powers_of_two(target: int) -> None:
    values = [sign * 2**power + step for power in range(65) for sign in (1, -1) for step in (-2, -1, 0, 1, 2)]
    values = [value for value in values if -(2**63) <= value < 2**64]
    data = encode(JSON, values)
    assert translate(JSON, target, data) == encode(target, values)
    assert translate(target, JSON, encode(target, values)) == data


def test_integers_around_powers_of_ten() -> None:
    values = [10**power + step for power in range(20) for step in (-1, 0, 1)]
    assert translate(CBOR, JSON, cbor2.dumps(values)) == encode(JSON, values)


def test_each_half_precision_number() -> None:
    for bits in range(0x10000):
        half = struct.pack(">H", bits)
        (value,) = struct.unpack(">e", half)
        out = translate(CBOR, MSGPACK, b"\xf9" + half)
        assert out[0] == 0xCA
        (single,) = struct.unpack(">f", out[1:])
        assert single == value or (math.isnan(single) and math.isnan(value))
        assert math.copysign(1, single) == math.copysign(1, value)


def test_floats_are_written_like_python_writes_them() -> None:
    values = [mantissa * 10.0**exponent for exponent in range(-30, 30) for mantissa in (1, 1.5, 3, 9.999, 1 / 3, -7)]
    assert translate(CBOR, JSON, cbor2.dumps(values)) == encode(JSON, values)
    assert translate(JSON, CBOR, encode(JSON, values)) == cbor2.dumps(values)


@pytest.mark.parametrize("length", [*range(70), 1000, 1001, 1002])
def test_base64(length: int) -> None:
    data = bytes(number * 37 & 255 for number in range(length))
    text = b'"\\u0000' + base64.b64encode(data) + b'"'
    assert translate(CBOR, JSON, cbor2.dumps(data)) == text
    assert translate(JSON, CBOR, text) == cbor2.dumps(data)
    assert translate(JSON, CBOR, text.replace(b"/", b"\\/").replace(b"A", b"\\u0041")) == cbor2.dumps(data)


def test_each_octet_in_base64() -> None:
    digits = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    for octet in set(range(0x20, 0x80)) - set(b'"\\') - digits:
        for place in range(4):
            text = bytearray(b'"\\u0000AAAAAAAA"')
            text[7 + place] = octet
            with pytest.raises(ValueError, match=BASE64):
                translate(JSON, CBOR, bytes(text))


@pytest.mark.parametrize("place", range(40))
@pytest.mark.parametrize("length", [1, 15, 16, 17, 33, 40])
def test_each_place_in_a_text(length: int, place: int) -> None:
    """Texts are copied by blocks: what must be escaped or checked is found wherever it stands."""
    if place >= length:
        return
    for character in '"\\\n\x01\x1fé€𝄞\x7f':
        text = "x" * place + character + "x" * (length - place - 1)
        for value in (text, [text], [text, text, 1], {text: text}, ["", text, {"a": text}]):
            for source, target in PAIRS:
                assert translate(source, target, encode(source, value)) == encode(target, value)
