"""Who a client is, and who it is not."""

from __future__ import annotations

import pytest

from proxy.addresses import Address
from proxy.peers import Peer, TlsInfo, read_intro
from proxy.plane import pack_address
from proxy.tls.details import peer_details

TLS = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "example.com", "", b"f" * 32, b"e" * 32, b"certificate")


def test_names() -> None:
    assert Peer("192.0.2.1", 80).text == "tcp4:192.0.2.1:80"
    assert Peer("::1", 80).text == "tcp6:::1:80"
    assert Peer(path="/a").text == "unix:/a"
    assert Peer().text == "unix"


def test_a_balancers_certificate_is_not_its_clients() -> None:
    """Else whoever comes through a listed proxy that shows a certificate would be logged in as that proxy."""
    client = Peer("10.0.0.1", 4711, tls=TLS).with_address("192.0.2.1", 5)
    assert (client.host, client.port, client.is_secure) == ("192.0.2.1", 5, True)
    details = peer_details(client.tls)
    assert details["is_secure"] is True
    assert details["channel_id"] == {}
    assert details["peer_cert"] is None


@pytest.mark.parametrize(
    ("given", "host"), [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1")]
)
def test_an_address_has_one_form(given: str, host: str) -> None:
    address = pack_address(Address(given, 4711))
    peer, rest = read_intro(bytes((len(address),)) + address + b"\0\0" + b"GET / HTTP/1.1")
    assert (peer.host, peer.port, rest) == (host, 4711, b"GET / HTTP/1.1")
