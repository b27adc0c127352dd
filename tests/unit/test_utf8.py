"""UTF-8 validation, compared with Python's strict decoder."""

from __future__ import annotations

from itertools import product

import pytest

from proxy._relay import utf8_valid


def decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False
    return True


BORDER_CHARACTERS = [0x00, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x10FFFF]
INVALID = {
    "stray tail": b"\x80",
    "overlong 2": b"\xc0\x80",
    "overlong slash": b"\xc1\xaf",
    "overlong 3": b"\xe0\x9f\xbf",
    "overlong 4": b"\xf0\x8f\xbf\xbf",
    "first surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "lead f5": b"\xf5\x80\x80\x80",
    "five octets": b"\xf8\x88\x80\x80\x80",
    "fe": b"\xfe",
    "ff": b"\xff",
    "cut 2": b"\xc3",
    "cut 3": b"\xe2\x82",
    "cut 4": b"\xf0\x9f\x8e",
    "tail missing": b"\xe2\x82a",
    "lead in the middle": b"\xe2\xc3\xa9",
}


@pytest.mark.parametrize("code", BORDER_CHARACTERS)
def test_border_characters(code: int) -> None:
    assert utf8_valid(chr(code).encode())
    assert utf8_valid(b"a" + chr(code).encode() * 3 + b"z")


@pytest.mark.parametrize("name", INVALID)
def test_invalid_sequences_at_every_place(name: str) -> None:
    sequence = INVALID[name]
    for before, after in product([*range(20), 62, 63, 64, 65, 66, 127, 128, 129], [0, 1, 7, 8, 64]):
        assert not utf8_valid(b"a" * before + sequence + b"z" * after)
        assert not utf8_valid("é".encode() * before + sequence + "世".encode() * after)


def test_all_sequences_of_one_and_two_octets() -> None:
    for data in (bytes(t) for n in (0, 1, 2) for t in product(range(256), repeat=n)):
        assert utf8_valid(data) == decodes(data), data


def test_three_and_four_octets_around_every_border() -> None:
    leads = range(0xDF, 0xF8)
    seconds = range(256)
    others = (0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    for data in (bytes(t) for t in product(leads, seconds, others)):
        assert utf8_valid(data) == decodes(data), data
    for data in (bytes(t) for t in product(leads, seconds, others, (0x7F, 0x80, 0xBF, 0xC0))):
        assert utf8_valid(data) == decodes(data), data


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 63, 64, 65, 127, 128, 200])
def test_one_bad_octet_anywhere_is_found(size: int) -> None:
    assert utf8_valid(b"a" * size)
    for at in range(size):
        assert not utf8_valid(b"a" * at + b"\xff" + b"a" * (size - at - 1))


def test_every_character() -> None:
    text = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF)
    assert utf8_valid(text.encode())
    assert all(utf8_valid(text[i : i + 4096].encode()) for i in range(0, len(text), 4096))
