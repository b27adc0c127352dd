"""How the proxy logs in at real routers: asserted identities with and without the node's key, and accounts."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from conftest import missing
from proxy.nodekey import NodeKey
from support.controllers import ServiceWorker
from support.endpoints import Endpoint, free_port
from support.nodes import Node, proxy_worker, router_worker, running
from support.principals import PRINCIPALS, Principal, static
from support.principals import ROLE as ACCOUNT_ROLE
from support.process import Child, wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, AUTHENTICATE, CHALLENGE, WELCOME, dial, hello, joined
from support.routers import REALM, ROOT, CrossbarRouter, XconnRouter, find_crossbar
from support.stub import StubRouter

pytestmark = pytest.mark.peers

NETWORK_FAILURE = "wamp.error.network_failure"
NODE_ID = socket.gethostname().lower()
WORKER_ID = "node7"
"""The authid of the workers that tests call."""
ROLE = "backend"
SECRET_KEYS = {"ticket": "ticket", "wampcra": "secret", "scram": "password", "cryptosign": "privkey"}
ACCOUNTS = sorted(PRINCIPALS)


def account(principal: Principal, *, wrong: bool = False) -> dict[str, Any]:
    """``auth`` of a connection that logs in as a principal of the router."""
    secret = principal.wrong if wrong else principal.secret
    return {principal.method: {"authid": principal.authid, SECRET_KEYS[principal.method]: secret}}


class KnowingRouter(CrossbarRouter):
    """Crossbar.io that asks for proof: accounts at ``accounts``, nodes at ``nodes`` and ``nodes_unix``.

    :param nodes: public keys of nodes by their authids.
    """

    def __init__(self, directory: Path, program: str, nodes: dict[str, str]) -> None:
        self.nodes_known = nodes
        self.accounts = Endpoint("rawsocket", free_port())
        self.accounts_ws = Endpoint("websocket", free_port())
        self.nodes = Endpoint("rawsocket", free_port())
        self.nodes_ws = Endpoint("websocket", free_port())
        self.nodes_unix = Endpoint("rawsocket", path=str(directory / "nodes.sock"))
        super().__init__(directory, program)
        others = (self.accounts, self.accounts_ws, self.nodes, self.nodes_ws, self.nodes_unix)
        self.direct |= {f"{number}": endpoint for number, endpoint in enumerate(others)}

    def _config(self, proxy: Endpoint) -> dict[str, Any]:
        config = super()._config(proxy)
        worker = config["workers"][0]
        for realm in worker["realms"]:
            anonymous = realm["roles"][0]
            realm["roles"] = [*realm["roles"], *({**anonymous, "name": name} for name in (ROLE, "service"))]
        principals = {
            authid: {"realm": REALM, "role": "service", "authorized_keys": [key]}
            for authid, key in self.nodes_known.items()
        }
        nodes = {"cryptosign-proxy": {"type": "static", "principals": principals}}
        methods = {method: static(method) for method in SECRET_KEYS}
        for endpoint, auth in (
            (self.accounts, methods),
            (self.accounts_ws, methods),
            (self.nodes, nodes),
            (self.nodes_ws, nodes),
            (self.nodes_unix, nodes),
        ):
            serializers = ["json", "msgpack", "cbor"]
            item = {"type": endpoint.kind, "endpoint": endpoint.as_config(), "serializers": serializers, "auth": auth}
            worker["transports"].append(item)
        return config


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of node keys, by name; the router knows ``known`` and not ``other``."""
    folder = tmp_path_factory.mktemp("keys")
    paths = {name: folder / name / ".crossbar" / "key.priv" for name in ("known", "other")}
    for path in paths.values():
        NodeKey.load_or_create(path, NODE_ID)
    return paths


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Path]) -> Iterator[KnowingRouter]:
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    public = NodeKey.load(keys["known"]).public
    router = KnowingRouter(tmp_path_factory.mktemp("knowing"), program, {NODE_ID: public, WORKER_ID: public})
    router.wait_ready()
    yield router
    router.stop()


