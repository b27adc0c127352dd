"""Sessions over the management API of a running worker: seen, ended, drained, and what stops do to them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, CALL, ERROR, EVENT, GOODBYE, RESULT, WELCOME, Peer, PeerClosed, hello
from support.routers import CrossbarRouter
from support.stub import StubRouter

SHUTDOWN = "wamp.close.system_shutdown"
AUTH = {"anonymous": {"type": "static"}}


class Refused(Exception):
    """An ERROR of the management API."""

    def __init__(self, uri: str, text: str) -> None:
        super().__init__(f"{uri}: {text}")
        self.uri, self.text = uri, text


class Manager:
    """A client of the management realm; ``events`` are (topic without the worker's prefix, first argument)."""

    def __init__(self, path: Path) -> None:
        self.peer = raw.dial(Endpoint("rawsocket", path=str(path)), "json").join("crossbar")
        self.events: list[tuple[str, Any]] = []
        self._topics = {self.peer.subscribe("crossbar.worker.worker001.", match="prefix"): ""}

    def call(self, procedure: str, *args: Any, **kwargs: Any) -> Any:
        request = self.peer.request()
        self.peer.send([CALL, request, {}, f"crossbar.worker.worker001.{procedure}", list(args), kwargs])
        while True:
            message = self.take()
            if message[0] == RESULT:
                return message[3][0]
            if message[0] == ERROR:
                raise Refused(message[4], message[5][0])

    def take(self) -> list[Any]:
        message = self.peer.recv()
        if message[0] == EVENT:
            self.events.append((message[3]["topic"].rpartition(".")[2], message[4][0]))
        return message

    def wait_event(self, topic: str) -> Any:
        """The next event of a topic, even if it has come already."""
        while True:
            for index, (name, event) in enumerate(self.events):
                if name == topic:
                    del self.events[: index + 1]
                    return event
            self.take()

    def sessions(self, **filters: Any) -> list[int]:
        """IDs of the sessions that match, over all pages."""
        found: list[int] = []
        after = None
        while True:
            page = self.call("get_proxy_sessions", limit=7, after=after, **filters)
            found += [session["session"] for session in page["sessions"]]
            after = page["next"]
            if after is None:
                assert len(found) == page["total"]
                return found


class Site:
    """Two stub routers ``a`` and ``b``, one transport of each kind for role ``user``, and a manager."""

    def __init__(self, directory: Path, config: Config, make_proxy: Callable[..., ProxyProcess]) -> None:
        self.config = config
        self.stubs = {}
        for name in "ab":
            stub = self.stubs[name] = StubRouter(Endpoint("rawsocket", path=str(directory / f"{name}.sock")))
            config.connections[f"to_{name}"] = {"transport": stub.endpoint.as_backend(), "auth": AUTH}
        config.routes["realm1"] = {"user": "to_a", "admin": ["to_a", "to_b"]}
        self.fronts = {
            "rs": config.listen("rawsocket", role="user", limits={"close_timeout": 500}),
            "ws": config.listen("websocket", role="admin", limits={"close_timeout": 500}),
        }
        config.extra["management"] = {"path": str(directory / "manage.sock")}
        self.proxy = make_proxy(config)
        self.manager = Manager(directory / "manage.sock")
        self.number = 0

    def join(self, front: str = "rs", stub: str = "a") -> tuple[Peer, Peer]:
        """A joined session: (client, router's end)."""
        client = raw.dial(self.fronts[front])
        client.send(hello())
        self.number += 1
        router, _ = self.stubs[stub].accept_session(1000 + self.number)
        client.welcome = client.recv_type(WELCOME)
        client.session = client.welcome[1]
        return client, router

    def close(self) -> None:
        self.manager.peer.close()
        for stub in self.stubs.values():
            stub.close()


@pytest.fixture
def site(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> Iterator[Site]:
    site = Site(tmp_path, config, make_proxy)
    yield site
    site.close()


def ended(client: Peer, reason: str = SHUTDOWN) -> None:
    """The client is told, and answers."""
    assert client.recv_type(GOODBYE)[2] == reason
    client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])


