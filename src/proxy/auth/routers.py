"""How the proxy logs in at a router for its clients: what all ways have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

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
    """The router's CHALLENGE cannot be answered. The text holds no secret."""


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
    """

    RELAYS: ClassVar[bool] = False
    """Whether the router decides who the client is."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def hello(self) -> list[Any]:
        """The HELLO message."""
        raise NotImplementedError

    def challenge(self, authmethod: str, extra: dict[str, Any]) -> "Answer | Deferred[Answer]":
        """Answer a CHALLENGE of the router.

        :returns: the answer, now or later; a Deferred may be cancelled.
        :raises LoginError: there is none; the Deferred fails with it likewise.
        """
        raise LoginError("the router asked the proxy to authenticate")

    def welcome(self, welcome: Welcome, front_sid: int) -> dict[str, Any]:
        """WELCOME.Details for the client.

        :param welcome: the router's; its details may be changed.
        :param front_sid: the session ID that the client is told.
        :raises LoginError: the router has not proven who it is.
        """
        raise NotImplementedError
