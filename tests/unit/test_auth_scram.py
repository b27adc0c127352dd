"""WAMP-SCRAM, against autobahn's client with what it needs put in its place."""

import base64
import hashlib
import hmac
from types import SimpleNamespace

import pytest
from autobahn.wamp import auth as autobahn_auth
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from twisted.internet.defer import Deferred

from proxy.auth import Accept, Challenge, Deny
from proxy.auth.decoys import Decoys
from proxy.auth.principals import Unavailable
from proxy.auth.scram import Scram
from support.answers import FAILED, Source, attempt_of, authentication, challenge_of, now

PASSWORD = "pa$$wörd"
SALT = bytes(range(16))
NONCE = base64.b64encode(b"0123456789abcdef").decode()


def argon2id(password, salt, iterations, memory):
    kdf = Argon2id(salt=base64.b64decode(salt), length=32, iterations=iterations, lanes=1, memory_cost=memory)
    return base64.b64encode(kdf.derive(password)).rstrip(b"=")


def pbkdf2(password, salt, iterations):
    return hashlib.pbkdf2_hmac("sha256", password, base64.b64decode(salt), iterations)


@pytest.fixture(autouse=True)
def autobahns_client(monkeypatch):
    """Its own imports for SCRAM may be missing, and its PBKDF2 takes the salt's text for octets."""
    monkeypatch.setattr(autobahn_auth, "HAS_ARGON", True)
    monkeypatch.setattr(autobahn_auth, "saslprep", str, raising=False)
    monkeypatch.setattr(autobahn_auth, "_hash_argon2id13_secret", argon2id)
    monkeypatch.setattr(autobahn_auth, "_hash_pbkdf2_secret", pbkdf2)


def principal(kdf, salt=SALT, **more):
    text = base64.b64encode(salt)
    salted = argon2id(PASSWORD.encode(), text, 2, 64) if kdf == "argon2id-13" else pbkdf2(PASSWORD.encode(), text, 2)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return {
        "kdf": kdf,
        "iterations": 2,
        "memory": 64,
        "salt": salt.hex(),
        "stored-key": hashlib.sha256(client_key).hexdigest(),
        "server-key": hmac.digest(salted, b"Server Key", "sha256").hex(),
        "role": "user",
        **more,
    }


KDFS = ["argon2id-13", "pbkdf2"]
PRINCIPALS = {kdf: principal(kdf) for kdf in KDFS}


class Client:
    """A client that logs in once."""

    def __init__(self, authid="joe", password=PASSWORD, **principals):
        self.autobahn = autobahn_auth.AuthScram(authid=authid, password=password)
        self.auth = authentication(scram={"type": "static", "principals": principals})
        self.challenge = challenge_of(self.auth, attempt_of("scram", authid, authextra=self.autobahn.authextra))

    def answer(self):
        challenge = SimpleNamespace(method=self.challenge.authmethod, extra=self.challenge.extra)
        return self.autobahn.on_challenge(None, challenge).decode()

    def login(self):
        return self.challenge.answer(self.answer(), {})


@pytest.mark.parametrize("kdf", KDFS)
def test_both_sides_prove_who_they_are(kdf):
    client = Client(joe=PRINCIPALS[kdf])
    accept = client.login()
    assert isinstance(accept, Accept)
    assert (accept.realm, accept.authid, accept.authrole, accept.authmethod, accept.authprovider) == (
        "realm1", "joe", "user", "scram", "static",
    )  # fmt: skip
    logs = SimpleNamespace(info=print, error=print)
    assert client.autobahn.on_welcome(SimpleNamespace(log=logs), accept.welcome_extra) is None
    # What the client sends with HELLO, its nonce, goes along; the server's signature is for the client alone.
    assert "scram_server_signature" not in accept.authextra


def test_the_challenge_has_what_clients_take_and_nothing_else():
    client = Client(joe=PRINCIPALS["argon2id-13"])
    extra = client.challenge.extra
    assert set(extra) == {"nonce", "kdf", "salt", "iterations", "memory"}
    assert (extra["kdf"], extra["iterations"], extra["memory"]) == ("argon2id-13", 2, 64)
    assert base64.b64decode(extra["salt"]) == SALT
    nonce = base64.b64decode(extra["nonce"])
    assert nonce.startswith(base64.b64decode(client.autobahn.authextra["nonce"]))
    assert len(nonce) == 16 + 18


def test_memory_is_left_out_where_there_is_none():
    known = {key: value for key, value in PRINCIPALS["pbkdf2"].items() if key != "memory"}
    assert "memory" not in Client(joe=known).challenge.extra


@pytest.mark.parametrize("kdf", KDFS)
@pytest.mark.parametrize("authid", ["joe", "nobody"])
def test_a_wrong_password_is_refused(kdf, authid):
    refusal = Client(authid, "another", joe=PRINCIPALS[kdf]).login()
    assert (refusal.reason, refusal.message) == FAILED


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "no Base64",
        "é",
        "\ud800",
        "AAAA",
        base64.b64encode(bytes(32)).decode(),
        base64.b64encode(bytes(33)).decode(),
    ],
)
@pytest.mark.parametrize("authid", ["joe", "nobody"])
def test_nonsense_is_refused(signature, authid):
    auth = authentication(scram={"type": "static", "principals": {"joe": PRINCIPALS["pbkdf2"]}})
    refusal = challenge_of(auth, attempt_of("scram", authid, authextra={"nonce": NONCE})).answer(signature, {})
    assert (refusal.reason, refusal.message) == FAILED


