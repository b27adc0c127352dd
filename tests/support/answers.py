"""The client's side of a login, for tests of the methods alone: no transport, no router."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from proxy.auth import Attempt, Authentication, Challenge
from proxy.config import AuthConfig

FAILED = ("wamp.error.authentication_failed", "authentication failed")


def authentication(**methods: dict[str, Any]) -> Authentication:
    """A transport's authentication, from its configuration items by method."""
    return Authentication(AuthConfig.model_validate(methods))


def attempt_of(
    method: str,
    authid: str | None = "joe",
    *,
    realm: str | None = "realm1",
    authextra: dict[str, Any] | None = None,
    transport: dict[str, Any] | None = None,
    session_id: int = 4711,
) -> Attempt:
    """A HELLO with one method."""
    details: dict[str, Any] = {"authmethods": [method]}
    details |= {"authid": authid} if authid is not None else {}
    details |= {"authextra": authextra} if authextra is not None else {}
    return Attempt(realm, details, transport or {}, session_id)


def challenge_of(auth: Authentication, attempt: Attempt) -> Challenge:
    """The CHALLENGE that a HELLO leads to."""
    outcome = auth.hello(attempt)
    assert isinstance(outcome, Challenge), outcome
    return outcome


def now(outcome: Any) -> Any:
    """A decision that is there, at once or by a Deferred that has fired."""
    if not isinstance(outcome, Deferred):
        return outcome
    results: list[Any] = []
    outcome.addBoth(results.append)
    assert results, "the decision is not there yet"
    return results[0]


class Source:
    """A source that finds what the test says."""

    provider = "dynamic"
    default_role: str | None = None

    def __init__(self, found: Any) -> None:
        self.found = found
        self.asked: list[tuple[Any, ...]] = []

    def find(self, attempt: Attempt, authmethod: str, authid: str | None, more: Any) -> Any:
        """Whatever is asked for."""
        self.asked.append((authmethod, authid, dict(more)))
        return self.found

    def start(self) -> Any:
        """Nothing to do."""

    def close(self) -> None:
        """Likewise."""
