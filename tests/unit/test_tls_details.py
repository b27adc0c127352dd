"""What a client's TLS looks like in the details of its transport, with autobahn's own form as the measure."""

import hashlib
from pathlib import Path

import pytest
from autobahn.util import peer_certificate_details
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from proxy.messages import SERIALIZERS, encode
from proxy.peers import TlsInfo
from proxy.tls.details import EXTENSIONS_MAX, VALUE_MAX, certificate_details, channel_ids, peer_details
from support.certificates import Authority, certificates


def info(certificate: bytes = b"", finished: bytes = b"f" * 48, exporter: bytes = b"e" * 32) -> TlsInfo:
    return TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "localhost", "", finished, exporter, certificate)


def test_a_plain_connection_has_nothing_to_tell() -> None:
    assert peer_details(None) == {}


def test_tls_without_a_clients_certificate() -> None:
    assert peer_details(info()) == {
        "channel_type": "tls",
        "is_secure": True,
        "channel_id": {"tls-unique": hashlib.sha256(b"f" * 48).digest(), "tls-exporter": b"e" * 32},
        "peer_cert": None,
    }


def test_no_id_where_the_handshake_gave_none() -> None:
    assert channel_ids(info(finished=b"", exporter=b"")) == {}


@pytest.mark.parametrize("name", ["server", "server_rsa", "client", "expired", "ca"])
def test_a_certificate_is_told_of_as_autobahn_does(name: str, tmp_path: Path) -> None:
    made = certificates(tmp_path)
    if name == "ca":
        certificate = x509.load_pem_x509_certificate(made.ca.read_bytes())
    else:
        certificate = getattr(made, name).made
    told = certificate_details(certificate.public_bytes(serialization.Encoding.DER))
    expected = peer_certificate_details(certificate)
    assert {**told, "serial": int(told["serial"])} == expected
    assert told["expired"] is (name == "expired")


@pytest.mark.parametrize("serializer", sorted(SERIALIZERS))
def test_every_serializer_can_express_it(serializer: str, tmp_path: Path) -> None:
    # Serial numbers have more bits than MessagePack has integers.
    der = certificates(tmp_path).client.der
    encode(SERIALIZERS[serializer], [1, "realm1", {"roles": {}, "authextra": peer_details(info(der))}])


def test_the_serial_number_is_an_integer_where_it_fits(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    builder = x509.CertificateBuilder(serial_number=4711)
    pair = authority.issue("small", client=True)
    builder = builder.subject_name(pair.made.subject).issuer_name(pair.made.issuer)
    builder = builder.public_key(pair.private.public_key())
    builder = builder.not_valid_before(pair.made.not_valid_before_utc).not_valid_after(pair.made.not_valid_after_utc)
    made = builder.sign(pair.private, hashes.SHA256())
    assert certificate_details(made.public_bytes(serialization.Encoding.DER))["serial"] == 4711


def test_what_is_no_certificate_has_its_fingerprints() -> None:
    told = certificate_details(b"nonsense")
    assert told["sha256"] == hashlib.sha256(b"nonsense").digest().hex(":").upper()
    assert set(told) == {"md5", "sha1", "sha256", "hash"}


def test_what_a_client_can_make_us_keep_is_bounded(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("long", client=True)
    name = x509.Name([x509.NameAttribute(NameOID.PSEUDONYM, "y" * 128)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(pair.private.public_key())
    builder = builder.not_valid_before(pair.made.not_valid_before_utc).not_valid_after(pair.made.not_valid_after_utc)
    names = [x509.DNSName(f"{number}.example.com") for number in range(2000)]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for number in range(2 * EXTENSIONS_MAX):
        oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.99999.{number}")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"x" * 10_000), critical=False)
    made = builder.sign(pair.private, hashes.SHA256())
    told = certificate_details(made.public_bytes(serialization.Encoding.DER))
    assert len(told["extensions"]) == EXTENSIONS_MAX
    assert all(len(extension["value"]) <= VALUE_MAX for extension in told["extensions"])
    assert told["subject"] == {"pseudonym": "y" * 128}
