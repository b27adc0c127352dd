"""Session IDs in messages: every place where one may stand, and the places where a number only looks like one.

``Sid(n)`` stands for the ID of session n and must become what the reader calls it; ``Same(n)`` is the same number as
the sender writes it, in a place where it must stay.
"""

from __future__ import annotations

from typing import Any

import pytest

from proxy._relay import probe_rewrite_concerns
from support.gate import CBOR, DUMP, JSON, MSGPACK, PASSES, SERIALIZERS, TO_BACK, TO_FRONT
from support.rewriting import BACK, FRONT, OTHER, Realm, Same, Sid, render

PRINCIPALS = [
    {"session": Sid(0), "authid": "a", "authrole": "r"},
    {"session": OTHER, "authid": None, "authrole": "r"},
    {"authid": "b", "session": Sid(2), "id": Same(1)},
]


@pytest.fixture(params=SERIALIZERS.values(), ids=SERIALIZERS)
def ser(request: pytest.FixtureRequest) -> int:
    assert isinstance(request.param, int)
    return request.param


@pytest.fixture
def realm() -> Realm:
    return Realm()


# --- header level ----------------------------------------------------------------------------------------------------

# to the router
TO_ROUTER: dict[str, list[Any]] = {
    "PUBLISH exclude": [16, Same(0), {"exclude": [Sid(0), Sid(1), OTHER, Sid(2)]}, "com.t"],
    "PUBLISH eligible": [16, 1, {"eligible": [Sid(3)], "retain": True}, "com.t", [Same(0)], {"exclude": [Same(0)]}],
    "PUBLISH both, among others": [
        16, 1,
        {"exclude_me": False, "exclude": [Sid(0)], "exclude_authid": ["x"], "eligible": [Sid(1), Sid(2)]},
        "com.t", [{"session": Same(0), "exclude": [Same(1)]}],
    ],
    "PUBLISH empty lists": [16, 1, {"exclude": [], "eligible": [Sid(6)]}, "com.t"],
    "PUBLISH one ID for a list": [16, 1, {"exclude": Sid(0)}, "com.t"],
    "PUBLISH of no interest": [16, 1, {"publisher": Same(0), "caller": Same(1), "callee": Same(2)}, "com.t"],
    "PUBLISH lists within": [16, 1, {"x": {"exclude": [Same(0)]}, "exclude": [[Same(0)], Sid(1)]}, "com.t"],
    "PUBLISH of what only the router publishes": [16, 1, {}, "wamp.session.on_leave", [Same(0)]],
    "CALL caller": [48, 1, {"caller": Sid(0), "caller_authid": "a"}, "com.p", [Same(0)]],
    "YIELD callee": [70, Same(0), {"callee": Sid(0), "callee_authid": "a"}, [Same(0)]],
    "ERROR callee": [8, 68, Same(0), {"callee": Sid(1)}, "com.e", [Same(0)], {"session": Same(0)}],
    **{
        f"{name} forward_for": [code, Same(0), *([Same(1)] * before), {"forward_for": PRINCIPALS}, *after]
        for name, code, before, after in [
            ("ERROR", 8, 1, ["com.e"]), ("PUBLISH", 16, 0, ["com.t"]), ("SUBSCRIBE", 32, 0, ["com.t"]),
            ("UNSUBSCRIBE", 34, 1, []), ("CALL", 48, 0, ["com.p", [Same(0)]]), ("CANCEL", 49, 0, []),
            ("REGISTER", 64, 0, ["com.p"]), ("UNREGISTER", 66, 1, []), ("YIELD", 70, 0, [[Same(0)]]),
        ]
    },
}  # fmt: skip

