"""WAMP-CRA, against autobahn's client."""

import base64
import hashlib
import json
from types import SimpleNamespace

import pytest
from autobahn.wamp.auth import AuthWampCra
from twisted.internet.defer import CancelledError, Deferred

from proxy.auth import Accept, Challenge, Deny
from proxy.auth.decoys import Decoys
from proxy.auth.derived import DerivedKeys
from proxy.auth.principals import Unavailable
from proxy.auth.sources import StaticSource
from proxy.auth.wampcra import WampCra
from proxy.config import AuthConfig
from support.answers import FAILED, Source, attempt_of, authentication, challenge_of, now

SALTED = {"salt": "salt of joe", "iterations": 100, "keylen": 32}
USERS = {"joe": {"secret": "s3cret ü", "role": "user"}}
ITEM = {"type": "static", "users": USERS}


def signed(challenge, secret, authid="joe"):
    """What autobahn's client answers."""
    return AuthWampCra(authid=authid, secret=secret).on_challenge(None, SimpleNamespace(extra=challenge.extra))


def plain(authid="joe", **hello):
    return challenge_of(authentication(wampcra=ITEM), attempt_of("wampcra", authid, **hello))


class Thread:
    """Runs nothing before the test says so."""

    def __init__(self):
        self.jobs = []

    def __call__(self, function, *arguments):
        job = Deferred()
        self.jobs.append((job, function, arguments))
        return job

    def work(self):
        job, function, arguments = self.jobs.pop(0)
        job.callback(function(*arguments))


def salted(users, thread=None):
    """A method whose derivations run in ``thread``."""
    config = AuthConfig.model_validate({"wampcra": {"type": "static", "users": users}}).wampcra
    source = StaticSource(config.users, None)
    return WampCra(source, Decoys(b"k", "wampcra", source.principals), DerivedKeys(run=thread or Thread()))


# --- plain ---


def test_the_right_secret():
    challenge = plain(authextra={"a": 1})
    assert set(challenge.extra) == {"challenge"}
    accept = challenge.answer(signed(challenge, "s3cret ü"), {})
    assert accept == Accept("realm1", "joe", "user", "wampcra", "static", {"a": 1})


def test_what_is_signed():
    text = json.loads(plain(session_id=1234).extra["challenge"])
    assert list(text) == ["authid", "authrole", "authmethod", "authprovider", "session", "nonce", "timestamp"]
    assert (text["authid"], text["authrole"], text["authmethod"], text["authprovider"], text["session"]) == (
        "joe", "user", "wampcra", "static", 1234,
    )  # fmt: skip


def test_no_two_challenges_are_alike():
    assert len({plain().extra["challenge"] for _ in range(100)}) == 100


@pytest.mark.parametrize("secret", ["s3cret", "", "s3cret ü "])
@pytest.mark.parametrize("authid", ["joe", "nobody"])
def test_a_wrong_secret_is_refused(secret, authid):
    challenge = plain(authid)
    refusal = challenge.answer(signed(challenge, secret, authid), {})
    assert (refusal.reason, refusal.message) == FAILED
    assert "s3cret" not in refusal.cause


@pytest.mark.parametrize("signature", ["", "AAAA", "é", "\ud800", "=" * 44, "A" * 43 + "=", "x" * 100_000])
@pytest.mark.parametrize("authid", ["joe", "nobody", None])
def test_nonsense_is_refused(signature, authid):
    refusal = plain(authid).answer(signature, {})
    assert (refusal.reason, refusal.message) == FAILED


def test_the_answer_to_another_challenge_is_refused():
    auth, attempt = authentication(wampcra=ITEM), attempt_of("wampcra")
    signature = signed(challenge_of(auth, attempt), "s3cret ü")
    assert isinstance(challenge_of(auth, attempt).answer(signature, {}), Deny)


# --- salted ---


