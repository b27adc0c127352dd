"""TLS of a listening transport."""

from collections.abc import Sequence
from typing import Any, Final

from proxy.config.tls import TlsConfig
from proxy.plane import Plane
from proxy.tls.context import VERSIONS, TlsContext, split_ciphers
from proxy.tls.files import Certificate, read_authorities, read_certificate, read_revocations

__all__ = ["ServerTls"]

_VERIFY: Final = {"none": 0, "optional": 1, "required": 2}
ALPN: Final = (b"http/1.1",)

# Of TLS 1.2, those with forward secrecy and authenticated encryption. Every client of the last ten years has one.
CIPHERS: Final = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)


class ServerTls(TlsContext):
    """What clients of a transport are shown, and what is asked of them.

    :param config: ``tls`` of the endpoint.
    :param plane: the data plane.
    :param owner: for people: ``transport ws1``.
    :param alpn: protocols to agree on (RFC 7301), the preferred one first.
    :raises ConfigError: a file cannot be used, or OpenSSL refuses what is in them.
    """

    def __init__(self, config: TlsConfig, plane: Plane, owner: str, alpn: Sequence[bytes] = ALPN) -> None:
        self._config = config
        self._alpn = list(alpn)
        paths = [*config.ca_certificates, *config.crl]
        for item in (config, *config.sni):
            paths += [item.key, item.certificate, *item.chain_certificates]
        super().__init__(plane, owner, paths)

    def _options(self) -> tuple[dict[str, Any], list[Certificate]]:
        config, place = self._config, f"{self.owner}, tls"
        certificates = [read_certificate(place, config.key, config.certificate, config.chain_certificates)]
        for index, item in enumerate(config.sni):
            here = f"{place}.sni[{index}]"
            certificates.append(read_certificate(here, item.key, item.certificate, item.chain_certificates))
        ciphers = split_ciphers(config.ciphers)
        options = {
            "server": True,
            "certificates": [(item.chain, item.key, list(item.names)) for item in certificates],
            "ca": read_authorities(f"{place}.ca_certificates", config.ca_certificates),
            "default_ca": False,
            "verify": _VERIFY[config.verifies_clients],
            "ciphers": ciphers["ciphers"] or CIPHERS,
            "ciphersuites": ciphers["ciphersuites"],
            "min_version": VERSIONS[config.min_version],
            "alpn": list(self._alpn),
            "crl": read_revocations(f"{place}.crl", config.crl),
        }
        return options, certificates
