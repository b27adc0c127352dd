"""The real routers behind the proxy: Crossbar.io and xconn's, each a child process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import raw
from support.endpoints import Endpoint, free_port
from support.process import Child, peer_environment, wait_until

ROOT = Path(__file__).resolve().parents[2]
REALM = "realm1"
META_REALM = "realm2"
"""A second realm, where nobody is but the sessions of one test."""
HISTORY_REALM = "realm3"
HISTORY_TOPIC = "com.example.history"
"""The realm and the topic whose events Crossbar.io keeps."""


def find_crossbar() -> str | None:
    """Path of the ``crossbar`` program: $CROSSBAR, the project's environment of peers, or PATH; None without one."""
    named = os.environ.get("CROSSBAR")
    if named:
        return shutil.which(named)
    local = ROOT / ".venv-peers" / "bin" / "crossbar"
    return str(local) if local.exists() else shutil.which("crossbar")


class Router:
    """A running router.

    ``direct`` holds the endpoints clients use without a proxy, by transport name (``ws-tcp``, ``rs-tcp``, ``rs-unix``);
    ``backends`` the connection items a proxy uses, by a name of our own; ``translating`` those that speak one
    serializer only, by its name, and ``any``, which speaks the client's own.
    """

    name = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.direct: dict[str, Endpoint] = {}
        self.backends: dict[str, dict[str, Any]] = {}
        self.child: Child

    @property
    def translating(self) -> dict[str, dict[str, Any]]:
        """Connection items by the only serializer they speak; CBOR goes over WebSocket, the others over RawSocket."""
        auth: dict[str, Any] = {"anonymous": {"type": "static"}}
        items: dict[str, dict[str, Any]] = {"any": {"transport": self.any_serializer.as_backend(), "auth": auth}}
        for serializer, transport in (("json", "rs-unix"), ("msgpack", "rs-tcp"), ("cbor", "ws-tcp")):
            way = self.direct[transport].as_backend() | {"serializers": [serializer]}
            items[serializer] = {"transport": way | {"serializer": serializer}, "auth": auth}
        return items

    @property
    def any_serializer(self) -> Endpoint:
        """The endpoint that takes the most serializers."""
        return self.direct["ws-tcp"]

    def add_direct(self, **endpoints: Endpoint) -> None:
        """Take endpoints under their transport names."""
        for endpoint in endpoints.values():
            self.direct[endpoint.transport] = endpoint

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until every endpoint takes connections."""
        for endpoint in self.direct.values():
            wait_until(lambda e=endpoint: self._answers(e), f"{self.name} listens on {endpoint}", timeout, 0.1)

    def _answers(self, endpoint: Endpoint) -> bool:
        if self.child.process.poll() is not None:
            raise AssertionError(f"{self.name} ended\n{self.child.output}")
        try:
            raw.dial(endpoint).close()
            return True
        except (OSError, raw.PeerClosed, raw.HandshakeRefused):
            return False

    def stop(self) -> None:
        """End the router."""
        self.child.stop(timeout=20.0)


class CrossbarRouter(Router):
    """Crossbar.io with one realm; role ``anonymous`` may do everything and everything discloses who did it.

    The Unix socket ``proxy.sock`` takes identities that a proxy asserts (``anonymous-proxy``). ``rich`` is a WebSocket
    endpoint with compression and UBJSON beside the others, each of them batched, too (FlatBuffers it cannot serve).
    """

    name = "crossbar"
    environment: Mapping[str, str] = {}
    serializers: Mapping[str, list[str]] = {
        "websocket": ["json", "msgpack", "cbor", "ubjson"],
        "rawsocket": ["json", "msgpack", "cbor", "ubjson"],
    }

    def __init__(self, directory: Path, program: str) -> None:
        super().__init__(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.add_direct(
            ws=Endpoint("websocket", free_port()),
            rs=Endpoint("rawsocket", free_port()),
            unix=Endpoint("rawsocket", path=str(directory / "direct.sock")),
        )
        proxy = Endpoint("rawsocket", path=str(directory / "proxy.sock"))
        self.rich = Endpoint("websocket", free_port())
        (directory / "config.json").write_text(json.dumps(self._config(proxy)))
        self.backends = {
            "crossbar": {"transport": proxy.as_backend(), "auth": {"anonymous-proxy": {"type": "static"}}},
            "crossbar_rs": {"transport": self.direct["rs-tcp"].as_backend(), "auth": {"anonymous": {"type": "static"}}},
            "crossbar_ws": {"transport": self.direct["ws-tcp"].as_backend(), "auth": {"anonymous": {"type": "static"}}},
        }
        argv = [program, "start", "--cbdir", str(directory), "--loglevel", "warn"]
        self.child = Child(self.name, argv, cwd=directory, env={**peer_environment(), **self.environment})

    def _config(self, proxy: Endpoint) -> dict[str, Any]:
        everything = {"call": True, "register": True, "publish": True, "subscribe": True}
        permission = {
            "uri": "",
            "match": "prefix",
            "allow": everything,
            "disclose": {"caller": True, "publisher": True},
            "cache": True,
        }
        roles = [{"name": name, "permissions": [permission]} for name in ("anonymous", "guest")]
        transports: list[dict[str, Any]] = [
            {
                "type": endpoint.kind,
                "endpoint": endpoint.as_config(),
                "serializers": self.serializers[endpoint.kind],
            }
            for endpoint in [*self.direct.values(), proxy]
        ]
        transports[-1]["auth"] = {"anonymous-proxy": {"type": "static"}}
        rich = {"type": "websocket", "endpoint": self.rich.as_config(), "options": {"compression": {"deflate": {}}}}
        transports.append(rich | {"serializers": ["json", "msgpack", "cbor", "ubjson"]})
        realms: list[dict[str, Any]] = [{"name": name, "roles": roles} for name in (REALM, META_REALM, HISTORY_REALM)]
        history = {"uri": HISTORY_TOPIC, "match": "exact", "limit": 99}
        realms[2]["store"] = {"type": "memory", "event-history": [history]}
        return {
            "version": 2,
            "controller": {},
            "workers": [{"type": "router", "realms": realms, "transports": transports}],
        }

    def wait_ready(self, timeout: float = 90.0) -> None:
        """Wait for the transports, the proxy's included."""
        super().wait_ready(timeout)
        path = self.backends["crossbar"]["transport"]["endpoint"]["path"]
        wait_until(lambda: os.path.exists(path), "crossbar listens for proxies", timeout)
        wait_until(lambda: self._answers(self.rich), "crossbar listens with all serializers", timeout, 0.1)

    @property
    def any_serializer(self) -> Endpoint:
        """The endpoint that takes the most serializers."""
        return self.rich


