"""What is known of a client's TLS, as autobahn's TransportDetails has it."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509

from proxy.peers import TlsInfo

__all__ = ["certificate_details", "channel_ids", "for_routers", "peer_details"]

# A certificate is its owner's text, and stays in memory as long as the connection: so much of it is kept.
EXTENSIONS_MAX: Final = 32
VALUE_MAX: Final = 4096
# What all serializers can express.
_INTEGER_BITS: Final = 63

_ALTERNATIVE_NAMES: Final[tuple[tuple[type[x509.GeneralName], str, Callable[[Any], str]], ...]] = (
    (x509.DNSName, "DNS", str),
    (x509.RFC822Name, "email", str),
    (x509.UniformResourceIdentifier, "URI", str),
    (x509.IPAddress, "IP Address", str),
    (x509.RegisteredID, "Registered ID", lambda oid: str(oid.dotted_string)),
    (x509.DirectoryName, "DirName", lambda name: str(name.rfc4514_string())),
)


def peer_details(tls: TlsInfo | None) -> dict[str, Any]:
    """The keys of the transport's details that tell of TLS.

    :param tls: what the handshake came to; None: the connection is plain, and there is nothing to tell.
    """
    if tls is None:
        return {}
    return {
        "channel_type": "tls",
        "is_secure": True,
        "channel_id": channel_ids(tls),
        "peer_cert": certificate_details(tls.certificate) if tls.certificate else None,
    }


def channel_ids(tls: TlsInfo) -> dict[str, bytes]:
    """What a credential can be bound to, 32 octets each, by the name of the type.

    ``tls-unique`` is the SHA-256 of what RFC 5929 section 3 names, as autobahn has it; ``tls-exporter`` is that of
    RFC 9266.
    """
    ids = {}
    if tls.finished:
        ids["tls-unique"] = hashlib.sha256(tls.finished).digest()
    if tls.exporter:
        ids["tls-exporter"] = tls.exporter
    return ids


def for_routers(transport: Mapping[str, Any]) -> Mapping[str, Any]:
    """A transport's details as routers can read them.

    autobahn's own parser, which Crossbar.io has read them with, takes IDs of channels in hexadecimal digits, and only
    ``tls-unique``: at anything else the router's session fails.

    :param transport: see :func:`proxy.forwarding.transport_details`.
    """
    ids = transport.get("channel_id")
    if not ids:
        return transport
    told = {name: value.hex() for name, value in ids.items() if name == "tls-unique"}
    return {**transport, "channel_id": told}


def certificate_details(der: bytes) -> dict[str, Any]:
    """A certificate under autobahn's keys. What cannot be read of it is left empty; its fingerprints are always there.

    :param der: the certificate. It has been verified, or else its fingerprint is all that may be trusted.
    """
    details: dict[str, Any] = {
        name: _colons(hashlib.new(name, der, usedforsecurity=False).digest()) for name in ("md5", "sha1", "sha256")
    }
    details["hash"] = None
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError:
        return details
    for name, read in _READERS.items():
        try:
            details[name] = read(certificate)
        except Exception:  # cryptography raises many kinds for what a certificate may hold
            details[name] = _UNREADABLE.get(name)
    return details


def _colons(digest: bytes) -> str:
    return digest.hex(":").upper()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%SZ")


def _integer(number: int) -> int | str:
    """A serial number has up to 160 bits, more than MessagePack and UBJSON can express: then its digits."""
    return number if number.bit_length() <= _INTEGER_BITS else str(number)


def _oid_name(oid: x509.ObjectIdentifier) -> str:
    return oid.dotted_string if oid._name == "Unknown OID" else oid._name


def _name(name: x509.Name) -> dict[str, str]:
    """The attributes by their short names in lower case: ``cn``, ``o``."""
    found = {}
    for attribute in name:
        key = attribute.rfc4514_attribute_name
        if key[:1].isdigit():
            key = _oid_name(attribute.oid)
        value = attribute.value
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        found[key.lower()] = text[:VALUE_MAX]
    return found


def _extensions(certificate: x509.Certificate) -> list[dict[str, Any]]:
    shown = []
    for extension in list(certificate.extensions)[:EXTENSIONS_MAX]:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName | x509.IssuerAlternativeName):
            text = ", ".join(_alternative_name(name) for name in value)
        else:
            text = str(value)
        shown.append({"name": _oid_name(extension.oid), "value": text[:VALUE_MAX], "critical": extension.critical})
    return shown


def _alternative_name(name: x509.GeneralName) -> str:
    """As OpenSSL prints it."""
    for kind, label, text in _ALTERNATIVE_NAMES:
        if isinstance(name, kind):
            return f"{label}:{text(name.value)}"
    return "othername:<unsupported>"


_READERS: Final[Mapping[str, Callable[[x509.Certificate], Any]]] = {
    "expired": lambda certificate: datetime.now(UTC) > certificate.not_valid_after_utc,
    "serial": lambda certificate: _integer(certificate.serial_number),
    "signature_algorithm": lambda certificate: _oid_name(certificate.signature_algorithm_oid),
    "version": lambda certificate: certificate.version.value,
    "not_before": lambda certificate: _time(certificate.not_valid_before_utc),
    "not_after": lambda certificate: _time(certificate.not_valid_after_utc),
    "subject": lambda certificate: _name(certificate.subject),
    "issuer": lambda certificate: _name(certificate.issuer),
    "extensions": _extensions,
}
_UNREADABLE: Final[Mapping[str, Any]] = {"subject": {}, "issuer": {}, "extensions": []}
