"""What is measured: the work that goes through all peers, and what single features cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Way:
    """One row of a feature's table: through which peer the work goes, and what its clients do otherwise."""

    name: str
    label: str
    peer: str
    load: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """One kind of work.

    :ivar kind: "calls", "logins", "handshakes", "idle", "storm", or "feature" for those that compare ways.
    :ivar load: options of the load generator, for all ways.
    :ivar seconds: measured time of one figure.
    :ivar ways: none: every peer of the side-by-side tables is one.
    :ivar base: the way that the others are compared to; none: the first.
    :ivar door: to which of a peer's ports the work goes; none: the one that is always there.
    :ivar unit: what is counted.
    """

    name: str
    text: str
    kind: str
    load: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 3.0
    ways: tuple[Way, ...] = ()
    unit: str = "call"
    base: str = ""
    door: str = ""

    @property
    def mode(self) -> str:
        """What the load generator does."""
        return str(self.load.get("mode", "calls" if self.kind == "feature" else self.kind))


@dataclass(frozen=True)
class Cost:
    """One row of "What each feature costs": CPU of one way by that of another, within each round.

    :ivar limit: the ratio to reach, at most. None: only told.
    :ivar concerned: share of the messages that the feature concerns. The limit holds for the cost of those: the whole
        difference is counted as theirs, against what such a share of all messages costs without the feature.
    """

    feature: str
    work: str
    scenario: str
    way: str
    base: str
    limit: float | None = None
    concerned: float = 1.0


STANDARD = (
    Scenario(
        "calls-10x16", "10 sessions, 16 calls in flight each, 64 octets", "calls", {"sessions": 10, "inflight": 16}
    ),
    Scenario(
        "calls-200x1", "200 sessions, 1 call in flight each, 64 octets", "calls", {"sessions": 200, "inflight": 1}
    ),
    Scenario("calls-1x1", "1 session, 1 call in flight, 64 octets", "calls", {"sessions": 1, "inflight": 1}),
    Scenario(
        "calls-64k",
        "10 sessions, 1 call in flight each, 64 KiB",
        "calls",
        {"sessions": 10, "inflight": 1, "payload": 65536},
    ),
    Scenario("logins", "8 at a time: connect, handshakes, HELLO, WELCOME, GOODBYE, close", "logins", {"sessions": 8}),
    Scenario("idle", "2,000 joined sessions that do nothing", "idle", {"sessions": 2000}),
)

# --- logins --------------------------------------------------------------------------------------------------------

#: Those that authenticate clients. All know the same users and tell a router behind a Unix socket who it is.
AUTHENTICATING = (
    Way("ours-asserting", "wamp-proxy", "ours-asserting"),
    Way("ours", "wamp-proxy, anonymous over TCP", "ours"),
    Way("crossbar", "Crossbar.io proxy", "crossbar"),
)
METHODS = ("anonymous", "ticket", "wampcra", "cryptosign")
LOGINS = tuple(
    Scenario(
        f"logins-{method}",
        f"8 at a time, by {method}",
        "logins",
        {"mode": "logins", "sessions": 8, "auth": method},
        ways=AUTHENTICATING,
        unit="login",
    )
    for method in METHODS
)
STORM = (
    Scenario(
        "storm",
        "clients connect at once and log in by ticket; then all are cut off and come back at once",
        "storm",
        {"sessions": 10_000, "auth": "ticket"},
        ways=AUTHENTICATING,
        unit="login",
    ),
)

# --- TLS -----------------------------------------------------------------------------------------------------------

OURS_TLS = Way("ours-tls", "wamp-proxy, TLS", "ours-tls")
HAPROXY_TLS = Way("haproxy-tls", "HAProxy, TLS", "haproxy-tls")
NGINX_TLS = Way("nginx-tls", "nginx, TLS", "nginx-tls")
CROSSBAR_TLS = Way("crossbar-tls", "Crossbar.io proxy, TLS", "crossbar-tls")
WITH_TLS = (
    OURS_TLS,
    HAPROXY_TLS,
    Way("ours-tls-unix", "wamp-proxy, TLS, Unix", "ours-tls-unix"),
    Way("haproxy-tls-unix", "HAProxy, TLS, Unix", "haproxy-tls-unix"),
    NGINX_TLS,
)


def with_tls(name: str, text: str, kind: str, ways: Iterable[Way], **load: Any) -> Scenario:
    """A scenario whose clients come with TLS."""
    return Scenario(f"tls-{name}", text, kind, load, seconds=1.5, ways=tuple(ways), base=HAPROXY_TLS.name)


def handshakes(name: str, text: str, ways: Iterable[Way], door: str, which: str) -> Scenario:
    """Nothing but TLS handshakes."""
    load = {"mode": "handshakes", "sessions": 8, "tls_handshakes": which}
    return replace(with_tls(f"handshakes-{name}", text, "handshakes", ways, **load), door=door, unit="handshake")


