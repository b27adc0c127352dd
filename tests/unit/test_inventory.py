"""Sessions as the management API shows them, ends them and counts them."""

import time

import pytest

from proxy.errors import InvalidArgument, NoSuchObject
from proxy.plane import CLOSED_PEER, EV_CLOSED, EV_CONTROL
from support.planes import FRONT, HELLO, WELCOME_DETAILS, Rig, back_conn

LISTEN = {"type": "rawsocket", "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": 0}}


@pytest.fixture
def rig():
    return Rig()


def ids(page):
    return [session["session"] for session in page["sessions"]]


# --- what is shown ---


def test_a_session(rig):
    before = time.time_ns()
    rig.join()
    shown = rig.controller.get_proxy_session(4242)
    assert before - 1000 <= shown.pop("joined") <= time.time_ns()
    assert shown == {
        "session": 4242, "realm": "realm1", "authid": "joe", "authrole": "anonymous", "authmethod": "anonymous",
        "transport": "transport000", "connection": "one", "peer": "tcp4:192.0.2.7:4711", "serializer": "cbor",
        "backend_serializer": "cbor", "backend_session": 4242,
    }  # fmt: skip


def test_a_session_that_the_proxy_named():
    rig = Rig(session_ids="proxy")
    token = rig.join()
    front_sid = rig.transport.sessions[FRONT].front_sid
    assert rig.controller.get_proxy_session(front_sid)["backend_session"] == 4242
    with pytest.raises(NoSuchObject):
        rig.controller.get_proxy_session(4242)
    rig.back(token, EV_CLOSED, CLOSED_PEER)
    with pytest.raises(NoSuchObject, match=str(front_sid)):
        rig.controller.get_proxy_session(front_sid)


def test_only_what_is_joined_is_a_session(rig):
    rig.open()
    assert rig.controller.get_proxy_sessions() == {"sessions": [], "total": 0, "next": None}
    rig.says(HELLO)
    assert rig.controller.get_proxy_sessions()["total"] == 0
    token, _ = rig.dialled()
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    assert rig.controller.get_proxy_sessions()["total"] == 1
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert rig.controller.get_proxy_sessions()["total"] == 0


def test_a_session_is_there_until_the_router_has_answered_its_goodbye(rig):
    token = rig.join()
    rig.says([6, {}, "wamp.close.normal"], EV_CONTROL)
    assert ids(rig.controller.get_proxy_sessions()) == [4242]
    rig.answers(token, [6, {}, "wamp.close.goodbye_and_out"], EV_CONTROL)
    assert ids(rig.controller.get_proxy_sessions()) == []


def test_pages_follow_each_other_without_gaps_while_sessions_come_and_go(rig):
    for conn, sid in enumerate([50, 10, 40, 20, 30], FRONT):
        rig.log_in(conn, sid)
    page = rig.controller.get_proxy_sessions(limit=2)
    assert (ids(page), page["total"], page["next"]) == ([10, 20], 5, 20)
    rig.front(EV_CLOSED, CLOSED_PEER, conn=FRONT + 3)  # 20, where the next page begins
    rig.log_in(FRONT + 7, 25)
    page = rig.controller.get_proxy_sessions(limit=2, after=page["next"])
    assert (ids(page), page["total"], page["next"]) == ([25, 30], 5, 30)
    page = rig.controller.get_proxy_sessions(limit=2, after=page["next"])
    assert (ids(page), page["next"]) == ([40, 50], None)
    assert ids(rig.controller.get_proxy_sessions(after=50)) == []


def test_sessions_of_the_same_id_are_on_the_same_page():
    rig = Rig(2)
    for conn, sid in enumerate([7, 9, 9, 9], FRONT):
        rig.log_in(conn, sid)
    page = rig.controller.get_proxy_sessions(limit=2)
    assert (ids(page), page["next"]) == ([7, 9, 9, 9], None)


