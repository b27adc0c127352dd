"""Who a client is once a method has let it in: what the configuration or an authenticator says of a principal."""

from collections.abc import Mapping
from typing import Any

from proxy.auth.base import AUTHENTICATION_FAILED, NO_SUCH_REALM, Accept, Attempt, Deny, forwarded_authextra

__all__ = ["identity"]


def identity(
    principal: Mapping[str, Any],
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
    told = dict(attempt.details) if extra is None else {"authextra": extra}
    return Accept(realm, authid, role, authmethod, authprovider, forwarded_authextra(told))
