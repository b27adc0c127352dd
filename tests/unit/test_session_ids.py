"""Who chooses the session IDs that clients are told, and when an ID is free again."""

import logging

import pytest

from proxy.config import ConfigError
from proxy.messages import ID_MAX, SER_CBOR, decode
from proxy.plane import CLOSED_FRONT_GONE, CLOSED_PEER, CLOSED_REFUSED, CLOSED_RESET, EV_CLOSED, EV_CONTROL
from proxy.session_ids import ENDED_MAX, SessionIds
from support.planes import FRONT, HELLO, WELCOME_DETAILS, FakePlane, Rig, back_conn

GOODBYE = [6, {}, "wamp.close.normal"]
REFUSED = CLOSED_REFUSED | 111 << 8


@pytest.fixture
def rig():
    return Rig(session_ids="proxy")


def dial_of(rig):
    (dial,) = [call for call in rig.plane.take() if call[0] == "dial"]
    return dial


def released(rig):
    return [call[1:] for call in rig.plane.take() if call[0] == "release_sid"]


def login(rig, conn=FRONT, back_sid=4242, details=WELCOME_DETAILS):
    """A whole login; token of the router's connection, front_sid, the client's WELCOME."""
    rig.open(conn)
    rig.says(HELLO, conn=conn)
    dial = dial_of(rig)
    rig.answers(dial[2], [2, back_sid, dict(details)])
    (link,) = [call for call in rig.plane.take() if call[0] == "link"]
    return dial[2], dial[11], decode(SER_CBOR, link[3])


# --- the option ---


def test_the_routers_id_is_the_default():
    rig = Rig()
    rig.open()
    rig.says(HELLO)
    dial = dial_of(rig)
    assert dial[10:] == (1, 0), "the realm is told, so that the IDs of other sessions can be rewritten"
    rig.answers(dial[2], [2, 4242, WELCOME_DETAILS])
    (link,) = rig.plane.take()
    assert decode(SER_CBOR, link[3])[1] == 4242
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert released(rig) == []


@pytest.mark.parametrize("value", ["own", 1, None])
def test_any_other_value_is_refused(value):
    with pytest.raises(ConfigError, match=r"session_ids.*expected router or proxy"):
        Rig().controller.start_proxy_transport(
            "other", {"type": "rawsocket", "endpoint": {"type": "tcp", "port": 0}, "session_ids": value}
        )


# --- what the client is told ---


def test_the_client_is_told_the_proxys_id_and_never_the_routers(rig, caplog):
    caplog.set_level(logging.INFO)
    told = {**WELCOME_DETAILS, "session": 4242, "authextra": {"x_cb_node": "node1", "session_id": 4242, "session": "x"}}
    _, front_sid, (code, session, details) = login(rig, details=told)
    assert (code, session) == (2, front_sid)
    assert 1 <= front_sid <= ID_MAX
    assert front_sid != 4242
    assert details["session"] == details["authextra"]["session_id"] == front_sid
    assert details["authextra"]["session"] == "x"
    assert "4242" not in str(details)
    assert caplog.messages[0].startswith(f"session {front_sid} joined realm realm1 as joe")
    assert caplog.messages[0].endswith("to one (session 4242 there)")
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert caplog.messages[1].startswith(f"session {front_sid} left realm realm1")


def test_it_is_the_same_for_every_router_that_is_tried():
    rig = Rig(3, session_ids="proxy")
    rig.open()
    rig.says(HELLO)
    drawn = set()
    for _ in range(2):
        dial = dial_of(rig)
        drawn.add(dial[10:])
        rig.back(dial[2], EV_CLOSED, REFUSED)
    dial = dial_of(rig)
    drawn.add(dial[10:])
    assert len(drawn) == 1
    rig.answers(dial[2], [2, 4242, WELCOME_DETAILS])
    (link,) = rig.plane.take()
    assert decode(SER_CBOR, link[3])[1] == dial[11]


def test_a_second_session_on_the_same_connection_has_another_id(rig):
    token, first, _ = login(rig)
    rig.says(GOODBYE, EV_CONTROL)
    rig.answers(token, GOODBYE, EV_CONTROL)
    assert released(rig) == [(1, first)]
    rig.says(HELLO)
    dial = dial_of(rig)
    assert dial[11] not in (0, first)
    assert first not in rig.controller.session_ids


@pytest.mark.parametrize("ends", [False, True])
def test_a_session_to_be_resumed_is_named_as_its_router_knows_it(rig, ends):
    token, front_sid, _ = login(rig)
    if ends:
        rig.back(token, EV_CLOSED, CLOSED_RESET)
        rig.front(EV_CLOSED, CLOSED_PEER)
        rig.plane.take()
    named = {}
    for number, sid in enumerate([front_sid, 99], 1):
        rig.open(FRONT + number)
        rig.says([1, "realm1", {**HELLO[2], "resume-session": sid, "resume-token": "t"}], conn=FRONT + number)
        named[sid] = rig.dialled()[1][2]["resume-session"]
    assert named == {front_sid: 4242, 99: 99}


def test_ended_sessions_are_remembered_up_to_a_bound():
    ids = SessionIds(FakePlane())
    for number in range(ENDED_MAX + 10):
        ids.join(10_000_000 + number, number + 1)
        ids.drop(number + 1)
        ids.release(1, 10_000_000 + number)
    assert ids.to_back(10_000_000 + 9) == 10_000_000 + 9
    assert ids.to_back(10_000_000 + 10) == 11
    assert len(ids) == 0


def test_realms_have_a_number_each(rig):
    rig.controller.start_proxy_realm_route("realm2", {"anonymous": "one"})
    numbers = {}
    for index, realm in enumerate(["realm1", "realm2", "realm1"]):
        rig.open(FRONT + index)
        rig.says([1, realm, HELLO[2]], conn=FRONT + index)
        numbers.setdefault(realm, set()).add(dial_of(rig)[10])
    assert numbers == {"realm1": {1}, "realm2": {2}}


