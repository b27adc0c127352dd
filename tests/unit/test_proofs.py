"""How the proxy proves who it is: what is answered to a router, and what is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from autobahn.wamp import auth
from autobahn.wamp.types import Challenge
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from proxy.auth import derived as derived_keys
from proxy.auth.derived import Derived
from proxy.auth.proofs import PROOFS, Anonymous, Cryptosign, Scram, Ticket, WampCra
from proxy.auth.routers import LoginError

SALT = b"sixteen octets.."


class AtOnce(Derived):
    """Derives keys without a thread."""

    def get(self, how: Any, compute: Any) -> bytes:
        key: bytes = compute()
        return key


def answer(login: Any, extra: dict[str, Any]) -> str:
    """What is answered to a challenge, at once."""
    result = login.answer(extra)
    if isinstance(result, Deferred):
        found: list[str] = []
        result.addCallback(found.append)
        (result,) = found
    assert isinstance(result, str)
    return result


def server_nonce(login: Scram) -> str:
    """A nonce as routers make it of the client's."""
    return base64.b64encode(base64.b64decode(login.authextra["nonce"]) + b"of the router").decode()


def extra(login: Scram, **keys: Any) -> dict[str, Any]:
    """What CHALLENGE has in it."""
    salt = base64.b64encode(SALT).decode()
    return {"nonce": server_nonce(login), "kdf": "pbkdf2", "salt": salt, "iterations": 10, **keys}


def test_cryptosign_signs_the_challenge() -> None:
    login = Cryptosign("01" * 32)
    challenge = bytes(range(32))
    answer = bytes.fromhex(login.on_challenge(None, Challenge("cryptosign", {"challenge": challenge.hex()})))
    assert answer[64:] == challenge
    public_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(login.authextra["pubkey"]))
    public_key.verify(answer[:64], challenge)


@pytest.mark.parametrize("challenge", [None, "", "00" * 31, "00" * 33, "xx" * 32, 7, ["00" * 32]])
def test_cryptosign_signs_nothing_else(challenge: Any) -> None:
    with pytest.raises(LoginError, match="challenge of 32 octets"):
        Cryptosign("01" * 32).on_challenge(None, Challenge("cryptosign", {"challenge": challenge}))


def test_scram_proves_the_password_and_checks_the_router() -> None:
    login = Scram("secret", "someone", derived=AtOnce())
    challenge = extra(login)
    proof = base64.b64decode(answer(login, challenge))
    # The router's side ("SCRAM Authentication"): it keeps the two keys, not the password.
    salted = hashlib.pbkdf2_hmac("sha256", b"secret", SALT, 10)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    nonce = challenge["nonce"]
    message = f"n=someone,r={login.authextra['nonce']},r={nonce},s={challenge['salt']},i=10,c=,r={nonce}".encode()
    signature = hmac.digest(stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key
    good = base64.b64encode(hmac.digest(server_key, message, "sha256")).decode()
    assert login.on_welcome(None, {"scram_server_signature": good}) is None
    for wrong in (None, {}, {"scram_server_signature": good[:-4]}, {"scram_server_signature": 7}):
        assert login.on_welcome(None, wrong) == "scram: the router's signature is wrong"


def test_scram_trusts_no_router_that_asked_for_no_proof() -> None:
    login = Scram("secret", "someone")
    assert login.on_welcome(None, {"scram_server_signature": ""}) is not None


@pytest.mark.parametrize(
    "keys",
    [
        {"nonce": None},
        {"nonce": base64.b64encode(b"of somebody else, and longer").decode()},
        {"salt": None},
        {"iterations": 0},
        {"iterations": True},
        {"iterations": "10"},
        {"iterations": 10**9},
        {"kdf": "md5"},
        {"kdf": None},
        {"kdf": "argon2id-13"},
        {"kdf": "argon2id-13", "memory": 1 << 30},
        {"kdf": "argon2id-13", "memory": 1 << 18, "iterations": 10_000},
        {"kdf": "argon2id-13", "memory": "512"},
    ],
)
def test_scram_works_for_no_strange_challenge(keys: dict[str, Any]) -> None:
    login = Scram("secret", "someone")
    with pytest.raises(LoginError, match="scram: "):
        login.answer(extra(login, **keys))
    # The client's own nonce alone would be the router's proof of nothing.
    with pytest.raises(LoginError, match="nonce that begins"):
        login.answer(extra(login, nonce=login.authextra["nonce"]))


@given(st.text(max_size=20), st.binary(max_size=20))
def test_nonces_are_the_clients_in_octets_and_in_text(password: str, more: bytes) -> None:
    login = Scram(password, "someone")
    longer = base64.b64encode(base64.b64decode(login.authextra["nonce"]) + more).decode()
    assert longer.startswith(login.authextra["nonce"])


def test_a_challenge_bound_to_a_channel_is_not_signed() -> None:
    with pytest.raises(LoginError, match="channel binding"):
        Cryptosign("01" * 32).answer({"challenge": "00" * 32, "channel_binding": "tls-unique"})


def test_ticket() -> None:
    login = Ticket("s3cret", authid="proxy1", authrole="service")
    assert answer(login, {}) == "s3cret"
    assert login._args == {"authid": "proxy1", "authrole": "service"}


def test_anonymous_has_nothing_to_answer() -> None:
    with pytest.raises(LoginError):
        Anonymous().answer({})


def test_wampcra_as_autobahns_clients_do_it() -> None:
    challenge = '{"authid": "proxy1", "session": 1}'
    numbers = {"iterations": 100, "keylen": 16}
    for salt in ({}, {"salt": "salt123", **numbers}, {"salt": "", **numbers}):
        theirs = auth.create_authenticator("wampcra", authid="proxy1", secret="s3cret")
        expected = theirs.on_challenge(None, Challenge("wampcra", {"challenge": challenge, **salt}))
        ours = WampCra("s3cret", authid="proxy1", derived=AtOnce())
        assert answer(ours, {"challenge": challenge, **salt}) == expected


def test_wampcra_with_a_salt_alone() -> None:
    key = auth.derive_key("s3cret", "salt123", 1000, 32)
    expected = auth.compute_wcs(key, "{}").decode()
    assert answer(WampCra("s3cret", derived=AtOnce()), {"challenge": "{}", "salt": "salt123"}) == expected


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"challenge": 7},
        {"challenge": ""},
        {"challenge": "x", "salt": 7},
        {"challenge": "x", "salt": "y", "iterations": 10**9},
        {"challenge": "x", "salt": "y", "iterations": "10"},
        {"challenge": "x", "salt": "y", "keylen": 0},
        {"challenge": "x", "salt": "y", "keylen": 10**6},
    ],
)
def test_wampcra_works_for_no_strange_challenge(extra: dict[str, Any]) -> None:
    with pytest.raises(LoginError, match="wampcra: "):
        WampCra("s3cret").answer(extra)


