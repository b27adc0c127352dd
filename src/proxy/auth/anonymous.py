"""WAMP-Anonymous, static: whoever comes gets the configured role (advanced profile, "Authentication")."""

import base64
import secrets

from proxy.auth.base import Accept, Attempt, Deny, forwarded_authextra
from proxy.config import AnonymousStatic

__all__ = ["anonymous", "random_authid"]

_AUTHID_OCTETS = 15  # 120 bits, 24 characters of base32 without padding


def random_authid() -> str:
    """An authid nobody can guess, in the form of a serial number: ``ABCD-EFGH-IJKL-MNOP-QRST-UVWX``."""
    text = base64.b32encode(secrets.token_bytes(_AUTHID_OCTETS)).decode("ascii")
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def anonymous(config: AnonymousStatic, attempt: Attempt) -> Accept | Deny:
    """Accept anybody.

    An authid or authrole that the client announces means nothing: it would be an identity without proof.

    :param config: role, and optionally a realm that goes before the one asked for, and an authid for all.
    :param attempt: the HELLO.
    :returns: the identity; a refusal only where neither side names a realm.
    """
    realm = config.realm or attempt.realm
    if not realm:
        return Deny("wamp.error.no_such_realm", "HELLO names no realm, and none is configured for anonymous clients")
    return Accept(
        realm=realm,
        authid=config.authid or random_authid(),
        authrole=config.role,
        authmethod="anonymous",
        authprovider="static",
        authextra=forwarded_authextra(attempt.details),
    )
