"""An authenticator that lets everybody in, and takes its time about it; the proxy under test imports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater


def create(config: dict[str, Any], controller: object) -> Callable[..., Deferred[str]]:
    """Make it: the ticket says how many seconds it takes."""

    def authenticate(realm: str, authid: str, details: dict[str, Any]) -> Deferred[str]:
        from twisted.internet import reactor

        role: str = config["role"]
        return deferLater(reactor, float(details["ticket"]), lambda: role)  # type: ignore[arg-type]

    return authenticate
