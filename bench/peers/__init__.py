"""What is measured: ours, and the peers that do the same job."""

from peers.base import Backend, Peer, Unavailable
from peers.crossbar import Crossbar
from peers.direct import Direct
from peers.haproxy import HAProxy
from peers.nginx import Nginx
from peers.ours import Ours

#: In the order in which a round goes through them.
ALL: tuple[type[Peer], ...] = (Ours, HAProxy, Nginx, Crossbar, Direct)

__all__ = ["ALL", "Backend", "Peer", "Unavailable"]
