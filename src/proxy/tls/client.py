"""TLS towards a router."""

from typing import Any

from proxy.config.tls import BackendTls
from proxy.plane import Plane
from proxy.tls.context import VERSIONS, TlsContext, split_ciphers
from proxy.tls.files import Certificate, read_authorities, read_authority, read_certificate, read_revocations

__all__ = ["ClientTls"]


class ClientTls(TlsContext):
    """What is asked of a router's certificate, and what the router is shown.

    :param config: ``tls`` of the endpoint.
    :param plane: the data plane.
    :param owner: for people: ``connection router1``.
    :raises ConfigError: a file cannot be used, or OpenSSL refuses what is in them.
    """

    def __init__(self, config: BackendTls, plane: Plane, owner: str) -> None:
        self._config = config
        paths = [*config.authorities, *config.crl, *config.chain_certificates]
        if config.key is not None and config.certificate is not None:
            paths += [config.key, config.certificate]
        super().__init__(plane, owner, paths)

    def _options(self) -> tuple[dict[str, Any], list[Certificate]]:
        config, place = self._config, f"{self.owner}, tls"
        own = []
        if config.key is not None and config.certificate is not None:
            own.append(read_certificate(place, config.key, config.certificate, config.chain_certificates))
        authorities = read_authorities(f"{place}.ca_certificates", config.ca_certificates)
        if config.trust_root is not None:
            authorities += read_authority(f"{place}.trust_root", config.trust_root)
        options = {
            "server": False,
            "certificates": [(item.chain, item.key, list(item.names)) for item in own],
            "ca": authorities,
            "default_ca": config.verify and not config.authorities,
            "verify": 2 if config.verify else 0,
            **split_ciphers(config.ciphers),
            "min_version": VERSIONS[config.min_version],
            "alpn": [],
            "crl": read_revocations(f"{place}.crl", config.crl),
        }
        return options, own
