"""How the proxy logs in at routers for its clients: what it says, what it answers, and who is told of a refusal."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest
from autobahn.wamp import auth
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from twisted.internet.defer import Deferred

from proxy.auth.derived import Derived
from proxy.errors import InvalidConfiguration
from proxy.plane import CLOSED_PEER, EV_CLOSED
from support.planes import FRONT, HELLO, REFUSED, WELCOME_DETAILS, Rig, abort_of, back_conn, connection_of

SECRET = "s3cret-of-the-proxy"
PRIVATE = "5e" * 32
TICKET = {"ticket": {"authid": "proxy1", "ticket": SECRET}}
SCRAM = {"scram": {"authid": "proxy1", "password": SECRET}}
SIGNED = {"cryptosign-proxy": {"type": "static"}}
CHALLENGE = "c4" * 32
NETWORK_FAILURE = "wamp.error.network_failure"


def rig(item: dict[str, Any], connections: int = 1, **keys: Any) -> Rig:
    return Rig(connections, backend={"auth": item, **keys})


def start(rig: Rig, authextra: Any = None) -> tuple[int, dict[str, Any]]:
    """A client says HELLO; token of the dial, and the HELLO's details for the router."""
    rig.open()
    rig.says([1, "realm1", {**HELLO[2], **({"authextra": authextra} if authextra else {})}])
    token, (_, realm, details) = rig.dialled()
    assert realm == "realm1"
    return token, details


def asks(rig: Rig, token: int, method: str, extra: dict[str, Any]) -> list[Any]:
    """The router challenges the proxy; its answer."""
    rig.answers(token, [4, method, extra])
    (name, conn, message), following = rig.did()
    assert (name, conn) == ("send", back_conn(token))
    assert following[:2] == ("next", back_conn(token))
    return list(message)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys are derived without threads, and made in a folder of the test's own."""
    monkeypatch.setattr(Derived, "get", lambda self, how, compute: compute())
    monkeypatch.chdir(tmp_path)


# --- what the router is told ---


@pytest.mark.parametrize(
    ("item", "authmethods"),
    [
        ({"anonymous": None}, ["anonymous"]),
        (TICKET, ["ticket"]),
        ({"wampcra": {"authid": "proxy1", "secret": SECRET}}, ["wampcra"]),
        (SCRAM, ["scram"]),
        ({"cryptosign": {"authid": "proxy1", "privkey": PRIVATE}}, ["cryptosign"]),
        ({"anonymous": {}, **TICKET, **SCRAM}, ["scram", "ticket", "anonymous"]),
        (SIGNED, ["cryptosign-proxy"]),
        ({**SIGNED, "anonymous-proxy": {}, **TICKET}, ["cryptosign-proxy"]),
        ({"anonymous-proxy": {}, **TICKET}, ["anonymous-proxy"]),
    ],
)
def test_hello(item: dict[str, Any], authmethods: list[str]) -> None:
    forged = {"proxy_authid": "admin", "pubkey": "00", "nonce": "x", "mine": 1}
    _, hello = start(rig(item), forged)
    assert hello["authmethods"] == authmethods
    told = hello["authextra"]
    assert (told["proxy_authrole"], told["proxy_realm"]) == ("anonymous", "realm1")
    assert told["proxy_authid"] != "admin"
    assert told["proxy_authextra"]["mine"] == 1
    assert told["pubkey"] != "00"
    assert SECRET not in repr(hello)
    assert PRIVATE not in repr(hello)
    if "-proxy" in authmethods[0]:
        assert hello["authid"] == "node7"
    elif authmethods != ["anonymous"]:
        assert hello["authid"] == "proxy1"


def test_an_accounts_authextra_is_not_the_clients_identity() -> None:
    account = {"authid": "proxy1", "ticket": SECRET, "authrole": "service", "authextra": {"proxy_authid": "x", "k": 1}}
    _, hello = start(rig({"ticket": account}))
    assert hello["authrole"] == "service"
    assert hello["authextra"]["k"] == 1
    assert hello["authextra"]["proxy_authid"] != "x"


