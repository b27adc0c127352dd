"""What an authentication method is given and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Accept", "Attempt", "Deny", "Method", "forwarded_authextra"]


@dataclass(frozen=True, slots=True)
class Accept:
    """The client is who this says.

    :ivar realm: realm to join.
    :ivar authid: authid of the session.
    :ivar authrole: role, which chooses the route.
    :ivar authmethod: method that decided, by the name it has in HELLO.
    :ivar authprovider: where the identity comes from, ``static`` for the configuration.
    :ivar authextra: what the client may tell the router about itself; a dict of its own, free to be changed.
    """

    realm: str
    authid: str
    authrole: str
    authmethod: str
    authprovider: str
    authextra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deny:
    """The client is refused.

    :ivar reason: URI for the ABORT.
    :ivar message: text for people, holds no secret.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A HELLO, as far as it matters to an authentication method.

    :ivar realm: realm that the client asked for, if any.
    :ivar details: HELLO.Details. Not to be changed.
    :ivar transport_details: what is known of the client's connection. Not to be changed.
    """

    realm: str | None
    details: Mapping[str, Any]
    transport_details: Mapping[str, Any]


Method = Callable[[Any, Attempt], Accept | Deny]
"""An authentication method: its configuration item and the attempt in, the decision out."""


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
