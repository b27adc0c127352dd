"""Drains: how fast, who is concerned, what is told, and what ends them."""

import itertools
import math

import pytest
from twisted.internet.task import Clock

from proxy.draining import Drains, Pace
from proxy.errors import AlreadyRunning, InvalidArgument, NoSuchObject, NotRunning
from proxy.plane import CLOSED_PEER, EV_CLOSED
from support.planes import FRONT, HELLO, WELCOME_DETAILS, Rig, connection_of

SHUTDOWN = "wamp.close.system_shutdown"
NAMES = {"id": "tra1"}


class Session:
    """Somebody to be sent away."""

    def __init__(self, front_sid, clock, error=None):
        self.front_sid = front_sid
        self.is_joined = True
        self.ended_at = None
        self.was_cut_off = False
        self._clock = clock
        self._error = error

    def dismiss(self, reason, message=None):
        self.is_joined = False
        self.ended_at = self._clock.seconds()
        self.said = reason, message
        if self._error is not None:
            raise self._error

    def crashed(self):
        self.was_cut_off = True


class Stage:
    """Drains over a clock; ``events`` are (topic, event)."""

    def __init__(self):
        self.reactor = Clock()
        self.events = []
        self.drains = Drains(self)

    def publish_event(self, topic, event):
        self.events.append((topic, event))

    def sessions(self, count):
        return [Session(number, self.reactor) for number in range(1, count + 1)]

    def drain(self, sessions, **pace):
        return self.drains.start("transport", NAMES, sessions, Pace(**{"jitter": 0.0, **pace}))

    def run(self, seconds, step=0.01):
        for _ in range(round(seconds / step)):
            self.reactor.advance(step)

    @property
    def last(self):
        return self.events[-1]


@pytest.fixture
def stage():
    return Stage()


def drained(ended, total, cancelled=False, reason=SHUTDOWN):
    event = {**NAMES, "total": total, "ended": ended, "left": total - ended, "reason": reason, "cancelled": cancelled}
    return "on_proxy_transport_drained", event


# --- the pace ---


@pytest.mark.parametrize("rate", [0.5, 1, 10, 50, 400, 5000])
def test_so_many_per_second(stage, rate):
    sessions = stage.sessions(round(rate * 4))
    stage.drain(sessions, rate=rate)
    stage.run(1.999)
    gone = sum(session.ended_at is not None for session in sessions)
    assert abs(gone - rate * 2) <= max(1, rate * 0.03)
    stage.run(2.5)
    assert stage.last == drained(len(sessions), len(sessions))
    assert not stage.reactor.getDelayedCalls()


def test_they_are_told_one_after_the_other(stage):
    sessions = stage.sessions(5)
    stage.drain(sessions, rate=2)
    stage.run(3)
    assert [session.ended_at for session in sessions] == pytest.approx([0, 0.5, 1, 1.5, 2], abs=0.011)


def test_jitter_spreads_the_pauses_within_its_share(stage):
    sessions = stage.sessions(201)
    stage.drain(sessions, rate=1, jitter=0.5)
    stage.run(400, 0.02)
    times = [session.ended_at for session in sessions]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert 0.5 - 0.04 <= min(pauses) < 0.7
    assert 1.3 < max(pauses) <= 1.5 + 0.04
    assert sum(pauses) / len(pauses) == pytest.approx(1, abs=0.15)


def test_a_reactor_that_was_busy_does_not_make_up_for_it_in_one_go(stage):
    sessions = stage.sessions(100)
    stage.drain(sessions, rate=10)
    stage.reactor.advance(0)
    stage.reactor.advance(5)
    assert sum(session.ended_at is not None for session in sessions) <= 3


