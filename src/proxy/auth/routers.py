"""How the proxy logs in at a router for its clients: what all ways have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from twisted.internet.defer import Deferred

from proxy.auth.base import Accept, Challenge
from proxy.messages import Welcome

if TYPE_CHECKING:
    from typing import Protocol

    class Session(Protocol):
        """The client's session."""

        def challenge(self, challenge: Challenge) -> None: ...


__all__ = ["Answer", "Client", "LoginError", "RouterLogin"]

Answer: TypeAlias = tuple[str, dict[str, Any]]
"""Signature and Extra of AUTHENTICATE."""


class LoginError(Exception):
    """The proxy cannot log in: it has no account, no answer to a CHALLENGE, or no reason to trust the router.

    The text holds no secret.
    """


# ABORTs that are about who the proxy is, or how it tried to prove that. Those of Crossbar.io and of the specification.
_NOT_US: Final = frozenset(
    f"wamp.error.{name}"
    for name in (
        "authentication_denied",
        "authentication_failed",
        "authentication_required",
        "cannot_authenticate",
        "no_such_principal",
        "not_authorized",
    )
)
_NO_METHOD: Final = frozenset({"wamp.error.no_auth_method", "wamp.error.no_matching_auth_method"})


@dataclass(frozen=True, slots=True)
class Client:
    """The client that a router is joined for.

    :ivar session: its session, for what only the client can answer.
    :ivar details: its HELLO.Details.
    :ivar accept: who it is; where the router is to decide that, realm and role of the route, and nothing else.
    :ivar transport: its transport details, as autobahn marshals them.
    :ivar identity: the proxy's own authid, and the hex of its public key or None.
    :ivar to_back: the router's ID of a session that the client names.
    """

    session: "Session"
    details: dict[str, Any]
    accept: Accept
    transport: dict[str, Any]
    identity: tuple[str, str | None]
    to_back: Callable[[int], int]


class RouterLogin:
    """One client's login at one connection: maybe several attempts, one after the other.

    :param client: for whom.

    :ivar is_committed: no other router can take its place: the client has been asked what only this one can judge.
    """

    RELAYS: ClassVar[bool] = False
    """Whether the router decides who the client is."""
    PROVES: ClassVar[bool] = False
    """Whether the router has something of the proxy's own to check: a secret or a key."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.is_committed = False

    def refuses_proxy(self, reason: str) -> bool:
        """Whether a router that answers with this ABORT does not take the proxy, whoever its client is."""
        return not self.RELAYS and (reason in _NO_METHOD or (self.PROVES and reason in _NOT_US))

    def hello(self) -> list[Any]:
        """The HELLO message.

        :raises LoginError: the proxy has no account there for this client.
        """
        raise NotImplementedError

    def challenge(self, authmethod: str, extra: dict[str, Any]) -> "Answer | Deferred[Answer]":
        """Answer a CHALLENGE of the router.

        :returns: the answer, now or later; a Deferred may be cancelled.
        :raises LoginError: there is none; the Deferred fails with it likewise.
        """
        raise LoginError("the router asked the proxy to authenticate")

    def verify(self, welcome: Welcome) -> None:
        """WELCOME came: is the router the one that it should be?

        :raises LoginError: it has not proven that.
        """

    def welcome(self, welcome: Welcome, front_sid: int) -> dict[str, Any]:
        """WELCOME.Details for the client.

        :param welcome: the router's; its details may be changed.
        :param front_sid: the session ID that the client is told.
        """
        raise NotImplementedError
