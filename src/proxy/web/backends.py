"""Connections of the control plane to the servers that a web service stands in front of: addresses, TLS, deadlines."""

import logging
import os
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
    wrapClientTLS,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IStreamClientEndpoint, ITCPTransport
from zope.interface import implementer

from proxy.addresses import is_literal
from proxy.config.web import ConnectingTcp, ConnectingTls, ConnectingTwisted, ConnectingUnix
from proxy.errors import InvalidConfiguration

__all__ = ["Backend", "TlsClient"]

log = logging.getLogger("proxy.web")

HTTP_ALPN: Final = [b"http/1.1"]


class TlsClient:
    """TLS towards one server, with what the files say at the time of a connection.

    :param config: how.
    :param host: of the endpoint: what the certificate must name where the configuration names nothing else.
    :param label: of the service, for logs.
    :raises InvalidConfiguration: a file cannot be read, or does not hold what it should.
    """

    def __init__(self, config: ConnectingTls, host: str, label: str) -> None:
        self._config = config
        self._hostname = (config.hostname or host).strip("[]")
        self._label = label
        self._files = [*(config.ca_certificates or ()), *filter(None, (config.certificate, config.key))]
        self._state = self._look()
        self._creator = self._load()

    def creator(self) -> Any:
        """Twisted's IOpenSSLClientConnectionCreator. Files that were replaced meanwhile count, if they can be used."""
        state = self._look()
        if state != self._state:
            self._state = state
            try:
                self._creator = self._load()
            except InvalidConfiguration as error:
                log.warning("%s: the certificates from before stay in use: %s", self._label, error.message)
        return self._creator

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file does."""
        return tuple(_stamp(path) for path in self._files)

    def _load(self) -> Any:
        # Imported late: few workers need it, and OpenSSL takes its time.
        from OpenSSL import SSL
        from twisted.internet.ssl import CertificateOptions, optionsForClientTLS

        config = self._config
        options: dict[str, Any] = {}
        if config.certificate is not None and config.key is not None:
            options = _client_certificate(config.certificate, config.key)
        trusted = None if config.ca_certificates is None else _authorities(config.ca_certificates)
        try:
            if not config.verify:
                context = CertificateOptions(verify=False, acceptableProtocols=HTTP_ALPN, **options).getContext()
                return _Unverified(context, self._hostname)
            return optionsForClientTLS(
                self._hostname, trustRoot=trusted, acceptableProtocols=HTTP_ALPN, extraCertificateOptions=options
            )
        except (SSL.Error, ValueError, UnicodeError) as error:
            # Never the library's text: it may quote what it was given.
            what = "certificate and key" if options else "hostname"
            raise InvalidConfiguration(f"tls: {what} cannot be used ({type(error).__name__})") from None


class _Unverified:
    """Makes TLS connections to servers whose certificate is not looked at."""

    def __init__(self, context: Any, hostname: str) -> None:
        from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
        from zope.interface import directlyProvides

        directlyProvides(self, IOpenSSLClientConnectionCreator)
        self._context = context
        self._name = None if is_literal(hostname) else hostname.encode("idna")

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """A connection of OpenSSL's, with the server's name in it."""
        from OpenSSL import SSL

        connection = SSL.Connection(self._context, None)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name)
        return connection


@implementer(IStreamClientEndpoint)
class Backend:
    """A server, as an endpoint of Twisted's.

    :param reactor: Twisted's.
    :param config: where it is; its own ``timeout`` comes before that of ``timeout``.
    :param timeout: for connecting (and only that), seconds.
    :param label: of the service, for logs.
    :raises InvalidConfiguration: TLS cannot be set up.

    :ivar is_secure: whether it is spoken to over TLS.
    """

    def __init__(
        self,
        reactor: Any,
        config: ConnectingTcp | ConnectingUnix | ConnectingTwisted,
        timeout: float,
        label: str,
        *,
        tls: bool = False,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._timeout = config.timeout or timeout
        self._endpoint = _endpoint(reactor, config, self._timeout)
        self._tls: TlsClient | None = None
        settings = config.tls if isinstance(config, ConnectingTcp) else None
        if settings is None and tls and not isinstance(config, ConnectingTwisted):
            settings = ConnectingTls()
        if settings is not None:
            host = config.host if isinstance(config, ConnectingTcp) else "localhost"
            self._tls = TlsClient(settings, host, label)
        self.is_secure = self._tls is not None

    def connect(self, protocolFactory: Any) -> "Deferred[Any]":
        """Connect once; see Twisted's IStreamClientEndpoint."""
        endpoint = self._endpoint
        if self._tls is not None:
            endpoint = wrapClientTLS(self._tls.creator(), endpoint)
        connected: Deferred[Any] = endpoint.connect(protocolFactory)
        if isinstance(self._config, ConnectingTwisted):  # the others see to it themselves
            connected.addTimeout(self._timeout, self._reactor, _too_late)
        return connected.addCallback(_tune)

    def __str__(self) -> str:
        config = self._config
        if isinstance(config, ConnectingUnix):
            return f"unix:{config.path}"
        if isinstance(config, ConnectingTwisted):
            return config.client_string
        return f"[{config.host}]:{config.port}" if ":" in config.host else f"{config.host}:{config.port}"