def test_every_login_has_a_nonce_of_its_own() -> None:
    nonces = {start(rig(SCRAM))[1]["authextra"]["nonce"] for _ in range(3)}
    assert len(nonces) == 3


# --- what it answers ---


def test_ticket() -> None:
    worker = rig(TICKET)
    token, _ = start(worker)
    assert asks(worker, token, "ticket", {}) == [5, SECRET, {}]
    worker.answers(token, [2, 4242, {**WELCOME_DETAILS, "authid": "proxy1", "authmethod": "ticket"}])
    assert worker.state == "ESTABLISHED"


@pytest.mark.parametrize("salt", [{}, {"salt": "salt", "iterations": 10, "keylen": 32}])
def test_wampcra(salt: dict[str, Any]) -> None:
    worker = rig({"wampcra": {"authid": "proxy1", "secret": SECRET}})
    token, _ = start(worker)
    key = auth.derive_key(SECRET, "salt", 10, 32) if salt else SECRET
    expected = auth.compute_wcs(key, "{}").decode()
    assert asks(worker, token, "wampcra", {"challenge": "{}", **salt}) == [5, expected, {}]


@pytest.mark.parametrize("item", [SIGNED, {"cryptosign": {"privkey": PRIVATE}}])
def test_cryptosign(item: dict[str, Any]) -> None:
    worker = rig(item)
    token, hello = start(worker)
    method = hello["authmethods"][0]
    _, signature, extra = asks(worker, token, method, {"challenge": CHALLENGE, "channel_binding": None})
    octets = bytes.fromhex(signature)
    assert octets[64:].hex() == CHALLENGE
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(hello["authextra"]["pubkey"])).verify(octets[:64], octets[64:])
    assert extra == {}


@pytest.mark.parametrize(
    ("item", "method", "extra"),
    [
        ({"anonymous-proxy": {}}, "ticket", {}),
        ({"anonymous": {}}, "ticket", {}),
        (TICKET, "wampcra", {"challenge": "{}"}),
        (TICKET, "cryptosign", {"challenge": CHALLENGE}),
        (SIGNED, "ticket", {}),
        (SIGNED, "cryptosign-proxy", {"challenge": "c4"}),
        (SIGNED, "cryptosign-proxy", {"challenge": CHALLENGE, "channel_binding": "tls-unique"}),
        (SCRAM, "scram", {"nonce": "of nobody", "salt": "", "iterations": 1, "kdf": "pbkdf2"}),
    ],
)
def test_what_it_does_not_answer(item: dict[str, Any], method: str, extra: dict[str, Any]) -> None:
    worker = rig(item, 2)
    token, _ = start(worker)
    worker.answers(token, [4, method, extra])
    said, closed, dial = worker.did()
    assert said == ("send", back_conn(token), [3, {}, "wamp.error.cannot_authenticate"])
    assert closed == ("close", back_conn(token))
    assert (dial[0], connection_of(worker, dial[2])) == ("dial", "two"), "another router may ask something else"


def test_a_ticket_is_given_only_to_whom_it_is_for() -> None:
    """A router that names a method that was not offered gets no secret of another one."""
    worker = rig({**TICKET, "credentials": {"realm1": {"anonymous": {"wampcra": {"authid": "a", "secret": "b"}}}}})
    token, hello = start(worker)
    assert hello["authmethods"] == ["wampcra"]
    worker.answers(token, [4, "ticket", {}])
    assert SECRET not in repr(worker.plane.calls)


# --- SCRAM proves both ---


