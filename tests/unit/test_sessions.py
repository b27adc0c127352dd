"""The session's state machine, event by event, over a data plane that only writes down commands."""

import logging
import struct

import pytest

from proxy.messages import SER_CBOR, SER_JSON, decode, encode
from proxy.plane import (
    CLOSED_FRONT_GONE,
    CLOSED_PEER,
    CLOSED_RESET,
    EV_CLOSED,
    EV_CONTROL,
    EV_MESSAGE,
    EV_REFUSED,
    EV_VIOLATION,
    NOTE_DEAD_CALL,
    ST_TOO_BIG,
    ST_UNTRANSLATABLE,
)
from proxy.sessions import BACK, State
from proxy.sessions import FRONT as FRONT_TABLE
from support.planes import FRONT, HELLO, WELCOME_DETAILS, Rig, back_conn

ST_FORBIDDEN = -10
VIOLATION = "wamp.error.protocol_violation"
GOODBYE = [6, {}, "wamp.close.normal"]


@pytest.fixture
def rig():
    return Rig()


# --- login ---


def test_hello_reaches_the_router_in_the_clients_name(rig):
    rig.open()
    rig.says(HELLO)
    assert rig.state == "JOINING"
    _, (code, realm, details) = rig.dialled()
    assert (code, realm) == (1, "realm1")
    assert details["roles"] == HELLO[2]["roles"]
    assert details["agent"] == "tester"
    assert (details["authmethods"], details["authid"]) == (["anonymous-proxy"], "node7")
    authextra = details["authextra"]
    assert authextra["pubkey"] == "ab" * 32
    assert authextra["proxy_realm"] == "realm1"
    assert authextra["proxy_authrole"] == "anonymous"
    assert authextra["proxy_authmethod"] == "anonymous"
    assert authextra["proxy_authprovider"] == "static"
    assert len(authextra["proxy_authid"]) > 20
    transport = authextra["proxy_authextra"]["transport"]
    assert transport["peer"] == "tcp4:192.0.2.7:4711"
    assert (transport["channel_framing"], transport["channel_serializer"]) == ("rawsocket", "cbor")


def test_a_client_cannot_speak_for_the_proxy(rig):
    rig.open()
    claims = {"proxy_authrole": "trusted", "transport": {"peer": "evil"}, "x_cb_node": "mine", "harmless": 1}
    details = {**HELLO[2], "authextra": claims, "authrole": "trusted", "authid": "root", "proxy_realm": "other"}
    rig.says([1, "realm1", details])
    _, (_, _, sent) = rig.dialled()
    assert sent["authid"] == "node7"
    assert "authrole" not in sent
    assert "proxy_realm" not in sent
    assert sent["authextra"]["proxy_authrole"] == "anonymous"
    passed = sent["authextra"]["proxy_authextra"]
    assert passed.pop("transport")["peer"] == "tcp4:192.0.2.7:4711"
    assert passed == {"harmless": 1}


def test_features_that_would_make_a_router_drop_the_connection_are_left_out(rig):
    rig.open()
    features = {"call_canceling": True, "self": True, "progressive_call_results": "yes", "x_own": False}
    rig.says([1, "realm1", {"roles": {"caller": {"features": features}, "callee": {}}}])
    _, (_, _, sent) = rig.dialled()
    assert sent["roles"] == {"caller": {"features": {"call_canceling": True, "x_own": False}}, "callee": {}}


def test_unknown_attributes_and_complete_resumption_attributes_go_along(rig):
    rig.open()
    more = {"x_mine": [1], "resumable": True, "resume-session": 7, "resume-token": "t"}
    rig.says([1, "realm1", {**HELLO[2], **more}])
    _, (_, _, sent) = rig.dialled()
    assert {key: sent.get(key) for key in more} == more


def test_half_of_the_resumption_attributes_do_not(rig):
    rig.open()
    rig.says([1, "realm1", {**HELLO[2], "resumable": "yes", "resume-session": 7}])
    _, (_, _, sent) = rig.dialled()
    assert not {"resumable", "resume-session", "resume-token"} & set(sent)