class FlatBuffersRouter(CrossbarRouter):
    """Crossbar.io that speaks FlatBuffers over WebSocket, and only there.

    With its assertions it cannot: for every serializer it makes a batched one, too, which in the case of FlatBuffers
    asserts that it is not batched.
    """

    environment = {"PYTHONOPTIMIZE": "1"}
    serializers = {"websocket": ["flatbuffers", "cbor"], "rawsocket": ["json", "cbor"]}


class XconnRouter(Router):
    """xconn's router with one realm, over WebSocket and RawSocket.

    :param principals: whom it knows, see xconn_router.py; None: it takes anybody.
    """

    name = "xconn"

    def __init__(self, directory: Path, principals: Mapping[str, Mapping[str, str]] | None = None) -> None:
        super().__init__(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.add_direct(
            ws=Endpoint("websocket", free_port()),
            rs=Endpoint("rawsocket", free_port()),
            unix=Endpoint("rawsocket", path=str(directory / "rs.sock")),
            wsunix=Endpoint("websocket", path=str(directory / "ws.sock")),
        )
        names = {"xconn": "rs-unix", "xconn_rs": "rs-tcp", "xconn_ws": "ws-tcp", "xconn_ws_unix": "ws-unix"}
        self.backends = {
            name: {"transport": self.direct[transport].as_backend(), "auth": {"anonymous": {"type": "static"}}}
            for name, transport in names.items()
        }
        spec = json.dumps([endpoint.as_job() for endpoint in self.direct.values()])
        script = Path(__file__).with_name("xconn_router.py")
        self.child = Child(self.name, [sys.executable, str(script), REALM, spec, json.dumps(principals)], cwd=directory)


def unix_answers(path: str) -> bool:
    """Whether something listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
            return True
        except OSError:
            return False
