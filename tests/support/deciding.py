"""Routers that decide themselves who a client is, by the same principals, for logins that are passed on to them."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

from support import raw
from support.endpoints import Endpoint, free_port
from support.principals import METHODS, PRINCIPALS, ROLE, static
from support.process import wait_until
from support.raw import INVOCATION, YIELD, Peer
from support.routers import CrossbarRouter, XconnRouter

PASSTHROUGH: dict[str, Any] = {"passthrough": {}}


class DecidingCrossbar(CrossbarRouter):
    """Crossbar.io with endpoints that know all principals.

    The one over the Unix socket would believe a proxy as well, so that a client which could name ``anonymous-proxy``
    there would be anyone.

    :ivar deciding: these endpoints, by kind.
    """

    deciding: dict[str, Endpoint]

    def _config(self, proxy: Endpoint) -> dict[str, Any]:
        config = super()._config(proxy)
        self.deciding = {
            "websocket": Endpoint("websocket", free_port()),
            "rawsocket": Endpoint("rawsocket", path=str(self.directory / "deciding.sock")),
        }
        auth = {"anonymous": {"type": "static"}} | {method: static(method) for method in METHODS}
        worker = config["workers"][0]
        for kind, endpoint in self.deciding.items():
            item = {"type": kind, "endpoint": endpoint.as_config(), "serializers": ["json", "msgpack", "cbor"]}
            worker["transports"].append(item | {"auth": auth})
        worker["transports"][-1]["auth"] = auth | {"anonymous-proxy": {"type": "static"}}
        return config

    def wait_ready(self, timeout: float = 90.0) -> None:
        """Wait for these endpoints, too."""
        super().wait_ready(timeout)
        for endpoint in self.deciding.values():
            wait_until(lambda e=endpoint: self._answers(e), f"crossbar listens on {endpoint}", timeout, 0.1)


class DecidingXconn(XconnRouter):
    """xconn's router that knows the principals of the methods that it has."""

    def __init__(self, directory: Path) -> None:
        principals = {}
        for what in ("ticket", "wampcra", "cryptosign"):
            item = PRINCIPALS[what]
            secret = item.known["authorized_keys"][0] if what == "cryptosign" else item.secret
            principals[item.authid] = {"method": item.method, "role": ROLE, "secret": secret}
        super().__init__(directory, principals)
        self.deciding = {"websocket": self.direct["ws-tcp"], "rawsocket": self.direct["rs-unix"]}


class Callee:
    """A session of the tests' own at a router, which adds numbers up and knows of sessions what their clients know.

    The second is for routers without the meta API of sessions.
    """

    def __init__(self, endpoint: Endpoint, *, knows_sessions: bool = False) -> None:
        self._peer: Peer = raw.dial(endpoint).join()
        self._work = {self._peer.register("com.example.sum"): lambda *values: sum(values)}
        if knows_sessions:
            self._work[self._peer.register("wamp.session.get")] = lambda session: {"session": session}
        self._peer.wire.sock.settimeout(None)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(raw.PeerClosed, OSError):
            while True:
                message = self._peer.recv()
                if message[0] == INVOCATION:
                    result = self._work[message[2]](*message[4])
                    self._peer.send([YIELD, message[1], {}, [result]])

    def stop(self) -> None:
        """Leave."""
        with contextlib.suppress(OSError):
            self._peer.wire.sock.shutdown(2)
        self._thread.join(10.0)
        self._peer.close()


def backend(endpoint: Endpoint, **transport: Any) -> dict[str, Any]:
    """The connection item for logins that are passed on to an endpoint; more keys of its transport."""
    return {"transport": endpoint.as_backend() | transport, "auth": PASSTHROUGH}
