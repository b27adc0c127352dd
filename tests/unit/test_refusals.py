"""What becomes of each kind of message that the other side cannot take."""

import logging
import struct

import pytest
from twisted.internet.task import Clock

from proxy.messages import (
    SER_CBOR,
    SER_FLATBUFFERS,
    SER_JSON,
    SER_MSGPACK,
    SER_UBJSON,
    MessageType,
    decode,
    encode,
)
from proxy.plane import NOTE_DEAD_CALL, NOTE_DEAD_INVOCATION, ST_TOO_BIG, ST_UNTRANSLATABLE
from proxy.refusals import LOG_INTERVAL, SURE_SIZE, Answer, Refused, Tally, answer, parse_refused

TOO_BIG = "wamp.error.payload_size_exceeded"
INVALID = "wamp.error.invalid_payload"
ST_BUSY = -17
NOTHING = Answer()
TO_BACK, TO_FRONT = True, False
PROGRESS = {"progress": True}
KILL = {"mode": "killnowait"}
BIG = 2**53


def refuse(direction, head, status=ST_TOO_BIG, size=70_000, why=""):
    return answer(direction, Refused(status, head[0], size, why, b""), head)


def short(message):
    """A message without the text for people, after a look at it."""
    if message[0] == MessageType.ERROR:
        *message, (text,) = message
        assert text
    return message


def error(kind, request, uri=TOO_BIG):
    return [8, kind, request, {}, uri]


ROWS = [
    # direction, head, to the client, to the router, swallowed
    (TO_BACK, [48, 7, {}, "com.x"], [error(48, 7)], [], []),
    (TO_BACK, [48, BIG, {"progress": False}, "com.x"], [error(48, BIG)], [], []),
    (TO_BACK, [48, 7, PROGRESS, "com.x"], [error(48, 7)], [[49, 7, KILL]], [(NOTE_DEAD_CALL, 7)]),
    (TO_BACK, [16, 7, {"acknowledge": True}, "com.x"], [error(16, 7)], [], []),
    (TO_BACK, [16, 7, {"acknowledge": 1}, "com.x"], [], [], []),
    (TO_BACK, [16, 7, {}, "com.x"], [], [], []),
    (TO_BACK, [16, 7], [], [], []),
    (TO_BACK, [32, 7, {}, "com.x"], [error(32, 7)], [], []),
    (TO_BACK, [34, 7, 99], [error(34, 7)], [], []),
    (TO_BACK, [64, 7, {}, "com.x"], [error(64, 7)], [], []),
    (TO_BACK, [66, 7, 99], [error(66, 7)], [], []),
    (TO_BACK, [70, 7, {}], [], [error(68, 7)], []),
    (TO_BACK, [70, 7, PROGRESS], [], [error(68, 7)], [(NOTE_DEAD_INVOCATION, 7)]),
    (TO_BACK, [8, 68, 7, {}, "com.error"], [], [error(68, 7)], []),
    (TO_BACK, [8, 48, 7, {}, "com.error"], [], [], []),
    (TO_BACK, [49, 7, {}], [], [], []),
    (TO_BACK, [337, 7, {}], [], [], []),
    (TO_FRONT, [50, 7, {}], [error(48, 7)], [], []),
    (TO_FRONT, [50, 7, PROGRESS], [error(48, 7)], [[49, 7, KILL]], [(NOTE_DEAD_CALL, 7)]),
    (TO_FRONT, [8, 48, 7, {}, "com.error"], [error(48, 7)], [], []),
    (TO_FRONT, [8, 32, 7, {}, "com.error"], [error(32, 7)], [], []),
    (TO_FRONT, [8, 16, 7, {}, "com.error"], [error(16, 7)], [], []),
    (TO_FRONT, [68, 7, 99, {}], [], [error(68, 7)], []),
    (TO_FRONT, [68, 7, 99, PROGRESS], [], [error(68, 7)], [(NOTE_DEAD_INVOCATION, 7)]),
    (TO_FRONT, [36, 5, 6, {"topic": "x"}], [[36, 5, 6, {"topic": "x", "payload_limit_exceeded": True}]], [], []),
    (TO_FRONT, [36, 5, 6, {}, [b"whole"], {"k": 1}], [[36, 5, 6, {"payload_limit_exceeded": True}]], [], []),
    (TO_FRONT, [36, 5], [], [], []),
    (TO_FRONT, [17, 7, 8], [], [], []),
    (TO_FRONT, [33, 7, 8], [], [], []),
    (TO_FRONT, [65, 7, 8], [], [], []),
    (TO_FRONT, [69, 7, {}], [], [], []),
    # heads that are cut to what names the request: more may follow
    (TO_BACK, [48, 7], [error(48, 7)], [[49, 7, KILL]], [(NOTE_DEAD_CALL, 7)]),
    (TO_BACK, [70, 7], [], [error(68, 7)], [(NOTE_DEAD_INVOCATION, 7)]),
    (TO_BACK, [8, 68, 7], [], [error(68, 7)], []),
    (TO_FRONT, [50, 7], [error(48, 7)], [[49, 7, KILL]], [(NOTE_DEAD_CALL, 7)]),
    (TO_FRONT, [68, 7], [], [error(68, 7)], [(NOTE_DEAD_INVOCATION, 7)]),
    (TO_FRONT, [8, 48, 7], [error(48, 7)], [], []),
]


