"""Keys and certificates as they are in their files: read, checked, and told apart from what they were before.

Everything is checked here before OpenSSL gets it: its own texts name neither the file nor what was expected, and of two
files that are being replaced one may be new and the other one old.
"""

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from proxy.config.findings import ConfigError, Finding

__all__ = [
    "Certificate",
    "Fingerprint",
    "fingerprint",
    "read_authorities",
    "read_authority",
    "read_certificate",
    "read_revocations",
]

# Octets; the bundle of a system's authorities has some hundred thousand.
FILE_MAX: Final = 8 * 1024 * 1024

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_REVOCATIONS: Final = b"-----BEGIN X509 CRL-----"
_BEGIN_CERTIFICATE: Final = re.compile(rb"^-----BEGIN CERTIFICATE-----", re.MULTILINE)
_BEGIN: Final = re.compile(rb"^-----BEGIN", re.MULTILINE)
_END: Final = re.compile(rb"^-----END [^\r\n]*-----", re.MULTILINE)

Fingerprint: TypeAlias = tuple[tuple[int, ...] | None, ...]
"""What the system says of some files: equal as long as nobody has touched them."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain and key.

    :ivar path: of the certificate's file.
    :ivar chain: PEM: the certificate, then those between it and its authority.
    :ivar key: PEM. Never to be shown.
    :ivar names: the hosts that it is for, in lower case; a wildcard as ``*.example.com``.
    :ivar expires: when the first of the chain does.
    """

    path: str
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    names: tuple[str, ...]
    expires: datetime


def fingerprint(paths: Iterable[str]) -> Fingerprint:
    """What the system says of files now. Symbolic links are followed: they are how some tools replace files."""
    return tuple(_stat(path) for path in paths)


def _stat(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_certificate(place: str, key: str, certificate: str, chain: Sequence[str] = ()) -> Certificate:
    """A certificate and its key, which belong together.

    :param place: of the item that names them, for errors.
    :param key: path; ``certificate`` likewise. ``chain``: paths of what is between it and its authority.
    :raises ConfigError: a file cannot be read or holds something else, or the key is another one's.
    """
    octets = _read(f"{place}.certificate", certificate)
    certificates = _certificates(f"{place}.certificate", certificate, octets)
    first = certificates[0]
    for index, path in enumerate(chain):
        here = f"{place}.chain_certificates[{index}]"
        certificates += _certificates(here, path, _read(here, path))
    private = _read(f"{place}.key", key)
    _require_pair(f"{place}.key", key, private, first)
    # Some name a file of the whole chain and the chain once more.
    once = {item.public_bytes(serialization.Encoding.PEM): item for item in certificates}
    return Certificate(
        path=certificate,
        chain=b"".join(once),
        key=private,
        names=_names(first),
        expires=min(item.not_valid_after_utc for item in once.values()),
    )


def read_authorities(place: str, paths: Sequence[str]) -> bytes:
    """Certificates of authorities, PEM.

    :raises ConfigError: a file cannot be read, or holds something else.
    """
    return b"".join(read_authority(f"{place}[{index}]", path) for index, path in enumerate(paths))


def read_authority(place: str, path: str) -> bytes:
    """The certificates of one file, PEM; errors as for :func:`read_authorities`."""
    found = _certificates(place, path, _read(place, path))
    return b"".join(item.public_bytes(serialization.Encoding.PEM) for item in found)


def read_revocations(place: str, paths: Sequence[str]) -> bytes:
    """Revocation lists, PEM.

    :raises ConfigError: a file cannot be read, or holds something else.
    """
    lists = []
    for index, path in enumerate(paths):
        here = f"{place}[{index}]"
        octets = _read(here, path)
        for block in octets.split(_REVOCATIONS)[1:]:
            try:
                made = x509.load_pem_x509_crl(_REVOCATIONS + block)
            except ValueError:
                raise _error(here, path, "expected revocation lists in PEM, and one is broken") from None
            lists.append(made.public_bytes(serialization.Encoding.PEM))
        if _REVOCATIONS not in octets:
            raise _error(here, path, "expected a revocation list in PEM")
    return b"".join(lists)


def _error(place: str, path: str, expected: str) -> ConfigError:
    return ConfigError([Finding(place, path, expected)])


def _read(place: str, path: str) -> bytes:
    try:
        # Nobody may have the worker wait: to open a pipe would.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _error(place, path, "expected a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                octets = file.read(FILE_MAX + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _error(place, path, f"cannot be read: {error.strerror}") from None
    except ValueError:  # not a name that the system could express
        raise _error(place, path, "cannot be read: not the name of a file") from None
    if len(octets) > FILE_MAX:
        raise _error(place, path, f"expected a file of at most {FILE_MAX} octets")
    return octets


def _certificates(place: str, path: str, octets: bytes) -> list[x509.Certificate]:
    if _CERTIFICATE not in octets:
        raise _error(place, path, "expected a certificate in PEM")
    try:
        found = x509.load_pem_x509_certificates(octets)
    except ValueError:
        found = []
    # A block without its end is passed over by the parser: who writes the file may not have come to it yet.
    is_cut = len(_BEGIN.findall(octets)) > len(_END.findall(octets))
    if not found or is_cut or len(found) < len(_BEGIN_CERTIFICATE.findall(octets)):
        raise _error(place, path, "expected certificates in PEM, and one is broken")
    return found


def _require_pair(place: str, path: str, octets: bytes, certificate: x509.Certificate) -> None:
    """Check that a key can be used and is the certificate's. What is wrong is told without a piece of the key."""
    try:
        key = serialization.load_pem_private_key(octets, password=None)
    except TypeError:
        raise _error(place, path, "expected a private key without a passphrase") from None
    except Exception:  # what cryptography says may be long, and none of it is for a log
        raise _error(place, path, "expected a private key in PEM") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise _error(place, path, "expected the private key of the certificate, and it is another one's")


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The hosts that a certificate is for: its alternative names, or where there are none the common name."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        names = []
    if not names:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [str(attribute.value) for attribute in common]
    return tuple(dict.fromkeys(name.lower() for name in names if name.isascii()))
