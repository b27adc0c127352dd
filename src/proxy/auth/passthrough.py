"""Logins that the router decides: what of HELLO goes to it, and which routers are asked."""

from collections.abc import Container
from fnmatch import fnmatchcase

from proxy.auth.base import AUTHENTICATION_FAILED, NO_SUCH_REALM, Attempt, Deny, PassThrough
from proxy.config.auth import PassThroughAuth, PassThroughRule, is_relayable

__all__ = ["Relayed"]


class Relayed:
    """Chooses the routers for a login that is relayed.

    :param config: the ``passthrough`` item.
    :param local: authmethods that the transport decides itself, and no router does.
    """

    def __init__(self, config: PassThroughAuth, local: Container[str]) -> None:
        self._config = config
        self._local = local

    def hello(self, name: str, attempt: Attempt) -> PassThrough | Deny | None:
        """Look at one of the client's authmethods, which the transport does not have itself.

        The router is told of all that it may choose from, and of no others: what this transport decides itself, or
        leaves to nobody, must not be had by way of the router.

        :returns: which routers to ask; None: it is not relayed.
        """
        if not self._is_left_to_router(name):
            return None
        config = self._config
        realm = attempt.realm or config.realm
        if not realm:
            return Deny(NO_SUCH_REALM, "HELLO names no realm, and none is configured for logins that are passed on")
        if attempt.authextra.get("channel_binding") is not None:
            # The router would bind the proof to its own connection, which is the proxy's.
            return Deny(AUTHENTICATION_FAILED, "no channel binding is possible here: logins are passed on to a router")
        offered = dict.fromkeys(attempt.details.get("authmethods") or ("anonymous",))
        methods = tuple(method for method in offered if self._is_left_to_router(method))
        role = next((rule.role for rule in config.rules if _fits(rule, realm, attempt, methods)), config.role)
        return PassThrough(realm, role, methods)

    def _is_left_to_router(self, name: str) -> bool:
        if name in self._local or not is_relayable(name):
            return False
        return self._config.authmethods is None or name in self._config.authmethods


def _fits(rule: PassThroughRule, realm: str, attempt: Attempt, methods: tuple[str, ...]) -> bool:
    return (
        (rule.realm is None or fnmatchcase(realm, rule.realm))
        and (rule.authid is None or (attempt.authid is not None and fnmatchcase(attempt.authid, rule.authid)))
        and (rule.authmethods is None or any(name in rule.authmethods for name in methods))
    )
