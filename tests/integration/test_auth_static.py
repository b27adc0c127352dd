"""Principals of the configuration, seen from the wire: what anybody can learn by asking, and what logins lead to.

That the libraries' logins are judged right is shown in test_auth_matrix.py.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.principals import METHODS, PRINCIPALS, ROLE, static
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, AUTHENTICATE, CHALLENGE, WELCOME, Peer, hello
from support.raw_logins import Prover, log_in
from support.routers import CrossbarRouter

pytestmark = pytest.mark.peers

FAILED = "wamp.error.authentication_failed"
REFUSED = [ABORT, {"message": "authentication failed"}, FAILED]
KINDS = ["websocket", "rawsocket"]
ENVIRONMENT = {"TICKET_OF_ERNA": "a ticket from outside"}
AUTH: dict[str, Any] = {method: static(method) for method in METHODS}
AUTH["ticket"]["principals"] |= {
    "erna": {"ticket": "${TICKET_OF_ERNA}", "role": ROLE},
    "moved": {"ticket": "a ticket of Moved's", "realm": "realm1", "authid": "mover", "extra": {"team": "blue"}},
}
AUTH["ticket"]["default-role"] = ROLE
# A salt as people write it, hash functions make it, or everybody has it.
AUTH["wampcra"]["users"]["hal"] = {"secret": "the secret of Hal", "role": ROLE} | {
    "salt": "c2FsdCBvZiBIYWwgaXMgaGVyZQ==",
    "iterations": 50,
    "keylen": 24,
}


def configure(config: Config, crossbar: CrossbarRouter) -> Config:
    """Endpoints ``websocket`` and ``rawsocket``; with ``/own`` those that draw session IDs themselves."""
    config.backend("crossbar", crossbar.backends["crossbar"], role=ROLE)
    for kind in KINDS:
        config.listen(kind, kind, auth=copy.deepcopy(AUTH))
        config.listen(kind, f"{kind}/own", auth=copy.deepcopy(AUTH), session_ids="proxy")
    return config


@pytest.fixture(scope="module")
def proxy(crossbar: CrossbarRouter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A proxy in front of Crossbar.io that logs all it ever says. At the end no secret may have come up."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        proxy = ProxyProcess(configure(Config(tmp_path_factory.mktemp("static")), crossbar), log_level="debug")
    yield proxy
    output = proxy.child.output
    proxy.stop()
    secrets = [principal.secret for principal in PRINCIPALS.values()] + list(ENVIRONMENT.values())
    secrets += [PRINCIPALS["scram-pbkdf2"].known["stored-key"], "a ticket of Moved's", "the secret of Hal"]
    assert [secret for secret in secrets if secret in output] == []


def ask(endpoint: Endpoint, method: str, authid: str) -> tuple[Peer, dict[str, Any]]:
    """Say who one is: the extra of the CHALLENGE."""
    peer = raw.dial(endpoint)
    prover = Prover(method, authid, "11" * 32)
    peer.send(hello(authmethods=[method], authid=authid, authextra=prover.authextra))
    _, name, extra = peer.recv_type(CHALLENGE)
    assert name == method
    return peer, extra


def extra_of(endpoint: Endpoint, method: str, authid: str) -> dict[str, Any]:
    """The same, of a client that leaves it at that."""
    peer, extra = ask(endpoint, method, authid)
    peer.close()
    return extra


# --- what anybody can learn ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_asking_tells_nobody_who_is_known(method: str, kind: str, proxy: ProxyProcess) -> None:
    """Round for round the unknown get what those get who are known and cannot prove it."""
    known = sorted(authid for items in AUTH[method].values() if isinstance(items, dict) for authid in items)
    shapes = {}
    for authid in [*known, *(f"nobody{number}" for number in range(20))]:
        peer, extra = ask(proxy.endpoints[kind], method, authid)
        shapes[authid] = tuple(
            (key, type(value), value if key in ("kdf", "iterations", "memory", "keylen", "channel_binding") else None)
            for key, value in extra.items()
        )
        peer.send([AUTHENTICATE, "AAAA", {}])
        assert peer.recv_type(ABORT) == REFUSED
        peer.close()
    among_known = {shape for authid, shape in shapes.items() if authid in known}
    among_unknown = {shape for authid, shape in shapes.items() if authid not in known}
    assert among_unknown <= among_known


def test_a_challenge_of_nobody_reads_like_one_of_somebody(proxy: ProxyProcess) -> None:
    """WAMP-CRA names authid, role and session in it."""
    texts = [
        json.loads(extra_of(proxy.endpoints["rawsocket"], "wampcra", name)["challenge"]) for name in ("carl", "nobody")
    ]
    for text in texts:
        assert [type(text.pop(key)) for key in ("session", "nonce", "timestamp")] == [int, str, str]
    assert texts[1] == {**texts[0], "authid": "nobody"}


@pytest.mark.parametrize("method", ["wampcra", "scram"])
def test_the_unknown_are_asked_the_same_each_time(
    method: str, proxy: ProxyProcess, crossbar: CrossbarRouter, tmp_path, make_proxy, monkeypatch
) -> None:
    """A salt that changed would tell: with each question, after a restart, or between proxies of a machine."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    other = make_proxy(configure(Config(tmp_path / "other"), crossbar))

    def salts(endpoint: Endpoint) -> dict[str, Any]:
        names = [f"nobody{number}" for number in range(12)]
        return {name: extra_of(endpoint, method, name).get("salt") for name in names}

    first = salts(proxy.endpoints["websocket"])
    assert salts(proxy.endpoints["websocket"]) == first
    assert salts(other.endpoints["websocket"]) == first
    different = [salt for salt in first.values() if salt is not None]
    assert len(set(different)) == len(different) > 1


