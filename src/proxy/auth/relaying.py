"""A login that the router decides, on the router's side: the client's own HELLO and its answer to CHALLENGE."""

from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from proxy.auth.base import Challenge
from proxy.auth.routers import Answer, RouterLogin
from proxy.forwarding import relayed_hello, relayed_welcome
from proxy.messages import Welcome

__all__ = ["RelayedLogin"]


class RelayedLogin(RouterLogin):
    """See :class:`RouterLogin`.

    Session ID, CHALLENGE and WELCOME are the router's, to the last attribute: what it signed stays what it signed.
    """

    RELAYS: ClassVar[bool] = True

    def hello(self) -> list[Any]:
        """See :class:`RouterLogin`."""
        return relayed_hello(self.client)

    def challenge(self, authmethod: str, extra: dict[str, Any]) -> "Answer | Deferred[Answer]":
        """Have the client answer.

        From now on it is this router or none: another one would ask something else, and the answer to the first
        question may be on its way already.
        """
        self.is_committed = True
        answered: Deferred[Answer] = Deferred()

        def answer(signature: str, extra: dict[str, Any]) -> None:
            answered.callback((signature, extra))

        self.client.session.challenge(Challenge(authmethod, extra, answer))
        return answered

    def welcome(self, welcome: Welcome, front_sid: int) -> dict[str, Any]:
        """See :class:`RouterLogin`."""
        return relayed_welcome(welcome, self.client.accept)
