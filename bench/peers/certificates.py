"""Certificates of the TLS set-ups: one authority, and a server's certificate for each kind of key."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

#: What the load generator expects the servers to be called.
SERVER_NAME = "localhost"
KINDS = ("ecdsa", "rsa")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Certificate:
    """Files in PEM.

    :ivar both: certificate and key in one file, as HAProxy wants it.
    """

    certificate: Path
    key: Path
    both: Path


@dataclass(frozen=True)
class Certificates:
    """:ivar ca: the authority's certificate, for those that check."""

    ca: Path
    servers: dict[str, Certificate]


def _key(kind: str) -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _certificate(subject: str, key: Key, issuer: x509.Name, signer: Key, *, authority: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _files(folder: Path) -> Certificates:
    parts = ("certificate", "key", "both")
    servers = {kind: Certificate(*(folder / f"{kind}-{part}.pem" for part in parts)) for kind in KINDS}
    return Certificates(folder / "ca.pem", servers)


def made(folder: Path) -> Certificates:
    """The certificates in this folder, the same for all who ask. Made when it is not there.

    Each kind is signed by an authority's key of that kind.
    """
    found = _files(folder)
    if folder.exists():
        return found
    folder.mkdir()
    authorities = b""
    for kind, files in found.servers.items():
        root, key = _key(kind), _key(kind)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench {kind}")])
        authority = _certificate(f"bench {kind}", root, name, root, authority=True)
        certificate = _certificate(SERVER_NAME, key, name, root, authority=False).public_bytes(Encoding.PEM)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files.certificate.write_bytes(certificate)
        files.key.write_bytes(private)
        files.both.write_bytes(certificate + private)
        authorities += authority.public_bytes(Encoding.PEM)
    found.ca.write_bytes(authorities)
    return found
