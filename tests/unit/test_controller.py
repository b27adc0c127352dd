"""Registries of the controller: names, shapes and errors as the management API has them."""

import socket

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.addresses import Address
from proxy.controller import ProxyController
from proxy.errors import (
    AlreadyRunning,
    CannotListen,
    CannotStart,
    InUse,
    InvalidArgument,
    InvalidConfiguration,
    NoSuchObject,
    NotRunning,
)
from proxy.management.procedures import procedures
from proxy.plane import CLOSED_PEER, EV_CLOSED
from proxy.sessions import FrontSession
from support.planes import FRONT, HELLO, WELCOME_DETAILS, Rig, abort_of, back_conn, connection_of

UNIX = {"transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": "/run/other.sock"}}}
LISTEN = {"type": "rawsocket", "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": 0}}


def now(done: Deferred):
    """The result of a Deferred that has fired; its error is raised."""
    results = []
    done.addBoth(results.append)
    assert results, "has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


@pytest.fixture
def controller():
    return Rig(2).controller


def test_connections(controller):
    assert controller.get_proxy_connections() == ["one", "two"]
    shown = now(controller.start_proxy_connection("cnc1", UNIX))
    assert (shown["id"], shown["config"], shown["state"], shown["stopped"]) == ("cnc1", UNIX, 3, None)
    assert type(shown["started"]) is int
    assert controller.get_proxy_connection("cnc1") == shown
    with pytest.raises(AlreadyRunning):
        now(controller.start_proxy_connection("cnc1", UNIX))
    shown = now(controller.stop_proxy_connection("cnc1"))
    assert (shown["state"], shown["started"], type(shown["stopped"])) == (6, None, int)
    for call in (controller.get_proxy_connection, controller.stop_proxy_connection):
        with pytest.raises(NoSuchObject, match="cnc1"):
            call("cnc1")


def test_a_connection_that_cannot_be_used_leaves_nothing_behind(controller):
    tcp = {"transport": {"type": "rawsocket", "endpoint": {"type": "tcp", "host": "127.0.0.1", "port": 1}}}
    with pytest.raises(InvalidConfiguration, match="Unix socket"):
        now(controller.start_proxy_connection("cnc1", tcp))
    assert "cnc1" not in controller.get_proxy_connections()


def test_routes(controller):
    assert controller.get_proxy_routes() == ["other", "realm1"]
    shown = now(controller.start_proxy_realm_route("realm2", {"user": "one", "admin": ["one", "two"]}))
    assert (shown["realm"], shown["id"], shown["state"]) == ("realm2", "route002", 3)
    assert shown["config"] == {"user": "one", "admin": ["one", "two"]}
    assert controller.list_proxy_realm_routes("realm2") == [shown]
    assert controller.get_proxy_realm_route("realm2", "route002") == shown
    assert now(controller.stop_proxy_realm_route("realm2", "route002"))["state"] == 6
    for call, *arguments in (
        (controller.list_proxy_realm_routes, "realm2"),
        (controller.get_proxy_realm_route, "realm2", "route002"),
        (controller.stop_proxy_realm_route, "realm1", "route002"),
    ):
        with pytest.raises(NoSuchObject):
            call(*arguments)


@pytest.mark.parametrize("config", [{}, {"user": []}, {"user": None}, {"user": [1]}])
def test_routes_that_lead_nowhere_are_refused(controller, config):
    with pytest.raises(InvalidConfiguration):
        now(controller.start_proxy_realm_route("realm2", config))
    assert not controller.routes.has_realm("realm2")


def test_a_route_to_an_unknown_connection_is_refused_as_a_whole(controller):
    with pytest.raises(NoSuchObject, match="nope"):
        now(controller.start_proxy_realm_route("realm2", {"user": "one", "admin": ["two", "nope"]}))
    assert not controller.routes.has_realm("realm2")


def test_transports(controller):
    assert controller.get_proxy_transports() == ["transport000"]
    shown = now(controller.start_proxy_transport("tcp1", LISTEN))
    assert {key: shown[key] for key in ("id", "type", "config", "state")} == {
        "id": "tcp1", "type": "rawsocket", "config": LISTEN, "state": 3,
    }  # fmt: skip
    assert shown["created_at"].endswith("Z")
    assert shown["listening_since"] >= shown["created_at"]
    assert controller.get_proxy_transport("tcp1") == shown
    with pytest.raises(AlreadyRunning):
        now(controller.start_proxy_transport("tcp1", LISTEN))
    transport = controller.transports["tcp1"]
    results = []
    controller.stop_proxy_transport("tcp1").addCallback(results.append)
    assert results == [], "not before the last thread has left the socket"
    transport.on_event(7, 0, 4, b"")  # EV_LISTEN, LISTEN_CLOSED
    assert (results[0]["state"], results[0]["listening_since"]) == (6, None)
    with pytest.raises(NoSuchObject):
        controller.stop_proxy_transport("tcp1")


