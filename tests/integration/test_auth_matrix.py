"""Every authmethod, type, and transport: real clients with right and wrong credentials, in front of Crossbar.io."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from conftest import missing, session_count
from support import raw
from support.authenticators import calls
from support.clients import find_node, install_js
from support.logins import CLIENTS, Login, LoginDriver, start_authenticator
from support.principals import METHODS, PRINCIPALS, ROLE, static
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, WELCOME
from support.raw_logins import Prover, log_in
from support.routers import REALM, CrossbarRouter

pytestmark = [pytest.mark.peers, pytest.mark.slow]

TESTS = Path(__file__).resolve().parents[1]
TYPES = ("static", "dynamic", "function")
KINDS = ("websocket", "rawsocket")
SERIALIZERS = {
    "autobahn-python": {"websocket": "json", "rawsocket": "cbor"},
    "autobahn-js": {"websocket": "cbor", "rawsocket": "msgpack"},
    "xconn": {"websocket": "msgpack", "rawsocket": "json"},
}
FAILED = "wamp.error.authentication_failed"
NOBODY = "wamp.error.no_such_principal"

Get = Callable[[str], LoginDriver]


def _cases(clients: Iterable[str] = CLIENTS, without: Iterable[str] = ()) -> list[Any]:
    return [
        pytest.param(name, what, type_, kind, id=f"{name}-{what}-{type_}-{kind}")
        for name in clients
        for what in CLIENTS[name]
        if what not in without
        for type_ in TYPES
        for kind in KINDS
        # There is no anonymous function: Crossbar.io knows none, either.
        if (what, type_) != ("anonymous", "function")
    ]


def _auth(type_: str, record: Path) -> dict[str, Any]:
    if type_ == "function":
        item = {"type": type_, "create": "support.authenticators.create", "config": {"record": str(record)}}
        return dict.fromkeys(METHODS, item)
    if type_ == "static":
        return {"anonymous": {"type": type_}} | {method: static(method) for method in METHODS}
    return {
        method: {
            "type": type_,
            "authenticator": f"com.example.authenticate.{method}",
            "authenticator-realm": REALM,
            "authenticator-role": "anonymous",
        }
        for method in ("anonymous", *METHODS)
    }


@pytest.fixture(scope="module")
def proxy(crossbar: CrossbarRouter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A proxy with an endpoint per type and transport, and one for cookies per type; no session may be left of it."""
    folder = tmp_path_factory.mktemp("authentication")
    authenticator = start_authenticator(crossbar.direct["rs-unix"], folder / "dynamic.jsonl")
    before = session_count(crossbar)
    config = Config(folder)
    for role in ("anonymous", ROLE):
        config.backend("crossbar", crossbar.backends["crossbar"], role=role)
    for type_ in TYPES:
        auth = _auth(type_, folder / "function.jsonl")
        for kind in KINDS:
            config.listen(kind, f"{type_}/{kind}", auth=auth)
        config.listen("rawsocket", f"{type_}/own-ids", auth=auth, session_ids="proxy")
        cookie = {"store": {"type": "memory"}}
        config.listen("websocket", f"{type_}/cookie", auth=auth | {"cookie": {}}, cookie=cookie)
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        proxy = ProxyProcess(config)
    yield proxy
    proxy.stop()
    wait_until(lambda: session_count(crossbar) <= before, "the router's sessions have ended")
    authenticator.kill()
    secrets = {text for item in PRINCIPALS.values() for text in (item.secret, *_texts(item.known))}
    assert not [text for text in secrets if text in "\n".join([*proxy.child.lines, *proxy.child.errors])]


def _texts(known: dict[str, Any]) -> list[str]:
    """What nobody else may know of what is known of a principal."""
    return [known[key] for key in ("salt", "stored-key", "server-key") if key in known]


@pytest.fixture(scope="module")
def get_login() -> Iterator[Get]:
    """A client library that logs in, by name."""
    drivers: dict[str, LoginDriver] = {}

    def make(name: str) -> LoginDriver:
        if name not in drivers:
            node = find_node() if name == "autobahn-js" else None
            if name == "autobahn-js":
                if node is None:
                    missing("autobahn-js", "install node (20 or newer) and npm")
                install_js()
            drivers[name] = LoginDriver.named(name, node)
        return drivers[name]

    yield make
    for driver in drivers.values():
        driver.stop()


def _login(what: str, **keys: Any) -> Login:
    if what == "anonymous":
        return Login("anonymous", **keys)
    principal = PRINCIPALS[what]
    return Login(**{"method": principal.method, "authid": principal.authid, "secret": principal.secret, **keys})


def _expect_session(answer: dict[str, Any], what: str, provider: str, method: str = "") -> None:
    """The session works, and WELCOME and the router agree on who it is."""
    assert "joined" in answer, answer
    told, known = answer["joined"], answer["router"]
    assert answer["sum"] == 5
    role = "anonymous" if what == "anonymous" else ROLE
    assert (told["authrole"], known["authrole"]) == (role, role)
    assert told["authid"] == known["authid"]
    assert told["session"] == known["session"]
    if what != "anonymous":
        assert told["authid"] == PRINCIPALS[what].authid
    if "authmethod" in told:
        method = method or ("anonymous" if what == "anonymous" else PRINCIPALS[what].method)
        assert (told["realm"], told["authmethod"], told["authprovider"]) == (REALM, method, provider)