# to the client
TO_CLIENT: dict[str, list[Any]] = {
    "EVENT publisher": [36, Same(0), Same(1), {"publisher": Sid(2), "x": "a"}, [Same(0)], {"publisher": Same(0)}],
    "EVENT no payload": [36, 1, 2, {"topic": "com.t", "publisher": Sid(0)}],
    "EVENT payload in one piece": [36, 1, 2, {"publisher": Sid(0), "enc_algo": "cryptobox"}, "\0AAAA"],
    "EVENT of no interest": [36, 1, 2, {"caller": Same(0), "session": Same(0), "exclude": [Same(0)]}],
    "INVOCATION caller": [68, Same(0), Same(1), {"caller": Sid(3), "caller_authrole": "r"}, [Same(3)]],
    "INVOCATION more": [68, 1, 2, {"progress": True, "caller": Sid(4), "procedure": "wamp.session.get"}, [Same(3)]],
    "RESULT callee": [50, Same(0), {"callee": Sid(5), "progress": True}, [Same(0)]],
    "RESULT nothing": [50, 1, {}],
    "ERROR callee": [8, 48, Same(0), {"callee": Sid(6)}, "wamp.error.no_such_session", [Same(0)]],
    "PUBLISHED": [17, 1, Same(0)],
    "SUBSCRIBED": [33, 1, Same(0)],
    "REGISTERED": [65, 1, Same(0)],
    "UNREGISTERED": [67, Same(0)],
    **{
        f"{name} forward_for": [code, Same(0), *([Same(1)] * before), {"forward_for": PRINCIPALS}, *after]
        for name, code, before, after in [
            ("ERROR", 8, 1, ["com.e"]), ("EVENT", 36, 1, [[Same(0)]]), ("RESULT", 50, 0, [[Same(0)]]),
            ("INVOCATION", 68, 1, [[Same(0)]]), ("INTERRUPT", 69, 0, []),
        ]
    },
}  # fmt: skip

# calls to the meta API, and what their results hold (None: not looked at)
DETAILS = {"session": Sid(1), "authid": "a", "authextra": {"session": Same(1)}, "transport": {"caller": Same(1)}}
IDS = [Sid(0), Sid(1), OTHER, Sid(6)]
HISTORY = [
    {"timestamp": "t", "publication": Same(0), "publisher": Sid(0), "args": [Same(0)], "kwargs": {"session": Same(0)}},
    {"session_id": Sid(1), "topic": "com.t", "args": None, "exclude": [Sid(2)], "eligible": None},
    {
        "publication": 1,
        "details": {"publisher": Sid(3), "topic": "wamp.session.on_leave"},
        "args": [{"session": Same(0)}],
    },
]
META_CALLS: dict[str, tuple[list[Any], list[Any] | None]] = {
    "wamp.session.get": ([Sid(0)], [DETAILS]),
    "wamp.session.get by name": ([[], {"session_id": Sid(0)}], [DETAILS, {"session": Same(0)}]),
    "wamp.session.get by name alone": ([None, {"session_id": Sid(0)}], [DETAILS]),
    "wamp.session.kill": ([[Sid(3)], {"reason": "com.r", "message": "no"}], None),
    "wamp.session.kill by name": ([[], {"session": Sid(3)}], None),
    "wamp.session.modify_details": ([Sid(2), {"x": Same(0)}], None),
    "wamp.session.list": ([["role"]], [IDS]),
    "wamp.session.count": ([["role"], Same(0)], [Same(0)]),
    "wamp.session.kill_by_authid": (["joe"], [IDS]),
    "wamp.session.kill_by_authrole": (["role"], [IDS]),
    "wamp.session.kill_all": ([], [IDS]),
    "wamp.session.flush_testaments": (["destroyed"], [Same(0)]),
    "wamp.session.add_testament": (
        ["com.t", [Same(0), {"exclude": [Same(0)]}], {"exclude": [Same(1)]}, {"exclude": [Sid(0)], "eligible": IDS}],
        [Same(0)],
    ),
    "wamp.session.add_testament by name": (
        [["com.t", [], {}], {"publish_options": {"eligible": IDS, "exclude_authid": ["a"]}, "scope": "destroyed"}],
        [Same(0)],
    ),
    "wamp.session.add_testament all by name": (
        [[], {"topic": "com.t", "args": [Same(0)], "kwargs": {"session": Same(0), "exclude": [Same(0)]},
              "session": Same(0), "publish_options": {"exclude": [Sid(0)]}}],
        [Same(0)],
    ),
    "wamp.registration.list": ([Sid(0)], [{"exact": [Same(0)], "prefix": [], "wildcard": [Same(1)]}]),
    "wamp.registration.lookup": (["com.p", {"session": Same(0)}], [Same(0)]),
    "wamp.registration.match": (["com.p"], [Same(0)]),
    "wamp.registration.get": ([Same(0)], [{"id": Same(0), "uri": "com.p", "creator": Sid(0)}]),
    "wamp.registration.list_callees": ([Same(0)], [IDS]),
    "wamp.registration.count_callees": ([Same(0)], [Same(1)]),
    "wamp.registration.remove_callee": ([Same(0), Sid(0), "com.r"], None),
    "wamp.registration.remove_callee by name": ([[], {"registration_id": Same(0), "callee_id": Sid(0)}], None),
    "wamp.subscription.list": ([Sid(0)], [{"exact": [Same(0)], "prefix": [], "wildcard": [Same(1)]}]),
    "wamp.subscription.lookup": (["com.t"], [Same(0)]),
    "wamp.subscription.match": (["com.t"], [[Same(0), Same(1)]]),
    "wamp.subscription.get": ([Same(0)], [{"id": Same(0), "uri": "com.t", "match": "exact"}]),
    "wamp.subscription.list_subscribers": ([Same(0)], [IDS]),
    "wamp.subscription.count_subscribers": ([Same(0)], [Same(1)]),
    "wamp.subscription.remove_subscriber": ([Same(0), Sid(0)], None),
    "wamp.subscription.remove_subscriber by name": ([[Same(0)], {"subscriber_id": Sid(0)}], None),
    "wamp.subscription.get_events": ([Same(0), 10], [HISTORY]),
    "com.session.list": ([Same(0)], [[Same(0)]]),
    "wamp.session.get2": ([Same(0)], [{"session": Same(0)}]),
    "wamp.": ([Same(0)], [[Same(0)]]),
}  # fmt: skip