RESUMING = (OURS_TLS, HAPROXY_TLS, NGINX_TLS)  # Crossbar.io's proxy resumes no session
TLS = (
    with_tls(
        "calls-10x16",
        "10 sessions, 16 calls in flight each, 64 octets, over TLS",
        "calls",
        (*WITH_TLS, CROSSBAR_TLS),
        sessions=10,
        inflight=16,
    ),
    with_tls(
        "calls-200x1",
        "200 sessions, 1 call in flight each, 64 octets, over TLS",
        "calls",
        WITH_TLS,
        sessions=200,
        inflight=1,
    ),
    with_tls(
        "calls-64k",
        "10 sessions, 1 call in flight each, 64 KiB, over TLS",
        "calls",
        WITH_TLS,
        sessions=10,
        inflight=1,
        payload=65536,
    ),
    handshakes("ecdsa", "8 at a time, full, ECDSA P-256", (*RESUMING, CROSSBAR_TLS), "", "full"),
    handshakes("ecdsa-resumed", "8 at a time, resumed, ECDSA P-256", RESUMING, "", "resumed"),
    handshakes("rsa", "8 at a time, full, RSA-2048", RESUMING, "rsa", "full"),
    handshakes("rsa-resumed", "8 at a time, resumed, RSA-2048", RESUMING, "rsa", "resumed"),
    with_tls("idle", "2,000 joined sessions that do nothing, over TLS", "idle", RESUMING, sessions=2000),
)

#: The same for all features: ten sessions (or subscribers, callees) with 16 in flight.
BUSY = {"sessions": 10, "inflight": 16}


def feature(name: str, text: str, ways: Iterable[Way], unit: str = "call", **load: Any) -> Scenario:
    """A scenario that compares ways."""
    return Scenario(name, text, "feature", {**BUSY, **load}, seconds=1.5, ways=tuple(ways), unit=unit)


# --- session IDs ---------------------------------------------------------------------------------------------------

PLAIN = Way("plain", "wamp-proxy, plain relay", "ours")
ROUTER_IDS = Way("router", 'session_ids "router", empty map', "ours-ids-router")
PROXY_IDS = Way("proxy", 'session_ids "proxy"', "ours-ids-proxy")
AGAIN = Way("again", "wamp-proxy, plain relay, a second process", "ours-again")
IDS = (PLAIN, ROUTER_IDS, PROXY_IDS)
HAPROXY = Way("haproxy", "HAProxy", "haproxy")
LISTED = 5

SESSION_IDS = (
    feature(
        "ids-calls", "10 sessions, 16 echo calls in flight each, 64 octets: no session ID in any message", (*IDS, AGAIN)
    ),
    feature(
        "ids-events",
        "1 publisher, 16 publications in flight, 10 subscribers; 64 octets, publisher disclosed",
        (*IDS, AGAIN, HAPROXY),
        "event",
        mode="events",
    ),
    feature(
        "ids-events-json",
        "the same in JSON",
        (PLAIN, PROXY_IDS),
        "event",
        mode="events",
        serializer="json",
    ),
    feature(
        "ids-invocations",
        "1 caller, 16 calls in flight, each invokes all of 10 callees; 64 octets, caller disclosed",
        (*IDS, HAPROXY),
        "invocation",
        mode="invocations",
    ),
    feature(
        "ids-publishes",
        f"10 publishers, 16 publications in flight each, every 8th acknowledged; 64 octets, {LISTED} session IDs "
        "excluded, as many eligible",
        (*IDS, HAPROXY),
        "publication",
        mode="publishes",
        listed=LISTED,
    ),
)

# --- translation ---------------------------------------------------------------------------------------------------

SAME = Way("same", "wamp-proxy, Unix, not translated", "ours-unix")
TO_CBOR = Way("to-cbor", "wamp-proxy, Unix, to CBOR", "ours-to-cbor")
TO_MSGPACK = Way("to-msgpack", "wamp-proxy, Unix, to MessagePack", "ours-to-msgpack")
TO_JSON = Way("to-json", "wamp-proxy, Unix, to JSON", "ours-to-json")
CROSSBAR = Way("crossbar", "Crossbar.io proxy, to CBOR", "crossbar")
FROM_JSON = (SAME, TO_CBOR, TO_MSGPACK, CROSSBAR)

TRANSLATION = (
    feature("json-64", "echo calls from JSON clients, a string of 64 characters", FROM_JSON, serializer="json"),
    feature(
        "json-1k", "echo calls from JSON clients, records of 1 KiB in JSON", FROM_JSON, serializer="json", document=1024
    ),
    feature("cbor-64", "echo calls from CBOR clients, 64 octets", (SAME, TO_JSON)),
    feature("cbor-1k", "echo calls from CBOR clients, records of 1 KiB in JSON", (SAME, TO_JSON), document=1024),
)

# --- batches and compression ---------------------------------------------------------------------------------------


def batched(serializer: str) -> tuple[Way, Way]:
    """The same work without and with batches."""
    return (
        Way("single", f"wamp.2.{serializer}", "ours", {"serializer": serializer}),
        Way("batched", f"wamp.2.{serializer}.batched", "ours", {"serializer": f"{serializer}.batched"}),
    )


