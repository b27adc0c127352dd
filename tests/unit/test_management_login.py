"""Cryptosign and SCRAM as a client: what is answered to a router, and what is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from autobahn.wamp.types import Challenge
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from proxy.management.login import Cryptosign, Scram

SALT = b"sixteen octets.."


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
    with pytest.raises(RuntimeError, match="challenge of 32 octets"):
        Cryptosign("01" * 32).on_challenge(None, Challenge("cryptosign", {"challenge": challenge}))


def test_scram_proves_the_password_and_checks_the_router() -> None:
    login = Scram("secret", "someone")
    challenge = extra(login)
    proof = base64.b64decode(login._answer(challenge))
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
    with pytest.raises(RuntimeError, match="scram: "):
        login._answer(extra(login, **keys))
    # The client's own nonce alone would be the router's proof of nothing.
    with pytest.raises(RuntimeError, match="nonce that begins"):
        login._answer(extra(login, nonce=login.authextra["nonce"]))


@given(st.text(max_size=20), st.binary(max_size=20))
def test_nonces_are_the_clients_in_octets_and_in_text(password: str, more: bytes) -> None:
    login = Scram(password, "someone")
    longer = base64.b64encode(base64.b64decode(login.authextra["nonce"]) + more).decode()
    assert longer.startswith(login.authextra["nonce"])