def test_a_port_in_use_leaves_nothing_behind(controller):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": taken.getsockname()[1]}
        with pytest.raises(CannotListen, match="in use"):
            now(controller.start_proxy_transport("tcp1", {**LISTEN, "endpoint": endpoint}))
    assert controller.get_proxy_transports() == ["transport000"]
    assert now(controller.start_proxy_transport("tcp1", LISTEN))["state"] == 3


def test_a_transport_that_cannot_be_used_is_refused(controller):
    with pytest.raises(InvalidConfiguration, match=r"endpoint\.port"):
        now(controller.start_proxy_transport("tcp1", {**LISTEN, "endpoint": {"type": "tcp", "port": 70000}}))


def test_sessions_of_a_stopped_transport_are_told_of_the_end():
    rig = Rig()
    rig.join()
    rig.controller.stop_proxy_transport("transport000")
    rig.transport.on_event(7, 0, 4, b"")
    rig.did()
    rig.controller.shut_down(5)
    assert rig.state == "DISMISSED"


def test_sessions_outlive_their_transport_and_are_still_heard():
    rig = Rig()
    token = rig.join()
    results = []
    rig.controller.stop_proxy_transport("transport000").addCallback(results.append)
    rig.transport.on_event(7, 0, 4, b"")
    assert len(results) == 1
    assert rig.state == "ESTABLISHED"
    rig.front(6, 1)  # EV_CLOSED
    rig.back(token, 6, 1)
    assert rig.plane.is_idle


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (None, None),
        ("ws://host", None),
        ("ws://host:81/", None),
        ("ws://host/ws?x=1", "/ws"),
        ("ws://host/my%20ws", "/my ws"),
        ("ws://unix:/run/front.sock", None),
    ],
)
def test_the_path_that_a_url_names_is_the_only_one(url, path):
    rig = Rig()
    endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": 0}
    now(rig.controller.start_proxy_transport("other", {"type": "websocket", "endpoint": endpoint, "url": url}))
    assert rig.controller.transports["other"].entrance.policy.path == path


# --- what becomes of sessions ---

SHUTDOWN = "wamp.close.system_shutdown"
DRAINED = "on_proxy_{}_drained"


def unlistened(rig):
    """The last thread has left the socket."""
    rig.transport.on_event(7, 0, 4, b"")  # EV_LISTEN, LISTEN_CLOSED


def sessions(rig):
    return [session["session"] for session in rig.controller.get_proxy_sessions()["sessions"]]


def goodbyes(rig):
    """Reasons of the GOODBYEs to clients, by connection."""
    return {call[1]: call[2][2] for call in rig.did() if call[0] == "send" and call[2][0] == 6 and call[1] < 2_000_000}


def stop(rig, what, fate):
    """Stop something that both sessions depend on."""
    controller = rig.controller
    if what == "transport":
        done = controller.stop_proxy_transport("transport000", fate)
        unlistened(rig)
    elif what == "route":
        done = controller.stop_proxy_realm_route("realm1", "route000", fate)
    else:
        done = controller.stop_proxy_connection("one", force=True, sessions=fate)
    assert now(done)["state"] == 6


@pytest.mark.parametrize("what", ["transport", "route", "connection"])
@pytest.mark.parametrize("fate", ["keep", "drain", "close"])
def test_sessions_of_what_is_stopped(what, fate):
    rig = Rig()
    rig.log_in(FRONT, 1)
    rig.log_in(FRONT + 1, 2)
    stop(rig, what, fate)
    rig.clock.advance(0)
    told = goodbyes(rig)
    if fate == "keep":
        assert (told, sessions(rig)) == ({}, [1, 2])
    elif fate == "close":
        assert (told, sessions(rig)) == ({FRONT: SHUTDOWN, FRONT + 1: SHUTDOWN}, [])
    else:
        assert (told, sessions(rig)) == ({FRONT: SHUTDOWN}, [2])
        rig.clock.advance(1)
        assert (goodbyes(rig), sessions(rig)) == ({FRONT + 1: SHUTDOWN}, [])
        (event,) = rig.published(DRAINED.format(what))
        names = {"realm": "realm1", "id": "route000"} if what == "route" else {"id": event["id"]}
        assert event == {**names, "total": 2, "ended": 2, "left": 0, "reason": SHUTDOWN, "cancelled": False}
    assert not rig.clock.getDelayedCalls()