@pytest.mark.parametrize(
    ("direction", "head", "to_front", "to_back", "swallow"),
    ROWS,
    ids=[f"{'to_back' if row[0] else 'to_front'}-{row[1]}" for row in ROWS],
)
def test_over_the_limit(direction, head, to_front, to_back, swallow):
    given = [*head]
    told = refuse(direction, head)
    assert [short(message) for message in told.to_front] == to_front
    assert [short(message) for message in told.to_back] == to_back
    assert list(told.swallow) == swallow
    assert head == given, "the message itself is left alone"


@pytest.mark.parametrize("row", [row for row in ROWS if row[1][0] != 36], ids=lambda row: f"{row[0]}-{row[1]}")
def test_not_to_be_expressed(row):
    direction, head, to_front, to_back, _ = row
    told = refuse(direction, head, ST_UNTRANSLATABLE)
    both = [*to_front, *to_back]
    wanted = [error(*message[1:3], INVALID) if message[0] == 8 else message for message in both]
    assert [short(message) for message in (*told.to_front, *told.to_back)] == wanted


def test_an_event_that_cannot_be_expressed_is_lost():
    assert refuse(TO_FRONT, [36, 5, 6, {}], ST_UNTRANSLATABLE) == NOTHING


def test_too_many_pending_requests():
    ((*_, uri, (text,)),) = refuse(TO_BACK, [48, 7, {}, "wamp.session.list"], ST_BUSY, why="too many").to_front
    assert (uri, text) == (
        "wamp.error.unavailable",
        "CALL of 70000 octets cannot be passed on to the router: too many",
    )


@pytest.mark.parametrize(
    ("head", "direction"),
    [
        ([48], TO_BACK),
        ([48, "7", {}], TO_BACK),
        ([48, True, {}], TO_BACK),
        ([48, 7.0, {}], TO_BACK),
        ([70, None], TO_BACK),
        ([8, 68], TO_BACK),
        ([8, "68", 7], TO_BACK),
        ([8, "48", 7], TO_FRONT),
        ([8, True, 7], TO_FRONT),
        ([36, 5, 6, []], TO_FRONT),
        ([36, 5, 6, None], TO_FRONT),
    ],
)
def test_what_is_no_such_message_has_no_answer(head, direction):
    assert refuse(direction, head) == NOTHING


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 99])
@pytest.mark.parametrize("direction", [TO_BACK, TO_FRONT])
def test_other_types_have_no_answer(direction, code):
    assert refuse(direction, [code, 7, {}]) == NOTHING


@pytest.mark.parametrize("options", [None, [], "progress", 7, {"progress": "true"}, {"progress": 1}, {1: 2}])
def test_odd_options_do_not_make_a_call_progressive(options):
    told = refuse(TO_BACK, [48, 7, options, "com.x"])
    assert [short(message) for message in told.to_front] == [error(48, 7)]
    assert not told.to_back
    assert not told.swallow


def test_texts():
    def text(direction, status, size, why=""):
        ((*_, (value,)),) = refuse(direction, [48, 7, {}] if direction else [50, 7, {}], status, size, why).to_front
        return value

    assert text(TO_BACK, ST_TOO_BIG, 16_777_217) == "CALL of 16777217 octets is more than the router takes"
    assert text(TO_FRONT, ST_TOO_BIG, 513) == "RESULT of 513 octets is more than the client takes"
    wanted = "CALL of 9 octets holds what the router's serializer cannot express: a NaN"
    assert text(TO_BACK, ST_UNTRANSLATABLE, 9, "a NaN") == wanted


@pytest.mark.parametrize("serializer", [SER_JSON, SER_MSGPACK, SER_CBOR, SER_UBJSON])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_answers_fit_the_smallest_limit_there_is(row, serializer):
    told = refuse(row[0], row[1], size=2**64 - 1, why='"' * 255)
    for message in (*told.to_front, *told.to_back):
        assert len(encode(serializer, message)) <= SURE_SIZE


@pytest.mark.parametrize("row", [row for row in ROWS if row[1][0] != 36], ids=lambda row: f"{row[0]}-{row[1]}")
def test_answers_can_be_said_in_flatbuffers(row):
    told = refuse(row[0], row[1])
    for message in (*told.to_front, *told.to_back):
        octets = encode(SER_FLATBUFFERS, message)
        assert len(octets) <= SURE_SIZE
        assert decode(SER_FLATBUFFERS, octets)[:3] == message[:3]


def test_event_data():
    data = struct.pack(">IQB", 48, 2**40, 5) + b"a NaN" + encode(SER_CBOR, [48, 7, {}, "com.x"])
    assert parse_refused(ST_UNTRANSLATABLE, data) == Refused(
        ST_UNTRANSLATABLE, 48, 2**40, "a NaN", encode(SER_CBOR, [48, 7, {}, "com.x"])
    )
    assert parse_refused(ST_TOO_BIG, data[:12] + b"\0").head == b""


# --- counting ---


def test_one_line_in_a_while(caplog):
    caplog.set_level(logging.WARNING)
    clock = Clock()
    tally = Tally("transport x", clock)
    for number in range(1000):
        tally.add(f"text {number}", is_heard=True, front_sid=number)
    assert caplog.messages == ["transport x: message not passed on, session 0: text 0"]
    clock.advance(LOG_INTERVAL)
    tally.add("last", is_heard=False, front_sid=7)
    (line,) = caplog.messages[1:]
    assert line.startswith("transport x: message not passed on, session 7: last; nobody could be told (999 others")
    assert (tally.count, tally.unheard) == (1001, 1)
