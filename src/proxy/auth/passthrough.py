"""Logins that the router decides: what of HELLO goes to it, and which routers are asked."""

from fnmatch import fnmatchcase

from proxy.auth.base import NO_SUCH_REALM, Attempt, Deny, PassThrough
from proxy.config.auth import PassThroughAuth, PassThroughRule

__all__ = ["Relayed"]


class Relayed:
    """Chooses the routers for a login that is relayed.

    :param config: the ``passthrough`` item.
    """

    def __init__(self, config: PassThroughAuth) -> None:
        self._config = config

    def hello(self, name: str, attempt: Attempt) -> PassThrough | Deny | None:
        """Look at one of the client's authmethods, which the transport does not have itself.

        :returns: which routers to ask; None: it is not relayed.
        """
        config = self._config
        # These make a router believe whatever HELLO says of the client: only the proxy itself may use them.
        if name.endswith("-proxy") or (config.authmethods is not None and name not in config.authmethods):
            return None
        realm = attempt.realm or config.realm
        if not realm:
            return Deny(NO_SUCH_REALM, "HELLO names no realm, and none is configured for logins that are passed on")
        role = next((rule.role for rule in config.rules if _fits(rule, realm, attempt)), config.role)
        return PassThrough(realm, role)


def _fits(rule: PassThroughRule, realm: str, attempt: Attempt) -> bool:
    offered = attempt.details.get("authmethods") or ["anonymous"]
    return (
        (rule.realm is None or fnmatchcase(realm, rule.realm))
        and (rule.authid is None or fnmatchcase(attempt.authid or "", rule.authid))
        and (rule.authmethods is None or any(name in rule.authmethods for name in offered))
    )