def test_a_stopped_route_concerns_only_those_whom_no_other_route_leads_there():
    rig = Rig(2)
    rig.log_in(FRONT, 1)  # over one
    rig.log_in(FRONT + 1, 2)  # over two
    rig.controller.start_proxy_realm_route("realm1", {"anonymous": "two", "admin": "one"})
    rig.controller.stop_proxy_realm_route("realm1", "route000", "close")
    assert goodbyes(rig) == {FRONT: SHUTDOWN}
    assert sessions(rig) == [2]


def test_sessions_of_a_role_are_those_that_were_routed_by_it():
    # Whatever the router calls the role: it is the proxy's routes that are meant.
    rig = Rig(anonymous=True)
    rig.log_in(FRONT, 1, authrole="someone-else")
    rig.controller.stop_proxy_realm_route("realm1", "route000", "close")
    assert sessions(rig) == []


def test_close_tells_many_in_batches():
    rig = Rig()
    for number in range(1100):
        rig.log_in(FRONT + number, 10_000 + number)
    rig.controller.stop_proxy_realm_route("realm1", "route000", "close")
    told = len(goodbyes(rig))
    assert 0 < told < 1100
    rig.front(EV_CLOSED, CLOSED_PEER, conn=FRONT + 1099)
    rig.clock.advance(0)
    rig.clock.advance(0)
    assert told + len(goodbyes(rig)) == 1099
    assert sessions(rig) == []


@pytest.mark.parametrize(
    ("procedure", "ids"), [("transport", ["a"]), ("realm_route", ["a", "b"]), ("connection", ["a"])]
)
def test_another_fate_there_is_not(procedure, ids):
    with pytest.raises(InvalidArgument, match="'keep', 'drain' or 'close'"):
        procedures(ProxyController)[f"stop_proxy_{procedure}"].bind(ids, {"sessions": "kill"})


# --- what is needed is not stopped ---


def test_a_connection_that_routes_name_is_not_stopped_unless_forced():
    rig = Rig(2)
    with pytest.raises(InUse) as caught:
        rig.controller.stop_proxy_connection("one")
    assert caught.value.uri == "crossbar.error.object_in_use"
    assert '"route000" of realm "realm1"' in caught.value.message
    assert '"route001" of realm "other"' in caught.value.message
    assert rig.events == []
    assert now(rig.controller.stop_proxy_connection("one", force=True))["state"] == 6
    assert [connection_of(rig, rig.log_in(FRONT + n, n + 1)) for n in (0, 1)] == ["two", "two"]


def test_an_error_text_does_not_name_them_all():
    rig = Rig()
    for number in range(30):
        rig.controller.start_proxy_realm_route(f"realm{number}", {"user": "one"})
    with pytest.raises(InUse, match="and 24 more"):
        rig.controller.stop_proxy_connection("one")


def test_a_connection_comes_back_under_its_id_for_the_routes_that_name_it():
    rig = Rig()
    rig.controller.stop_proxy_connection("one", force=True)
    rig.open()
    rig.says(HELLO)
    reason, message = abort_of(rig)
    assert reason == "wamp.error.network_failure"
    assert "none of the route's connections is started" in message
    rig.controller.start_proxy_connection("one", UNIX)
    rig.log_in(FRONT + 1, 2)


# --- logins that are under way ---


def test_a_login_on_its_way_to_a_stopped_connection_is_refused():
    rig = Rig()
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.controller.stop_proxy_connection("one", force=True)
    rig.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
    (said, closed, abort, close) = rig.did()
    assert said == ("send", back_conn(token), [6, {}, SHUTDOWN])
    assert closed == ("close", back_conn(token))
    assert (abort[1], abort[2][2]) == (FRONT, "wamp.error.network_failure")
    assert "out of service" in abort[2][1]["message"]
    assert close == ("close", FRONT, 1000)
    assert sessions(rig) == []


def test_a_login_by_a_stopped_route_is_refused():
    rig = Rig()
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.controller.stop_proxy_realm_route("realm1", "route000")
    rig.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
    (said, closed, abort, close) = rig.did()
    assert said == ("send", back_conn(token), [6, {}, "wamp.error.no_such_role"])
    assert closed == ("close", back_conn(token))
    assert abort[2][2] == "wamp.error.no_such_role"
    assert close == ("close", FRONT, 1000)
    assert sessions(rig) == []
    assert len(rig.controller.session_ids) == 0


