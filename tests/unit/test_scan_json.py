"""The JSON scanner: where one value ends, and what is no value."""

from __future__ import annotations

import json

import pytest

from proxy._relay import probe_scan
from support.gate import JSON, Guarded, Status

GUARDED = Guarded()
DEPTH_MAX = 256


def scan(text: str | bytes) -> int:
    data = text.encode() if isinstance(text, str) else text
    return probe_scan(JSON, GUARDED(data))


WHOLE = [
    "[]",
    "{}",
    "[[]]",
    '{"a":{}}',
    '""',
    '"a"',
    "[1,2,3]",
    '[1,"a",null,true,false,-1.5e+10,NaN,Infinity,-Infinity]',
    '{"a":1,"b":[1,{"c":"d"}],"":{}}',
    ' \t\r\n[ \t\r\n1 \t\r\n, \t\r\n{ \t\r\n"a" \t\r\n: \t\r\n1 \t\r\n} \t\r\n]',
    '["\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\uD83D\\uDE00\\uabCD"]',
    '["[", "]", "{", "}", ",", ":", "\\"]"]',
    '["ÄÖÜ € \U0001f600 \x7f"]',
]


@pytest.mark.parametrize("text", WHOLE)
def test_takes_the_whole_value(text: str) -> None:
    assert scan(text) == len(text.encode())


@pytest.mark.parametrize("text", WHOLE)
def test_ends_where_the_value_ends(text: str) -> None:
    for after in (",", "]", "[]", " ", "\0", "x"):
        assert scan(text + after) == len(text.encode())


@pytest.mark.parametrize("text", WHOLE)
def test_every_cut_is_truncated(text: str) -> None:
    data = text.encode()
    for size in range(len(data)):
        assert scan(data[:size]) == Status.TRUNCATED


@pytest.mark.parametrize(
    "text",
    [
        "]", "}", ",", ":", "[,]", "[1,]", "[,1]", "[1 2]", "[1,,2]", "[1}", "{1}", '{"a"}', '{"a",1}', '{"a":}',
        '{"a":1,}',
        '{"a":1]', '{"a" 1}', "{1:2}", "{[]:1}", '{{}:1}', '["a":1]', "[:]", "[1]x"[:0] + "{,}", "'a'", "[/**/]",
        "[#]",
        "[\0]", "\0[]", "[1\0]", "[\v1]", "[\f1]", "\ufeff[]", "[\u00a01]", "[\x7f]",
    ],
)  # fmt: skip
def test_refuses_what_has_no_structure(text: str) -> None:
    assert scan(text) == Status.MALFORMED


@pytest.mark.parametrize("control", range(0x20))
def test_refuses_raw_control_characters_in_strings(control: int) -> None:
    for fill in (0, 1, 14, 15, 16, 17, 40):
        assert scan(b'["' + b"a" * fill + bytes([control]) + b'"]') == Status.MALFORMED


@pytest.mark.parametrize(
    "escape", ["\\x", "\\'", "\\0", "\\u12x4", '\\u"', "\\u 123", "\\u+123", "\\U0041", "\\\n", "\\\0"]
)
def test_refuses_unknown_escapes(escape: str) -> None:
    assert scan(f'["{escape}____"]') == Status.MALFORMED


@pytest.mark.parametrize("stop", [b'"', b"\\n", b"\x01"])
def test_finds_the_end_of_a_string_at_every_offset(stop: bytes) -> None:
    """Across the borders of the vector registers, both with and without octets after the string."""
    for before in range(70):
        for after in (0, 1, 15, 16, 17, 33):
            if stop == b'"':
                data = b'"' + b"x" * before + b'"' + b"y" * after
                assert scan(data) == before + 2
            elif stop == b"\\n":
                data = b'"' + b"x" * before + b"\\n" + b"y" * after + b'"'
                assert scan(data) == len(data)
            else:
                assert scan(b'"' + b"x" * before + stop + b"y" * after + b'"') == Status.MALFORMED


def test_a_run_of_backslashes_ends_a_string_or_does_not() -> None:
    for count in range(40):
        data = b'"' + b"\\" * count + b'"'
        assert scan(data) == (len(data) if count % 2 == 0 else Status.TRUNCATED)


def test_depth_is_bounded() -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        inner = "1" if opening != "[" else ""
        deepest = opening * DEPTH_MAX + inner + closing * DEPTH_MAX
        assert scan(deepest) == len(deepest)
        assert scan(opening * (DEPTH_MAX + 1) + inner + closing * (DEPTH_MAX + 1)) == Status.DEPTH
    assert scan("[" * 100_000) == Status.DEPTH
    wide = "[" + "[]," * 100_000 + "{}]"
    assert scan(wide) == len(wide)


def test_long_values() -> None:
    text = json.dumps([{"text": 'x"\\\n' * 5000, "numbers": list(range(5000)), "none": None}])
    assert scan(text) == len(text)
    assert scan(text[:-1]) == Status.TRUNCATED


def test_nothing_is_truncated() -> None:
    assert scan("") == Status.TRUNCATED
    assert scan(" \n") == Status.TRUNCATED
