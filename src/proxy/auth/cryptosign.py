"""WAMP-Cryptosign: the client signs a challenge with its Ed25519 key ("Cryptosign-based Authentication").

A key may sign for one TLS channel alone (channel binding): the client then signs the exclusive or of the challenge and
the channel's ID, so that what it signs is of no use on another one.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proxy.auth.base import AUTHENTICATION_FAILED, Attempt, Challenge, Decision, Deny, Outcome, failed
from proxy.auth.decoys import refusal, then
from proxy.auth.principals import Found, Principal, Unavailable, identity
from proxy.auth.sources import Source, StaticSource
from proxy.messages import shorten

__all__ = ["Cryptosign"]

_CHALLENGE_OCTETS: Final = 32
_KEY_OCTETS: Final = 32
_SIGNATURE_OCTETS: Final = 64
BINDINGS: Final = ("tls-unique", "tls-exporter")
# Somebody's whose private key nobody has: a signature takes the same time to check where no key is known.
_NOBODY: Final = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
# Points of small order, without their sign bit: anybody can sign for such a "key", as which a placeholder of zeros may
# come here. OpenSSL does not mind them.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One login.

    :ivar authid: of the principal that was found.
    :ivar key: its public key.
    :ivar message: what the client is to sign.
    :ivar refused: what the client is told in the end, whatever it signs; None: it depends on that.
    """

    attempt: Attempt
    authid: str | None
    principal: Principal
    key: bytes
    message: bytes
    refused: Deny | None


class Cryptosign:
    """Has the client sign a challenge. A client that nobody knows is asked like any other.

    :param source: the principals, with ``authorized_keys``. A client that names no authid is found by its public key
        where the principals stand in the configuration.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._owners: dict[str, list[str]] = {}
        if isinstance(source, StaticSource):
            for authid, principal in source.principals.items():
                for key in principal["authorized_keys"]:
                    self._owners.setdefault(key, []).append(authid)

    def hello(self, attempt: Attempt) -> Outcome:
        """See :class:`proxy.auth.base.Method`.

        :returns: a refusal at once where HELLO.Details.authextra is not what the method asks for, or the client wants
            a channel binding that its transport does not have.
        """
        pubkey, binding = attempt.authextra.get("pubkey"), attempt.authextra.get("channel_binding")
        channel_id = bytes(_CHALLENGE_OCTETS) if binding is None else _channel_id(binding, attempt.transport_details)
        if channel_id is None:
            wanted = f"channel binding {shorten(binding)}"
            return Deny(AUTHENTICATION_FAILED, f"cryptosign: {wanted} is not possible on this transport")
        key = "" if pubkey is None else _hexadecimal(pubkey, _KEY_OCTETS)
        if key is None:
            return Deny(AUTHENTICATION_FAILED, "cryptosign: expected authextra.pubkey, 64 hexadecimal digits")
        authid = attempt.authid
        owners = self._owners.get(key, [])
        if authid is None and len(owners) == 1:
            authid = owners[0]
        found = self._source.find(attempt, "cryptosign", authid, {})
        return then(found, partial(self._challenge, attempt, authid, key, binding, channel_id))

    def _challenge(
        self, attempt: Attempt, authid: str | None, pubkey: str, binding: str | None, channel_id: bytes, found: Found
    ) -> Decision:
        if isinstance(found, Unavailable):
            return found
        principal: Principal = {}
        key = ""
        if found is None or isinstance(found, Deny):
            refused: Deny | None = refusal(found, "cryptosign")
        else:
            principal = found
            key, cause = _choose(pubkey, principal)
            refused = failed(f"cryptosign: {cause}") if cause else None
        challenge = secrets.token_bytes(_CHALLENGE_OCTETS)
        message = challenge if binding is None else _xor(challenge, channel_id)
        octets = bytes.fromhex(key or pubkey) or _NOBODY
        exchange = _Exchange(attempt, authid, principal, octets, message, refused)
        extra = {"challenge": challenge.hex(), "channel_binding": binding}
        return Challenge("cryptosign", extra, partial(self._answer, exchange))

    def _answer(self, exchange: _Exchange, signature: str, extra: dict[str, Any]) -> Decision:
        text = _hexadecimal(signature, _SIGNATURE_OCTETS + _CHALLENGE_OCTETS)
        signed = bytes(_SIGNATURE_OCTETS + _CHALLENGE_OCTETS) if text is None else bytes.fromhex(text)
        is_message = hmac.compare_digest(signed[_SIGNATURE_OCTETS:], exchange.message)
        is_signed = _verified(exchange.key, signed[:_SIGNATURE_OCTETS], exchange.message)
        if exchange.refused is not None:
            return exchange.refused
        if text is None:
            return failed("cryptosign: the signature is not 96 octets in hexadecimal digits")
        if not is_message:
            return failed("cryptosign: another message than the challenge was signed")
        if not is_signed:
            return failed("cryptosign: the signature is wrong")
        return identity(
            exchange.principal,
            exchange.attempt,
            authid=exchange.authid,
            authmethod="cryptosign",
            authprovider=self._source.provider,
            default_role=self._source.default_role,
        )


def _channel_id(binding: Any, transport: Mapping[str, Any]) -> bytes | None:
    """The ID of the client's TLS channel, 32 octets; None: it has none of this type."""
    if binding not in BINDINGS:
        return None
    channel_id = (transport.get("channel_id") or {}).get(binding)
    return channel_id if isinstance(channel_id, bytes) and len(channel_id) == _CHALLENGE_OCTETS else None


def _choose(pubkey: str, principal: Principal) -> tuple[str, str]:
    """The key to check with, of a principal's and with regard to the one that the client named.

    :returns: the key, or why there is none.
    """
    keys = principal["authorized_keys"]
    if pubkey:
        return (pubkey, "") if pubkey in keys else ("", "the client's public key is none of the principal's")
    return (keys[0], "") if len(keys) == 1 else ("", "the client names no public key, and the principal has several")


def _hexadecimal(value: Any, size: int) -> str | None:
    """``value`` in lower case; None: it is not ``size`` octets in hexadecimal digits."""
    if not isinstance(value, str) or len(value) != 2 * size or not value.isalnum():
        return None
    try:
        return bytes.fromhex(value).hex()
    except ValueError:
        return None


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _verified(key: bytes, signature: bytes, message: bytes) -> bool:
    if key[:-1] + bytes([key[-1] & 0x7F]) in _SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