# arguments of the router's own events
META_EVENTS: dict[str, list[Any]] = {
    "wamp.session.on_join": [{"authid": "a", "session": Sid(0), "authextra": {"session": Same(0)}}],
    "wamp.session.on_leave": [Sid(0), "authid", "role"],
    "wamp.session.on_stats": [{"session": Sid(0), "realm": "r"}, {"calls": Same(0), "first": True}],
    "wamp.subscription.on_create": [Sid(0), {"id": Same(0), "uri": "com.t", "creator": Sid(1)}],
    "wamp.subscription.on_subscribe": [Sid(0), Same(0)],
    "wamp.subscription.on_unsubscribe": [Sid(0), Same(0)],
    "wamp.subscription.on_delete": [Sid(0), Same(0)],
    "wamp.registration.on_create": [Sid(0), {"id": Same(0), "uri": "com.p"}],
    "wamp.registration.on_register": [Sid(0), Same(0)],
    "wamp.registration.on_unregister": [Sid(0), Same(0)],
    "wamp.registration.on_delete": [Sid(0), Same(0)],
    "wamp.other.on_create": [Same(0), {"session": Same(0)}],
    "com.session.on_leave": [Same(0)],
}


@pytest.mark.parametrize("message", TO_ROUTER.values(), ids=TO_ROUTER)
def test_to_the_router(realm: Realm, ser: int, message: list[Any]) -> None:
    realm.check(ser, TO_BACK, message)


@pytest.mark.parametrize("message", TO_CLIENT.values(), ids=TO_CLIENT)
def test_to_the_client(realm: Realm, ser: int, message: list[Any]) -> None:
    realm.check(ser, TO_FRONT, message)


