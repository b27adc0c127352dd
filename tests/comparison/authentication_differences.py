"""What is known to differ between logins at Crossbar.io's own proxy worker and at ours, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from comparison.logins import COOKIE, FIXED, TYPES
from comparison.shown import ABSENT, Paths
from support.principals import PRINCIPALS, SECOND_KEY
from support.raw_logins import Prover

FAILED = "wamp.error.authentication_failed"
DENIED = "wamp.error.not_authorized"
RUNTIME = "wamp.error.runtime_error"
NO_METHOD = "wamp.error.no_auth_method"
NOBODY = "wamp.error.no_such_principal"


@dataclass(frozen=True)
class Pair:
    """The same login at both.

    :ivar type_: of the authentication, and ``kind``: of the transport.
    :ivar name: of the case.
    :ivar stock, ours: what was shown of it.
    """

    type_: str
    kind: str
    name: str
    stock: dict[str, Any]
    ours: dict[str, Any]

    def both(self, what: str) -> bool:
        """Whether something happened at both of them."""
        return what in self.stock and what in self.ours


@dataclass(frozen=True)
class Difference:
    """A known difference.

    :ivar why: what the stock worker does, and why ours does not.
    :ivar paths: path -> (stock, ours), as :func:`comparison.shown.differences` has them.
    :ivar when: which logins it is of.
    """

    why: str
    paths: Paths
    when: Callable[[Pair], bool]


def in_cases(names: Iterable[str], types: Iterable[str] = TYPES) -> Callable[[Pair], bool]:
    """For logins by the names of their cases, and the types of the authentication."""
    chosen, of_types = frozenset(names), frozenset(types)
    return lambda pair: pair.name in chosen and pair.type_ in of_types


def both(what: str, kind: str = "") -> Callable[[Pair], bool]:
    """For all in which something happened at both, on one kind of transport or all of them."""
    return lambda pair: pair.both(what) and kind in ("", pair.kind)


# --- the client's transport, as authenticators and the router are told ---

_TRANSPORTS = {"called": "called.details.transport", "router": "router.transport"}
_HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "str",
    "sec-websocket-protocol": "wamp.2.json",
}

TRANSPORT = [
    difference
    for where, path in _TRANSPORTS.items()
    for difference in (
        Difference(
            "the stock worker does not know the serializer of a WebSocket",
            {f"{path}.channel_serializer": (None, "json")},
            both(where, "websocket"),
        ),
        Difference(
            "the stock worker names a WebSocket subprotocol where there is no WebSocket",
            {f"{path}.websocket_protocol": ("wamp.2.json", None)},
            both(where, "rawsocket"),
        ),
        Difference(
            "ours leaves out the headers that belong to the connection and not to the client",
            {f"{path}.http_headers_received.{name}": (value, ABSENT) for name, value in _HANDSHAKE.items()},
            both(where, "websocket"),
        ),
    )
]
TRANSPORT.append(
    Difference("as above", {"router.serializer": (None, 1)}, both("router", "websocket")),
)

# --- WELCOME ---

_SENT = ["channel_framing", "channel_id", "channel_serializer", "channel_type", "http_cbtid", "http_headers_received"]
_SENT += ["http_headers_sent", "is_secure", "is_server", "own", "own_fd", "own_pid", "own_tid", "peer", "peer_cert"]
_SENT += ["websocket_extensions_in_use", "websocket_protocol"]

WELCOMES = [
    Difference(
        "the stock worker sends the client all that is known of its connection, its own cookies among it",
        {"welcome.authextra.transport": (_SENT, ABSENT)},
        both("welcome"),
    ),
    Difference(
        "ours leaves in what the router's WELCOME says of the router, as a client without a proxy is told it",
        {
            "welcome.x_cb_node": (ABSENT, "node1"),
            "welcome.x_cb_worker": (ABSENT, "router1"),
            "welcome.x_cb_peer": (ABSENT, "unix"),
            "welcome.x_cb_pid": (ABSENT, "int"),
        },
        both("welcome"),
    ),
]

# --- authextra ---

FORWARDED = (
    "the stock worker forwards the client's authextra for two methods, and has nothing for the router with the others; "
    "ours does it for all"
)


def _forwarded(key: str, value: Any, *places: str) -> Paths:
    return {f"{place}.authextra.{key}": (ABSENT, value) for place in places or ("welcome", "router")}


_SIGNED = {
    PRINCIPALS["cryptosign"].known["authorized_keys"][0]: [
        *("cryptosign", "no channel binding", "cryptosign: no authid", "cryptosign: moved")
    ],
    Prover("cryptosign", "", SECOND_KEY).authextra["pubkey"]: [
        *("configured: moved", "configured: moved, no authid", "configured: moved, no realm")
    ],
}
"""Logins with a key, by the key."""
AUTHEXTRA = [
    Difference(
        FORWARDED,
        _forwarded("team", "red") | _forwarded("nested", ["n"]),
        lambda pair: (
            pair.name == "wampcra with authextra" or (pair.name == "ticket with authextra" and pair.type_ != "static")
        ),
    ),
    Difference(FORWARDED, _forwarded("team", "red"), in_cases(["anonymous with authextra"], ["dynamic"])),
    *(
        Difference(FORWARDED, _forwarded("name", name), in_cases([f"anonymous: {name}"], ["dynamic"]))
        for name in ("moved", "text")
    ),
    Difference(
        "the proof of the stock worker goes to the router, too",
        {"router.authextra.scram_server_signature": ("str", ABSENT)},
        in_cases(["scram-argon2id", "scram-pbkdf2"]),
    ),
    *(
        Difference(
            FORWARDED,
            _forwarded("pubkey", key, "router"),
            lambda pair, names=names: pair.name in names and pair.both("router"),
        )
        for key, names in _SIGNED.items()
    ),
]

# --- refusals ---

_ENUMERATION = (
    "the stock worker says at once whom it does not know; ours asks everybody the same, and whoever is unknown learns "
    "it no earlier than who has the wrong secret"
)
_ASKED = {"challenge": (ABSENT, ["authmethod", "extra"])}
_WRONG = {"abort.reason": (DENIED, FAILED)}
_PROVED = ["scram-argon2id: unknown authid", "wampcra: no authid", "wampcra: unknown authid"]
_UNUSABLE = ["number", "nothing", "text", "without-role", "of-unknown-role", "of-unknown-realm", "refused", "broken"]

REFUSALS = [
    Difference(
        _ENUMERATION,
        _ASKED,
        in_cases(
            [
                *_PROVED,
                *("cryptosign: wrong", "cryptosign: unknown authid"),
                *("an unknown public key", "wampcra: unknown realm"),
            ]
        ),
    ),
    Difference(
        _ENUMERATION,
        _ASKED,
        in_cases(
            [
                *("ticket: unknown authid", "ticket: no authid", "ticket: unknown realm", "ticket: no realm"),
                *("configured: of-unknown-role", "configured: another's key"),
            ],
            ["static"],
        ),
    ),
    Difference(
        _ENUMERATION,
        _ASKED,
        in_cases(
            [
                *("cryptosign: no authid", "no public key", "no authextra"),
                *(f"{method}: {answer}" for method in ("wampcra", "cryptosign") for answer in _UNUSABLE),
            ],
            ["dynamic", "function"],
        ),
    ),
    Difference(
        "the stock worker says not_authorized, which is for the actions of a session, of logins that failed",
        _WRONG,
        lambda pair: pair.stock.get("abort", {}).get("reason") == DENIED,
    ),
    Difference(
        "the stock worker passes on whatever went wrong in an authenticator, with its text",
        {"abort.reason": (RUNTIME, FAILED)},
        in_cases([f"{method}: broken" for method in ("anonymous", "ticket", "wampcra", "cryptosign")], ["dynamic"]),
    ),
    Difference(
        "the stock worker fails on a proof that is no base64, or on a text where it has asked about a key, and never "
        "answers",
        {"silence": ("silence", ABSENT), "abort": (ABSENT, ["details", "reason"])},
        lambda pair: pair.name == "scram: garbage" or (pair.name, pair.type_) == ("cryptosign: text", "dynamic"),
    ),
]

# --- logins that only one of them lets in ---

_WELCOME = ["authextra", "authid", "authmethod", "authprovider", "authrole", "realm", "roles"]
_ROUTERS_OWN = ["x_cb_node", "x_cb_peer", "x_cb_pid", "x_cb_worker"]
_ROUTER = ["authextra", "authid", "authmethod", "authprovider", "authrole", "realm", "resumable", "resume_token"]
_ROUTER += ["resumed", "serializer", "session", "transport"]
_REFUSED = ["details", "reason"]
_LET_IN: Paths = {
    "abort": (_REFUSED, ABSENT),
    "welcome": (ABSENT, _WELCOME + _ROUTERS_OWN),
    "router": (ABSENT, _ROUTER),
}
_TURNED_AWAY: Paths = {
    "abort": (ABSENT, _REFUSED),
    "welcome": (_WELCOME, ABSENT),
    "router": (_ROUTER, ABSENT),
}

ADMISSIONS = [
    Difference(
        "the stock worker refuses whoever names an authmethod that does not exist; WAMP lets it try the next one",
        _LET_IN | _ASKED,
        in_cases(["the first does not exist"]),
    ),
    Difference(
        "as above",
        {"called": (ABSENT, ["authid", "details", "realm"])},
        in_cases(["the first does not exist"], ["dynamic", "function"]),
    ),
    Difference("as above", {"abort.reason": (FAILED, NO_METHOD)}, in_cases(["none exists"])),
    Difference(
        "the stock worker fails on a client that does not say its public key, where WAMP leaves that to the client",
        _LET_IN | _ASKED,
        in_cases(["no public key", "no authextra"], ["static"]),
    ),
]

_ANONYMOUS = ("anonymous", "anonymous by default", "anonymous with a name", "anonymous with authextra")
FIXED_REALM = [
    Difference(
        "the stock worker takes no notice of a realm that is configured for whoever is anonymous",
        {"welcome.realm": ("realm1", "realm2"), "router.realm": ("realm1", "realm2")},
        in_cases(_ANONYMOUS, [FIXED]),
    ),
    Difference("as above", _LET_IN, in_cases(["anonymous: unknown realm", "anonymous: no realm"], [FIXED])),
]

# --- cookies ---

_SHOWN = "router.transport"
_GIVEN = {"cookie": (ABSENT, ["attributes", "name"])}


def _visit(*names: str) -> Callable[[Pair], bool]:
    return in_cases(names, [COOKIE])


COOKIES = [
    Difference(
        "the cookie of the stock worker is for the path alone that it was given out on",
        {"cookie.attributes.path": (ABSENT, "/")},
        both("cookie"),
    ),
    Difference(
        "the stock worker tells the router, and all who may ask it, what the cookie is, which is as good as a password",
        {f"{_SHOWN}.http_cbtid": ("str", "NoneType")},
        lambda pair: pair.type_ == COOKIE and pair.both("router"),
    ),
    Difference(
        "the stock worker tells what headers it sent, cookies among them",
        {f"{_SHOWN}.http_headers_sent.Set-Cookie": ("str", ABSENT)},
        lambda pair: pair.both("router") and "cookie" in pair.stock,
    ),
    Difference(
        "as above",
        {f"{_SHOWN}.http_headers_received.cookie": ("str", ABSENT)},
        lambda pair: pair.type_ == COOKIE and pair.both("router") and "cookie" not in pair.stock,
    ),
    Difference(
        "the stock worker names the authmethod of then, which a client that did not offer it takes for an error",
        {"welcome.authmethod": ("ticket", "cookie")},
        _visit("a second visit", "a visit to no realm", "and again", "and again with it"),
    ),
    Difference(
        "in the stock worker a cookie leads to the realm of then, whichever is asked for",
        _TURNED_AWAY,
        _visit("a visit to another realm"),
    ),
    Difference(
        "a cookie that stands for nothing may be one that somebody else has planted: ours gives out another one, and "
        "the stock worker makes it stand for the next login",
        _GIVEN,
        _visit("with a cookie that stands for nothing", "then with a ticket", "after the wrong ticket"),
    ),
    Difference(
        "as above, where it stood for somebody else",
        _TURNED_AWAY | _GIVEN,
        _visit("whose is it now"),
    ),
    Difference(
        "the stock worker remembers clients that have proven nothing",
        _TURNED_AWAY | _GIVEN,
        _visit("anonymous again"),
    ),
]

# --- CHALLENGE ---

CHALLENGES = [
    Difference(
        "the stock worker puts the authid that an authenticator gives the client into what is to be signed; ours the "
        "one that the client gave itself",
        {"challenge.extra.challenge.authid": ("somebody", "moved")},
        in_cases(["wampcra: moved"], ["dynamic", "function"]),
    ),
]

DIFFERENCES = [*TRANSPORT, *WELCOMES, *AUTHEXTRA, *REFUSALS, *ADMISSIONS, *FIXED_REALM, *COOKIES, *CHALLENGES]
