"""What the rewriter remembers between messages, and the one event that waits for a session's WELCOME."""

from __future__ import annotations

from typing import Any

import pytest

from proxy._relay import PROBE_SIDS
from support.gate import CBOR, DUMP, SERIALIZERS, TO_BACK, TO_FRONT
from support.rewriting import BACK, FRONT, LOAD, OTHER, Realm, Same, Sid

IDS = [Sid(0), Sid(1), OTHER, Sid(6)]


@pytest.fixture(params=SERIALIZERS.values(), ids=SERIALIZERS)
def ser(request: pytest.FixtureRequest) -> int:
    assert isinstance(request.param, int)
    return request.param


@pytest.fixture
def realm() -> Realm:
    return Realm()


LEAVE = "wamp.session.on_leave"


def subscribe(realm: Realm, request: int, subscription: int) -> None:
    realm.check(CBOR, TO_BACK, [32, request, {}, LEAVE])
    realm.check(CBOR, TO_FRONT, [33, request, subscription])


def is_rewritten(realm: Realm, subscription: int) -> bool:
    data = DUMP[CBOR]([36, subscription, 6, {}, [BACK[0]]])
    return realm.rewrite(CBOR, TO_FRONT, 36, data) == DUMP[CBOR]([36, subscription, 6, {}, [FRONT[0]]])


def test_progressive_results(realm: Realm, ser: int) -> None:
    realm.check(ser, TO_BACK, [48, 7, {"receive_progress": True}, "wamp.session.list"])
    for _ in range(3):
        realm.check(ser, TO_FRONT, [50, 7, {"progress": True}, [IDS]])
    realm.check(ser, TO_FRONT, [50, 8, {}, [[Same(0)]]])
    realm.check(ser, TO_FRONT, [50, 7, {"progress": False}, [IDS]])
    assert realm.notes.all() == []


def test_a_failed_call_is_forgotten(realm: Realm, ser: int) -> None:
    realm.check(ser, TO_BACK, [48, 7, {}, "wamp.session.list"])
    realm.check(ser, TO_BACK, [48, 8, {}, "wamp.session.list"])
    realm.check(ser, TO_FRONT, [8, 48, 7, {}, "wamp.error.not_authorized"])
    assert realm.notes.all() == [("call", 8)]
    realm.check(ser, TO_FRONT, [8, 32, 8, {}, "wamp.error.not_authorized"])
    assert realm.notes.all() == [("call", 8)]


def test_a_subscription_lasts_until_it_is_over(realm: Realm) -> None:
    subscribe(realm, 1, 5)
    assert is_rewritten(realm, 5)
    realm.check(CBOR, TO_BACK, [34, 2, 5])
    assert is_rewritten(realm, 5)
    realm.check(CBOR, TO_FRONT, [35, 2])
    assert not is_rewritten(realm, 5)
    assert realm.notes.all() == []


def test_other_subscriptions_are_not_noted(realm: Realm) -> None:
    realm.check(CBOR, TO_BACK, [32, 1, {}, "com.t"])
    realm.check(CBOR, TO_FRONT, [33, 1, 5])
    realm.check(CBOR, TO_BACK, [34, 2, 5])
    realm.check(CBOR, TO_FRONT, [35, 2])
    assert realm.notes.all() == []


def test_a_failed_subscribe_is_forgotten(realm: Realm) -> None:
    realm.check(CBOR, TO_BACK, [32, 1, {}, LEAVE])
    assert realm.notes.all() == [("subscribe", 1)]
    realm.check(CBOR, TO_FRONT, [8, 32, 1, {}, "wamp.error.not_authorized"])
    assert realm.notes.all() == []


def test_a_failed_unsubscribe_changes_nothing(realm: Realm) -> None:
    subscribe(realm, 1, 5)
    realm.check(CBOR, TO_BACK, [34, 2, 5])
    realm.check(CBOR, TO_FRONT, [8, 34, 2, {}, "wamp.error.no_such_subscription"])
    assert is_rewritten(realm, 5)
    assert realm.notes.all() == [("subscription", 5)]