@pytest.mark.parametrize("salt", ["a", "\xe9\xe9\xe9\xe9"])
def test_scram_fails_in_order_at_a_salt_that_is_no_base64(salt: str) -> None:
    login = Scram("secret", "someone")
    with pytest.raises(LoginError, match="salt in Base64"):
        login.answer(extra(login, salt=salt))


def test_scram_fails_in_order_at_a_salt_that_argon2_does_not_take() -> None:
    login = Scram("secret", "someone", derived=AtOnce())
    with pytest.raises(LoginError, match="argon2id-13"):
        login.answer(extra(login, kdf="argon2id-13", memory=64, salt=base64.b64encode(b"abc").decode()))


def test_no_secret_is_shown() -> None:
    made = [
        Ticket("s3cret"),
        WampCra("s3cret"),
        Scram("s3cret", "someone"),
        Cryptosign("5e" * 32),
    ]
    assert {proof.name for proof in made} < set(PROOFS)
    for proof in made:
        assert "s3cret" not in repr(proof)
        assert "5e5e" not in repr(proof)


class Threads:
    """Stands for threads: what was to be computed, and the Deferreds that wait for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.work: list[tuple[Any, Deferred[bytes]]] = []
        monkeypatch.setattr(derived_keys, "deferToThread", self.start)

    def start(self, compute: Any) -> Deferred[bytes]:
        done: Deferred[bytes] = Deferred()
        self.work.append((compute, done))
        return done

    def finish(self) -> None:
        compute, done = self.work.pop(0)
        try:
            done.callback(compute())
        except LoginError:
            done.errback(Failure())


def test_a_key_is_derived_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, derived, found = Threads(monkeypatch), Derived(), []
    first, second, third = (derived.get("salt", lambda: b"key") for _ in range(3))
    assert isinstance(first, Deferred)
    assert isinstance(second, Deferred)
    assert isinstance(third, Deferred)
    first.addErrback(lambda failure: failure.trap(CancelledError))
    for waiter in (second, third):
        waiter.addCallback(found.append)
    first.cancel()
    assert len(threads.work) == 1, "one who gives up leaves the work to the others"
    second.addCallback(lambda _: third.cancel())
    third.addErrback(lambda failure: failure.trap(CancelledError))
    threads.finish()
    assert found == [b"key"]
    assert derived.get("salt", lambda: b"other") == b"key"


def test_a_key_that_cannot_be_derived_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, derived, found = Threads(monkeypatch), Derived(), []

    def fail() -> bytes:
        raise LoginError("no")

    waiter = derived.get("salt", fail)
    assert isinstance(waiter, Deferred)
    waiter.addErrback(lambda failure: found.append(str(failure.value)))
    threads.finish()
    assert found == ["no"]
    assert isinstance(derived.get("salt", fail), Deferred)
    assert len(threads.work) == 1


def test_a_router_that_changes_its_salts_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, derived = Threads(monkeypatch), Derived()
    for number in range(100):
        derived.get(number, lambda: b"key")
        threads.finish()
    assert len(derived._keys) < 10
    assert derived.get(99, lambda: b"other") == b"key"


def test_a_router_that_changes_its_salts_does_not_take_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, derived = Threads(monkeypatch), Derived()
    waiters: list[Any] = [derived.get(number, lambda: b"key") for number in range(10)]
    assert len(threads.work) == 1
    for waiter in waiters[1:9]:
        waiter.addErrback(lambda failure: failure.trap(CancelledError))
        waiter.cancel()
    threads.finish()
    assert len(threads.work) == 1, "nothing is computed for those who left"
    threads.finish()
    assert [waiter.result for waiter in (waiters[0], waiters[9])] == [b"key", b"key"]
    assert not threads.work
    assert not derived._waiting
