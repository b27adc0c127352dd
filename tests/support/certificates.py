"""Certificates for tests: an authority of their own, servers and clients, right and wrong ones."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

HOSTS = ("localhost", "127.0.0.1", "::1")
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, each in a PEM file.

    :ivar key: path of the key; ``certificate``: path of the certificate alone; ``chain``: path of the certificate and
        the intermediate ones behind it (the same octets as ``certificate`` where there are none).
    :ivar above: paths of the intermediate certificates, as ``chain_certificates`` takes them.
    :ivar made: the certificate itself.
    """

    key: Path
    certificate: Path
    chain: Path
    above: tuple[Path, ...]
    made: x509.Certificate
    private: Key

    @property
    def der(self) -> bytes:
        """The certificate, DER."""
        return self.made.public_bytes(serialization.Encoding.DER)

    @property
    def sha1(self) -> str:
        """Fingerprint, as ``certificate-sha1`` of the configuration takes it."""
        return self.made.fingerprint(hashes.SHA1()).hex().upper()

    @property
    def tls(self) -> dict[str, object]:
        """``key``, ``certificate`` and ``chain_certificates`` for a configuration."""
        keys: dict[str, object] = {"key": str(self.key), "certificate": str(self.certificate)}
        if self.above:
            keys["chain_certificates"] = [str(path) for path in self.above]
        return keys


