"""TLS with routers: the right one is believed, every other one is not, and clients hear of it without the details."""

from __future__ import annotations

import logging
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.certificates import Certificates, Pair, certificates
from support.endpoints import Endpoint, free_port
from support.process import wait_until
from support.proxies import Config
from support.raw import ABORT, Peer
from support.routers import CrossbarRouter, XconnRouter, find_crossbar
from support.tls import TIMEOUT, TlsEndpoint, client_context

pytestmark = pytest.mark.peers

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for all tests here."""
    return certificates(tmp_path_factory.mktemp("certificates"))


class TlsCrossbar(CrossbarRouter):
    """Crossbar.io whose TCP transports are behind TLS.

    :param made: its certificate is ``server``, and it wants one of its clients.
    """

    name = "crossbar with TLS"

    def __init__(self, directory: Path, program: str, made: Certificates) -> None:
        self._tls = {**made.server.tls, "ca_certificates": [str(made.ca)]}
        self._context = client_context(made.ca, made.client)
        super().__init__(directory, program)

    def _config(self, proxy: Endpoint) -> dict[str, Any]:
        config = super()._config(proxy)
        for transport in config["workers"][0]["transports"]:
            if transport["endpoint"]["type"] == "tcp":
                transport["endpoint"]["tls"] = self._tls
        return config

    def _answers(self, endpoint: Endpoint) -> bool:
        return super()._answers(endpoint if endpoint.path else TlsEndpoint.over(endpoint, self._context))


@pytest.fixture(scope="module")
def router(made: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrossbarRouter]:
    """Crossbar.io behind TLS that wants a certificate of its clients."""
    program = find_crossbar()
    if program is None:
        pytest.skip("Crossbar.io is missing: pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    router = TlsCrossbar(tmp_path_factory.mktemp("crossbar"), program, made)
    router.wait_ready()
    yield router
    router.stop()


def connection(endpoint: Endpoint, tls: Any, host: str = "localhost", **keys: Any) -> dict[str, Any]:
    """A connection item to a router behind TLS."""
    item = endpoint.as_backend()
    item["endpoint"] |= {"host": host, "tls": tls}
    return {"transport": item, "auth": {"anonymous": {"type": "static"}}, **keys}


def trust(made: Certificates, client: Pair | None = None) -> dict[str, Any]:
    """``tls`` that believes the tests' authority, with a certificate of the proxy's own."""
    own = {} if client is None else client.tls
    return {"ca_certificates": [str(made.ca)], **own}


# --- a real router ---


@pytest.mark.parametrize("name", ["ws-tcp", "rs-tcp"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_router_that_wants_a_certificate(
    name: str, host: str, made: Certificates, router: CrossbarRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    item = connection(router.direct[name], trust(made, made.client), host)
    front = config.backend("tls", item).listen()
    make_proxy(config)
    with raw.joined(front) as callee, raw.joined(front) as caller:
        number = callee.register("com.example.echo")
        caller.send([raw.CALL, 7, {}, "com.example.echo", ["x" * 100_000]])
        invocation = callee.recv_type(raw.INVOCATION)
        assert invocation[2] == number
        callee.send([raw.YIELD, invocation[1], {}, invocation[4]])
        assert caller.recv_type(raw.RESULT)[3] == ["x" * 100_000]
        callee.leave()
        caller.leave()


def refusal(front: Endpoint) -> str:
    """What a client is told that cannot be joined."""
    peer = raw.dial(front)
    peer.send(raw.hello())
    _, details, reason = peer.recv_type(ABORT)
    peer.close()
    assert reason == "wamp.error.network_failure"
    return str(details["message"])


def test_a_router_that_misses_our_certificate(
    made: Certificates, router: CrossbarRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    front = config.backend("tls", connection(router.direct["ws-tcp"], trust(made))).listen()
    proxy = make_proxy(config)
    assert "TLS failed" in refusal(front)
    wait_until(lambda: "certificate required" in proxy.child.output, "the log says why")


def test_urls_alone(made: Certificates, router: CrossbarRouter, config: Config, make_proxy: Callable[..., Any]) -> None:
    # wss:// asks for TLS with the system's authorities, which do not know the tests' own.
    url = f"wss://localhost:{router.direct['ws-tcp'].port}/ws"
    item = {"transport": {"type": "websocket", "url": url}, "auth": {"anonymous": {"type": "static"}}}
    front = config.backend("tls", item).listen()
    proxy = make_proxy(config)
    assert "TLS failed" in refusal(front)
    wait_until(lambda: "certificate verify failed" in proxy.child.output, "the log says why")


# --- routers that are not what they should be ---


class Gate:
    """Something that listens with TLS in front of a router and passes octets on.

    :param pair: the certificate that it shows.
    :param to: the router.
    """

    def __init__(self, pair: Pair, to: Endpoint, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.chain, pair.key)
        self._context.maximum_version = version
        self._to = to
        self.endpoint = Endpoint(to.kind, free_port())
        self._sock = socket.create_server(("127.0.0.1", self.endpoint.port))
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self._threads[0].start()

    def show(self, pair: Pair) -> None:
        """Show another certificate from now on."""
        self._context.load_cert_chain(pair.chain, pair.key)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._sock.accept()
            except OSError:
                return
            plain.settimeout(TIMEOUT)
            try:
                front = self._context.wrap_socket(plain, server_side=True)
            except OSError as error:
                log.debug("no handshake: %s", error)
                plain.close()
                continue
            back = self._to.connect()
            self._open += [front, back]
            thread = threading.Thread(target=_pass_on, args=(front, back))
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop listening, and cut what is open."""
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for sock in self._open:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(TIMEOUT)
        for sock in self._open:
            sock.close()