@pytest.fixture(scope="module")
def xconn_router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XconnRouter]:
    known = {}
    for name in ("ticket", "wampcra", "cryptosign"):
        principal = PRINCIPALS[name]
        public = principal.known.get("authorized_keys")
        secret = public[0] if public else principal.secret
        known[principal.authid] = {"method": principal.method, "role": ACCOUNT_ROLE, "secret": secret}
    router = XconnRouter(tmp_path_factory.mktemp("knowing-xconn"), known)
    router.wait_ready()
    yield router
    router.stop()


def connection(endpoint: Endpoint, auth: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"transport": endpoint.as_backend(), "auth": auth, **keys}


def give_key(folder: Path, source: Path) -> None:
    """Have the proxy of a folder find a key."""
    target = folder / ".crossbar" / "key.priv"
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    target.chmod(0o600)


# --- accounts ---


@pytest.fixture(scope="module")
def accounts_proxy(router: KnowingRouter, xconn_router: XconnRouter, tmp_path_factory: Any) -> Iterator[ProxyProcess]:
    """A role for each account and router, good and wrong; what a client asks for is its transport."""
    config = Config(tmp_path_factory.mktemp("accounts"))
    for name, principal in PRINCIPALS.items():
        for wrong in (False, True):
            auth = account(principal, wrong=wrong)
            for place, endpoint in _places(router, xconn_router, name).items():
                role = f"{name}_{place}_{'wrong' if wrong else 'good'}".replace("-", "_")
                config.backend(role, connection(endpoint, auth), role=role)
                config.listen("rawsocket", role, role=role)
    proxy = ProxyProcess(config, log_level="debug")
    yield proxy
    output = proxy.child.output
    proxy.stop()
    proxy.check_log()
    for principal in PRINCIPALS.values():
        assert principal.secret not in output
        assert principal.wrong not in output


def _places(router: KnowingRouter, xconn_router: XconnRouter, name: str) -> dict[str, Endpoint]:
    places = {"crossbar": router.accounts, "crossbar_ws": router.accounts_ws}
    if name in ("ticket", "wampcra", "cryptosign"):
        places["xconn"] = xconn_router.direct["ws-tcp"]
    return places


def _cases() -> list[tuple[str, str]]:
    places = ("crossbar", "crossbar_ws", "xconn")
    return [(n, p) for n in ACCOUNTS for p in places if p != "xconn" or n in ("ticket", "wampcra", "cryptosign")]


@pytest.mark.parametrize(("name", "place"), _cases())
def test_an_account(accounts_proxy: ProxyProcess, router: KnowingRouter, name: str, place: str) -> None:
    principal = PRINCIPALS[name]
    role = f"{name}_{place}_good".replace("-", "_")
    for _ in range(2):  # the second time the keys are known
        with joined(
            accounts_proxy.endpoints[role], authid="client", authextra={"mine": 1, "proxy_authid": "x"}
        ) as peer:
            details = peer.welcome[2]
            assert (details["authid"], details["authrole"]) == (principal.authid, ACCOUNT_ROLE)
            assert details["authmethod"] == "anonymous", "how the client logged in"
            assert not {"scram_server_signature", "pubkey", "proxy_authid"} & set(details["authextra"])
            if place != "xconn":
                shown = peer.call("wamp.session.get", peer.session)
                assert (shown["authid"], shown["authmethod"]) == (principal.authid, principal.method)
            peer.leave()


@pytest.mark.parametrize(("name", "place"), _cases())
def test_an_account_with_a_wrong_secret(accounts_proxy: ProxyProcess, name: str, place: str) -> None:
    role = f"{name}_{place}_wrong".replace("-", "_")
    peer = dial(accounts_proxy.endpoints[role])
    peer.send(hello())
    _, details, reason = peer.recv_type(ABORT)
    assert reason == NETWORK_FAILURE
    assert f'connection "{role}" does not let the proxy log in' in details["message"]
    peer.close()
    accounts_proxy.child.wait_line(f"connection {role} does not let the proxy log in", errors=True)


def test_a_wrong_account_leaves_its_clients_to_the_next_connection(
    router: KnowingRouter, tmp_path: Path, make_proxy: Callable[..., ProxyProcess]
) -> None:
    config = Config(tmp_path / "next")
    config.backend("wrong", connection(router.accounts, account(PRINCIPALS["ticket"], wrong=True)))
    config.backend("right", connection(router.accounts, account(PRINCIPALS["scram-pbkdf2"])))
    front = config.listen()
    make_proxy(config)
    for _ in range(3):
        with joined(front) as peer:
            assert peer.welcome[2]["authid"] == "paul"
            peer.leave()


