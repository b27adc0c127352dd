"""Whom proxies in front name as the client, and whom of them to believe."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from proxy.config.networks import NOBODY, Forwarded, Forwarders, NetworkNames, Networks, networks_of
from proxy.forwarded import client_peer
from proxy.handshake import HttpError
from proxy.peers import Peer, TlsInfo

PROXY = Peer("10.0.0.1", 40_000)
LISTED = Forwarders(networks=("10.0.0.0/8", "fd00::/8"))
TLS = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "", "", b"", b"", b"")


def told(header: str, value: str, forwarders: Forwarders = LISTED, peer: Peer = PROXY) -> str:
    return client_peer(peer, {header: value}, forwarders).text


def x_forwarded_for(value: str) -> str:
    return told("x-forwarded-for", value)


def forwarded(value: str) -> str:
    return told("forwarded", value)


# --- who is believed ---------------------------------------------------------------------------------------------


def test_a_listed_proxy_names_the_client() -> None:
    assert x_forwarded_for("198.51.100.7") == "tcp4:198.51.100.7:0"
    assert forwarded("for=198.51.100.7") == "tcp4:198.51.100.7:0"


def test_nobody_else_is_believed() -> None:
    stranger = Peer("192.0.2.1", 5)
    for header in ("x-forwarded-for", "forwarded"):
        assert told(header, "for=198.51.100.7", peer=stranger) == stranger.text
        assert told(header, "for=198.51.100.7", NOBODY) == PROXY.text
    assert client_peer(PROXY, {}, LISTED) is PROXY


def test_a_unix_socket_is_believed_where_it_is_listed() -> None:
    unix = Peer(path="/run/front.sock")
    assert told("x-forwarded-for", "198.51.100.7", Forwarders(networks=("unix",)), unix) == "tcp4:198.51.100.7:0"
    assert told("x-forwarded-for", "198.51.100.7", LISTED, unix) == "unix:/run/front.sock"


def test_tls_with_the_proxy_stays_known() -> None:
    peer = client_peer(Peer("10.0.0.1", 1, tls=TLS), {"x-forwarded-for": "198.51.100.7"}, LISTED)
    assert peer.is_secure
    assert peer.tls is not None
    assert peer.tls.cipher == TLS.cipher


def test_what_a_client_claims_for_itself_is_not_believed() -> None:
    """It stands to the left of what the first listed proxy wrote."""
    assert x_forwarded_for("1.1.1.1, 198.51.100.7") == "tcp4:198.51.100.7:0"
    assert forwarded('for=1.1.1.1;by=10.0.0.9, for="198.51.100.7:4711"') == "tcp4:198.51.100.7:4711"
    assert x_forwarded_for("10.0.0.5, 198.51.100.7, 10.0.0.3, 10.0.0.2") == "tcp4:198.51.100.7:0"


def test_listed_proxies_alone() -> None:
    """A client of one's own network: the first of them is the client."""
    assert x_forwarded_for("10.0.0.7, 10.0.0.3") == "tcp4:10.0.0.7:0"


@given(
    claims=st.lists(st.sampled_from(["1.1.1.1", "unknown", "10.0.0.9", "::1", "garbage", '"', ""]), max_size=4),
    proxies=st.lists(st.sampled_from(["10.0.0.2", "10.255.0.1", "fd00::2", "::ffff:10.0.0.4"]), max_size=3),
)
def test_no_claim_gets_past_the_proxies(claims: list[str], proxies: list[str]) -> None:
    chain = ", ".join([*claims, "198.51.100.7", *proxies])
    assert x_forwarded_for(chain) == "tcp4:198.51.100.7:0"


@given(st.text(st.characters(max_codepoint=255)))
def test_any_header_has_an_answer(value: str) -> None:
    for header in ("x-forwarded-for", "forwarded"):
        with suppress(HttpError):
            assert client_peer(PROXY, {header: value}, LISTED).host


# --- how it is written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("198.51.100.7:4711", "tcp4:198.51.100.7:4711"),
        ("[2001:db8::7]:4711", "tcp6:2001:db8::7:4711"),
        ("[2001:db8::7]", "tcp6:2001:db8::7:0"),
        ("2001:DB8:0::7", "tcp6:2001:db8::7:0"),
        ("::ffff:198.51.100.7", "tcp4:198.51.100.7:0"),
        ('"198.51.100.7"', "tcp4:198.51.100.7:0"),
        (" 198.51.100.7 ,, ", "tcp4:198.51.100.7:0"),
    ],
)
def test_the_forms_of_an_address(value: str, text: str) -> None:
    assert x_forwarded_for(value) == text


