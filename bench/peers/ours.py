"""wamp-proxy itself: WebSocket in, RawSocket out, with one data thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from peers.base import PROJECT, Backend, Peer, Unavailable, free_port
from peers.certificates import Certificate
from peers.users import ROLE, methods


class Ours(Peer):
    name = "ours"
    family = "ours"
    label = "wamp-proxy"
    authenticates = True
    #: What is spoken to a router that refuses the client's own serializer.
    serializer = "cbor"
    #: How it logs in at the router.
    router_auth = "anonymous"
    #: Keys of the listening transport beside those that are always there.
    options: dict[str, Any] = {}

    def version(self) -> str:
        command = [sys.executable, "-c", "import proxy, proxy._relay; print(proxy.__version__)"]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), check=False)
        if done.returncode:
            raise Unavailable(f"it does not import: {done.stderr.strip().splitlines()[-1]}")
        return f"wamp-proxy {done.stdout.strip()}"

    def setup(self) -> str:
        return "1 data thread; WebSocket in, RawSocket over TCP loopback out, logs in there as anonymous"

    def environment(self) -> dict[str, str]:
        sources = os.pathsep.join(filter(None, (str(PROJECT / "src"), os.environ.get("PYTHONPATH", ""))))
        return {**os.environ, "PYTHONPATH": sources}

    def endpoint(self, backend: Backend) -> dict[str, Any]:
        """Where the router is, in the proxy's configuration."""
        return {"type": "tcp", "host": "127.0.0.1", "port": backend.port}

    def transports(self) -> list[dict[str, Any]]:
        """The listening transports; the first one is what is measured."""
        return [self.transport(name, *listen) | self.options for name, listen in self.listens().items()]

    @staticmethod
    def transport(name: str, port: int, shown: Certificate | None = None) -> dict[str, Any]:
        """A listening transport without options."""
        tls = {"tls": {"key": str(shown.key), "certificate": str(shown.certificate)}} if shown else {}
        return {
            "type": "websocket",
            "id": name,
            "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": port, "backlog": 4096} | tls,
            "auth": methods(),
        }

    def connection(self, backend: Backend) -> dict[str, Any]:
        """A way to a router."""
        return {
            "transport": {
                "type": "rawsocket",
                "endpoint": self.endpoint(backend),
                "serializer": self.serializer,
            },
            "auth": {self.router_auth: {}},
        }

    def command(self, backend: Backend) -> list[str]:
        backends = {"realm1": backend} | ({"calm": backend.calm} if backend.calm else {})
        config = {
            "type": "proxy",
            "connections": {realm: self.connection(to) for realm, to in backends.items()},
            "routes": {realm: {ROLE: realm} for realm in backends},
            "transports": self.transports(),
        }
        (self.workdir / "proxy.json").write_text(json.dumps(config), encoding="utf-8")
        options = os.environ.get("BENCH_OURS_OPTIONS", "--threads 1 --log-level warn").split()
        return [sys.executable, "-m", "proxy", "run", str(self.workdir / "proxy.json"), *options]


class OursUnix(Ours):
    """The same with the router behind a Unix socket, as beside a Crossbar.io node."""

    name = "ours-unix"
    label = "wamp-proxy, Unix"

    def setup(self) -> str:
        return "1 data thread; WebSocket in, RawSocket over a Unix socket out, logs in there as anonymous"

    def endpoint(self, backend: Backend) -> dict[str, Any]:
        return {"type": "unix", "path": str(backend.path)}


class OursAsserting(OursUnix):
    """The router takes its word for who a client is, as Crossbar.io's routers do behind a Unix socket."""

    name = "ours-asserting"
    label = "wamp-proxy, Unix, anonymous-proxy"
    router_auth = "anonymous-proxy"
    router_options = ("--authmethod", "anonymous-proxy")

    def setup(self) -> str:
        return "1 data thread; WebSocket in, RawSocket over a Unix socket out, anonymous-proxy"


class OursTls(Ours):
    """Clients come with TLS."""

    name = "ours-tls"
    label = "wamp-proxy, TLS"
    tls = True

    def setup(self) -> str:
        return "1 data thread; WebSocket over TLS in, RawSocket over TCP loopback out, logs in there as anonymous"


class OursTlsUnix(OursUnix):
    """And the router is behind a Unix socket."""

    name = "ours-tls-unix"
    label = "wamp-proxy, TLS, Unix"
    tls = True

    def setup(self) -> str:
        return "1 data thread; WebSocket over TLS in, RawSocket over a Unix socket out, logs in there as anonymous"


class OursAgain(Ours):
    """A second process of the very same: what differs between the two is nothing that we did."""

    name = "ours-again"
    label = "wamp-proxy, again"


class OursRouterIds(Ours):
    """Session IDs are the router's, in a worker that keeps a map because of another transport; nobody is there."""

    name = "ours-ids-router"
    label = 'wamp-proxy, session_ids "router"'

    def setup(self) -> str:
        return f'{super().setup()}; beside it a transport with session_ids "proxy" that nobody uses'

    def transports(self) -> list[dict[str, Any]]:
        return [*super().transports(), self.transport("unused", free_port()) | {"session_ids": "proxy"}]


class OursProxyIds(Ours):
    """Session IDs are the proxy's: every one in a message is replaced."""

    name = "ours-ids-proxy"
    label = 'wamp-proxy, session_ids "proxy"'
    options = {"session_ids": "proxy"}
    replaces_session_ids = True

    def setup(self) -> str:
        return f'{super().setup()}; session_ids "proxy"'


class OursTranslating(OursUnix):
    """In front of a router that speaks one serializer only."""

    def setup(self) -> str:
        return f"{super().setup()}; the router speaks nothing but {self.serializer}"


class OursToCbor(OursTranslating):
    name = "ours-to-cbor"
    label = "wamp-proxy, Unix, to CBOR"
    serializer = "cbor"
    router_options = ("--serializers", "cbor")


class OursToMsgpack(OursTranslating):
    name = "ours-to-msgpack"
    label = "wamp-proxy, Unix, to MessagePack"
    serializer = "msgpack"
    router_options = ("--serializers", "msgpack")


class OursToJson(OursTranslating):
    name = "ours-to-json"
    label = "wamp-proxy, Unix, to JSON"
    serializer = "json"
    router_options = ("--serializers", "json")


class OursDeflate(OursUnix):
    """Offers permessage-deflate; its clients decide whether to use it."""

    name = "ours-deflate"
    label = "wamp-proxy, Unix, permessage-deflate"
    options = {"options": {"compression": {"deflate": {}}}}

    def setup(self) -> str:
        return f"{super().setup()}; permessage-deflate with its default parameters"


#: Set-ups for the tables of the features.
VARIANTS = (OursAsserting, OursAgain, OursRouterIds, OursProxyIds, OursToCbor, OursToMsgpack, OursToJson, OursDeflate)
