"""What an authentication method is given and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from twisted.internet.defer import Deferred

__all__ = [
    "AUTHENTICATION_FAILED",
    "NO_SUCH_REALM",
    "UNAVAILABLE",
    "Accept",
    "Attempt",
    "Challenge",
    "Decision",
    "Deny",
    "Method",
    "Outcome",
    "PassThrough",
    "failed",
    "forwarded_authextra",
]

AUTHENTICATION_FAILED: Final = "wamp.error.authentication_failed"
NO_SUCH_REALM: Final = "wamp.error.no_such_realm"
UNAVAILABLE: Final = "wamp.error.unavailable"

# All that a client learns of a login that failed: what was wrong would help whoever guesses.
_FAILED_TEXT: Final = "authentication failed"


@dataclass(frozen=True, slots=True)
class Accept:
    """The client is who this says.

    :ivar realm: realm to join.
    :ivar authid: authid of the session.
    :ivar authrole: role, which chooses the route.
    :ivar authmethod: method that decided, by the name it has in HELLO.
    :ivar authprovider: where the identity comes from: ``static`` for the configuration, ``dynamic``, ``function``.
    :ivar authextra: what the client may tell the router about itself; a dict of its own, free to be changed.
    :ivar welcome_extra: what the client is told in WELCOME.Details.authextra; the router is not.
    """

    realm: str
    authid: str
    authrole: str
    authmethod: str
    authprovider: str
    authextra: dict[str, Any] = field(default_factory=dict)
    welcome_extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deny:
    """The client is refused.

    :ivar reason: URI for the ABORT.
    :ivar message: text for the client, holds no secret.
    :ivar cause: text for the log, holds no secret; empty: ``message`` says it all.
    """

    reason: str
    message: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """The client is to prove who it is ("CHALLENGE").

    :ivar authmethod: as it is named in the message.
    :ivar extra: ``Extra`` of the message.
    :ivar answer: takes Signature and Extra of AUTHENTICATE, once; None: somebody else goes on with the login.
    """

    authmethod: str
    extra: dict[str, Any]
    answer: "Callable[[str, dict[str, Any]], Outcome | None]"


@dataclass(frozen=True, slots=True)
class PassThrough:
    """A router is to decide: the login is relayed to it.

    :ivar realm: realm of the routes.
    :ivar role: role that stands in the routes for the routers to ask; it says nothing of the client.
    :ivar authmethods: those of the client's that are the router's to choose from, in the client's order; at least one.
    """

    realm: str
    role: str
    authmethods: tuple[str, ...]


Decision: TypeAlias = Accept | Deny | Challenge | PassThrough
Outcome: TypeAlias = Decision | Deferred[Decision]
"""A decision, now or later. A Deferred may be cancelled: the client is gone, or the time is up."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A HELLO, as far as it matters to an authentication method.

    :ivar realm: realm that the client asked for, if any.
    :ivar details: HELLO.Details. Not to be changed.
    :ivar transport_details: what is known of the client's connection. Not to be changed.
    :ivar session_id: the ID that CHALLENGE names. It is the session's where the proxy draws the IDs.
    :ivar cookie: key of the cookie that the connection came with or was given (:mod:`proxy.cookies`); None: none.
    """

    realm: str | None
    details: Mapping[str, Any]
    transport_details: Mapping[str, Any]
    session_id: int = 0
    cookie: str | None = None

    @property
    def authid(self) -> str | None:
        """Who the client says it is."""
        authid: str | None = self.details.get("authid")
        return authid

    @property
    def authextra(self) -> Mapping[str, Any]:
        """What it says besides."""
        authextra = self.details.get("authextra")
        return authextra if isinstance(authextra, Mapping) else {}


class Method(Protocol):
    """An authentication method of one transport, made from its configuration item."""

    def hello(self, attempt: Attempt) -> Outcome | None:
        """Look at a HELLO that names the method.

        :returns: the decision; None: it cannot be used for this client, whose next method has the say.
        """


def failed(cause: str, reason: str = AUTHENTICATION_FAILED) -> Deny:
    """A login that failed: the client is told that, and not why.

    :param cause: for the log; holds no secret.
    :param reason: URI for the client.
    """
    return Deny(reason, _FAILED_TEXT, cause)


def forwarded_authextra(details: Mapping[str, Any]) -> dict[str, Any]:
    """The client's HELLO.Details.authextra as a new dict, without the keys that only the proxy may set.

    A client could otherwise pass off ``proxy_authrole`` or ``transport`` of its own making as the proxy's word.
    """
    authextra = details.get("authextra")
    if not isinstance(authextra, Mapping):
        return {}
    return {
        key: value
        for key, value in authextra.items()
        if isinstance(key, str) and key != "transport" and not key.startswith(("proxy_", "x_cb_"))
    }
