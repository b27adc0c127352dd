"""WAMP-Anonymous: whoever comes is let in (advanced profile, "Authentication")."""

import base64
import secrets
from functools import partial

from proxy.auth.base import Attempt, Decision, Deny, Outcome, failed
from proxy.auth.decoys import then
from proxy.auth.principals import Found, identity
from proxy.auth.sources import Source

__all__ = ["Anonymous", "random_authid"]

_AUTHID_OCTETS = 15  # 120 bits, 24 characters of base32 without padding


def random_authid() -> str:
    """An authid nobody can guess, in the form of a serial number: ``ABCD-EFGH-IJKL-MNOP-QRST-UVWX``."""
    text = base64.b32encode(secrets.token_bytes(_AUTHID_OCTETS)).decode("ascii")
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


class Anonymous:
    """Accepts anybody, or whom an authenticator accepts.

    An authid or authrole that the client announces means nothing: it would be an identity without proof.

    :param source: says which role, and optionally a realm that goes before the one asked for, and an authid.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def hello(self, attempt: Attempt) -> Outcome:
        """See :class:`proxy.auth.base.Method`."""
        authid = random_authid()
        found = self._source.find(attempt, "anonymous", authid, {})
        return then(found, partial(self._judge, attempt, authid))

    def _judge(self, attempt: Attempt, authid: str, found: Found) -> Decision:
        if found is None:
            return failed("anonymous: not wanted")
        if isinstance(found, Deny):
            return found
        source = self._source
        return identity(
            found,
            attempt,
            authid=authid,
            authmethod="anonymous",
            authprovider=source.provider,
            default_role=source.default_role,
        )
