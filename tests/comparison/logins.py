"""Logins that are made at Crossbar.io's own proxy worker and at ours: every message, and what authenticators get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import raw
from support.authenticators import ANSWERS, calls
from support.endpoints import Endpoint
from support.principals import METHODS, PRINCIPALS, ROLE, SECOND_KEY, Principal, static
from support.raw import ABORT, AUTHENTICATE, CHALLENGE, WELCOME, Peer, PeerClosed, hello
from support.raw_logins import Prover
from support.routers import META_REALM, REALM

TYPES = ("static", "dynamic", "function")
KINDS = ("websocket", "rawsocket")
COOKIE = "cookie"
"""A chapter of its own: transports that track their clients by a cookie, with types as ``static``."""
BUILTIN, FIXED = "builtin", "fixed"
"""Transports without ``auth``, and where all who are anonymous are the same principal."""
CHAPTERS = (
    *((type_, kind) for type_ in TYPES for kind in KINDS),
    (COOKIE, "websocket"),
    (BUILTIN, "rawsocket"),
    (FIXED, "rawsocket"),
)
"""Types of the authentication, and kinds of the transport."""
SILENCE = 3.0
"""Seconds after which nothing more is expected of a proxy that is known to be silent."""

Signature = Callable[[str], str]


@dataclass(frozen=True)
class Case:
    """A login.

    :ivar name: unique in its chapter.
    :ivar prover: what answers CHALLENGE.
    :ivar details: goes over what HELLO.Details would be; None takes a key away.
    :ivar forge: makes something else of the right signature.
    :ivar cookie: name of the cookie that is sent; what is given out goes under this name, too.
    :ivar leaves: reason of GOODBYE.
    :ivar patience: how long each answer is waited for, seconds.
    """

    name: str
    prover: Prover
    realm: str | None = REALM
    details: dict[str, Any] = field(default_factory=dict)
    forge: Signature | None = None
    cookie: str = ""
    leaves: str = "wamp.close.close_realm"
    patience: float = raw.TIMEOUT


@dataclass
class Record:
    """What a login showed.

    :ivar client: what the client was told, message by message, and how it ended.
    :ivar router: what the router says of the session; None: there is none.
    :ivar authenticator: what authenticators were called with.
    :ivar cookie: what Set-Cookie said: the value, and the attributes; None: there was none.
    """

    client: list[Any] = field(default_factory=list)
    router: Any = None
    authenticator: list[Any] = field(default_factory=list)
    cookie: tuple[str, dict[str, str]] | None = None


def auth(type_: str, record: Path) -> dict[str, Any]:
    """The ``auth`` item of a transport whose methods are all of one type."""
    if type_ in ("static", COOKIE):
        methods = {method: static(method) for method in METHODS} | ({COOKIE: {}} if type_ == COOKIE else {})
        methods["ticket"]["default-role"] = ROLE
        methods["ticket"]["principals"] |= {
            "without-role": {"ticket": PRINCIPALS["ticket"].secret},
            "of-unknown-role": {"ticket": PRINCIPALS["ticket"].secret, "role": "nobody"},
        }
        methods["cryptosign"]["principals"]["moved"] = {
            "authorized_keys": [_prover(PRINCIPALS["cryptosign"], secret=SECOND_KEY).authextra["pubkey"]],
            "realm": META_REALM,
            "role": ROLE,
        }
        return {"anonymous": {"type": "static", "role": "anonymous"}, **methods}
    if type_ == FIXED:
        return {"anonymous": {"type": "static", "realm": META_REALM, "role": ROLE, "authid": "everybody"}}
    if type_ == "function":
        item = {"type": type_, "create": "support.authenticators.create", "config": {"record": str(record)}}
        return dict.fromkeys(METHODS, item)
    where = {"authenticator-realm": REALM, "authenticator-role": "anonymous"}
    methods = ("anonymous", *METHODS)
    return {name: {"type": type_, "authenticator": f"com.example.authenticate.{name}", **where} for name in methods}


def cases(type_: str) -> list[Case]:
    """The logins at a transport of one type, each of them on a connection of its own."""
    if type_ == COOKIE:
        return _cookies()
    if type_ in (BUILTIN, FIXED):
        return [*_anonymous(), Case("a ticket", _prover(PRINCIPALS["ticket"]))]
    found = [*_secrets(), *_orders(), *_keys(), *_realms()]
    if type_ == "static":
        # Crossbar.io never answers, whatever the type, and that takes its time.
        found.append(Case("scram: garbage", _prover(PRINCIPALS["scram-argon2id"]), forge=_garbage, patience=SILENCE))
        found += _configured()
    if type_ != "function":
        found += _anonymous()
    if type_ != "static":
        found += _answers(type_)
    return found


def _garbage(_: str) -> str:
    return "no signature"


def _prover(principal: Principal, **keys: str) -> Prover:
    return Prover(principal.method, keys.get("authid", principal.authid), keys.get("secret", principal.secret))


def _secrets() -> list[Case]:
    found = []
    for name, item in PRINCIPALS.items():
        found.append(Case(name, _prover(item)))
        found.append(Case(f"{name}: wrong", _prover(item, secret=item.wrong)))
        if name not in ("wampcra-salted", "scram-pbkdf2"):
            found.append(Case(f"{name}: unknown authid", _prover(item, authid="nobody")))
            found.append(Case(f"{name}: no authid", _prover(item), details={"authid": None}))
        if name in ("wampcra", "cryptosign"):
            found.append(Case(f"{name}: garbage", _prover(item), forge=_garbage))
    return found


def _orders() -> list[Case]:
    """More than one authmethod."""
    ticket, nobody = PRINCIPALS["ticket"], Prover("anonymous", "", "")
    return [
        Case("the first is not configured", _prover(ticket), details={"authmethods": ["tls", "ticket", "wampcra"]}),
        Case("the first does not exist", _prover(ticket), details={"authmethods": ["pigeon", "ticket"]}),
        Case("none is configured", nobody, details={"authmethods": ["tls", "cookie"]}),
        Case("none exists", nobody, details={"authmethods": ["pigeon"]}),
        Case("two are possible", _prover(ticket), details={"authmethods": ["ticket", "cryptosign"]}),
    ]


def _keys() -> list[Case]:
    """Ways of cryptosign, and what stands in authextra besides."""
    ada, ticket = PRINCIPALS["cryptosign"], PRINCIPALS["ticket"]
    other = _prover(ada, secret=ada.wrong)
    own_key = _prover(ada).authextra
    told = {"team": "red", "nested": {"n": [1, None]}}
    return [
        Case("another's signature", other, details={"authextra": own_key}),
        Case("no public key", _prover(ada), details={"authextra": {}}),
        Case("no authextra", _prover(ada), details={"authextra": None}),
        Case("an unknown public key", other, details={"authid": None}),
        Case("channel binding", _prover(ada), details={"authextra": {**own_key, "channel_binding": "tls-unique"}}),
        Case("no channel binding", _prover(ada), details={"authextra": {**own_key, "channel_binding": None}}),
        Case("scram without a nonce", _prover(PRINCIPALS["scram-argon2id"]), details={"authextra": {}}),
        Case("ticket with authextra", _prover(ticket), details={"authextra": told}),
        Case("wampcra with authextra", _prover(PRINCIPALS["wampcra"]), details={"authextra": told}),
        Case("a role of one's own", _prover(ticket), details={"authrole": "admin"}),
    ]


def _realms() -> list[Case]:
    ticket, wampcra = PRINCIPALS["ticket"], PRINCIPALS["wampcra"]
    return [
        Case("ticket: unknown realm", _prover(ticket), realm="nowhere"),
        Case("wampcra: unknown realm", _prover(wampcra), realm="nowhere"),
        Case("ticket: no realm", _prover(ticket), realm=None),
    ]


def _configured() -> list[Case]:
    """What the configuration may say of principals besides."""
    ticket, ada = PRINCIPALS["ticket"], PRINCIPALS["cryptosign"]
    return [
        *(Case(f"configured: {name}", _prover(ticket, authid=name)) for name in ("without-role", "of-unknown-role")),
        Case("configured: moved", _prover(ada, authid="moved", secret=SECOND_KEY)),
        Case("configured: moved, no authid", _prover(ada, secret=SECOND_KEY), details={"authid": None}),
        Case("configured: moved, no realm", _prover(ada, authid="moved", secret=SECOND_KEY), realm=None),
        Case("configured: another's key", _prover(ada, authid="moved")),
    ]


def _anonymous() -> list[Case]:
    nobody = Prover("anonymous", "", "")
    return [
        Case("anonymous", nobody, details={"authid": None}),
        Case("anonymous by default", nobody, details={"authid": None, "authmethods": None}),
        Case("anonymous with a name", nobody, details={"authid": "tina", "authrole": "guest"}),
        Case("anonymous with authextra", nobody, details={"authid": None, "authextra": {"team": "red"}}),
        Case("anonymous: unknown realm", nobody, realm="nowhere"),
        Case("anonymous: no realm", nobody, realm=None),
    ]


def _answers(type_: str) -> list[Case]:
    """Everything an authenticator may answer."""
    names = [*ANSWERS, "refused", "broken"]
    methods = ["ticket", "wampcra", "cryptosign"]
    found = [
        Case(f"{name}: {answer}", _prover(PRINCIPALS[name], authid=answer), patience=_patience(type_, name, answer))
        for name in methods
        for answer in names
    ]
    if type_ == "dynamic":
        nobody = Prover("anonymous", "", "")
        found += [Case(f"anonymous: {name}", nobody, details={"authextra": {"name": name}}) for name in names]
    return found


def _patience(type_: str, method: str, answer: str) -> float:
    # Crossbar.io never answers a client about whose key a procedure has answered with a text.
    return SILENCE if (type_, method, answer) == ("dynamic", "cryptosign", "text") else raw.TIMEOUT


def _cookies() -> list[Case]:
    """Visits of several clients; each has the cookie that it was given last."""
    tina, carl = (_prover(PRINCIPALS[name]) for name in ("ticket", "wampcra"))
    nobody = Prover("anonymous", "", "")
    alone, and_ticket = {"authmethods": ["cookie"], "authid": None}, {"authmethods": ["cookie", "ticket"]}
    return [
        Case("a first visit", tina, details=and_ticket, cookie="one"),
        Case("a second visit", nobody, details=alone, cookie="one"),
        Case("a third visit that offers more", tina, details=and_ticket, cookie="one"),
        Case("a visit to another realm", nobody, META_REALM, alone, cookie="one"),
        Case("a visit to no realm", nobody, None, alone, cookie="one"),
        Case("somebody without a cookie", nobody, details=alone, cookie="two"),
        Case("with a cookie that stands for nothing", nobody, details=alone, cookie="two"),
        Case("then with a ticket", tina, details=and_ticket, cookie="two"),
        Case("and again", nobody, details=alone, cookie="two"),
        Case("somebody with an unknown cookie", nobody, details=alone, cookie="unknown"),
        Case("a login without the cookie method", tina, cookie="three"),
        Case("and again with it", nobody, details=alone, cookie="three"),
        Case("somebody else with a cookie", carl, cookie="three"),
        Case("whose is it now", nobody, details=alone, cookie="three"),
        Case("anonymous with a cookie", nobody, details={"authid": None}, cookie="four"),
        Case("anonymous again", nobody, details=alone, cookie="four"),
        Case("a visit that ends in a logout", tina, details=and_ticket, cookie="five", leaves="wamp.close.logout"),
        Case("after the logout", nobody, details=alone, cookie="five"),
        Case("a wrong ticket", Prover("ticket", "tina", "wrong"), details=and_ticket, cookie="six"),
        Case("after the wrong ticket", nobody, details=alone, cookie="six"),
    ]


def log_in(endpoint: Endpoint, case: Case, record: Path, jar: dict[str, str]) -> Record:
    """Make a login.

    :param record: where the authenticator writes down its calls.
    :param jar: the clients' cookies, by their names.
    """
    before = len(calls(record))
    found = Record()
    peer = _dial(endpoint, case.cookie, jar, found)
    try:
        _log_in(peer, case, found)
    finally:
        peer.close()
    found.authenticator = [[call["realm"], call["authid"], call["details"]] for call in calls(record)[before:]]
    return found


def _dial(endpoint: Endpoint, cookie: str, jar: dict[str, str], found: Record) -> Peer:
    if not cookie:
        return raw.dial(endpoint, "json")
    wire = raw.Wire(endpoint.connect())
    try:
        _, head = raw.upgrade(wire, endpoint, "wamp.2.json", **({"Cookie": jar[cookie]} if cookie in jar else {}))
    except BaseException:
        wire.close()
        raise
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "set-cookie":
            pair, *attributes = (part.strip() for part in value.split(";"))
            parts = (attribute.partition("=") for attribute in attributes)
            found.cookie = pair, {key.lower(): text for key, _, text in parts}
            jar[cookie] = pair
    return raw.WebSocketPeer(wire, "json")


def _log_in(peer: Peer, case: Case, found: Record) -> None:
    prover = case.prover
    named = {"authmethods": [prover.method], "authid": prover.authid, "authextra": prover.authextra}
    message = hello("", **{**named, **case.details})
    message[1] = case.realm
    message[2] = {key: value for key, value in message[2].items() if value is not None}
    peer.send(message)
    answer = _receive(peer, found, case.patience)
    if answer[0] == CHALLENGE:
        signature = prover.sign(answer[2])
        peer.send([AUTHENTICATE, signature if case.forge is None else case.forge(signature), {}])
        answer = _receive(peer, found, case.patience)
    if answer[0] == WELCOME:
        peer.session = answer[1]
        found.router = peer.call("wamp.session.get", peer.session)
        peer.goodbye(case.leaves)


def _receive(peer: Peer, found: Record, patience: float) -> list[Any]:
    """The next message; one of type 0 where there is none."""
    peer.wire.sock.settimeout(patience)
    try:
        answer = peer.recv()
    except TimeoutError:
        answer = [0, "silence"]
    except PeerClosed as closed:
        answer = [0, str(closed)]
    finally:
        peer.wire.sock.settimeout(raw.TIMEOUT)
    found.client.append(answer)
    assert answer[0] in (0, CHALLENGE, WELCOME, ABORT), answer
    return answer