def test_several_methods_of_which_the_router_picks_one(
    router: KnowingRouter, tmp_path: Path, make_proxy: Callable[..., ProxyProcess]
) -> None:
    tina = PRINCIPALS["ticket"]
    both = {**account(tina), "wampcra": {"authid": tina.authid, "secret": "of no use"}}
    config = Config(tmp_path / "several").backend("router1", connection(router.nodes, both))
    config.backend("router2", connection(router.accounts, {"anonymous": {}, **account(tina)}), role="two")
    first, second = config.listen(), config.listen(role="two")
    make_proxy(config)
    with joined(second) as peer:
        assert peer.welcome[2]["authid"] == tina.authid
        peer.leave()
    peer = dial(first)
    peer.send(hello())
    assert peer.recv_type(ABORT)[2] == NETWORK_FAILURE, "the router has none of them"
    peer.close()


def test_accounts_by_realm_and_role(
    router: KnowingRouter, tmp_path: Path, make_proxy: Callable[..., ProxyProcess]
) -> None:
    credentials = {REALM: {"user": account(PRINCIPALS["cryptosign"]), "staff": account(PRINCIPALS["wampcra-salted"])}}
    item = connection(router.accounts, {**account(PRINCIPALS["ticket"]), "credentials": credentials})
    config = Config(tmp_path / "credentials")
    fronts = {}
    for role in ("user", "staff", "guest"):
        config.backend("router1", item, role=role)
        fronts[role] = config.listen(role=role)
    make_proxy(config)
    for role, authid in (("user", "ada"), ("staff", "sally"), ("guest", "tina")):
        with joined(fronts[role]) as peer:
            assert peer.welcome[2]["authid"] == authid
            peer.leave()


# --- asserted identities ---


@pytest.mark.parametrize("way", ["nodes", "nodes_ws", "nodes_unix"])
def test_cryptosign_proxy(
    router: KnowingRouter, keys: dict[str, Path], tmp_path: Path, make_proxy: Callable[..., ProxyProcess], way: str
) -> None:
    config = Config(tmp_path / "node")
    config.backend("router1", connection(getattr(router, way), {"cryptosign-proxy": {"type": "static"}}), role=ROLE)
    front = config.listen(auth={"anonymous": {"type": "static", "role": ROLE, "authid": "joe"}})
    give_key(config.directory, keys["known"])
    make_proxy(config)
    with joined(front) as peer:
        details = peer.welcome[2]
        assert (details["authid"], details["authrole"], details["authmethod"]) == ("joe", ROLE, "anonymous")
        shown = peer.call("wamp.session.get", peer.session)
        assert (shown["authid"], shown["authrole"], shown["authmethod"]) == ("joe", ROLE, "cryptosign-proxy")
        peer.leave()


def test_cryptosign_proxy_with_a_key_that_the_router_does_not_know(
    router: KnowingRouter, keys: dict[str, Path], tmp_path: Path, make_proxy: Callable[..., ProxyProcess]
) -> None:
    config = Config(tmp_path / "node")
    config.backend("router1", connection(router.nodes, {"cryptosign-proxy": {}}), role=ROLE)
    front = config.listen(role=ROLE)
    give_key(config.directory, keys["other"])
    proxy = make_proxy(config)
    peer = dial(front)
    peer.send(hello())
    assert peer.recv_type(ABORT)[2] == NETWORK_FAILURE
    peer.close()
    told = "connection router1 does not let the proxy log in"
    wait_until(lambda: told in proxy.child.output, "the log tells")