def test_a_login_whose_route_is_replaced_meanwhile_goes_through():
    rig = Rig()
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.controller.start_proxy_realm_route("realm1", {"anonymous": ["one"], "admin": "one"})
    rig.controller.stop_proxy_realm_route("realm1", "route000")
    rig.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
    assert sessions(rig) == [4242]


@pytest.mark.parametrize("fate", ["keep", "drain", "close"])
def test_a_stopped_transport_and_those_who_have_not_logged_in(fate):
    rig = Rig()
    rig.open(FRONT)
    rig.says(HELLO, conn=FRONT)
    token, _ = rig.dialled()
    rig.open(FRONT + 1)
    rig.controller.stop_proxy_transport("transport000", fate)
    unlistened(rig)
    calls = rig.did()
    assert ("close", FRONT + 1, 1001) in calls, "nobody logs in any more"
    if fate == "keep":
        rig.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
        assert rig.state == "ESTABLISHED", "but this one had"
    else:
        assert ("send", FRONT, [3, {}, SHUTDOWN]) in calls
        assert ("undial", FRONT) in calls
        assert rig.state == "CLOSING"


def test_a_login_that_begins_while_its_transport_is_stopped_is_refused():
    rig = Rig()
    rig.open(FRONT)
    rig.controller.stop_proxy_transport("transport000")
    rig.did()
    rig.says(HELLO, conn=FRONT)
    assert rig.did() == [("send", FRONT, [3, {}, SHUTDOWN]), ("close", FRONT, 1001)]


@pytest.mark.parametrize("is_over", [False, True])
def test_a_client_that_was_silent_until_its_transport_was_stopped_does_not_get_in(is_over):
    """It was accepted before, and sessions that stay keep the transport from being forgotten."""
    rig = Rig()
    rig.join()
    rig.controller.stop_proxy_transport("transport000")
    if is_over:
        unlistened(rig)
    rig.did()
    rig.open(FRONT + 1)
    assert rig.did() == [("abort", FRONT + 1)]
    assert list(rig.transport.sessions) == [FRONT]


def test_after_its_session_a_connection_of_a_stopped_transport_is_closed():
    rig = Rig()
    rig.join()
    rig.controller.stop_proxy_transport("transport000")
    unlistened(rig)
    rig.did()
    rig.controller.kill_proxy_session(4242)
    rig.says([6, {}, "wamp.close.goodbye_and_out"])
    assert rig.did()[-1] == ("close", FRONT, 1001)


# --- the end ---


def test_a_session_that_cannot_be_told_of_the_end_does_not_hold_up_the_others(monkeypatch):
    """With memory for nothing, for example."""
    rig = Rig()
    rig.log_in(FRONT, 1)
    rig.log_in(FRONT + 1, 2)

    def fail(session):
        raise MemoryError

    first = rig.transport.sessions[FRONT]
    shut_down = FrontSession.shut_down
    monkeypatch.setattr(FrontSession, "shut_down", lambda one: fail(one) if one is first else shut_down(one))
    ended = rig.controller.shut_down(5)
    unlistened(rig)
    calls = rig.did()
    assert ("abort", FRONT) in calls
    assert ("send", FRONT + 1, [6, {}, SHUTDOWN]) in calls
    rig.clock.advance(5)
    assert ended.result is False


def test_nothing_is_started_in_a_worker_that_ends():
    rig = Rig()
    rig.controller.shut_down(5)
    for start in (
        lambda: rig.controller.start_proxy_connection("cnc1", UNIX),
        lambda: rig.controller.start_proxy_realm_route("realm2", {"user": "one"}),
        lambda: rig.controller.start_proxy_transport("tcp1", LISTEN),
    ):
        with pytest.raises(CannotStart, match="shutting down"):
            start()


def test_a_transport_whose_name_is_still_looked_up_at_the_end_does_not_come_to_life():
    rig = Rig()
    found = Deferred()
    rig.controller.resolver.resolve = lambda endpoint: found
    endpoint = {"type": "tcp", "interface": "localhost", "port": 0}
    failures = []
    rig.controller.start_proxy_transport("tcp1", {**LISTEN, "endpoint": endpoint}).addErrback(failures.append)
    rig.controller.shut_down(5)
    unlistened(rig)
    found.callback([Address("127.0.0.1", 1)])
    failures[0].trap(CannotStart)
    assert rig.controller.transports["tcp1"].state == 5
    rig.controller.transports["tcp1"].on_event(7, 0, 4, b"")
    assert rig.controller.get_proxy_transports() == []
    assert rig.plane.is_idle
    states = [event["state"] for _, event in rig.events if event["id"] == "tcp1"]
    assert states == [2, 3, 5, 6]