def test_welcome_is_the_routers_but_for_the_authentication(rig):
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    ((command, conn, back, message),) = rig.did()
    assert (command, conn, back) == ("link", FRONT, back_conn(token))
    code, session_id, details = decode(SER_CBOR, message)
    assert (code, session_id) == (2, 4242)
    assert details["roles"] == WELCOME_DETAILS["roles"]
    assert (details["authid"], details["authrole"], details["realm"]) == ("joe", "anonymous", "realm1")
    assert (details["authmethod"], details["authprovider"], details["x_cb_pid"]) == ("anonymous", "static", 17)
    assert details["authextra"].pop("x_cb_proxy_pid") > 0
    assert details["authextra"] == {
        "x_cb_node": "node1",
        "x_cb_proxy_node": "node7",
        "x_cb_proxy_worker": "worker001",
        "x_cb_proxy_peer": "tcp4:192.0.2.7:4711",
    }


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([48, 1, {}, "com.x"], "CALL where HELLO is expected"),
        (GOODBYE, "GOODBYE where HELLO is expected"),
        ([5, "sig", {}], "AUTHENTICATE where HELLO is expected"),
        ([1, "realm1", {}], "HELLO.Details.roles must be a dict, got None"),
    ],
)
def test_anything_but_a_good_hello_is_a_violation(rig, message, text):
    rig.open()
    rig.says(message)
    assert rig.did() == [("send", FRONT, [3, {"message": text}, VIOLATION]), ("close", FRONT, 1002)]
    assert rig.state == "CLOSING"


def test_abort_instead_of_hello_is_not_answered(rig):
    rig.open()
    rig.says([3, {}, "com.never.mind"])
    assert rig.did() == [("close", FRONT, 1000)]


def test_an_unreadable_first_message_is_a_violation(rig):
    rig.open()
    rig.front(EV_VIOLATION, -5)
    assert rig.did() == [
        ("send", FRONT, [3, {"message": "the message is not well-formed"}, VIOLATION]),
        ("close", FRONT, 1002),
    ]


@pytest.mark.parametrize(("realm", "reason"), [("nowhere", "no_such_realm"), ("other", "no_such_role")])
def test_no_route(rig, realm, reason):
    rig.open()
    rig.says([1, realm, HELLO[2]])
    (_, _, (code, _, uri)), close = rig.did()
    assert (code, uri, close) == (3, f"wamp.error.{reason}", ("close", FRONT, 1000))


def test_the_routers_abort_reaches_the_client_as_it_is(rig):
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    abort = [3, {"message": "no", "more": 1}, "com.router.no", [1], {"k": 2}]
    rig.answers(token, abort)
    assert rig.did() == [("close", back_conn(token)), ("send", FRONT, abort), ("close", FRONT, 1000)]


def test_a_router_that_wants_the_proxy_to_authenticate(rig):
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.answers(token, [4, "ticket", {}])
    to_router, close_router, to_client, close_client = rig.did()
    assert to_router == ("send", back_conn(token), [3, {}, "wamp.error.cannot_authenticate"])
    assert close_router == ("close", back_conn(token))
    assert to_client[2][2] == "wamp.error.network_failure", "it is not the client who could do better"
    assert 'connection "one" does not let the proxy log in' in to_client[2][1]["message"]
    assert close_client == ("close", FRONT, 1000)


def test_a_client_that_is_lost_while_its_router_is_joined(rig):
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.back(token, EV_CLOSED, CLOSED_FRONT_GONE)
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert rig.did() == [], "the data plane closes the router's connection itself, and nobody else is dialled"
    assert rig.state == "CLOSED"
    assert token not in rig.plane.owners


def test_the_router_welcomes_a_client_that_is_lost(rig):
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.front(EV_CLOSED, CLOSED_PEER)
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    rig.back(token, EV_CLOSED, CLOSED_FRONT_GONE)
    assert rig.did() == []
    assert token not in rig.plane.owners
    assert rig.controller.connections["one"].live == 0


# --- the client leaves ---


def test_goodbye_goes_to_the_router_and_its_answer_to_the_client(rig):
    token = rig.join()
    rig.says([6, {"message": "so long"}, "com.my.reason"], EV_CONTROL)
    assert rig.did() == [("send", back_conn(token), [6, {"message": "so long"}, "com.my.reason"])]
    assert rig.state == "LEAVING"
    rig.answers(token, [6, {"x": 1}, "wamp.close.goodbye_and_out"], EV_CONTROL)
    assert rig.did() == [
        ("unlink", FRONT),
        ("send", FRONT, [6, {"x": 1}, "wamp.close.goodbye_and_out"]),
        ("close", back_conn(token)),
        ("next", FRONT),
    ]
    assert rig.state == "OPEN"
    assert not rig.clock.getDelayedCalls()


