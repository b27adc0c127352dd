"""Session IDs, single fields and heads of FlatBuffers messages.

IDs are changed in place, new Arguments stand behind the message, and everything else stays as it is.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import cbor2
import pytest

from proxy._relay import probe_fields_head, probe_fields_request, probe_wamp_type
from support.flat import ID, Builder, dump, look, messages, mutate
from support.gate import FLATBUFFERS, PASSES, TO_BACK, TO_FRONT, Guarded
from support.rewriting import BACK, FRONT, OTHER, Realm, Same, Sid, render
from unit.test_rewrite import META_CALLS, META_EVENTS, split

from autobahn.wamp import message  # isort: skip  (support.gate chooses the framework first)

GUARDED = Guarded()
PRINCIPALS = [{"session": Sid(0), "authid": "a", "authrole": "r"}, {"session": OTHER, "authid": "b", "authrole": "r"}]


@pytest.fixture
def realm() -> Realm:
    return Realm()


# message type and its attributes with session IDs, by direction
HEADERS: dict[str, tuple[int, type[message.Message], tuple[Any, ...], dict[str, Any]]] = {
    "PUBLISH exclude": (TO_BACK, message.Publish, (7, "com.t"), {"exclude": [Sid(0), OTHER, Sid(2)]}),
    "PUBLISH both": (TO_BACK, message.Publish, (7, "com.t"), {"exclude": [Sid(0)], "eligible": [Sid(1), Sid(6)]}),
    "PUBLISH payload": (TO_BACK, message.Publish, (7, "com.t"), {"eligible": [Sid(1)], "args": [{"session": Same(1)}]}),
    "CALL caller": (TO_BACK, message.Call, (7, "com.p"), {"caller": Sid(0), "caller_authid": "a", "args": [Same(0)]}),
    "CALL nothing": (TO_BACK, message.Call, (Same(0), "com.p"), {"timeout": 23, "args": [Same(0)]}),
    "YIELD callee": (TO_BACK, message.Yield, (7,), {"callee": Sid(3), "progress": True, "args": [Same(3)]}),
    "EVENT publisher": (TO_FRONT, message.Event, (Same(0), Same(1)), {"publisher": Sid(0), "args": [Same(0)]}),
    "EVENT forward_for": (TO_FRONT, message.Event, (7, 8), {"forward_for": PRINCIPALS}),
    "INVOCATION caller": (TO_FRONT, message.Invocation, (Same(0), 5), {"caller": Sid(4), "kwargs": {"k": Same(4)}}),
    "RESULT callee": (TO_FRONT, message.Result, (Same(0),), {"callee": Sid(5), "args": [Same(5)]}),
    "INTERRUPT forward_for": (TO_FRONT, message.Interrupt, (7,), {"mode": "kill", "forward_for": PRINCIPALS}),
    "CANCEL forward_for": (TO_BACK, message.Cancel, (7,), {"mode": "kill", "forward_for": PRINCIPALS}),
}


def compare(realm: Realm, direction: int, data: bytes, expected: bytes, code: int) -> bytes:
    """Rewrite and compare what autobahn reads before and after; the new octets."""
    out = realm.rewrite(FLATBUFFERS, direction, code, GUARDED(data))
    assert (out is None) == (data == expected)
    out = out or data
    assert look(out) == look(expected)
    assert probe_wamp_type(FLATBUFFERS, GUARDED(out)) == (1, code, 0)
    return out


@pytest.mark.parametrize("name", HEADERS)
def test_ids_outside_the_payload(realm: Realm, name: str) -> None:
    """They are changed in place: the message is the one that autobahn would write with the other IDs."""
    direction, kind, args, keys = HEADERS[name]
    sender, reader = (BACK, FRONT) if direction else (FRONT, BACK)
    data = dump(kind(*render(list(args), sender, sender), **render(keys, sender, sender)))
    expected = dump(kind(*render(list(args), sender, reader), **render(keys, sender, reader)))
    assert compare(realm, direction, data, expected, kind.MESSAGE_TYPE) == expected


FORWARDED = {8: 11, 16: 20, 36: 17, 48: 16, 49: 3, 50: 13, 68: 17, 69: 4, 70: 13}


@pytest.mark.parametrize("code", FORWARDED)
def test_forward_for_of_every_type(realm: Realm, code: int) -> None:
    """autobahn cannot write it into all types that have it."""
    direction = TO_BACK if code in PASSES[TO_BACK] else TO_FRONT
    sender, reader = (BACK, FRONT) if direction else (FRONT, BACK)
    built = []
    for ids in (sender, reader):
        builder = Builder(code)
        field = builder.table(builder.root, {FORWARDED[code]: ("I", 0)})[FORWARDED[code]]
        first = builder.vector(field, "I", [0, 0, 0])
        for index, sid in enumerate((ids[0], OTHER, ids[6])):
            builder.table(first + 4 * index, {0: ("Q", sid)})
        built.append(builder.done())
    assert compare(realm, direction, *built, code) == built[1]


def arguments(rest: list[Any]) -> dict[str, Any]:
    args, kwargs = [*split(rest), None][:2]
    return {"args": args, "kwargs": kwargs}


def check(realm: Realm, direction: int, make: Any) -> None:
    """Rewrite what ``make(sender's IDs)`` gives, and compare with ``make(reader's IDs)``."""
    sender, reader = (BACK, FRONT) if direction else (FRONT, BACK)
    before, after = make(lambda x: render(x, sender, sender)), make(lambda x: render(x, sender, reader))
    data = dump(before)
    out = compare(realm, direction, data, dump(after), before.MESSAGE_TYPE)
    if out != data:
        same = sum(a == b for a, b in zip(data, out, strict=False))
        assert len(data) - same <= 16  # an ID of the header and two offsets


@pytest.mark.parametrize(("call", "result"), META_CALLS.values(), ids=META_CALLS)
def test_meta_api_calls(realm: Realm, call: list[Any], result: list[Any] | None) -> None:
    uri = next(name for name, row in META_CALLS.items() if row == (call, result)).partition(" ")[0]
    check(realm, TO_BACK, lambda ids: message.Call(7, uri, **ids(arguments(call))))
    answer = [Same(0), [Same(1)]] if result is None else result
    check(realm, TO_FRONT, lambda ids: message.Result(7, callee=ids(Sid(0)), **ids(arguments(answer))))
    assert realm.notes.all() == []
    check(realm, TO_FRONT, lambda ids: message.Result(7, args=ids([[Same(0)], Same(1)])))


@pytest.mark.parametrize("topic", META_EVENTS)
def test_meta_api_events(realm: Realm, topic: str) -> None:
    payload = arguments(META_EVENTS[topic])
    check(realm, TO_BACK, lambda ids: message.Subscribe(9, topic))
    check(realm, TO_FRONT, lambda ids: message.Subscribed(9, 5))
    check(realm, TO_FRONT, lambda ids: message.Event(5, 6, publisher=ids(Sid(2)), **ids(payload)))
    check(realm, TO_FRONT, lambda ids: message.Event(4, 6, topic=topic, **ids(payload)))
    check(realm, TO_FRONT, lambda ids: message.Event(4, 6, args=ids([Same(0)])))
    check(realm, TO_BACK, lambda ids: message.Unsubscribe(10, 5))
    check(realm, TO_FRONT, lambda ids: message.Unsubscribed(10))
    assert realm.notes.all() == []


def test_a_progressive_result_keeps_its_note(realm: Realm) -> None:
    check(realm, TO_BACK, lambda ids: message.Call(7, "wamp.session.list"))
    check(realm, TO_FRONT, lambda ids: message.Result(7, progress=True, args=ids([[Sid(0)]])))
    assert realm.notes.all() == [("call", 7)]
    check(realm, TO_FRONT, lambda ids: message.Error(48, 7, "wamp.error.canceled"))
    assert realm.notes.all() == []


def test_an_unknown_session_is_waited_for(realm: Realm) -> None:
    data = dump(message.Event(5, 6, topic="wamp.session.on_join", args=[{"session": OTHER}]))
    realm.sids.set_joining(realm.number, 1)
    with pytest.raises(ValueError, match="ST_WAIT"):
        realm.rewrite(FLATBUFFERS, TO_FRONT, 36, data, may_wait=True)
    assert realm.rewrite(FLATBUFFERS, TO_FRONT, 36, data) is None


@pytest.mark.parametrize("octets", [b"", b"\xff", b"\x81", b"\x18\x18", b"\x81\x17\x00", b"\x9f", b"\x81" * 300])
def test_arguments_that_are_no_cbor_stay(realm: Realm, octets: bytes) -> None:
    builder = Builder(48)
    fields = builder.table(builder.root, {1: ("Q", 7), 2: ("I", 0), 3: ("I", 0), 4: ("I", 0)})
    builder.vector(fields[2], "B", b"wamp.session.get")
    builder.vector(fields[3], "B", octets)
    builder.vector(fields[4], "B", octets)
    assert realm.rewrite(FLATBUFFERS, TO_BACK, 48, builder.done()) is None


@pytest.mark.parametrize(("serializer", "changes"), [(0, True), (3, True), (1, False), (2, False), (255, False)])
def test_arguments_of_another_serializer_stay(realm: Realm, serializer: int, changes: bool) -> None:
    builder = Builder(48)
    fields = builder.table(builder.root, {1: ("Q", 7), 2: ("I", 0), 3: ("I", 0), 7: ("B", serializer)})
    builder.vector(fields[2], "B", b"wamp.session.get")
    builder.vector(fields[3], "B", cbor2.dumps([FRONT[0]]))
    out = realm.rewrite(FLATBUFFERS, TO_BACK, 48, builder.done())
    assert (out is not None) == changes
    if out is not None:
        assert look(out)["args"] == [BACK[0]]


def test_a_message_whose_parts_overlap_stays_of_its_type(realm: Realm) -> None:
    """The vtable of the root table is an item of exclude: the other ID would be another place of msg_type."""
    sid, forged = 0x0004_0008_000C_0008, 0x0004_0009_000C_0008
    builder = Builder(16)
    field = builder.table(builder.root, {1: ("Q", 7), 12: ("I", 0)})[12]
    first = builder.vector(field, "Q", [FRONT[0], sid])
    struct.pack_into("<i", builder.data, 12, 12 - (first + 8))
    builder.data[21] = 6
    data = builder.done()
    assert probe_wamp_type(FLATBUFFERS, GUARDED(data))[:2] == (1, 16)
    assert look(data)["exclude"] == [FRONT[0], sid]
    out = realm.rewrite(FLATBUFFERS, TO_BACK, 16, data)
    assert out is not None
    assert look(out)["exclude"] == [BACK[0], sid]
    realm.sids.put(realm.number, sid, forged)
    assert realm.rewrite(FLATBUFFERS, TO_BACK, 16, data) is None


@pytest.mark.parametrize("name", messages())
def test_changed_messages_are_survived(realm: Realm, name: str) -> None:
    """Whatever passes keeps its type, and octets that never passed do no harm."""
    dice = random.Random(name)
    original = dump(messages()[name])
    for _ in range(400):
        data = mutate(original, dice)
        status, code, _ = probe_wamp_type(FLATBUFFERS, GUARDED(data))
        for direction in (TO_BACK, TO_FRONT):
            kept = code if status > 0 else messages()[name].MESSAGE_TYPE
            out = realm.rewrite(FLATBUFFERS, direction, kept, GUARDED(data))
            if status > 0 and out is not None:
                assert probe_wamp_type(FLATBUFFERS, GUARDED(out))[:2] == (1, code)
        realm.notes.clear()


REQUESTS = {
    "Welcome": (ID, 0, False), "Error": (5, 48, False), "Published": (1, 0, False), "Event": (ID, 0, False),
    "EventReceived": (ID, 0, False), "Call": (1, 0, False), "Result": (1, 0, True), "Yield": (1, 0, True),
    "Invocation": (1, 0, False), "Cancel": (1, 0, False), "Unregistered": (0, 0, False),
}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), REQUESTS.items(), ids=REQUESTS)
def test_request(name: str, expected: tuple[int, int, bool]) -> None:
    item = messages()[name]
    assert probe_fields_request(FLATBUFFERS, item.MESSAGE_TYPE, GUARDED(dump(item))) == expected


@pytest.mark.parametrize("name", ["Hello", "Abort", "Goodbye"])
def test_no_request(name: str) -> None:
    item = messages()[name]
    with pytest.raises(ValueError, match="ST_MALFORMED"):
        probe_fields_request(FLATBUFFERS, item.MESSAGE_TYPE, GUARDED(dump(item)))


def test_the_head_is_the_whole_message() -> None:
    data = dump(messages()["Call"])
    assert probe_fields_head(FLATBUFFERS, 48, data) == data
    with pytest.raises(ValueError, match="ST_TOO_BIG"):
        probe_fields_head(FLATBUFFERS, 48, data, len(data) - 1)