def test_filters():
    rig = Rig(2)
    rig.log_in(FRONT, 1, "ann", "user")
    rig.log_in(FRONT + 1, 2, "bob", "admin")
    rig.log_in(FRONT + 2, 3, "ann", "admin")
    listed = rig.controller.get_proxy_sessions
    assert ids(listed(authid="ann")) == [1, 3]
    assert ids(listed(role="admin")) == [2, 3]
    assert ids(listed(authid="ann", role="admin")) == [3]
    assert ids(listed(connection="one")) == [1, 3]
    assert ids(listed(connection="two")) == [2]
    assert ids(listed(realm="realm1")) == [1, 2, 3]
    assert ids(listed(transport="transport000")) == [1, 2, 3]
    for nothing in ({"realm": "other"}, {"transport": "no"}, {"connection": "no"}, {"realm": ""}):
        assert listed(**nothing) == {"sessions": [], "total": 0, "next": None}


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1001}, {"after": -1}, {"after": 2**53 + 1}])
def test_pages_that_there_cannot_be(rig, wrong):
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        rig.controller.get_proxy_sessions(**wrong)


def test_sessions_of_a_stopped_transport_are_still_shown_and_can_be_ended(rig):
    rig.join()
    rig.controller.stop_proxy_transport("transport000")
    assert ids(rig.controller.get_proxy_sessions()) == [4242], "while it stops"
    rig.transport.on_event(7, 0, 4, b"")  # EV_LISTEN, LISTEN_CLOSED
    rig.controller.start_proxy_transport("transport000", LISTEN)
    assert ids(rig.controller.get_proxy_sessions(transport="transport000")) == [4242]
    stats = rig.controller.get_proxy_stats()
    assert (stats["sessions"], stats["transports"]["transport000"]["sessions"]) == (1, 0)
    assert [(item["id"], item["state"], item["sessions"]) for item in stats["retired"]] == [("transport000", 6, 1)]
    rig.controller.kill_proxy_session(4242)
    assert rig.controller.get_proxy_stats()["sessions"] == 0
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert rig.controller.get_proxy_stats()["retired"] == []


# --- kill ---


def test_kill_says_goodbye_to_both_sides(rig):
    token = rig.join()
    shown = rig.controller.get_proxy_session(4242)
    assert rig.controller.kill_proxy_session(4242, "com.example.misbehaved", "no spam here") == shown
    assert rig.did() == [
        ("unlink", FRONT),
        ("send", FRONT, [6, {"message": "no spam here"}, "com.example.misbehaved"]),
        ("send", back_conn(token), [6, {}, "com.example.misbehaved"]),
        ("close", back_conn(token)),
        ("next", FRONT, 2000),
    ]
    event = {"session": 4242, "realm": "realm1", "authid": "joe", "reason": "com.example.misbehaved"}
    assert rig.published("on_proxy_session_killed") == [event]
    with pytest.raises(NoSuchObject):
        rig.controller.kill_proxy_session(4242)


def test_kill_by_itself_gives_the_reason_that_the_session_meta_api_has(rig):
    rig.join()
    rig.controller.kill_proxy_session(4242)
    assert ("send", FRONT, [6, {}, "wamp.close.killed"]) in rig.did()


def test_the_connection_of_a_killed_session_takes_another_one(rig):
    rig.join()
    rig.controller.kill_proxy_session(4242)
    rig.says([6, {}, "wamp.close.goodbye_and_out"])
    assert rig.state == "OPEN"


def test_kill_of_a_session_that_is_leaving_waits_for_the_router_no_longer(rig):
    token = rig.join()
    rig.says([6, {}, "wamp.close.normal"], EV_CONTROL)
    rig.plane.take()
    rig.controller.kill_proxy_session(4242)
    assert ("send", FRONT, [6, {}, "wamp.close.goodbye_and_out"]) in rig.did()
    assert rig.state == "OPEN"
    assert not rig.clock.getDelayedCalls()
    rig.back(token, EV_CLOSED, CLOSED_PEER)


@pytest.mark.parametrize(
    ("reason", "message"),
    [("not a uri", None), ("", None), ("a#b", None), ("x\ud800", None), ("a.b", "x" * 1001), ("a.b", "\udfff")],
)
def test_a_goodbye_that_cannot_be_sent_harms_nobody(rig, reason, message):
    rig.join()
    with pytest.raises(InvalidArgument, match="reason" if message is None else "message"):
        rig.controller.kill_proxy_session(4242, reason, message)
    assert rig.state == "ESTABLISHED"
    assert rig.published("on_proxy_session_killed") == []