def test_a_second_session_on_the_same_connection(rig):
    first = rig.join()
    rig.says(GOODBYE, EV_CONTROL)
    rig.answers(first, GOODBYE, EV_CONTROL)
    rig.did()
    rig.says(HELLO)
    second, _ = rig.dialled()
    rig.back(first, EV_CLOSED, CLOSED_PEER)
    rig.answers(second, [2, 4343, WELCOME_DETAILS])
    assert rig.state == "ESTABLISHED"
    assert [call[0] for call in rig.did()] == ["link"]
    assert rig.controller.connections["one"].live == 1


def test_a_router_that_does_not_answer_goodbye(rig):
    token = rig.join()
    rig.says(GOODBYE, EV_CONTROL)
    rig.did()
    rig.clock.advance(rig.controller.connections["one"].goodbye_ms / 1000)
    assert rig.did() == [
        ("unlink", FRONT),
        ("send", FRONT, [6, {}, "wamp.close.goodbye_and_out"]),
        ("close", back_conn(token)),
        ("next", FRONT),
    ]
    assert rig.state == "OPEN"
    rig.answers(token, GOODBYE, EV_CONTROL)  # too late
    assert rig.did() == []


def test_a_router_that_is_lost_instead_of_answering_goodbye(rig):
    token = rig.join()
    rig.says(GOODBYE, EV_CONTROL)
    rig.did()
    rig.back(token, EV_CLOSED, CLOSED_RESET)
    assert ("send", FRONT, [6, {}, "wamp.close.goodbye_and_out"]) in rig.did()
    assert rig.state == "OPEN"
    assert not rig.clock.getDelayedCalls()


def test_a_client_that_is_lost_leaves_its_router_session_at_once(rig):
    token = rig.join()
    rig.front(EV_CLOSED, CLOSED_RESET)
    assert rig.did() == [
        ("send", back_conn(token), [6, {}, "wamp.close.transport_lost"]),
        ("close", back_conn(token)),
    ]
    assert rig.state == "CLOSED"
    rig.back(token, EV_CLOSED, CLOSED_PEER)
    assert token not in rig.plane.owners


def test_a_client_that_is_lost_after_goodbye_says_it_once(rig):
    token = rig.join()
    rig.says(GOODBYE, EV_CONTROL)
    rig.did()
    rig.front(EV_CLOSED, CLOSED_RESET)
    assert rig.did() == [("close", back_conn(token))]
    assert not rig.clock.getDelayedCalls()


def test_a_goodbye_that_is_none_is_a_violation(rig):
    token = rig.join()
    rig.says([6, {}], EV_CONTROL)
    sent = rig.did()
    assert sent[1] == ("send", back_conn(token), [6, {}, VIOLATION])
    assert sent[3][2][2] == VIOLATION
    assert rig.state == "CLOSING"


# --- the router leaves ---


def test_the_routers_goodbye_reaches_the_client_as_it_is_and_is_answered(rig):
    token = rig.join()
    killed = [6, {"message": "bye", "by": 7}, "wamp.close.killed"]
    rig.answers(token, killed, EV_CONTROL)
    assert rig.did() == [
        ("unlink", FRONT),
        ("send", FRONT, killed),
        ("send", back_conn(token), [6, {}, "wamp.close.goodbye_and_out"]),
        ("close", back_conn(token)),
        ("next", FRONT, 2000),
    ]
    assert rig.state == "DISMISSED"
    rig.says([6, {}, "wamp.close.goodbye_and_out"])
    assert rig.did() == [("next", FRONT)]
    assert rig.state == "OPEN"


def test_what_a_dismissed_client_still_says_is_dropped_until_its_time_is_up(rig):
    token = rig.join()
    rig.answers(token, GOODBYE, EV_CONTROL)
    rig.did()
    rig.clock.advance(0.5)
    rig.says([48, 1, {}, "com.x"])
    assert rig.did() == [("next", FRONT, 1500)]
    rig.clock.advance(1.5)
    rig.says([48, 2, {}, "com.x"])
    assert rig.did() == [("close", FRONT, 1002)]