def test_scram_and_what_the_client_sees_of_it() -> None:
    worker = rig(SCRAM)
    token, hello = start(worker)
    nonce = base64.b64encode(base64.b64decode(hello["authextra"]["nonce"]) + b"router").decode()
    salt = base64.b64encode(b"sixteen octets..").decode()
    asks(worker, token, "scram", {"nonce": nonce, "salt": salt, "iterations": 8, "kdf": "pbkdf2"})
    session = worker.transport.sessions[FRONT]
    proof = session.join._login._used  # type: ignore[union-attr]
    signature = base64.b64encode(proof._server_signature).decode()
    told = {"scram_server_signature": signature, "nonce": nonce, "x_cb_node": "node1"}
    worker.answers(token, [2, 4242, {**WELCOME_DETAILS, "authmethod": "scram", "authextra": told}])
    (link,) = (call for call in worker.did() if call[0] == "link")
    authextra = worker.read(FRONT, link[3])[2]["authextra"]
    assert authextra["x_cb_node"] == "node1"
    assert not {"scram_server_signature", "nonce"} & set(authextra)


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_router_that_cannot_prove_itself_is_left(is_asked: bool) -> None:
    worker = rig(SCRAM, 2)
    token, hello = start(worker)
    if is_asked:
        nonce = base64.b64encode(base64.b64decode(hello["authextra"]["nonce"]) + b"router").decode()
        salt = base64.b64encode(b"sixteen octets..").decode()
        asks(worker, token, "scram", {"nonce": nonce, "salt": salt, "iterations": 8, "kdf": "pbkdf2"})
    worker.answers(token, [2, 4242, {**WELCOME_DETAILS, "authmethod": "anonymous"}])
    said, closed, dial = worker.did()
    assert said == ("send", back_conn(token), [3, {}, "wamp.error.cannot_authenticate"])
    assert closed == ("close", back_conn(token))
    assert connection_of(worker, dial[2]) == "two"


# --- who is refused ---


