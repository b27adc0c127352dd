"""Who a client is, told by its TLS: certificates, signatures that are bound to the channel, cookies over wss."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from autobahn.wamp.types import TransportDetails
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from support import raw
from support.certificates import Certificates, Pair, certificates
from support.clients import HERE
from support.endpoints import Endpoint
from support.principals import PRINCIPALS, SECOND_KEY, static
from support.process import peer_environment
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, AUTHENTICATE, CHALLENGE, WELCOME, Wire, hello
from support.routers import CrossbarRouter, find_crossbar
from support.stub import StubRouter
from support.tls import TlsEndpoint, client_context, listen

pytestmark = pytest.mark.peers

KINDS = ["websocket", "rawsocket"]
ROLE = "guest"
ALICE = PRINCIPALS["cryptosign"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for all tests here."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def proxy(
    crossbar: CrossbarRouter, made: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    """In front of Crossbar.io; endpoints ``<kind>`` (certificates optional) and ``cookie``."""
    config = Config(tmp_path_factory.mktemp("proxy"))
    config.backend("crossbar", crossbar.backends["crossbar"], role=ROLE)
    principals = {
        "joe": {"certificate-sha1": made.client.sha1, "role": ROLE},
        "gone": {"certificate-sha1": made.client_expired.sha1, "role": ROLE},
    }
    auth = {"tls": {"type": "static", "principals": principals}, "cryptosign": static("cryptosign")}
    client = {"ca_certificates": [str(made.ca)], "client_certificate": "optional"}
    for kind in KINDS:
        listen(config, kind, kind, made.server, tls=client, auth=auth)
    cookies = {"store": {"type": "memory"}}
    ticket = {"type": "static", "principals": {"tina": {"ticket": "a ticket", "role": ROLE}}}
    listen(config, "websocket", "cookie", made.server, auth={"ticket": ticket, "cookie": {}}, cookie=cookies)
    proxy = ProxyProcess(config)
    yield proxy
    proxy.check_idle()
    proxy.stop()


def autobahn(
    endpoint: Endpoint, made: Certificates, client: Pair | None = None, *, framework: str = "asyncio", **login: Any
) -> dict[str, Any]:
    """A login of autobahn-python; see tls_autobahn.py."""
    job = {
        "framework": framework,
        "kind": endpoint.kind,
        "url": endpoint.url.replace("ws://", "wss://"),
        "host": endpoint.host,
        "port": endpoint.port,
        "ca": str(made.ca),
        "certificate": None if client is None else str(client.certificate),
        "key": None if client is None else str(client.key),
        "realm": "realm1",
        "method": "anonymous",
        "authid": None,
        "privkey": None,
        "binding": None,
        **login,
    }
    program = find_crossbar()
    python = Path(program).parent / "python" if program is not None else None
    # Its signatures need what only Crossbar.io's environment has.
    interpreter = str(python) if python is not None and python.exists() else sys.executable
    command = [interpreter, "-W", "ignore", str(HERE / "tls_autobahn.py"), json.dumps(job)]
    environment = peer_environment()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# --- certificates ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framework", ["asyncio", "twisted"])
def test_autobahn_logs_in_by_its_certificate(
    kind: str, framework: str, proxy: ProxyProcess, made: Certificates
) -> None:
    answer = autobahn(proxy.endpoints[kind], made, made.client, framework=framework, method="tls")
    joined = answer["joined"]
    assert [joined[key] for key in ("authid", "authrole", "authmethod", "authprovider")] == [
        "joe",
        ROLE,
        "tls",
        "static",
    ]
    assert answer["sum"] == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["client_2", None])
def test_another_certificate_or_none_is_refused(
    kind: str, which: str | None, proxy: ProxyProcess, made: Certificates
) -> None:
    client = getattr(made, which) if which else None
    answer = autobahn(proxy.endpoints[kind], made, client, method="tls", authid="joe")
    reason = "wamp.error.authentication_failed" if which else "wamp.error.no_auth_method"
    assert answer["refused"] == reason


def peer_over(connection: TlsEndpoint) -> raw.Peer:
    """A raw client, after its handshake."""
    return raw.dial(connection, "cbor")


@pytest.mark.parametrize("which", ["foreign_client", "client_expired"])
def test_a_certificate_that_cannot_be_believed_ends_the_handshake(
    which: str, proxy: ProxyProcess, made: Certificates
) -> None:
    # That it is in the configuration does not help.
    context = client_context(made.ca, getattr(made, which))
    endpoint = TlsEndpoint.over(proxy.endpoints["rawsocket"], context)
    with pytest.raises((OSError, raw.PeerClosed)):
        peer_over(endpoint).send(hello(authmethods=["tls"]))


def test_the_router_is_told_of_the_clients_tls(
    made: Certificates, config: Config, make_proxy: Callable[..., ProxyProcess]
) -> None:
    stub = StubRouter(Endpoint("rawsocket", path=str(config.directory / "router.sock")))
    config.backend("stub", {"transport": stub.endpoint.as_backend(), "auth": {"anonymous-proxy": {}}})
    client = {"ca_certificates": [str(made.ca)]}
    endpoint = TlsEndpoint.over(listen(config, "rawsocket", "rs", made.server, tls=client), context_of(made))
    make_proxy(config)
    peer = peer_over(endpoint)
    peer.send(hello())
    router = stub.accept()
    transport = router.recv()[2]["authextra"]["proxy_authextra"]["transport"]
    assert (transport["channel_type"], transport["is_secure"]) == ("tls", True)
    assert transport["peer_cert"]["sha1"].replace(":", "") == made.client.sha1
    assert transport["peer_cert"]["subject"]["cn"] == "client"
    # As autobahn's own parser takes it, which Crossbar.io has read it.
    parsed = TransportDetails.parse({**transport, "channel_type": "tls"})
    assert list(parsed.channel_id) == ["tls-unique"]
    assert len(parsed.channel_id["tls-unique"]) == 32
    stub.close()
    peer.close()


def context_of(made: Certificates) -> ssl.SSLContext:
    """What the client wants that has a certificate."""
    return client_context(made.ca, made.client)


# --- channel binding ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framework", ["asyncio", "twisted"])
def test_autobahn_signs_for_its_channel(kind: str, framework: str, proxy: ProxyProcess, made: Certificates) -> None:
    login = {"method": "cryptosign", "authid": ALICE.authid, "privkey": ALICE.secret, "binding": "tls-unique"}
    answer = autobahn(proxy.endpoints[kind], made, framework=framework, **login)
    assert answer["joined"]["authid"] == ALICE.authid
    assert answer["joined"]["authmethod"] == "cryptosign"
    assert answer["channel_id"]["tls-unique"] != "00" * 32
    wrong = autobahn(proxy.endpoints[kind], made, framework=framework, **{**login, "privkey": SECOND_KEY})
    assert wrong["refused"] == "wamp.error.authentication_failed"


class PyOpenSslSocket:
    """As much of a socket as a wire needs, over pyOpenSSL: Python's ssl module has no exporter."""

    def __init__(self, endpoint: Endpoint, version: int) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        self._plain = socket.create_connection((endpoint.host, endpoint.port))
        self.connection = SSL.Connection(context, self._plain)
        self.connection.set_connect_state()
        self.connection.do_handshake()

    def settimeout(self, seconds: float) -> None:
        """It blocks."""

    def recv(self, size: int) -> bytes:
        """Octets; none at the end."""
        try:
            return self.connection.recv(size)
        except (SSL.ZeroReturnError, SSL.SysCallError):
            return b""

    def sendall(self, data: bytes) -> None:
        """Send."""
        self.connection.sendall(data)

    def close(self) -> None:
        """Close."""
        self._plain.close()


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
@pytest.mark.parametrize("right", [True, False], ids=["own", "foreign"])
def test_the_exporter_of_rfc_9266(version: int, right: bool, proxy: ProxyProcess) -> None:
    endpoint = proxy.endpoints["rawsocket"]
    sock = PyOpenSslSocket(endpoint, version)
    other = PyOpenSslSocket(endpoint, version)
    peer = raw.dial(endpoint, sock=sock)  # type: ignore[arg-type]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(ALICE.secret))
    extra = {"pubkey": key.public_key().public_bytes_raw().hex(), "channel_binding": "tls-exporter"}
    peer.send(hello(authmethods=["cryptosign"], authid=ALICE.authid, authextra=extra))
    _, _, question = peer.recv_type(CHALLENGE)
    assert question["channel_binding"] == "tls-exporter"
    channel = (sock if right else other).connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    message = bytes(a ^ b for a, b in zip(bytes.fromhex(question["challenge"]), channel, strict=True))
    peer.send([AUTHENTICATE, key.sign(message).hex() + message.hex(), {}])
    assert peer.recv()[0] == (WELCOME if right else ABORT)
    sock.close()
    other.close()


