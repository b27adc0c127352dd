"""Where authentication methods learn of their principals: from the configuration, a procedure, or a function."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from pydantic import BaseModel
from twisted.internet.defer import Deferred

from proxy.auth.base import Attempt, Deny

__all__ = ["Found", "Principal", "Source", "StaticSource"]

Principal: TypeAlias = Mapping[str, Any]
"""A principal under the keys of the configuration (``role``, ``ticket``, ``stored-key``, ...). Not to be changed."""

Found: TypeAlias = Principal | Deny | None
"""A principal; what the client is refused with; None: there is no such principal."""


class Source(Protocol):
    """Knows the principals of one method of one transport.

    :ivar provider: authprovider of the sessions: ``static``, ``dynamic``, ``function``.
    :ivar default_role: for principals without a role.
    """

    provider: str
    default_role: str | None

    def find(
        self, attempt: Attempt, authmethod: str, authid: str | None, more: Mapping[str, Any]
    ) -> "Found | Deferred[Found]":
        """Look for a principal.

        :param attempt: the HELLO.
        :param authmethod: what asks.
        :param authid: who it is about.
        :param more: what an authenticator is to know besides, such as ``ticket``.
        """


class StaticSource:
    """Principals that stand in the configuration.

    :param principals: by authid.
    :param default_role: the method's ``default-role``.
    """

    provider = "static"

    def __init__(self, principals: Mapping[str, BaseModel], default_role: str | None) -> None:
        self.default_role = default_role
        self.principals: dict[str, Principal] = {
            authid: item.model_dump(by_alias=True, exclude_none=True) for authid, item in principals.items()
        }

    def find(self, attempt: Attempt, authmethod: str, authid: str | None, more: Mapping[str, Any]) -> Found:
        """See :class:`Source`."""
        return self.principals.get(authid) if authid is not None else None
