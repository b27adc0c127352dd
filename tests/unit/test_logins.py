"""A login that takes more than HELLO: challenges, authenticators that take their time, turns; event by event."""

import pytest
from twisted.internet.defer import Deferred

from proxy.auth import Accept, Challenge
from proxy.auth.base import Deny, failed
from proxy.plane import (
    CLOSED_FRONT_GONE,
    CLOSED_PEER,
    EV_CLOSED,
    EV_MESSAGE,
    EV_VIOLATION,
    LISTEN_CLOSED,
    ST_DEADLINE,
)
from proxy.sessions import State
from support.planes import FRONT, HELLO, WELCOME_DETAILS, Rig, abort_of, back_conn

FAILED = "wamp.error.authentication_failed"
VIOLATION = "wamp.error.protocol_violation"
JOE = Accept("realm1", "joe", "anonymous", "ticket", "static")
ANSWER = [5, "secret", {}]


class Scripted:
    """An authentication that does what the test says."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.attempts = []

    def hello(self, attempt):
        self.attempts.append(attempt)
        return self.outcome


def asked(answer):
    return Challenge("ticket", {"hint": 1}, answer)


def rig_with(outcome, **keywords):
    rig = Rig(**keywords)
    rig.entrance.authentication = Scripted(outcome)
    return rig


def challenged(answer=lambda signature, extra: JOE, **keywords):
    """A rig whose client has been asked."""
    rig = rig_with(asked(answer), **keywords)
    rig.open()
    rig.says(HELLO)
    assert rig.did() == [("send", FRONT, [4, "ticket", {"hint": 1}]), ("next", FRONT)]
    assert rig.state == "CHALLENGED"
    return rig


def test_the_right_answer_leads_to_the_router():
    seen = []
    rig = challenged(lambda signature, extra: seen.append((signature, extra)) or JOE)
    rig.says([5, "secret", {"a": 1}])
    assert seen == [("secret", {"a": 1})]
    _, (_, realm, details) = rig.dialled()
    assert (realm, details["authextra"]["proxy_authid"]) == ("realm1", "joe")


def test_the_wrong_answer_is_refused_without_saying_why(caplog):
    caplog.set_level("INFO")
    rig = challenged(lambda *_: failed("ticket: the ticket is wrong"))
    rig.says(ANSWER)
    assert abort_of(rig) == (FAILED, "authentication failed")
    assert "the ticket is wrong" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("message", [HELLO, [48, 1, {}, "com.x"], [5, 7, {}], [5, "x"], [6, {}, "wamp.close.normal"]])
def test_anything_but_a_good_answer_is_a_violation(message):
    rig = challenged()
    rig.says(message)
    (_, _, (code, _, reason)), close = rig.did()
    assert (code, reason, close) == (3, VIOLATION, ("close", FRONT, 1002))
    assert rig.transport.sessions[FRONT].login is None


def test_no_answer_in_time_is_a_violation():
    rig = challenged()
    rig.front(EV_VIOLATION, ST_DEADLINE)
    (_, _, (code, _, _)), (command, _, _) = rig.did()
    assert (code, command) == (3, "close")


def test_a_client_may_give_it_up():
    rig = challenged()
    rig.says([3, {}, "wamp.close.whatever"])
    assert rig.did() == [("close", FRONT, 1000)]


def test_a_client_may_vanish_while_it_is_asked():
    rig = challenged()
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert rig.state == "CLOSED"
    assert rig.did() == []


def test_the_session_id_in_the_challenge_is_the_one_of_welcome():
    rig = challenged(session_ids="proxy")
    (attempt,) = rig.entrance.authentication.attempts
    rig.says(ANSWER)
    token, _ = rig.dialled()
    rig.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
    ((_, _, _, welcome),) = rig.did()
    assert rig.read(FRONT, welcome)[1] == attempt.session_id


@pytest.mark.parametrize("name", ["joe\n2026-11-23 INFO forged", "joe\x1b[2J", "x" * 60_000])
def test_no_name_spoils_the_log(name, caplog):
    """Authenticators that judge a ticket alone let clients choose their authid."""
    caplog.set_level("INFO")
    rig = challenged(lambda *_: Accept("realm1", name, "anonymous", "ticket", "dynamic"))
    rig.says(ANSWER)
    token, _ = rig.dialled()
    rig.answers(token, [2, 4242, {**WELCOME_DETAILS, "authid": name}])
    assert rig.transport.sessions[FRONT].authid == name
    (message,) = [record.getMessage() for record in caplog.records if "joined" in record.getMessage()]
    assert message.isprintable()
    assert len(message) < 1000


# --- authenticators that take their time ---


def waiting(**keywords):
    """A rig whose client waits for a decision."""
    cancelled = []
    outcome = Deferred(cancelled.append)
    rig = rig_with(outcome, **keywords)
    rig.open()
    rig.says(HELLO)
    assert rig.did() == []
    assert rig.state == "AUTHENTICATING"
    return rig, outcome, cancelled


def test_a_late_decision_counts():
    rig, outcome, _ = waiting()
    outcome.callback(JOE)
    rig.dialled()
    assert rig.state == "JOINING"
    assert rig.transport.sessions[FRONT].timer is None


def test_a_late_challenge_is_asked():
    rig, outcome, _ = waiting()
    outcome.callback(asked(lambda *_: JOE))
    assert [name for name, *_ in rig.did()] == ["send", "next"]
    assert rig.state == "CHALLENGED"


def test_an_authenticator_has_a_deadline():
    rig, _, cancelled = waiting(authenticator_timeout=1500)
    rig.clock.advance(1.4)
    assert rig.did() == []
    rig.clock.advance(0.2)
    assert abort_of(rig)[0] == "wamp.error.unavailable"
    assert cancelled


def test_an_authenticator_that_breaks_fails_this_login_alone(caplog):
    rig, outcome, _ = waiting()
    outcome.errback(ValueError("broken"))
    assert abort_of(rig) == (FAILED, "authentication failed")
    assert "broken" in caplog.text


def test_a_client_that_vanishes_ends_its_authenticator():
    rig, _, cancelled = waiting()
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert cancelled
    assert rig.state == "CLOSED"
    assert not rig.clock.getDelayedCalls()


def test_a_transport_that_stops_turns_away_who_is_logging_in():
    rig, _, cancelled = waiting()
    rig.controller.stop_proxy_transport("transport000", sessions="close")
    rig.transport.on_listen(LISTEN_CLOSED, 0)
    commands = rig.did()
    assert ("send", FRONT, [3, {}, "wamp.close.system_shutdown"]) in commands
    assert ("close", FRONT, 1001) in commands
    assert cancelled


# --- turns ---


def test_more_logins_than_may_be_under_way_wait_for_their_turn():
    outcomes = [Deferred() for _ in range(3)]
    rig = rig_with(None, max_logins=2)
    remaining = iter(outcomes)
    rig.entrance.authentication.hello = lambda attempt: next(remaining)
    for conn in (FRONT, FRONT + 1, FRONT + 2):
        rig.open(conn)
        rig.says(HELLO, conn=conn)
    assert next(remaining, None) is outcomes[2]  # the third has not been looked at
    remaining = iter(outcomes[2:])
    outcomes[0].callback(Deny("com.example.no", "no"))
    assert next(remaining, None) is None
    outcomes[2].callback(Deny("com.example.no", "no"))
    outcomes[1].callback(Deny("com.example.no", "no"))
    assert rig.entrance.logins.turns.taken == 0


def test_who_is_asked_does_not_hold_up_the_others():
    rig = challenged(max_logins=1)
    rig.open(FRONT + 1)
    rig.says(HELLO, conn=FRONT + 1)
    assert [name for name, *_ in rig.did()] == ["send", "next"]


def test_who_waits_too_long_for_its_turn_is_told():
    rig = rig_with(Deferred(), max_logins=1)
    for conn in (FRONT + 1, FRONT):
        rig.open(conn)
        rig.says(HELLO, conn=conn)
    session = rig.transport.sessions[FRONT]
    session.login.on_turn_late(rig.entrance.logins.turns)
    assert abort_of(rig)[0] == "wamp.error.unavailable"


def test_who_leaves_gives_its_turn_back():
    rig = rig_with(None, max_logins=1)
    rig.entrance.authentication.hello = lambda attempt: Deferred()
    for conn in (FRONT, FRONT + 1, FRONT + 2):
        rig.open(conn)
        rig.says(HELLO, conn=conn)
    turns = rig.entrance.logins.turns
    assert (turns.taken, turns.waiting) == (1, 2)
    rig.front(EV_CLOSED, CLOSED_PEER, conn=FRONT + 1)
    assert (turns.taken, turns.waiting) == (1, 1)
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert (turns.taken, turns.waiting) == (1, 0)
    rig.front(EV_CLOSED, CLOSED_PEER, conn=FRONT + 2)
    assert (turns.taken, turns.waiting) == (0, 0)


def test_failed_logins_of_an_address_block_it():
    rig = challenged(lambda *_: failed("wrong"), max_failures_per_address=1)
    rig.open(FRONT + 1)
    rig.says(HELLO, conn=FRONT + 1)
    rig.did()
    rig.says(ANSWER)
    assert abort_of(rig)[0] == FAILED
    rig.says(ANSWER, conn=FRONT + 1)  # it was asked before the other one failed
    (_, _, (_, _, reason)), _ = rig.did()
    assert reason == "wamp.error.authentication_denied"


@pytest.mark.parametrize("second", [JOE, failed("wrong")], ids=["right", "wrong"])
def test_guesses_that_are_under_way_when_an_address_is_blocked_tell_nothing(second):
    """However many an authenticator looks at together: no more of them are answered than one after the other."""
    outcomes = [Deferred(), Deferred()]
    rig = rig_with(asked(lambda *_: outcomes[len(answered) - 1]), max_failures_per_address=1)
    answered = []
    for conn in (FRONT, FRONT + 1):
        rig.open(conn)
        rig.says(HELLO, conn=conn)
        answered.append(conn)
        rig.says(ANSWER, conn=conn)
    rig.did()
    outcomes[0].callback(failed("wrong"))
    assert abort_of(rig)[0] == FAILED
    outcomes[1].callback(second)
    (_, _, (code, _, reason)), close = rig.did()
    assert (code, reason, close) == (3, "wamp.error.authentication_denied", ("close", FRONT + 1, 1000))


def test_logins_to_a_router_take_turns():
    rig = Rig(backend={"limits": {"max_joins": 1}})
    tokens = []
    for conn in (FRONT, FRONT + 1):
        rig.open(conn)
        rig.says(HELLO, conn=conn)
    token, _ = rig.dialled()
    tokens.append(token)
    rig.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
    dials = [call for call in rig.plane.take() if call[0] == "dial"]
    assert len(dials) == 1
    assert dials[0][1] == FRONT + 1


@pytest.mark.parametrize("how", ["client leaves", "router refuses", "router is gone"])
def test_a_turn_at_a_router_is_given_back(how):
    rig = Rig(backend={"limits": {"max_joins": 1}})
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    if how == "client leaves":
        rig.front(EV_CLOSED, CLOSED_PEER)
        rig.back(token, EV_CLOSED, CLOSED_FRONT_GONE)
    elif how == "router refuses":
        rig.answers(token, [3, {}, "wamp.error.no_such_realm"])
    else:
        rig.back(token, EV_CLOSED, CLOSED_PEER)
    assert rig.controller.connections["one"].turns.taken == 0


@pytest.mark.parametrize("waits", [False, True])
def test_an_error_at_the_turn_of_a_login_ends_it_and_gives_the_turn_back(waits, monkeypatch, caplog):
    rig = Rig(backend={"limits": {"max_joins": 1}})
    turns = rig.controller.connections["one"].turns
    if waits:
        rig.open(FRONT + 1)
        rig.says(HELLO, conn=FRONT + 1)
        token, _ = rig.dialled()
    rig.open()
    monkeypatch.setattr(type(rig.controller.connections["one"]), "resolve", lambda self: 1 / 0)
    rig.says(HELLO)
    if waits:
        rig.answers(token, [3, {}, "wamp.error.no_such_realm"])
    assert rig.state == "CLOSING"
    assert ("send", FRONT, [3, {"message": "internal error of the proxy"}, "wamp.error.runtime_error"]) in rig.did()
    assert turns.taken == 0
    assert "ZeroDivisionError" in caplog.text


def test_a_login_does_not_wait_at_a_router_that_has_failed_meanwhile():
    rig = Rig(connections=2, backend={"limits": {"max_joins": 1}})
    for conn in (FRONT, FRONT + 1, FRONT + 2):
        rig.open(conn)
        rig.says(HELLO, conn=conn)
    first, second = [call[2] for call in rig.plane.take() if call[0] == "dial"]
    rig.controller.connections["one"].mark_down()
    rig.back(first, EV_CLOSED, CLOSED_PEER)
    # The third waited for the one that is down: it goes to the end of the other's queue, behind the first.
    assert not [call for call in rig.plane.take() if call[0] == "dial"]
    rig.answers(second, [2, 4242, dict(WELCOME_DETAILS)])
    (dial,) = [call for call in rig.plane.take() if call[0] == "dial"]
    assert dial[1] in (FRONT, FRONT + 2)


# --- what the router asks ---


def test_a_router_that_asks_too_often_is_given_up():
    rig = Rig(backend={"auth": {"passthrough": {}}}, auth={"passthrough": {"role": "anonymous"}})
    rig.open()
    rig.says([1, "realm1", {**HELLO[2], "authmethods": ["ticket"]}])
    token, _ = rig.dialled()
    for _ in range(4):
        rig.answers(token, [4, "ticket", {}])
        assert rig.state == "CHALLENGED"
        rig.says(ANSWER)
        assert ("send", back_conn(token), ANSWER) in rig.did()
    rig.answers(token, [4, "ticket", {}])
    assert rig.state == "CLOSING"


def test_what_other_routers_asked_counts_for_them_alone():
    rig = Rig(connections=3, backend={"auth": {"wampcra": {"authid": "proxy1", "secret": "s3cret"}}})
    rig.open()
    rig.says(HELLO)
    for _ in range(2):
        token, _ = rig.dialled()
        for _ in range(2):
            rig.answers(token, [4, "wampcra", {"challenge": "c"}])
        rig.answers(token, [3, {}, "wamp.error.authentication_failed"])
    token, _ = rig.dialled()
    rig.answers(token, [4, "wampcra", {"challenge": "c"}])
    rig.answers(token, [2, 4242, dict(WELCOME_DETAILS)])
    assert rig.state == "ESTABLISHED"


def test_every_state_of_a_login_can_lose_the_client():
    from proxy.sessions import FRONT as TABLE

    for state in (State.AUTHENTICATING, State.CHALLENGED, State.JOINING):
        assert EV_CLOSED in TABLE[state]
    assert EV_MESSAGE not in TABLE[State.AUTHENTICATING]
