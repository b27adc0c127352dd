"""The combinations of the integration matrix, and what a client or router of it cannot do by itself.

An exclusion is not a gap in the proxy: test_exclusions.py runs each of them without the proxy and demands that it
fails there in the way written here, so that the table shrinks as soon as a peer learns something.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from support.clients import MIB, SCENARIOS

CLIENTS = ("autobahn-python", "xconn", "autobahn-js")
ROUTERS = ("crossbar", "xconn")
TRANSPORTS = ("ws-tcp", "rs-tcp", "rs-unix")
SERIALIZERS = ("json", "msgpack", "cbor")


@dataclass(frozen=True)
class Combination:
    """One cell of the matrix."""

    client: str
    router: str
    transport: str
    serializer: str

    def __str__(self) -> str:
        return f"{self.client}-{self.transport}-{self.serializer}-{self.router}"


@dataclass(frozen=True)
class Exclusion:
    """A scenario that a client or router cannot do.

    :param scenario: its name.
    :param reason: whose limit it is.
    :param error: what the error text of the direct run holds; empty when it ends with a wrong observation.
    :param observed: part of the wrong observation.
    :param client: only this client; None: any.
    :param router: only this router; None: any.
    """

    scenario: str
    reason: str
    error: str = ""
    observed: Any = None
    client: str | None = None
    router: str | None = None

    def covers(self, combination: Combination) -> bool:
        """Whether it applies to a combination."""
        return self.client in (None, combination.client) and self.router in (None, combination.router)


EVERYTHING = ["all-but-one", "only", "end"]
EXCLUSIONS = (
    Exclusion(
        "exclude_eligible",
        "xconn's broker has no subscriber lists: every subscriber gets every event",
        observed={"excluded": EVERYTHING, "chosen": EVERYTHING, "other": EVERYTHING},
        router="xconn",
    ),
    Exclusion(
        "shared",
        "xconn's dealer has no shared registrations",
        error="wamp.error.procedure_already_exists",
        router="xconn",
    ),
    Exclusion(
        "cancel",
        "xconn's dealer drops CANCEL",
        error="TimeoutError",
        client="autobahn-python",
        router="xconn",
    ),
    Exclusion("cancel", "xconn's client cannot send CANCEL", error="the client has no call cancelling", client="xconn"),
    Exclusion(
        "cancel",
        "autobahn-js announces no call_canceling as a callee, so that Crossbar.io sends neither INTERRUPT nor ERROR "
        "(and xconn's dealer drops CANCEL)",
        error="not within 1500 ms",
        client="autobahn-js",
    ),
    Exclusion(
        "progressive",
        "xconn's client takes the first result for the last",
        error="the client has no progressive results",
        client="xconn",
    ),
    Exclusion(
        "error_kwargs",
        "xconn's callee does not send the keyword arguments of an error",
        observed={"uri": "com.example.error.failed", "kwargs": {}},
        client="xconn",
    ),
)

XCONN_PAYLOAD = 1_000_000
"""xconn's client takes messages of up to 1 MiB including everything around the payload: it gets a little less."""

JSON_ONLY = "autobahn-js speaks JSON only over RawSocket"


def is_possible(combination: Combination) -> bool:
    """Whether the client can connect in this way at all."""
    return combination.client != "autobahn-js" or combination.transport == "ws-tcp" or combination.serializer == "json"


def combinations() -> list[Combination]:
    """All that are possible."""
    cells = [Combination(c, r, t, s) for c in CLIENTS for r in ROUTERS for t in TRANSPORTS for s in SERIALIZERS]
    return [cell for cell in cells if is_possible(cell)]


def scenarios_of(combination: Combination) -> dict[str, dict[str, Any]]:
    """The scenarios that client and router of a combination can do."""
    excluded = {item.scenario for item in EXCLUSIONS if item.covers(combination)}
    chosen = {name: copy.deepcopy(keys) for name, keys in SCENARIOS.items() if name not in excluded}
    if combination.client == "xconn":
        assert chosen["payload"]["octets"] == MIB
        chosen["payload"]["octets"] = XCONN_PAYLOAD
    return chosen


def wrong(results: dict[str, dict[str, Any]], expected: dict[str, Any]) -> list[str]:
    """What is not as expected, one line or trace per scenario."""
    problems = []
    for name, result in results.items():
        if "error" in result:
            problems.append(f"{name}: {result['error']}")
        elif result["observed"] != expected[name]:
            problems.append(f"{name}: expected {expected[name]!r}, observed {result['observed']!r}")
    return problems