def test_subscribing_twice_gives_one_subscription(realm: Realm) -> None:
    subscribe(realm, 1, 5)
    subscribe(realm, 2, 5)
    assert realm.notes.all() == [("subscription", 5)]
    assert is_rewritten(realm, 5)


def test_subscribing_again_before_the_end_is_confirmed(realm: Realm) -> None:
    subscribe(realm, 1, 5)
    realm.check(CBOR, TO_BACK, [34, 2, 5])
    realm.check(CBOR, TO_BACK, [32, 3, {}, LEAVE])
    realm.check(CBOR, TO_FRONT, [35, 2])
    assert not is_rewritten(realm, 5)
    realm.check(CBOR, TO_FRONT, [33, 3, 5])
    assert is_rewritten(realm, 5)


@pytest.mark.parametrize("reason", [{}, {"reason": "wamp.authentication.changed"}])
def test_a_revoked_subscription_is_over(realm: Realm, ser: int, reason: dict[str, Any]) -> None:
    subscribe(realm, 1, 5)
    subscribe(realm, 2, 6)
    realm.check(ser, TO_FRONT, [35, 0, {"subscription": 5, **reason}])
    assert not is_rewritten(realm, 5)
    assert is_rewritten(realm, 6)


def test_too_many_notes(realm: Realm, ser: int) -> None:
    """What needs one more note is refused; everything else still passes."""
    for request in range(PROBE_SIDS["notes_max"]):
        realm.check(ser, TO_BACK, [48, request, {}, "wamp.session.list"])
    for message in ([48, 2000, {}, "wamp.session.get", [FRONT[0]]], [32, 2000, {}, LEAVE]):
        with pytest.raises(ValueError, match="ST_TOO_BIG"):
            realm.rewrite(ser, TO_BACK, message[0], DUMP[ser](message))
    realm.check(ser, TO_BACK, [48, 2000, {}, "wamp.session.kill", [Sid(0)]])
    realm.check(ser, TO_FRONT, [50, 5, {}, [IDS]])
    realm.check(ser, TO_BACK, [48, 2000, {}, "wamp.session.get", [Sid(0)]])


# --- a session that is still joining ---------------------------------------------------------------------------------


def test_on_join_of_an_unknown_session_waits_while_one_joins(realm: Realm, ser: int) -> None:
    new = 987654321
    data = DUMP[ser]([36, 5, 6, {"topic": "wamp.session.on_join", "publisher": OTHER}, [{"session": new}]])
    assert realm.rewrite(ser, TO_FRONT, 36, data, may_wait=True) is None
    realm.sids.set_joining(realm.number, 1)
    with pytest.raises(ValueError, match="ST_WAIT"):
        realm.rewrite(ser, TO_FRONT, 36, data, may_wait=True)
    assert realm.rewrite(ser, TO_FRONT, 36, data) is None
    realm.sids.put(realm.number, 42, new)
    out = realm.rewrite(ser, TO_FRONT, 36, data, may_wait=True)
    assert out is not None
    assert LOAD[ser](out)[4] == [{"session": 42}]


def test_nothing_else_waits(realm: Realm, ser: int) -> None:
    realm.sids.set_joining(realm.number, 1)
    realm.sids.put(realm.number, 42, 42)
    for topic, args in {
        "wamp.session.on_join": [{"session": 42}],
        "wamp.session.on_leave": [OTHER],
        "wamp.session.on_stats": [{"session": OTHER}],
        "wamp.subscription.on_create": [OTHER, {"creator": OTHER}],
        "wamp.registration.on_register": [OTHER, OTHER],
    }.items():
        realm.check(ser, TO_FRONT, [36, 5, 6, {"topic": topic, "publisher": OTHER}, args], may_wait=True)
    realm.check(ser, TO_BACK, [16, 1, {"exclude": [OTHER]}, "com.t"], may_wait=True)