def test_a_dismissed_client_must_answer_before_it_comes_again(rig):
    token = rig.join()
    rig.answers(token, GOODBYE, EV_CONTROL)
    rig.did()
    rig.says(HELLO)
    assert rig.did()[0][2][2] == VIOLATION


def test_goodbyes_that_cross(rig):
    token = rig.join()
    rig.answers(token, GOODBYE, EV_CONTROL)
    rig.did()
    rig.says(GOODBYE, EV_CONTROL)  # said before it had the router's
    assert rig.state == "OPEN"
    assert rig.did() == []  # it is read from since the GOODBYE to it went out


def test_the_routers_abort_ends_the_connection(rig):
    token = rig.join()
    abort = [3, {"message": "out"}, "com.router.out"]
    rig.answers(token, abort, EV_CONTROL)
    assert rig.did() == [
        ("unlink", FRONT), ("close", back_conn(token)), ("send", FRONT, abort), ("close", FRONT, 1000),
    ]  # fmt: skip


def test_a_router_that_is_lost_makes_clients_come_again(rig):
    token = rig.join()
    rig.back(token, EV_CLOSED, CLOSED_RESET)
    sent = [call for call in rig.did() if call[1] == FRONT]
    goodbye = [6, {"message": "the connection to the router is lost"}, "wamp.close.transport_lost"]
    assert sent == [("unlink", FRONT), ("send", FRONT, goodbye), ("close", FRONT, 1012)]
    assert rig.controller.connections["one"].live == 0


def test_a_router_that_breaks_the_protocol_is_left(rig):
    token = rig.join()
    rig.back(token, EV_VIOLATION, ST_FORBIDDEN)
    unlink, to_router, close_router, to_client, close = rig.did()
    assert unlink == ("unlink", FRONT)
    assert to_router == ("send", back_conn(token), [6, {}, VIOLATION])
    assert close_router == ("close", back_conn(token))
    assert to_client[2][2] == "wamp.close.transport_lost"
    assert close == ("close", FRONT, 1012)


# --- violations ---


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [(ST_FORBIDDEN, VIOLATION, 1002), (ST_TOO_BIG, "wamp.error.payload_size_exceeded", 1009)],
)
def test_a_client_that_breaks_the_protocol_is_cut_off_on_both_sides(rig, status, reason, code):
    token = rig.join()
    rig.front(EV_VIOLATION, status)
    unlink, to_router, close_router, to_client, close = rig.did()
    assert unlink == ("unlink", FRONT)
    assert to_router == ("send", back_conn(token), [6, {}, reason])
    assert close_router == ("close", back_conn(token))
    assert (to_client[2][0], to_client[2][2]) == (3, reason)
    assert close == ("close", FRONT, code)
    assert rig.state == "CLOSING"


# --- messages that the other side cannot take ---


def refused(code, head, size=70_000, why=b"", serializer=SER_CBOR):
    """Data of EV_REFUSED."""
    return struct.pack(">IQB", code, size, len(why)) + why + encode(serializer, head)


def test_a_call_that_the_router_cannot_take_fails_and_the_session_goes_on(rig):
    rig.join()
    rig.front(EV_REFUSED, ST_TOO_BIG, refused(48, [48, 7, {}, "com.x"]))
    text = "CALL of 70000 octets is more than the router takes"
    assert rig.did() == [
        ("send", FRONT, [8, 48, 7, {}, "wamp.error.payload_size_exceeded", [text]]),
        ("next", FRONT),
    ]
    assert rig.state == "ESTABLISHED"
    assert (rig.transport.refused.count, rig.transport.refused.unheard) == (1, 0)


def test_a_result_that_the_client_cannot_take_fails_the_call_and_ends_its_rest(rig):
    token = rig.join()
    rig.back(token, EV_REFUSED, ST_UNTRANSLATABLE, refused(50, [50, 7, {"progress": True}], why=b"a NaN"))
    text = "RESULT of 70000 octets holds what the client's serializer cannot express: a NaN"
    assert rig.did() == [
        ("swallow", FRONT, NOTE_DEAD_CALL, 7),
        ("send", FRONT, [8, 48, 7, {}, "wamp.error.invalid_payload", [text]]),
        ("send", back_conn(token), [49, 7, {"mode": "killnowait"}]),
        ("next", back_conn(token)),
    ]
    assert rig.state == "ESTABLISHED"
    assert rig.controller.connections["one"].refused.count == 1


