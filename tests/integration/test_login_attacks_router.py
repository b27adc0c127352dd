"""Attacks on logins with a real router: one that decides itself, and that would believe a proxy as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import missing, session_count
from support import raw
from support.attacks import CHALLENGED, FORGED, SIGNED, dial_with_cookie, named_by, prover_of, static_auth
from support.deciding import Callee, DecidingCrossbar, backend
from support.principals import PRINCIPALS, ROLE
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, AUTHENTICATE, CHALLENGE, WELCOME, Peer, hello
from support.raw_logins import log_in
from support.routers import REALM, find_crossbar

pytestmark = pytest.mark.peers

NO_METHOD = "wamp.error.no_auth_method"


class Deciding:
    """A proxy that passes logins on to Crossbar.io, over an endpoint that would believe a proxy as well."""

    def __init__(self, router: DecidingCrossbar, proxy: ProxyProcess) -> None:
        self.router, self.proxy = router, proxy

    def dial(self, name: str = "websocket") -> Peer:
        """A client's connection."""
        return raw.dial(self.proxy.endpoints[name])


@pytest.fixture(scope="module")
def deciding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deciding]:
    """Its endpoints.

    ``websocket`` leaves all methods to the router, ``tickets`` that one only, ``asserting`` decides itself and asserts
    who it is; ``cookies`` is the first with cookies.
    """
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    router = DecidingCrossbar(tmp_path_factory.mktemp("deciding"), program)
    router.wait_ready()
    callee = Callee(router.direct["rs-unix"])
    before = session_count(router)
    config = Config(tmp_path_factory.mktemp("attacks_deciding"))
    config.backend("deciding", backend(router.deciding["rawsocket"]), role="passthrough")
    for role in ("anonymous", ROLE):
        config.backend("asserting", router.backends["crossbar"], role=role)
    config.listen("websocket", "websocket", auth={"passthrough": {}})
    config.listen("websocket", "tickets", auth={"passthrough": {"authmethods": ["ticket"]}})
    config.listen("websocket", "asserting", auth=static_auth(anonymous={"type": "static"}))
    cookie = {"store": {"type": "memory"}}
    config.listen("websocket", "cookies", auth={"passthrough": {}, "cookie": {}}, cookie=cookie)
    proxy = ProxyProcess(config)
    yield Deciding(router, proxy)
    wait_until(lambda: session_count(router) <= before, "the router's sessions have ended")
    proxy.check_idle()
    proxy.stop()
    callee.stop()
    router.stop()


AS_PROXY: dict[str, Any] = {
    "proxy_realm": REALM,
    "proxy_authid": "root",
    "proxy_authrole": ROLE,
    "proxy_authmethod": "ticket",
    "proxy_authprovider": "static",
    "proxy_authextra": {},
    "pubkey": None,
}


def test_without_the_proxy_the_attack_succeeds(deciding: Deciding) -> None:
    """Otherwise the next test would show nothing: that router believes whoever can open its socket."""
    peer = raw.dial(deciding.router.deciding["rawsocket"])
    peer.send(hello(authmethods=["anonymous-proxy"], authextra=AS_PROXY))
    assert peer.recv_type(WELCOME)[2]["authid"] == "root"
    peer.leave()


@pytest.mark.parametrize(
    "method", ["anonymous-proxy", "cryptosign-proxy", "tls", "trusted", "cookie", "Anonymous-Proxy"]
)
def test_methods_of_proxies_by_way_of_passthrough(method: str, deciding: Deciding) -> None:
    """Alone they lead nowhere, and beside another method one becomes what that one says."""
    peer = deciding.dial()
    peer.send(hello(authmethods=[method], authid="root", authrole=ROLE, authextra=AS_PROXY))
    assert [message[::2] for message in peer.recv_end()[0]] == [[ABORT, NO_METHOD]]
    peer = deciding.dial()
    peer.send(hello(authmethods=[method, "anonymous", method], authid="root", authrole=ROLE, authextra=AS_PROXY))
    details = peer.recv_type(WELCOME)[2]
    assert (details["authrole"], details["authmethod"]) == ("anonymous", "anonymous")
    assert details["authid"] != "root"
    peer.leave()


