"""Whatever clients say, a method answers: with a challenge, a refusal, or not at all, and never lets them in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth import Attempt, Challenge, Deny
from support.answers import authentication

TEXTS = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(["joe", "", "00" * 32, "AAAA"])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=8) | TEXTS
ANYTHING = VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(TEXTS, VALUES, max_size=3)
KEYS = st.sampled_from(["nonce", "pubkey", "channel_binding", "challenge", "trustroot"])
AUTHEXTRAS = ANYTHING | st.dictionaries(KEYS, ANYTHING)
KEY = "11" * 32
AUTH = authentication(
    ticket={"type": "static", "principals": {"joe": {"ticket": "a ticket that nobody guesses", "role": "user"}}},
    wampcra={
        "type": "static",
        "users": {"joe": {"secret": "a secret that nobody guesses", "role": "user"}},
    },
    scram={
        "type": "static",
        "principals": {
            "joe": {
                "kdf": "pbkdf2",
                "iterations": 1,
                "salt": "00",
                "stored-key": KEY,
                "server-key": KEY,
                "role": "user",
            }
        },
    },
    cryptosign={"type": "static", "principals": {"joe": {"authorized_keys": [KEY], "role": "user"}}},
    tls={"type": "static", "principals": {"joe": {"certificate-sha1": "00" * 20, "role": "user"}}},
)


@pytest.mark.parametrize("method", ["ticket", "wampcra", "scram", "cryptosign", "tls"])
@given(
    realm=st.none() | TEXTS,
    authid=st.none() | TEXTS,
    authextra=AUTHEXTRAS,
    transport=st.dictionaries(
        st.sampled_from(["channel_id", "peer_cert"]), st.none() | st.dictionaries(TEXTS, ANYTHING)
    ),
    signature=TEXTS,
)
def test_no_nonsense_lets_anybody_in(
    method: str, realm: str | None, authid: str | None, authextra: Any, transport: dict[str, Any], signature: str
) -> None:
    details = {"authmethods": [method], "authid": authid, "authextra": authextra}
    outcome = AUTH.hello(Attempt(realm, details, transport))
    if isinstance(outcome, Challenge):
        outcome = outcome.answer(signature, {})
    assert isinstance(outcome, Deny)
