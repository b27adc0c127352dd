"""Cookies: who has logged in before, and comes with the cookie of then, is let in ("cookie", as Crossbar.io has it)."""

from copy import deepcopy
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from proxy.auth.base import Accept, Attempt, forwarded_authextra

if TYPE_CHECKING:
    from proxy.cookies import CookieTracker, Record

__all__ = ["Cookie"]


class Cookie:
    """Looks up what login the cookie of a connection stands for.

    :param tracker: the transport's.
    """

    def __init__(self, tracker: "CookieTracker") -> None:
        self._tracker = tracker

    def hello(self, attempt: Attempt) -> "Deferred[Accept | None] | None":
        """Look at a HELLO that names the method.

        :returns: fires with who the client is; None: its cookie says nothing of that, or not in this realm, so that its
            next method has the say.
        """
        if attempt.cookie is None:
            return None
        found = self._tracker.find(attempt.cookie)
        return found.addCallbacks(_accepted, self._tracker.without, callbackArgs=(attempt,))


def _accepted(record: "Record | None", attempt: Attempt) -> Accept | None:
    # Whom a realm was given that they had not asked for ask for the same again.
    if record is None or attempt.realm not in (None, record.asked, record.realm):
        return None
    offered = attempt.details.get("authmethods") or ()
    return Accept(
        realm=record.realm,
        authid=record.authid,
        authrole=record.authrole,
        # As Crossbar.io has it; but a client may take a method that it did not offer for an error.
        authmethod=record.authmethod if record.authmethod in offered else "cookie",
        authprovider="cookie",
        authextra=forwarded_authextra({"authextra": deepcopy(record.authextra)}),
    )
