"""Two calls at once: whatever overlaps, each gets an answer, and what runs in the end is what was said last."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from proxy.connections import ProxyConnection
from proxy.errors import CannotListen, ProxyError
from proxy.routes import ProxyRoute
from proxy.transports import ProxyTransport
from support.planes import FRONT, HELLO, WELCOME_DETAILS, Rig

UNIX = {"transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": "/run/other.sock"}}}
LISTEN = {"type": "rawsocket", "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": 0}}

CALLS = {
    "connection": {
        "start": lambda c: c.start_proxy_connection("cnc1", UNIX),
        "stop": lambda c: c.stop_proxy_connection("cnc1", force=True),
        "stop unused": lambda c: c.stop_proxy_connection("cnc1"),
        "stop and drain": lambda c: c.stop_proxy_connection("cnc1", True, "drain"),
        "stop and close": lambda c: c.stop_proxy_connection("cnc1", True, "close"),
        "drain": lambda c: c.drain_proxy_connection("cnc1", rate=1.0),
        "cancel": lambda c: c.drain_proxy_connection("cnc1", cancel=True),
        "get": lambda c: c.get_proxy_connection("cnc1"),
        "route": lambda c: c.start_proxy_realm_route("realm9", {"user": "cnc1"}),
        "unroute": lambda c: c.stop_proxy_realm_route("realm9", c.list_proxy_realm_routes("realm9")[0]["id"]),
        "end": lambda c: c.shut_down(5),
    },
    "transport": {
        "start": lambda c: c.start_proxy_transport("tra1", LISTEN),
        "stop": lambda c: c.stop_proxy_transport("tra1"),
        "stop and drain": lambda c: c.stop_proxy_transport("tra1", "drain"),
        "stop and close": lambda c: c.stop_proxy_transport("tra1", "close"),
        "drain": lambda c: c.drain_proxy_transport("tra1", rate=1.0),
        "cancel": lambda c: c.drain_proxy_transport("tra1", cancel=True),
        "get": lambda c: c.get_proxy_transport("tra1"),
        "stats": lambda c: c.get_proxy_stats(),
        "end": lambda c: c.shut_down(5),
    },
    "route": {
        "start": lambda c: c.start_proxy_realm_route("realm1", {"admin": "one", "anonymous": "one"}),
        "stop": lambda c: c.stop_proxy_realm_route("realm1", "route000"),
        "stop the other": lambda c: c.stop_proxy_realm_route("realm1", "route002"),
        "stop and drain": lambda c: c.stop_proxy_realm_route("realm1", "route000", "drain"),
        "stop and close": lambda c: c.stop_proxy_realm_route("realm1", "route000", "close"),
        "list": lambda c: c.list_proxy_realm_routes("realm1"),
        "disconnect": lambda c: c.stop_proxy_connection("one"),
        "disconnect by force": lambda c: c.stop_proxy_connection("one", True, "close"),
        "end": lambda c: c.shut_down(5),
    },
}
ALL = [(kind, name) for kind, calls in CALLS.items() for name in calls]
# The states that the events of one object may tell of, in order.
LEGAL = ([], [2, 3], [2, 3, 5, 6], [2, 5, 6])


class Stage:
    """A controller whose objects take their time to start and to stop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = Rig()
        self.held: list[tuple[str, Deferred[None]]] = []
        self.answers: list[list[Any]] = []
        self.rig.log_in(FRONT, 1)
        self.rig.log_in(FRONT + 1, 2)
        self.number = FRONT + 10
        for kind, step in itertools.product((ProxyConnection, ProxyRoute), ("_start", "_stop")):
            self._hold(monkeypatch, kind, step)
        self._hold(monkeypatch, ProxyTransport, "look_up")

    def _hold(self, monkeypatch: pytest.MonkeyPatch, kind: Any, step: str) -> None:
        original = getattr(kind, step)

        def slow(thing: Any) -> Deferred[None]:
            done: Deferred[None] = Deferred()
            self.held.append((step, done))
            return done.addCallback(lambda _: original(thing))

        monkeypatch.setattr(kind, step, slow)

    def call(self, kind: str, name: str) -> None:
        answer: list[Any] = []
        self.answers.append(answer)
        maybeDeferred(CALLS[kind][name], self.rig.controller).addBoth(answer.append)

    def connect(self) -> None:
        """One more client begins to log in."""
        self.number += 1
        self.rig.open(self.number)
        if self.number in self.rig.transport.sessions:
            self.rig.says(HELLO, conn=self.number)

    def go_on(self, error: bool = False) -> None:
        """What was held is done; starts fail, if that is wanted. Routers welcome everybody."""
        held, self.held = self.held, []
        for step, done in held:
            if error and step != "_stop":
                done.errback(CannotListen("the test says so"))
            else:
                done.callback(None)
        for name, *arguments in self.rig.plane.take():
            if name == "unlisten":
                self.rig.plane.owners[arguments[0]].on_event(7, 0, 4, b"")  # EV_LISTEN, LISTEN_CLOSED
            elif name == "dial" and self._is_awaited(arguments[1]):
                self.rig.answers(arguments[1], [2, 50_000 + arguments[1], dict(WELCOME_DETAILS)])
        self.rig.clock.advance(0)

    def _is_awaited(self, token: int) -> bool:
        owner: Any = self.rig.plane.owners.get(token)
        return owner is not None and owner.session is not None

    def settle(self) -> None:
        while self.held or any(call[0] in ("unlisten", "dial") for call in self.rig.plane.calls):
            self.go_on()

    # --- what must be true ---

    def check(self) -> None:
        self.settle()
        controller = self.rig.controller
        for _ in range(600):
            self.rig.clock.advance(0.1)
            self.settle()
        for answer in self.answers:
            assert len(answer) == 1, "a call without an answer"
            if isinstance(answer[0], Failure):
                assert isinstance(answer[0].value, ProxyError), answer[0].getTraceback()
        for registry in (controller.connections, controller.transports):
            assert not registry.starting
            for thing in registry.values():
                assert thing.is_started, thing
        routes = [route for realm in controller.routes.realms() for route in controller.routes.of_realm(realm)]
        assert all(route.is_started for route in routes)
        listening = {owner for owner in self.rig.plane.owners.values() if isinstance(owner, ProxyTransport)}
        assert {thing for thing in listening if thing.is_listening} == set(controller.transports.values())
        assert not controller.drains._all
        self._check_counts()
        self._check_events()

    def _check_counts(self) -> None:
        controller = self.rig.controller
        joined = list(controller.joined_sessions()) if not controller.is_stopping else []
        if not controller.is_stopping:
            assert self.rig.transport.live == len(joined)
        assert sum(use.live for use in controller.routes._uses.values()) == len(joined)

    def _check_events(self) -> None:
        """Each object went through its states in order, and the last event says what is so."""
        controller = self.rig.controller
        lives: dict[tuple[str, str, str], list[list[int]]] = {}
        for topic, event in self.rig.events:
            _, _, kind, step = topic.split("_")
            if step not in ("starting", "started", "stopping", "stopped"):
                continue
            known = lives.setdefault((kind, event.get("realm", ""), event["id"]), [[]])
            if step == "starting":
                known.append([])
            known[-1].append(event["state"])
        for (kind, realm, name), (before, *later) in lives.items():
            assert before in ([], [5, 6]), (kind, name, before)
            assert all(life in LEGAL for life in later), (kind, name, later)
            assert all(life[-1] == 6 for life in [before, *later][:-1] if life), "one before the other has ended"
            is_there = {
                "connection": name in controller.connections,
                "transport": name in controller.transports,
                "route": controller.routes.get(realm, name) is not None,
            }[kind]
            assert is_there == ((later or [before])[-1] == [2, 3]), (kind, name)


