"""Where a peer listens, in one form for every client and both routers."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Endpoint:
    """A listening WAMP transport.

    :param kind: ``websocket``, ``rawsocket`` or ``longpoll``.
    :param port: TCP port on 127.0.0.1, 0 for a Unix socket.
    :param path: path of the Unix socket, empty for TCP.
    :param resource: what a WebSocket client asks for, or the path of a long-poll service.
    """

    kind: str
    port: int = 0
    path: str = ""
    resource: str = "/ws"
    host: str = "127.0.0.1"

    @property
    def transport(self) -> str:
        """Name used in test ids: ``ws-tcp``, ``ws-unix``, ``rs-tcp`` or ``rs-unix``."""
        return f"{'ws' if self.kind == 'websocket' else 'rs'}-{'unix' if self.path else 'tcp'}"

    @property
    def authority(self) -> str:
        """Host and port as a URL and the Host header have them; a Unix socket has no better name than localhost."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return "localhost" if self.path else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL clients use; for Unix sockets only the part behind the host matters."""
        if self.kind == "rawsocket":
            return f"rs://{self.authority}"
        return f"{'ws' if self.kind == 'websocket' else 'http'}://{self.authority}{self.resource}"

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """A connected socket; raises OSError."""
        if self.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            try:
                sock.connect(self.path)
            except OSError:
                sock.close()
                raise
            return sock
        sock = socket.create_connection((self.host, self.port), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def as_config(self) -> dict[str, Any]:
        """The ``endpoint`` a listening transport has in the proxy's config."""
        if self.path:
            return {"type": "unix", "path": self.path}
        return {"type": "tcp", "interface": self.host, "port": self.port, "backlog": 1024}

    def as_backend(self) -> dict[str, Any]:
        """The ``transport`` of a connection item in the proxy's config."""
        if self.path:
            endpoint: dict[str, Any] = {"type": "unix", "path": self.path}
        else:
            endpoint = {"type": "tcp", "host": self.host, "port": self.port}
        if self.kind == "websocket":
            return {"type": "websocket", "url": self.url, "endpoint": endpoint}
        return {"type": "rawsocket", "endpoint": endpoint, "serializer": "cbor"}

    def as_job(self) -> dict[str, Any]:
        """What a client process is told."""
        return asdict(self) | {"url": self.url}


def free_port() -> int:
    """A TCP port nobody listens on just now. Tests that run at the same time get different ones."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        if port // 2 % workers == worker:  # the kernel prefers ports of one parity
            return port