@pytest.mark.parametrize("direction", [TO_BACK, TO_FRONT])
def test_every_type_with_an_id_is_a_concern(direction: int) -> None:
    table = TO_CLIENT if direction else TO_ROUTER
    with_ids = {message[0] for name, message in table.items() if "Sid(" in repr(message)}
    concerns = {code for code in range(400) if probe_rewrite_concerns(direction, code)}
    assert with_ids <= concerns <= PASSES[direction]
    noted = {33, 35} if direction else {32, 34}
    assert concerns - with_ids <= noted


# --- payload level ---------------------------------------------------------------------------------------------------


def split(arguments: list[Any]) -> list[Any]:
    """Args and Kwargs: a table row is the first, or both."""
    if len(arguments) == 2 and isinstance(arguments[0], list | None) and isinstance(arguments[1], dict):
        return arguments
    return [arguments]


@pytest.mark.parametrize(("call", "result"), META_CALLS.values(), ids=META_CALLS)
def test_meta_api_calls(
    realm: Realm, ser: int, call: list[Any], result: list[Any] | None, request: pytest.FixtureRequest
) -> None:
    name = next(name for name, row in META_CALLS.items() if row == (call, result))
    uri = name.partition(" ")[0]
    realm.check(ser, TO_BACK, [48, 7, {}, uri, *split(call)])
    if result is not None:
        realm.check(ser, TO_FRONT, [50, 7, {"callee": Sid(0)}, *split(result)])
    else:
        realm.check(ser, TO_FRONT, [50, 7, {}, [Same(0), [Same(1)]]])
    assert realm.notes.all() == []
    realm.check(ser, TO_FRONT, [50, 7, {}, [[Same(0)], Same(1)], {"session": Same(0)}])


@pytest.mark.parametrize(
    "uri", ["wamp.session.kill_all", "wamp.session.kill_by_authrole", "wamp.session.kill_by_authid"]
)
def test_a_count_stays(realm: Realm, ser: int, uri: str) -> None:
    realm.check(ser, TO_BACK, [48, 7, {}, uri, ["x"]])
    realm.check(ser, TO_FRONT, [50, 7, {}, [Same(0)]])


@pytest.mark.parametrize("args", [[], [[]], [[], {}], ["\0AAAA"], [None], [["x", None], {"session": "y"}], [[[]]]])
def test_meta_api_calls_with_other_arguments(realm: Realm, ser: int, args: list[Any]) -> None:
    for name in META_CALLS:
        realm.check(ser, TO_BACK, [48, 7, {}, name.partition(" ")[0], *args])
        realm.check(ser, TO_FRONT, [50, 7, {}, *args])
    for topic in META_EVENTS:
        realm.check(ser, TO_FRONT, [36, 1, 2, {"topic": topic}, *args])
    assert realm.notes.all() == []


@pytest.mark.parametrize("topic", META_EVENTS)
def test_meta_api_events(realm: Realm, ser: int, topic: str) -> None:
    event = [36, 5, 6, {"publisher": Sid(2)}, META_EVENTS[topic]]
    without = render(event, BACK, BACK)
    realm.check(ser, TO_BACK, [32, 9, {}, topic])
    realm.check(ser, TO_FRONT, [33, 9, 5])
    realm.check(ser, TO_FRONT, event)
    realm.check(ser, TO_FRONT, [36, 4, 6, {}, without[4]] if "Sid" in repr(without) else [36, 4, 6, {}, [Same(0)]])


@pytest.mark.parametrize("topic", META_EVENTS)
@pytest.mark.parametrize("pattern", [("prefix", "wamp."), ("prefix", ""), ("wildcard", "wamp..")])
def test_meta_api_events_of_a_pattern(realm: Realm, ser: int, pattern: tuple[str, str], topic: str) -> None:
    """The router names the topic in the events of a pattern."""
    realm.check(ser, TO_BACK, [32, 9, {"match": pattern[0]}, pattern[1]])
    realm.check(ser, TO_FRONT, [33, 9, 5])
    assert realm.notes.all() == []
    realm.check(ser, TO_FRONT, [36, 5, 6, {"topic": topic, "publisher": Sid(2)}, META_EVENTS[topic]])
    realm.check(ser, TO_FRONT, [36, 5, 6, {"publisher": Sid(2), "topic": topic}, META_EVENTS[topic]])
    realm.check(ser, TO_FRONT, [36, 5, 6, {"topic": "com.t"}, [Same(0), {"session": Same(0)}]])


