"""Who a client is: what the configuration or an authenticator says of a principal, and what a client becomes by it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from proxy.auth.base import AUTHENTICATION_FAILED, NO_SUCH_REALM, Accept, Attempt, Deny, forwarded_authextra

__all__ = ["Found", "Principal", "Unavailable", "checked_principal", "identity"]

Principal: TypeAlias = Mapping[str, Any]
"""A principal under the keys of the configuration (``role``, ``secret``, ``stored-key``, ...). Not to be changed."""


@dataclass(frozen=True, slots=True)
class Unavailable(Deny):
    """Nobody can be asked about the client. That says nothing about who it is, and it is told at once: there is nothing
    to hide behind a challenge."""


Found: TypeAlias = Principal | Deny | None
"""A principal; or None: there is none of this name; or why the client is refused. :class:`Unavailable` is said at once.
Any other Deny is an authenticator's judgement of this client: where the method has a challenge, that comes first, as if
the principal were unknown, and the Deny is the answer to AUTHENTICATE, whatever that says."""

# What a client says in its authextra for the login alone. Passed on, a public key would look like one that it has.
_OF_LOGINS: Final = ("pubkey", "nonce", "challenge", "channel_binding")
_PROVEN: Final = {"cryptosign": "pubkey"}

_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_KEY: Final = re.compile(r"[0-9A-Fa-f]{64}")
_ITERATIONS_MAX: Final = 10_000_000
_KEYLEN_MAX: Final = 1024  # octets
_MEMORY_MAX: Final = 4_194_304  # KiB


def identity(
    principal: Principal,
    attempt: Attempt,
    *,
    authid: str | None,
    authmethod: str,
    authprovider: str,
    default_role: str | None = None,
) -> Accept | Deny:
    """The identity that a principal gives a client.

    :param principal: ``role``; ``realm`` and ``authid``, which go before what the client asked for; ``extra``, a dict
        that goes to the router in place of the client's own authextra. All may be missing.
    :param attempt: the client's HELLO.
    :param authid: who the client has proven to be.
    :param default_role: for a principal without ``role``.
    :returns: the identity; a refusal where no realm, authid or role is known.
    """
    realm = principal.get("realm") or attempt.realm
    authid = principal.get("authid") or authid
    role = principal.get("role") or default_role
    extra = principal.get("extra")
    if not realm:
        return Deny(NO_SUCH_REALM, "HELLO names no realm, and none is configured for the principal")
    if not authid:
        return Deny("wamp.error.no_such_principal", "no authid is known for the principal")
    if not role:
        return Deny("wamp.error.no_such_role", "no role is configured for the principal")
    if not all(type(value) is str for value in (realm, authid, role)) or not isinstance(extra, Mapping | None):
        cause = f"{authmethod}: realm, authid and role of a principal are strings, extra is a dict"
        return Deny(AUTHENTICATION_FAILED, "authentication failed", cause)
    if extra is not None:
        return Accept(realm, authid, role, authmethod, authprovider, forwarded_authextra({"authextra": extra}))
    said = forwarded_authextra(attempt.details)
    for key in _OF_LOGINS:
        if key != _PROVEN.get(authmethod):
            said.pop(key, None)
    return Accept(realm, authid, role, authmethod, authprovider, said)


# --- what authenticators say ---


def checked_principal(authmethod: str, answer: object) -> Principal:
    """What an authenticator said of a principal, in the form that the configuration has for the method.

    :param answer: a role, or a dict with the keys of a static principal; for ``cryptosign`` Crossbar.io's ``pubkey``
        does in place of ``authorized_keys``.
    :returns: a new dict, in which all that the method needs is there and of the right type.
    :raises ValueError: it is something else; the text names the key and what was expected, and no value.
    """
    if isinstance(answer, str):
        answer = {"role": answer}
    if not isinstance(answer, Mapping):
        raise ValueError(f"expected a role or a dict, got {type(answer).__name__}")
    principal = {str(key): value for key, value in answer.items() if value is not None}
    for key in ("role", "realm", "authid"):
        if not isinstance(principal.get(key, ""), str):
            raise ValueError(f"expected a string as {key}, got {type(principal[key]).__name__}")
    if not isinstance(principal.get("extra", {}), Mapping):
        raise ValueError(f"expected a dict as extra, got {type(principal['extra']).__name__}")
    check = _CHECKS.get(authmethod)
    if check is not None:
        check(principal)
    return principal


def _check_wampcra(principal: dict[str, Any]) -> None:
    _text(principal, "secret")
    if not {"salt", "iterations", "keylen"} <= principal.keys():
        # As Crossbar.io has it: a salt without the rest is none.
        for key in ("salt", "iterations", "keylen"):
            principal.pop(key, None)
        return
    _text(principal, "salt")
    _number(principal, "iterations", _ITERATIONS_MAX)
    _number(principal, "keylen", _KEYLEN_MAX)


def _check_scram(principal: dict[str, Any]) -> None:
    if principal.get("kdf") not in ("argon2id-13", "pbkdf2"):
        raise ValueError("expected argon2id-13 or pbkdf2 as kdf")
    _number(principal, "iterations", _ITERATIONS_MAX)
    if principal["kdf"] == "argon2id-13" or "memory" in principal:
        _number(principal, "memory", _MEMORY_MAX)
    _hexadecimal(principal, "salt", _HEX, "pairs of hexadecimal digits")
    for key in ("stored-key", "server-key"):
        _hexadecimal(principal, key, _KEY, "64 hexadecimal digits")


def _check_cryptosign(principal: dict[str, Any]) -> None:
    keys = principal.pop("authorized_keys", None)
    keys = [principal.pop("pubkey", None)] if keys is None else keys
    if not isinstance(keys, list | tuple) or not keys:
        raise ValueError("expected a list of public keys as authorized_keys")
    principal["authorized_keys"] = tuple(_public_key(key) for key in keys)


def _public_key(key: object) -> str:
    digits = key.removeprefix("0x") if isinstance(key, str) else ""
    if not _KEY.fullmatch(digits):
        raise ValueError("expected 64 hexadecimal digits as pubkey")
    return digits.lower()


def _text(principal: dict[str, Any], key: str) -> None:
    if not isinstance(principal.get(key), str) or not principal[key]:
        raise ValueError(f"expected a string as {key}")


def _number(principal: dict[str, Any], key: str, largest: int) -> None:
    if type(principal.get(key)) is not int or not 1 <= principal[key] <= largest:
        raise ValueError(f"expected an integer from 1 to {largest} as {key}")


def _hexadecimal(principal: dict[str, Any], key: str, form: re.Pattern[str], expected: str) -> None:
    if not isinstance(principal.get(key), str) or not form.fullmatch(principal[key]):
        raise ValueError(f"expected {expected} as {key}")
    principal[key] = principal[key].lower()


_CHECKS: Final[Mapping[str, Callable[[dict[str, Any]], None]]] = {
    "wampcra": _check_wampcra,
    "scram": _check_scram,
    "cryptosign": _check_cryptosign,
}