def test_a_router_that_has_the_key_proven(tmp_path: Path, make_proxy: Callable[..., ProxyProcess]) -> None:
    endpoint = Endpoint("rawsocket", free_port())
    config = Config(tmp_path / "node").backend("router1", connection(endpoint, {"cryptosign-proxy": {}}))
    front = config.listen()
    challenge = bytes(range(32))
    with StubRouter(endpoint) as stub:
        proxy = make_proxy(config)
        path = config.directory / ".crossbar" / "key.priv"
        assert path.stat().st_mode & 0o777 == 0o600, "made at start"
        public = NodeKey.load(path).public
        assert public in proxy.child.output, "whoever configures the router needs it"
        client = dial(front)
        client.send(hello())
        back, (_, _, details) = stub.accept_hello()
        assert (details["authid"], details["authextra"]["pubkey"]) == (NODE_ID, public)
        back.send([CHALLENGE, "cryptosign-proxy", {"challenge": challenge.hex(), "channel_binding": None}])
        _, signature, extra = back.recv_type(AUTHENTICATE)
        octets = bytes.fromhex(signature)
        assert (octets[64:], extra) == (challenge, {})
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(octets[:64], challenge)
        back.send([WELCOME, 4242, {"roles": {"broker": {}, "dealer": {}}, "authid": "joe", "authrole": "anonymous"}])
        assert client.recv_type(WELCOME)[1] == 4242
        client.close()


def test_a_key_that_others_may_read_is_an_error_of_the_start(keys: dict[str, Path], tmp_path: Path) -> None:
    config = Config(tmp_path / "node")
    config.backend("router1", connection(Endpoint("rawsocket", free_port()), {"cryptosign-proxy": {}}))
    config.listen()
    give_key(config.directory, keys["known"])
    (config.directory / ".crossbar" / "key.priv").chmod(0o644)
    path = config.directory / "proxy.json"
    path.write_text(json.dumps(config.as_dict()))

    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    child = Child("wamp-proxy", [sys.executable, "-m", "proxy", "run", str(path)], cwd=tmp_path, env=env)
    assert child.process.wait(30) == 1
    child.stop()
    assert "expected mode 0600, has 0644" in child.output
    assert "ready" not in child.output


def test_what_a_connection_does_not_permit(
    router: KnowingRouter, tmp_path: Path, make_proxy: Callable[..., ProxyProcess]
) -> None:
    """No authenticator can make the router believe in a role that the connection does not have."""
    item = router.backends["crossbar"] | {"permit": {"realms": ["realm*"], "roles": [ROLE]}}
    config = Config(tmp_path / "permit").backend("router1", item, role=ROLE)
    front = config.listen(role=ROLE)
    proxy = make_proxy(config)
    with joined(front) as peer:
        peer.leave()
    config.routes[REALM]["trusted"] = "router1"
    refused = Config(tmp_path / "refused")
    refused.connections, refused.routes, refused.transports = config.connections, config.routes, config.transports
    with pytest.raises(AssertionError, match='expected a connection whose permit allows role "trusted"'):
        ProxyProcess(refused)
    proxy.check_idle()


@pytest.mark.slow
def test_under_a_node_the_nodes_own_key_is_used() -> None:
    """The node reads a file that the proxy has made, too."""
    if find_crossbar() is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    front = Endpoint("rawsocket", free_port())
    with tempfile.TemporaryDirectory(prefix="node") as folder:
        public = NodeKey.load_or_create(Path(folder) / "key.priv", "node1").public
        router, proxy = router_worker("router.sock"), proxy_worker("router.sock", front)
        principals = {"node1": {"realm": REALM, "role": "anonymous", "authorized_keys": [public]}}
        router["transports"][0]["auth"] = {"cryptosign-proxy": {"type": "static", "principals": principals}}
        proxy["connections"]["router1"]["auth"] = {"cryptosign-proxy": {"type": "static"}}
        with running(Node(Path(folder), [router, proxy])), joined(front) as peer:
            shown = peer.call("wamp.session.get", peer.session)
            assert (shown["authmethod"], shown["authrole"]) == ("cryptosign-proxy", "anonymous")
            peer.leave()
        assert not (Path(folder) / ".crossbar").exists()


# --- sessions of the proxy's own ---


@pytest.fixture
def worker(tmp_path: Path, keys: dict[str, Path]) -> Iterator[ServiceWorker]:
    give_key(tmp_path, keys["known"])
    worker = ServiceWorker(tmp_path)
    yield worker
    worker.stop()
    for principal in PRINCIPALS.values():
        assert principal.secret not in worker.child.output


