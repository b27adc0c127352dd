"""What is measured: ours, and the peers that do the same job."""

from peers.base import Backend, Peer, Unavailable
from peers.crossbar import Crossbar
from peers.direct import Direct
from peers.haproxy import HAProxy, HAProxyUnix
from peers.nginx import Nginx
from peers.ours import Ours, OursUnix

#: In the order in which a round goes through them.
ALL: tuple[type[Peer], ...] = (Ours, HAProxy, OursUnix, HAProxyUnix, Nginx, Crossbar, Direct)

__all__ = ["ALL", "Backend", "Peer", "Unavailable"]