def test_a_salted_secret_is_derived_once_in_a_thread():
    thread = Thread()
    method = salted({"joe": {**USERS["joe"], **SALTED}}, thread)
    for _ in range(3):
        challenge = method.hello(attempt_of("wampcra"))
        assert {key: challenge.extra[key] for key in SALTED} == SALTED
        outcome = challenge.answer(signed(challenge, "s3cret ü"), {})
        if isinstance(outcome, Deferred):
            thread.work()
        assert now(outcome).authid == "joe"
        wrong = method.hello(attempt_of("wampcra"))
        assert (now(wrong.answer(signed(wrong, "other"), {})).reason, thread.jobs) == (FAILED[0], [])


def test_logins_that_wait_for_one_key_share_the_work():
    thread = Thread()
    method = salted({"joe": {**USERS["joe"], **SALTED}}, thread)
    challenges = [method.hello(attempt_of("wampcra")) for _ in range(3)]
    outcomes = [challenge.answer(signed(challenge, "s3cret ü"), {}) for challenge in challenges]
    assert len(thread.jobs) == 1
    outcomes[0].addErrback(lambda failure: failure.trap(CancelledError) and None)
    outcomes[0].cancel()
    thread.work()
    assert now(outcomes[0]) is None
    assert [now(outcome).authid for outcome in outcomes[1:]] == ["joe", "joe"]


def test_a_key_that_nobody_waits_for_any_more_is_kept():
    thread = Thread()
    keys = DerivedKeys(run=thread)
    for _ in range(2):
        waiting = keys.get(b"secret", b"salt", 10, 16)
        waiting.addErrback(lambda failure: failure.trap(CancelledError) and None)
        waiting.cancel()
    assert len(thread.jobs) == 1
    thread.work()
    assert keys.get(b"secret", b"salt", 10, 16) == base64.b64encode(
        hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 10, 16)
    )


def test_two_threads_at_most_and_a_bounded_number_of_keys():
    thread = Thread()
    keys = DerivedKeys(2, thread)
    waiting = [keys.get(b"secret", b"%d" % number, 1, 16) for number in range(4)]
    assert len(thread.jobs) == 2
    while thread.jobs:
        thread.work()
    assert len({now(key) for key in waiting}) == 4
    assert isinstance(keys.get(b"secret", b"3", 1, 16), bytes)
    assert isinstance(keys.get(b"secret", b"0", 1, 16), Deferred)


def test_work_that_nobody_waits_for_any_more_is_not_begun():
    """Logins that were given up would else keep the threads busy for those that follow."""
    thread = Thread()
    keys = DerivedKeys(run=thread)
    waiting = [keys.get(b"secret", b"%d" % number, 1, 16) for number in range(4)]
    waiting[2].addErrback(lambda failure: failure.trap(CancelledError) and None)
    waiting[2].cancel()
    done = 0
    while thread.jobs:
        thread.work()
        done += 1
    assert done == 3
    assert isinstance(now(waiting[3]), bytes)
    assert isinstance(keys.get(b"secret", b"2", 1, 16), Deferred)
    assert len(thread.jobs) == 1


def test_the_parts_of_a_key_are_not_mixed_up():
    thread = Thread()
    keys = DerivedKeys(run=thread)
    waiting = [keys.get(*arguments) for arguments in [
        (b"ab", b"c", 1, 16), (b"a", b"bc", 1, 16), (b"ab", b"c", 11, 6), (b"ab", b"c", 1, 161),
    ]]  # fmt: skip
    while thread.jobs:
        thread.work()
    assert len({now(key) for key in waiting}) == 4


def test_the_keys_of_all_users_are_derived_when_the_first_client_comes():
    """Else the first login of a user would take longer than one of somebody who does not exist."""
    thread = Thread()
    method = salted({name: {**USERS["joe"], **SALTED, "salt": name} for name in ("joe", "ann", "eve")}, thread)
    method.hello(attempt_of("wampcra", "nobody"))
    count = 0
    while thread.jobs:
        assert len(thread.jobs) == 1
        thread.work()
        count += 1
    assert count == 3
    challenge = method.hello(attempt_of("wampcra", "eve"))
    assert challenge.answer(signed(challenge, "s3cret ü"), {}).authid == "eve"


# --- nobody ---