def gone(peer: Peer) -> PeerClosed:
    """Nothing more comes but the end of the connection."""
    messages, how = peer.recv_end()
    assert messages == []
    return how


def test_sessions_are_listed_and_counted(site: Site) -> None:
    pairs = [site.join("rs") for _ in range(9)] + [site.join("ws", stub) for stub in "abab"]
    ids = [client.session for client, _ in pairs]
    call = site.manager.call
    assert site.manager.sessions() == ids
    assert site.manager.sessions(connection="to_b") == [ids[10], ids[12]]
    assert site.manager.sessions(transport="transport000") == ids[:9]
    assert site.manager.sessions(realm="nowhere") == []
    shown = call("get_proxy_session", ids[10])
    assert (shown["transport"], shown["connection"], shown["serializer"]) == ("transport001", "to_b", "cbor")
    assert shown["peer"].startswith("tcp4:127.0.0.1:")
    stats = call("get_proxy_stats")
    assert stats["sessions"] == 13
    assert [stats["connections"][f"to_{name}"]["sessions"] for name in "ab"] == [11, 2]
    assert [stats["transports"][f"transport00{index}"]["sessions"] for index in (0, 1)] == [9, 4]
    assert [route["sessions"] for route in stats["routes"]["realm1"].values()] == [13]
    assert sum(thread["links"] for thread in stats["threads"]) == 13
    for client, _ in pairs:
        client.close()
    wait_until(lambda: call("get_proxy_stats")["sessions"] == 0, "sessions are counted out")
    assert call("get_proxy_stats")["connections"]["to_a"]["joined"] == 11


@pytest.mark.parametrize("front", ["rs", "ws"])
def test_a_killed_session_is_told_why_on_both_sides_and_its_connection_serves_on(site: Site, front: str) -> None:
    client, router = site.join(front)
    site.manager.call("kill_proxy_session", client.session, reason="com.example.out", message="you know why")
    assert client.recv() == [GOODBYE, {"message": "you know why"}, "com.example.out"]
    assert router.recv_type(GOODBYE)[2] == "com.example.out"
    gone(router)
    event = site.manager.wait_event("on_proxy_session_killed")
    assert (event["session"], event["reason"]) == (client.session, "com.example.out")
    client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"], hello())
    second, _ = site.stubs["b" if front == "ws" else "a"].accept_session(77)
    assert client.recv_type(WELCOME)[1] == 77
    with pytest.raises(Refused) as refused:
        site.manager.call("kill_proxy_session", 4711)
    assert refused.value.uri == "crossbar.error.no_such_object"
    client.close()
    second.close()


def test_a_session_with_messages_under_way_is_killed(site: Site) -> None:
    """Whatever is on its way in both directions, the GOODBYEs come through whole, and nothing after them."""
    client, router = site.join()
    big = "x" * 100_000
    for number in range(20):
        client.send([CALL, number + 1, {}, "com.example", [big]])
        router.send([EVENT, 1, number + 1, {}, [big]])
    site.manager.call("kill_proxy_session", client.session)
    messages = []
    while (message := client.recv())[0] != GOODBYE:
        messages.append(message)
    assert all(message[0] == EVENT for message in messages)
    while (message := router.recv())[0] != GOODBYE:
        assert message[0] == CALL
    gone(router)
    client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    client.close()