@pytest.mark.parametrize(("client", "what", "type_", "kind"), _cases())
def test_right(client: str, what: str, type_: str, kind: str, proxy: ProxyProcess, get_login: Get) -> None:
    """The right secret: a session."""
    endpoint = proxy.endpoints[f"{type_}/{kind}"]
    _expect_session(get_login(client).login(endpoint, _login(what), SERIALIZERS[client][kind]), what, type_)


@pytest.mark.parametrize(("client", "what", "type_", "kind"), _cases())
def test_wrong(client: str, what: str, type_: str, kind: str, proxy: ProxyProcess, get_login: Get) -> None:
    """A wrong secret (of anonymous clients, a wrong realm): ABORT with the URI, and no more about the cause."""
    reason, message = FAILED, "authentication failed"
    if what == "anonymous":
        login, reason, message = _login(what, realm="nowhere"), "wamp.error.no_such_realm", None
    else:
        login = _login(what, secret=PRINCIPALS[what].wrong)
        # Of ticket and of keys it is the authenticator who says what it has to say.
        if type_ != "static" and what in ("ticket", "cryptosign"):
            message = {"ticket": "that is not the ticket", "cryptosign": "that is not the key"}[what]
    answer = get_login(client).login(proxy.endpoints[f"{type_}/{kind}"], login, SERIALIZERS[client][kind])
    assert answer.get("refused") == reason, answer
    assert message is None or answer["message"] in (None, message)


# Whoever is anonymous has no name, and SCRAM may ask the unknown for what the library cannot do.
@pytest.mark.parametrize(
    ("client", "what", "type_", "kind"), _cases(["autobahn-python"], ["anonymous", "scram-argon2id"])
)
def test_unknown(client: str, what: str, type_: str, kind: str, proxy: ProxyProcess, get_login: Get) -> None:
    """Nobody of that name: of principals in the configuration the same as with a wrong secret."""
    login = _login(what, authid="nobody")
    answer = get_login(client).login(proxy.endpoints[f"{type_}/{kind}"], login, SERIALIZERS[client][kind])
    wanted = (FAILED, "authentication failed") if type_ == "static" else (NOBODY, "nobody has this name")
    assert (answer.get("refused"), answer.get("message")) == wanted, answer


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["scram-pbkdf2", "scram-argon2id"])
def test_scram(what: str, type_: str, kind: str, proxy: ProxyProcess) -> None:
    """SCRAM as in RFC 5802, with the proof of the proxy checked; no library can do pbkdf2."""
    principal, endpoint = PRINCIPALS[what], proxy.endpoints[f"{type_}/{kind}"]
    peer, prover = raw.dial(endpoint), Prover("scram", principal.authid, principal.secret)
    welcome = log_in(peer, prover)
    assert welcome[0] == WELCOME, welcome
    assert welcome[2]["authextra"]["scram_server_signature"] == prover.server_signature
    known = peer.call("wamp.session.get", peer.session)
    assert (known["authid"], known["authrole"]) == (principal.authid, ROLE)
    # It is between the client and the proxy.
    assert "scram_server_signature" not in str(known)
    peer.leave()
    unknown = (FAILED, "authentication failed") if type_ == "static" else (NOBODY, "nobody has this name")
    for authid, secret, (reason, message) in (
        (principal.authid, principal.wrong, (FAILED, "authentication failed")),
        ("nobody", principal.secret, unknown),
    ):
        peer = raw.dial(endpoint)
        assert log_in(peer, Prover("scram", authid, secret)) == [ABORT, {"message": message}, reason]
        peer.close()


@pytest.mark.parametrize("type_", TYPES)
def test_session_id(type_: str, proxy: ProxyProcess) -> None:
    """Where the IDs are the proxy's, the session has the one that was signed, and that authenticators were told."""
    principal = PRINCIPALS["wampcra"]
    peer, prover = raw.dial(proxy.endpoints[f"{type_}/own-ids"]), Prover("wampcra", principal.authid, principal.secret)
    assert log_in(peer, prover)[0] == WELCOME
    signed = json.loads(prover.challenge["challenge"])
    assert (signed["session"], signed["authid"], signed["authmethod"]) == (peer.session, principal.authid, "wampcra")
    if type_ != "static":
        told = calls(proxy.config.directory / f"{type_}.jsonl")[-1]
        assert (told["realm"], told["authid"], told["details"]["session"]) == (REALM, principal.authid, peer.session)
    assert peer.call("wamp.session.get", peer.session)["authid"] == principal.authid
    peer.leave()


@pytest.mark.parametrize("type_", TYPES)
def test_cookie(type_: str, proxy: ProxyProcess, get_login: Get) -> None:
    """Whoever logged in comes back with the cookie alone, by whatever library."""
    endpoint = proxy.endpoints[f"{type_}/cookie"]
    first = get_login("autobahn-python").login(endpoint, _login("ticket"), "json")
    _expect_session(first, "ticket", type_)
    cookie = SimpleCookie(first["set_cookie"])["cbtid"].OutputString([])
    for client in ("autobahn-python", "autobahn-js"):
        answer = get_login(client).login(endpoint, Login("anonymous", cookie=cookie), "json")
        _expect_session(answer, "ticket", "cookie", method="cookie")
    unknown = cookie[:-4] + "AAAA"
    answer = get_login("autobahn-python").login(endpoint, Login("anonymous", cookie=unknown), "json")
    assert answer.get("refused") == "wamp.error.no_auth_method", answer
