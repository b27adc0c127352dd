"""WAMP-SCRAM: the client proves that it knows a password of which the proxy only has a hash ("WAMP-SCRAM", RFC 5802).

The hard work is the client's: the proxy never derives a key. What is signed is put together as autobahn and Crossbar.io
do it, which is not quite RFC 5802: without a GS2 header, and with commas between the parts.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from proxy.auth.base import AUTHENTICATION_FAILED, Accept, Attempt, Challenge, Decision, Deny, Outcome, failed
from proxy.auth.decoys import Decoys, octets_of, refusal, then
from proxy.auth.principals import Found, Principal, Unavailable, identity
from proxy.auth.sources import Source

__all__ = ["Scram"]

_NONCE_OCTETS: Final = 18
_CLIENT_NONCE_MAX: Final = 256  # octets
# Of an authid, which is prepared before anything is known of the client. A normal form can take time with the square of
# the text's length: seconds for one that just fits into a HELLO.
_PREPARED_MAX: Final = 1024  # characters
_KEY_OCTETS: Final = 32
# What a challenge tells of its principal.
_TOLD: Final = ("kdf", "salt", "iterations", "memory")
# For decoys while no principal is known: what autobahn's derive_scram_credential() makes.
_USUAL: Final = {"kdf": "argon2id-13", "salt": "00" * 16, "iterations": 4096, "memory": 512}


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One login.

    :ivar message: what both sides sign.
    :ivar refused: what the client is told in the end, whatever it proves; None: it depends on that.
    """

    attempt: Attempt
    principal: Principal
    message: bytes
    refused: Deny | None


class Scram:
    """Has the client prove that it knows the password, and proves to it that the principal's keys are known here.

    A client that names nobody who is known gets a challenge like any other, with the same salt each time.

    :param source: the principals, with ``kdf``, ``iterations``, ``memory``, and in hexadecimal digits ``salt``,
        ``stored-key``, ``server-key``.
    :param decoys: for those who are none.
    """

    def __init__(self, source: Source, decoys: Decoys) -> None:
        self._source = source
        self._decoys = decoys

    def hello(self, attempt: Attempt) -> Outcome:
        """See :class:`proxy.auth.base.Method`.

        :returns: a refusal at once where HELLO.Details.authextra is not what the method asks for.
        """
        wrong = _wrong(attempt)
        if wrong:
            return Deny(AUTHENTICATION_FAILED, f"scram: {wrong}")
        found = self._source.find(attempt, "scram", attempt.authid, {})
        return then(found, partial(self._challenge, attempt))

    def _challenge(self, attempt: Attempt, found: Found) -> Decision:
        if isinstance(found, Unavailable):
            return found
        # Made up in any case: it would be the time that it takes that tells.
        decoy = self._decoy(attempt.authid)
        if found is None or isinstance(found, Deny):
            refused, principal = refusal(found, "scram"), decoy
        else:
            refused, principal = None, found
            self._decoys.learn(attempt.authid, found, _TOLD)
        client_nonce = attempt.authextra["nonce"]
        octets = base64.b64decode(client_nonce) + secrets.token_bytes(_NONCE_OCTETS)
        nonce = base64.b64encode(octets).decode()
        salt = base64.b64encode(bytes.fromhex(principal["salt"])).decode()
        iterations = principal["iterations"]
        text = f"n={_prepared(attempt.authid or '')},r={client_nonce},r={nonce},s={salt},i={iterations},c=,r={nonce}"
        extra = {"nonce": nonce, "kdf": principal["kdf"], "salt": salt, "iterations": iterations}
        if "memory" in principal:
            extra["memory"] = principal["memory"]
        exchange = _Exchange(attempt, principal, octets_of(text), refused)
        return Challenge("scram", extra, partial(self._answer, exchange))

    def _decoy(self, authid: str | None) -> Principal:
        name, sample = self._decoys.sample(authid)
        shown = {key: sample[key] for key in _TOLD if key in sample} or dict(_USUAL)
        salt = bytes.fromhex(shown["salt"])
        if name is not None and salt == _usual_salt(name, len(salt)):
            shown["salt"] = _usual_salt(authid or "", len(salt)).hex()
        elif not self._decoys.is_shared(shown["salt"]):
            shown["salt"] = self._decoys.octets("salt", authid, len(salt)).hex()
        keys = self._decoys.octets("keys", authid, 2 * _KEY_OCTETS).hex()
        return {**shown, "stored-key": keys[: 2 * _KEY_OCTETS], "server-key": keys[2 * _KEY_OCTETS :]}

    def _answer(self, exchange: _Exchange, signature: str, extra: dict[str, Any]) -> Decision:
        try:
            proof = base64.b64decode(octets_of(signature), validate=True)
        except binascii.Error:
            proof = b""
        is_whole = len(proof) == _KEY_OCTETS
        principal, message = exchange.principal, exchange.message
        stored_key = bytes.fromhex(principal["stored-key"])
        mask = hmac.digest(stored_key, message, "sha256")
        client_key = bytes(a ^ b for a, b in zip(mask, proof if is_whole else mask, strict=True))
        is_right = hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)
        if exchange.refused is not None:
            return exchange.refused
        if not is_whole or not is_right:
            cause = "is wrong" if is_whole else f"is not {_KEY_OCTETS} octets in Base64"
            return failed(f"scram: the client's proof {cause}")
        return self._accept(exchange)

    def _accept(self, exchange: _Exchange) -> Decision:
        principal = exchange.principal
        decision = identity(
            principal,
            exchange.attempt,
            authid=exchange.attempt.authid,
            authmethod="scram",
            authprovider=self._source.provider,
            default_role=self._source.default_role,
        )
        if isinstance(decision, Accept):
            server_signature = hmac.digest(bytes.fromhex(principal["server-key"]), exchange.message, "sha256")
            decision.welcome_extra["scram_server_signature"] = base64.b64encode(server_signature).decode()
        return decision


def _wrong(attempt: Attempt) -> str:
    """What is wrong with the client's HELLO; empty: nothing."""
    if attempt.authid is None:
        return "expected HELLO.Details.authid"
    nonce = attempt.authextra.get("nonce")
    try:
        octets = base64.b64decode(octets_of(nonce), validate=True) if isinstance(nonce, str) else b""
    except binascii.Error:
        octets = b""
    if not 1 <= len(octets) <= _CLIENT_NONCE_MAX:
        return f"expected authextra.nonce, 1 to {_CLIENT_NONCE_MAX} octets in Base64"
    if attempt.authextra.get("channel_binding") is not None:
        # No client of this method has it, and none may think that it has it here.
        return "channel binding is not supported with this method"
    return ""


def _prepared(authid: str) -> str:
    """The authid as clients prepare it (SASLprep, RFC 4013), without the checks: an odd one is not found anyway.

    Nor is one that is longer than any name, which stays as it is.
    """
    if authid.isascii() or len(authid) > _PREPARED_MAX:
        return authid
    mapped = (" " if stringprep.in_table_c12(char) else char for char in authid if not stringprep.in_table_b1(char))
    return unicodedata.normalize("NFKC", "".join(mapped))


def _usual_salt(authid: str, size: int) -> bytes:
    """The salt that autobahn's derive_scram_credential() makes of a name: anybody can compute it."""
    return hashlib.sha256(octets_of(authid)).digest()[:size]