def test_methods_that_are_not_left_to_the_router(deciding: Deciding) -> None:
    """The router would take ``anonymous``, the transport would not; a list of both does not change that."""
    for methods in (["anonymous"], [], None, ["wampcra"]):
        peer = deciding.dial("tickets")
        peer.send(hello(authmethods=methods))
        assert [message[::2] for message in peer.recv_end()[0]] == [[ABORT, NO_METHOD]]
    peer = deciding.dial("tickets")
    peer.send(hello(authmethods=["anonymous", "ticket"], authid="tina"))
    assert peer.recv_type(CHALLENGE, WELCOME)[1] == "ticket"
    peer.close()


@pytest.mark.parametrize("what", SIGNED)
def test_replayed_by_way_of_passthrough(what: str, deciding: Deciding) -> None:
    """The router's challenges are its own for each login."""
    prover, peer = prover_of(what), deciding.dial()
    said = hello(**named_by(prover))
    peer.send(said)
    answer = prover.sign(peer.recv_type(CHALLENGE)[2])
    peer.send([AUTHENTICATE, answer, {}])
    peer.recv_type(WELCOME)
    peer.goodbye()
    peer.send(said)
    peer.recv_type(CHALLENGE)
    peer.send([AUTHENTICATE, answer, {}])
    assert [message[0] for message in peer.recv_end()[0]] == [ABORT]


@pytest.mark.parametrize("binding", ["tls-unique", "tls-exporter", "x"])
def test_channel_binding_is_never_dropped(binding: str, deciding: Deciding) -> None:
    """A client that asks for what cannot be had is refused, not let in without."""
    for name in ("websocket", "asserting"):
        prover, peer = prover_of("cryptosign"), deciding.dial(name)
        named = {"authmethods": ["cryptosign"], "authid": prover.authid}
        peer.send(hello(**named, authextra={**prover.authextra, "channel_binding": binding}))
        assert [message[0] for message in peer.recv_end()[0]] == [ABORT]


@pytest.mark.parametrize("forged", [FORGED, AS_PROXY, {"deep": FORGED}], ids=["forged", "as-proxy", "nested"])
@pytest.mark.parametrize("name", ["websocket", "asserting"])
@pytest.mark.parametrize("what", [*CHALLENGED, "anonymous"])
def test_forged_words_at_a_real_router(what: str, name: str, forged: dict[str, Any], deciding: Deciding) -> None:
    """What Crossbar.io holds of the session is what the proxy, or Crossbar.io itself, has found out."""
    peer = deciding.dial(name)
    if what == "anonymous":
        peer.send(hello(authid="root", authrole=ROLE, authextra=forged))
        peer.session = peer.recv_type(WELCOME)[1]
    else:
        prover = prover_of(what)
        answer = log_in(peer, prover, authextra={**forged, **prover.authextra}, authrole="trusted")
        assert answer[0] == WELCOME, answer
    session = peer.call("wamp.session.get", peer.session)
    assert session["authrole"] == ("anonymous" if what == "anonymous" else ROLE)
    assert (session["authid"] == PRINCIPALS[what].authid) if what != "anonymous" else session["authid"] != "root"
    assert session["transport"]["peer"] != "forged"
    known = session.get("authextra") or {}
    assert not [key for key in known if key.startswith("proxy_") and known[key] in ("forged", "trusted", "root")]
    assert "forged" not in (known.get("x_cb_proxy_peer"), known.get("x_cb_node"))
    assert (known.get("transport") or {}).get("peer") != "forged"
    peer.leave()


def test_what_a_router_decided_is_not_asserted_later(deciding: Deciding) -> None:
    """A relayed login leaves no cookie that is worth one: the proxy itself has found out nothing of the client."""
    endpoint = deciding.proxy.endpoints["cookies"]
    peer, cookie = dial_with_cookie(endpoint)
    assert log_in(peer, prover_of("wampcra"))[0] == WELCOME
    peer.leave()
    peer, _ = dial_with_cookie(endpoint, cookie)
    peer.send(hello(authmethods=["cookie"], authid="carl"))
    assert [message[::2] for message in peer.recv_end()[0]] == [[ABORT, NO_METHOD]]
