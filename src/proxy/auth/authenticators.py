"""What the authenticators that a configuration names have in common: what they are told, and what their answers mean.

Both are Crossbar.io's, whose authenticators work here unchanged: they are called with the realm that the client asks
for, its authid, and a dict of details, and answer with a role, a dict, or an error.
"""

import inspect
import math
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from autobahn.wamp.exception import ApplicationError
from twisted.internet.defer import Deferred, maybeDeferred

from proxy.auth.base import UNAVAILABLE, Attempt, Deny, failed
from proxy.auth.principals import Found, Unavailable, checked_principal
from proxy.messages import is_uri

__all__ = ["AT_WORK_MAX", "asked", "denied", "details_for", "is_plain", "judged", "unavailable"]

AT_WORK_MAX: Final = 1000
"""Calls of one authenticator that are under way at a time. Further clients wait for their turn."""

_NESTING_MAX: Final = 64

_MESSAGE_MAX: Final = 1000  # characters of what an authenticator has to say to a client

# Those that are also told who the client says it is.
_NAMED: Final = frozenset({"wampcra", "cryptosign"})

# These come from a library or a router in between, and their text may be about the inside of either: a client has no
# business with it.
_TECHNICAL: Final = frozenset({"wamp.error.runtime_error", "wamp.error.invalid_argument", "wamp.error.invalid_uri"})


def details_for(attempt: Attempt, authmethod: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """What an authenticator is told of a HELLO besides realm and authid: the keys that Crossbar.io's are told.

    :param more: goes in, too: ``ticket``.
    :returns: a new dict; what is in it is the attempt's.
    """
    transport = dict(attempt.transport_details)
    # Older authenticators look for the client's certificate here.
    transport["client_cert"] = transport.get("peer_cert")
    details: dict[str, Any] = {
        "transport": transport,
        "session": attempt.session_id,
        "authmethod": authmethod,
        "authextra": attempt.details.get("authextra"),
    }
    if authmethod in _NAMED:
        details |= {"authid": attempt.authid, "authrole": attempt.details.get("authrole")}
    return {**details, **more}


def is_plain(value: object, depth: int = _NESTING_MAX) -> bool:
    """Whether every serializer can express what a client said, and every peer read it.

    All logins share the session to an authenticator. A tag that no decoder accepts, or nesting that is too deep for
    one, would have the router, or the authenticator, end that session for all of them.
    """
    if isinstance(value, str):
        return not value.startswith("\0")  # in JSON that is binary data
    if value is None or isinstance(value, bool | bytes):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, float):
        return math.isfinite(value)
    if depth == 0:
        return False
    if type(value) is dict:
        return all(isinstance(key, str) and is_plain(item, depth - 1) for key, item in value.items())
    return type(value) is list and all(is_plain(item, depth - 1) for item in value)


def judged(authmethod: str, answer: object, label: str) -> Found:
    """What an authenticator's answer means.

    :param label: the authenticator, for the log.
    """
    if answer is None:
        return None
    try:
        return checked_principal(authmethod, answer)
    except ValueError as error:
        return failed(f"{label} gave no principal: {error}")


def denied(error: ApplicationError, label: str) -> Deny:
    """What an authenticator's error means: the client is told its URI, and its first argument as the message."""
    uri = error.error
    if not is_uri(uri) or uri in _TECHNICAL:
        return failed(f"{label} failed: {uri if is_uri(uri) else 'its error has no URI'}")
    message = str(error.args[0])[:_MESSAGE_MAX] if error.args else "authentication failed"
    # It may quote what the client said, and has to fit into an ABORT in any serializer.
    return Deny(uri, message.encode(errors="replace").decode(), f"denied by {label}")


def unavailable(cause: str) -> Unavailable:
    """The authenticator cannot be asked: the client is told that, and not why.

    :param cause: for the log; holds no secret.
    """
    return Unavailable(UNAVAILABLE, "authentication is not available at the moment", cause)


def asked(function: Any, *arguments: object) -> "Deferred[Any]":
    """Call something that may return at once, or return a Deferred or a coroutine. Never raises."""

    def call() -> Any:
        result = function(*arguments)
        if inspect.isawaitable(result) and not isinstance(result, Deferred):
            return Deferred.fromCoroutine(_awaited(result))
        return result

    return maybeDeferred(call)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