@pytest.mark.parametrize("session_ids", ["router", "proxy"])
def test_no_room_for_another_realm_is_that_logins_failure(session_ids, monkeypatch):
    rig = Rig(session_ids=session_ids)

    def full(name):
        raise RuntimeError("there are 65536 realms")

    monkeypatch.setattr(rig.plane, "add_realm", full)
    rig.open()
    rig.says(HELLO)
    (_, _, (code, details, reason)), close = rig.did()
    assert (code, reason, close) == (3, "wamp.error.unavailable", ("close", FRONT, 1000))
    assert 'realm "realm1"' in details["message"]
    assert len(rig.controller.session_ids) == 0


# --- when it is free again ---


def end_by_client(rig, token):
    rig.front(EV_CLOSED, CLOSED_RESET)


def end_by_router(rig, token):
    rig.answers(token, GOODBYE, EV_CONTROL)


def end_by_abort(rig, token):
    rig.answers(token, [3, {}, "com.router.out"], EV_CONTROL)


def end_by_loss(rig, token):
    rig.back(token, EV_CLOSED, CLOSED_RESET)


def end_by_shutdown(rig, token):
    rig.controller.shut_down(5)


def end_by_crash(rig, token):
    rig.transport.on_crash(FRONT)


@pytest.mark.parametrize(
    "end", [end_by_client, end_by_router, end_by_abort, end_by_loss, end_by_shutdown, end_by_crash]
)
def test_every_end_of_a_session_frees_its_id_once(rig, end):
    token, front_sid, _ = login(rig)
    assert len(rig.controller.session_ids) == 2
    end(rig, token)
    assert released(rig) == [(1, front_sid)]
    assert len(rig.controller.session_ids) == 0
    rig.front(EV_CLOSED, CLOSED_PEER) if end is not end_by_client else None
    rig.back(token, EV_CLOSED, CLOSED_PEER) if end is not end_by_loss else None
    assert released(rig) == []


@pytest.mark.parametrize("reason", ["nowhere", "other"])
def test_a_login_without_route_frees_it(rig, reason):
    rig.open()
    rig.says([1, reason, HELLO[2]])
    assert rig.did()[0][2][0] == 3
    assert len(rig.controller.session_ids) == 0


def test_a_login_that_no_router_takes_frees_it(rig):
    rig.open()
    rig.says(HELLO)
    dial = dial_of(rig)
    rig.answers(dial[2], [3, {}, "com.router.no"])
    assert released(rig) == [(1, dial[11])]
    assert len(rig.controller.session_ids) == 0


@pytest.mark.parametrize("end", ["front", "shutdown"])
def test_a_login_that_is_broken_off_frees_it_again_when_its_dial_has_ended(rig, end):
    # The router's WELCOME may have been read, and noted, in the moment between.
    rig.open()
    rig.says(HELLO)
    dial = dial_of(rig)
    if end == "front":
        rig.front(EV_CLOSED, CLOSED_PEER)
    else:
        rig.controller.shut_down(5)
    assert released(rig) == [(1, dial[11])]
    rig.back(dial[2], EV_CLOSED, CLOSED_FRONT_GONE)
    assert released(rig) == [(1, dial[11])]


def test_a_failed_dial_does_not_free_the_id_of_a_login_that_goes_on():
    rig = Rig(2, session_ids="proxy")
    rig.open()
    rig.says(HELLO)
    first = dial_of(rig)
    rig.answers(first[2], [2, "x", {}])  # no WELCOME: the connection is closed, the next one is dialled
    second = dial_of(rig)
    rig.answers(second[2], [2, 4242, WELCOME_DETAILS])
    rig.plane.take()
    rig.back(first[2], EV_CLOSED, CLOSED_PEER)
    assert released(rig) == []
    assert first[11] in rig.controller.session_ids


# --- drawing ---


def test_ids_are_drawn_from_the_whole_range_and_never_one_in_use(monkeypatch):
    ids = SessionIds(FakePlane())
    drawn = iter([0, 0, 7, 7, ID_MAX - 1])
    monkeypatch.setattr("secrets.randbelow", lambda limit: next(drawn) if limit == ID_MAX else 1 / 0)
    ids.add(8)
    assert [ids.draw(), ids.draw()] == [1, ID_MAX]


def test_a_source_of_random_numbers_that_repeats_is_an_error(monkeypatch):
    ids = SessionIds(FakePlane())
    monkeypatch.setattr("secrets.randbelow", lambda limit: 41)
    assert ids.draw() == 42
    with pytest.raises(RuntimeError):
        ids.draw()


def test_an_id_that_two_routers_gave_is_in_use_until_both_sessions_are_over():
    ids = SessionIds(FakePlane())
    for _ in range(3):
        ids.add(7)
    for left in (True, True, False, False):
        ids.drop(7)
        assert (7 in ids) is left


def test_many_ids_are_spread_over_the_range():
    ids = SessionIds(FakePlane())
    drawn = [ids.draw() for _ in range(2000)]
    assert len(set(drawn)) == len(ids) == 2000
    for part in range(8):
        count = sum(part * ID_MAX // 8 < sid <= (part + 1) * ID_MAX // 8 for sid in drawn)
        assert 130 < count < 380, "250 are expected, with a standard deviation of 15"


def test_the_ids_of_routers_are_in_use_too():
    rig = Rig()
    token = rig.join()
    assert 4242 in rig.controller.session_ids
    rig.back(token, EV_CLOSED, CLOSED_RESET)
    assert len(rig.controller.session_ids) == 0
    assert back_conn(token)