class Authority:
    """A certificate authority in a folder.

    :param folder: where its files go.
    :param name: its common name, and the stem of its files' names.
    :param parent: who signed its certificate; None: itself.
    """

    def __init__(self, folder: Path, name: str = "ca", parent: Authority | None = None) -> None:
        self.folder = folder
        self.name = name
        self.parent = parent
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        start = datetime.datetime.now(datetime.UTC) - _DAY
        builder = _builder(subject, parent._made.subject if parent else subject, self._key, start, start + 365 * _DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        builder = _with_key_ids(builder, self._key, (parent or self)._key)
        self._made = builder.sign((parent or self)._key, hashes.SHA256())
        self.certificate = _write(folder / f"{name}.pem", _pem(self._made))

    def issue(
        self,
        stem: str,
        names: Sequence[str] = HOSTS,
        *,
        common_name: str | None = None,
        client: bool = False,
        key: str = "ec",
        start: float = -1,
        days: float = 30,
    ) -> Pair:
        """A key and a certificate; files of the same stem are replaced.

        :param names: host names and addresses that it is for.
        :param common_name: of the subject; None: the stem.
        :param client: a client's, without names.
        :param key: ``ec`` or ``rsa``.
        :param start: days from now on which it begins to be valid; ``days``: how many it is.
        """
        private = _new_key(key)
        builder = self._leaf(private, common_name or stem, () if client else names, client, start, days)
        made = builder.sign(self._key, hashes.SHA256())
        above = []
        authority: Authority | None = self
        while authority is not None and authority.parent is not None:
            above.append(authority.certificate)
            authority = authority.parent
        return _pair(self.folder, stem, private, made, above)

    def _leaf(
        self, key: Key, common_name: str, names: Sequence[str], client: bool, start: float, days: float
    ) -> x509.CertificateBuilder:
        begin = datetime.datetime.now(datetime.UTC) + start * _DAY
        end = begin + days * _DAY
        return _leaf(_name(common_name), self._made.subject, key, self._key, names, client, begin, end)

    def revoke(self, *pairs: Pair) -> Path:
        """A revocation list that names these certificates."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._made.subject)
        builder = builder.last_update(now - _DAY).next_update(now + 7 * _DAY)
        for pair in pairs:
            entry = x509.RevokedCertificateBuilder().serial_number(pair.made.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - _DAY).build())
        made = builder.sign(self._key, hashes.SHA256())
        return _write(self.folder / f"{self.name}.crl.pem", made.public_bytes(serialization.Encoding.PEM))


class Certificates:
    """What tests need, made when it is first asked for: all but ``self_signed`` and ``foreign_*`` by one authority.

    :param folder: where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.authority.certificate

    @cached_property
    def server(self) -> Pair:
        """For ``localhost``, ``127.0.0.1`` and ``::1``; ECDSA P-256."""
        return self.authority.issue("server")

    @cached_property
    def second(self) -> Pair:
        """As ``server``, with a key of its own."""
        return self.authority.issue("second")

    @property
    def server_der(self) -> bytes:
        """The server's certificate, DER."""
        return self.server.der

    @cached_property
    def server_rsa(self) -> Pair:
        """As ``server``, with a key of RSA-2048."""
        return self.authority.issue("server_rsa", key="rsa")

    @cached_property
    def other(self) -> Pair:
        """Of another host: ``other.example.com``."""
        return self.authority.issue("other", ["other.example.com"])

    @cached_property
    def wildcard(self) -> Pair:
        """Of ``*.wild.example.com``."""
        return self.authority.issue("wildcard", ["*.wild.example.com"])

    @cached_property
    def chained(self) -> Pair:
        """As ``server``, with an intermediate authority in between."""
        return Authority(self.folder, "intermediate", self.authority).issue("chained")

    @cached_property
    def expired(self) -> Pair:
        """As ``server``, valid until yesterday."""
        return self.authority.issue("expired", start=-10, days=9)

    @cached_property
    def client(self) -> Pair:
        """Of a client, common name ``client``."""
        return self.authority.issue("client", client=True)

    @cached_property
    def client_2(self) -> Pair:
        """Of another client, common name ``client_2``."""
        return self.authority.issue("client_2", client=True)

    @cached_property
    def client_expired(self) -> Pair:
        """Of a client, valid until yesterday."""
        return self.authority.issue("client_expired", client=True, start=-10, days=9)

    @cached_property
    def foreign(self) -> Authority:
        """Another authority, that nobody trusts."""
        folder = self.folder / "foreign"
        folder.mkdir()
        return Authority(folder, "foreign_ca")

    @cached_property
    def foreign_server(self) -> Pair:
        """As ``server``, by the authority that nobody trusts."""
        return self.foreign.issue("foreign_server")

    @cached_property
    def foreign_client(self) -> Pair:
        """Of a client, by the authority that nobody trusts."""
        return self.foreign.issue("foreign_client", client=True)

    @cached_property
    def self_signed(self) -> Pair:
        """As ``server``, signed by itself."""
        key = _new_key("ec")
        name = _name("self_signed")
        begin = datetime.datetime.now(datetime.UTC) - _DAY
        made = _leaf(name, name, key, key, HOSTS, False, begin, begin + 30 * _DAY).sign(key, hashes.SHA256())
        return _pair(self.folder, "self_signed", key, made, [])


def certificates(folder: Path) -> Certificates:
    """Certificates in a folder, which is made if need be; see :class:`Certificates`."""
    folder.mkdir(parents=True, exist_ok=True)
    return Certificates(folder)


def _new_key(kind: str) -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, "wamp-proxy tests"), (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, begin: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(begin).not_valid_after(end)


def _leaf(
    subject: x509.Name,
    issuer: x509.Name,
    key: Key,
    issuer_key: Key,
    names: Sequence[str],
    client: bool,
    begin: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = _builder(subject, issuer, key, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return _with_key_ids(builder, key, issuer_key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _with_key_ids(builder: x509.CertificateBuilder, key: Key, issuer_key: Key) -> x509.CertificateBuilder:
    """Add the identifiers that OpenSSL's strict check asks for."""
    subject_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(subject_id, critical=False)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return builder.add_extension(issuer_id, critical=False)


def _pem(made: x509.Certificate) -> bytes:
    return made.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, octets: bytes) -> Path:
    path.write_bytes(octets)
    return path


def _pair(folder: Path, stem: str, key: Key, made: x509.Certificate, above: list[Path]) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate = _pem(made)
    chain = certificate + b"".join(path.read_bytes() for path in above)
    key_path = folder / f"{stem}.key"
    key_path.touch(mode=0o600)
    return Pair(
        key=_write(key_path, private),
        certificate=_write(folder / f"{stem}.pem", certificate),
        chain=_write(folder / f"{stem}.chain.pem", chain),
        above=tuple(above),
        made=made,
        private=key,
    )
