"""Registries of the controller: names, shapes and errors as the management API has them."""

import socket

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.errors import AlreadyRunning, CannotListen, InvalidConfiguration, NoSuchObject
from support.planes import Rig

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
    assert rig.controller.transports["other"].policy.path == path