# --- spellings -------------------------------------------------------------------------------------------------------

A, B = BACK[0], FRONT[0]
SPELLED: dict[str, tuple[int, int, bytes, bytes | None]] = {
    "JSON white space": (
        JSON, 36, b' [ 36 ,\n1,2 , { "publisher"\t: %d , "x" : [ ] } , [ %d ] ] ' % (A, A),
        b' [ 36 ,\n1,2 , { "publisher"\t: %d , "x" : [ ] } , [ %d ] ] ' % (B, A),
    ),
    "JSON escapes in a key": (
        JSON, 36, b'[36,1,2,{"\\u0070ublis\\u0068er":%d}]' % A, b'[36,1,2,{"\\u0070ublis\\u0068er":%d}]' % B,
    ),
    "JSON escapes in a topic": (
        JSON, 36, b'[36,1,2,{"topic":"wamp.\\u0073ession.on_leave"},[%d]]' % A,
        b'[36,1,2,{"topic":"wamp.\\u0073ession.on_leave"},[%d]]' % B,
    ),
    "JSON duplicate keys": (
        JSON, 36, b'[36,1,2,{"publisher":%d,"publisher":%d}]' % (A, BACK[1]),
        b'[36,1,2,{"publisher":%d,"publisher":%d}]' % (B, FRONT[1]),
    ),
    "JSON key that only begins like it": (JSON, 36, b'[36,1,2,{"publisher\\u0000":%d,"publishe":%d}]' % (A, A), None),
    "JSON escaped key that is not ASCII": (JSON, 36, b'[36,1,2,{"publishe\\u0172":%d}]' % A, None),
    "JSON escaped line feed for an f": (JSON, 36, b'[36,1,2,{"\\forward_for":[{"session":%d}]}]' % A, None),
    "JSON float": (JSON, 36, b'[36,1,2,{"publisher":%d.0}]' % A, None),
    "JSON exponent": (JSON, 36, b'[36,1,2,{"publisher":%de0}]' % A, None),
    "JSON string": (JSON, 36, b'[36,1,2,{"publisher":"%d"}]' % A, None),
    "JSON leading zero": (JSON, 36, b'[36,1,2,{"publisher":0%d}]' % A, None),
    "JSON negative": (JSON, 36, b'[36,1,2,{"publisher":-%d}]' % A, None),
    "JSON more than 64 bits": (JSON, 36, b'[36,1,2,{"publisher":%d}]' % (A + 2**64), None),
    "JSON null": (JSON, 36, b'[36,1,2,{"publisher":null}]', None),
    "JSON Details that are none": (JSON, 36, b'[36,1,2,null,[%d]]' % A, None),
    "MessagePack wide integer": (
        MSGPACK, 36, bytes.fromhex("9424010281a97075626c6973686572cf") + BACK[1].to_bytes(8, "big"),
        bytes.fromhex("9424010281a97075626c6973686572ce") + FRONT[1].to_bytes(4, "big"),
    ),
    "MessagePack signed integer": (
        MSGPACK, 36, bytes.fromhex("9424010281a97075626c6973686572d3") + A.to_bytes(8, "big"),
        bytes.fromhex("9424010281a97075626c697368657217"),
    ),
    "MessagePack negative integer": (
        MSGPACK, 36, bytes.fromhex("9424010281a97075626c6973686572d3") + b"\xff" * 8, None,
    ),
    "MessagePack str 8 key, map 16": (
        MSGPACK, 36, bytes.fromhex("94240102de0001d9097075626c6973686572cf") + A.to_bytes(8, "big"),
        bytes.fromhex("94240102de0001d9097075626c697368657217"),
    ),
    "MessagePack binary key": (
        MSGPACK, 36, bytes.fromhex("9424010281c4097075626c6973686572cf") + A.to_bytes(8, "big"), None,
    ),
    "MessagePack ext and containers as keys": (
        MSGPACK, 36, bytes.fromhex("9424010283d4010291c0c0c0a97075626c6973686572cf") + A.to_bytes(8, "big"),
        bytes.fromhex("9424010283d4010291c0c0c0a97075626c697368657217"),
    ),
    "CBOR wide integer": (
        CBOR, 36, bytes.fromhex("8418240102a1697075626c69736865721b")
        + BACK[1].to_bytes(8, "big"),
        bytes.fromhex("8418240102a1697075626c69736865721a") + FRONT[1].to_bytes(4, "big"),
    ),
    "CBOR indefinite map and list": (
        CBOR, 36, bytes.fromhex("8418240102bf697075626c69736865721b") + A.to_bytes(8, "big")
        + bytes.fromhex("6b666f72776172645f666f729fbf6773657373696f6e1818ffffff"),
        bytes.fromhex("8418240102bf697075626c6973686572176b666f72776172645f666f729fbf6773657373696f6e1a")
        + FRONT[1].to_bytes(4, "big") + b"\xff\xff\xff",
    ),
    "CBOR key in chunks": (
        CBOR, 36, bytes.fromhex("8418240102a17f647075626c60656973686572ff1b") + A.to_bytes(8, "big"),
        bytes.fromhex("8418240102a17f647075626c60656973686572ff17"),
    ),
    "CBOR byte string key": (
        CBOR, 36, bytes.fromhex("8418240102a1497075626c69736865721b") + A.to_bytes(8, "big"), None,
    ),
    "CBOR tagged integer": (
        CBOR, 36, bytes.fromhex("8418240102a1697075626c6973686572c11b") + A.to_bytes(8, "big"), None,
    ),
    "CBOR negative integer": (
        CBOR, 36, bytes.fromhex("8418240102a1697075626c69736865723b") + (A - 1).to_bytes(8, "big"), None,
    ),
    "CBOR tag around the Details": (
        CBOR, 36, bytes.fromhex("8418240102d9d9f7a1697075626c69736865721b") + A.to_bytes(8, "big"), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLED)
def test_spellings(realm: Realm, name: str) -> None:
    serializer, code, data, expected = SPELLED[name]
    assert realm.rewrite(serializer, TO_FRONT, code, data) == expected


def test_an_id_that_is_the_same_on_both_sides(realm: Realm, ser: int) -> None:
    realm.sids.put(realm.number, 42, 42)
    data = DUMP[ser]([36, 1, 2, {"publisher": 42}])
    assert realm.rewrite(ser, TO_FRONT, 36, data) is None


def test_both_directions_in_one_realm(realm: Realm, ser: int) -> None:
    """A number may be one session's front_sid and another one's back_sid."""
    realm.sids.put(realm.number, BACK[0], 555)
    realm.check(ser, TO_FRONT, [36, 1, 2, {"publisher": Sid(0)}])
    data = DUMP[ser]([16, 1, {"exclude": [BACK[0], FRONT[0]]}, "com.t"])
    assert realm.rewrite(ser, TO_BACK, 16, data) == DUMP[ser]([16, 1, {"exclude": [555, BACK[0]]}, "com.t"])


def test_a_long_payload_is_kept(realm: Realm, ser: int) -> None:
    realm.check(ser, TO_FRONT, [36, 1, 2, {"publisher": Sid(0)}, ["x" * 300_000, list(range(5000))], {"y": [Same(0)]}])
    realm.check(ser, TO_BACK, [16, 1, {"exclude": [Sid(i % 7) for i in range(20_000)]}, "com.t", ["x" * 300_000]])
