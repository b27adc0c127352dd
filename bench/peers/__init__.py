"""What is measured: ours, and the peers that do the same job."""

from peers.base import Backend, Peer, Unavailable
from peers.crossbar import Crossbar
from peers.direct import Direct
from peers.haproxy import HAProxy, HAProxyUnix
from peers.nginx import Nginx
from peers.ours import VARIANTS, Ours, OursUnix

#: In the order in which a round goes through them.
ALL: tuple[type[Peer], ...] = (Ours, HAProxy, OursUnix, HAProxyUnix, Nginx, Crossbar, Direct)

#: And those that take part in the features' tables only.
EVERY: tuple[type[Peer], ...] = ALL + VARIANTS

__all__ = ["ALL", "EVERY", "Backend", "Peer", "Unavailable"]
