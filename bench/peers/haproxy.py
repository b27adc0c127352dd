"""HAProxy in HTTP mode: it parses the upgrade request and then relays octets; it knows nothing of WAMP."""

from __future__ import annotations

import resource

from peers.base import Backend, Peer, find_program, output_of
from peers.certificates import Certificate

CONFIG = """\
global
    nbthread 1
    maxconn {maxconn}
    log stderr local0 crit
defaults
    mode http
    option http-ignore-probes
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend bench
{binds}
    default_backend router
backend router
    server router {server}
"""


class HAProxy(Peer):
    name = "haproxy"
    family = "haproxy"
    label = "HAProxy"

    def version(self) -> str:
        return " ".join(output_of(find_program("haproxy", "HAPROXY"), "-v").split()[:3])

    def setup(self) -> str:
        return "nbthread 1; mode http, WebSocket in, WebSocket over TCP loopback out"

    def server(self, backend: Backend) -> str:
        """Address of the router, as HAProxy writes it."""
        return f"127.0.0.1:{backend.port}"

    @staticmethod
    def bind(port: int, shown: Certificate | None) -> str:
        """A line of the frontend."""
        tls = f" ssl crt {shown.both} ssl-min-ver TLSv1.2 alpn http/1.1" if shown else ""
        return f"    bind 127.0.0.1:{port} backlog 4096{tls}"

    def command(self, backend: Backend) -> list[str]:
        config = self.workdir / "haproxy.cfg"
        maxconn = min(9000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 100)  # two descriptors to a session
        binds = "\n".join(self.bind(port, shown) for port, shown in self.listens().values())
        config.write_text(CONFIG.format(binds=binds, server=self.server(backend), maxconn=maxconn), encoding="utf-8")
        return [find_program("haproxy", "HAPROXY"), "-db", "-f", str(config)]


class HAProxyUnix(HAProxy):
    """The same with the router behind a Unix socket."""

    name = "haproxy-unix"
    label = "HAProxy, Unix"

    def setup(self) -> str:
        return "nbthread 1; mode http, WebSocket in, WebSocket over a Unix socket out"

    def server(self, backend: Backend) -> str:
        return f"unix@{backend.path}"


class HAProxyTls(HAProxy):
    """The same with TLS in front."""

    name = "haproxy-tls"
    label = "HAProxy, TLS"
    tls = True

    def setup(self) -> str:
        return "nbthread 1; mode http, WebSocket over TLS in, WebSocket over TCP loopback out"


class HAProxyTlsUnix(HAProxyUnix):
    """And the router behind a Unix socket."""

    name = "haproxy-tls-unix"
    label = "HAProxy, TLS, Unix"
    tls = True

    def setup(self) -> str:
        return "nbthread 1; mode http, WebSocket over TLS in, WebSocket over a Unix socket out"
