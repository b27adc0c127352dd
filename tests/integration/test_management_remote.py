"""The worker on the management realm of a real router."""

from __future__ import annotations

import hashlib
import hmac
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from proxy.auth.proofs import Cryptosign
from support import raw
from support.endpoints import Endpoint, free_port
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.routers import REALM, CrossbarRouter, Router, XconnRouter, find_crossbar
from support.stub import StubRouter

PREFIX = "crossbar.worker.worker001"
CONNECTION = {
    "transport": {"type": "rawsocket", "endpoint": {"type": "tcp", "host": "127.0.0.1", "port": 1}},
    "auth": {"anonymous": {}},
}


def remote(transport: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """``management`` for a router of the tests, tried again soon."""
    return {"transport": {**transport, "initial_retry_delay": 0.2, "max_retry_delay": 0.5}, "realm": REALM, **keys}


def wait_registered(proxy: ProxyProcess) -> None:
    """Wait for the log line that says so."""
    proxy.child.wait_line("as session", errors=True)


def result(peer: raw.Peer, procedure: str, *args: Any) -> Any:
    """Result of a call, whatever events come before it; an ERROR as it is."""
    request = peer.request()
    peer.send([raw.CALL, request, {}, f"{PREFIX}.{procedure}", list(args)])
    while (message := peer.recv())[0] == raw.EVENT:
        pass
    return message[3][0] if message[0] == raw.RESULT else message


@pytest.mark.peers
@pytest.mark.parametrize(
    ("router_name", "way"),
    [
        ("crossbar", "rs-tcp"),
        ("crossbar", "ws-tcp"),
        ("crossbar", "rs-unix"),
        ("xconn", "ws-tcp"),
        ("xconn", "rs-unix"),
    ],
)
def test_procedures_and_events_on_the_realm_of_a_router(
    router_name: str,
    way: str,
    get_router: Callable[[str], Router],
    config: Config,
    make_proxy: Callable[..., ProxyProcess],
) -> None:
    router = get_router(router_name)
    config.extra["management"] = remote(router.direct[way].as_backend())
    with raw.joined(router.direct["rs-tcp"]) as watcher:
        watcher.subscribe(f"{PREFIX}.on_worker_ready")
        proxy = make_proxy(config)
        ready = watcher.recv_type(raw.EVENT)[4][0]
        assert ready == {"type": "proxy", "id": "worker001", "pid": proxy.pid}
        steps = ("starting", "started")
        topics = [watcher.subscribe(f"{PREFIX}.on_proxy_connection_{step}") for step in steps]
        with raw.joined(router.direct["rs-tcp"]) as client:
            started = result(client, "start_proxy_connection", "cnc1", CONNECTION)
            assert started["id"] == "cnc1"
            assert started["state"] == 3
            assert result(client, "get_proxy_connections") == ["cnc1"]
            error = result(client, "get_proxy_connection", "nobody")
            assert error[4] == "crossbar.error.no_such_object"
            events = [watcher.recv_type(raw.EVENT) for _ in steps]
            assert [event[1] for event in events] == topics
            assert [event[4][0]["state"] for event in events] == [2, 3]
            client.leave()
        proxy.stop()
        # It said goodbye: the names are free for the next one.
        with raw.joined(router.direct["rs-tcp"]) as client:
            error = result(client, "get_proxy_connections")
            assert error[4] == "wamp.error.no_such_procedure"
            client.leave()
        watcher.close()


@pytest.mark.peers
def test_it_waits_for_the_router_and_comes_again(
    config: Config, make_proxy: Callable[..., ProxyProcess], tmp_path: Any
) -> None:
    first = XconnRouter(tmp_path / "router")
    first.wait_ready()
    way = first.direct["rs-unix"]
    config.extra["management"] = remote(way.as_backend())
    proxy = make_proxy(config)
    wait_registered(proxy)
    first.child.stop(signal.SIGKILL)
    proxy.child.wait_line("next attempt in", errors=True)
    second = XconnRouter(tmp_path / "router")
    try:
        second.wait_ready()

        def answers() -> bool:
            with raw.joined(second.direct["rs-unix"]) as client:
                found = result(client, "get_proxy_transports")
                client.leave()
                return found == []

        wait_until(answers, "the procedures are there again", interval=0.1)
        proxy.stop()
    finally:
        second.stop()


@pytest.mark.peers
def test_a_name_that_is_taken_is_told_and_tried_again(
    crossbar: CrossbarRouter, config: Config, make_proxy: Callable[..., ProxyProcess]
) -> None:
    config.extra["management"] = remote(crossbar.direct["rs-tcp"].as_backend())
    with raw.joined(crossbar.direct["rs-tcp"]) as other:
        other.register(f"{PREFIX}.get_proxy_routes")
        proxy = make_proxy(config)
        line = proxy.child.wait_line("next attempt in", errors=True)
        assert "get_proxy_routes" in line
        assert "already" in line
        other.leave()
    wait_registered(proxy)
    proxy.stop()


@pytest.mark.peers
def test_a_realm_that_does_not_exist_is_named(
    crossbar: CrossbarRouter, config: Config, make_proxy: Callable[..., ProxyProcess]
) -> None:
    keys = remote(crossbar.direct["ws-tcp"].as_backend())
    keys["transport"]["max_retries"] = 1
    config.extra["management"] = keys | {"realm": "com.example.nowhere"}
    proxy = make_proxy(config)
    line = proxy.child.wait_line("given up after 2 attempts", errors=True)
    assert "com.example.nowhere" in line
    assert "no_such_realm" in line
    proxy.check_idle()
    proxy.stop()


def test_nobody_listens(config: Config, make_proxy: Callable[..., ProxyProcess]) -> None:
    config.extra["management"] = remote(CONNECTION["transport"])
    proxy = make_proxy(config)
    line = proxy.child.wait_line("next attempt in", errors=True)
    assert "127.0.0.1:1" in line
    assert "refused" in line
    proxy.stop()


# --- logging in ---

SECRET = "correct horse battery staple"
PRIVATE_KEY = "20" * 32
# argon2-cffi: hash_secret(SECRET, b"sixteen octets..", 4096, 512, 1, 32, Type.ID), its last part.
ARGON2_TEXT = b"l99SlnwZTiiya5YNHpBq9YLfK9I/nzmSBgvo2nLMcKw"


class StrictRouter(CrossbarRouter):
    """Crossbar.io with a WebSocket transport that takes all of ticket, WAMP-CRA and Cryptosign."""

    def __init__(self, directory: Path, program: str) -> None:
        self.strict = Endpoint("websocket", free_port())
        super().__init__(directory, program)

    def _config(self, proxy: Endpoint) -> dict[str, Any]:
        config = super()._config(proxy)
        auth = {
            "ticket": {"type": "static", "principals": {"proxy": {"ticket": SECRET, "role": "anonymous"}}},
            "wampcra": {"type": "static", "users": {"proxy": {"secret": SECRET, "role": "anonymous"}}},
            "scram": {"type": "static", "principals": {"proxy": scram("pbkdf2"), "argon": scram("argon2id-13")}},
            "cryptosign": {
                "type": "static",
                "principals": {"proxy": {"realm": REALM, "role": "anonymous", "authorized_keys": [public_key()]}},
            },
        }
        item = {"type": "websocket", "endpoint": self.strict.as_config(), "auth": auth}
        config["workers"][0]["transports"].append(item)
        return config


def scram(kdf: str) -> dict[str, Any]:
    """What Crossbar.io keeps of a user with SECRET, by the function that derives its key."""
    salt = b"sixteen octets.."
    if kdf == "pbkdf2":
        salted = hashlib.pbkdf2_hmac("sha256", SECRET.encode(), salt, 4096)
    else:
        # Of Crossbar.io's own making: autobahn.wamp.auth.derive_scram_credential, with these costs.
        salted = ARGON2_TEXT
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return {
        "kdf": kdf,
        "iterations": 4096,
        "memory": 512,
        "salt": salt.hex(),
        "stored-key": hashlib.sha256(client_key).hexdigest(),
        "server-key": hmac.digest(salted, b"Server Key", "sha256").hex(),
        "role": "anonymous",
    }


def public_key() -> str:
    """Hex of the public key that goes with PRIVATE_KEY."""
    return Cryptosign(PRIVATE_KEY).authextra["pubkey"]


@pytest.fixture(scope="module")
def strict_router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictRouter]:
    """The router, running."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    router = StrictRouter(tmp_path_factory.mktemp("strict"), program)
    router.wait_ready()
    yield router
    router.stop()


@pytest.mark.peers
@pytest.mark.parametrize("method", ["ticket", "wampcra", "cryptosign", "scram", "scram with Argon2"])
def test_methods_of_logging_in(
    method: str,
    strict_router: StrictRouter,
    config: Config,
    make_proxy: Callable[..., ProxyProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROXY_SECRET", PRIVATE_KEY if method == "cryptosign" else SECRET)
    authid = "argon" if "Argon2" in method else "proxy"
    method = method.partition(" ")[0]
    name = {"ticket": "ticket", "wampcra": "secret", "cryptosign": "privkey", "scram": "password"}[method]
    auth = {method: {"authid": authid, name: "${PROXY_SECRET}"}}
    config.extra["management"] = remote(strict_router.strict.as_backend(), auth=auth)
    proxy = make_proxy(config)
    wait_registered(proxy)
    with raw.joined(strict_router.direct["rs-tcp"]) as client:
        assert result(client, "get_proxy_transports") == []
        client.leave()
    proxy.stop()
    assert SECRET not in proxy.child.output
    assert PRIVATE_KEY not in proxy.child.output


@pytest.mark.peers
@pytest.mark.parametrize("method", ["ticket", "wampcra", "anonymous"])
def test_a_login_that_is_refused_is_told_without_its_secret(
    method: str, strict_router: StrictRouter, config: Config, make_proxy: Callable[..., ProxyProcess]
) -> None:
    keys = {"ticket": {"ticket": "guessed"}, "wampcra": {"secret": "guessed"}, "anonymous": {}}[method]
    config.extra["management"] = remote(strict_router.strict.as_backend(), auth={method: {"authid": "proxy", **keys}})
    proxy = make_proxy(config)
    line = proxy.child.wait_line("next attempt in", errors=True)
    assert "wamp.error." in line
    proxy.stop()
    assert "guessed" not in proxy.child.output


def test_a_router_that_says_nothing_holds_nobody_up(
    config: Config, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "silent.sock"))) as router:
        config.extra["management"] = remote(router.endpoint.as_backend())
        front = config.listen()
        proxy = make_proxy(config)
        router.accept_wire()
        raw.dial(front).close()
        proxy.stop(timeout=8)


def test_a_router_that_never_answers_hello_holds_nobody_up(
    config: Config, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "silent.sock"))) as router:
        config.extra["management"] = remote(router.endpoint.as_backend())
        proxy = make_proxy(config)
        assert router.accept().recv()[:2] == [raw.HELLO, REALM]
        proxy.stop(timeout=8)


def test_a_router_that_breaks_the_protocol_is_left_and_tried_again(
    config: Config, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "mad.sock"))) as router:
        config.extra["management"] = remote(router.endpoint.as_backend())
        proxy = make_proxy(config)
        for message in ([raw.EVENT, 1, 1, {}], [raw.WELCOME, "x", {}], [raw.CHALLENGE, "ticket", {}], [99]):
            peer = router.accept()
            peer.recv_type(raw.HELLO)
            peer.send(message)
            peer.recv_end()
        proxy.stop()


@pytest.mark.parametrize(
    ("details", "why"),
    [
        ({}, "scram: the router's signature is wrong"),
        ({"authmethod": "scram"}, "scram: the router's signature is wrong"),
        ({"authmethod": "anonymous"}, 'the router says "anonymous", expected scram'),
    ],
)
def test_a_router_that_does_not_prove_that_it_knows_the_user_gets_no_procedures(
    details: dict[str, str], why: str, config: Config, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "false.sock"))) as router:
        auth = {"scram": {"authid": "proxy", "password": "unguessed"}}
        config.extra["management"] = remote(router.endpoint.as_backend(), auth=auth)
        proxy = make_proxy(config)
        peer, _ = router.accept_session(**details)
        assert peer.recv()[0] == raw.ABORT
        peer.recv_end()
        assert why in proxy.child.wait_line("next attempt in", errors=True)
        proxy.stop()