@pytest.mark.parametrize("name", ACCOUNTS)
def test_a_service_session_with_an_account(worker: ServiceWorker, router: KnowingRouter, name: str) -> None:
    endpoint = router.accounts_ws if name == "scram-argon2id" else router.accounts
    worker("start_proxy_connection", "cnc1", connection(endpoint, account(PRINCIPALS[name])))
    worker.route("cnc1", role=ROLE)
    session = worker.get(ROLE)
    assert (session["authid"], session["authrole"]) == (PRINCIPALS[name].authid, ACCOUNT_ROLE)
    shown = worker("call", REALM, ROLE, "wamp.session.get", session["session"])
    assert shown["authmethod"] == PRINCIPALS[name].method


@pytest.mark.parametrize("name", ["ticket", "wampcra", "cryptosign"])
def test_a_service_session_at_xconns_router(worker: ServiceWorker, xconn_router: XconnRouter, name: str) -> None:
    worker("start_proxy_connection", "cnc1", connection(xconn_router.direct["rs-tcp"], account(PRINCIPALS[name])))
    worker.route("cnc1", role=ROLE)
    assert worker.get(ROLE)["authid"] == PRINCIPALS[name].authid


def test_a_service_session_with_the_nodes_key(worker: ServiceWorker, router: KnowingRouter) -> None:
    worker("start_proxy_connection", "cnc1", connection(router.nodes, {"cryptosign-proxy": {}}))
    worker.route("cnc1", role=ROLE)
    session = worker.get(ROLE)
    assert (session["authid"], session["authrole"]) == (f"proxy-{WORKER_ID}-worker001", ROLE)


@pytest.mark.parametrize("name", ACCOUNTS)
def test_a_service_session_with_a_wrong_secret(worker: ServiceWorker, router: KnowingRouter, name: str) -> None:
    worker("start_proxy_connection", "cnc1", connection(router.accounts, account(PRINCIPALS[name], wrong=True)))
    worker.route("cnc1", role=ROLE)
    text = worker.fails("wamp.error.unavailable", "get_service_session", REALM, ROLE)
    assert 'connection "cnc1": the router refuses it' in text
    assert PRINCIPALS[name].wrong not in text
    worker("start_proxy_connection", "cnc2", connection(router.accounts, account(PRINCIPALS["ticket"])))
    worker.route("cnc2", role=ROLE)
    assert worker.get(ROLE)["authid"] == "tina", "the next connection is tried, and the failure is not remembered"


def test_no_service_session_where_the_router_decides(worker: ServiceWorker, router: KnowingRouter) -> None:
    worker("start_proxy_connection", "cnc1", connection(router.accounts, {"passthrough": {}}))
    worker.route("cnc1", role=ROLE)
    text = worker.fails("wamp.error.unavailable", "get_service_session", REALM, ROLE)
    assert "passthrough" in text
    credentials = {"credentials": {REALM: {"another": account(PRINCIPALS["ticket"])}}}
    worker("start_proxy_connection", "cnc2", connection(router.accounts, credentials))
    worker.route("cnc2", role="third")
    text = worker.fails("wamp.error.unavailable", "get_service_session", REALM, "third")
    assert "has no account for realm" in text


def test_a_service_session_at_a_router_that_cannot_prove_itself(worker: ServiceWorker, tmp_path: Path) -> None:
    endpoint = Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))
    with StubRouter(endpoint) as stub:
        worker("start_proxy_connection", "cnc1", connection(endpoint, account(PRINCIPALS["scram-pbkdf2"])))
        worker.route("cnc1", role=ROLE)
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = stub.accept_session(4242)
        assert peer.recv_type(ABORT)[2] == "wamp.error.cannot_authenticate"
        with pytest.raises(Exception, match="without any proof"):
            worker.answer(number)


def test_a_service_session_at_a_router_that_asks_for_something_else(worker: ServiceWorker, tmp_path: Path) -> None:
    endpoint = Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))
    with StubRouter(endpoint) as stub:
        worker("start_proxy_connection", "cnc1", connection(endpoint, account(PRINCIPALS["ticket"])))
        worker.route("cnc1", role=ROLE)
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = stub.accept_hello()
        peer.send([CHALLENGE, "wampcra", {"challenge": "{}"}])
        assert peer.recv_type(ABORT)[2] == "wamp.error.cannot_authenticate"
        with pytest.raises(Exception, match="the router asks the proxy for 'wampcra', expected ticket"):
            worker.answer(number)
