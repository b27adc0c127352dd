"""WAMP-Anonymous, static: whoever comes gets the configured role (advanced profile, "Authentication")."""

import base64
import secrets

from proxy.auth.base import NO_SUCH_REALM, Accept, Attempt, Deny, forwarded_authextra
from proxy.config import AnonymousStatic

__all__ = ["StaticAnonymous", "random_authid"]

_AUTHID_OCTETS = 15  # 120 bits, 24 characters of base32 without padding


def random_authid() -> str:
    """An authid nobody can guess, in the form of a serial number: ``ABCD-EFGH-IJKL-MNOP-QRST-UVWX``."""
    text = base64.b32encode(secrets.token_bytes(_AUTHID_OCTETS)).decode("ascii")
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


class StaticAnonymous:
    """Accepts anybody.

    An authid or authrole that the client announces means nothing: it would be an identity without proof.

    :param config: role, and optionally a realm that goes before the one asked for, and an authid for all.
    """

    def __init__(self, config: AnonymousStatic) -> None:
        self._config = config

    def hello(self, attempt: Attempt) -> Accept | Deny:
        """See :class:`proxy.auth.base.Method`.

        :returns: the identity; a refusal only where neither side names a realm.
        """
        config = self._config
        realm = config.realm or attempt.realm
        if not realm:
            return Deny(NO_SUCH_REALM, "HELLO names no realm, and none is configured for anonymous clients")
        return Accept(
            realm=realm,
            authid=config.authid or random_authid(),
            authrole=config.role,
            authmethod="anonymous",
            authprovider="static",
            authextra=forwarded_authextra(attempt.details),
        )