def test_of_two_sessions_with_the_same_id_the_older_one_is_meant():
    rig = Rig(2)
    rig.log_in(FRONT, 9, "older")
    rig.transport.sessions[FRONT].joined_at -= 1
    rig.log_in(FRONT + 1, 9, "younger")
    assert rig.controller.get_proxy_session(9)["authid"] == "older"
    rig.controller.kill_proxy_session(9)
    assert rig.controller.get_proxy_session(9)["authid"] == "younger"


# --- counters ---


def test_counters_of_transport_connection_and_route(rig):
    rig.controller._began_monotonic -= 12.5
    rig.log_in(FRONT, 1)
    rig.log_in(FRONT + 1, 2)
    rig.open(FRONT + 2)
    rig.says([1, "nowhere", HELLO[2]], conn=FRONT + 2)
    stats = rig.controller.get_proxy_stats()
    assert (stats["worker"], stats["sessions"]) == ("worker001", 2)
    assert stats["uptime"] >= 12.5
    transport = stats["transports"]["transport000"]
    assert transport.pop("address").startswith("rs://127.0.0.1:")
    assert transport == {
        "state": 3, "connections": 3, "tunnels": 0, "accepted": 3, "sessions": 2, "joined": 2,
        "denied": 1, "tls_failed": 0, "refused_messages": 0,
    }  # fmt: skip
    assert stats["connections"]["one"] == {
        "state": 3, "sessions": 2, "joined": 2, "failures": 0, "refused_messages": 0, "is_draining": False,
        "is_down": False,
    }  # fmt: skip
    assert stats["routes"] == {
        "realm1": {"route000": {"state": 3, "sessions": 2, "joined": 2}},
        "other": {"route001": {"state": 3, "sessions": 0, "joined": 0}},
    }
    assert stats["threads"] == [{"connections": 0, "thread": 0}, {"connections": 0, "thread": 1}]


@pytest.mark.parametrize("how", ["lost", "router lost", "killed", "goodbye", "shutdown", "crash"])
def test_whatever_ends_a_session_it_is_counted_out_once(rig, how):
    token = rig.join()
    if how == "lost":
        rig.front(EV_CLOSED, CLOSED_PEER)
    elif how == "router lost":
        rig.back(token, EV_CLOSED, CLOSED_PEER)
    elif how == "killed":
        rig.controller.kill_proxy_session(4242)
    elif how == "goodbye":
        rig.says([6, {}, "wamp.close.normal"], EV_CONTROL)
        rig.answers(token, [6, {}, "wamp.close.goodbye_and_out"], EV_CONTROL)
    elif how == "crash":
        rig.transport.on_crash(FRONT)
    else:
        rig.controller.shut_down(5)
    assert (rig.transport.live, rig.transport.joined) == (0, 1)
    connection = rig.controller.connections["one"]
    assert (connection.live, connection.joined) == (0, 1)
    assert not rig.controller.routes._uses
    if how != "router lost":
        rig.back(token, EV_CLOSED, CLOSED_PEER)
    if how != "lost":
        rig.front(EV_CLOSED, CLOSED_PEER)
    assert (rig.transport.live, connection.live) == (0, 0)


def test_a_session_that_two_routes_lead_to_counts_for_both(rig):
    rig.controller.start_proxy_realm_route("realm1", {"anonymous": "one", "admin": "one"})
    rig.join()
    routes = rig.controller.get_proxy_stats()["routes"]["realm1"]
    assert [(route["sessions"], route["joined"]) for route in routes.values()] == [(1, 1), (1, 1)]


def test_a_router_that_is_unreachable_is_shown_as_down(rig):
    rig.controller.connections["one"].mark_down()
    assert rig.controller.get_proxy_stats()["connections"]["one"]["is_down"]
    rig.clock.advance(60)
    shown = rig.controller.get_proxy_stats()["connections"]["one"]
    assert (shown["is_down"], shown["failures"]) == (False, 1)
