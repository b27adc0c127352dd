"""WAMP-Ticket: a secret that the client shows as it is ("Ticket-based Authentication")."""

import hmac
from functools import partial
from typing import Any

from proxy.auth.base import Attempt, Challenge, Decision, Deny, Outcome, failed
from proxy.auth.decoys import octets_of, refusal, then
from proxy.auth.principals import Found, identity
from proxy.auth.sources import Source

__all__ = ["Ticket"]

_NOBODY = b"\0"


class Ticket:
    """Compares a ticket with that of the principal, or has an authenticator judge it.

    A client that names nobody who is known is asked for its ticket like any other: the answer tells it nothing.

    :param source: the principals. Those of the configuration have a ``ticket``; an authenticator is told the client's.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def hello(self, attempt: Attempt) -> Challenge:
        """See :class:`proxy.auth.base.Method`."""
        return Challenge("ticket", {}, partial(self._answer, attempt))

    def _answer(self, attempt: Attempt, signature: str, extra: dict[str, Any]) -> Outcome:
        found = self._source.find(attempt, "ticket", attempt.authid, {"ticket": signature})
        return then(found, partial(self._judge, attempt, signature))

    def _judge(self, attempt: Attempt, signature: str, found: Found) -> Decision:
        source = self._source
        if source.provider == "static":
            ticket = _NOBODY if found is None or isinstance(found, Deny) else octets_of(found["ticket"])
            # Compared in any case, and in a time that says nothing about how much of it is right.
            is_right = hmac.compare_digest(octets_of(signature), ticket)
        else:
            is_right = True
        if found is None or isinstance(found, Deny):
            return refusal(found, "ticket")
        if not is_right:
            return failed("ticket: the ticket is wrong")
        return identity(
            found,
            attempt,
            authid=attempt.authid,
            authmethod="ticket",
            authprovider=source.provider,
            default_role=source.default_role,
        )
