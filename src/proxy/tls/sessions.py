"""TLS for the worker's own sessions at routers, which Twisted makes: what the data plane does, in pyOpenSSL's terms."""

from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from twisted.internet._sslverify import IOpenSSLTrustRoot  # Twisted has no public name for it
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import AcceptableCiphers, CertificateOptions, TLSVersion, optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.addresses import is_literal
from proxy.config.tls import BackendTls
from proxy.tls.context import split_ciphers
from proxy.tls.files import read_authorities, read_authority, read_certificate, read_revocations

__all__ = ["connection_creator", "tls_trouble"]

_VERSIONS: Final = {"1.2": TLSVersion.TLSv1_2, "1.3": TLSVersion.TLSv1_3}


def connection_creator(config: BackendTls, server_name: str, owner: str) -> Any:
    """What begins TLS on a connection to a router (IOpenSSLClientConnectionCreator). Reads the files anew.

    :param server_name: whom the certificate must name.
    :param owner: for errors: ``connection router1``.
    :raises ConfigError: a file cannot be used.
    """
    place = f"{owner}, tls"
    options: dict[str, Any] = {"raiseMinimumTo": _VERSIONS[config.min_version], **_own(config, place)}
    ciphers = split_ciphers(config.ciphers)["ciphers"]
    if ciphers:  # pyOpenSSL has no list for TLS 1.3: there all of OpenSSL's are taken
        options["acceptableCiphers"] = AcceptableCiphers.fromOpenSSLCipherString(ciphers)
    if not config.verify:
        return _Unverified(CertificateOptions(verify=False, **options).getContext(), server_name)
    trust: Any = _TrustRoot(config, place) if config.authorities or config.crl else None
    return optionsForClientTLS(server_name, trustRoot=trust, extraCertificateOptions=options)


def tls_trouble(failure: Failure) -> str:
    """Why a connection ended, if it was for TLS; empty: it was not."""
    if failure.check(VerificationError, CertificateError):
        return "the certificate is another host's"
    if not failure.check(SSL.Error):
        return ""
    error: Any = failure.value
    errors = error.args[0] if error.args else ()
    reasons = [item[-1] for item in errors if item] if isinstance(errors, (list, tuple)) else []
    return "; ".join(str(reason) for reason in reasons if reason) or "the connection was broken off"


def _own(config: BackendTls, place: str) -> dict[str, Any]:
    """The proxy's own certificate, where it has one."""
    if config.key is None or config.certificate is None:
        return {}
    own = read_certificate(place, config.key, config.certificate, config.chain_certificates)
    key: Any = serialization.load_pem_private_key(own.key, password=None)
    first, *others = [crypto.X509.from_cryptography(item) for item in x509.load_pem_x509_certificates(own.chain)]
    options = {"privateKey": crypto.PKey.from_cryptography_key(key), "certificate": first}
    return options | ({"extraCertChain": others} if others else {})


@implementer(IOpenSSLTrustRoot)
class _TrustRoot:
    """Authorities and revocation lists of a configuration."""

    def __init__(self, config: BackendTls, place: str) -> None:
        authorities = read_authorities(f"{place}.ca_certificates", config.ca_certificates)
        if config.trust_root is not None:
            authorities += read_authority(f"{place}.trust_root", config.trust_root)
        self._authorities = x509.load_pem_x509_certificates(authorities) if authorities else []
        self._lists = _lists(read_revocations(f"{place}.crl", config.crl))

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        """See Twisted."""
        store = context.get_cert_store()
        if store is None:
            raise RuntimeError("OpenSSL has no store of certificates")
        if not self._authorities:
            context.set_default_verify_paths()
        for authority in self._authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
        for revoked in self._lists:
            store.add_crl(revoked)
        if self._lists:
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK)


def _lists(octets: bytes) -> list[x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----"
    return [x509.load_pem_x509_crl(block + end) for block in octets.split(end)[:-1]]


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """TLS with whoever is there.

    :param server_name: to ask for, where it is a name.
    """

    def __init__(self, context: Any, server_name: str) -> None:
        self._context = context
        self._server_name = server_name

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """See Twisted."""
        connection = SSL.Connection(self._context, None)
        if self._server_name and not is_literal(self._server_name):
            connection.set_tlsext_host_name(self._server_name.encode("ascii"))
        return connection
