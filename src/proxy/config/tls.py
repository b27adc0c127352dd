"""TLS: what a listening endpoint shows its clients, and what the way to a router asks for.

Keys as in Crossbar.io and autobahn. Files are PEM; a relative path is relative to the folder of the configuration.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, StrictBool, StrictStr, ValidationInfo, model_validator

from proxy.config.fields import PEM_MARK, NoEffect, StrictModel, Text, one_of, problem

__all__ = ["BackendTls", "BackendTlsConfig", "ClientCertificates", "ServerCertificate", "TlsConfig", "TlsVersion"]

TlsVersion: TypeAlias = Literal["1.2", "1.3"]
ClientCertificates: TypeAlias = Literal["none", "optional", "required"]


def _file(value: str, info: ValidationInfo) -> str:
    """Make a path absolute, against the folder of the configuration file."""
    if not value or any(mark in value for mark in _NEVER_IN_PATHS):
        raise problem("expected the path of a PEM file")
    folder: Path | None = (info.context or {}).get("folder")
    return value if folder is None else os.path.normpath(folder / value)


def _version(value: Any) -> Any:
    """YAML reads 1.2 as a number."""
    if isinstance(value, float) and value in (1.2, 1.3):
        return str(value)
    return value


def _cipher_list(value: str) -> str:
    if value and value.isascii() and value.isprintable() and len(value) <= _CIPHERS_MAX:
        return value
    raise problem("expected an OpenSSL cipher list, for example ECDHE+AESGCM:TLS_AES_128_GCM_SHA256")


_CIPHERS_MAX = 4096
# Where somebody has put the key itself, no error about a missing file may repeat it.
_NEVER_IN_PATHS = ("\0", "\n", PEM_MARK)
PemFile: TypeAlias = Annotated[StrictStr, AfterValidator(_file)]
PemFiles: TypeAlias = tuple[PemFile, ...]
_MinVersion: TypeAlias = Annotated[TlsVersion, one_of("1.2", "1.3"), BeforeValidator(_version)]
_Ciphers: TypeAlias = Annotated[StrictStr, AfterValidator(_cipher_list)]


class ServerCertificate(StrictModel):
    """What a server proves with who it is.

    :ivar key: private key. Without a passphrase.
    :ivar certificate: the server's; intermediate ones may follow in the same file.
    :ivar chain_certificates: intermediate certificates, the server's issuer first.
    """

    key: PemFile
    certificate: PemFile
    chain_certificates: PemFiles = ()


class TlsConfig(ServerCertificate):
    """TLS of a listening endpoint.

    :ivar ca_certificates: whose client certificates are taken.
    :ivar client_certificate: None: ``required`` where there are ``ca_certificates``, as in Crossbar.io, else ``none``.
    :ivar crl: revocation lists of those authorities.
    :ivar ciphers: OpenSSL's list for TLS 1.2; names that begin with ``TLS_`` are for TLS 1.3. None: the usual ones.
    :ivar sni: more certificates, for clients that ask for one of the names in them (SNI, RFC 6066 section 3).
    """

    ca_certificates: PemFiles = ()
    client_certificate: Annotated[ClientCertificates, one_of("none", "optional", "required")] | None = None
    crl: PemFiles = ()
    dhparam: Annotated[
        StrictStr | None, NoEffect("accepted, has no effect: keys are agreed on over elliptic curves only")
    ] = None
    ciphers: _Ciphers | None = None
    min_version: _MinVersion = "1.2"
    sni: tuple[ServerCertificate, ...] = ()

    @model_validator(mode="after")
    def _has_authorities(self) -> "TlsConfig":
        if self.client_certificate not in (None, "none") and not self.ca_certificates:
            text = "expected the certificates of the authorities whose client certificates are taken"
            raise problem(text, "ca_certificates")
        if self.crl and not self.ca_certificates:
            raise problem("expected the certificates of the authorities that the lists are of", "ca_certificates")
        return self

    @property
    def verifies_clients(self) -> ClientCertificates:
        """What is asked of clients."""
        return self.client_certificate or ("required" if self.ca_certificates else "none")


class BackendTls(StrictModel):
    """TLS towards a router. All that is left out is as with ``tls: true``.

    :ivar hostname: whom the router's certificate must name, and the name that is asked for (SNI); None: the host that
        is dialled (for a Unix socket: that of the URL, if it names one).
    :ivar ca_certificates: whose certificates are taken, in place of the system's authorities; ``trust_root`` is
        autobahn's key for one more of them.
    :ivar certificate: the proxy's own, shown to a router that asks for one; ``key`` belongs to it.
    :ivar verify: False: any certificate is taken, and anybody in between can read and change everything.
    """

    hostname: Text | None = None
    ca_certificates: PemFiles = ()
    trust_root: PemFile | None = None
    certificate: PemFile | None = None
    key: PemFile | None = None
    chain_certificates: PemFiles = ()
    crl: PemFiles = ()
    ciphers: _Ciphers | None = None
    min_version: _MinVersion = "1.2"
    verify: StrictBool = True

    @model_validator(mode="after")
    def _key_and_certificate(self) -> "BackendTls":
        if self.key is not None and self.certificate is None:
            raise problem("expected the certificate that belongs to the key: required key is missing", "certificate")
        if self.certificate is not None and self.key is None:
            raise problem("expected the private key of the certificate: required key is missing", "key")
        if self.chain_certificates and self.certificate is None:
            raise problem("expected the certificate that the chain is of: required key is missing", "certificate")
        return self

    @property
    def authorities(self) -> PemFiles:
        """Whose certificates are taken; none: the system's."""
        return self.ca_certificates + (() if self.trust_root is None else (self.trust_root,))


def _backend_tls(value: Any) -> Any:
    """``true`` is TLS with nothing further said; ``false`` is none."""
    if value is True:
        return {}
    if value is False:
        return None
    return value


BackendTlsConfig: TypeAlias = Annotated[BackendTls | None, BeforeValidator(_backend_tls)]
"""``true``, ``false`` or a mapping."""