def _pass_on(front: ssl.SSLSocket, back: socket.socket) -> None:
    """Octets both ways, in one thread: OpenSSL's connections are not for two at a time."""
    try:
        while True:
            readable = [front] if front.pending() else select.select([front, back], [], [], TIMEOUT)[0]
            for source in readable:
                data = source.recv(65536)
                if not data:
                    return
                (back if source is front else front).sendall(data)
    except OSError as error:
        log.debug("passed on no more: %s", error)
    finally:
        for sock in (front, back):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@contextmanager
def gate(pair: Pair, to: Endpoint, **keys: Any) -> Iterator[Gate]:
    """A :class:`Gate` for a while."""
    made = Gate(pair, to, **keys)
    try:
        yield made
    finally:
        made.close()


def check(peer: Peer) -> None:
    """The session works."""
    assert peer.subscribe("com.example.check") > 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("name", ["server", "server_rsa", "chained"])
def test_a_private_authority(
    name: str,
    version: ssl.TLSVersion,
    made: Certificates,
    xconn: XconnRouter,
    config: Config,
    make_proxy: Callable[..., Any],
) -> None:
    with gate(getattr(made, name), xconn.direct["rs-tcp"], version=version) as gated:
        front = config.backend("tls", connection(gated.endpoint, {"trust_root": str(made.ca)})).listen()
        make_proxy(config)
        with raw.joined(front) as peer:
            check(peer)
            peer.leave()


