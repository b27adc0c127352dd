"""Logins that are passed on to the routers: every method of theirs, real clients, and each loss on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import missing, session_count
from support import raw
from support.attacks import prover_of
from support.clients import find_node, install_js
from support.deciding import PASSTHROUGH, Callee, DecidingCrossbar, DecidingXconn, backend
from support.endpoints import Endpoint
from support.logins import CLIENTS, Login, LoginDriver
from support.principals import PRINCIPALS, ROLE
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, AUTHENTICATE, CHALLENGE, GOODBYE, HELLO, WELCOME, Peer, hello
from support.raw_logins import Prover, log_in
from support.routers import META_REALM, REALM, find_crossbar
from support.stub import ROUTER_ROLES, StubRouter

KINDS = ("websocket", "rawsocket")
SERIALIZERS = ("json", "msgpack", "cbor")
XCONN_METHODS = ("anonymous", "ticket", "wampcra", "cryptosign")
VIOLATION = "wamp.error.protocol_violation"


@pytest.fixture(scope="module")
def crossbar_that_decides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecidingCrossbar]:
    """Crossbar.io that knows the principals."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    router = DecidingCrossbar(tmp_path_factory.mktemp("deciding"), program)
    router.wait_ready()
    callee = Callee(router.direct["rs-unix"])
    yield router
    callee.stop()
    router.stop()


@pytest.fixture(scope="module")
def xconn_that_decides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecidingXconn]:
    """xconn's router that knows the principals."""
    router = DecidingXconn(tmp_path_factory.mktemp("deciding_xconn"))
    router.wait_ready()
    callee = Callee(router.direct["rs-unix"], knows_sessions=True)
    yield router
    callee.stop()
    router.stop()


