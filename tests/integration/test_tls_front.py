"""TLS with clients: what is agreed on and what is refused, looked at with OpenSSL's client and Python's."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509

from support import raw
from support.certificates import Certificates, Pair, certificates
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import PeerClosed, Wire
from support.routers import XconnRouter
from support.tls import TlsEndpoint, client_context, listen, s_client

pytestmark = pytest.mark.peers

WEAK = "@SECLEVEL=0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for all tests here."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def proxy(xconn: XconnRouter, made: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """One transport for each way that TLS can be set up."""
    config = Config(tmp_path_factory.mktemp("proxy"))
    config.backend("xconn", xconn.backends["xconn"])
    ca = {"ca_certificates": [str(made.ca)]}
    crl = {"crl": [str(made.authority.revoke(made.client_2))]}
    setups: dict[str, tuple[Pair, dict[str, Any]]] = {
        "ec": (made.server, {"sni": [made.other.tls, made.wildcard.tls]}),
        "rsa": (made.server_rsa, {}),
        "chained": (made.chained, {}),
        "modern": (made.server, {"min_version": "1.3"}),
        "chosen": (made.server, {"ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384:TLS_CHACHA20_POLY1305_SHA256"}),
        "required": (made.server, ca | crl),
        "optional": (made.server, ca | {"client_certificate": "optional"}),
    }
    for name, (pair, tls) in setups.items():
        listen(config, "rawsocket" if name in ("required", "optional") else "websocket", name, pair, tls=tls)
    proxy = ProxyProcess(config)
    yield proxy
    proxy.check_idle()
    proxy.stop()


def over(proxy: ProxyProcess, name: str, context: ssl.SSLContext, server_name: str = "localhost") -> TlsEndpoint:
    """A transport of the proxy, as a client reaches it."""
    return TlsEndpoint.over(proxy.endpoints[name], context, server_name)


def check(endpoint: Endpoint) -> None:
    """A client gets in and can work."""
    with raw.joined(endpoint) as peer:
        assert peer.subscribe("com.example.check") > 0
        peer.leave()


# --- versions and ciphers ---


@pytest.mark.parametrize("name", ["ec", "rsa", "chained"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_sessions_over_both_versions(
    name: str, version: ssl.TLSVersion, proxy: ProxyProcess, made: Certificates
) -> None:
    check(over(proxy, name, client_context(made.ca, low=version, high=version)))


@pytest.mark.parametrize("name", ["ec", "rsa", "modern"])
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(name: str, version: str, proxy: ProxyProcess, made: Certificates) -> None:
    code, text = s_client(proxy.endpoints[name], made, version, "-cipher", f"ALL:{WEAK}")
    assert code != 0
    assert "alert protocol version" in text
    assert "Cipher is (NONE)" in text


def test_the_oldest_version_is_the_configurations(proxy: ProxyProcess, made: Certificates) -> None:
    code, text = s_client(proxy.endpoints["modern"], made, "-tls1_2")
    assert (code != 0, "alert protocol version" in text) == (True, True)
    check(over(proxy, "modern", client_context(made.ca)))


@pytest.mark.parametrize(
    ("name", "ciphers"),
    [
        ("ec", "aNULL"),
        ("ec", "eNULL"),
        ("ec", "ECDHE-ECDSA-AES128-SHA"),
        ("ec", "ECDHE-ECDSA-AES256-SHA384"),
        ("ec", "PSK"),
        ("rsa", "AES128-SHA"),
        ("rsa", "AES128-GCM-SHA256"),
        ("rsa", "AES256-GCM-SHA384"),
        ("rsa", "ECDHE-RSA-AES128-SHA"),
        ("rsa", "ECDHE-RSA-AES256-SHA384"),
        ("rsa", "DHE-RSA-AES128-GCM-SHA256"),
        ("rsa", "CAMELLIA128-SHA"),
    ],
)
def test_weak_ciphers_are_refused(name: str, ciphers: str, proxy: ProxyProcess, made: Certificates) -> None:
    options = ["-psk", "1234"] if ciphers == "PSK" else []
    code, text = s_client(proxy.endpoints[name], made, "-tls1_2", "-cipher", f"{ciphers}:{WEAK}", *options)
    assert code != 0
    assert "alert handshake failure" in text


@pytest.mark.parametrize(
    ("name", "cipher"),
    [
        ("ec", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("ec", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("rsa", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("rsa", "ECDHE-RSA-AES256-GCM-SHA384"),
    ],
)
def test_strong_ciphers_of_tls_1_2(name: str, cipher: str, proxy: ProxyProcess, made: Certificates) -> None:
    code, text = s_client(proxy.endpoints[name], made, "-tls1_2", "-cipher", cipher, "-brief")
    assert (code, f"Ciphersuite: {cipher}" in text, "Verification: OK" in text) == (0, True, True)


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_ciphers_of_tls_1_3(suite: str, proxy: ProxyProcess, made: Certificates) -> None:
    code, text = s_client(proxy.endpoints["ec"], made, "-tls1_3", "-ciphersuites", suite, "-brief")
    assert (code, f"Ciphersuite: {suite}" in text) == (0, True)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"), True),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), False),
        (("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"), True),
        (("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"), False),
    ],
)
def test_the_ciphers_are_the_configurations(
    options: tuple[str, ...], taken: bool, proxy: ProxyProcess, made: Certificates
) -> None:
    code, text = s_client(proxy.endpoints["chosen"], made, *options)
    assert (code == 0) is taken
    assert ("alert handshake failure" in text) is not taken


def test_no_renegotiation(proxy: ProxyProcess, made: Certificates) -> None:
    _, text = s_client(proxy.endpoints["ec"], made, "-tls1_2", talk=b"R\n")
    assert "RENEGOTIATING" in text
    assert "no renegotiation" in text


def test_no_compression_and_no_early_data(proxy: ProxyProcess, made: Certificates) -> None:
    _, text = s_client(proxy.endpoints["ec"], made, "-tls1_2", "-comp")
    assert "Compression: NONE" in text
    _, text = s_client(proxy.endpoints["ec"], made, "-tls1_3", talk=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert "Max Early Data: 0" in text or "Early data was not sent" in text


# --- names ---


@pytest.mark.parametrize(
    ("asked", "common_name"),
    [
        ("localhost", "server"),
        ("other.example.com", "other"),
        ("OTHER.example.com", "other"),
        ("a.wild.example.com", "wildcard"),
        ("a.b.wild.example.com", "server"),
        ("wild.example.com", "server"),
        ("unknown.example.com", "server"),
        (None, "server"),
    ],
)
def test_the_certificate_is_that_of_the_name_asked_for(
    asked: str | None, common_name: str, proxy: ProxyProcess, made: Certificates
) -> None:
    context = client_context(None)
    endpoint = TlsEndpoint.over(proxy.endpoints["ec"], context, asked)  # type: ignore[arg-type]
    with endpoint.connect() as sock:
        der = sock.getpeercert(binary_form=True)  # type: ignore[attr-defined]
    names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert [name.value for name in names] == [common_name]


# --- protocols within ---


@pytest.mark.parametrize(
    ("offer", "agreed"), [(["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), ([], None)]
)
def test_http_1_1_is_agreed_on(offer: list[str], agreed: str | None, proxy: ProxyProcess, made: Certificates) -> None:
    with over(proxy, "ec", client_context(made.ca, alpn=offer)).connect() as sock:
        assert sock.selected_alpn_protocol() == agreed  # type: ignore[attr-defined]


def test_a_client_that_wants_another_protocol_is_told(proxy: ProxyProcess, made: Certificates) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        over(proxy, "ec", client_context(made.ca, alpn=["h2"])).connect()


# --- resumption ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_client_comes_again_by_its_ticket(version: ssl.TLSVersion, proxy: ProxyProcess, made: Certificates) -> None:
    context = client_context(made.ca, low=version, high=version)
    endpoint = over(proxy, "ec", context)
    peer = raw.dial(endpoint)
    first: Any = peer.wire.sock
    peer.send(raw.hello())
    peer.recv_type(raw.WELCOME)  # tickets of TLS 1.3 come with the first data
    assert not first.session_reused
    session = first.session
    peer.leave()
    peer.close()
    plain = Endpoint.connect(endpoint)
    again = context.wrap_socket(plain, server_hostname="localhost", session=session)
    assert again.session_reused
    with again:
        raw.upgrade(Wire(again), endpoint, "wamp.2.cbor")


# --- client certificates ---


def test_a_client_with_a_certificate_gets_in(proxy: ProxyProcess, made: Certificates) -> None:
    for name in ("required", "optional"):
        check(over(proxy, name, client_context(made.ca, made.client)))
    check(over(proxy, "optional", client_context(made.ca)))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("required", None),
        ("required", "foreign_client"),
        ("required", "client_expired"),
        ("required", "client_2"),  # it is revoked
        ("required", "other"),  # a server's, not for clients
        ("optional", "foreign_client"),
        ("optional", "client_expired"),
    ],
)
def test_a_client_without_a_good_certificate_does_not(
    name: str, which: str | None, version: ssl.TLSVersion, proxy: ProxyProcess, made: Certificates
) -> None:
    pair = getattr(made, which) if which else None
    endpoint = over(proxy, name, client_context(made.ca, pair, low=version, high=version))
    with pytest.raises((ssl.SSLError, PeerClosed)):
        raw.dial(endpoint)


# --- the end ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_the_end_is_told_by_tls_itself(version: ssl.TLSVersion, proxy: ProxyProcess, made: Certificates) -> None:
    # Without close_notify nobody could tell the end from somebody who cuts the connection.
    endpoint = over(proxy, "ec", client_context(made.ca, low=version, high=version))
    plain = Endpoint.connect(endpoint)
    sock = endpoint.context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
    sock.settimeout(10)
    sock.sendall(b"GET /nowhere HTTP/1.0\r\nHost: localhost\r\n\r\n")
    answer = b""
    while data := sock.recv(65536):  # SSLEOFError without close_notify
        answer += data
    assert answer.startswith(b"HTTP/1.1 ")
    sock.close()