def test_a_transport_is_drained_at_a_pace(site: Site) -> None:
    pairs = [site.join() for _ in range(12)]
    other, _ = site.join("ws")
    began = time.monotonic()
    shown = site.manager.call("drain_proxy_transport", "transport000", rate=20.0, message="see you")
    assert (shown["total"], shown["remaining"]) == (12, 12)
    with pytest.raises(Refused, match="already_running"):
        site.manager.call("drain_proxy_transport", "transport000")
    for client, router in pairs:
        assert client.recv() == [GOODBYE, {"message": "see you"}, SHUTDOWN]
        assert router.recv_type(GOODBYE)[2] == SHUTDOWN
        client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
        client.close()
    assert time.monotonic() - began > 0.2, "all at once"
    event = site.manager.wait_event("on_proxy_transport_drained")
    assert event == {
        "id": "transport000", "total": 12, "ended": 12, "left": 0, "reason": SHUTDOWN, "cancelled": False,
    }  # fmt: skip
    assert site.manager.sessions() == [other.session]
    again, _ = site.join()
    again.close()
    other.close()


def test_a_connection_is_drained_and_clients_come_again_elsewhere(site: Site) -> None:
    """The way to take a router down for maintenance: drain it, restart it, take it back."""
    pairs = [site.join("ws", stub) for stub in "abab"]
    site.manager.call("drain_proxy_connection", "to_a", rate=100.0)
    for client, _ in pairs[0::2]:
        ended(client)
        client.send(hello())
        back, _ = site.stubs["b"].accept_session(500 + client.session)
        assert client.recv_type(WELCOME)[1] == back.session
    site.manager.wait_event("on_proxy_connection_drained")
    assert site.manager.sessions(connection="to_a") == []
    assert len(site.manager.sessions(connection="to_b")) == 4
    site.manager.call("drain_proxy_connection", "to_a", cancel=True)
    one, _ = site.join("ws", "a")
    assert site.manager.sessions(connection="to_a") == [one.session]
    for client, _ in [*pairs, (one, None)]:
        client.close()


def test_a_drain_is_cancelled(site: Site) -> None:
    pairs = [site.join() for _ in range(3)]
    site.manager.call("drain_proxy_transport", "transport000", rate=0.1, jitter=0.0)
    ended(pairs[0][0])
    site.manager.call("drain_proxy_transport", "transport000", cancel=True)
    assert site.manager.wait_event("on_proxy_transport_drained")["left"] == 2
    for client, router in pairs[1:]:
        client.send([raw.PUBLISH, 1, {}, "com.example"])
        assert router.recv()[0] == raw.PUBLISH
    for client, _ in pairs:
        client.close()


@pytest.mark.parametrize("what", ["transport", "route", "connection"])
@pytest.mark.parametrize("fate", ["keep", "drain", "close"])
def test_sessions_when_something_is_stopped(site: Site, what: str, fate: str) -> None:
    pairs = [site.join() for _ in range(3)]
    call = site.manager.call
    if what == "transport":
        assert call("stop_proxy_transport", "transport000", sessions=fate)["state"] == 6
    elif what == "route":
        assert call("stop_proxy_realm_route", "realm1", "route000", sessions=fate)["state"] == 6
    else:
        with pytest.raises(Refused, match="object_in_use"):
            call("stop_proxy_connection", "to_a", sessions=fate)
        assert call("stop_proxy_connection", "to_a", force=True, sessions=fate)["state"] == 6
    if fate == "keep":
        for client, router in pairs:
            client.send([CALL, 1, {}, "com.example"])
            router.recv_type(CALL)
            router.send([RESULT, 1, {}, [1]])
            assert client.recv() == [RESULT, 1, {}, [1]]
            client.close()
    else:
        for client, router in pairs:
            ended(client)
            assert router.recv_type(GOODBYE)[2] == SHUTDOWN
            gone(router)
            if what == "transport":
                gone(client)
            client.close()
        if fate == "drain":
            assert site.manager.wait_event(f"on_proxy_{what}_drained")["ended"] == 3
    with pytest.raises(Refused, match="no_such_object"):
        call("stop_proxy_connection" if what == "connection" else "stop_proxy_transport", "nope")


def test_new_logins_find_what_is_stopped_gone_at_once(site: Site) -> None:
    call = site.manager.call
    waiting = raw.dial(site.fronts["rs"])
    call("stop_proxy_realm_route", "realm1", "route000")
    waiting.send(hello())
    assert waiting.recv_type(ABORT)[2] == "wamp.error.no_such_realm"
    gone(waiting)
    idle = raw.dial(site.fronts["rs"])
    call("stop_proxy_transport", "transport000")
    gone(idle)
    with pytest.raises(OSError):
        raw.dial(site.fronts["rs"])