# --- what logins lead to ---


@pytest.mark.parametrize("transport", [*KINDS, *(f"{kind}/own" for kind in KINDS)])
def test_the_session_that_is_signed_is_the_one_that_is_joined_where_it_can_be(
    transport: str, proxy: ProxyProcess
) -> None:
    """With session IDs of the proxy's own it is known before the router is joined."""
    principal = PRINCIPALS["wampcra"]
    peer, extra = ask(proxy.endpoints[transport], "wampcra", principal.authid)
    peer.send([AUTHENTICATE, Prover("wampcra", principal.authid, principal.secret).sign(extra), {}])
    _, session, details = peer.recv_type(WELCOME)
    named = json.loads(extra["challenge"])["session"]
    assert 1 <= named <= 2**53
    if transport.endswith("own"):
        assert session == named
    assert (details["authid"], details["authrole"]) == (principal.authid, ROLE)
    peer.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_principal_says_goes_before_what_the_client_says(kind: str, proxy: ProxyProcess) -> None:
    """Realm, authid, extra, and the method's default role."""
    peer = raw.dial(proxy.endpoints[kind])
    authextra = {"team": "red", "proxy_authrole": "admin"}
    welcome = log_in(peer, Prover("ticket", "moved", "a ticket of Moved's"), "realm9", authextra=authextra)
    assert welcome[0] == WELCOME, welcome
    details = welcome[2]
    assert (details["realm"], details["authid"], details["authrole"]) == ("realm1", "mover", ROLE)
    known = peer.call("wamp.session.get", peer.session)
    assert (known["authid"], known["authrole"]) == ("mover", ROLE)
    assert known["authextra"]["team"] == "blue"
    peer.leave()


def test_a_secret_from_the_environment(proxy: ProxyProcess) -> None:
    """``${NAME}`` stands for what is there, and is no ticket itself."""
    peer = raw.dial(proxy.endpoints["rawsocket"])
    assert log_in(peer, Prover("ticket", "erna", ENVIRONMENT["TICKET_OF_ERNA"]))[0] == WELCOME
    peer.leave()
    peer = raw.dial(proxy.endpoints["rawsocket"])
    assert log_in(peer, Prover("ticket", "erna", "${TICKET_OF_ERNA}")) == REFUSED
    peer.close()


@pytest.mark.parametrize("name", [name for name in PRINCIPALS if name != "ticket"])
def test_many_logins_of_one_principal_at_once(name: str, proxy: ProxyProcess) -> None:
    """None waits for another, and each is asked something else."""
    principal = PRINCIPALS[name]
    endpoint = proxy.endpoints["rawsocket"]
    provers = [Prover(principal.method, principal.authid, principal.secret) for _ in range(8)]
    peers = [raw.dial(endpoint) for _ in provers]
    asked = []
    for peer, prover in zip(peers, provers, strict=True):
        peer.send(hello(authmethods=[principal.method], authid=principal.authid, authextra=prover.authextra))
        asked.append(peer.recv_type(CHALLENGE)[2])
    assert len({json.dumps(extra) for extra in asked}) == len(asked)
    for peer, prover, extra in reversed(list(zip(peers, provers, asked, strict=True))):
        peer.send([AUTHENTICATE, prover.sign(extra), {}])
    for peer in peers:
        assert peer.recv_type(WELCOME, ABORT)[0] == WELCOME
        peer.close()


@pytest.mark.parametrize("transport", [*KINDS, *(f"{kind}/own" for kind in KINDS)])
@pytest.mark.parametrize("name", ["scram-argon2id", "scram-pbkdf2"])
def test_the_proxy_proves_that_it_knows_the_principal(name: str, transport: str, proxy: ProxyProcess) -> None:
    """WELCOME has its signature, and the router never sees it."""
    principal = PRINCIPALS[name]
    prover, peer = Prover("scram", principal.authid, principal.secret), raw.dial(proxy.endpoints[transport])
    welcome = log_in(peer, prover)
    assert welcome[0] == WELCOME, welcome
    assert welcome[2]["authextra"]["scram_server_signature"] == prover.server_signature
    assert prover.server_signature not in str(peer.call("wamp.session.get", peer.session))
    peer.leave()


def test_the_client_picks_the_method(proxy: ProxyProcess) -> None:
    """The first that it names and that is there; what nobody knows is skipped."""
    prover = Prover("wampcra", PRINCIPALS["wampcra"].authid, PRINCIPALS["wampcra"].secret)
    peer = raw.dial(proxy.endpoints["rawsocket"])
    assert log_in(peer, prover, authmethods=["x-ray", "tls", "wampcra", "ticket"])[0] == WELCOME
    peer.leave()


@pytest.mark.parametrize("binding", ["tls-unique", "tls-exporter"])
def test_no_channel_binding_without_tls(binding: str, proxy: ProxyProcess) -> None:
    """A client that asks for it must not be let in without."""
    principal = PRINCIPALS["cryptosign"]
    prover = Prover("cryptosign", principal.authid, principal.secret)
    peer = raw.dial(proxy.endpoints["rawsocket"])
    answer = log_in(peer, prover, authextra={**prover.authextra, "channel_binding": binding})
    assert (answer[0], answer[2]) == (ABORT, FAILED)
    assert binding in answer[1]["message"]
    peer.close()