def test_as_fast_as_it_gets_the_reactor_has_its_turns(stage):
    sessions = stage.sessions(5000)
    stage.drain(sessions, rate=100_000)
    stage.reactor.advance(0)
    gone = [sum(session.ended_at is not None for session in sessions)]
    while gone[-1] < 5000:
        stage.reactor.advance(0.01)
        gone.append(sum(session.ended_at is not None for session in sessions))
    assert max(after - before for before, after in itertools.pairwise([0, *gone])) < 5000
    assert stage.reactor.seconds() < 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0}, {"rate": -1}, {"rate": math.nan}, {"rate": math.inf}, {"rate": 100_001},
        {"jitter": -0.1}, {"jitter": 1.1}, {"jitter": math.nan}, {"reason": ""}, {"reason": "a b"},
        {"message": "x" * 1001}, {"message": "\ud800"},
    ],
)  # fmt: skip
def test_a_pace_that_there_cannot_be(wrong):
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        Pace(**wrong)


# --- who ---


def test_everybody_gets_reason_and_message(stage):
    sessions = stage.sessions(2)
    stage.drain(sessions, rate=100, reason="com.example.moved", message="to the other side")
    stage.run(1)
    assert {session.said for session in sessions} == {("com.example.moved", "to the other side")}
    assert stage.last == drained(2, 2, reason="com.example.moved")


def test_those_who_left_by_themselves_take_no_time(stage):
    sessions = stage.sessions(1000)
    for session in sessions[:999]:
        session.is_joined = False
    stage.drain(sessions, rate=1)
    stage.reactor.advance(0)
    assert sessions[999].ended_at == 0
    assert stage.last == drained(1000, 1000)


def test_another_session_on_the_same_connection_is_not_meant(stage):
    sessions = stage.sessions(3)
    stage.drain(sessions, rate=1)
    stage.reactor.advance(0)
    sessions[1].front_sid = 77
    stage.run(2)
    assert sessions[1].ended_at is None
    assert stage.last == drained(3, 3)


def test_nobody_is_there(stage):
    stage.drain([])
    stage.reactor.advance(0)
    assert [topic for topic, _ in stage.events] == ["on_proxy_transport_draining", "on_proxy_transport_drained"]
    assert stage.last == drained(0, 0)


def test_one_that_cannot_be_told_is_cut_off_and_the_others_are_told(stage, caplog):
    sessions = stage.sessions(3)
    sessions[1]._error = ValueError("boom")
    stage.drain(sessions, rate=100)
    stage.run(1)
    assert [session.was_cut_off for session in sessions] == [False, True, False]
    assert stage.last == drained(3, 3)
    assert "session 2" in caplog.text


# --- what is told ---


def test_progress_is_told_about_once_a_second(stage):
    sessions = stage.sessions(50)
    stage.drain(sessions, rate=10)
    stage.run(6)
    progress = [event for topic, event in stage.events if topic == "on_proxy_transport_draining"]
    assert progress[0] == {**NAMES, "total": 50, "ended": 0, "remaining": 50, "rate": 10.0, "reason": SHUTDOWN}
    assert len(progress) in (5, 6)
    assert all(event["ended"] + event["remaining"] == event["total"] for event in progress)
    ended = [event["ended"] for event in progress]
    assert ended == sorted(ended)
    assert [topic for topic, _ in stage.events].count("on_proxy_transport_drained") == 1


def test_a_slow_drain_shows_that_it_goes_on(stage):
    stage.drain(stage.sessions(2), rate=0.1)
    stage.run(9)
    assert len(stage.events) >= 8


# --- the end ---


def test_cancel_leaves_the_others_alone(stage):
    sessions = stage.sessions(10)
    drain = stage.drain(sessions, rate=1)
    stage.run(2.5)
    sessions[3].is_joined = False
    drain.cancel()
    assert stage.last == drained(4, 10, cancelled=True)
    stage.run(20, 1)
    assert [session.ended_at is not None for session in sessions] == [True] * 3 + [False] * 7
    assert not stage.reactor.getDelayedCalls()
    assert stage.drains.get("transport", "tra1") is None
    told = len(stage.events)
    drain.cancel()
    assert len(stage.events) == told


def test_all_are_cancelled_at_once(stage):
    stage.drains.start("transport", {"id": "a"}, stage.sessions(5), Pace())
    stage.drains.start("route", {"realm": "r", "id": "a"}, stage.sessions(5), Pace())
    stage.drains.cancel_all()
    assert [topic for topic, event in stage.events if event.get("cancelled")] == [
        "on_proxy_transport_drained",
        "on_proxy_route_drained",
    ]
    assert not stage.reactor.getDelayedCalls()


