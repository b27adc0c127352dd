"""TLS for tests: clients over sockets of the ``ssl`` module, the proxy's ``tls`` keys, and OpenSSL's own client."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.certificates import Certificates, Pair
from support.endpoints import Endpoint
from support.proxies import Config

TIMEOUT = 15.0


def client_context(
    ca: Path | None,
    client: Pair | None = None,
    *,
    low: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    high: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """What a client wants.

    :param ca: whose certificates it takes; None: anybody's.
    :param client: its own certificate.
    :param alpn: protocols to offer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(ca)
    context.minimum_version, context.maximum_version = low, high
    if client is not None:
        context.load_cert_chain(client.chain, client.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@dataclass(frozen=True)
class TlsEndpoint(Endpoint):
    """An endpoint behind TLS.

    :param context: what :meth:`connect` wants of it.
    :param server_name: to ask for.
    """

    context: ssl.SSLContext = field(default_factory=lambda: client_context(None), compare=False, repr=False)
    server_name: str = "localhost"

    @classmethod
    def over(cls, endpoint: Endpoint, context: ssl.SSLContext, server_name: str = "localhost") -> TlsEndpoint:
        """The same endpoint, with TLS."""
        plain = (endpoint.kind, endpoint.port, endpoint.path, endpoint.resource, endpoint.host)
        return cls(*plain, context=context, server_name=server_name)

    @property
    def url(self) -> str:
        """See :class:`Endpoint`."""
        scheme, _, rest = super().url.partition("://")
        return f"{scheme}s://{rest}"

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """A connected socket after the handshake; raises OSError, of which ssl.SSLError is one."""
        plain = super().connect(timeout)
        try:
            return self.context.wrap_socket(plain, server_hostname=self.server_name)
        except BaseException:
            plain.close()
            raise


def listen(
    config: Config, kind: str, name: str, pair: Pair, *, tls: dict[str, Any] | None = None, **keys: Any
) -> Endpoint:
    """Add a listening transport with TLS to a configuration; the endpoint as it is without.

    :param pair: the server's certificate.
    :param tls: more keys of the endpoint's ``tls``; ``keys``: more of the transport.
    """
    endpoint = config.listen(kind, name, **keys)
    config.transports[-1]["endpoint"]["tls"] = {**pair.tls, **(tls or {})}
    return endpoint


def s_client(endpoint: Endpoint, made: Certificates, *options: str, talk: bytes = b"") -> tuple[int, str]:
    """Connect with ``openssl s_client``.

    :param options: more of the command line.
    :param talk: what it is to send.
    :returns: its exit code and all that it printed.
    """
    program = shutil.which("openssl")
    assert program is not None
    command = [program, "s_client", "-connect", f"{endpoint.host}:{endpoint.port}", "-CAfile", str(made.ca)]
    command += ["-servername", "localhost", *options]
    done = subprocess.run(command, input=talk, capture_output=True, timeout=TIMEOUT, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")