def test_each_side_is_told_in_its_own_serializer():
    rig = Rig(serializer=SER_JSON, router={"serializers": ["cbor"]})
    token = rig.join()
    rig.front(EV_REFUSED, ST_UNTRANSLATABLE, refused(70, [70, 9, {}], serializer=SER_JSON))
    rig.back(token, EV_REFUSED, ST_TOO_BIG, refused(50, [50, 9, {}]))
    (_, to_back, yielded), _, (_, to_front, failed), _ = rig.did()
    assert (to_back, yielded[:3]) == (back_conn(token), [8, 68, 9])
    assert (to_front, failed[:3]) == (FRONT, [8, 48, 9])


def test_after_goodbye_the_router_is_told_nothing_more(rig):
    token = rig.join()
    rig.says(GOODBYE, EV_CONTROL)
    rig.did()
    rig.back(token, EV_REFUSED, ST_TOO_BIG, refused(68, [68, 9, 3, {}]))
    rig.back(token, EV_REFUSED, ST_TOO_BIG, refused(50, [50, 9, {}]))
    assert [call[:2] for call in rig.did()] == [
        ("next", back_conn(token)),
        ("send", FRONT),
        ("next", back_conn(token)),
    ]
    rig.answers(token, GOODBYE, EV_CONTROL)
    assert rig.state == "OPEN"


@pytest.mark.parametrize("octets", [b"", b"\xff", encode(SER_CBOR, [48])])
def test_a_refused_message_without_a_readable_head_is_counted(rig, octets, caplog):
    rig.join()
    rig.front(EV_REFUSED, ST_TOO_BIG, struct.pack(">IQB", 48, 70_000, 0) + octets)
    assert rig.did() == [("next", FRONT)]
    assert rig.transport.refused.unheard == 1
    assert "nobody could be told" in caplog.messages[-1]


def test_an_event_without_its_payload_must_still_be_small(rig):
    token = rig.join()
    for topic in ("com.short", "com." + "x" * 600):
        rig.back(token, EV_REFUSED, ST_TOO_BIG, refused(36, [36, 5, 6, {"topic": topic}]))
    assert rig.did() == [
        ("send", FRONT, [36, 5, 6, {"topic": "com.short", "payload_limit_exceeded": True}]),
        ("next", back_conn(token)),
        ("next", back_conn(token)),
    ]
    assert rig.controller.connections["one"].refused.unheard == 1


def test_a_message_that_is_refused_while_the_session_ends_is_forgotten(rig):
    token = rig.join()
    rig.answers(token, GOODBYE, EV_CONTROL)
    rig.did()
    rig.front(EV_REFUSED, ST_TOO_BIG, refused(48, [48, 7, {}, "com.x"]))
    assert rig.did() == []
    rig.front(EV_VIOLATION, -5)
    rig.did()
    rig.front(EV_REFUSED, ST_TOO_BIG, refused(48, [48, 7, {}, "com.x"]))
    assert rig.did() == []


# --- shutdown, crashes ---


def test_shutdown_of_an_established_session(rig):
    token = rig.join()
    rig.controller.shut_down(5)
    shutdown = [6, {}, "wamp.close.system_shutdown"]
    assert rig.did()[1:] == [
        ("unlink", FRONT),
        ("send", FRONT, shutdown),
        ("send", back_conn(token), shutdown),
        ("close", back_conn(token)),
        ("next", FRONT, 2000),
    ]
    rig.says([6, {}, "wamp.close.goodbye_and_out"])
    assert rig.did() == [("close", FRONT, 1001)]


def test_shutdown_during_the_login(rig):
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.controller.shut_down(5)
    assert rig.did()[1:] == [
        ("undial", FRONT), ("send", FRONT, [3, {}, "wamp.close.system_shutdown"]), ("close", FRONT, 1001),
    ]  # fmt: skip
    rig.back(token, EV_CLOSED, 2)
    assert rig.did() == [], "no other router is tried"


def test_shutdown_before_the_login(rig):
    rig.open()
    rig.controller.shut_down(5)
    assert rig.did()[1:] == [("close", FRONT, 1001)]