TAKEOVER, FRESH = {"deflate": "takeover"}, {"deflate": "fresh"}
DEFLATE = (
    Way("none", "wamp-proxy, Unix, not compressed", "ours-deflate"),
    Way("takeover", "wamp-proxy, Unix, with context takeover", "ours-deflate", TAKEOVER),
    Way("fresh", "wamp-proxy, Unix, no context takeover", "ours-deflate", FRESH),
    Way("crossbar", "Crossbar.io proxy, not compressed", "crossbar"),
    Way("crossbar-takeover", "Crossbar.io proxy, with context takeover", "crossbar", TAKEOVER),
    Way("crossbar-fresh", "Crossbar.io proxy, no context takeover", "crossbar", FRESH),
)

TRANSPORT = (
    feature("batched-cbor", "10 sessions, 16 echo calls in flight each, 64 octets", batched("cbor")),
    feature("batched-json", "the same in JSON", batched("json")),
    feature(
        "deflate",
        "echo calls from JSON clients, records of 1 KiB, permessage-deflate",
        DEFLATE,
        serializer="json",
        document=1024,
    ),
)

FEATURES = SESSION_IDS + TRANSLATION + TRANSPORT
SCENARIOS = STANDARD + LOGINS + STORM + TLS + FEATURES

# --- what is read off ----------------------------------------------------------------------------------------------

#: Shares of messages with session IDs: 10 EVENTs to a PUBLISH; 10 INVOCATIONs to 10 YIELDs, a CALL and a RESULT;
#: 8 PUBLISHes to a PUBLISHED.
EVENTS, INVOCATIONS, PUBLISHES = 10 / 11, 10 / 22, 8 / 9
#: What is not to be measurable may come out so. The first rows tell how far two processes of the very same differ.
NOT_MEASURABLE = 1.03

COSTS = (
    Cost("none: the same set-up again", "CALL, RESULT", "ids-calls", "again", "plain"),
    Cost("none: the same set-up again", "EVENT", "ids-events", "again", "plain"),
    Cost('`session_ids: "router"`', "CALL, RESULT", "ids-calls", "router", "plain", NOT_MEASURABLE),
    Cost('`session_ids: "router"`', "EVENT", "ids-events", "router", "plain", NOT_MEASURABLE),
    Cost('`session_ids: "router"`', "INVOCATION, YIELD", "ids-invocations", "router", "plain", NOT_MEASURABLE),
    Cost('`session_ids: "router"`', "PUBLISH with lists", "ids-publishes", "router", "plain", NOT_MEASURABLE),
    Cost('`session_ids: "proxy"`', "CALL, RESULT", "ids-calls", "proxy", "plain", NOT_MEASURABLE),
    Cost('`session_ids: "proxy"`', "EVENT", "ids-events", "proxy", "plain", 1.3, EVENTS),
    Cost('`session_ids: "proxy"`', "EVENT in JSON", "ids-events-json", "proxy", "plain", 1.3, EVENTS),
    Cost('`session_ids: "proxy"`', "INVOCATION (and YIELD)", "ids-invocations", "proxy", "plain", 1.3, INVOCATIONS),
    Cost('`session_ids: "proxy"`', "PUBLISH with lists", "ids-publishes", "proxy", "plain", 1.3, PUBLISHES),
    Cost("JSON to CBOR", "echo, 64 characters", "json-64", "to-cbor", "same"),
    Cost("JSON to CBOR", "echo, 1 KiB of records", "json-1k", "to-cbor", "same"),
    Cost("JSON to MessagePack", "echo, 64 characters", "json-64", "to-msgpack", "same"),
    Cost("JSON to MessagePack", "echo, 1 KiB of records", "json-1k", "to-msgpack", "same"),
    Cost("CBOR to JSON", "echo, 64 octets", "cbor-64", "to-json", "same"),
    Cost("CBOR to JSON", "echo, 1 KiB of records", "cbor-1k", "to-json", "same"),
    Cost("JSON to CBOR, by Crossbar.io's", "echo, 64 characters", "json-64", "to-cbor", "crossbar", 0.05),
    Cost("JSON to CBOR, by Crossbar.io's", "echo, 1 KiB of records", "json-1k", "to-cbor", "crossbar", 0.05),
    Cost("batched", "echo in CBOR", "batched-cbor", "batched", "single"),
    Cost("batched", "echo in JSON", "batched-json", "batched", "single"),
    Cost("permessage-deflate", "JSON, 1 KiB, context takeover", "deflate", "takeover", "none"),
    Cost("permessage-deflate", "JSON, 1 KiB, no context takeover", "deflate", "fresh", "none"),
    Cost(
        "permessage-deflate, by Crossbar.io's",
        "JSON, 1 KiB, context takeover",
        "deflate",
        "takeover",
        "crossbar-takeover",
    ),
    Cost(
        "permessage-deflate, by Crossbar.io's", "JSON, 1 KiB, no context takeover", "deflate", "fresh", "crossbar-fresh"
    ),
)