def _endpoint(reactor: Any, config: ConnectingTcp | ConnectingUnix | ConnectingTwisted, timeout: float) -> Any:
    """Twisted's endpoint, without TLS."""
    if isinstance(config, ConnectingUnix):
        return UNIXClientEndpoint(reactor, config.path, timeout=timeout)
    if isinstance(config, ConnectingTwisted):
        try:
            return clientFromString(reactor, config.client_string)
        except (ValueError, TypeError, KeyError) as error:
            text = "client_string: expected one that Twisted understands, like tcp:host:port"
            raise InvalidConfiguration(text) from error
    host = config.host.strip("[]")
    is_address = is_literal(host)
    if config.version is None and not is_address:
        return HostnameEndpoint(reactor, host, config.port, timeout=timeout)
    # For an address, HostnameEndpoint would report a refusal only after the time it leaves between attempts.
    version = config.version or (6 if ":" in host else 4)
    kind: Any = TCP6ClientEndpoint if version == 6 else TCP4ClientEndpoint
    return kind(reactor, host, config.port, timeout=timeout)


def _too_late(_: Any, seconds: float) -> Any:
    raise ConnectTimeout(string=f"no connection within {seconds:g} s")


def _tune(protocol: Any) -> Any:
    """No waiting for more to send; and a server that vanished without a word is to be noticed."""
    transport = protocol.transport
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
    return protocol


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidConfiguration(f"tls: {path} cannot be read: {error.strerror}") from None


def _pem_certificates(path: str) -> list[Any]:
    """All certificates of a file, at least one."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise InvalidConfiguration(f"tls: {path}: expected certificates in PEM") from None


def _authorities(paths: Iterable[str]) -> Any:
    from OpenSSL.crypto import X509
    from twisted.internet.ssl import Certificate, trustRootFromCertificates

    found = [Certificate(X509.from_cryptography(one)) for path in paths for one in _pem_certificates(path)]
    return trustRootFromCertificates(found)


def _client_certificate(certificate: str, key: str) -> dict[str, Any]:
    """What Twisted's CertificateOptions takes for a certificate of our own, with those that follow it in its file."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from OpenSSL.crypto import X509, PKey

    found = _pem_certificates(certificate)
    try:
        private: Any = load_pem_private_key(_read(key), None)
    except (ValueError, TypeError):
        raise InvalidConfiguration(f"tls: {key}: expected a private key in PEM, without a passphrase") from None
    if private.public_key() != found[0].public_key():  # OpenSSL would find out with the first connection only
        raise InvalidConfiguration(f"tls: {key} is not the key of the certificate in {certificate}")
    chain = [X509.from_cryptography(one) for one in found]
    pair = {"privateKey": PKey.from_cryptography_key(private), "certificate": chain[0]}
    return {**pair, "extraCertChain": chain[1:]}
