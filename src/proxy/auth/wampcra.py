"""WAMP-CRA: the client signs a challenge with a secret ("Challenge Response Authentication")."""

import base64
import hmac
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from proxy.auth.base import Attempt, Challenge, Decision, Deny, Outcome, failed
from proxy.auth.decoys import Decoys, octets_of, refusal, then
from proxy.auth.derived import KEPT_MAX, DerivedKeys
from proxy.auth.principals import Found, Principal, Unavailable, identity
from proxy.auth.sources import Source, StaticSource

__all__ = ["WampCra"]

# What a challenge tells of its principal.
_TOLD: Final = ("role", "salt", "iterations", "keylen")


class WampCra:
    """Has the client sign a challenge, with its secret or with a key derived from it.

    A client that names nobody who is known gets a challenge like any other, with the same salt each time.

    :param source: the users, with ``secret``, and ``salt``, ``iterations`` and ``keylen`` if it is salted.
    :param decoys: for those who are none.
    :param keys: that are derived; None: its own.
    """

    def __init__(self, source: Source, decoys: Decoys, keys: DerivedKeys | None = None) -> None:
        self._source = source
        self._decoys = decoys
        self._salted: Iterator[Principal] = iter(())
        kept_max = KEPT_MAX
        if isinstance(source, StaticSource):
            self._salted = iter([user for user in source.principals.values() if "salt" in user])
            kept_max = max(kept_max, len(source.principals))
        self._keys = keys or DerivedKeys(kept_max)
        self._is_warm = False

    def hello(self, attempt: Attempt) -> Outcome:
        """See :class:`proxy.auth.base.Method`."""
        if not self._is_warm:
            self._is_warm = True
            self._warm()
        found = self._source.find(attempt, "wampcra", attempt.authid, {})
        return then(found, partial(self._challenge, attempt))

    def _warm(self, _: object = None) -> None:
        """Derive the configured users' keys, one after the other.

        A first login that takes longer than that of somebody who does not exist would tell that its user does.
        """
        for user in self._salted:
            key = self._key(user)
            if isinstance(key, Deferred):
                key.addBoth(self._warm)
                return

    def _challenge(self, attempt: Attempt, found: Found) -> Decision:
        if isinstance(found, Unavailable):
            return found
        # Made up in any case: it would be the time that it takes that tells.
        decoy, stand_in = self._decoy(attempt.authid)
        if found is None or isinstance(found, Deny):
            refused, user, signer = refusal(found, "wampcra"), decoy, stand_in
        else:
            refused, user, signer = None, found, found
            self._decoys.learn(attempt.authid, found, _TOLD)
        extra = {"challenge": self._text(attempt, user)}
        if "salt" in user:
            extra |= {key: user[key] for key in ("salt", "iterations", "keylen")}
        return Challenge("wampcra", extra, partial(self._answer, attempt, signer, extra["challenge"], refused))

    def _decoy(self, authid: str | None) -> tuple[Principal, Principal]:
        """Somebody made up; and whose key is waited for in place of theirs: that of the user whom they look like.

        It costs no derivation of its own, and the answer takes as long as that user's would. What an authenticator told
        of a user is gone, and with it the secret.
        """
        _, sample = self._decoys.sample(authid)
        user = {key: sample[key] for key in _TOLD if key in sample}
        if "salt" in user:
            user["salt"] = self._decoys.salt(authid)
        return user, sample if "secret" in sample else {"secret": ""}

    def _key(self, user: Principal) -> "bytes | Deferred[bytes]":
        secret = octets_of(user["secret"])
        if "salt" not in user:
            return secret
        return self._keys.get(secret, octets_of(user["salt"]), user["iterations"], user["keylen"])

    def _text(self, attempt: Attempt, user: Principal) -> str:
        """What is to be signed. It names the client as it named itself, so that it is the same for decoys."""
        text = {
            "authid": attempt.authid or user.get("authid"),
            "authrole": user.get("role") or self._source.default_role,
            "authmethod": "wampcra",
            "authprovider": self._source.provider,
            "session": attempt.session_id,
            "nonce": secrets.token_urlsafe(24),
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return json.dumps(text)

    def _answer(
        self, attempt: Attempt, user: Principal, challenge: str, refused: Deny | None, signature: str, extra: Any
    ) -> Outcome:
        judge = partial(self._judge, attempt, user, challenge, refused, signature)
        key = self._key(user)
        return key.addCallback(judge) if isinstance(key, Deferred) else judge(key)

    def _judge(
        self, attempt: Attempt, user: Principal, challenge: str, refused: Deny | None, signature: str, key: bytes
    ) -> Decision:
        expected = base64.b64encode(hmac.digest(key, challenge.encode(), "sha256"))
        is_right = hmac.compare_digest(octets_of(signature), expected)
        if refused is not None:
            return refused
        if not is_right:
            return failed("wampcra: the signature is wrong")
        return identity(
            user,
            attempt,
            authid=attempt.authid,
            authmethod="wampcra",
            authprovider=self._source.provider,
            default_role=self._source.default_role,
        )