@pytest.mark.parametrize("front", ["rs", "ws"])
def test_a_client_that_was_silent_until_its_transport_was_stopped_does_not_get_in(site: Site, front: str) -> None:
    """The control plane does not know of it yet when the transport is stopped, and another one's session stays."""
    pair = site.join("rs")
    other = site.join("ws")
    silent = site.fronts[front].connect()
    site.manager.call("get_proxy_stats")  # by now it is accepted
    site.manager.call("stop_proxy_transport", "transport000" if front == "rs" else "transport001")

    def log_in() -> None:
        client = raw.dial(site.fronts[front], sock=silent)
        client.send(hello())
        client.recv()

    with pytest.raises((PeerClosed, ConnectionError)):
        log_in()
    assert len(site.manager.sessions()) == 2
    for peer in (*pair, *other):
        peer.close()


@pytest.mark.parametrize("front", ["rs", "ws"])
def test_a_login_that_waits_for_a_router_when_its_connection_is_stopped(site: Site, front: str) -> None:
    """It goes on to the next connection of the route; where there is none, it is refused."""
    client = raw.dial(site.fronts[front])
    client.send(hello())
    router, _ = site.stubs["a"].accept_hello()
    site.manager.call("stop_proxy_connection", "to_a", force=True)
    roles: dict[str, Any] = {"broker": {}, "dealer": {}}
    router.send([WELCOME, 1, {"roles": roles, "realm": "realm1", "authid": "x", "authrole": "y"}])
    assert router.recv_type(GOODBYE)[2] == SHUTDOWN
    gone(router)
    if front == "ws":
        second, _ = site.stubs["b"].accept_session(2)
        assert client.recv_type(WELCOME)[1] == 2
        client.send([raw.PUBLISH, 1, {}, "com.example"])
        assert second.recv()[0] == raw.PUBLISH
        assert site.manager.sessions() == [2]
    else:
        abort = client.recv_type(ABORT)
        assert abort[2] == "wamp.error.network_failure"
        assert '"to_a" is out of service' in abort[1]["message"]
        gone(client)
    client.close()


def test_shutdown_in_the_middle_of_a_drain(site: Site) -> None:
    pairs = [site.join() for _ in range(4)]
    site.manager.call("drain_proxy_transport", "transport000", rate=1.0)
    ended(pairs[0][0])
    with contextlib.suppress(PeerClosed):
        site.manager.call("shutdown")
    for client, router in pairs[1:]:
        ended(client)
        assert router.recv_type(GOODBYE)[2] == SHUTDOWN
        gone(client)
    assert site.proxy.child.process.wait(10) == 0


def test_real_sessions_through_crossbar(crossbar: CrossbarRouter, config: Config, make_proxy: Any) -> None:
    """The router's own view agrees: who is killed here has left there, and keeps the name it had."""
    config.backend("cnc1", crossbar.backends["crossbar_rs"])
    front = config.listen("websocket")
    config.extra["management"] = {"path": str(config.directory / "manage.sock")}
    make_proxy(config)
    manager = Manager(config.directory / "manage.sock")
    with raw.joined(front, "json") as watcher, raw.joined(front, "msgpack") as other:
        watcher.subscribe("wamp.session.on_leave")
        shown = manager.call("get_proxy_session", other.session)
        assert shown["authid"] == other.welcome[2]["authid"]
        assert shown["backend_session"] == other.session
        assert shown["authrole"] == other.welcome[2]["authrole"]
        manager.call("kill_proxy_session", other.session)
        assert other.recv_type(GOODBYE)[2] == "wamp.close.killed"
        assert watcher.recv_type(EVENT)[4][0] == other.session
        assert manager.sessions() == [watcher.session]
    manager.peer.close()
