"""What is measured: ours, and the peers that do the same job."""

from peers.base import Backend, Peer, Unavailable
from peers.crossbar import Crossbar, CrossbarTls
from peers.direct import Direct
from peers.haproxy import HAProxy, HAProxyTls, HAProxyTlsUnix, HAProxyUnix
from peers.nginx import Nginx, NginxTls
from peers.ours import VARIANTS, Ours, OursTls, OursTlsUnix, OursUnix

#: In the order in which a round goes through them.
ALL: tuple[type[Peer], ...] = (Ours, HAProxy, OursUnix, HAProxyUnix, Nginx, Crossbar, Direct)

#: Those with TLS in front of them.
TLS: tuple[type[Peer], ...] = (OursTls, HAProxyTls, OursTlsUnix, HAProxyTlsUnix, NginxTls, CrossbarTls)

#: And those that take part in the features' tables only.
EVERY: tuple[type[Peer], ...] = ALL + TLS + VARIANTS

__all__ = ["ALL", "EVERY", "TLS", "Backend", "Peer", "Unavailable"]
