"""The keys of TLS: which there are, what is refused, and what URLs and endpoints come to."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.config import BackendTransport, check
from proxy.config.tls import BackendTls, BackendTlsConfig, TlsConfig
from proxy.config.urls import certificate_name

PAIR = {"key": "server.key", "certificate": "server.pem"}
FOLDER = Path("/etc/proxy")


def front(**keys: Any) -> TlsConfig:
    return TlsConfig.model_validate({**PAIR, **keys}, context={"folder": FOLDER})


def back(value: Any) -> BackendTls | None:
    checked: BackendTls | None = TypeAdapter(BackendTlsConfig).validate_python(value, context={"folder": FOLDER})
    return checked


def why(error: pytest.ExceptionInfo[ValidationError]) -> str:
    (item,) = error.value.errors()
    return ".".join([*map(str, item["loc"]), item.get("ctx", {}).get("key", "")]) + ": " + item["msg"]


def test_paths_are_relative_to_the_folder_of_the_configuration() -> None:
    tls = front(chain_certificates=["../ca/middle.pem"], ca_certificates=["/ca.pem"], crl=["crl/a.pem"], sni=[PAIR])
    assert (tls.key, tls.certificate) == ("/etc/proxy/server.key", "/etc/proxy/server.pem")
    assert tls.chain_certificates == ("/etc/ca/middle.pem",)
    assert (tls.ca_certificates, tls.crl) == (("/ca.pem",), ("/etc/proxy/crl/a.pem",))
    assert tls.sni[0].key == "/etc/proxy/server.key"


@pytest.mark.parametrize(
    ("keys", "verifies"),
    [
        ({}, "none"),
        ({"client_certificate": "none"}, "none"),
        ({"ca_certificates": ["ca.pem"]}, "required"),
        ({"ca_certificates": ["ca.pem"], "client_certificate": "required"}, "required"),
        ({"ca_certificates": ["ca.pem"], "client_certificate": "optional"}, "optional"),
        ({"ca_certificates": ["ca.pem"], "client_certificate": "none"}, "none"),
    ],
)
def test_authorities_alone_have_certificates_asked_for(keys: dict[str, Any], verifies: str) -> None:
    assert front(**keys).verifies_clients == verifies


@pytest.mark.parametrize("given", ["1.3", 1.3])
def test_a_version_may_be_a_number_as_yaml_has_it(given: Any) -> None:
    assert front(min_version=given).min_version == "1.3"
    assert front().min_version == "1.2"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"key": ""}, "key.: expected the path of a PEM file"),
        ({"min_version": "1.1"}, "min_version.: expected 1.2 or 1.3"),
        ({"min_version": 1.0}, "min_version.: expected 1.2 or 1.3"),
        ({"ciphers": ""}, "ciphers.: expected an OpenSSL cipher list"),
        ({"ciphers": "A\nB"}, "ciphers.: expected an OpenSSL cipher list"),
        ({"client_certificate": "maybe"}, "client_certificate.: expected none or optional or required"),
        ({"client_certificate": "required"}, "ca_certificates: expected the certificates of the authorities whose"),
        ({"client_certificate": "optional"}, "ca_certificates: expected the certificates of the authorities whose"),
        ({"crl": ["a.pem"]}, "ca_certificates: expected the certificates of the authorities that the lists are of"),
        ({"ca_certificate": ["a.pem"]}, "ca_certificate: unknown key, expected one of key, certificate"),
        ({"ca_certificates": "a.pem"}, "ca_certificates.: Input should be a valid tuple"),
        ({"sni": [{"key": "a"}]}, "sni.0.certificate.: Field required"),
    ],
)
def test_what_cannot_be_used_of_a_listener_is_refused(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as error:
        front(**keys)
    assert text in why(error)


@pytest.mark.parametrize("which", ["key", "certificate", "trust_root"])
@pytest.mark.parametrize("side", ["transports", "connections"])
def test_a_key_in_place_of_its_path_is_never_shown(which: str, side: str, tmp_path: Path) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\n-----END PRIVATE KEY-----\n"
    tls: dict[str, Any] = {"key": "key.pem", "certificate": "certificate.pem", which: key}
    if side == "transports" and which == "trust_root":
        tls["ca_certificates"] = tls.pop(which)
    endpoint = {"type": "tcp", "port": 9000, "tls": tls}
    item: dict[str, Any] = {"type": "rawsocket", "endpoint": endpoint}
    config: dict[str, Any] = {"type": "proxy", "transports": [item]}
    if side == "connections":
        backend = {"auth": {"anonymous": {}}, "transport": {**item, "endpoint": {**endpoint, "host": "localhost"}}}
        config = {"type": "proxy", "connections": {"router1": backend}}
    path = tmp_path / "proxy.json"
    path.write_text(json.dumps(config))
    found = " ".join(str(finding) for finding in check(path))
    assert "error: " in found
    assert "***" in found
    assert not any(line in found for line in key.splitlines())


def test_true_is_tls_and_false_is_none() -> None:
    assert back(True) == BackendTls()
    assert back(False) is None
    assert back(None) is None
    assert back({}) == BackendTls()
    assert BackendTls().verify is True


def test_autobahns_and_crossbars_names_mean_the_same() -> None:
    tls = back({"hostname": "router", "trust_root": "root.pem", "ca_certificates": ["ca.pem"]})
    assert tls is not None
    assert tls.authorities == ("/etc/proxy/ca.pem", "/etc/proxy/root.pem")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"key": "k.pem"}, "certificate: expected the certificate that belongs to the key"),
        ({"certificate": "c.pem"}, "key: expected the private key of the certificate"),
        ({"chain_certificates": ["c.pem"]}, "certificate: expected the certificate that the chain is of"),
        ({"hostname": ""}, "hostname.: expected a string that is not empty"),
        ({"verify": 0}, "verify.: Input should be a valid boolean"),
        ({"name": "x"}, "name: unknown key, expected one of hostname, ca_certificates"),
    ],
)
def test_what_cannot_be_used_of_a_connection_is_refused(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as error:
        back(keys)
    assert text in why(error)


TCP = {"type": "tcp", "host": "10.0.0.5", "port": 9000}
UNIX = {"type": "unix", "path": "/run/router.sock"}


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"url": "wss://router.example/ws"}, "router.example"),
        ({"url": "wss://Router.example.:9000/ws"}, "router.example"),
        ({"url": "wss://[::1]/ws"}, "::1"),
        ({"type": "rawsocket", "url": "rss://router.example:9000"}, "router.example"),
        ({"url": "wss://router.example/ws", "endpoint": TCP}, "10.0.0.5"),
        ({"url": "wss://router.example/ws", "endpoint": {**TCP, "tls": None}}, "10.0.0.5"),
        ({"url": "ws://router.example/ws", "endpoint": {**TCP, "tls": True}}, "10.0.0.5"),
        ({"url": "wss://a/ws", "endpoint": {**TCP, "tls": {"hostname": "router.example"}}}, "router.example"),
        ({"type": "rawsocket", "endpoint": {**TCP, "host": "bücher.example", "tls": True}}, "xn--bcher-kva.example"),
        ({"url": "wss://router.example/ws", "endpoint": {**UNIX, "tls": True}}, "router.example"),
        ({"type": "rawsocket", "endpoint": {**UNIX, "tls": {"hostname": "router.example"}}}, "router.example"),
        ({"type": "rawsocket", "endpoint": {**TCP, "host": "fe80::1%eth0", "tls": True}}, "fe80::1"),
        ({"type": "rawsocket", "endpoint": {**TCP, "host": "my_router-1", "tls": True}}, "my_router-1"),
    ],
)
def test_tls_with_the_router(item: dict[str, Any], name: str) -> None:
    transport = BackendTransport.model_validate(item)
    assert transport.endpoint.tls is not None
    assert transport.server_name == name


@pytest.mark.parametrize(
    "item",
    [
        {"url": "ws://router.example/ws"},
        {"url": "ws://router.example/ws", "endpoint": TCP},
        {"url": "wss://router.example/ws", "endpoint": {**TCP, "tls": False}},
        {"url": "wss://router.example/ws", "endpoint": UNIX},
        {"type": "rawsocket", "endpoint": TCP},
    ],
)
def test_plain_text_to_the_router_where_nobody_asks_for_tls(item: dict[str, Any]) -> None:
    assert BackendTransport.model_validate(item).endpoint.tls is None


def test_a_unix_socket_has_no_name_that_a_certificate_could_be_for() -> None:
    with pytest.raises(ValidationError, match="a Unix socket has none"):
        BackendTransport.model_validate({"type": "rawsocket", "endpoint": {**UNIX, "tls": True}})
    unchecked = {"type": "rawsocket", "endpoint": {**UNIX, "tls": {"verify": False}}}
    assert BackendTransport.model_validate(unchecked).server_name == ""


@pytest.mark.parametrize(
    "name",
    [".example.com", "..com", "*.example.com", "*", "127.1", "1", "router:443", "rou ter", "a..b", "x" * 64, "é" * 70],
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_name_that_no_certificate_can_be_checked_for_is_refused(name: str, verify: bool) -> None:
    """To OpenSSL a leading dot is any host below it; of an address in another form it cannot make anything."""
    named = {"type": "rawsocket", "endpoint": {**TCP, "tls": {"hostname": name, "verify": verify}}}
    dialled = {"type": "rawsocket", "endpoint": {**TCP, "host": name, "tls": {"verify": verify}}}
    for item in (named, dialled):
        with pytest.raises(ValidationError, match="expected, for TLS, a host name or an IP address in full"):
            BackendTransport.model_validate(item)
    assert (
        BackendTransport.model_validate({"type": "rawsocket", "endpoint": {**TCP, "host": name}}).endpoint.tls is None
    )


@pytest.mark.parametrize("host", ["\udcff.example", "x" * 70 + "é.example"])
def test_a_host_that_is_no_name_is_left_as_it_is(host: str) -> None:
    assert certificate_name(host) == host
