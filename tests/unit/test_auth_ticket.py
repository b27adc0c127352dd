"""WAMP-Ticket."""

import copy

import pytest
from twisted.internet.defer import Deferred

from proxy.auth import Accept, Challenge, Deny
from proxy.auth.principals import Unavailable
from proxy.auth.ticket import Ticket
from support.answers import FAILED, Source, attempt_of, authentication, challenge_of, now

PRINCIPALS = {
    "joe": {"ticket": "secret!!!", "role": "user"},
    "eve": {"ticket": "évé", "role": "guest", "realm": "realm2", "authid": "eva", "extra": {"team": "blue"}},
    "norole": {"ticket": "x"},
}
ITEM = {"type": "static", "principals": PRINCIPALS}


def login(ticket, authid="joe", item=ITEM, **hello):
    challenge = challenge_of(authentication(ticket=item), attempt_of("ticket", authid, **hello))
    assert (challenge.authmethod, challenge.extra) == ("ticket", {})
    return challenge.answer(ticket, {})


def test_the_right_ticket():
    assert login("secret!!!", authextra={"a": 1}) == Accept("realm1", "joe", "user", "ticket", "static", {"a": 1})


def test_the_principal_says_who_the_client_becomes():
    accept = login("évé", "eve", realm=None, authextra={"a": 1})
    assert accept == Accept("realm2", "eva", "guest", "ticket", "static", {"team": "blue"})


def test_default_role():
    assert login("x", "norole", {**ITEM, "default-role": "someone"}).authrole == "someone"
    assert login("x", "norole").reason == "wamp.error.no_such_role"


def test_a_realm_is_needed():
    assert login("secret!!!", realm=None).reason == "wamp.error.no_such_realm"


@pytest.mark.parametrize("ticket", ["", "secret!!", "secret!!!!", "SECRET!!!", "\0", "évé", "\ud800", "x" * 100_000])
@pytest.mark.parametrize("authid", ["joe", "nobody", None, "", "\ud800"])
def test_anything_else_is_refused_alike(ticket, authid):
    refusal = login(ticket, authid)
    assert isinstance(refusal, Deny)
    assert (refusal.reason, refusal.message) == FAILED
    assert "secret" not in refusal.cause
    assert not ticket or ticket not in refusal.cause


def test_the_authids_of_others_are_no_help():
    """Each principal has its own ticket."""
    assert isinstance(login("évé", "joe"), Deny)


def test_neither_configuration_nor_hello_are_touched():
    item, authextra = copy.deepcopy(ITEM), {"nested": {"a": 1}}
    auth = authentication(ticket=item)
    attempt = attempt_of("ticket", authextra=authextra)
    for _ in range(2):
        accept = challenge_of(auth, attempt).answer("secret!!!", {})
        accept.authextra["transport"] = "from somebody"
    assert item == ITEM
    assert authextra == {"nested": {"a": 1}}
    assert "transport" not in challenge_of(auth, attempt).answer("secret!!!", {}).authextra


# --- over an authenticator ---


def test_an_authenticator_is_told_the_ticket_and_decides():
    source = Source({"role": "user", "authid": "found"})
    attempt = attempt_of("ticket", None)
    challenge = Ticket(source).hello(attempt)
    assert isinstance(challenge, Challenge)
    assert source.asked == []
    accept = challenge.answer("whatever", {})
    assert source.asked == [("ticket", None, {"ticket": "whatever"})]
    assert accept == Accept("realm1", "found", "user", "ticket", "dynamic")


def test_an_authenticator_that_takes_its_time():
    later = Deferred()
    outcome = Ticket(Source(later)).hello(attempt_of("ticket")).answer("x", {})
    assert isinstance(outcome, Deferred)
    later.callback({"role": "user"})
    assert now(outcome).authrole == "user"


@pytest.mark.parametrize(
    "found", [Deny("com.example.no", "go away"), Unavailable("wamp.error.unavailable", "not now")], ids=str
)
def test_an_authenticators_refusal_is_the_clients(found):
    assert Ticket(Source(found)).hello(attempt_of("ticket")).answer("x", {}) is found


def test_an_authenticator_that_knows_nobody():
    refusal = Ticket(Source(None)).hello(attempt_of("ticket")).answer("x", {})
    assert (refusal.reason, refusal.message) == FAILED