# --- over the management API ---


def people(rig, count):
    return [rig.log_in(FRONT + number, 100 + number) for number in range(count)]


def joined(rig):
    return rig.controller.get_proxy_sessions()["total"]


def advance(rig, seconds):
    for _ in range(round(seconds * 20)):
        rig.clock.advance(0.05)


def test_a_transport_is_drained_and_goes_on_listening():
    rig = Rig()
    people(rig, 4)
    shown = rig.controller.drain_proxy_transport("transport000", rate=2.0, jitter=0.0, message="maintenance")
    assert shown == {"id": "transport000", "total": 4, "ended": 0, "remaining": 4, "rate": 2.0, "reason": SHUTDOWN}
    with pytest.raises(AlreadyRunning, match="transport000"):
        rig.controller.drain_proxy_transport("transport000")
    rig.clock.advance(0)
    assert ("send", FRONT, [6, {"message": "maintenance"}, SHUTDOWN]) in rig.did()
    rig.log_in(FRONT + 9, 999)
    advance(rig, 3)
    assert joined(rig) == 1, "who comes later may stay"
    assert rig.published("on_proxy_transport_drained")[0]["ended"] == 4
    assert rig.controller.get_proxy_transport("transport000")["state"] == 3
    rig.controller.drain_proxy_transport("transport000")  # it is over, so another one may begin


def test_a_connection_that_is_drained_takes_no_logins_until_that_is_taken_back():
    rig = Rig(2)
    people(rig, 4)
    shown = rig.controller.drain_proxy_connection("one", rate=1.0)
    assert (shown["total"], shown["remaining"]) == (2, 2)
    assert [connection_of(rig, rig.log_in(FRONT + n, 900 + n)) for n in (5, 6, 7)] == ["two"] * 3
    advance(rig, 5)
    assert rig.controller.get_proxy_sessions(connection="one")["total"] == 0
    assert rig.controller.get_proxy_stats()["connections"]["one"]["is_draining"]
    assert connection_of(rig, rig.log_in(FRONT + 8, 908)) == "two", "even when the last one has gone"
    shown = rig.controller.drain_proxy_connection("one", cancel=True)
    assert shown == {"id": "one", "total": 0, "ended": 0, "remaining": 0, "rate": 0.0, "reason": SHUTDOWN}
    assert {connection_of(rig, rig.log_in(FRONT + 10 + n, 910 + n)) for n in (0, 1)} == {"one", "two"}
    with pytest.raises(NotRunning):
        rig.controller.drain_proxy_connection("one", cancel=True)


def test_cancel_in_the_middle_puts_the_connection_back_into_service():
    rig = Rig()
    people(rig, 10)
    rig.controller.drain_proxy_connection("one", rate=1.0, jitter=0.0)
    advance(rig, 2.5)
    assert rig.controller.drain_proxy_connection("one", cancel=True)["ended"] == 3
    assert rig.published("on_proxy_connection_drained")[0]["cancelled"]
    advance(rig, 5)
    assert joined(rig) == 7
    rig.log_in(FRONT + 20, 920)


def test_a_login_that_is_under_way_to_a_drained_connection_goes_on_to_the_next_one():
    rig = Rig(2)
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    assert connection_of(rig, token) == "one"
    rig.controller.drain_proxy_connection("one")
    rig.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
    second, _ = rig.dialled()
    assert connection_of(rig, second) == "two"
    rig.answers(second, [2, 4343, dict(WELCOME_DETAILS)])
    assert rig.state == "ESTABLISHED"
    assert rig.controller.connections["one"].live == 0


@pytest.mark.parametrize("kind", ["transport", "connection"])
def test_what_is_not_there_cannot_be_drained(kind):
    rig = Rig()
    drain = getattr(rig.controller, f"drain_proxy_{kind}")
    for cancel in (False, True):
        with pytest.raises(NoSuchObject):
            drain("nope", cancel=cancel)
    with pytest.raises(NotRunning):
        drain({"transport": "transport000", "connection": "one"}[kind], cancel=True)


