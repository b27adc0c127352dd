"""A proxy between clients and routers that a test plays by hand, with a configuration in a few lines."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from support import extended, raw
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import WELCOME, Peer, hello
from support.stub import RefusedSerializer, StubRouter


class Stage:
    """Stub routers, the proxy in front of them, and its sessions.

    Add stubs and fronts, then start(). Every stub is reached by a role of its own name.

    :param directory: for Unix sockets and the configuration.
    """

    def __init__(self, directory: Path) -> None:
        self.config = Config(directory)
        self.directory = directory
        self.stubs: dict[str, StubRouter] = {}
        self.fronts: dict[str, tuple[Endpoint, StubRouter]] = {}
        self.proxy: ProxyProcess
        self.refused: list[str] = []
        """Serializers that stubs have refused, in order."""
        self._numbers = itertools.count(1)

    def add_stub(self, name: str = "anonymous", kind: str = "rawsocket", *, stub: Any = None, **keys: Any) -> Stage:
        """Add a router; ``stub``: keywords of StubRouter; ``keys``: more of the connection's ``transport``."""
        endpoint = Endpoint(kind, path=str(self.directory / f"{name}.sock"))
        self.stubs[name] = StubRouter(endpoint, **(stub or {}))
        item = {"transport": endpoint.as_backend() | keys, "auth": {"anonymous": {"type": "static"}}}
        self.config.backend(f"to_{name}", item, role=name)
        return self

    def add_front(self, name: str, kind: str = "websocket", *, to: str = "anonymous", **keys: Any) -> Stage:
        """Add a listening transport whose clients go to stub ``to``; ``keys`` as for Config.listen()."""
        keys.setdefault("limits", {"close_timeout": 500})
        self.fronts[name] = (self.config.listen(kind, name, role=to, **keys), self.stubs[to])
        return self

    def start(self, **keys: Any) -> Stage:
        """Start the proxy."""
        self.proxy = ProxyProcess(self.config, **keys)
        return self

    def dial(self, front: str, serializer: str = "cbor", **keys: Any) -> Any:
        """A client's connection; ``keys`` are those of extended.dial() (WebSocket) or raw.dial()."""
        endpoint = self.fronts[front][0]
        return (extended if endpoint.kind == "websocket" else raw).dial(endpoint, serializer, **keys)

    def session(self, front: str, serializer: str = "cbor", **keys: Any) -> tuple[Any, Peer]:
        """A joined session: (client, router's end); ``keys`` as for dial()."""
        return self.join(front, self.dial(front, serializer, **keys))

    def join(self, front: str, client: Any) -> tuple[Any, Peer]:
        """Log a client in: (client, router's end); the router's session ID is never the same."""
        client.send(hello())
        router = self.accept(front)
        client.welcome = client.recv_type(WELCOME)
        client.session = client.welcome[1]
        return client, router

    def accept(self, front: str) -> Peer:
        """The router's end of the next session of a front; serializers that the stub refuses are noted on the way."""
        while True:
            try:
                return self.fronts[front][1].accept_session(2**52 + next(self._numbers))[0]
            except RefusedSerializer as refused:
                self.refused.append(str(refused))

    def close(self) -> None:
        """End; asserts that the proxy is idle, and ends in order."""
        self.proxy.check_idle()
        self.proxy.stop()
        for stub in self.stubs.values():
            stub.close()