def test_shutdown_is_over_when_the_last_one_is_gone(rig):
    token = rig.join()
    results = []
    rig.controller.shut_down(5).addCallback(results.append)
    rig.front(EV_CLOSED, CLOSED_PEER)
    rig.back(token, EV_CLOSED, CLOSED_PEER)
    assert results == []
    rig.transport.on_event(7, 0, 4, b"")  # EV_LISTEN, LISTEN_CLOSED
    assert results == [True]
    assert not rig.clock.getDelayedCalls()


def test_shutdown_is_over_when_the_time_is_up(rig):
    rig.join()
    results = []
    rig.controller.shut_down(5).addCallback(results.append)
    rig.clock.advance(4.9)
    assert results == []
    rig.clock.advance(0.2)
    assert results == [False]


def test_nobody_new_is_let_in_during_shutdown(rig):
    rig.controller.shut_down(5)
    rig.did()
    rig.open()
    assert rig.did() == [("abort", FRONT)]
    assert not rig.transport.sessions


def test_a_crash_ends_both_sides_and_only_them(rig):
    token = rig.join()
    rig.open(conn=FRONT + 1)
    rig.transport.on_crash(FRONT)
    assert rig.did() == [
        ("send", back_conn(token), [6, {}, "wamp.close.transport_lost"]), ("close", back_conn(token)), ("abort", FRONT),
    ]  # fmt: skip
    assert rig.transport.sessions[FRONT + 1].state is State.OPEN


def test_a_crash_at_the_routers_end_does_not_leave_the_client_waiting(rig, monkeypatch):
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    owner = rig.plane.owners[token]
    monkeypatch.setattr("proxy.backend.BackendJoin._after_failure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rig.back(token, EV_CLOSED, CLOSED_RESET)
    owner.on_crash(back_conn(token))
    assert ("abort", FRONT) in rig.did()
    assert token not in rig.plane.owners


def test_an_error_before_dialling_leaves_nothing_behind(rig, monkeypatch):
    monkeypatch.setattr("proxy.auth.asserted.backend_hello", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("proxy.auth.credential.backend_hello", lambda *_, **__: 1 / 0)
    owners = set(rig.plane.owners)
    rig.open()
    rig.says(HELLO)
    (_, _, (_, _, reason)), closed = rig.did()
    assert reason == "wamp.error.runtime_error"
    assert closed == ("close", FRONT, 1000)
    assert set(rig.plane.owners) == owners


def test_an_event_that_the_state_does_not_know_is_an_error(rig):
    rig.open()
    with pytest.raises(RuntimeError, match="state OPEN"):
        rig.front(EV_CONTROL, 6, encode(SER_CBOR, GOODBYE))


def test_every_state_can_lose_the_client():
    assert all(EV_CLOSED in table for state, table in FRONT_TABLE.items() if state is not State.CLOSED)
    assert set(FRONT_TABLE) == set(State)
    assert all({EV_CONTROL, EV_REFUSED, EV_VIOLATION, EV_CLOSED} == set(table) for table in BACK.values())


# --- what is logged ---


def test_one_line_per_login_and_one_per_logout(rig, caplog):
    caplog.set_level(logging.INFO)
    rig.join()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("session 4242 joined realm realm1 as joe (anonymous) from tcp4:192.0.2.7:4711")
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert len(caplog.messages) == 2
    assert caplog.messages[1].startswith("session 4242 left realm realm1: ")


def test_nothing_is_left_of_a_session_that_is_gone(rig):
    before = len(rig.plane.owners)
    token = rig.join()
    rig.front(EV_CLOSED, CLOSED_PEER)
    rig.back(token, EV_CLOSED, CLOSED_PEER)
    assert not rig.transport.sessions
    assert len(rig.plane.owners) == before
    assert not rig.clock.getDelayedCalls()
    assert rig.controller.connections["one"].live == 0
    assert rig.controller.connections["one"].joined == 1


def test_messages_to_a_closing_client_are_ignored(rig):
    rig.open()
    rig.says([48, 1, {}, "x"])
    rig.did()
    for kind in (EV_MESSAGE, EV_CONTROL):
        rig.says(HELLO, kind)
    rig.front(EV_VIOLATION, -5)
    assert rig.did() == []