def test_nobody_is_asked_like_somebody():
    """Same keys, the same salt each time and after a restart, another one for another name."""
    users = {f"user{n}": {**USERS["joe"], **SALTED, "salt": hashlib.sha256(b"%d" % n).hexdigest()} for n in range(9)}

    def extra_of(authid):
        extra = salted(users).hello(attempt_of("wampcra", authid)).extra
        text = json.loads(extra.pop("challenge"))
        return extra, {key: text[key] for key in text if key not in ("nonce", "timestamp")}

    known, _ = extra_of("user1")
    extra, text = extra_of("nobody")
    assert extra.keys() == known.keys()
    assert (extra["iterations"], extra["keylen"], len(extra["salt"])) == (100, 32, 64)
    assert set(extra["salt"]) <= set("0123456789abcdef")
    assert text == {
        "authid": "nobody",
        "authrole": "user",
        "authmethod": "wampcra",
        "authprovider": "static",
        "session": 4711,
    }
    assert extra_of("nobody") == (extra, text)
    assert extra_of("somebody")[0]["salt"] != extra["salt"]


def test_nobody_has_the_salt_that_everybody_has():
    method = salted({name: {**USERS["joe"], **SALTED} for name in ("joe", "ann")})
    assert method.hello(attempt_of("wampcra", "nobody")).extra["salt"] == SALTED["salt"]


def test_nobody_is_plain_or_salted_as_the_users_are():
    users = {"a": USERS["joe"], "b": {**USERS["joe"], **SALTED}}
    method = salted(users)
    shown = {len(method.hello(attempt_of("wampcra", f"nobody{n}")).extra) for n in range(50)}
    assert shown == {1, 4}


def test_nobody_costs_no_derivation():
    thread = Thread()
    method = salted({"joe": {**USERS["joe"], **SALTED}}, thread)
    challenge = method.hello(attempt_of("wampcra", "nobody"))
    assert len(thread.jobs) == 1  # joe's, whom nobody looks like
    outcome = challenge.answer(signed(challenge, "x"), {})
    assert len(thread.jobs) == 1
    assert not outcome.called  # nor would joe be told before that
    thread.work()
    assert now(outcome).reason == FAILED[0]
    assert now(challenge.answer(signed(challenge, "s3cret ü"), {})).reason == FAILED[0]
    assert thread.jobs == []


# --- over an authenticator ---


def dynamic(found):
    source = Source(found)
    return WampCra(source, Decoys(b"k", "wampcra", {})), source


def test_an_authenticator_that_takes_its_time():
    later = Deferred()
    method, source = dynamic(later)
    outcome = method.hello(attempt_of("wampcra"))
    assert source.asked == [("wampcra", "joe", {})]
    later.callback({"secret": "found", "role": "user", "realm": "realm2"})
    challenge = now(outcome)
    assert challenge.answer(signed(challenge, "found"), {}) == Accept("realm2", "joe", "user", "wampcra", "dynamic")


def test_an_authenticators_refusal_comes_after_the_challenge():
    """So that asking tells nobody who is known."""
    refusal = Deny("com.example.no_such_user", "who?")
    challenge = now(dynamic(refusal)[0].hello(attempt_of("wampcra")))
    assert isinstance(challenge, Challenge)
    assert challenge.answer(signed(challenge, ""), {}) is refusal


def test_an_authenticator_that_cannot_be_asked_is_said_at_once():
    refusal = Unavailable("wamp.error.unavailable", "not now")
    assert now(dynamic(refusal)[0].hello(attempt_of("wampcra"))) is refusal


def test_nobody_looks_like_the_first_who_was_found():
    method, source = dynamic({"secret": "found", "role": "user", **SALTED})
    method.hello(attempt_of("wampcra"))
    source.found = None
    extra = method.hello(attempt_of("wampcra", "nobody")).extra
    assert (extra["iterations"], extra["keylen"], len(extra["salt"])) == (100, 32, len(SALTED["salt"]))
    source.found = {"secret": "other", "role": "user"}
    method.hello(attempt_of("wampcra", "ann"))
    source.found = None
    assert method.hello(attempt_of("wampcra", "nobody")).extra["salt"] == extra["salt"]