def test_nobody_is_asked_for_no_password():
    auth = authentication(scram={"type": "static", "principals": {"joe": PRINCIPALS["pbkdf2"]}})
    refusal = auth.hello(attempt_of("scram", None, authextra={"nonce": NONCE}))
    assert refusal == Deny(FAILED[0], "scram: expected HELLO.Details.authid")


def test_a_stored_key_alone_is_no_proof():
    """Who has stolen the configuration cannot log in with it: zeros that would hash to it are not to be found."""
    client = Client(joe=PRINCIPALS["pbkdf2"])
    stored_key = bytes.fromhex(PRINCIPALS["pbkdf2"]["stored-key"])
    assert isinstance(client.challenge.answer(base64.b64encode(stored_key).decode(), {}), Deny)


def test_the_answer_to_another_challenge_is_refused():
    """Even if the client uses its nonce again."""
    auth = authentication(scram={"type": "static", "principals": {"joe": PRINCIPALS["pbkdf2"]}})
    client = Client(joe=PRINCIPALS["pbkdf2"])
    proof = client.answer()
    again = challenge_of(auth, attempt_of("scram", authextra=client.autobahn.authextra))
    assert isinstance(again.answer(proof, {}), Deny)
    assert isinstance(client.challenge.answer(proof, {}), Accept)


@pytest.mark.parametrize(
    "authextra",
    [None, {}, {"nonce": 7}, {"nonce": ""}, {"nonce": "a,b="}, {"nonce": "\ud800"}, {"nonce": "QUFB" * 200}],
)
@pytest.mark.parametrize("authid", ["joe", "nobody"])
def test_a_hello_without_a_good_nonce_is_refused(authextra, authid):
    auth = authentication(scram={"type": "static", "principals": {"joe": PRINCIPALS["pbkdf2"]}})
    refusal = auth.hello(attempt_of("scram", authid, authextra=authextra))
    assert isinstance(refusal, Deny)
    assert refusal.reason == FAILED[0]
    assert "authextra.nonce" in refusal.message


@pytest.mark.parametrize("binding", ["tls-unique", "tls-exporter", 7])
def test_a_channel_binding_is_not_ignored(binding):
    auth = authentication(scram={"type": "static", "principals": {"joe": PRINCIPALS["pbkdf2"]}})
    refusal = auth.hello(attempt_of("scram", authextra={"nonce": NONCE, "channel_binding": binding}))
    assert isinstance(refusal, Deny)
    assert "channel binding" in refusal.message


def test_authids_are_prepared_as_clients_do_it():
    """RFC 4013: what looks the same is the same."""
    client = Client("I\u00adX \u2168", **{"I\u00adX \u2168": PRINCIPALS["pbkdf2"]})
    client.autobahn._args["authid"] = "IX IX"
    assert isinstance(client.login(), Accept)


def test_a_long_authid_is_not_prepared(monkeypatch):
    """A normal form takes time with the square of the length of such a text: seconds, before anybody has logged in."""
    prepared = []
    monkeypatch.setattr("proxy.auth.scram.unicodedata", SimpleNamespace(normalize=lambda *text: prepared.append(text)))
    marks = "\u0301" * 32_000 + "\u0316" * 32_000
    auth = authentication(scram={"type": "static", "principals": {"joe": PRINCIPALS["pbkdf2"]}})
    challenge = challenge_of(auth, attempt_of("scram", marks, authextra={"nonce": NONCE}))
    assert prepared == []
    assert challenge.extra["kdf"] == "pbkdf2"
    refusal = challenge.answer("A" * 43 + "=", {})
    assert (refusal.reason, refusal.message) == FAILED


# --- nobody ---


def extra_of(authid, **principals):
    auth = authentication(scram={"type": "static", "principals": principals})
    extra = challenge_of(auth, attempt_of("scram", authid, authextra={"nonce": NONCE})).extra
    assert extra.pop("nonce") != NONCE
    return extra


def test_nobody_is_asked_like_somebody():
    known = {"joe": principal("argon2id-13"), "ann": principal("argon2id-13", bytes(reversed(SALT)))}
    extra = extra_of("nobody", **known)
    assert {**extra, "salt": ""} == {**extra_of("joe", **known), "salt": ""}
    assert len(base64.b64decode(extra["salt"])) == 16
    assert extra_of("nobody", **known) == extra
    assert extra_of("somebody", **known)["salt"] != extra["salt"]
    assert extra["salt"] not in (extra_of("joe", **known)["salt"], extra_of("ann", **known)["salt"])


def test_nobody_has_the_salt_that_autobahn_makes_of_a_name():
    """derive_scram_credential() hashes the name: a salt that is no hash would tell."""

    def salt(name):
        return hashlib.sha256(name.encode()).digest()[:16]

    extra = extra_of("nobody", joe=principal("argon2id-13", salt("joe")))
    assert base64.b64decode(extra["salt"]) == salt("nobody")


# --- over an authenticator ---


def dynamic(found):
    return Scram(Source(found), Decoys(b"k", "scram", {})).hello(attempt_of("scram", authextra={"nonce": NONCE}))


def test_an_authenticator_that_takes_its_time():
    later = Deferred()
    outcome = dynamic(later)
    later.callback(PRINCIPALS["argon2id-13"])
    assert now(outcome).extra["memory"] == 64


def test_an_authenticators_refusal_comes_after_the_challenge():
    refusal = Deny("com.example.no_such_user", "who?")
    challenge = dynamic(refusal)
    assert isinstance(challenge, Challenge)
    assert set(challenge.extra) == {"nonce", "kdf", "salt", "iterations", "memory"}
    assert challenge.answer("AAAA", {}) is refusal


def test_an_authenticator_that_cannot_be_asked_is_said_at_once():
    refusal = Unavailable("wamp.error.unavailable", "not now")
    assert dynamic(refusal) is refusal