@pytest.mark.parametrize("item", [TICKET, SIGNED, {"anonymous": {}}, {"anonymous-proxy": {}}])
def test_a_client_that_the_router_refuses(item: dict[str, Any]) -> None:
    """What is about the client is the client's to know, and no other router is asked."""
    worker = rig(item, 2)
    token, _ = start(worker)
    abort = [3, {"message": "banned"}, "com.example.banned"]
    worker.answers(token, abort)
    assert worker.did() == [("close", back_conn(token)), ("send", FRONT, abort), ("close", FRONT, 1000)]
    assert not worker.controller.connections["one"].is_unreachable


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (TICKET, "wamp.error.authentication_failed"),
        (TICKET, "wamp.error.no_auth_method"),
        (SCRAM, "wamp.error.no_such_principal"),
        (SIGNED, "wamp.error.not_authorized"),
        ({"anonymous": {}}, "wamp.error.no_matching_auth_method"),
    ],
)
def test_a_proxy_that_the_router_refuses(item: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    worker = rig(item, 2)
    token, _ = start(worker)
    with caplog.at_level(logging.WARNING):
        worker.answers(token, [3, {"message": f"wrong: {SECRET}"}, reason])
        closed, dial = worker.did()
        assert closed == ("close", back_conn(token))
        assert connection_of(worker, dial[2]) == "two"
        assert worker.controller.connections["one"].is_unreachable, "others go elsewhere first"
        worker.answers(dial[2], [3, {}, reason])
    worker.plane.calls.pop(0)
    told, text = abort_of(worker)
    assert told == NETWORK_FAILURE
    assert text.count("does not let the proxy log in") == 2
    assert SECRET not in text + caplog.text
    assert f"connection one does not let the proxy log in (the router says {reason})" in caplog.text


def test_an_anonymous_login_that_fails_is_the_clients() -> None:
    worker = rig({"anonymous": {}})
    token, _ = start(worker)
    worker.answers(token, [3, {}, "wamp.error.authentication_failed"])
    assert worker.did()[1] == ("send", FRONT, [3, {}, "wamp.error.authentication_failed"])


def test_a_question_that_takes_too_long_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it, and the next router is asked."""
    given_up: list[Any] = []
    monkeypatch.setattr(Derived, "get", lambda self, how, compute: Deferred(given_up.append))
    worker = rig({"wampcra": {"authid": "proxy1", "secret": SECRET}}, 2, timeouts={"join": 3000})
    token, _ = start(worker)
    worker.answers(token, [4, "wampcra", {"challenge": "c", "salt": "s", "iterations": 1_000_000, "keylen": 32}])
    worker.clock.advance(2.9)
    assert worker.did() == []
    worker.clock.advance(0.2)
    assert len(given_up) == 1
    (name, conn, (code, *_)), closed, dial = worker.did()
    assert (name, conn, code, closed) == ("send", back_conn(token), 3, ("close", back_conn(token)))
    assert connection_of(worker, dial[2]) == "two"
    # A client that leaves meanwhile leaves nothing behind.
    worker.answers(dial[2], [4, "wampcra", {"challenge": "c", "salt": "s", "iterations": 1_000_000, "keylen": 32}])
    worker.front(EV_CLOSED, CLOSED_PEER)
    assert len(given_up) == 2
    assert worker.clock.getDelayedCalls() == []


# --- accounts by realm and role ---


def test_accounts_by_realm_and_role() -> None:
    worker = rig({**TICKET, "credentials": {"realm1": {"anonymous": {"ticket": {"authid": "a", "ticket": "t2"}}}}})
    token, hello = start(worker)
    assert hello["authid"] == "a"
    assert asks(worker, token, "ticket", {}) == [5, "t2", {}]
    worker = rig({**TICKET, "credentials": {"realm1": {"other": {"ticket": {"authid": "a", "ticket": "t2"}}}}})
    assert start(worker)[1]["authid"] == "proxy1"


def test_a_realm_and_role_without_an_account() -> None:
    worker = rig({"credentials": {"realm1": {"other": TICKET}}})
    worker.open()
    worker.says(HELLO)
    reason, text = abort_of(worker)
    assert reason == NETWORK_FAILURE
    assert 'connection "one" has no account for realm "realm1" and role "anonymous"' in text


# --- permit ---


@pytest.mark.parametrize(
    ("permit", "is_fine"),
    [
        ({}, True),
        ({"realms": ["realm?", "x"], "roles": ["anon*"]}, True),
        ({"realms": ["realm"]}, False),
        ({"roles": ["Anonymous", "user"]}, False),
        ({"realms": ["*"], "roles": ["[!a]*"]}, False),
    ],
)
def test_a_route_that_names_what_is_not_permitted(permit: dict[str, Any], is_fine: bool) -> None:
    worker = Rig()
    item = {"transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": "/run/x"}}, "permit": permit}
    worker.controller.start_proxy_connection("limited", item)
    if is_fine:
        worker.controller.start_proxy_realm_route("realm1", {"anonymous": "limited"})
        return
    with pytest.raises(InvalidConfiguration, match=r'role "anonymous": the permit of connection "limited"'):
        worker.controller.start_proxy_realm_route("realm1", {"anonymous": ["one", "limited"]})


def test_the_last_defence() -> None:
    """A connection that came to be under a route that it does not permit."""
    worker = Rig(2)
    worker.controller.stop_proxy_connection("one", force=True)
    item = {"transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": "/run/x"}}}
    worker.controller.start_proxy_connection("one", item | {"permit": {"roles": ["user"]}})
    for number in range(2):
        worker.open(FRONT + number)
        worker.says(HELLO, conn=FRONT + number)
        token, _ = worker.dialled()
        assert connection_of(worker, token) == "two"
        worker.back(token, EV_CLOSED, REFUSED)
        worker.plane.take()


# --- secrets ---


def test_no_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        worker = rig(
            {
                **TICKET,
                **SCRAM,
                "wampcra": {"authid": "proxy1", "secret": SECRET, "authextra": {"k": SECRET}},
                "cryptosign": {"privkey": PRIVATE},
                "credentials": {"realm1": {"user": TICKET}},
            }
        )
    connection = worker.controller.connections["one"]
    shown = repr(worker.controller.get_proxy_connection("one")) + repr(connection.model) + caplog.text
    assert SECRET not in shown
    assert PRIVATE not in shown
    assert worker.controller.get_proxy_connection("one")["config"]["auth"]["ticket"]["authid"] == "proxy1"


def test_secrets_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_TICKET", "from outside")
    worker = rig({"ticket": {"authid": "proxy1", "ticket": "${PROXY_TICKET}"}})
    token, _ = start(worker)
    assert asks(worker, token, "ticket", {}) == [5, "from outside", {}]


def test_an_anonymous_connection_needs_no_key(tmp_path: Path) -> None:
    Rig()
    assert not list(tmp_path.iterdir())