@pytest.fixture(scope="module")
def crossbar_proxy(
    crossbar_that_decides: DecidingCrossbar, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    """A proxy in front of Crossbar.io.

    Endpoints ``<kind>``, ``proxy/<kind>`` (with session IDs of the proxy's), ``cbor`` (the router speaks nothing else),
    and ``mixed``, which decides tickets itself.
    """
    router = crossbar_that_decides
    before = session_count(router)
    config = Config(tmp_path_factory.mktemp("passthrough"))
    for kind, endpoint in router.deciding.items():
        config.backend(kind, backend(endpoint), role=kind)
        auth = {"passthrough": {"role": kind}}
        config.listen(kind, kind, auth=auth)
        config.listen(kind, f"proxy/{kind}", auth=auth, session_ids="proxy")
    config.backend("cbor", backend(router.deciding["rawsocket"], serializers=["cbor"]), role="cbor")
    config.listen("websocket", "cbor", auth={"passthrough": {"role": "cbor"}})
    config.backend("asserting", router.backends["crossbar"], role=ROLE)
    ticket = {"type": "static", "principals": {"tina": {"ticket": "of the proxy", "role": ROLE}}}
    config.listen("rawsocket", "mixed", auth={"ticket": ticket, "passthrough": {"role": "rawsocket"}})
    proxy = ProxyProcess(config)
    yield proxy
    wait_until(lambda: session_count(router) <= before, "the router's sessions have ended")
    proxy.check_idle()
    proxy.stop()


@pytest.fixture(scope="module")
def xconn_proxy(xconn_that_decides: DecidingXconn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A proxy in front of xconn's router; endpoints by kind."""
    config = Config(tmp_path_factory.mktemp("passthrough_xconn"))
    for kind, endpoint in xconn_that_decides.deciding.items():
        config.backend(kind, backend(endpoint), role=kind)
        config.listen(kind, kind, auth={"passthrough": {"role": kind}})
    proxy = ProxyProcess(config)
    yield proxy
    proxy.check_idle()
    proxy.stop()


@pytest.fixture(scope="module")
def get_login() -> Iterator[Callable[[str], LoginDriver]]:
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


def _login(what: str, *, right: bool = True) -> Login:
    if what == "anonymous":
        return Login("anonymous")
    principal = PRINCIPALS[what]
    return Login(principal.method, principal.authid, principal.secret if right else principal.wrong)


def _library_cases(*methods: str) -> list[Any]:
    return [
        pytest.param(client, what, kind, id=f"{client}-{what}-{kind}")
        for client in CLIENTS
        for what in CLIENTS[client]
        for kind in KINDS
        if not methods or what in methods
    ]


# --- real routers, real clients ---


@pytest.mark.peers
@pytest.mark.parametrize(("client", "what", "kind"), _library_cases())
def test_crossbar_lets_in_who_is_right(client: str, what: str, kind: str, crossbar_proxy, get_login) -> None:
    """Session, identity and session ID are the router's."""
    answer = get_login(client).login(crossbar_proxy.endpoints[kind], _login(what))
    assert "joined" in answer, answer
    told, known = answer["joined"], answer["router"]
    assert answer["sum"] == 5
    assert told["session"] == known["session"]
    assert told["authid"] == known["authid"]
    assert told["authrole"] == known["authrole"] == ("anonymous" if what == "anonymous" else ROLE)
    if what != "anonymous":
        assert told["authid"] == PRINCIPALS[what].authid
    assert known["authmethod"] == _login(what).method
    assert known["authprovider"] == "static"


@pytest.mark.peers
@pytest.mark.parametrize("what", [name for name in PRINCIPALS if name != "scram-pbkdf2"])
def test_crossbar_refuses_who_is_wrong(what: str, crossbar_proxy, crossbar_that_decides, get_login) -> None:
    """The client is told what it would be told without the proxy."""
    driver = get_login("autobahn-python")
    direct = driver.login(crossbar_that_decides.deciding["websocket"], _login(what, right=False))
    answers = [driver.login(crossbar_proxy.endpoints[kind], _login(what, right=False)) for kind in KINDS]
    assert "refused" in direct, direct
    assert answers == [direct, direct]


@pytest.mark.parametrize(("client", "what", "kind"), _library_cases(*XCONN_METHODS))
def test_xconn_lets_in_who_is_right(client: str, what: str, kind: str, xconn_proxy, get_login) -> None:
    """The same at a router that knows nothing of proxies."""
    answer = get_login(client).login(xconn_proxy.endpoints[kind], _login(what))
    assert "joined" in answer, answer
    assert answer["sum"] == 5
    if what != "anonymous":
        assert answer["joined"]["authid"] == PRINCIPALS[what].authid
        assert answer["joined"]["authrole"] == ROLE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["ticket", "wampcra", "cryptosign"])
def test_xconn_refuses_who_is_wrong(what: str, kind: str, xconn_proxy) -> None:
    """The router's word."""
    peer = raw.dial(xconn_proxy.endpoints[kind])
    assert log_in(peer, prover_of(what, right=False))[::2] == [ABORT, "wamp.error.authentication_failed"]
    assert peer.recv_end()[0] == []


# --- the raw message exchange ---


@pytest.mark.peers
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", list(PRINCIPALS))
def test_every_method_in_every_serializer(what: str, kind: str, serializer: str, crossbar_proxy) -> None:
    """As the specification has it, without a library; SCRAM with both key derivations."""
    peer, prover = raw.dial(crossbar_proxy.endpoints[kind], serializer), prover_of(what)
    answer = log_in(peer, prover)
    assert answer[0] == WELCOME, answer
    assert peer.call("wamp.session.get", peer.session)["authid"] == prover.authid
    if prover.server_signature:
        assert answer[2]["authextra"]["scram_server_signature"] == prover.server_signature
    peer.leave()


@pytest.mark.peers
@pytest.mark.parametrize("name", ["websocket", "rawsocket", "proxy/websocket", "proxy/rawsocket"])
def test_session_id_that_was_signed(name: str, crossbar_proxy) -> None:
    """The ID in the challenge of WAMP-CRA is that of WELCOME, also where the proxy draws the IDs of its own logins."""
    peer, prover = raw.dial(crossbar_proxy.endpoints[name]), prover_of("wampcra")
    peer.send(hello(authmethods=["wampcra"], authid=prover.authid))
    extra = peer.recv_type(CHALLENGE)[2]
    peer.send([AUTHENTICATE, prover.sign(extra), {}])
    welcome = peer.recv_type(WELCOME)
    assert f'"session":{welcome[1]}' in extra["challenge"].replace(" ", "")
    assert peer.call("wamp.session.get", welcome[1])["session"] == welcome[1]
    peer.leave()


@pytest.mark.peers
@pytest.mark.parametrize("what", list(PRINCIPALS))
def test_translated(what: str, crossbar_proxy) -> None:
    """A JSON client at a router that speaks CBOR only."""
    peer = raw.dial(crossbar_proxy.endpoints["cbor"], "json")
    assert log_in(peer, prover_of(what))[0] == WELCOME
    assert peer.call("com.example.sum", 2, 3) == 5
    peer.leave()


@pytest.mark.peers
def test_one_connection_many_sessions(crossbar_proxy) -> None:
    """After GOODBYE a client may log in again over its connection, as somebody else."""
    peer = raw.dial(crossbar_proxy.endpoints["websocket"])
    for what in ("ticket", "wampcra", "cryptosign", "ticket"):
        assert log_in(peer, prover_of(what))[0] == WELCOME
        assert peer.call("wamp.session.get", peer.session)["authid"] == PRINCIPALS[what].authid
        peer.goodbye()
        peer._request = 0
    peer.close()


@pytest.mark.peers
def test_mixed_with_local_methods(crossbar_proxy) -> None:
    """What the transport decides itself, it decides; the rest goes to the router, and each has its own secrets."""
    endpoint = crossbar_proxy.endpoints["mixed"]
    for prover, is_right in (
        (Prover("ticket", "tina", "of the proxy"), True),
        (prover_of("ticket"), False),
        (prover_of("wampcra"), True),
        (prover_of("wampcra", right=False), False),
    ):
        peer = raw.dial(endpoint)
        answer = log_in(peer, prover)
        assert (answer[0] == WELCOME) is is_right, answer
        peer.close()


@pytest.mark.peers
def test_methods_for_the_router_only(crossbar_proxy) -> None:
    """Of a client's methods the router sees those that are left to it: the ticket it knows is not asked for."""
    peer = raw.dial(crossbar_proxy.endpoints["mixed"])
    peer.send(hello(authmethods=["wampcra", "ticket"], authid="tina"))
    answer = peer.recv_type(CHALLENGE, ABORT)
    assert answer[1] != "ticket", answer
    peer.close()


# --- a router by hand ---


@pytest.fixture
def stub(tmp_path) -> Any:
    """A router played by the test."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as router:
        yield router


@pytest.fixture
def stage(stub: StubRouter, config: Config, make_proxy) -> ProxyProcess:
    """A proxy in front of it; endpoints by kind."""
    config.backend("stub", backend(stub.endpoint) | {"timeouts": {"join": 400}}, role="passthrough")
    for kind in KINDS:
        config.listen(kind, kind, auth=PASSTHROUGH, limits={"hello_timeout": 600})
    proxy: ProxyProcess = make_proxy(config)
    return proxy


def _asked(stage: ProxyProcess, stub: StubRouter, kind: str = "rawsocket") -> tuple[Peer, Peer]:
    """A client that has been asked, and the router's end."""
    client = raw.dial(stage.endpoints[kind])
    client.send(hello(authmethods=["ticket"], authid="me"))
    router, _ = stub.accept_hello()
    router.send([CHALLENGE, "ticket", {"hint": 1}])
    assert client.recv() == [CHALLENGE, "ticket", {"hint": 1}]
    return client, router


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_what_the_router_is_told(serializer: str, stage: ProxyProcess, stub: StubRouter) -> None:
    """All that the client said of itself, nothing that is the proxy's to say, and no credential of the connection."""
    secrets = {"Cookie": "cbtid=top-secret", "Authorization": "Bearer top-secret"}
    peer = raw.dial(stage.endpoints["websocket"], serializer, **secrets)
    extra = {"pubkey": "ab", "trustroot": None, "n": [1, {"x": 1.5}], "proxy_authid": "r", "transport": 1, "x_cb_y": 2}
    methods = ["anonymous-proxy", "tls", "ticket", "own"]
    peer.send(hello(authmethods=methods, authid="me", authrole="wish", authextra=extra))
    router, message = stub.accept_hello()
    assert message[:2] == [HELLO, REALM]
    details = message[2]
    assert details["authmethods"] == ["ticket", "own"]
    assert (details["authid"], details["authrole"]) == ("me", "wish")
    assert details["authextra"] == {"pubkey": "ab", "trustroot": None, "n": [1, {"x": 1.5}]}
    assert "top-secret" not in repr(message)
    router.send([CHALLENGE, "own", {"bytes": "x", "deep": [{"a": [None]}]}])
    assert peer.recv() == [CHALLENGE, "own", {"bytes": "x", "deep": [{"a": [None]}]}]
    peer.send([AUTHENTICATE, "signature", {"extra": [1]}])
    assert router.recv() == [AUTHENTICATE, "signature", {"extra": [1]}]
    router.send([WELCOME, 7, {"roles": ROUTER_ROLES, "authid": "me too", "authrole": "r", "authmethod": "own", "z": 1}])
    welcome = peer.recv_type(WELCOME)
    assert (welcome[1], welcome[2]["authid"], welcome[2]["authmethod"], welcome[2]["z"]) == (7, "me too", "own", 1)
    peer.close()


@pytest.mark.parametrize("phase", ["hello", "challenge", "authenticate"])
def test_refused_by_the_router(phase: str, stage: ProxyProcess, stub: StubRouter) -> None:
    """ABORT arrives as it is, at every step."""
    if phase == "hello":
        client = raw.dial(stage.endpoints["rawsocket"])
        client.send(hello(authmethods=["ticket"], authid="me"))
        router, _ = stub.accept_hello()
    else:
        client, router = _asked(stage, stub)
    if phase == "authenticate":
        client.send([AUTHENTICATE, "x", {}])
        router.recv_type(AUTHENTICATE)
    router.send([ABORT, {"message": "because", "n": [1]}, "com.example.error.no", ["a"], {"k": 1}])
    if phase == "challenge":
        # A router that changes its mind is heard once the client has answered.
        client.send([AUTHENTICATE, "x", {}])
    messages, _ = client.recv_end()
    assert messages == [[ABORT, {"message": "because", "n": [1]}, "com.example.error.no", ["a"], {"k": 1}]]
    router.close()


@pytest.mark.parametrize("phase", ["hello", "challenge", "authenticate"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_client_is_lost(kind: str, phase: str, stage: ProxyProcess, stub: StubRouter) -> None:
    """The router's connection is closed at once."""
    if phase == "hello":
        client = raw.dial(stage.endpoints[kind])
        client.send(hello(authmethods=["ticket"], authid="me"))
        router, _ = stub.accept_hello()
    else:
        client, router = _asked(stage, stub, kind)
    if phase == "authenticate":
        client.send([AUTHENTICATE, "x", {}])
        router.recv_type(AUTHENTICATE)
    client.close()
    messages, _ = router.recv_end()
    assert messages == []


@pytest.mark.parametrize("phase", ["challenge", "authenticate"])
def test_the_router_is_lost(phase: str, stage: ProxyProcess, stub: StubRouter) -> None:
    """The client is told, and no other router gets an answer that was not for it."""
    client, router = _asked(stage, stub)
    if phase == "authenticate":
        client.send([AUTHENTICATE, "top-secret", {}])
        router.recv_type(AUTHENTICATE)
    router.close()
    if phase == "challenge":
        client.send([AUTHENTICATE, "top-secret", {}])
    messages, _ = client.recv_end()
    assert [message[::2] for message in messages] == [[ABORT, "wamp.error.network_failure"]]
    assert "top-secret" not in stage.child.output
    stub.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        stub.accept_wire()


@pytest.mark.parametrize("phase", ["hello", "authenticate"])
def test_the_router_says_nothing(phase: str, stage: ProxyProcess, stub: StubRouter) -> None:
    """The deadline for the join ends it, counted anew from each answer."""
    if phase == "hello":
        client = raw.dial(stage.endpoints["rawsocket"])
        client.send(hello(authmethods=["ticket"], authid="me"))
        router, _ = stub.accept_hello()
    else:
        client, router = _asked(stage, stub)
        client.send([AUTHENTICATE, "x", {}])
        router.recv_type(AUTHENTICATE)
    messages, _ = client.recv_end()
    assert [message[::2] for message in messages] == [[ABORT, "wamp.error.network_failure"]]
    assert "did not answer in time" in messages[0][1]["message"]
    assert router.recv_end()[0] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_says_nothing(kind: str, stage: ProxyProcess, stub: StubRouter) -> None:
    """A client that is asked has as long as it had for HELLO; then the router's connection is closed, too."""
    client, router = _asked(stage, stub, kind)
    messages, _ = client.recv_end()
    assert all(message[0] == ABORT for message in messages)
    assert router.recv_end()[0] == []


def test_the_client_thinks_longer_than_the_router_may(stub: StubRouter, config: Config, make_proxy) -> None:
    """The router's deadline does not run while it is the client's turn."""
    config.backend("stub", backend(stub.endpoint) | {"timeouts": {"join": 300}}, role="passthrough")
    config.listen("rawsocket", "rawsocket", auth=PASSTHROUGH)
    client, router = _asked(make_proxy(config), stub)
    client.expect_silence(0.8)
    client.send([AUTHENTICATE, "x", {}])
    router.recv_type(AUTHENTICATE)
    router.send([WELCOME, 7, {"roles": ROUTER_ROLES}])
    assert client.recv_type(WELCOME)[1] == 7
    client.close()


def test_rules_choose_the_router(tmp_path, config: Config, make_proxy) -> None:
    """By authid, method and realm: each login comes to its router."""
    rules = [
        {"authid": "*@a.example", "role": "a"},
        {"authmethods": ["cryptosign"], "role": "b"},
        {"realm": "realm2", "role": "c"},
    ]
    stubs = {name: StubRouter(Endpoint("rawsocket", path=str(tmp_path / f"{name}.sock"))) for name in "abcd"}
    for name, stub in stubs.items():
        realm = META_REALM if name == "c" else REALM
        config.backend(name, backend(stub.endpoint), role={"d": "passthrough"}.get(name, name), realm=realm)
    front = config.listen("rawsocket", auth={"passthrough": {"rules": rules}})
    make_proxy(config)
    for name, realm, authid, method in (
        ("a", REALM, "joe@a.example", "ticket"),
        ("a", REALM, "joe@a.example", "cryptosign"),
        ("b", REALM, "joe@b.example", "cryptosign"),
        ("c", META_REALM, "joe", "ticket"),
        ("d", REALM, "joe", "ticket"),
    ):
        peer = raw.dial(front)
        peer.send(hello(realm, authmethods=[method], authid=authid))
        _, message = stubs[name].accept_session(5)
        assert message[1:2] == [realm]
        assert peer.recv_type(WELCOME)[1] == 5
        peer.close()
    for stub in stubs.values():
        stub.close()


def test_after_the_join_it_is_a_session_like_any_other(stage: ProxyProcess, stub: StubRouter) -> None:
    """AUTHENTICATE and HELLO after WELCOME are violations, which the router gets as a GOODBYE."""
    for message in ([AUTHENTICATE, "x", {}], hello()):
        client, router = _asked(stage, stub)
        client.send([AUTHENTICATE, "x", {}])
        router.recv_type(AUTHENTICATE)
        router.send([WELCOME, 7, {"roles": ROUTER_ROLES}])
        client.recv_type(WELCOME)
        client.send(message)
        assert [answer[::2] for answer in client.recv_end()[0]] == [[ABORT, VIOLATION]]
        assert [answer[0] for answer in router.recv_end()[0]] == [GOODBYE]
