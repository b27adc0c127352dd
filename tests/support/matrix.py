"""The combinations of the integration matrix, and what a client or router of it cannot do by itself.

An exclusion is not a gap in the proxy: test_exclusions.py runs each of them without the proxy and demands that it
fails there in the way written here, so that the table shrinks as soon as a peer learns something.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support.clients import MIB, SCENARIOS

CLIENTS = ("autobahn-python", "xconn", "autobahn-js")
ROUTERS = ("crossbar", "xconn")
TRANSPORTS = ("ws-tcp", "rs-tcp", "rs-unix")
SERIALIZERS = ("json", "msgpack", "cbor")
SESSION_IDS = ("router", "proxy")
DEFLATES: dict[str, dict[str, Any]] = {
    "default": {"no_context": False, "bits": 0},
    "no-context": {"no_context": True, "bits": 0},
    "bits-9": {"no_context": False, "bits": 9},
}
"""permessage-deflate as clients ask for it, both directions alike; xconn's client knows the default only."""


@dataclass(frozen=True)
class Combination:
    """One cell of the matrix.

    :param back: the only serializer that the proxy speaks to the router; empty: that of the client.
    :param batched: the client speaks the batched subprotocol.
    :param deflate: a name in DEFLATES; empty: no compression.
    :param session_ids: who draws them, as in the configuration.
    """

    client: str
    router: str
    transport: str
    serializer: str
    back: str = ""
    batched: bool = False
    deflate: str = ""
    session_ids: str = "router"

    def __str__(self) -> str:
        parts = [self.client, self.transport, self.serializer + ("_batched" if self.batched else "")]
        parts += [self.deflate] if self.deflate else []
        parts += ["sids"] if self.session_ids == "proxy" else []
        return "-".join([*parts, self.router + (f"_{self.back}" if self.back else "")])

    @property
    def front(self) -> str:
        """Name of the endpoint of the feature proxy that it uses."""
        return front_name(self.router, self.back, self.transport, self.session_ids, bool(self.deflate))


def front_name(router: str, back: str, transport: str, session_ids: str, deflate: bool) -> str:
    """Name of an endpoint of the proxy that has all features."""
    return f"{router}_{back or 'any'}/{transport}/{session_ids}" + ("/deflate" if deflate else "")


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


PAIRS = [(front, back) for front in SERIALIZERS for back in SERIALIZERS if front != back]


def translated() -> Iterator[Combination]:
    """Every client and router with every pair of different serializers.

    Client transport alternates, so that each of them meets each pair, client and router; where the router knows lists
    of session IDs each cell comes with either kind of session IDs, else they alternate, too.
    """
    for number, (client, router, pair) in enumerate(itertools.product(CLIENTS, ROUTERS, PAIRS)):
        front, back = pair
        transport = TRANSPORTS[(number + number // len(PAIRS)) % 3]
        if client == "autobahn-js" and front != "json":
            transport = "ws-tcp"
        for session_ids in SESSION_IDS if router == "crossbar" else SESSION_IDS[number % 2 :][:1]:
            yield Combination(client, router, transport, front, back, session_ids=session_ids)


def renumbered() -> Iterator[Combination]:
    """``session_ids: proxy`` where nothing is translated: every client, router and serializer; transports alternate."""
    for number, (client, router, front) in enumerate(itertools.product(CLIENTS, ROUTERS, SERIALIZERS)):
        transport = TRANSPORTS[(number + number // 3) % 3]
        if client == "autobahn-js" and front != "json":
            transport = "ws-tcp"
        yield Combination(client, router, transport, front, session_ids="proxy")


def batched() -> Iterator[Combination]:
    """Batches of every serializer to every serializer and router; session IDs alternate."""
    for number, (router, front, back) in enumerate(itertools.product(ROUTERS, SERIALIZERS, ("", *SERIALIZERS))):
        if front != back:
            session_ids = SESSION_IDS[(number // 2) % 2]
            yield Combination("autobahn-python", router, "ws-tcp", front, back, batched=True, session_ids=session_ids)


def compressed() -> Iterator[Combination]:
    """Compression as each client can have it, with every serializer; batches, routers and the rest alternate."""
    for number, (client, front, deflate) in enumerate(itertools.product(CLIENTS, SERIALIZERS, DEFLATES)):
        if client == "xconn" and deflate != "default":
            continue
        router, session_ids = ROUTERS[number % 2], SESSION_IDS[(number // 2) % 2]
        back = ("", *SERIALIZERS)[number % 4]
        yield Combination(
            client, router, "ws-tcp", front, "" if back == front else back, deflate=deflate, session_ids=session_ids
        )
        if client == "autobahn-python":
            other = SERIALIZERS[(number + 1) % 3]
            yield Combination(client, "crossbar", "ws-tcp", front, other * (other != front), True, deflate, "proxy")


def other_serializers() -> Iterator[Combination]:
    """UBJSON, which goes to a router that speaks the same: of the peers only autobahn-python and Crossbar.io do."""
    for session_ids in SESSION_IDS:
        yield Combination("autobahn-python", "crossbar", "ws-tcp", "ubjson", session_ids=session_ids)


def feature_combinations() -> list[Combination]:
    """What is run with the features that a plain relay has not."""
    return [*translated(), *renumbered(), *batched(), *compressed(), *other_serializers()]


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
