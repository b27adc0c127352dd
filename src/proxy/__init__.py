"""A proxy for WAMP: it decides in Python and moves bytes in C.

Clients connect over WebSocket or RawSocket; each is authenticated, joined to a backend router chosen by realm and
role, and from then on relayed by the compiled data plane. Start it with ``wamp-proxy run`` or ``wamp-proxy
quickstart``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from proxy.connections import ProxyConnection
    from proxy.controller import ProxyController
    from proxy.node import ProxyWorkerProcess
    from proxy.routes import ProxyRoute
    from proxy.transports import ProxyTransport

__all__ = ["ProxyConnection", "ProxyController", "ProxyRoute", "ProxyTransport", "ProxyWorkerProcess", "__version__"]

__version__ = "0.1.0"

# Looked up when they are asked for: the command line must work, and say what is missing, without the compiled part.
_HOMES: Final = {
    "ProxyConnection": "proxy.connections",
    "ProxyController": "proxy.controller",
    "ProxyRoute": "proxy.routes",
    "ProxyTransport": "proxy.transports",
    "ProxyWorkerProcess": "proxy.node",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
