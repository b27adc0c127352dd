"""Authenticators of the tests: what they answer depends on who it is about, and each call is written down.

Crossbar.io's workers import it, too, for authenticators of type ``function``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autobahn.wamp.serializer  # noqa: F401 - loaded later by the service sessions, and it may say something then
from autobahn.wamp.exception import ApplicationError

from support.principals import PRINCIPALS, ROLE, Principal, by_authid

Authenticator = Callable[[str | None, str | None, dict[str, Any]], Any]

REFUSED = "com.example.error.refused"
OTHER_REALM = "realm2"
ANSWERS: dict[str, Any] = {
    "moved": {"role": ROLE, "realm": OTHER_REALM, "authid": "somebody"},
    "told": {"role": ROLE, "extra": {"team": "blue", "nested": {"n": [1, None]}}},
    "without-role": {},
    "of-unknown-role": {"role": "nobody"},
    "of-unknown-realm": {"role": ROLE, "realm": "nowhere"},
    "text": ROLE,
    "number": 17,
    "nothing": None,
}
"""By authid, what is answered of somebody who has the secret of the method's first principal."""


def create(config: dict[str, Any], controller: Any) -> Authenticator:
    """Make an authenticator.

    :param config: ``record``: path of the file that calls are written to.
    """
    record = Path(config["record"])

    def authenticate(realm: str | None, authid: str | None, details: dict[str, Any]) -> Any:
        call = {"realm": realm, "authid": authid, "details": details, "controller": type(controller).__name__}
        with record.open("a") as file:
            file.write(json.dumps(call, default=repr) + "\n")
        return _answer(authid, details)

    return authenticate


def _answer(authid: str | None, details: dict[str, Any]) -> Any:
    method, told = details["authmethod"], details.get("authextra") or {}
    if method == "anonymous":
        # The authid is the proxy's choice, so the client says who it would like to be.
        return _special(told["name"], {}) if "name" in told else "anonymous"
    principal = by_authid(authid)
    if principal is None or principal.method != method:
        first = next(item for item in PRINCIPALS.values() if item.method == method)
        return _special(authid, _checked(first, details))
    return _checked(principal, details)


def _checked(principal: Principal, details: dict[str, Any]) -> dict[str, Any]:
    if principal.method == "ticket" and details["ticket"] != principal.secret:
        raise ApplicationError("wamp.error.authentication_failed", "that is not the ticket")
    if principal.method == "cryptosign" and (details["authextra"] or {}).get("pubkey") != principal.found["pubkey"]:
        raise ApplicationError("wamp.error.authentication_failed", "that is not the key")
    return principal.found


def _special(name: str | None, found: dict[str, Any]) -> Any:
    if name == "refused":
        raise ApplicationError(REFUSED, "not today")
    if name == "broken":
        raise ValueError("the authenticator does not work")
    if name not in ANSWERS:
        raise ApplicationError("wamp.error.no_such_principal", "nobody has this name")
    answer = ANSWERS[name]
    if not isinstance(answer, dict):
        return answer
    known = {key: value for key, value in found.items() if key != "role"}
    # Each time another dict: Crossbar.io's worker writes into it.
    return copy.deepcopy({**known, **answer})


def calls(record: Path) -> list[dict[str, Any]]:
    """The calls that were written down, the oldest first."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