# --- cookies ---


def upgrade(endpoint: TlsEndpoint, cookie: str = "") -> tuple[raw.WebSocketPeer, str]:
    """A client of a browser: its connection and its cookie."""
    wire = Wire(endpoint.connect())
    _, head = raw.upgrade(wire, endpoint, "wamp.2.json", **({"Cookie": cookie} if cookie else {}))
    lines = [line for line in head.decode().split("\r\n") if line.lower().startswith("set-cookie:")]
    found = lines[0].partition(":")[2].strip() if lines else ""
    return raw.WebSocketPeer(wire, "json"), found


def test_a_cookie_over_wss(proxy: ProxyProcess, made: Certificates) -> None:
    endpoint = TlsEndpoint.over(proxy.endpoints["cookie"], client_context(made.ca))
    peer, attributes = upgrade(endpoint)
    peer.send(hello(authmethods=["ticket"], authid="tina"))
    peer.recv_type(CHALLENGE)
    peer.send([AUTHENTICATE, "a ticket", {}])
    assert peer.recv()[0] == WELCOME
    peer.close()
    again, _ = upgrade(endpoint, attributes.partition(";")[0])
    again.send(hello(authmethods=["cookie"]))
    welcome = again.recv_type(WELCOME)[2]
    assert (welcome["authid"], welcome["authmethod"]) == ("tina", "cookie")
    again.leave()
    again.close()
