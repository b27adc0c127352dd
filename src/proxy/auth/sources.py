"""Where authentication methods learn of their principals: from the configuration, a procedure, or a function.

Each method is written once, over a source. How a source answers is told with :data:`proxy.auth.principals.Found`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel
from twisted.internet.defer import Deferred, succeed

from proxy.auth.base import Attempt
from proxy.auth.dynamic import DynamicSource
from proxy.auth.function import FunctionSource
from proxy.auth.principals import Found, Principal, Unavailable
from proxy.config.auth import AnonymousStatic, Dynamic, Function, WampCraStatic

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["EverybodySource", "Found", "Principal", "Source", "StaticSource", "Unavailable", "make_source"]


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
        :param more: what an authenticator is to know besides, such as ``ticket``. All else that it is told is made of
            the attempt.
        :returns: a Deferred fails only where something is wrong in here, and when it is cancelled, which gives up the
            search.
        """

    def start(self) -> "Deferred[None]":
        """Make ready what takes its time. Before that, :meth:`find` is not to be called.

        :returns: fails with a :class:`proxy.errors.ProxyError` where something cannot be had. May be cancelled.
        """

    def close(self) -> None:
        """Let go of what it holds. Idempotent."""


class _Ready:
    """What needs no start, and holds nothing."""

    provider = "static"
    default_role: str | None = None

    def start(self) -> "Deferred[None]":
        """See :class:`Source`."""
        return succeed(None)

    def close(self) -> None:
        """See :class:`Source`."""


class StaticSource(_Ready):
    """Principals that stand in the configuration.

    :param principals: by authid.
    :param default_role: the method's ``default-role``.
    """

    def __init__(self, principals: Mapping[str, BaseModel], default_role: str | None) -> None:
        self.default_role = default_role
        self.principals: dict[str, Principal] = {
            authid: item.model_dump(by_alias=True, exclude_none=True) for authid, item in principals.items()
        }

    def find(self, attempt: Attempt, authmethod: str, authid: str | None, more: Mapping[str, Any]) -> Found:
        """See :class:`Source`."""
        return self.principals.get(authid) if authid is not None else None


class EverybodySource(_Ready):
    """One principal, whoever asks: ``anonymous``.

    :param item: role, and optionally a realm and an authid for all.
    """

    def __init__(self, item: AnonymousStatic) -> None:
        self.principal: Principal = item.model_dump(exclude_none=True, exclude={"type"})

    def find(self, attempt: Attempt, authmethod: str, authid: str | None, more: Mapping[str, Any]) -> Found:
        """See :class:`Source`."""
        return self.principal


def make_source(item: Any, controller: "ProxyController | None") -> Source:
    """The source for one item of a transport's ``auth``.

    :param item: the model; any but ``cookie`` and ``passthrough``, which have no principals.
    :param controller: the worker's; None will do where all is in the configuration.
    """
    if isinstance(item, Dynamic | Function):
        assert controller is not None, "authenticators need a worker"
        return DynamicSource(item, controller) if isinstance(item, Dynamic) else FunctionSource(item, controller)
    if isinstance(item, AnonymousStatic):
        return EverybodySource(item)
    return StaticSource(item.users if isinstance(item, WampCraStatic) else item.principals, item.default_role)
