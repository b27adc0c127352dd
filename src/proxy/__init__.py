"""A proxy for WAMP: it decides in Python and moves bytes in C.

Clients connect over WebSocket or RawSocket; each is authenticated, joined to a backend router chosen by realm and
role, and from then on relayed by the compiled data plane. Start it with ``wamp-proxy run`` or ``wamp-proxy
quickstart``.
"""

__version__ = "0.1.0"