@pytest.mark.parametrize(
    ("pair", "tls", "why"),
    [
        ("self_signed", {}, "self-signed certificate"),
        ("foreign_server", {}, "unable to get local issuer certificate"),
        ("expired", {}, "certificate has expired"),
        ("other", {}, "hostname mismatch"),
        ("server", {"hostname": "other.example.com"}, "hostname mismatch"),
        ("client", {}, "unsuitable certificate purpose"),
    ],
)
def test_a_router_that_nobody_can_know(
    pair: str,
    tls: dict[str, Any],
    why: str,
    made: Certificates,
    xconn: XconnRouter,
    config: Config,
    make_proxy: Callable[..., Any],
) -> None:
    with gate(getattr(made, pair), xconn.direct["rs-tcp"]) as gated:
        front = config.backend("tls", connection(gated.endpoint, {**trust(made), **tls})).listen()
        proxy = make_proxy(config)
        text = refusal(front)
        assert 'connection "tls" cannot be reached: TLS failed' in text
        assert why not in text
        wait_until(lambda: why in proxy.child.output, "the log says why")
        lines = [line for line in proxy.child.errors if why in line]
        assert "WARNING" in lines[0]


def test_an_address_in_place_of_a_name(
    made: Certificates, xconn: XconnRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    with gate(made.other, xconn.direct["rs-tcp"]) as gated:
        tls = trust(made)
        config.backend("wrong", connection(gated.endpoint, tls, "127.0.0.1"))
        config.backend(
            "named", connection(gated.endpoint, {**tls, "hostname": "other.example.com"}, "127.0.0.1"), role="guest"
        )
        wrong, right = config.listen(), config.listen(role="guest")
        make_proxy(config)
        assert "TLS failed" in refusal(wrong)
        with raw.joined(right) as peer:
            check(peer)
            peer.leave()


# Has it that OpenSSL's own folder, "$1", is not there, and that the system's authorities are in "$2".
ELSEWHERE = """
set -e
mount --make-rprivate /
mount -t tmpfs none "${1%/*}"
mount --bind "$2" /etc/ssl/certs/ca-certificates.crt
shift 2
unset SSL_CERT_FILE SSL_CERT_DIR
exec "$@"
"""


def test_the_systems_authorities_where_openssl_was_built_elsewhere(
    made: Certificates, xconn: XconnRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    """As the one inside a wheel was."""
    within = ["unshare", "--mount", "sh", "-c", ELSEWHERE, "sh", ssl.get_default_verify_paths().openssl_capath]
    within.append(str(made.ca))
    if (
        shutil.which("unshare") is None
        or subprocess.run([*within, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs mounts of its own, and Debian's folders")
    with gate(made.server, xconn.direct["rs-tcp"]) as gated:
        front = config.backend("tls", connection(gated.endpoint, True)).listen()
        make_proxy(config, within=within)
        with raw.joined(front) as peer:
            check(peer)
            peer.leave()


def test_whoever_wants_may_do_without(
    made: Certificates, xconn: XconnRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    # Neither its authority nor its name is right.
    with gate(made.other, xconn.direct["rs-tcp"]) as gated:
        front = config.backend("tls", connection(gated.endpoint, {"verify": False})).listen()
        proxy = make_proxy(config)
        assert "verify is off" in proxy.child.output
        with raw.joined(front) as peer:
            check(peer)
            peer.leave()


def test_a_router_without_tls(
    made: Certificates, xconn: XconnRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    item = connection(xconn.direct["rs-tcp"], trust(made), timeouts={"dial": 2000})
    front = config.backend("tls", item).listen()
    make_proxy(config)
    assert 'connection "tls"' in refusal(front)


def test_a_change_of_the_authority_is_followed(
    made: Certificates, xconn: XconnRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    authority = config.directory / "authority.pem"
    shutil.copy(made.ca, authority)
    with gate(made.server, xconn.direct["rs-tcp"]) as gated:
        front = config.backend("tls", connection(gated.endpoint, {"ca_certificates": ["authority.pem"]})).listen()
        config.extra["management"] = {"path": str(config.directory / "management.sock")}
        make_proxy(config)
        management = Endpoint("rawsocket", path=config.extra["management"]["path"])
        with raw.joined(front) as first:
            gated.show(made.foreign_server)
            shutil.copy(made.foreign.certificate, authority)
            with raw.joined(management, realm="crossbar") as peer:
                assert peer.call("crossbar.worker.worker001.reload_tls")["replaced"] == ["connection tls"]
                peer.leave()
            with raw.joined(front) as second:
                check(second)
                second.leave()
            check(first)
            first.leave()


# --- the proxy's own sessions ---


SERVICE = {
    "type": "dynamic",
    "authenticator": "com.example.authenticate",
    "authenticator-realm": "realm1",
    "authenticator-role": "anonymous",
}


def ask(peer: Peer) -> None:
    """Log in as somebody whom only the authenticator knows."""
    peer.send(raw.hello(authmethods=["ticket"], authid="joe"))
    peer.recv_type(raw.CHALLENGE)
    peer.send([raw.AUTHENTICATE, "secret", {}])


@pytest.mark.parametrize("name", ["ws-tcp", "rs-tcp"])
def test_a_session_of_the_proxys_own(
    name: str, made: Certificates, router: CrossbarRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    config.backend("tls", connection(router.direct[name], trust(made, made.client)))
    front = config.listen(auth={"ticket": SERVICE})
    proxy = make_proxy(config)
    with raw.joined(router.direct["rs-unix"]) as authenticator:
        authenticator.register("com.example.authenticate")
        peer = raw.dial(front)
        ask(peer)
        question = authenticator.recv_type(raw.INVOCATION)
        assert question[4][1] == "joe"
        authenticator.send([raw.YIELD, question[1], {}, ["anonymous"]])
        peer.recv_type(raw.WELCOME)
        peer.leave()
        peer.close()
        authenticator.leave()
    proxy.stop()  # the session at the router is kept until then


def test_a_session_of_the_proxys_own_at_a_router_that_nobody_can_know(
    made: Certificates, xconn: XconnRouter, config: Config, make_proxy: Callable[..., Any]
) -> None:
    with gate(made.self_signed, xconn.direct["rs-tcp"]) as gated:
        config.backend("tls", connection(gated.endpoint, trust(made)))
        front = config.listen(auth={"ticket": SERVICE}, limits={"authenticator_timeout": 3000})
        proxy = make_proxy(config, log_level="debug")
        peer = raw.dial(front)
        ask(peer)
        assert peer.recv_type(ABORT)[2] == "wamp.error.unavailable"
        peer.close()
        wait_until(lambda: "TLS failed: certificate verify failed" in proxy.child.output, "the log says why")


def test_the_management_realm_of_a_router_behind_tls(
    made: Certificates, router: CrossbarRouter, config: Config, make_proxy: Callable[..., Any], xconn: XconnRouter
) -> None:
    config.backend("xconn", xconn.backends["xconn"]).listen()
    transport = connection(router.direct["ws-tcp"], trust(made, made.client))["transport"]
    config.extra["management"] = {"transport": transport, "realm": "realm1", "auth": {"anonymous": {}}}
    make_proxy(config)
    procedure = "crossbar.worker.worker001.get_proxy_transports"

    def answers() -> bool:
        with raw.joined(router.direct["rs-unix"]) as peer:
            peer.send([raw.CALL, peer.request(), {}, procedure])
            answer = peer.recv()
            peer.leave()
            return bool(answer[0] == raw.RESULT and answer[3] == [["transport000"]])

    wait_until(answers, "the worker's procedures are there", 20)


def test_no_verification_of_the_router_of_management_is_not_passed_over_in_silence(
    config: Config, make_proxy: Callable[..., Any], xconn: XconnRouter
) -> None:
    config.backend("xconn", xconn.backends["xconn"]).listen()
    endpoint = {"type": "tcp", "host": "127.0.0.1", "port": 9, "tls": {"verify": False}}
    transport = {"type": "rawsocket", "endpoint": endpoint}
    config.extra["management"] = {"transport": transport, "realm": "realm1", "auth": {"anonymous": {}}}
    proxy = make_proxy(config)
    wait_until(lambda: "management: verify is off" in proxy.child.output, "the log says so")