@pytest.mark.parametrize("is_there", [False, True], ids=["from nothing", "while it runs"])
@pytest.mark.parametrize("kind", list(CALLS))
def test_all_pairs(monkeypatch: pytest.MonkeyPatch, kind: str, is_there: bool) -> None:
    for first, second in itertools.product(CALLS[kind], repeat=2):
        for schedule in ("together", "one by one", "first fails", "both fail"):
            with monkeypatch.context() as patch:
                stage = Stage(patch)
                if is_there:
                    stage.call(kind, "start")
                    stage.settle()
                stage.connect()
                stage.call(kind, first)
                if schedule == "one by one":
                    stage.settle()
                elif schedule == "first fails":
                    stage.go_on(error=True)
                stage.call(kind, second)
                stage.connect()
                if schedule == "both fail":
                    stage.go_on(error=True)
                try:
                    stage.check()
                except AssertionError as error:
                    raise AssertionError(f"{kind}: {first}, {second} ({schedule}): {error}") from error


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(ALL), st.sampled_from(["go on", "fail", "connect"])), max_size=14))
def test_any_number_of_calls(steps: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stage = Stage(patch)
        for step in steps:
            if step == "go on":
                stage.go_on()
            elif step == "fail":
                stage.go_on(error=True)
            elif step == "connect":
                stage.connect()
            else:
                stage.call(*step)
        stage.check()


def test_start_while_it_stops_is_refused_and_works_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    for name in ("start", "start"):
        stage.call("transport", name)
    stage.settle()
    stage.call("transport", "stop")
    stage.call("transport", "start")
    stage.settle()
    stage.call("transport", "start")
    stage.settle()
    texts = [getattr(answer[0], "value", None) for answer in stage.answers]
    assert [getattr(error, "uri", None) for error in texts] == [
        None, "crossbar.error.already_running", None, "crossbar.error.already_running", None,
    ]  # fmt: skip
    assert "starting" in str(texts[1])
    assert "stopping" in str(texts[3])
    assert stage.rig.controller.get_proxy_transport("tra1")["state"] == 3


def test_a_login_during_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions only come to life while route and connection are in service."""
    stage = Stage(monkeypatch)
    rig = stage.rig
    rig.open(FRONT + 5)
    rig.says(HELLO, conn=FRONT + 5)
    token, _ = rig.dialled()
    stage.call("route", "stop")
    rig.answers(token, [2, 77, dict(WELCOME_DETAILS)])
    assert rig.controller.get_proxy_sessions()["total"] == 2
    stage.settle()
