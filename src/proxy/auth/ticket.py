"""WAMP-Ticket, static: tickets that stand in the configuration ("Ticket-based Authentication")."""

import hmac
from typing import Any

from proxy.auth.base import Accept, Attempt, Challenge, Deny, failed
from proxy.auth.principals import identity
from proxy.config.auth import TicketStatic

__all__ = ["StaticTicket"]

_NOBODY = "\0"


class StaticTicket:
    """Compares a ticket with that of the principal.

    A client that names nobody who is known is asked for its ticket like any other: the answer tells it nothing.

    :param config: the principals.
    """

    def __init__(self, config: TicketStatic) -> None:
        self._config = config

    def hello(self, attempt: Attempt) -> Challenge:
        """See :class:`proxy.auth.base.Method`."""

        def answer(signature: str, extra: dict[str, Any]) -> Accept | Deny:
            return self._judge(attempt, signature)

        return Challenge("ticket", {}, answer)

    def _judge(self, attempt: Attempt, signature: str) -> Accept | Deny:
        config, authid = self._config, attempt.authid
        principal = config.principals.get(authid) if authid is not None else None
        ticket = principal.ticket if principal is not None else _NOBODY
        # Compared in any case, and in a time that says nothing about how much of it is right.
        is_right = hmac.compare_digest(signature.encode(), ticket.encode())
        if principal is None or not is_right:
            return failed("ticket: no such principal" if principal is None else "ticket: the ticket is wrong")
        return identity(
            principal.model_dump(),
            attempt,
            authid=authid,
            authmethod="ticket",
            authprovider="static",
            default_role=config.default_role,
        )