@pytest.mark.parametrize(
    "hop",
    ["unknown", "_hidden", "client.example.com", "198.51.100.7:70000", "198.51.100", "[198.51.100.7", "fe80::1%eth0"],
)
def test_an_address_that_is_not_told_ends_the_search(hop: str) -> None:
    """Whatever stands in front of it may be anybody's word: the last proxy that is known is the peer."""
    assert x_forwarded_for(f"203.0.113.9, {hop}") == PROXY.text
    assert x_forwarded_for(f"203.0.113.9, {hop}, 10.0.0.2") == "tcp4:10.0.0.2:0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('For="[2001:db8:cafe::17]:4711"', "tcp6:2001:db8:cafe::17:4711"),
        ("for=198.51.100.7;proto=http;by=203.0.113.43", "tcp4:198.51.100.7:0"),
        ('by="_a, for=1.1.1.1";for=198.51.100.7', "tcp4:198.51.100.7:0"),
        ('for="\\1\\98.51.100.7"', "tcp4:198.51.100.7:0"),
        ("for=198.51.100.7 ; proto=https , for=10.0.0.2", "tcp4:198.51.100.7:0"),
        ("for=198.51.100.7, proto=https", PROXY.text),
        ('for="_gazonk"', PROXY.text),
        ("for=198.51.100.7,", "tcp4:198.51.100.7:0"),
    ],
)
def test_the_forwarded_header(value: str, text: str) -> None:
    """RFC 7239 sections 4 to 6; an element without ``for`` hides who it stands for."""
    assert forwarded(value) == text


@pytest.mark.parametrize(
    "value", ['for="1.1.1.1, for=198.51.100.7', "for", "for=1.1.1.1 x", "for=1.1.1.1;for=2.2.2.2", 'for="a"b', "=a"]
)
def test_a_malformed_forwarded_header_is_refused(value: str) -> None:
    """A quote that a client leaves open would swallow what the proxy adds."""
    with pytest.raises(HttpError, match=r"400.*Forwarded"):
        forwarded(value)


# --- two headers -------------------------------------------------------------------------------------------------


def test_two_headers_must_agree() -> None:
    both = {"x-forwarded-for": "198.51.100.7", "forwarded": 'for="198.51.100.7:4711"'}
    assert client_peer(PROXY, both, LISTED).text == "tcp4:198.51.100.7:4711"
    both["forwarded"] = "for=1.1.1.1"  # one of them is the client's own
    with pytest.raises(HttpError, match=r"400.*contradict"):
        client_peer(PROXY, both, LISTED)


@pytest.mark.parametrize(
    ("header", "text"), [("x-forwarded-for", "tcp4:198.51.100.7:0"), ("forwarded", "tcp4:1.1.1.1:0")]
)
def test_one_header_can_be_chosen(header: Any, text: str) -> None:
    both = {"x-forwarded-for": "198.51.100.7", "forwarded": "for=1.1.1.1"}
    assert client_peer(PROXY, both, Forwarders(networks=("10.0.0.1",), header=header)).text == text


# --- networks ----------------------------------------------------------------------------------------------------


class Model(BaseModel):
    names: NetworkNames = ()
    forwarded: Forwarded = NOBODY


def test_networks_hold_addresses_however_they_are_written() -> None:
    names = Model.model_validate({"names": ["10.0.0.0/8", "::ffff:192.0.2.0/120", "2001:db8::/32", "::1"]}).names
    assert names == ("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32", "::1/128")
    networks = networks_of(names)
    for host in ("10.255.255.255", "::ffff:10.0.0.1", "192.0.2.255", "2001:db8:ffff::1", "0:0::1"):
        assert host in networks, host
    for host in ("11.0.0.0", "192.0.3.0", "2001:db9::1", "::2", "", "nonsense", "fe80::1%1"):
        assert host not in networks, host
    assert "" in Networks(["unix"])
    assert "10.0.0.1" not in Networks(["unix"])


@pytest.mark.parametrize(
    "name", ["10.0.0.1/8", "10.0.0.0/33", "example.com", "", "fe80::%1/64", "UNIX", "10.0.0.0/8/8"]
)
def test_what_is_no_network(name: str) -> None:
    with pytest.raises(ValidationError, match="expected an IP address, a network like 10"):
        Model.model_validate({"names": ["unix", name]})


def test_forwarded_takes_a_list_or_an_item() -> None:
    plain = Model.model_validate({"forwarded": ["10.0.0.0/8", "unix"]}).forwarded
    assert plain == Forwarders(networks=("10.0.0.0/8", "unix"), header="auto")
    item = Model.model_validate({"forwarded": {"networks": ["::1"], "header": "forwarded"}}).forwarded
    assert item == Forwarders(networks=("::1/128",), header="forwarded")
    for wrong in ({"network": []}, {"header": "via"}, "10.0.0.0/8", {"networks": ["x"]}):
        with pytest.raises(ValidationError):
            Model.model_validate({"forwarded": wrong})