@pytest.mark.parametrize("kind", ["transport", "connection"])
def test_sessions_from_before_a_replacement_are_drained_too(kind):
    """Who drains a router means all who are there, however often its connection was changed meanwhile."""
    rig = Rig()
    people(rig, 2)
    controller = rig.controller
    if kind == "transport":
        config = controller.transports["transport000"].config
        controller.stop_proxy_transport("transport000")
        rig.transport.on_event(7, 0, 4, b"")  # EV_LISTEN, LISTEN_CLOSED
        controller.start_proxy_transport("transport000", config)
        assert controller.drain_proxy_transport("transport000")["total"] == 2
    else:
        config = controller.connections["one"].config
        controller.stop_proxy_connection("one", force=True)
        controller.start_proxy_connection("one", config)
        rig.log_in(FRONT + 5, 905)
        assert controller.get_proxy_stats()["connections"]["one"]["sessions"] == 3
        assert controller.drain_proxy_connection("one")["total"] == 3
    advance(rig, 1)
    assert joined(rig) == 0


def test_bad_arguments_change_nothing():
    rig = Rig()
    with pytest.raises(InvalidArgument):
        rig.controller.drain_proxy_connection("one", rate=0.0)
    assert rig.controller.connections["one"].takes_logins


def test_stop_takes_over_the_drain_that_is_under_way():
    rig = Rig()
    people(rig, 6)
    rig.controller.drain_proxy_transport("transport000", rate=1.0, jitter=0.0, reason="com.example.moved")
    advance(rig, 1.5)
    rig.log_in(FRONT + 9, 999)
    rig.controller.stop_proxy_transport("transport000", "drain")
    rig.transport.on_event(7, 0, 4, b"")  # EV_LISTEN, LISTEN_CLOSED
    (cancelled,) = rig.published("on_proxy_transport_drained")
    assert (cancelled["ended"], cancelled["left"], cancelled["cancelled"]) == (2, 4, True)
    again = rig.published("on_proxy_transport_draining")[-1]
    assert (again["total"], again["rate"], again["reason"]) == (5, 1.0, "com.example.moved")
    advance(rig, 6)
    assert joined(rig) == 0
    assert not rig.published("on_proxy_transport_drained")[-1]["cancelled"]


def test_a_drain_goes_on_after_a_stop_and_can_still_be_cancelled():
    rig = Rig()
    people(rig, 6)
    rig.controller.drain_proxy_connection("one", rate=1.0, jitter=0.0)
    advance(rig, 1.5)
    rig.controller.stop_proxy_connection("one", force=True)
    advance(rig, 1)
    assert joined(rig) == 3
    rig.controller.drain_proxy_connection("one", cancel=True)
    advance(rig, 5)
    assert joined(rig) == 3
    with pytest.raises(NoSuchObject):
        rig.controller.drain_proxy_connection("one", cancel=True)


def test_shutdown_ends_drains_and_everybody_is_told_once():
    rig = Rig()
    people(rig, 3)
    rig.controller.drain_proxy_transport("transport000", rate=1.0)
    rig.controller.shut_down(5)
    assert rig.published("on_proxy_transport_drained")[0]["cancelled"]
    advance(rig, 3)
    goodbyes = [call[1] for call in rig.did() if call[0] == "send" and call[2][0] == 6 and call[1] < 2_000_000]
    assert sorted(goodbyes) == [FRONT, FRONT + 1, FRONT + 2]


def test_a_client_that_leaves_is_no_trouble():
    rig = Rig()
    people(rig, 3)
    rig.controller.drain_proxy_transport("transport000", rate=1.0, jitter=0.0)
    rig.clock.advance(0)
    rig.front(EV_CLOSED, CLOSED_PEER, conn=FRONT + 1)
    advance(rig, 2)
    (event,) = rig.published("on_proxy_transport_drained")
    assert (event["total"], event["ended"], event["left"]) == (3, 3, 0)
