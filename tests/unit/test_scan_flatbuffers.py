"""The FlatBuffers verifier: what autobahn writes is taken, what leads out of the message is not."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from proxy._relay import probe_scan, probe_wamp_plan, probe_wamp_type
from support.flat import Builder, dump, look, messages, mutate
from support.gate import (
    AUTOBAHN,
    FLATBUFFERS,
    PASS,
    TO_BACK,
    TO_FRONT,
    Guarded,
    Status,
    check_gate,
    check_reading,
    expected_plan,
)

GUARDED = Guarded()
MESSAGES = {name: dump(item) for name, item in messages().items()}
CODES = {name: item.MESSAGE_TYPE for name, item in messages().items()}


def scan(data: bytes) -> int:
    return probe_scan(FLATBUFFERS, GUARDED(data))


@pytest.mark.parametrize("name", MESSAGES)
def test_every_type_that_autobahn_writes(name: str) -> None:
    data, code = MESSAGES[name], CODES[name]
    assert scan(data) == len(data)
    assert probe_wamp_type(FLATBUFFERS, GUARDED(data)) == (1, code, 0)
    for direction in (TO_BACK, TO_FRONT):
        assert probe_wamp_plan(FLATBUFFERS, direction, GUARDED(data))[:2] == (expected_plan(direction, code), code)
    assert check_reading(FLATBUFFERS, data, code) == 1


@pytest.mark.parametrize("name", MESSAGES)
def test_cut_at_every_octet(name: str) -> None:
    """What is cut short is refused, but for the padding and the NUL behind a last text, which nobody reads."""
    data = MESSAGES[name]
    passed = [size for size in range(len(data)) if scan(data[:size]) > 0]
    assert passed == list(range(min(passed, default=len(data)), len(data)))
    assert len(passed) <= 4
    assert all(data[size] == 0 for size in passed)
    for size in set(range(len(data))) - set(passed):
        assert scan(data[:size]) == Status.TRUNCATED


@pytest.mark.parametrize("name", MESSAGES)
def test_octets_behind_the_message_are_dead(name: str) -> None:
    data = MESSAGES[name] + MESSAGES["Hello"]
    assert probe_wamp_type(FLATBUFFERS, GUARDED(data))[:2] == (1, CODES[name])
    assert check_reading(FLATBUFFERS, data, CODES[name]) == 1


def minimal(code: int) -> bytes:
    builder = Builder(code)
    builder.table(builder.root, {})
    return builder.done()


def test_every_msg_type() -> None:
    """The octet is the message code; 37 stands for 337; all others are no messages."""
    known = {CODES[name]: name for name in CODES}
    for octet in range(256):
        code = 337 if octet == 37 else octet
        status, found, _ = probe_wamp_type(FLATBUFFERS, GUARDED(minimal(octet)))
        if (code in known and code != 337) or octet == 37:
            assert (status, found) == (1, code)
            assert probe_wamp_plan(FLATBUFFERS, TO_BACK, GUARDED(minimal(octet)))[0] == expected_plan(TO_BACK, code)
        else:
            assert status == Status.MALFORMED


def root(msg_type: int | None = 48, msg: int | None = 8, **changes: int) -> bytes:
    """A message with its root table spelled out; offsets in the vtable, 0: absent."""
    keys = {"at": 12, "vtable": 8, "length": 8, "size": 12, "type_at": 8, "msg_at": 4} | changes
    head = struct.pack("<IHHHH", keys["at"], keys["length"], keys["size"], keys["type_at"], keys["msg_at"])
    body = struct.pack("<iIB3x", keys["vtable"], 12 if msg == 8 else msg or 0, msg_type or 0)
    return head + body + struct.pack("<HHi", 4, 4, 4)


def test_a_root_spelled_out() -> None:
    assert probe_wamp_type(FLATBUFFERS, GUARDED(root())) == (1, 48, 0)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"type_at": 0}, Status.MALFORMED), ({"msg_at": 0}, Status.MALFORMED), ({"length": 6}, Status.MALFORMED),
        ({"length": 4}, Status.MALFORMED), ({"length": 7}, Status.MALFORMED), ({"length": 2}, Status.MALFORMED),
        ({"length": 0}, Status.MALFORMED), ({"size": 0}, Status.MALFORMED), ({"size": 8}, Status.MALFORMED),
        ({"type_at": 1}, Status.MALFORMED), ({"type_at": 12}, Status.MALFORMED), ({"msg_at": 9}, Status.MALFORMED),
        ({"type_at": 65535}, Status.MALFORMED), ({"at": 0}, Status.MALFORMED), ({"at": 3}, Status.MALFORMED),
        ({"at": 2**32 - 1}, Status.TRUNCATED), ({"at": 29}, Status.TRUNCATED), ({"vtable": 13}, Status.TRUNCATED),
        ({"vtable": -(2**31)}, Status.TRUNCATED), ({"vtable": 2**31 - 1}, Status.TRUNCATED),
        ({"vtable": -18}, Status.TRUNCATED), ({"length": 65534}, Status.TRUNCATED), ({"size": 65535}, Status.TRUNCATED),
        ({"msg": 0}, Status.MALFORMED), ({"msg": 3}, Status.MALFORMED), ({"msg": 2**32 - 1}, Status.TRUNCATED),
        ({"msg": 13}, Status.TRUNCATED),
    ],
    ids=str,
)  # fmt: skip
def test_roots_that_are_refused(changes: dict[str, int], status: Status) -> None:
    assert probe_wamp_type(FLATBUFFERS, GUARDED(root(**changes)))[0] == status


# slots of one field of each kind, and how many octets its items take
STRING, OCTETS, IDS, STRINGS, PRINCIPALS = (48, 2, 1), (48, 3, 1), (16, 12, 8), (16, 13, 4), (48, 16, 4)


@pytest.mark.parametrize(("code", "slot", "width"), [STRING, OCTETS, IDS, STRINGS, PRINCIPALS])
def test_lengths_and_offsets_of_vectors(code: int, slot: int, width: int) -> None:
    builder = Builder(code)
    field = builder.table(builder.root, {slot: ("I", 0)})[slot]
    builder.vector(field, "B", b"")
    builder.data[-4:] = struct.pack("<I", 0)
    whole = builder.done()
    assert scan(whole) == len(whole)
    for count in (1, 2, 2**31, 2**32 - 1, (2**32 - 1) // width):
        assert scan(whole[:-4] + struct.pack("<I", count)) == Status.TRUNCATED
    for offset in (0, 1, 3):
        assert scan(whole[:field] + struct.pack("<I", offset) + whole[field + 4 :]) == Status.MALFORMED
    for offset in (len(whole) - field - 3, len(whole), 2**31, 2**32 - 1):
        assert scan(whole[:field] + struct.pack("<I", offset) + whole[field + 4 :]) == Status.TRUNCATED


@pytest.mark.parametrize(
    ("code", "slot", "form"), [(48, 1, "Q"), (48, 10, "I"), (8, 1, "H"), (50, 9, "B"), (48, 2, "I")]
)
def test_a_field_must_lie_in_its_table(code: int, slot: int, form: str) -> None:
    width = struct.calcsize(form)
    builder = Builder(code)
    builder.table(builder.root, {slot: ("B", 4)})
    data = builder.done() + bytes(16)
    assert scan(data) == (len(data) if width == 1 else Status.MALFORMED)


def test_principals_are_verified() -> None:
    builder = Builder(48)
    field = builder.table(builder.root, {16: ("I", 0)})[16]
    first = builder.vector(field, "I", [0, 0])
    builder.table(first, {0: ("Q", 7)})
    fields = builder.table(first + 4, {0: ("Q", 8), 1: ("I", 0)})
    builder.vector(fields[1], "B", b"joe")
    data = builder.done()
    assert scan(data) == len(data)
    assert [one["session"] for one in look(data)["forward_for"]] == [7, 8]
    assert scan(data[:-1]) == Status.TRUNCATED
    for offset in (0, 2**32 - 1):
        bad = data[: first + 4] + struct.pack("<I", offset) + data[first + 8 :]
        assert scan(bad) == (Status.TRUNCATED if offset else Status.MALFORMED)


def test_many_items_may_share_one_place() -> None:
    """Vectors whose items all lead to one string or table: linear in the octets."""
    for slot, place in ((13, 12), (20, 8)):  # an empty string; a table without fields, whose vtable is at 0
        builder = Builder(16)
        field = builder.table(builder.root, {slot: ("I", 0)})[slot]
        first = builder.vector(field, "I", [0] * 50_000)
        for at in range(first, first + 200_000, 4):
            struct.pack_into("<I", builder.data, at, first + 200_000 + place - at)
        builder.data += struct.pack("<HHIiI", 4, 4, 0, 8, 0)
        assert scan(builder.done()) == len(builder.data)


def test_fields_of_a_newer_schema_are_passed_over() -> None:
    builder = Builder(17)
    builder.table(builder.root, {0: ("Q", 0), 1: ("Q", 5), 2: ("Q", 6), 3: ("I", 2**32 - 1), 9: ("I", 2**32 - 1)})
    data = builder.done()
    assert probe_wamp_type(FLATBUFFERS, GUARDED(data))[:2] == (1, 17)
    assert look(data)["publication"] == 6


ERRORS_OF_CONTENT = (UnicodeDecodeError, AttributeError, TypeError, KeyError, AssertionError)


@pytest.mark.parametrize("name", MESSAGES)
def test_who_reads_what_passed_stays_inside(name: str) -> None:
    """Every attribute that autobahn reads of a changed message that passed: no offset leads out of it."""
    dice = random.Random(name)
    read = 0
    for _ in range(400):
        data = mutate(MESSAGES[name], dice)
        if not check_gate(FLATBUFFERS, data).startswith("passes"):
            continue
        read += 1
        (item,) = AUTOBAHN[FLATBUFFERS].unserialize(data)
        look_at(item)
    assert read > 10


def look_at(item: Any) -> None:
    for kind in type(item).__mro__:
        for attribute, value in vars(kind).items():
            if isinstance(value, property) and attribute not in ("args", "kwargs"):
                try:
                    getattr(item, attribute)
                except (struct.error, IndexError) as error:
                    raise AssertionError(f"{type(item).__name__}.{attribute}") from error
                except ERRORS_OF_CONTENT:
                    pass


def test_a_hello_cannot_pass() -> None:
    assert probe_wamp_plan(FLATBUFFERS, TO_BACK, GUARDED(MESSAGES["Hello"]))[0] == Status.FORBIDDEN
    assert probe_wamp_plan(FLATBUFFERS, TO_BACK, GUARDED(MESSAGES["Call"]))[0] == PASS