# --- arguments ---


@pytest.mark.parametrize("wrong", ["", "x" * 257])
def test_an_id_has_a_length(controller, wrong):
    with pytest.raises(InvalidArgument, match="characters"):
        controller.start_proxy_connection(wrong, UNIX)
    with pytest.raises(InvalidArgument, match="characters"):
        controller.start_proxy_transport(wrong, LISTEN)
    with pytest.raises(InvalidConfiguration, match="realm"):
        controller.start_proxy_realm_route("", {"user": "one"})


@pytest.mark.parametrize("config", [None, 1, "x", [], {}, {"transport": 7}, {"transport": {"type": "rawsocket"}}])
def test_a_config_that_is_none(controller, config):
    with pytest.raises(InvalidConfiguration):
        controller.start_proxy_connection("cnc1", config)
    with pytest.raises(InvalidConfiguration):
        controller.start_proxy_transport("tcp1", config)
    with pytest.raises(InvalidConfiguration):
        controller.start_proxy_realm_route("realm2", config)
    assert controller.get_proxy_connections() == ["one", "two"]
    assert controller.get_proxy_transports() == ["transport000"]
    assert controller.get_proxy_routes() == ["other", "realm1"]


# --- what else there is to be asked ---


def test_what_a_login_would_find(controller):
    assert controller.has_realm("realm1")
    assert controller.has_role("realm1", "anonymous")
    assert not controller.has_role("realm1", "admin")
    assert controller.can_map_backend(1, "realm1", "joe", "anonymous", {})
    assert not controller.can_map_backend(1, "realm1", "joe", "admin", {})
    assert controller.get_backend_config("realm1", "anonymous") == controller.connections["one"].config
    assert controller.get_backend_config("realm1", "anonymous") == controller.connections["one"].config, "no turn taken"
    for realm, role in (("realm1", "admin"), ("nope", "anonymous")):
        with pytest.raises(NoSuchObject, match=role):
            controller.get_backend_config(realm, role)
    for name in ("one", "two"):
        controller.stop_proxy_connection(name, force=True)
    assert not controller.can_map_backend(1, "realm1", "joe", "anonymous", {})
    assert controller.get_controller_session() is controller


def test_everything_says_what_it_is(controller):
    assert str(controller.connections["one"]) == 'connection "one" (started)'
    assert str(controller.transports["transport000"]) == 'transport "transport000" (started)'
    assert str(controller.routes.get("realm1", "route000")) == 'route "route000" of realm "realm1" (started)'


def test_a_connection_that_is_about_to_stop_is_no_longer_for_routes(controller):
    held = Deferred()
    connection = now(controller.start_proxy_connection("cnc1", UNIX)) and controller.connections["cnc1"]
    type(connection)._stop, original = (lambda self: held), type(connection)._stop
    try:
        controller.stop_proxy_connection("cnc1")
        with pytest.raises(NoSuchObject, match="about to stop"):
            controller.start_proxy_realm_route("realm2", {"user": "cnc1"})
        with pytest.raises(NotRunning):
            controller.stop_proxy_connection("cnc1")
        with pytest.raises(AlreadyRunning, match="stopping"):
            controller.start_proxy_connection("cnc1", UNIX)
    finally:
        type(connection)._stop = original
    held.callback(None)
    assert not controller.has_realm("realm2")
    assert now(controller.start_proxy_connection("cnc1", UNIX))["state"] == 3


def test_service_sessions_are_reviewed_whenever_something_goes_out_of_service():
    rig = Rig(2)
    controller = rig.controller
    with pytest.raises(NoSuchObject, match="nowhere"):
        now(controller.get_service_session("nowhere", "anonymous"))
    seen = []
    controller.service_sessions.review = lambda: seen.append(
        (controller.connections["one"].takes_logins, controller.has_realm("realm1"), "two" in controller.connections)
    )
    controller.drain_proxy_connection("one")
    controller.stop_proxy_connection("two", force=True)
    controller.stop_proxy_realm_route("realm1", "route000")
    assert seen == [(False, True, True), (False, True, False), (False, False, False)]
